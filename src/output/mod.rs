pub(crate) mod file_name;
pub(crate) mod method;
pub(crate) mod mmap;
pub(crate) mod private_file;
pub(crate) mod share;
pub(crate) mod sink;
pub(crate) mod staging;
pub(crate) mod writeback;

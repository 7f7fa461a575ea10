pub(crate) mod archive;
pub(crate) mod glob;
pub(crate) mod input;
pub(crate) mod paths;
pub(crate) mod shards;
pub(crate) mod stamp;
pub(crate) mod stored_file;

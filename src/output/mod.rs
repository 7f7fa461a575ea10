//! Writes `.npy` files: their names, private and final, their space and pages, and the limit on dirty pages.
//!
//! This module does not know where elements come from or how they are converted: callers fill windows or pass bytes. Start with
//! [`sink`] for the data of one file and [`staging`] for how outputs get their final names.

pub(crate) mod background;
pub(crate) mod direct;
pub(crate) mod edges;
pub(crate) mod file_name;
pub(crate) mod meter;
pub(crate) mod method;
pub(crate) mod mmap;
pub(crate) mod part;
pub(crate) mod place;
pub(crate) mod private_file;
pub(crate) mod report;
pub(crate) mod share;
pub(crate) mod sink;
pub(crate) mod staging;
pub(crate) mod stream;
pub(crate) mod writeback;

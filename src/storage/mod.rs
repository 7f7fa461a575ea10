//! Access to stored bytes: blobs with a length, reads by position and change detection, and storage that opens and lists them.
//!
//! Formats read through a [`Storage`](blob::Storage) and never open files themselves. This room does not interpret contents,
//! except for ZIP directories. Start with `blob.rs` (the traits) and `local.rs` (files); `probe.rs` caches what was found at a
//! path.

pub(crate) mod archive;
pub(crate) mod blob;
pub(crate) mod glob;
pub(crate) mod input;
pub(crate) mod local;
pub(crate) mod memory;
pub(crate) mod paths;
pub(crate) mod probe;
pub(crate) mod shards;
pub(crate) mod stamp;

//! Where bytes lie: blobs with a length, ranges and an identity, and places that open and list them.
//!
//! Formats get what they read from a [`Storage`](blob::Storage) and never open a file themselves.

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

//! Sources: what a path leads to, and the elements that each format has.

mod arrays;
pub(crate) mod contract;
mod fixtures;
mod graphs;
mod hdf5;
mod hostile;
#[cfg(target_os = "linux")]
mod page_cache;
mod places;
mod protos;
mod reading;
mod same_files;
mod sources;
mod video;

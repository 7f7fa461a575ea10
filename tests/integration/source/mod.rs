//! Sources: what a path leads to, and the elements that each format has.

mod arrays;
pub(crate) mod contract;
mod fixtures;
mod graphs;
mod hdf5;
mod hostile;
mod places;
mod protos;
mod reading;
mod same_files;
mod sources;
mod video;

//! One test binary, a module a topic.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "test data are small")]
#![allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "small whole numbers are exact")]

#[path = "../support/bundle.rs"]
mod bundle;
#[path = "../support/records.rs"]
mod record_files;

mod arrays;
mod casts;
mod choices;
mod cli;
mod contract;
mod documents;
mod faults;
mod fixtures;
mod forms;
mod graphs;
mod hdf5;
mod hostile;
mod interrupts;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod lacking;
mod laws;
mod lists;
mod methods;
#[cfg(target_os = "linux")]
mod outputs;
mod packed;
mod passes;
mod places;
mod protos;
mod reading;
mod records;
mod same_files;
mod sources;
mod support;
#[cfg(target_os = "linux")]
mod undo;
mod video;
mod writer;

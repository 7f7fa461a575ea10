//! One test binary, a module a topic.

#[path = "../support/bundle.rs"]
mod bundle;

mod cli;
mod faults;
mod fixtures;
mod hostile;
mod laws;
mod sources;
mod support;
mod writer;

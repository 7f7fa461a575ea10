//! One test binary, a module a topic.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "test data are small")]

#[path = "../support/bundle.rs"]
mod bundle;

mod cli;
mod faults;
mod fixtures;
mod hostile;
mod laws;
mod methods;
mod sources;
mod support;
mod writer;

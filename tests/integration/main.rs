//! What users see, compared with the reference and with laws. One test binary; its modules are named for the rooms of `src/`.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "test data are small")]
#![allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "small whole numbers are exact")]

#[path = "../support/bundle.rs"]
mod bundle;
#[path = "../support/records.rs"]
mod record_files;

mod cast;
mod convert;
mod documents;
#[cfg(target_os = "linux")]
mod kernel;
mod options;
mod output;
mod program;
mod records;
mod source;
mod support;
mod writer;

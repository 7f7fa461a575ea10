//! The result of an export for each tensor.

use std::path::PathBuf;

use crate::output::report::Report;
use crate::types::name::Name;

/// One array in the directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported {
    /// The tensor's name.
    pub name: Name,
    /// The array's file.
    pub path: PathBuf,
    /// The report of its conversion.
    pub report: Report,
}

/// One tensor that was not converted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Skipped {
    /// The tensor's name.
    pub name: Name,
    /// The reason.
    pub reason: String,
}

//! A failure in a pass, and its place.

use crate::error::Error;

/// Why a pass failed, and in which column if one is to blame.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) column: Option<usize>,
    /// The record that revealed it, counted among the selected records, if a column is to blame.
    pub(crate) record: u64,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { column: None, record: 0, error }
    }
}

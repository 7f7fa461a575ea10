//! What ends a pass, and where.

use crate::error::Error;

/// Why a pass failed, and over which column if it is because of one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) column: Option<usize>,
    /// The number of the record that shows it, among those that are wanted, where it is because of one.
    pub(crate) record: u64,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { column: None, record: 0, error }
    }
}

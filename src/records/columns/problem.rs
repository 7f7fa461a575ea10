//! Why a record has no row.

use crate::error::ParseError;

/// Why a record has no row.
#[derive(Debug)]
pub(crate) enum Problem {
    Broken(ParseError),
    /// It lacks the feature.
    Missing,
    /// It differs from the other records.
    Odd(String),
    /// A string that the array would truncate or cannot hold.
    Lossy(String),
    /// A value that cannot be decoded.
    Bad(String),
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        Self::Broken(error)
    }
}

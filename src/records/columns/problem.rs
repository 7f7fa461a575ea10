//! Why a record has no row.

use crate::error::ParseError;

/// Why a record has no row.
#[derive(Debug)]
pub(crate) enum Problem {
    Broken(ParseError),
    /// It lacks the feature.
    Missing,
    /// It has something else than the others.
    Odd(String),
    /// A string that would lose something.
    Lossy(String),
    /// A value that cannot be decoded.
    Bad(String),
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        Self::Broken(error)
    }
}

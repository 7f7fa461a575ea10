//! Errors while reading the metadata of an HDF5 file.

use crate::error::{Error, ParseError};

/// The result of a parser.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a part of an HDF5 file could not be read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file breaks its format. The offset counts from the start of the storage.
    Broken(ParseError),
    /// The format allows it, but it is not supported here. The text names it.
    Unsupported(String),
    /// The bytes could not be read.
    Read(Error),
}

impl Failure {
    /// A broken part of the format at a byte of the storage.
    pub(crate) fn broken(at: u64, what: &'static str, detail: impl Into<String>) -> Self {
        Self::Broken(ParseError { offset: at, what, detail: detail.into() })
    }
}

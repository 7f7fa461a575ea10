//! The part of a file that is an HDF5 file, for the parsers.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::hdf5::failure::Failure;
use crate::format::hdf5::image::Storage;
use crate::source::StoredFile;

/// What messages call the whole.
pub(super) const WHAT: &str = "HDF5 file";

/// A range of a file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: Arc<StoredFile>,
    pub(super) range: Range<u64>,
}

impl Storage for Part {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let calls = self.file.calls();
        calls.cancel().check()?;
        self.file.read(self.range.start.saturating_add(at), buf, calls)
    }
}

impl Part {
    /// Where a byte of the HDF5 file lies in the file.
    pub(super) fn offset(&self, at: u64) -> u64 {
        self.range.start.saturating_add(at)
    }

    /// The error for a failure in `what`.
    pub(super) fn error(&self, what: impl Into<String>, failure: Failure) -> Error {
        let path = self.file.path();
        match failure {
            Failure::Broken(error) => {
                Error::malformed_at(path, what, self.offset(error.offset), format!("{}: {}", error.what, error.detail))
            }
            Failure::Unsupported(detail) => Error::Unsupported { what: format!("{} in {}", what.into(), path.display()), detail },
            Failure::Read(error) => error,
        }
    }
}

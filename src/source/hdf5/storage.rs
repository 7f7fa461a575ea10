//! The part of a file that the HDF5 parsers may read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::format::hdf5::failure::Failure;
use crate::format::hdf5::image::ImageBytes;
use crate::storage::blob::Blob;

/// The word for the whole file in messages.
pub(crate) const WHAT: &str = "HDF5 file";

/// Bytes that may be read to list datasets, per byte of the file. Files whose objects do not overlap need less.
const MOST_READ: u64 = 32;
/// The least limit, for short files.
const LEAST_READ: u64 = 64 << 20;

/// A range of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileRange {
    pub(crate) file: Arc<dyn Blob>,
    range: Range<u64>,
    /// Bytes that may still be read.
    left: Arc<AtomicU64>,
}

impl ImageBytes for FileRange {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let calls = self.file.calls();
        calls.cancel().check()?;
        let len = buf.len() as u64;
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len)).is_err() {
            let detail = "its objects overlap: listing them would read many times the file's size";
            return Err(Error::malformed_at(self.file.path(), WHAT, self.offset(at), detail));
        }
        self.file.read(self.range.start.saturating_add(at), buf, calls)
    }
}

impl FileRange {
    pub(crate) fn new(file: &Arc<dyn Blob>, range: Range<u64>) -> Self {
        let left = (range.end - range.start).saturating_mul(MOST_READ).saturating_add(LEAST_READ);
        Self { file: Arc::clone(file), range, left: Arc::new(left.into()) }
    }

    /// Lifts the limit after listing. Reading a dataset has limits of its own.
    pub(crate) fn listed(&self) {
        self.left.store(u64::MAX, Ordering::Relaxed);
    }

    /// The offset in the file of a byte of the HDF5 file.
    pub(crate) fn offset(&self, at: u64) -> u64 {
        self.range.start.saturating_add(at)
    }

    /// The error for a failure in `what`.
    pub(crate) fn error(&self, what: impl Into<String>, failure: Failure) -> Error {
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

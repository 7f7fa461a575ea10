//! Blobs: bytes that are read by position. Storage: where blobs are found under paths.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::Found;
use crate::error::{Error, Result};
use crate::os::SystemCalls;
use crate::types::size::memory_len;

/// The longest file of metadata; those of the largest datasets have a few hundred kilobytes.
const MOST_SMALL: u64 = 16 << 20;

/// Bytes that are read by position and must not change: a file, or bytes in memory.
///
/// A blob with a [local file](Self::local_file) also allows finding its holes, sharing its blocks and mapping its pages; all else
/// goes through [`read`](Self::read).
pub(crate) trait Blob: fmt::Debug + Send + Sync {
    /// The path for messages.
    fn path(&self) -> &Arc<Path>;
    /// The length in bytes.
    fn len(&self) -> u64;
    /// Which system calls are allowed for metadata. Reads of elements get theirs from the caller.
    fn calls(&self) -> &SystemCalls;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] if the blob is too short or was modified since it was opened, or [`Error::Io`].
    fn read(&self, offset: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()>;
    /// Fails if the blob has changed since it was opened.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] or [`Error::Io`].
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
    /// The local file behind this blob, if any.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] if the file was modified since it was opened, or [`Error::Io`].
    fn local_file(&self) -> Result<Option<Arc<File>>> {
        Ok(None)
    }
    /// Heap bytes held by the blob.
    fn heap_bytes(&self) -> u64 {
        0
    }
    /// Whether reads leave nothing in the page cache, because little of the file was cached before.
    fn is_cold(&self) -> bool {
        false
    }
    /// Starts to fetch `range` in the background.
    fn prefetch(&self, _range: &Range<u64>, _calls: &SystemCalls) {}
    /// Evicts `range` from the cache.
    fn evict(&self, _range: &Range<u64>, _calls: &SystemCalls) {}

    /// Reads a range of at most `most` bytes.
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read), and [`Error::Limit`] for more than `most` bytes.
    fn read_range(&self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        check_most(self.path(), range, most)?;
        let mut bytes = vec![0; memory_len(range.end - range.start)];
        self.read(range.start, &mut bytes, self.calls())?;
        Ok(bytes)
    }

    /// Reads the first bytes, at most `most`.
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read).
    fn front(&self, most: usize) -> Result<Vec<u8>> {
        let len = self.len().min(most as u64);
        self.read_range(&(0..len), len)
    }
}

/// Refuses a range of more than `most` bytes.
///
/// # Errors
/// Returns [`Error::Limit`].
pub(crate) fn check_most(path: &Path, range: &Range<u64>, most: u64) -> Result<()> {
    let asked = range.end - range.start;
    if asked <= most {
        return Ok(());
    }
    Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(most) })
}

/// A place that holds blobs under paths. Formats find and open files only through it.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// What exists at a path; links are followed. Reports nothing only if the path certainly does not exist.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    fn look_at(&self, path: &Path) -> Result<Found>;
    /// Opens a file. Never blocks: pipes and devices are refused.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    fn open(&self, path: &Path) -> Result<Arc<dyn Blob>>;
    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;
    /// The length of a file in bytes, for estimates; `None` if it cannot be told.
    fn len_of(&self, path: &Path) -> Option<u64>;
    /// Whether a path is a symbolic link, which [`look_at`](Self::look_at) follows. It may lead nowhere.
    fn is_link(&self, _path: &Path) -> bool {
        false
    }

    /// Whether a path is a regular file.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    fn is_file(&self, path: &Path) -> Result<bool> {
        Ok(self.look_at(path)? == Found::File)
    }

    /// Reads a whole file of metadata.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] for a file that is too large for metadata, or [`Error::Io`].
    fn read_small(&self, path: &Path) -> Result<Vec<u8>> {
        let blob = self.open(path)?;
        if blob.len() > MOST_SMALL {
            let what = format!("memory for {}", path.display());
            return Err(Error::Limit { what, asked: blob.len(), allowed: Some(MOST_SMALL) });
        }
        blob.read_range(&(0..blob.len()), MOST_SMALL)
    }
}

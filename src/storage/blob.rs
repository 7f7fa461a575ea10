//! Bytes that lie somewhere, and places that hold them under paths.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::paths::Found;
use crate::error::{Error, Result};
use crate::os::SystemCalls;
use crate::types::size::memory_len;

/// The longest file of metadata; those of the largest datasets have some hundred kilobytes.
const MOST_SMALL: u64 = 16 << 20;

/// A run of bytes that is read at positions and has to stay as it was: a file, or bytes in memory.
///
/// Where there is a [local file](Self::local_file), its holes are found, its blocks shared and its pages mapped; everything else goes
/// through [`read`](Self::read).
pub(crate) trait Blob: fmt::Debug + Send + Sync {
    /// What messages call it.
    fn path(&self) -> &Arc<Path>;
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Which calls may be made for what it says of itself. Elements are read as whoever wants them says.
    fn calls(&self) -> &SystemCalls;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it ends before or was written to since it was opened, [`Error::Io`].
    fn read(&self, offset: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()>;
    /// Fails if it is not what it was when it was opened.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
    /// The local file that it is, if it is one.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it was written to since it was opened, [`Error::Io`].
    fn local_file(&self) -> Result<Option<Arc<File>>> {
        Ok(None)
    }
    /// Heap bytes that it holds.
    fn heap_bytes(&self) -> u64 {
        0
    }
    /// Whether reading it leaves nothing behind in a cache, because hardly anything was there before.
    fn is_cold(&self) -> bool {
        false
    }
    /// Lets `range` be fetched meanwhile.
    fn prefetch(&self, _range: &Range<u64>, _calls: &SystemCalls) {}
    /// Lets the memory of `range` in a cache be used for something else.
    fn evict(&self, _range: &Range<u64>, _calls: &SystemCalls) {}

    /// The bytes of a range that may be at most `most` long.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::Limit`] for more than `most`.
    fn read_range(&self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        check_most(self.path(), range, most)?;
        let mut bytes = vec![0; memory_len(range.end - range.start)];
        self.read(range.start, &mut bytes, self.calls())?;
        Ok(bytes)
    }

    /// The first bytes, at most so many.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn front(&self, most: usize) -> Result<Vec<u8>> {
        let len = self.len().min(most as u64);
        self.read_range(&(0..len), len)
    }
}

/// Refuses a range of more than `most` bytes.
///
/// # Errors
/// [`Error::Limit`].
pub(crate) fn check_most(path: &Path, range: &Range<u64>, most: u64) -> Result<()> {
    let asked = range.end - range.start;
    if asked <= most {
        return Ok(());
    }
    Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(most) })
}

/// A place that holds blobs under paths: the file system, or a map in memory.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// What lies at a path, links followed. Only what certainly is not there counts as nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn look_at(&self, path: &Path) -> Result<Found>;
    /// Opens what lies at a path. It waits for nobody: a pipe or a device is refused.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn open(&self, path: &Path) -> Result<Arc<dyn Blob>>;
    /// What lies in a directory, sorted by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;

    /// Whether a regular file lies at a path.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn is_file(&self, path: &Path) -> Result<bool> {
        Ok(self.look_at(path)? == Found::File)
    }

    /// Reads a file of metadata, whole.
    ///
    /// # Errors
    /// [`Error::Limit`] for one that is larger than such files are, [`Error::Io`].
    fn read_small(&self, path: &Path) -> Result<Vec<u8>> {
        let blob = self.open(path)?;
        if blob.len() > MOST_SMALL {
            let what = format!("memory for {}", path.display());
            return Err(Error::Limit { what, asked: blob.len(), allowed: Some(MOST_SMALL) });
        }
        blob.read_range(&(0..blob.len()), MOST_SMALL)
    }
}

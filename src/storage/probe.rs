//! Caches what was found at a path, for all formats that ask.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::blob::{Blob, Storage};
use super::paths::Found;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

/// The number of first bytes that are read at once when any of them is requested.
const FRONT: usize = 512;

/// A path and cached facts about it. It is looked at and opened once for all formats; clones share the cache.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    found: OnceLock<Found>,
    blob: OnceLock<Arc<dyn Blob>>,
    front: OnceLock<Vec<u8>>,
}

/// Probes of the same path are equal.
impl PartialEq for Probe {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for Probe {}

impl Probe {
    pub(crate) fn new(storage: &Arc<dyn Storage>, path: &Path) -> Self {
        let known = Known {
            storage: Arc::clone(storage),
            path: path.to_owned(),
            found: OnceLock::new(),
            blob: OnceLock::new(),
            front: OnceLock::new(),
        };
        Self { known: Arc::new(known) }
    }

    /// A probe of another path in the same storage.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> Self {
        if path.as_ref() == self.path() { self.clone() } else { Self::new(&self.known.storage, path.as_ref()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.known.path
    }

    /// The storage of the path.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.known.storage
    }

    /// What exists at the path.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn found(&self) -> Result<Found> {
        if let Some(found) = self.known.found.get() {
            return Ok(*found);
        }
        let found = self.known.storage.look_at(self.path())?;
        Ok(*self.known.found.get_or_init(|| found))
    }

    /// Whether the path is a regular file.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn is_file(&self) -> Result<bool> {
        Ok(self.found()? == Found::File)
    }

    /// Opens the file at the path.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn open(&self) -> Result<Arc<dyn Blob>> {
        if let Some(blob) = self.known.blob.get() {
            return Ok(Arc::clone(blob));
        }
        let blob = self.known.storage.open(self.path())?;
        Ok(Arc::clone(self.known.blob.get_or_init(|| blob)))
    }

    /// The first bytes of the file, or all of a shorter one. This is enough for any magic number.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn front(&self) -> Result<&[u8]> {
        if let Some(front) = self.known.front.get() {
            return Ok(front);
        }
        let front = self.open()?.front(FRONT)?;
        Ok(self.known.front.get_or_init(|| front))
    }

    /// Whether the path is a regular file that starts with these bytes.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn starts_with(&self, magic: &[u8]) -> Result<bool> {
        Ok(self.is_file()? && self.front()?.starts_with(magic))
    }
}

//! Local files as blobs, with few of them open at a time, and the local file system as storage.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::blob::{Blob, Storage};
use super::input::{InputFile, open_file};
use super::paths::{Found, list, look_at};
use super::stamp::Stamp;
use crate::error::{Error, Result};
use crate::os::SystemCalls;
use crate::os::residency::Residency;

/// Maximum number of open files of all sources together, so that arrays of thousands of files work under any descriptor limit.
const MOST_OPEN: usize = 32;

/// A file that is read by position. It is open only while needed, and must not change.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: Arc<Path>,
    len: u64,
    stamp: Stamp,
    calls: SystemCalls,
    opened: Mutex<Weak<Opened>>,
}

#[derive(Debug)]
struct Opened {
    file: InputFile,
    residency: Residency,
}

/// Keeps the most recently opened files open while their [`LocalFile`] is in use.
static RECENT: Mutex<VecDeque<Arc<Opened>>> = Mutex::new(VecDeque::new());

impl LocalFile {
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn open(path: &Path, calls: &SystemCalls) -> Result<Arc<Self>> {
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        let stamp = Stamp::of(&file).map_err(Error::io("look at", path))?;
        let opened = Mutex::new(Arc::downgrade(&remember(file)));
        Ok(Arc::new(Self { path: path.into(), len, stamp, calls: calls.clone(), opened }))
    }

    /// The open file; reopens it if needed.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] if the file was modified since it was first opened, or [`Error::Io`].
    fn opened(&self) -> Result<Arc<Opened>> {
        let mut known = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = known.upgrade() {
            return Ok(opened);
        }
        let file = open_file(&self.path, &self.calls).map_err(Error::io("open", &self.path))?;
        self.stamp.check(&file, &self.path)?;
        let opened = remember(file);
        *known = Arc::downgrade(&opened);
        Ok(opened)
    }
}

impl Blob for LocalFile {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn calls(&self) -> &SystemCalls {
        &self.calls
    }

    fn read(&self, offset: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        let opened = self.opened()?;
        opened.residency.read_exact_at(&opened.file, buf, offset, calls).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                let detail = format!("the file ends within the next {} bytes", buf.len());
                return Error::malformed_at(&self.path, "source", offset, detail);
            }
            Error::io("read", &self.path)(error)
        })
    }

    fn check_unchanged(&self) -> Result<()> {
        self.stamp.check(&self.opened()?.file, &self.path)
    }

    fn local_file(&self) -> Result<Option<Arc<File>>> {
        Ok(Some(self.opened()?.file.shared()))
    }

    fn is_cold(&self) -> bool {
        self.opened().is_ok_and(|opened| opened.residency.is_cold(&opened.file))
    }

    fn prefetch(&self, range: &Range<u64>, calls: &SystemCalls) {
        if let Ok(opened) = self.opened() {
            opened.residency.prefetch(&opened.file, range, calls);
        }
    }

    fn evict(&self, range: &Range<u64>, calls: &SystemCalls) {
        if let Ok(opened) = self.opened() {
            opened.residency.evict(&opened.file, range, calls);
        }
    }
}

/// The local file system.
#[derive(Debug, Clone)]
pub(crate) struct LocalStorage {
    calls: SystemCalls,
}

impl LocalStorage {
    /// Storage whose files may make these system calls.
    pub(crate) fn new(calls: SystemCalls) -> Self {
        Self { calls }
    }
}

impl Storage for LocalStorage {
    fn look_at(&self, path: &Path) -> Result<Found> {
        look_at(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Blob>> {
        Ok(LocalFile::open(path, &self.calls)?)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        list(dir)
    }

    fn len_of(&self, path: &Path) -> Option<u64> {
        std::fs::metadata(path).ok().map(|metadata| metadata.len())
    }

    fn is_link(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
    }
}

impl Drop for LocalFile {
    /// Closes the file, which nobody can request any more.
    fn drop(&mut self) {
        let opened = self.opened.get_mut().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(opened) = opened {
            RECENT.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, &opened));
        }
    }
}

fn remember(file: InputFile) -> Arc<Opened> {
    let opened = Arc::new(Opened { file, residency: Residency::default() });
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == MOST_OPEN {
        recent.pop_front();
    }
    recent.push_back(Arc::clone(&opened));
    opened
}

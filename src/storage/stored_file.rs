//! Files that are read at positions, few of them open at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::input::{InputFile, open_file};
use super::stamp::Stamp;
use crate::error::{Error, Result};
use crate::os::{self, Calls, Cold};

/// Files kept open at once, by all sources together, so that an array of thousands of files works under any limit on descriptors.
pub(crate) const MOST_OPEN: usize = 32;

/// A file that is read at positions. It is open only while it is needed, and has to stay as it was.
#[derive(Debug)]
pub(crate) struct StoredFile {
    path: Arc<Path>,
    len: u64,
    stamp: Stamp,
    calls: Calls,
    opened: Mutex<Weak<Opened>>,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: InputFile,
    cold: Cold,
}

/// Keeps the last files open that were opened, as long as somebody has the [`StoredFile`].
pub(crate) static RECENT: Mutex<VecDeque<Arc<Opened>>> = Mutex::new(VecDeque::new());

impl StoredFile {
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(path: &Path, calls: &Calls) -> Result<Arc<Self>> {
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        let stamp = Stamp::of(&file).map_err(Error::io("look at", path))?;
        let opened = Mutex::new(Arc::downgrade(&remember(file)));
        Ok(Arc::new(Self { path: path.into(), len, stamp, calls: calls.clone(), opened }))
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Which calls may be made for what it says of itself. Elements are read as whoever wants them says.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The opened file.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it was written to since it was opened first, [`Error::Io`].
    pub(crate) fn opened(&self) -> Result<Arc<Opened>> {
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

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the file ends before, [`Error::Io`].
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8], calls: &Calls) -> Result<()> {
        let opened = self.opened()?;
        os::read_exact_at(&opened.file, buf, offset, calls, &opened.cold).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                let detail = format!("the file ends within the next {} bytes", buf.len());
                return Error::malformed_at(&self.path, "source", offset, detail);
            }
            Error::io("read", &self.path)(error)
        })
    }

    /// Bytes of metadata.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::Limit`] for more than `most`.
    pub(crate) fn read_range(&self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        crate::storage::input::read_range(&self.opened()?.file, &self.path, range, most)
    }

    /// Lets `range` be fetched meanwhile.
    pub(crate) fn fetch(&self, range: &Range<u64>, calls: &Calls) {
        if let Ok(opened) = self.opened() {
            opened.cold.fetch(&opened.file, range, calls);
        }
    }

    /// Lets the memory of `range` be used for something else.
    pub(crate) fn forget(&self, range: &Range<u64>, calls: &Calls) {
        if let Ok(opened) = self.opened() {
            opened.cold.forget(&opened.file, range, calls);
        }
    }

    /// Fails if the file was written to since it was opened.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.stamp.check(&self.opened()?.file, &self.path)
    }
}

impl Drop for StoredFile {
    /// Closes the file: nobody can ask for it any more.
    fn drop(&mut self) {
        let opened = self.opened.get_mut().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(opened) = opened {
            RECENT.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, &opened));
        }
    }
}

pub(crate) fn remember(file: InputFile) -> Arc<Opened> {
    let opened = Arc::new(Opened { file, cold: Cold::default() });
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == MOST_OPEN {
        recent.pop_front();
    }
    recent.push_back(Arc::clone(&opened));
    opened
}

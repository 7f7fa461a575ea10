//! The `.npy` that is being written: header, reserved space, mapped windows, and the sync at the end.

use std::fs::File;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::mmap::PrivateFile;
use crate::spec::memory_len;
use crate::writeback::WriteBehind;

/// An array file without its final name. Windows of its data are filled by any number of threads.
#[derive(Debug)]
pub(crate) struct NpySink {
    file: Arc<PrivateFile>,
    /// The output's final name, for messages.
    path: PathBuf,
    descr: &'static str,
    /// Up to which byte the file has blocks.
    reserved: Mutex<u64>,
    behind: WriteBehind,
}

impl NpySink {
    /// An array in `file`, of which at most `window_bytes` are dirty at any time. No space is taken yet.
    pub(crate) fn new(file: Arc<PrivateFile>, path: &Path, descr: &'static str, window_bytes: u64) -> Self {
        Self { file, path: path.to_owned(), descr, reserved: Mutex::new(0), behind: WriteBehind::new(window_bytes) }
    }

    pub(crate) fn behind(&self) -> &WriteBehind {
        &self.behind
    }

    /// Makes sure that the file has room for the header and `nbytes` of data.
    ///
    /// # Errors
    /// [`Error::Limit`] when the disk has no room, [`Error::Io`].
    pub(crate) fn reserve(&self, nbytes: u64) -> Result<()> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let end = nbytes.checked_add(DATA_ALIGN as u64).ok_or_else(|| self.no_space(u64::MAX))?;
        if nbytes == 0 || end <= *reserved {
            return Ok(());
        }
        let more = end - *reserved;
        // Asked first, because a reservation that fails halfway takes the rest of the disk from others meanwhile.
        if free_bytes(self.file.file()).is_some_and(|free| free < more) {
            return Err(self.no_space(more));
        }
        match rustix::fs::fallocate(self.file.file(), FallocateFlags::empty(), *reserved, more) {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return Err(self.no_space(more)),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.fill_with_zeros(*reserved..end)?,
            Err(errno) => return Err(Error::os("reserve space for", &self.path)(errno)),
        }
        *reserved = end;
        Ok(())
    }

    /// As [`reserve`](Self::reserve), for an array that grows: `ahead` bytes if there is room, else just `nbytes`.
    pub(crate) fn reserve_ahead(&self, nbytes: u64, ahead: u64) -> Result<()> {
        let have = *self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if nbytes.saturating_add(DATA_ALIGN as u64) <= have {
            return Ok(());
        }
        match self.reserve(ahead) {
            Err(Error::Limit { .. }) => self.reserve(nbytes),
            result => result,
        }
    }

    fn no_space(&self, asked: u64) -> Error {
        let allowed = free_bytes(self.file.file()).unwrap_or(0);
        Error::Limit { what: format!("disk space for {}", self.path.display()), asked, allowed }
    }

    /// Maps `bytes` of the data, waiting until the limit on dirty pages allows it. The range must have been reserved.
    pub(crate) fn window(self: &Arc<Self>, bytes: Range<u64>) -> Result<Window> {
        let range = bytes.start + DATA_ALIGN as u64..bytes.end + DATA_ALIGN as u64;
        let len = range.end - range.start;
        self.behind.acquire(&self.file, len).map_err(|e| self.write_error("write", len)(e))?;
        let counted = Counted { sink: Arc::clone(self), range };
        let map = self.file.map_mut(&counted.range).map_err(Error::io("map", &self.path))?;
        Ok(Window { map, counted })
    }

    /// Takes blocks by writing to them, where the file system cannot reserve: a full disk is an error value this way,
    /// not a signal when a mapped page is stored to.
    fn fill_with_zeros(&self, range: Range<u64>) -> Result<()> {
        static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS.len() as u64);
            self.behind.acquire(&self.file, len).map_err(|e| self.write_error("write", len)(e))?;
            let written = self.file.file().write_all_at(&ZEROS[..memory_len(len)], at);
            self.behind.submit(&self.file, at..at + len).map_err(|e| self.write_error("write", len)(e))?;
            written.map_err(|e| self.write_error("reserve space for", range.end - at)(e))?;
            at += len;
        }
        Ok(())
    }

    /// Writes the header for `shape`, gives the file its exact length and syncs it to the disk.
    ///
    /// After an error here nothing is known about what the disk holds: the file must not get its name.
    ///
    /// # Errors
    /// [`Error::Limit`] when the disk has no room for the header, [`Error::Io`].
    pub(crate) fn finish(&self, shape: &[u64], nbytes: u64) -> Result<()> {
        let header = Header::new(self.descr, shape).encode();
        let file = self.file.file();
        file.set_len(header.len() as u64 + nbytes).map_err(|e| self.write_error("resize", header.len() as u64)(e))?;
        file.write_all_at(&header, 0).map_err(|e| self.write_error("write", header.len() as u64)(e))?;
        file.sync_all().map_err(|e| self.write_error("sync", nbytes)(e))
    }

    /// A full disk is told apart from other failures of a write.
    fn write_error(&self, action: &'static str, bytes: u64) -> impl FnOnce(std::io::Error) -> Error {
        move |error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => self.no_space(bytes),
            _ => Error::io(action, &self.path)(error),
        }
    }
}

/// A mapped part of the data. Filled through [`DerefMut`], then handed to the disk with [`commit`](Self::commit).
#[derive(Debug)]
pub(crate) struct Window {
    map: MmapMut,
    counted: Counted,
}

impl Window {
    /// Unmaps the part and starts writing it to the disk.
    pub(crate) fn commit(self) -> Result<()> {
        let Self { map, counted } = self;
        drop(map);
        counted.submit()
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for Window {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

/// File bytes that count as dirty until they are submitted or given up.
#[derive(Debug)]
struct Counted {
    sink: Arc<NpySink>,
    range: Range<u64>,
}

impl Counted {
    fn submit(mut self) -> Result<()> {
        // From here on the bytes are counted by the queue, not by this value.
        let range = std::mem::take(&mut self.range);
        let bytes = range.end - range.start;
        self.sink.behind.submit(&self.sink.file, range).map_err(|e| self.sink.write_error("write", bytes)(e))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sink.behind.release(self.range.end - self.range.start);
    }
}

fn free_bytes(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok()?;
    let blocks = if rustix::process::geteuid().is_root() { stat.f_bfree } else { stat.f_bavail };
    blocks.checked_mul(stat.f_frsize)
}

//! The `.npy` that is being written: header, reserved space, mapped windows, and the sync at the end.

use std::fs::File;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::mmap::{LARGE_PAGE, MappedRange, PrivateFile};
use crate::spec::memory_len;
use crate::writeback::WriteBehind;

const PAGE_BYTES: u64 = 4096;

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
        let end = nbytes.checked_add(DATA_ALIGN as u64).ok_or_else(|| self.no_space(Errno::FBIG, u64::MAX))?;
        if nbytes == 0 || end <= *reserved {
            return Ok(());
        }
        let more = end - *reserved;
        // Asked first, because a reservation that fails halfway takes the rest of the disk from others meanwhile.
        if free_bytes(self.file.file()).is_some_and(|free| free < more) {
            return Err(self.no_space(Errno::NOSPC, more));
        }
        match retry_on_intr(|| rustix::fs::fallocate(self.file.file(), FallocateFlags::empty(), *reserved, more)) {
            Ok(()) => {}
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(self.no_space(errno, more)),
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

    /// The error for a disk, a quota or a limit that does not let the file have `asked` bytes more.
    fn no_space(&self, errno: Errno, asked: u64) -> Error {
        let (kind, allowed) = match errno {
            Errno::FBIG => ("file size limit", rustix::process::getrlimit(rustix::process::Resource::Fsize).current),
            Errno::DQUOT => ("disk quota", None),
            _ => ("disk space", free_bytes(self.file.file())),
        };
        Error::Limit { what: format!("{kind} for {}", self.path.display()), asked, allowed: allowed.filter(|&free| free < asked) }
    }

    /// A full disk is told apart from other failures of a write.
    fn write_error(&self, action: &'static str, bytes: u64) -> impl FnOnce(std::io::Error) -> Error {
        move |error| match Errno::from_io_error(&error) {
            Some(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => self.no_space(errno, bytes),
            _ => Error::io(action, &self.path)(error),
        }
    }

    /// Puts the blame right when reading into a mapped page failed because there was no block for the page.
    ///
    /// The kernel says "bad address" then. Btrfs does that when it runs out of space for metadata or copies, although the
    /// blocks of the file were reserved.
    pub(crate) fn explain(&self, error: Error, bytes: u64) -> Error {
        match error {
            Error::Io { source, .. } if Errno::from_io_error(&source) == Some(Errno::FAULT) => self.no_space(Errno::NOSPC, bytes),
            error => error,
        }
    }

    /// Maps `bytes` of the data, once the limit on dirty pages allows it. The range must have been reserved.
    pub(crate) fn window(self: &Arc<Self>, bytes: Range<u64>, filler: Filler) -> Result<Window> {
        let range = bytes.start + DATA_ALIGN as u64..bytes.end + DATA_ALIGN as u64;
        // Pages are what gets dirty, however few of their bytes are written.
        let page = if range.end - range.start >= LARGE_PAGE { LARGE_PAGE } else { PAGE_BYTES };
        let pages = range.start / page * page..range.end.next_multiple_of(page);
        let len = pages.end - pages.start;
        let wait = filler != Filler::Nested;
        self.behind.acquire(&self.file, len, wait).map_err(|e| self.write_error("write", len)(e))?;
        let counted = Counted { sink: Arc::clone(self), pages };
        let populate = filler != Filler::Kernel;
        let map = self.file.map_mut(&range, populate).map_err(|e| self.explain(Error::io("map", &self.path)(e), len))?;
        Ok(Window { map, counted })
    }

    /// Takes blocks by writing to them, where the file system cannot reserve: a full disk is an error value this way,
    /// not a signal when a mapped page is stored to.
    fn fill_with_zeros(&self, range: Range<u64>) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS.len() as u64);
            self.behind.acquire(&self.file, len, true).map_err(|e| self.write_error("write", len)(e))?;
            let written = self.file.file().write_all_at(&ZEROS[..memory_len(len)], at);
            self.behind.submit(&self.file, at..at + len).map_err(|e| self.write_error("write", len)(e))?;
            written.map_err(|e| self.write_error("reserve space for", range.end - at)(e))?;
            at += len;
        }
        Ok(())
    }

    /// Writes the header for `shape`, gives the file its exact length and syncs it to the disk. No window may be left.
    ///
    /// After an error here nothing is known about what the disk holds: the file must not get its name.
    ///
    /// # Errors
    /// [`Error::Limit`] when the disk has no room for the header, [`Error::Io`].
    pub(crate) fn finish(self: Arc<Self>, shape: &[u64], nbytes: u64) -> Result<WriteBehind> {
        let sink = Arc::into_inner(self).ok_or_else(|| Error::bad_request("a part of the array is still being written"))?;
        sink.finish_alone(shape, nbytes)?;
        Ok(sink.behind)
    }

    fn finish_alone(&self, shape: &[u64], nbytes: u64) -> Result<()> {
        let header = Header::new(self.descr, shape).encode();
        let file = self.file.file();
        file.set_len(header.len() as u64 + nbytes).map_err(|e| self.write_error("resize", header.len() as u64)(e))?;
        file.write_all_at(&header, 0).map_err(|e| self.write_error("write", header.len() as u64)(e))?;
        file.sync_all().map_err(|e| self.write_error("sync", nbytes)(e))
    }
}

/// Who fills a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filler {
    /// System calls that read into it; they report pages that cannot be had.
    Kernel,
    /// Stores of this process, which would die of such a page: all of them have to be there.
    Stores,
    /// The same, by a thread that holds a window already and must not wait for memory that others may only give back
    /// after it.
    Nested,
}

/// A mapped part of the data. Filled through [`DerefMut`], then handed to the disk with [`commit`](Self::commit).
#[derive(Debug)]
pub(crate) struct Window {
    map: MappedRange,
    counted: Counted,
}

impl Window {
    /// Unmaps the part and starts writing it to the disk.
    pub(crate) fn commit(self) -> Result<()> {
        let Self { map, mut counted } = self;
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

/// Pages of the file that count as dirty. However their window ends, they are handed to the disk, and count until then.
#[derive(Debug)]
struct Counted {
    sink: Arc<NpySink>,
    pages: Range<u64>,
}

impl Counted {
    fn submit(&mut self) -> Result<()> {
        let pages = std::mem::take(&mut self.pages);
        let bytes = pages.end - pages.start;
        self.sink.behind.submit(&self.sink.file, pages).map_err(|e| self.sink.write_error("write", bytes)(e))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.pages.is_empty() {
            // Only a window that was not committed gets here, and the file with it will not be finished.
            let _ = self.submit();
        }
    }
}

/// What the file system of `file` has left for this user, as `df` says it; `None` where it does not say.
pub(crate) fn free_bytes(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok().filter(|stat| stat.f_blocks > 0)?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

//! The file in which an array is made.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use super::direct::DirectFile;
use crate::error::{Error, Result};
use crate::os::buffer::Buffer;
use crate::os::{self, LARGE_PAGE, SystemCalls};
use crate::plan::PAGE_BYTES;
use crate::types::size::memory_len;

/// A file that this process has just created and no other process has a reason to touch: it has no name yet, or a new hidden one.
/// It is written, mapped and synced here and gets its final name when it is complete.
#[derive(Debug)]
pub(crate) struct PrivateFile {
    file: File,
    calls: SystemCalls,
    /// Its path, or its directory while it has no name.
    place: PathBuf,
    /// Opened once more at the first direct write, where that is possible.
    direct: OnceLock<Option<DirectFile>>,
    /// Whether the system can write and await a part of the file; tried at the first wish for it.
    syncs_ranges: OnceLock<bool>,
    /// Whether an uncached write was refused.
    refuses_uncached: AtomicBool,
}

/// Appends after the last write.
impl io::Write for &PrivateFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.repeat(|| (&self.file).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PrivateFile {
    /// A file without a name in `dir`; fails as unsupported where the file system has none.
    pub(crate) fn unnamed(dir: &Path, calls: &SystemCalls) -> io::Result<Self> {
        Ok(Self::of(calls.native(|| os::unnamed_file(dir))?, dir.to_owned(), calls))
    }

    /// A new file under a hidden name.
    pub(crate) fn named(path: &Path, calls: &SystemCalls) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Self::of(file, path.to_owned(), calls))
    }

    /// The same in an open directory, which saves the path lookup.
    pub(crate) fn named_in((dir, path): (&File, &Path), name: &str, calls: &SystemCalls) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o666))?;
        Ok(Self::of(file.into(), path.join(name), calls))
    }

    fn of(file: File, place: PathBuf, calls: &SystemCalls) -> Self {
        Self {
            file,
            calls: calls.clone(),
            place,
            direct: OnceLock::new(),
            syncs_ranges: OnceLock::new(),
            refuses_uncached: AtomicBool::new(false),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that it is in, for messages.
    pub(crate) fn dir(&self) -> &Path {
        let parent = || self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        if self.place.is_dir() { &self.place } else { parent().unwrap_or(Path::new(".")) }
    }

    /// The system calls that may be used for it.
    pub(crate) fn calls(&self) -> &SystemCalls {
        &self.calls
    }

    /// Sets its length.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        self.calls.repeat(|| Ok(rustix::fs::ftruncate(&self.file, len)?))
    }

    /// Sets its length; used to empty a file again after a trial on it.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn resize(&self, len: u64) -> Result<()> {
        self.set_len(len).map_err(Error::io("resize the file that is being made at", &self.place))
    }

    /// Makes the data outlive a power cut. Any error is final, even that of an interrupted call: it may be the only report of a write that
    /// failed.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.calls.once(|| os::sync_data(&self.file))
    }

    /// Makes the data and the metadata outlive a power cut. Any error is final, as above.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.calls.once(|| os::sync_all(&self.file))
    }

    /// Allocates blocks for `range`, which may lengthen the file; fails as unsupported where blocks cannot be reserved.
    pub(crate) fn reserve(&self, range: &Range<u64>) -> io::Result<()> {
        self.calls.repeat(|| self.calls.native(|| os::reserve(&self.file, range)))
    }

    /// Writes `bytes` at `offset` through the page cache.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.calls.write_all_at(bytes, offset, |bytes, offset| self.file.write_at(bytes, offset))
    }

    /// Writes `bytes` at `offset` through pages of the cache that go to the disk at once and are then dropped; fails as unsupported where
    /// that is impossible.
    pub(crate) fn write_uncached_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.refuses_uncached.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let write = |bytes: &[u8], offset| self.calls.native(|| os::write_uncached(&self.file, bytes, offset));
        let written = self.calls.write_all_at(bytes, offset, write);
        if written.as_ref().is_err_and(os::is_unsupported) {
            self.refuses_uncached.store(true, Ordering::Relaxed);
        }
        written
    }

    /// The file for direct writes, if there is one.
    pub(crate) fn direct(&self) -> Option<&DirectFile> {
        self.direct.get_or_init(|| DirectFile::open(&self.file, &self.calls)).as_ref()
    }

    /// Writes `bytes` at `offset` straight to the disk; both are aligned as [`direct`](Self::direct) says. Returns whether that is possible.
    pub(crate) fn write_direct_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        self.direct().map_or(Ok(false), |direct| direct.write_at(bytes, offset, &self.calls))
    }

    /// Whether direct writes reach the disk and leave nothing in the page cache. Tries it with one block at the start of the file.
    pub(crate) fn writes_directly(&self) -> io::Result<bool> {
        // Not `direct`: where many outputs are open, this may be one of those that do without, and short ones never need it.
        let Some(direct) = DirectFile::for_trial(&self.file, &self.calls) else { return Ok(false) };
        let len = direct.alignment.offset.max(PAGE_BYTES);
        let mut block = Buffer::new(memory_len(len));
        let is_written = direct.write_at(block.at(0, memory_len(len))?, 0, &self.calls)?;
        // File systems in memory take direct writes and put them into the cache.
        let is_cached = || os::cached_bytes(&self.file, 0, len).is_ok_and(|cached| cached > 0);
        if is_written && is_cached() {
            // Btrfs takes such pages out of the cache once they are on the disk, but not one that a processor still holds for its lists.
            // This finds it, and leaves what is nowhere else.
            os::drop_pages(&self.file, &(0..len));
        }
        Ok(is_written && !is_cached())
    }

    /// Writes `bytes` at `offset`: whole pages past the page cache where that is possible, the pages at both ends, which may be shared
    /// with neighbours, through it.
    pub(crate) fn write_pages_uncached(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let whole = offset.next_multiple_of(PAGE_BYTES)..end / PAGE_BYTES * PAGE_BYTES;
        if whole.is_empty() {
            return self.write_at(bytes, offset);
        }
        let (head, rest) = bytes.split_at(memory_len(whole.start - offset));
        let (middle, tail) = rest.split_at(memory_len(whole.end - whole.start));
        match self.write_uncached_at(middle, whole.start) {
            Err(error) if os::is_unsupported(&error) => self.write_at(middle, whole.start)?,
            written => written?,
        }
        self.write_at(head, offset)?;
        self.write_at(tail, whole.end)
    }

    /// Shares blocks with `range` of `source`, at `at` of this file; fails as unsupported where that is impossible.
    pub(crate) fn share_blocks(&self, source: &File, range: &Range<u64>, at: u64) -> io::Result<()> {
        self.calls.repeat(|| self.calls.native(|| os::share_blocks(source, range, &self.file, at)))
    }

    /// Starts writing dirty pages of `range` to the disk without waiting for them.
    pub(crate) fn start_writeback(&self, range: &Range<u64>) -> io::Result<()> {
        // Elsewhere the system starts when it likes, at the latest in `finish_writeback`.
        if self.syncs_ranges() { self.calls.once(|| os::start_writeback(&self.file, range)) } else { Ok(()) }
    }

    /// Whether it is possible to wait for a part of the file alone.
    pub(crate) fn syncs_ranges(&self) -> bool {
        self.calls.is_native() && *self.syncs_ranges.get_or_init(|| os::syncs_ranges(&self.file))
    }

    /// Waits until the pages of `range`, or of the whole file, are on the disk.
    ///
    /// This makes no promise about a power cut; `fsync` at the end does.
    pub(crate) fn finish_writeback(&self, range: &Range<u64>) -> io::Result<()> {
        if self.syncs_ranges() { self.calls.once(|| os::wait_for_writeback(&self.file, range)) } else { self.sync_data() }
    }

    /// Frees the memory of pages of `range`, which must be on the disk.
    pub(crate) fn drop_pages(&self, range: &Range<u64>) {
        // The pages of a large page are only freed together: reach back to where the first one may begin.
        os::drop_pages(&self.file, &(range.start.saturating_sub(LARGE_PAGE)..range.end));
    }
}

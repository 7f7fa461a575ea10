//! Mapped files, and the push of their pages to the disk. The only unsafe code of the crate.
#![expect(unsafe_code, reason = "mapping a file and one system call have no safe interface; each block argues its safety")]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::AsRawFd;
use std::path::Path;

use memmap2::{Advice, Mmap, MmapOptions, MmapRaw};
use rustix::fs::{Mode, OFlags};

use crate::spec::memory_len;

/// What one entry of a page table maps at most, where file and address are aligned to it (`x86-64` and `AArch64` with
/// pages of 4 KiB).
pub(crate) const LARGE_PAGE: u64 = 2 << 20;

/// A file that this process has just made and that nobody else has a reason to touch: it has no name yet, or one that
/// was chosen at random. It is written, mapped and synced here and gets its final name when it is complete.
#[derive(Debug)]
pub(crate) struct PrivateFile(File);

impl PrivateFile {
    /// A file without a name in `dir`; fails where the file system knows no such files.
    pub(crate) fn unnamed(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666))?.into()))
    }

    /// A file under a name that did not exist and that nobody else knows.
    pub(crate) fn named(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path).map(Self)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// Maps `range` of the file, which must lie inside it, for writing.
    ///
    /// With `populate` every page is there afterwards, and one that the file system cannot provide is an error here, not
    /// a signal when it is stored to. Without, pages come when the kernel reads into them, and the read reports it.
    pub(crate) fn map_mut(&self, range: &Range<u64>, populate: bool) -> io::Result<MappedRange> {
        let len = memory_len(range.end - range.start);
        let is_large = range.end - range.start >= LARGE_PAGE;
        // A large page is only used where the mapping covers all of it.
        let start = if is_large { range.start / LARGE_PAGE * LARGE_PAGE } else { range.start };
        let end = if is_large { range.end.next_multiple_of(LARGE_PAGE).min(self.0.metadata()?.len()) } else { range.end };
        let map = MmapOptions::new().offset(start).len(memory_len(end - start)).map_raw(&self.0)?;
        // Advice, so a refusal costs speed only. What it is worth stands in docs/design.md.
        let _ = map.advise(if is_large { Advice::HugePage } else { Advice::Random });
        let mapped = MappedRange { map, lead: memory_len(range.start - start), len };
        if populate {
            match mapped.map.advise_range(Advice::PopulateWrite, mapped.lead, len) {
                // Linux before 5.14 does not know the advice; the pages then come when they are stored to.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        Ok(mapped)
    }

    /// Maps the whole finished file for reading.
    pub(crate) fn map(&self) -> io::Result<Mmap> {
        // SAFETY: this process wrote the file and does not change it any more. It gets its final name next, and then
        // another process could shorten or rewrite it; `MmapArray` tells its users so.
        unsafe { Mmap::map(&self.0) }
    }

    /// Starts writing dirty pages of `range` to the disk, without waiting.
    pub(crate) fn start_writeback(&self, range: &Range<u64>) -> io::Result<()> {
        self.sync_range(range, libc::SYNC_FILE_RANGE_WRITE)
    }

    /// Waits until the pages of `range` are on the disk, and gives up the memory they take.
    ///
    /// This makes no promise about a power cut; `fsync` at the end does.
    pub(crate) fn finish_writeback(&self, range: &Range<u64>) -> io::Result<()> {
        self.sync_range(range, libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER)?;
        // Pages in a large one are only given up together: reach back to where the one at the start may begin.
        let start = range.start.saturating_sub(LARGE_PAGE);
        let len = std::num::NonZeroU64::new(range.end - start);
        // Advice: where it is refused the pages stay, clean, until the kernel wants them.
        let _ = rustix::fs::fadvise(&self.0, start, len, rustix::fs::Advice::DontNeed);
        Ok(())
    }

    fn sync_range(&self, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
        let to_off = |n: u64| libc::off64_t::try_from(n).map_err(io::Error::other);
        let (offset, len) = (to_off(range.start)?, to_off(range.end - range.start)?);
        // SAFETY: the call takes no pointers; the descriptor is open as long as `self.0` lives.
        if unsafe { libc::sync_file_range(self.0.as_raw_fd(), offset, len, flags) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            // Some network and stacked file systems do not know the call; `fsync` does the work at the end.
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE)) => self.0.sync_data(),
            error => Err(error),
        }
    }
}

/// A part of a private file, mapped for writing.
#[derive(Debug)]
pub(crate) struct MappedRange {
    map: MmapRaw,
    /// Where in the map the part starts.
    lead: usize,
    len: usize,
}

impl Deref for MappedRange {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.lead), self.len) }
    }
}

impl DerefMut for MappedRange {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `map_mut` mapped at least `lead + len` bytes, readable and writable, for as long as `self` lives. The
        // file was created by this process without a name or under one that nobody else knows (`PrivateFile` has no other
        // constructors), so no other process writes or shortens it. This process only lengthens it while maps of it live:
        // the one call that may shorten it is in `NpySink::finish`, which consumes the last handle of the sink, and every
        // window holds one. The part has blocks, so that stores do not fault. Maps may overlap, but every byte is written
        // through one of them only, because `Plan` cuts disjoint slices and `ArrayWriter` hands out every row once.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.lead), self.len) }
    }
}

/// Maps all of a file for reading.
///
/// # Safety
/// - Nobody shortens the file while the map lives: a read behind its new end is a `SIGBUS`.
/// - Nobody rewrites it: the bytes behind a `&[u8]` would change.
pub(crate) unsafe fn map_foreign(file: &File) -> io::Result<Mmap> {
    // SAFETY: the caller vouches for exactly what the mapping needs.
    unsafe { Mmap::map(file) }
}

//! Memory-mapped files.
#![expect(unsafe_code, reason = "mapping a file has no safe interface; each block argues its safety")]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut, Range};

use memmap2::{Mmap, MmapOptions, MmapRaw};

use super::private_file::PrivateFile;
use crate::os;
use crate::os::LARGE_PAGE;
use crate::types::size::memory_len;

/// A part of a private file, mapped for writing.
#[derive(Debug)]
pub(crate) struct MappedRange {
    map: MmapRaw,
    /// Offset in the map where the part starts.
    lead: usize,
    len: usize,
}

impl MappedRange {
    /// Maps `range` of `file`, which must lie inside it.
    ///
    /// With `populate`, every page is available afterwards; one that the file system cannot provide is an error here instead of a
    /// signal on the first store. Without, pages come when the kernel reads into them, and the read reports the error.
    pub(crate) fn new(file: &PrivateFile, range: &Range<u64>, populate: bool) -> io::Result<Self> {
        let len = memory_len(range.end - range.start);
        let is_large = range.end - range.start >= LARGE_PAGE;
        // A large page is only used where the mapping covers all of it.
        let start = if is_large { range.start / LARGE_PAGE * LARGE_PAGE } else { range.start };
        let file_len = || file.file().metadata().map(|metadata| metadata.len());
        let end = if is_large { range.end.next_multiple_of(LARGE_PAGE).min(file_len()?) } else { range.end };
        let map = MmapOptions::new().offset(start).len(memory_len(end - start)).map_raw(file.file())?;
        // docs/design.md says what the advice gains.
        os::advise_window(&map, is_large);
        let lead = memory_len(range.start - start);
        if populate {
            match os::populate(&map, lead..lead + len) {
                // Unsupported: the pages then come with the first store.
                Err(error) if !os::is_unsupported(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(Self { map, lead, len })
    }
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
        // SAFETY: `new` mapped at least `lead + len` bytes, readable and writable, for as long as `self` lives. This process
        // created the file without a name or under one that no other process knows (`PrivateFile` has no other constructors), so
        // no other process writes or shortens it. While maps of it live, this process only lengthens it: `Method` and `Sharing`
        // undo their trials before there is a sink. Three calls may shorten it later. That in `NpySink::finish` consumes the last
        // handle of the sink, and every window holds one. The layout that `pack` takes back does the same; its sinks are gone by
        // then. `records::Output::give_up` runs when nobody may map a window of the column any more (`Dropouts` holds a lock for
        // that). The part has blocks, so stores do not fault. Maps may overlap, but every byte is written through one of them
        // only, because `Plan` cuts disjoint slices and `ArrayWriter` hands out every row once.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(self.lead), self.len) }
    }
}

/// Whether `file` can be mapped for writing. File systems that bypass the page cache refuse (FUSE with `direct_io`).
pub(crate) fn can_map(file: &PrivateFile) -> bool {
    match MmapOptions::new().len(1).map_raw(file.file()) {
        // Any other error counts as yes: the real attempt reports it.
        Err(error) => !is_without_maps(&error),
        Ok(_) => true,
    }
}

/// Whether a file system reports that it has no shared maps: see `mmap(2)`, ENODEV.
fn is_without_maps(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

/// Maps all of a finished file for reading.
///
/// # Safety
/// Nobody shortens or writes to the file while the map lives: neither this process, from now on, nor others, once it has a name.
pub(crate) unsafe fn map_finished(file: &PrivateFile) -> io::Result<Mmap> {
    // SAFETY: the caller vouches for exactly what the mapping needs.
    unsafe { map_reading(file.file()) }
}

/// Maps all of a file for reading.
///
/// # Safety
/// - Nobody shortens the file while the map lives: a read past its new end raises `SIGBUS`.
/// - Nobody rewrites it: the bytes behind a `&[u8]` would change.
pub(crate) unsafe fn map_foreign(file: &File) -> io::Result<Mmap> {
    // SAFETY: the caller vouches for exactly what the mapping needs.
    unsafe { map_reading(file) }
}

/// # Safety
/// As [`map_foreign`].
unsafe fn map_reading(file: &File) -> io::Result<Mmap> {
    // SAFETY: the caller vouches for exactly what the mapping needs.
    let map = match unsafe { Mmap::map(file) } {
        // FUSE with `direct_io` has private maps only. Nobody writes to this one, so it shows the same bytes.
        // SAFETY: as above.
        Err(error) if is_without_maps(&error) => unsafe { MmapOptions::new().map_copy_read_only(file) },
        result => result,
    };
    map.map_err(|error| {
        if !is_without_maps(&error) {
            return error;
        }
        let detail = "its file system has no memory maps; `Tensor::read_rows` reads parts of an array without one";
        io::Error::new(io::ErrorKind::Unsupported, detail)
    })
}

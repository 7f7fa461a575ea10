//! The `.npy` being written: header, reserved space, mapped windows and written buffers, and the sync at the end.

use std::io;
use std::ops::{Deref, DerefMut, Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::io::Errno;

use super::background::Background;
use super::edges::{Added, Edges};
use super::mmap::MappedRange;
use super::private_file::PrivateFile;
use super::writeback::WriteBehind;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::options::method::Method;
use crate::os::buffer::{Buffer, PlacedBytes};
use crate::os::{self, LARGE_PAGE, free_bytes};
use crate::plan::PAGE_BYTES;
use crate::types::cancel::CancelToken;
use crate::types::size::memory_len;

/// Steps in which an array of unknown length grows: it at most doubles while it is short.
const GROWTH_BYTES: RangeInclusive<u64> = 1 << 20..=64 << 20;
/// The free space is at least this many times what arrays that grow together take ahead of their needs.
const LEAST_FREE: u64 = 16;

/// Shorter parts of writes are not worth a wait for the disk of their own.
const LEAST_PART: u64 = 256 << 10;
/// Memory through which parts go that lie at addresses from which the disk cannot take them.
const MOST_COPIED: u64 = 2 << 20;

/// An array file without its final name. Any number of threads fill windows of its data or write buffers to it.
#[derive(Debug)]
pub(crate) struct NpySink {
    file: Arc<PrivateFile>,
    /// The output's final name, for messages.
    path: PathBuf,
    method: Method,
    /// How buffers are written, which may differ from how windows are.
    buffers: Method,
    /// Offset of the data in the file.
    data_start: u64,
    /// Whether the file holds other arrays as well; its length and header are then set elsewhere.
    is_part: bool,
    /// The file has blocks up to this byte.
    reserved: Mutex<u64>,
    /// The length that the file should get, for messages.
    wanted: AtomicU64,
    /// Whether windows are mapped; otherwise they are buffers that are written when filled.
    maps: bool,
    /// Whether any window was mapped. Nothing is written directly from then on: the kernel takes pages that a direct write touches out of
    /// the cache, and one that is mapped and stored to meanwhile, large as it may be, makes the next sync fail.
    was_mapped: RwLock<bool>,
    behind: WriteBehind,
    background: Background,
    /// How many arrays grow beside each other, this one included.
    growing: u64,
    edges: Edges,
}

impl NpySink {
    /// An array in `file`, of which at most `window_bytes` are dirty at any time. Allocates no space yet.
    pub(crate) fn new(file: Arc<PrivateFile>, path: &Path, method: Method, window_bytes: u64) -> Self {
        let behind = WriteBehind::new(window_bytes);
        let (data_start, reserved, wanted) = (DATA_ALIGN as u64, Mutex::new(0), AtomicU64::new(0));
        let background = Background::new((window_bytes / 4 / LEAST_PART * LEAST_PART).clamp(LEAST_PART, MOST_COPIED));
        Self {
            file,
            path: path.to_owned(),
            method,
            buffers: method,
            data_start,
            is_part: false,
            reserved,
            wanted,
            maps: true,
            was_mapped: RwLock::default(),
            behind,
            background,
            growing: 1,
            edges: Edges::default(),
        }
    }

    /// The same, where buffers are written by a way of their own beside the windows.
    pub(crate) fn with_buffers(self, buffers: Method) -> Self {
        Self { buffers, ..self }
    }

    /// The same, where as many arrays grow beside each other.
    pub(crate) fn growing_beside(self, arrays: usize) -> Self {
        Self { growing: (arrays as u64).max(1), ..self }
    }

    /// The same for a file that cannot be mapped: its windows are buffers.
    pub(crate) fn without_maps(self) -> Self {
        Self { maps: false, ..self }
    }

    /// The same for one of several arrays in a file, from byte `start` on. The file already has its full length.
    pub(crate) fn part(self, start: u64) -> Self {
        Self { data_start: start, is_part: true, reserved: Mutex::new(start), ..self }
    }

    /// An array whose data are already in `file`.
    pub(crate) fn shared(file: Arc<PrivateFile>, path: &Path, data_start: u64) -> Self {
        Self { data_start, ..Self::new(file, path, Method::Clone, 0) }
    }

    pub(crate) fn behind(&self) -> &WriteBehind {
        &self.behind
    }

    /// Waits for what is written in the background, and writes ends that were kept. After that everything can be read back.
    ///
    /// # Errors
    /// Those of earlier writes.
    pub(crate) fn settle(&self) -> Result<()> {
        let failed = |error| self.write_error("write", self.behind.limit())(error);
        self.background.settle().map_err(failed)?;
        match self.file.direct() {
            Some(direct) if self.buffers == Method::Direct => {
                self.edges.take(direct.alignment.unit()).try_for_each(|(at, bytes)| self.file.write_at(&bytes, at)).map_err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that the file has space for the header and `nbytes` of data.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] when the disk is full, [`Error::Io`].
    pub(crate) fn reserve(&self, nbytes: u64) -> Result<()> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.position(nbytes)?;
        if nbytes == 0 || end <= *reserved {
            return Ok(());
        }
        self.wanted.fetch_max(end, Ordering::Relaxed);
        self.check_space(end - *reserved)?;
        self.take_blocks(*reserved..end)?;
        *reserved = end;
        Ok(())
    }

    /// As [`reserve`](Self::reserve), but only for `parts` of the data; the rest stays a hole, which reads as zeros.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub(crate) fn reserve_parts(&self, nbytes: u64, parts: impl Iterator<Item = Result<Range<u64>>>) -> Result<()> {
        let end = self.position(nbytes)?;
        self.wanted.fetch_max(end, Ordering::Relaxed);
        if !self.is_part {
            self.file.set_len(end).map_err(|e| self.write_error("resize", end)(e))?;
            self.take_blocks(0..self.data_start)?;
        }
        for part in parts {
            let part = part?;
            self.take_blocks(self.data_start + part.start..self.data_start + part.end)?;
        }
        Ok(())
    }

    /// The offset in the file of byte `at` of the data.
    fn position(&self, at: u64) -> Result<u64> {
        at.checked_add(self.data_start).ok_or_else(|| self.no_space(Errno::FBIG, u64::MAX))
    }

    /// Refuses what cannot fit on the disk: a reservation that fails halfway would meanwhile take the rest of the disk from
    /// others.
    pub(crate) fn check_space(&self, bytes: u64) -> Result<()> {
        if free_bytes(self.file.file()).is_some_and(|free| free < bytes) {
            return Err(self.no_space(Errno::NOSPC, bytes));
        }
        Ok(())
    }

    fn take_blocks(&self, range: Range<u64>) -> Result<()> {
        match self.file.reserve(&range) {
            Ok(()) => Ok(()),
            // Writes report a full disk, so lengthening is enough for them; stores to mapped pages cannot. The length shows at
            // once whether the file system allows such long files, and some refuse writes past the end.
            Err(error) if os::is_unsupported(&error) && (self.method != Method::Map || !self.maps) => self.lengthen(range.end),
            Err(error) if os::is_unsupported(&error) => self.fill_with_zeros(range),
            Err(error) => Err(self.write_error("reserve space for", range.end - range.start)(error)),
        }
    }

    /// Makes the file at least `end` bytes long.
    fn lengthen(&self, end: u64) -> Result<()> {
        let len = self.file.file().metadata().map_err(Error::io("look at the file that becomes", &self.path))?.len();
        if len >= end {
            return Ok(());
        }
        self.file.set_len(end).map_err(|e| self.write_error("resize", end)(e))
    }

    /// Makes sure that a growing array has space for `nbytes`: in steps of [`GROWTH_BYTES`], and an eighth more, as long as that is little of
    /// what is free. Many arrays that grow together would otherwise take from each other what none of them needs. Steps are long because
    /// each waits for the direct writes that are under way.
    pub(crate) fn grow(&self, nbytes: u64) -> Result<()> {
        let have = *self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if nbytes.saturating_add(self.data_start) <= have {
            return Ok(());
        }
        let step = nbytes.clamp(*GROWTH_BYTES.start(), *GROWTH_BYTES.end()).next_power_of_two();
        let ahead = nbytes.div_ceil(step).saturating_mul(step).saturating_add(nbytes / 8);
        let spare = free_bytes(self.file.file()).map_or(u64::MAX, |free| free / LEAST_FREE / self.growing);
        match self.reserve(ahead.min(nbytes.saturating_add(spare))) {
            Err(Error::Limit { .. }) => self.reserve(nbytes),
            result => result,
        }
    }

    fn no_space(&self, errno: Errno, asked: u64) -> Error {
        no_space(&self.file, &self.path, errno, self.asked(errno, asked))
    }

    fn write_error(&self, action: &'static str, bytes: u64) -> impl FnOnce(io::Error) -> Error {
        move |error| {
            let asked = Errno::from_io_error(&error).map_or(bytes, |errno| self.asked(errno, bytes));
            write_error(&self.file, &self.path, action, asked)(error)
        }
    }

    /// Bytes for the error message: for a limit on file length, that is the whole file.
    fn asked(&self, errno: Errno, bytes: u64) -> u64 {
        if errno == Errno::FBIG { bytes.max(self.wanted.load(Ordering::Relaxed)) } else { bytes }
    }

    /// Reports a full disk if reading into a mapped page failed because the page has no block.
    ///
    /// The kernel says "bad address" then. Btrfs does that when it runs out of space for metadata or copies, although the blocks
    /// of the file were reserved.
    pub(crate) fn explain(&self, error: Error, bytes: u64) -> Error {
        match error {
            Error::Io { source, .. } if Errno::from_io_error(&source) == Some(Errno::FAULT) => self.no_space(Errno::NOSPC, bytes),
            error => error,
        }
    }

    /// Maps `bytes` of the data once the limit on dirty pages allows it. The range must be reserved.
    pub(crate) fn window(self: &Arc<Self>, bytes: Range<u64>, filler: WindowWriter) -> Result<Window> {
        self.open_window(bytes, filler, self.maps)
    }

    /// The same for bytes that are copied into it: a buffer, where that is written directly.
    pub(crate) fn gather(self: &Arc<Self>, bytes: Range<u64>) -> Result<Window> {
        let is_direct = self.buffers == Method::Direct && !*self.was_mapped.read().unwrap_or_else(PoisonError::into_inner);
        self.open_window(bytes, WindowWriter::Stores, self.maps && !is_direct)
    }

    fn open_window(self: &Arc<Self>, bytes: Range<u64>, filler: WindowWriter, is_mapped: bool) -> Result<Window> {
        let range = bytes.start + self.data_start..bytes.end + self.data_start;
        // Whole pages become dirty, however few of their bytes are written. Only maps have large ones.
        let page = if is_mapped && range.end - range.start >= LARGE_PAGE { LARGE_PAGE } else { PAGE_BYTES };
        let pages = range.start / page * page..range.end.next_multiple_of(page);
        let len = pages.end - pages.start;
        let wait = filler != WindowWriter::Nested;
        // A buffer takes memory beside the pages that it is written to.
        let buffer = if is_mapped { 0 } else { Buffer::memory_bytes(len) };
        self.behind.acquire(&self.file, len + buffer, wait).map_err(|e| self.write_error("write", len)(e))?;
        let counted = Counted { sink: Arc::clone(self), pages, buffer, stays_open: false };
        if !is_mapped {
            let bytes = PlacedBytes::zeros(range.start, memory_len(range.end - range.start));
            let bytes = bytes.map_err(Error::io("get memory for a part of", &self.path))?;
            return Ok(Window { content: Content::Buffer { bytes, start: range.start }, counted });
        }
        if !*self.was_mapped.read().unwrap_or_else(PoisonError::into_inner) {
            // Nobody starts a direct write meanwhile.
            let mut was_mapped = self.was_mapped.write().unwrap_or_else(PoisonError::into_inner);
            self.background.settle().map_err(|e| self.write_error("write", len)(e))?;
            *was_mapped = true;
        }
        let populate = filler != WindowWriter::Kernel;
        let map = MappedRange::new(&self.file, &range, populate).map_err(|e| self.explain(Error::io("map", &self.path)(e), len))?;
        Ok(Window { content: Content::Map(map), counted })
    }

    /// A place in `buffer` for range `bytes` of the array, from where it can be written without a copy.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no memory.
    pub(crate) fn memory_for<'b>(&self, bytes: &Range<u64>, buffer: &'b mut Buffer) -> Result<&'b mut [u8]> {
        let place = buffer.at(bytes.start + self.data_start, memory_len(bytes.end - bytes.start));
        place.map_err(Error::io("get memory for a part of", &self.path))
    }

    /// Writes `data` to range `bytes` of the array: straight to the disk, or once the limit on dirty pages allows it.
    pub(crate) fn write(&self, bytes: Range<u64>, data: &[u8]) -> Result<()> {
        let range = bytes.start + self.data_start..bytes.end + self.data_start;
        self.write_range(range, data)
    }

    /// The same for a range of the file.
    fn write_range(&self, range: Range<u64>, data: &[u8]) -> Result<()> {
        match self.write_middle(&range, data)? {
            Some(middle) => self.write_ends(&range, &middle, data),
            None => self.write_behind(range, data),
        }
    }

    /// Writes what is in whole blocks of `data`, which goes to `range` of the file, straight to the disk. Returns where it lies; `None` if it
    /// is too short, or if that is impossible.
    fn write_middle(&self, range: &Range<u64>, data: &[u8]) -> Result<Option<Range<u64>>> {
        let was_mapped = self.was_mapped.read().unwrap_or_else(PoisonError::into_inner);
        if self.buffers != Method::Direct || *was_mapped {
            return Ok(None);
        }
        let Some(direct) = self.file.direct() else { return Ok(None) };
        let middle = direct.alignment.middle(range);
        let len = middle.end - middle.start;
        if len < LEAST_PART {
            return Ok(None);
        }
        let whole = &data[memory_len(middle.start - range.start)..][..memory_len(len)];
        let written = if direct.alignment.takes(whole) {
            self.file.write_direct_at(whole, middle.start)
        } else {
            self.background.write(&self.file, whole, middle.start, |bytes| self.behind.set_aside(bytes))
        };
        Ok(written.map_err(|e| self.write_error("write", len)(e))?.then_some(middle))
    }

    /// Keeps an end of what was written directly, or writes its block if that is complete now. Returns whether it did.
    fn keep_end(&self, at: u64, bytes: &[u8]) -> Result<bool> {
        let Some(direct) = self.file.direct() else { return Ok(false) };
        if !self.edges.have_memory(|bytes| self.behind.set_aside(bytes)) {
            return Ok(false);
        }
        match self.edges.add(at, bytes, direct.alignment.unit()) {
            Added::No => Ok(false),
            Added::Kept => Ok(true),
            Added::Complete(at, block) => {
                let failed = |e| self.write_error("write", block.len() as u64)(e);
                let was_mapped = self.was_mapped.read().unwrap_or_else(PoisonError::into_inner);
                let write = || self.background.write(&self.file, &block, at, |bytes| self.behind.set_aside(bytes));
                let is_written = !*was_mapped && write().map_err(failed)?;
                drop(was_mapped);
                if !is_written {
                    self.write_behind(at..at + block.len() as u64, &block)?;
                }
                Ok(true)
            }
        }
    }

    /// Writes what is before and after `middle`, later or through the page cache. Neighbours share these pages and probably come soon, so they
    /// stay there for a while.
    fn write_ends(&self, range: &Range<u64>, middle: &Range<u64>, data: &[u8]) -> Result<()> {
        for (at, bytes) in ends(range, middle, data) {
            if self.keep_end(at, bytes)? {
                continue;
            }
            let pages = at / PAGE_BYTES * PAGE_BYTES..(at + bytes.len() as u64).next_multiple_of(PAGE_BYTES);
            let len = pages.end - pages.start;
            let failed = |error| self.write_error("write", len)(error);
            self.behind.acquire(&self.file, len, true).map_err(failed)?;
            let written = self.file.write_at(bytes, at);
            self.behind.submit_scattered(pages, len);
            written.map_err(failed)?;
        }
        Ok(())
    }

    /// Writes `data` to `range` of the file, where all of its pages are counted already.
    fn write_counted(&self, range: &Range<u64>, data: &[u8]) -> Result<()> {
        let failed = |error| self.write_error("write", data.len() as u64)(error);
        match self.write_middle(range, data)? {
            Some(middle) => ends(range, &middle, data).try_for_each(|(at, bytes)| self.file.write_at(bytes, at)).map_err(failed),
            None => self.file.write_at(data, range.start).map_err(failed),
        }
    }

    /// Writes `data` to `range` of the file through the page cache once the limit on dirty pages allows it.
    fn write_behind(&self, range: Range<u64>, data: &[u8]) -> Result<()> {
        let pages = range.start / PAGE_BYTES * PAGE_BYTES..range.end.next_multiple_of(PAGE_BYTES);
        let len = pages.end - pages.start;
        self.behind.acquire(&self.file, len, true).map_err(|e| self.write_error("write", len)(e))?;
        let uncached = if self.buffers.leaves_cache() { Some(self.file.write_uncached_at(data, range.start)) } else { None };
        // The trial with one byte worked, but if this is unsupported, write through the page cache.
        let result = if let Some(written) = uncached.filter(|written| !written.as_ref().is_err_and(os::is_unsupported)) {
            self.behind.submit_uncached(pages);
            written
        } else {
            let written = self.file.write_at(data, range.start);
            written.and(self.behind.submit(&self.file, pages))
        };
        result.map_err(|e| self.write_error("write", len)(e))
    }

    /// Writes `data` to range `bytes` of the array, which grows if needed; the range need not be aligned.
    ///
    /// Whole pages bypass the page cache if possible. Pages shared with a neighbour stay in it for a while.
    pub(crate) fn place(self: &Arc<Self>, bytes: Range<u64>, data: &[u8]) -> Result<()> {
        self.grow(bytes.end)?;
        if self.method == Method::Map {
            let mut window = self.window(bytes, WindowWriter::Stores)?;
            window.copy_from_slice(data);
            return window.commit();
        }
        let run = bytes.start + self.data_start..bytes.end + self.data_start;
        if let Some(middle) = self.write_middle(&run, data)? {
            return self.write_ends(&run, &middle, data);
        }
        let pages = run.start / PAGE_BYTES * PAGE_BYTES..run.end.next_multiple_of(PAGE_BYTES);
        let len = pages.end - pages.start;
        self.behind.acquire(&self.file, len, true).map_err(|e| self.write_error("write", len)(e))?;
        let written = self.write_run(&run, data);
        written.and(self.behind.submit(&self.file, pages)).map_err(|e| self.write_error("write", len)(e))
    }

    /// Writes `data` as many short runs of the array once the limit on dirty pages allows for the pages they touch.
    ///
    /// Whole pages bypass the page cache if possible. Pages that a run shares with its neighbours stay in the cache for a while,
    /// because the neighbours probably come next.
    pub(crate) fn write_runs(&self, runs: impl Iterator<Item = Range<u64>>, mut data: &[u8], cancel: &CancelToken) -> Result<()> {
        const MOST_RUNS: usize = 4096;
        let most_bytes = self.behind.limit() / 4;
        let is_long = |run: &Range<u64>| self.buffers == Method::Direct && run.end - run.start >= 2 * LEAST_PART;
        let mut runs = runs.peekable();
        if let Some(only) = runs.next_if(|run| run.end - run.start == data.len() as u64) {
            return self.write(only, data);
        }
        let mut runs = runs.map(|run| run.start + self.data_start..run.end + self.data_start).peekable();
        let mut together = Vec::new();
        while let Some(next) = runs.peek() {
            cancel.check()?;
            if is_long(next) {
                let run = next.clone();
                let (now, later) = data.split_at(memory_len(run.end - run.start));
                (data, _) = (later, runs.next());
                self.write_range(run, now)?;
                continue;
            }
            // As many as may be dirty together. Runs are in order, so the first page of one may be the last of another.
            let (mut bytes, mut counted) = (0, 0);
            together.clear();
            while let Some(run) = runs.peek() {
                let end = run.end.next_multiple_of(PAGE_BYTES);
                let pages = end - (run.start / PAGE_BYTES * PAGE_BYTES).max(counted).min(end);
                if !together.is_empty() && (bytes + pages > most_bytes || together.len() == MOST_RUNS || is_long(run)) {
                    break;
                }
                bytes += pages;
                counted = end;
                together.extend(runs.next());
            }
            let failed = |error| self.write_error("write", bytes)(error);
            self.behind.acquire(&self.file, bytes, true).map_err(failed)?;
            let result = together.iter().try_for_each(|run| {
                let (now, later) = data.split_at(memory_len(run.end - run.start));
                data = later;
                self.write_run(run, now)
            });
            let span = together.first().map_or(0, |run| run.start)..together.last().map_or(0, |run| run.end);
            self.behind.submit_scattered(span, bytes);
            result.map_err(failed)?;
        }
        Ok(())
    }

    fn write_run(&self, run: &Range<u64>, data: &[u8]) -> io::Result<()> {
        if self.method.leaves_cache() { self.file.write_pages_uncached(data, run.start) } else { self.file.write_at(data, run.start) }
    }

    /// Allocates blocks by writing zeros where the file system cannot reserve: so a full disk is an error value, not a signal when
    /// a mapped page is stored to.
    fn fill_with_zeros(&self, range: Range<u64>) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROS.len() as u64);
            self.behind.acquire(&self.file, len, true).map_err(|e| self.write_error("write", len)(e))?;
            let written = self.file.write_at(&ZEROS[..memory_len(len)], at);
            self.behind.submit(&self.file, at..at + len).map_err(|e| self.write_error("write", len)(e))?;
            written.map_err(|e| self.write_error("reserve space for", range.end - at)(e))?;
            at += len;
        }
        Ok(())
    }

    /// Writes the header, sets the exact length and syncs the file; one of several arrays in a file only waits until its data are
    /// written. No window
    /// may be left.
    ///
    /// After an error here the state on disk is unknown: the file must not get its name.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] when the disk has no room for the header, [`Error::Io`].
    pub(crate) fn finish(self: Arc<Self>, header: &Header, nbytes: u64) -> Result<WriteBehind> {
        let sink = Arc::into_inner(self).ok_or_else(|| BadRequest::impossible("a part of the array is still being written"))?;
        sink.finish_alone(header, nbytes)?;
        Ok(sink.behind)
    }

    fn finish_alone(&self, header: &Header, nbytes: u64) -> Result<()> {
        self.settle()?;
        if self.is_part {
            // The whole file is synced at the end.
            let range = self.data_start..self.position(nbytes)?;
            return self.file.finish_writeback(&range).map_err(|e| self.write_error("sync", nbytes)(e));
        }
        let data_start = if nbytes == 0 { header.data_start() } else { self.data_start };
        self.file.set_len(data_start + nbytes).map_err(|e| self.write_error("resize", data_start)(e))?;
        self.file.write_at(&header.encode(data_start), 0).map_err(|e| self.write_error("write", data_start)(e))?;
        self.file.sync_all().map_err(|e| self.write_error("sync", nbytes)(e))
    }
}

/// What `range` of `data` has before and after `middle`, with its place.
fn ends<'a>(range: &Range<u64>, middle: &Range<u64>, data: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let (front, rest) = data.split_at(memory_len(middle.start - range.start));
    let back = &rest[memory_len(middle.end - middle.start)..];
    [(range.start, front), (middle.end, back)].into_iter().filter(|(_, end)| !end.is_empty())
}

/// The error when a disk, a quota or a limit denies `asked` more bytes to `file`, which is to be `path`.
fn no_space(file: &PrivateFile, path: &Path, errno: Errno, asked: u64) -> Error {
    let (kind, allowed) = match errno {
        Errno::FBIG => ("file size limit", rustix::process::getrlimit(rustix::process::Resource::Fsize).current),
        Errno::DQUOT => ("disk quota", None),
        _ => ("disk space", free_bytes(file.file())),
    };
    Error::Limit { what: format!("{kind} for {}", path.display()), asked, allowed: allowed.filter(|&free| free < asked) }
}

/// An adapter for `map_err` that separates a full disk from other failures to write `bytes` of `file`, which is to be `path`.
pub(crate) fn write_error(file: &PrivateFile, path: &Path, action: &'static str, bytes: u64) -> impl FnOnce(io::Error) -> Error {
    move |error| match Errno::from_io_error(&error) {
        Some(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => no_space(file, path, errno, bytes),
        _ => Error::io(action, path)(error),
    }
}

/// Who fills a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowWriter {
    /// System calls that read into it; they report unavailable pages.
    Kernel,
    /// Stores of this process, which such a page would kill: all pages must be available.
    Stores,
    /// The same, by a thread that already holds a window: it must not wait for memory that others may only release after it.
    Nested,
}

/// A part of the data, mapped if possible. Fill it through [`DerefMut`], then call [`commit`](Self::commit).
#[derive(Debug)]
pub(crate) struct Window {
    content: Content,
    counted: Counted,
}

#[derive(Debug)]
enum Content {
    Map(MappedRange),
    /// Zeros at first; `start` is their offset in the file.
    Buffer {
        bytes: PlacedBytes,
        start: u64,
    },
}

impl Window {
    /// The same window, which may stay open while others wait for memory: they do not wait for this one. A sink has one such window at most.
    pub(crate) fn left_open(mut self) -> Self {
        let counted = &mut self.counted;
        counted.stays_open = true;
        counted.sink.behind.set_idle(counted.pages.end - counted.pages.start + counted.buffer);
        self
    }

    /// Unmaps or writes the part, and starts writing it to the disk.
    pub(crate) fn commit(self) -> Result<()> {
        let len = self.len();
        self.commit_front(len)
    }

    /// As [`commit`](Self::commit), for a window of which only the first `len` bytes were filled; others may have written the
    /// rest.
    pub(crate) fn commit_front(self, len: usize) -> Result<()> {
        let Self { content, mut counted } = self;
        let written = match content {
            Content::Map(map) => {
                drop(map);
                Ok(())
            }
            Content::Buffer { bytes, start } => counted.sink.write_counted(&(start..start + len as u64), &bytes[..len]),
        };
        written.and(counted.submit())
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Map(map) => map,
            Content::Buffer { bytes, .. } => bytes,
        }
    }
}

impl DerefMut for Window {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.content {
            Content::Map(map) => map,
            Content::Buffer { bytes, .. } => bytes,
        }
    }
}

/// Pages of the file that count as dirty. They count until they are on the disk, also if their window is dropped.
#[derive(Debug)]
struct Counted {
    sink: Arc<NpySink>,
    pages: Range<u64>,
    /// Bytes of the window's buffer, which count while the window exists.
    buffer: u64,
    stays_open: bool,
}

impl Counted {
    fn submit(&mut self) -> Result<()> {
        let pages = std::mem::take(&mut self.pages);
        let bytes = pages.end - pages.start;
        if std::mem::take(&mut self.stays_open) {
            self.sink.behind.set_idle(0);
        }
        self.sink.behind.release(std::mem::take(&mut self.buffer));
        self.sink.behind.submit(&self.sink.file, pages).map_err(|e| self.sink.write_error("write", bytes)(e))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.pages.is_empty() {
            // Only a window that was not committed gets here, and then its file is never finished.
            let _ = self.submit();
        }
    }
}

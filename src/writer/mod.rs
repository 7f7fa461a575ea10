//! This room writes huge arrays from rows that a program makes itself: a decoder, a simulation, a camera. It knows nothing of
//! sources; start at [`ArrayWriter`].

pub(crate) mod directory;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{NoUninit, Pod};
use ndarray::{ArrayViewMutD, IxDyn};

use crate::cast::decoder::normalise_bools;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::Header;
use crate::options::Options;
use crate::options::budget::Budget;
use crate::options::method::Method;
use crate::output::mmap;
use crate::output::sink::{NpySink, Window, WindowWriter};
use crate::output::staging::file::StagedFile;
use crate::plan::{Memory, Plan, Resources};
use crate::types::dtype::Dtype;
use crate::types::element::Element;
use crate::types::size::memory_len;
use crate::types::spec::{MAX_NDIM, TensorSpec};
use crate::view::MmapArray;

/// Shorter runs of bytes are gathered in a mapped window before they are written.
const LEAST_WRITTEN: usize = 256 << 10;

/// How values reach the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Copied into a mapped window.
    Window,
    /// Written directly from the caller's memory.
    Buffer,
}

/// The description of an array that is to be written; [`create`](Self::create) starts it.
#[derive(Debug, Clone)]
pub struct ArrayBuilder {
    dtype: Dtype,
    row_shape: Vec<u64>,
    rows: Option<u64>,
    options: Options,
}

impl ArrayBuilder {
    /// Sets the number of rows, if it is known: space for all of them is reserved at the start.
    #[must_use]
    pub fn rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Sets the memory limit; see [`Options::memory`].
    #[must_use]
    pub fn memory(mut self, budget: Budget) -> Self {
        self.options = self.options.memory(budget);
        self
    }

    /// Sets whether an existing output is replaced; see [`Options::overwrite`].
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options = self.options.overwrite(overwrite);
        self
    }

    /// Starts writing. The array appears at `path` once it is finished.
    ///
    /// # Errors
    /// [`Error::OutputExists`]; [`Error::Unsupported`] for a dtype without fixed-size elements; [`Error::BadRequest`] when a `.npy` cannot
    /// express the shape; [`Error::Limit`] when memory or disk space do not suffice; [`Error::Io`].
    pub fn create(self, path: impl AsRef<Path>) -> Result<ArrayWriter> {
        let descr = self.dtype.descr().ok_or_else(|| Error::Unsupported {
            what: format!("dtype {}", self.dtype),
            detail: "its elements have no fixed size".into(),
        })?;
        let shape: Vec<u64> = [self.rows.unwrap_or(1)].into_iter().chain(self.row_shape.iter().copied()).collect();
        if shape.len() > MAX_NDIM {
            return Err(BadRequest::TooManyDimensions { dimensions: shape.len(), most: MAX_NDIM }.into());
        }
        let spec = TensorSpec::new(self.dtype, shape)?;
        let run = self.options.request(None, 0).run;
        let resources = Resources { in_flight: None, ..Resources::of(&run, 1) };
        let plan = Plan::new(&spec, &(0..1.min(spec.rows())), Memory::Windows, &resources)?;
        let staged = StagedFile::create(path.as_ref(), run.existing, &run.calls)?;
        let buffers = Method::to_copy(staged.file(), None, self.rows.map(|rows| rows.saturating_mul(spec.row_bytes())))?;
        let sink = NpySink::new(Arc::clone(staged.file()), staged.target(), Method::Map, plan.shares.window_bytes).with_buffers(buffers);
        let sink = Arc::new(if mmap::can_map(staged.file()) { sink } else { sink.without_maps() });
        if let Some(rows) = self.rows {
            sink.reserve(rows * spec.row_bytes())?;
        }
        Ok(ArrayWriter {
            staged,
            sink,
            rows: self.rows,
            window_bytes: plan.shares.window_bytes,
            append_window: (plan.shares.window_bytes / 8).min(4 << 20) / 4096 * 4096,
            row: spec,
            descr,
            written: Mutex::default(),
            broken: AtomicBool::new(false),
            appending: None,
            next: 0,
        })
    }
}

/// Writes a `.npy` of any size, row by row, with the guarantees of a conversion: memory is bounded, space is reserved ahead, and
/// the complete file appears under its name when [`finish`](Self::finish) succeeds. A writer that is dropped earlier leaves
/// nothing behind.
///
/// Rows are appended in order, filled in parallel in disjoint ranges, or both.
///
/// ```
/// use mmconvert::{ArrayWriter, Dtype, Error};
/// use rayon::prelude::*;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("frames.npy");
/// // 100 frames of 4 x 6 pixels, RGB, each made by whichever thread is free.
/// let writer = ArrayWriter::new(Dtype::UInt8, &[4, 6, 3]).rows(100).create(&path)?;
/// (0..100u64).into_par_iter().try_for_each(|frame| {
///     writer.fill(frame..frame + 1, |pixels: &mut [u8]| {
///         pixels.fill(frame as u8);
///         Ok::<(), Error>(())
///     })
/// })?;
/// // SAFETY: nobody shortens or writes to frames.npy while the array lives.
/// let array = unsafe { writer.finish_mapped() }?;
/// assert_eq!(array.view::<u8>()?[[99, 3, 5, 2]], 99);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ArrayWriter {
    staged: StagedFile,
    sink: Arc<NpySink>,
    rows: Option<u64>,
    window_bytes: u64,
    /// Bytes of a window for appended elements.
    append_window: u64,
    /// Whether a write failed.
    broken: AtomicBool,
    /// Dtype and row shape; the length of axis 0 has no meaning here.
    row: TensorSpec,
    descr: &'static str,
    written: Mutex<Claims>,
    /// The window that appended elements go to, and how many of its bytes are filled.
    appending: Option<(Window, usize)>,
    /// Byte position behind the last appended element.
    next: u64,
}

impl ArrayWriter {
    /// An array of `dtype` whose rows have the shape `row_shape`; a one-dimensional array has rows of shape `[]`.
    #[expect(clippy::new_ret_no_self, reason = "a writer exists once it has a path; until then it is its builder")]
    #[must_use]
    pub fn new(dtype: Dtype, row_shape: &[u64]) -> ArrayBuilder {
        ArrayBuilder { dtype, row_shape: row_shape.to_vec(), rows: None, options: Options::default() }
    }

    /// Bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        self.row.row_bytes()
    }

    /// Appends elements after those appended before: any number of them, even parts of rows.
    ///
    /// # Errors
    /// [`Error::WrongDtype`]; [`Error::BadRequest`] when the elements exceed a known number of rows or reach rows that were filled;
    /// [`Error::Limit`] when the disk is full; [`Error::Io`].
    pub fn append<T: Element + NoUninit>(&mut self, elements: &[T]) -> Result<()> {
        self.check_dtype::<T>()?;
        self.append_bytes(bytemuck::cast_slice(elements))
    }

    /// Appends elements given as their little-endian bytes.
    ///
    /// # Errors
    /// Those of [`append`](Self::append), and [`Error::BadRequest`] when `bytes` ends within an element.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if !(bytes.len() as u64).is_multiple_of(self.row.itemsize()) {
            return Err(BadRequest::PartialElement { given: bytes.len() as u64, dtype: self.row.dtype().name() }.into());
        }
        if self.row.row_bytes() == 0 && !bytes.is_empty() {
            return Err(BadRequest::NoElements { of: self.rows, shape: self.row.shape()[1..].to_vec() }.into());
        }
        // Refused if it is that large.
        let end = self.next.saturating_add(bytes.len() as u64);
        self.claim(self.next..end)?;
        let result = self.append_claimed(bytes);
        if result.is_err() {
            // Bytes that did not reach a window were not written.
            self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.next..end));
        }
        result
    }

    fn append_claimed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (mut window, mut filled) = match self.appending.take() {
                Some(open) => open,
                None if self.way(bytes.len()) == Way::Buffer => {
                    let now = &bytes[..bytes.len().min(memory_len(self.append_window))];
                    self.reserve(self.next + now.len() as u64)?;
                    self.write_through(self.next, now)?;
                    self.next += now.len() as u64;
                    bytes = &bytes[now.len()..];
                    continue;
                }
                None => (self.open_append_window()?, 0),
            };
            let (now, later) = bytes.split_at(bytes.len().min(window.len() - filled));
            let place = &mut window[filled..filled + now.len()];
            place.copy_from_slice(now);
            self.make_valid(place);
            filled += now.len();
            self.next += now.len() as u64;
            bytes = later;
            if filled == window.len() {
                self.commit(window, filled)?;
            } else {
                self.appending = Some((window, filled));
            }
        }
        Ok(())
    }

    /// The one place that decides how a run of values reaches the file. Long runs are written directly from the caller's memory, as a
    /// conversion writes its buffers. Short runs, and values that must be made valid first, are gathered in a window.
    fn way(&self, len: usize) -> Way {
        if len < LEAST_WRITTEN || self.row.dtype() == Dtype::Bool { Way::Window } else { Way::Buffer }
    }

    /// Writes `bytes` at `start`, an offset in the data. If that fails, the file's content there is unknown.
    fn write_through(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let written = self.sink.write(start..start + bytes.len() as u64, bytes);
        written.inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }

    /// Hands the filled front of a window to the disk. If that fails, the file's content is unknown and the array can no longer
    /// be finished.
    fn commit(&self, window: Window, filled: usize) -> Result<()> {
        window.commit_front(filled).inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }

    /// A buffer or a window from the append position to the next window boundary, or to the end of a known number of rows.
    ///
    /// Bytes behind the appended elements stay untouched, so other threads may fill rows there.
    fn open_append_window(&self) -> Result<Window> {
        let end = (self.next / self.append_window + 1) * self.append_window;
        let end = self.total_bytes().map_or(end, |total| end.min(total));
        self.reserve(end)?;
        Ok(self.sink.gather(self.next..end)?.left_open())
    }

    /// Writes rows from a slice of values. Any number of threads may call this at once, also while others fill or append.
    ///
    /// Long runs of rows are written directly from the slice, without a copy in a mapped window. For rows that already exist in memory
    /// this is faster than [`fill`](Self::fill), which is for rows that are computed in place.
    ///
    /// # Errors
    /// [`Error::WrongDtype`]; [`Error::BadRequest`] when `elements` has another length than these rows, a row was written before or lies
    /// beyond a known number of rows; [`Error::Limit`] when the disk is full; [`Error::Io`].
    pub fn write<T: Element + NoUninit>(&self, rows: Range<u64>, elements: &[T]) -> Result<()> {
        self.check_dtype::<T>()?;
        self.write_bytes(rows, bytemuck::cast_slice(elements))
    }

    /// Like [`write`](Self::write), with the rows as little-endian bytes, for types that Rust does not have.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_bytes(&self, rows: Range<u64>, bytes: &[u8]) -> Result<()> {
        let given = bytes.len() as u64;
        if rows.end.checked_sub(rows.start).and_then(|rows| rows.checked_mul(self.row.row_bytes())) != Some(given) {
            return Err(BadRequest::RowBytes { given, rows, row_bytes: self.row.row_bytes() }.into());
        }
        let place = self.claim_rows(&rows)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let claim = Claim { writer: self, bytes: place.clone(), keep: false };
        self.reserve(place.end)?;
        let mut at = place.start;
        for part in bytes.chunks(memory_len(self.append_window).max(1)) {
            match self.way(part.len()) {
                Way::Buffer => self.write_through(at, part)?,
                Way::Window => {
                    let mut window = self.sink.gather(at..at + part.len() as u64)?;
                    window.copy_from_slice(part);
                    self.make_valid(&mut window);
                    self.commit(window, part.len())?;
                }
            }
            at += part.len() as u64;
        }
        claim.keep();
        Ok(())
    }

    /// Like [`fill`](Self::fill), but the rows are an `ndarray` view of shape `[rows, row shape…]`, e.g. frames indexed by pixel.
    ///
    /// ```
    /// use mmconvert::{ArrayWriter, Dtype, Error, ndarray::ArrayViewMutD};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let writer = ArrayWriter::new(Dtype::UInt8, &[2, 3]).rows(4).create(dir.path().join("frames.npy"))?;
    /// writer.fill_view(0..4, |mut frames: ArrayViewMutD<u8>| {
    ///     frames.indexed_iter_mut().for_each(|(place, pixel)| *pixel = place[0] as u8);
    ///     Ok::<(), Error>(())
    /// })?;
    /// writer.finish()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub fn fill_view<T: Element + Pod, E: From<Error>>(
        &self,
        rows: Range<u64>,
        fill: impl FnOnce(ArrayViewMutD<'_, T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let shape: Vec<usize> =
            [rows.end.saturating_sub(rows.start)].iter().chain(&self.row.shape()[1..]).map(|&axis| memory_len(axis)).collect();
        self.fill(rows, |elements: &mut [T]| {
            let view = ArrayViewMutD::from_shape(IxDyn(&shape), elements)
                .map_err(|error| Error::from(BadRequest::impossible(error.to_string())))?;
            fill(view)
        })
    }

    /// Lets `fill` write the rows `rows`. They are zeros unless an earlier fill failed. Any number of threads may do so at once.
    ///
    /// The whole range is mapped and dirty while `fill` runs: a few MiB at a time are fastest, so small rows are best filled in blocks,
    /// in parallel with `(0..rows.div_ceil(256)).into_par_iter()` and the rows from `256 * block` on. If `fill` fails, its rows count as
    /// not written. `fill` should not fill other rows of this writer; if it does (its thread may pick up another row while it
    /// runs parallel work), the inner rows may exceed the memory limit.
    ///
    /// # Errors
    /// Those of `fill`; [`Error::WrongDtype`]; [`Error::BadRequest`] when a row was written before or lies beyond a known number of
    /// rows; [`Error::Limit`] when the range exceeds half of the memory or the disk is full; [`Error::Io`].
    pub fn fill<T: Element + Pod, E: From<Error>>(&self, rows: Range<u64>, fill: impl FnOnce(&mut [T]) -> Result<(), E>) -> Result<(), E> {
        self.check_dtype::<T>()?;
        self.fill_bytes(rows, |bytes| fill(if bytes.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(bytes) }))
    }

    /// As [`fill`](Self::fill), with rows as little-endian bytes: for types that Rust lacks.
    ///
    /// # Errors
    /// Those of [`fill`](Self::fill).
    pub fn fill_bytes<E: From<Error>>(&self, rows: Range<u64>, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        let bytes = self.claim_rows(&rows)?;
        let claim = Claim { writer: self, bytes: bytes.clone(), keep: false };
        let (asked, most) = (bytes.end - bytes.start, self.window_bytes / 2);
        if asked > most {
            return Err(
                Error::Limit { what: format!("memory for rows {}:{} at once", rows.start, rows.end), asked, allowed: Some(most) }.into()
            );
        }
        if asked == 0 {
            fill(&mut [])?;
        } else {
            self.reserve(bytes.end)?;
            let nesting = Nesting::enter();
            let filler = if nesting.is_outermost() { WindowWriter::Stores } else { WindowWriter::Nested };
            let mut window = self.sink.window(bytes, filler)?;
            fill(&mut window)?;
            self.make_valid(&mut window);
            let len = window.len();
            self.commit(window, len)?;
        }
        claim.keep();
        Ok(())
    }

    /// Writes the header, syncs the file, and gives it its name. Returns the dtype and shape of the array.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when rows are missing or the last one is incomplete; [`Error::OutputExists`] when the name was taken
    /// meanwhile; [`Error::Io`]. No output exists then, unless the error says that it is in its place.
    pub fn finish(self) -> Result<TensorSpec> {
        let (staged, spec) = self.complete()?;
        staged.publish()?;
        Ok(spec)
    }

    /// As [`finish`](Self::finish), and maps the array before the file gets its name, so the map shows what was written.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    ///
    /// # Safety
    /// As [`MmapArray::open`]: nobody shortens the file or writes to it while the array lives.
    #[expect(unsafe_code, reason = "the obligations of mapping a file with a name are the caller's")]
    pub unsafe fn finish_mapped(self) -> Result<MmapArray> {
        let (staged, spec) = self.complete()?;
        // SAFETY: this process does not change the file any more, and the caller vouches for others.
        let map = unsafe { mmap::map_finished(staged.file()) }.map_err(Error::io("map", staged.target()))?;
        let array = MmapArray::new(map, staged.target(), Some(spec.dtype()))?;
        staged.publish()?;
        Ok(array)
    }

    /// Completes the file, all but its name.
    fn complete(mut self) -> Result<(StagedFile, TensorSpec)> {
        if let Some((window, filled)) = self.appending.take() {
            self.commit(window, filled)?;
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(BadRequest::EarlierFailure.into());
        }
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let rows = self.finished_rows(&written)?;
        let shape: Vec<u64> = [rows].into_iter().chain(self.row.shape()[1..].iter().copied()).collect();
        let spec = TensorSpec::new(self.row.dtype(), shape)?;
        self.sink.finish(&Header::new(self.descr, spec.shape()), spec.nbytes())?;
        Ok((self.staged, spec))
    }

    /// The number of rows, once every one of them has been written.
    fn finished_rows(&self, written: &Claims) -> Result<u64> {
        let row_bytes = self.row.row_bytes();
        if row_bytes == 0 {
            return Ok(self.rows.unwrap_or(written.empty_rows));
        }
        let end = written.end();
        if let Some(gap) = written.first_gap() {
            return Err(BadRequest::RowMissing { row: gap / row_bytes }.into());
        }
        if !end.is_multiple_of(row_bytes) {
            return Err(BadRequest::PartialRow { given: end % row_bytes, row_bytes }.into());
        }
        match self.rows {
            Some(of) if end / row_bytes < of => Err(BadRequest::RowsMissing { written: end / row_bytes, of }.into()),
            _ => Ok(end / row_bytes),
        }
    }

    fn make_valid(&self, bytes: &mut [u8]) {
        if self.row.dtype() == Dtype::Bool {
            normalise_bools(bytes);
        }
    }

    fn check_dtype<T: Element>(&self) -> Result<()> {
        if T::DTYPES.contains(&self.row.dtype()) && (cfg!(target_endian = "little") || size_of::<T>() == 1) {
            Ok(())
        } else {
            Err(Error::WrongDtype { actual: self.row.dtype().name(), asked: T::NAME })
        }
    }

    fn total_bytes(&self) -> Option<u64> {
        self.rows.map(|rows| rows * self.row.row_bytes())
    }

    /// Reserves space up to byte `end`, and some more where the final size is unknown.
    fn reserve(&self, end: u64) -> Result<()> {
        if self.rows.is_some() {
            return Ok(());
        }
        self.sink.grow(end)
    }

    fn claim_rows(&self, rows: &Range<u64>) -> Result<Range<u64>> {
        let row_bytes = self.row.row_bytes();
        let wrong = || self.no_such_rows(rows.clone());
        if rows.start > rows.end || self.rows.is_some_and(|known| rows.end > known) {
            return Err(wrong().into());
        }
        if row_bytes == 0 {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.empty_rows = written.empty_rows.max(rows.end);
            return Ok(0..0);
        }
        let bytes =
            rows.start.checked_mul(row_bytes).zip(rows.end.checked_mul(row_bytes)).map(|(start, end)| start..end).ok_or_else(wrong)?;
        self.claim(bytes.clone())?;
        Ok(bytes)
    }

    fn no_such_rows(&self, rows: Range<u64>) -> BadRequest {
        BadRequest::NoSuchRows { rows, of: self.rows, shape: self.row.shape()[1..].to_vec() }
    }

    fn claim(&self, bytes: Range<u64>) -> Result<()> {
        let row_bytes = self.row.row_bytes().max(1);
        let rows = bytes.start / row_bytes..bytes.end.div_ceil(row_bytes);
        if i64::try_from(bytes.end).is_err() || self.total_bytes().is_some_and(|total| bytes.end > total) {
            return Err(self.no_such_rows(rows).into());
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.insert(bytes.clone()) { Ok(()) } else { Err(BadRequest::RowsWritten { rows }.into()) }
    }
}

thread_local! {
    /// Number of fills that this thread is in.
    static FILLS: Cell<u32> = const { Cell::new(0) };
}

/// One fill of this thread, perhaps within another. An inner one must not wait for memory, since the outer one holds some.
struct Nesting(u32);

impl Nesting {
    fn enter() -> Self {
        Self(FILLS.replace(FILLS.get() + 1))
    }

    fn is_outermost(&self) -> bool {
        self.0 == 0
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        FILLS.set(self.0);
    }
}

/// Rows that count as written, unless filling them fails.
struct Claim<'a> {
    writer: &'a ArrayWriter,
    bytes: Range<u64>,
    keep: bool,
}

impl Claim<'_> {
    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.writer.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.bytes);
        }
    }
}

/// Disjoint ranges of bytes; neighbours are merged.
#[derive(Debug, Default)]
struct Claims {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    /// Rows of zero bytes are only counted.
    empty_rows: u64,
}

impl Claims {
    /// Adds a range. Returns `false` and changes nothing if a part of it is in the set already.
    fn insert(&mut self, range: Range<u64>) -> bool {
        let Range { mut start, mut end } = range;
        if start == end {
            return true;
        }
        let before = self.ranges.range(..end).next_back().map(|(&s, &e)| (s, e));
        if let Some((s, e)) = before {
            if e > start {
                return false;
            }
            if e == start {
                self.ranges.remove(&s);
                start = s;
            }
        }
        if let Some(e) = self.ranges.remove(&end) {
            end = e;
        }
        self.ranges.insert(start, end);
        true
    }

    /// Removes a range that was added.
    fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&start, &end)) = self.ranges.range(..=range.start).next_back() {
            self.ranges.remove(&start);
            for (s, e) in [(start, range.start), (range.end, end)] {
                if s < e {
                    self.ranges.insert(s, e);
                }
            }
        }
    }

    fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The first byte below the end that no range contains.
    fn first_gap(&self) -> Option<u64> {
        match self.ranges.first_key_value() {
            Some((&start, _)) if start > 0 => Some(0),
            Some((_, &end)) if self.ranges.len() > 1 => Some(end),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claims_behave_like_a_set_of_bytes(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..10), 0..60)) {
            let mut claims = Claims::default();
            let mut model = [false; 64];
            let mut added: Vec<Range<u64>> = Vec::new();
            for (add, start, len) in steps {
                let range = start..start + len;
                if add || added.is_empty() {
                    let free = range.clone().all(|i| !model[i as usize]);
                    prop_assert_eq!(claims.insert(range.clone()), free);
                    if free {
                        range.clone().for_each(|i| model[i as usize] = true);
                        added.push(range);
                    }
                } else {
                    let range = added.swap_remove(start as usize % added.len());
                    claims.remove(&range);
                    range.for_each(|i| model[i as usize] = false);
                }
                let end = model.iter().rposition(|&b| b).map_or(0, |i| i + 1);
                prop_assert_eq!(claims.end(), end as u64);
                prop_assert_eq!(claims.first_gap(), model[..end].iter().position(|&b| !b).map(|i| i as u64));
            }
        }
    }
}

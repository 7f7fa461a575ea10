//! The trait through which the elements of every tensor are read.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checksums::{Region, RegionChecksums};
use crate::error::Result;
use crate::os::SystemCalls;
use crate::plan::grid::{ChunkGrid, Unit};
use crate::plan::tiles::Runs;
use crate::types::byte_order::ByteOrder;
use crate::types::layout::Layout;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Reads elements of one tensor, in any order, from any thread.
///
/// Positions are flat: element `i` is the `i`-th in the order of [`layout`](Self::layout). In C order rows of axis 0 are runs of
/// [`TensorSpec::row_elements`] of them, so a run of rows, one row and a part of a huge row are read alike.
pub trait TensorReader: fmt::Debug + Send + Sync {
    /// The tensor's dtype and shape.
    fn spec(&self) -> &TensorSpec;

    /// The byte order in which [`read`](Self::read) leaves elements.
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    /// The order in which flat positions count elements: C, or Fortran if the source stores elements so.
    fn layout(&self) -> Layout {
        Layout::C
    }

    /// Whether bytes of a `bool` other than 0 and 1 are kept, as NumPy does with its own arrays. Otherwise they become 1.
    fn keeps_bool_bytes(&self) -> bool {
        false
    }

    /// Fills `out`, which holds exactly `elements`, or fails. There are no short reads.
    ///
    /// Stored checksums cover the bytes before decoding: those bytes are what goes to [`ReadContext::record`].
    ///
    /// # Errors
    /// Returns [`Error::Io`](crate::Error::Io) when reading fails, [`Error::Malformed`](crate::Error::Malformed) when the file
    /// ends early, [`Error::Cancelled`](crate::Error::Cancelled).
    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()>;

    /// Whether elements are stored as a stream: reading on after the last read is cheap, any other read costs as much as reading
    /// everything before it. Callers read such a tensor once, from front to back.
    fn is_sequential(&self) -> bool {
        false
    }

    /// The shape of the chunks that elements are stored in, if any part of a chunk takes decoding all of it, as with compression.
    /// One length for each axis; chunks start at multiples of them.
    fn chunks(&self) -> Option<&[u64]> {
        None
    }

    /// Chunk layout, if some read orders cost more than others; otherwise empty. Grids follow each other along axis 0 and cover
    /// every row: one for a tensor in [`chunks`](Self::chunks) or a stream, several for a joined tensor.
    fn chunk_grids(&self) -> Vec<ChunkGrid> {
        let rows = 0..self.spec().rows();
        match self.chunks() {
            Some(chunks) => vec![ChunkGrid { rows, chunk: chunks.to_vec(), unit: Unit::Chunk }],
            None if self.is_sequential() => vec![ChunkGrid { rows, chunk: vec![1; self.spec().shape().len()], unit: Unit::Stream }],
            None => Vec::new(),
        }
    }

    /// Fills `out`, which holds exactly the box of `shape` that starts at index `start`, in the order of [`layout`](Self::layout).
    /// With [`chunks`](Self::chunks), each call decodes every chunk it needs once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let axes = |axes: &[u64]| if self.layout() == Layout::F { axes.iter().rev().copied().collect() } else { axes.to_vec() };
        let places = Runs::new(axes(self.spec().shape()), axes(start), axes(shape));
        let mut rest = out;
        for run in places.of(0..shape.iter().product()) {
            let (now, later) = rest.split_at_mut(memory_len((run.end - run.start) * self.spec().itemsize()));
            self.read(run, now, context)?;
            rest = later;
        }
        Ok(())
    }

    /// The stored checksums and the bytes each one covers; empty when the format has none.
    fn regions(&self) -> &[Region] {
        &[]
    }

    /// Whether some elements are covered by a region and others are not.
    fn is_partly_covered(&self) -> bool {
        false
    }

    /// The run of stored bytes that holds flat position `element`, if the run is exactly the bytes of its elements, contiguous and
    /// in order. The output skips holes in it, and may share its blocks.
    ///
    /// # Errors
    /// Returns [`Error::Io`](crate::Error::Io) when its file cannot be opened.
    fn stored_run(&self, _element: u64) -> Result<Option<StoredRun>> {
        Ok(None)
    }

    /// Whether [`stored_run`](Self::stored_run) can return a run, so that looking for holes is worth the time.
    fn has_stored_runs(&self) -> bool {
        false
    }

    /// Hints that these elements are read soon, maybe after many others, so that they can be fetched in the background.
    fn prefetch(&self, _elements: Range<u64>, _context: &ReadContext<'_>) {}

    /// Tells that these elements are not read again for a long time.
    fn evict(&self, _elements: Range<u64>, _context: &ReadContext<'_>) {}

    /// Called after the last read: a reader that reads parts of the source twice fails here if those reads may differ.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`](crate::Error::Malformed) when the source was written to since the reader was made.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// Whether [`read`](Self::read) fills `out` through system calls only, which report an unavailable page of a mapped output as
    /// an error. A reader that stores into `out` itself would be killed by a signal, so all pages are made available first, which
    /// takes longer.
    fn fills_by_system_calls(&self) -> bool {
        false
    }

    /// Heap bytes that the reader keeps while it lives; they count against the memory budget.
    fn heap_bytes(&self) -> u64 {
        0
    }

    /// The same, while at most `workers` threads call nothing but [`read_box`](Self::read_box).
    fn box_heap_bytes(&self, _workers: u64) -> u64 {
        self.heap_bytes()
    }
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl<T: TensorReader + ?Sized> TensorReader for &T {
    fn spec(&self) -> &TensorSpec {
        (**self).spec()
    }

    fn byte_order(&self) -> ByteOrder {
        (**self).byte_order()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn keeps_bool_bytes(&self) -> bool {
        (**self).keeps_bool_bytes()
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        (**self).read(elements, out, context)
    }

    fn is_sequential(&self) -> bool {
        (**self).is_sequential()
    }

    fn chunks(&self) -> Option<&[u64]> {
        (**self).chunks()
    }

    fn chunk_grids(&self) -> Vec<ChunkGrid> {
        (**self).chunk_grids()
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        (**self).read_box(start, shape, out, context)
    }

    fn regions(&self) -> &[Region] {
        (**self).regions()
    }

    fn is_partly_covered(&self) -> bool {
        (**self).is_partly_covered()
    }

    fn stored_run(&self, element: u64) -> Result<Option<StoredRun>> {
        (**self).stored_run(element)
    }

    fn has_stored_runs(&self) -> bool {
        (**self).has_stored_runs()
    }

    fn prefetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        (**self).prefetch(elements, context);
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        (**self).evict(elements, context);
    }

    fn check_unchanged(&self) -> Result<()> {
        (**self).check_unchanged()
    }

    fn fills_by_system_calls(&self) -> bool {
        (**self).fills_by_system_calls()
    }

    fn heap_bytes(&self) -> u64 {
        (**self).heap_bytes()
    }

    fn box_heap_bytes(&self, workers: u64) -> u64 {
        (**self).box_heap_bytes(workers)
    }
}

/// A contiguous run of elements in a file.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// Flat positions in the tensor.
    pub elements: Range<u64>,
    /// The file.
    pub file: Arc<File>,
    /// Its path, for messages.
    pub path: Arc<Path>,
    /// Offset in the file of the first of them.
    pub offset: u64,
    /// Index of the entry of [`TensorReader::regions`] that covers them and starts at the same byte.
    pub region: Option<usize>,
}

/// Passed by a worker to a reader: scratch memory and the checksums of regions.
#[derive(Debug)]
pub struct ReadContext<'a> {
    /// Scratch memory that lives as long as the worker; [`chunk_bytes`](Self::chunk_bytes) long.
    scratch: Vec<u8>,
    chunk_bytes: usize,
    checksums: Option<&'a RegionChecksums<'a>>,
    pub(crate) calls: SystemCalls,
    /// The regions of the current reader among those of `checksums`.
    regions: Range<usize>,
}

impl<'a> ReadContext<'a> {
    pub(crate) fn new(chunk_bytes: usize, checksums: Option<&'a RegionChecksums<'a>>, calls: &SystemCalls) -> Self {
        Self { scratch: Vec::new(), chunk_bytes, checksums, calls: calls.clone(), regions: 0..usize::MAX }
    }

    /// The largest single read from storage, in bytes.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Fails once the caller has cancelled; readers call it between chunks.
    ///
    /// # Errors
    /// Returns [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn check_cancelled(&self) -> Result<()> {
        self.calls.cancel().check()
    }

    /// Records that `bytes` were read at `offset` of region `region` of [`TensorReader::regions`].
    pub fn record(&self, region: usize, offset: u64, bytes: &[u8]) {
        let Some(checksums) = self.checksums else { return };
        if let Some(region) = self.regions.start.checked_add(region).filter(|region| self.regions.contains(region)) {
            checksums.record(region, offset, bytes);
        }
    }

    /// Calls `read` for a part whose regions are `regions` of the whole; the range may be empty.
    pub(crate) fn with_regions<T>(&mut self, regions: Range<usize>, read: impl FnOnce(&mut Self) -> T) -> T {
        let start = self.regions.start;
        let inner = start.saturating_add(regions.start)..start.saturating_add(regions.end);
        let outer = std::mem::replace(&mut self.regions, inner);
        let result = read(self);
        self.regions = outer;
        result
    }

    /// Takes the scratch memory for one call; hand it back with [`return_scratch`](Self::return_scratch).
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(self.chunk_bytes, 0);
        scratch
    }

    pub(crate) fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }
}

//! Datasets in chunks: finds each chunk and assembles the elements.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::format::hdf5::filters::{Step, undo};
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::storage::blob::Blob;
use crate::types::byte_order::ByteOrder;
use crate::types::size::memory_len;
use crate::types::spec::{TensorSpec, unravel};

const WHAT: &str = "HDF5 chunk";
/// Largest chunk. HDF5 caches none above this size by default, and the format allows less than 4 GiB.
const MOST_CHUNK: u64 = 256 << 20;
/// Memory for chunks that are being decoded, unless a single one needs more.
const MOST_SCRATCH: u64 = 64 << 20;
/// Most workers that decode at once.
const MOST_WORKERS: u64 = 8;
/// Memory for decoded chunks that are kept for consecutive short reads.
const MOST_KEPT: u64 = 16 << 20;

/// The place of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredChunk {
    /// Its number in the grid, in C order.
    number: u64,
    /// The file offset of its bytes.
    offset: u64,
    nbytes: u64,
    /// Filters that were skipped for it.
    mask: u32,
}

/// The chunks of a dataset that were written.
pub(crate) struct Chunks {
    /// Chunks along each axis.
    grid: Vec<u64>,
    stored: Vec<StoredChunk>,
}

impl Chunks {
    /// An empty list for a tensor with chunks of this shape.
    pub(crate) fn new(spec: &TensorSpec, chunk: &[u64]) -> Self {
        let grid = spec.shape().iter().zip(chunk).map(|(dim, len)| dim.div_ceil((*len).max(1))).collect();
        Self { grid, stored: Vec::new() }
    }

    /// Adds the chunk at a place in the grid. The datatype's own axes may be omitted, since they are never split.
    ///
    /// # Errors
    /// A sentence, for a grid that is too large.
    pub(crate) fn add(&mut self, place: &[u64], offset: u64, nbytes: u64, mask: u32) -> Result<(), String> {
        let place = place.iter().chain(std::iter::repeat(&0));
        let number = place.zip(&self.grid).try_fold(0u64, |number, (at, count)| number.checked_mul(*count)?.checked_add(*at));
        let number = number.ok_or("its grid has 2^64 chunks or more")?;
        self.stored.push(StoredChunk { number, offset, nbytes, mask });
        Ok(())
    }
}

/// What is needed to decode any chunk of a dataset.
#[derive(Debug)]
pub(crate) struct Decoding {
    pub(crate) spec: TensorSpec,
    pub(crate) order: ByteOrder,
    /// The shape of a chunk.
    pub(crate) chunk: Vec<u64>,
    pub(crate) steps: Vec<Step>,
    /// The stored form of elements that were never written.
    pub(crate) fill: Vec<u8>,
}

/// Reads a dataset in chunks.
#[derive(Debug)]
pub(crate) struct Chunked {
    file: Arc<dyn Blob>,
    layout: Decoding,
    /// Sorted by number.
    chunks: Vec<StoredChunk>,
    /// Chunks along each axis.
    grid: Vec<u64>,
    chunk_bytes: usize,
    scratch: Pool,
    kept: Mutex<Vec<(u64, Arc<Vec<u8>>)>>,
}

/// Decoding memory for a limited number of workers.
#[derive(Debug)]
struct Pool {
    free: Mutex<Vec<Scratch>>,
    returned: Condvar,
    /// Bytes per worker.
    each: u64,
    workers: u64,
}

/// Buffers for a chunk as it is stored, between two filters, and decoded.
#[derive(Debug, Default)]
struct Scratch {
    stored: Vec<u8>,
    spare: Vec<u8>,
    decoded: Vec<u8>,
}

impl Pool {
    fn new(each: u64) -> Self {
        let workers = (MOST_SCRATCH / each.max(1)).clamp(1, MOST_WORKERS);
        let free = (0..workers).map(|_| Scratch::default()).collect();
        Self { free: Mutex::new(free), returned: Condvar::new(), each, workers }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = loop {
            if let Some(scratch) = free.pop() {
                break scratch;
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        };
        drop(free);
        work(&mut Lent { pool: self, scratch }.scratch)
    }
}

/// Memory that returns to the pool when dropped, even by a panic, since other workers wait for it.
struct Lent<'a> {
    pool: &'a Pool,
    scratch: Scratch,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.scratch));
        self.pool.returned.notify_one();
    }
}

impl Chunked {
    /// # Errors
    /// [`Error::Malformed`] for chunks that are outside the file or stored twice, [`Error::Limit`] for one that is too large.
    pub(crate) fn new(file: &Arc<dyn Blob>, layout: Decoding, chunks: Chunks) -> Result<Self> {
        let Chunks { grid, stored: mut chunks } = chunks;
        let chunk_bytes = layout.chunk.iter().try_fold(layout.spec.itemsize(), |bytes, &len| bytes.checked_mul(len));
        let Some(chunk_bytes) = chunk_bytes.filter(|&bytes| bytes <= MOST_CHUNK) else {
            let (what, asked) = (format!("memory for a chunk of {}", file.path().display()), chunk_bytes.unwrap_or(u64::MAX));
            return Err(Error::Limit { what, asked, allowed: Some(MOST_CHUNK) });
        };
        chunks.sort_by_key(|chunk| chunk.number);
        let mut longest = 0;
        for (i, chunk) in chunks.iter().enumerate() {
            let malformed = |detail| Err(Error::malformed_at(file.path(), WHAT, chunk.offset, detail));
            if i > 0 && chunks[i - 1].number == chunk.number {
                return malformed(format!("chunk {} of the grid is stored twice", chunk.number));
            }
            if chunk.offset.checked_add(chunk.nbytes).is_none_or(|end| end > file.len()) {
                return malformed(format!("{} bytes, the file has {}", chunk.nbytes, file.len().saturating_sub(chunk.offset)));
            }
            // Filters hardly lengthen data that they cannot compress.
            if chunk.nbytes > chunk_bytes.saturating_mul(2).saturating_add(1 << 16) {
                return malformed(format!("{} bytes for a chunk of {chunk_bytes}", chunk.nbytes));
            }
            if layout.steps.is_empty() && chunk.nbytes != chunk_bytes {
                return malformed(format!("{} bytes, expected {chunk_bytes}", chunk.nbytes));
            }
            longest = longest.max(chunk.nbytes);
        }
        let scratch = Pool::new(longest + 2 * chunk_bytes);
        Ok(Self { file: Arc::clone(file), layout, chunks, grid, chunk_bytes: memory_len(chunk_bytes), scratch, kept: Mutex::default() })
    }

    fn find(&self, number: u64) -> Option<&StoredChunk> {
        self.chunks.binary_search_by_key(&number, |chunk| chunk.number).ok().map(|at| &self.chunks[at])
    }

    /// Decodes a chunk into `out`, which has the chunk's length.
    fn decode(
        &self,
        chunk: &StoredChunk,
        stored: &mut Vec<u8>,
        spare: &mut Vec<u8>,
        out: &mut [u8],
        context: &ReadContext<'_>,
    ) -> Result<()> {
        context.check_cancelled()?;
        if self.layout.steps.is_empty() {
            return self.file.read(chunk.offset, out, &context.calls);
        }
        stored.resize(memory_len(chunk.nbytes), 0);
        self.file.read(chunk.offset, stored, &context.calls)?;
        undo(&self.layout.steps, chunk.mask, stored, spare, out)
            .map_err(|detail| Error::malformed_at(self.file.path(), WHAT, chunk.offset, detail))
    }

    /// A decoded chunk, kept for the next read.
    fn kept(&self, chunk: &StoredChunk, context: &ReadContext<'_>) -> Result<Arc<Vec<u8>>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, decoded)) = lock().iter().find(|(number, _)| *number == chunk.number) {
            return Ok(Arc::clone(decoded));
        }
        let mut decoded = vec![0; self.chunk_bytes];
        self.scratch.with(|Scratch { stored, spare, .. }| self.decode(chunk, stored, spare, &mut decoded, context))?;
        let decoded = Arc::new(decoded);
        let mut kept = lock();
        if kept.len() as u64 >= self.most_kept() {
            kept.remove(0);
        }
        kept.push((chunk.number, Arc::clone(&decoded)));
        Ok(decoded)
    }

    /// Number of decoded chunks to keep.
    fn most_kept(&self) -> u64 {
        (MOST_KEPT / (self.chunk_bytes as u64).max(1)).clamp(1, 1024)
    }

    /// Fills a box from the chunks that it overlaps.
    fn fill_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], keep: bool, context: &ReadContext<'_>) -> Result<()> {
        if shape.contains(&0) {
            return Ok(());
        }
        let chunk = &self.layout.chunk;
        let first: Vec<u64> = start.iter().zip(chunk).map(|(at, len)| at / len).collect();
        let counts: Vec<u64> = (0..start.len()).map(|axis| (start[axis] + shape[axis] - 1) / chunk[axis] - first[axis] + 1).collect();
        for index in 0..counts.iter().product() {
            let place: Vec<u64> = unravel(index, &counts).iter().zip(&first).map(|(step, first)| first + step).collect();
            let number = place.iter().zip(&self.grid).fold(0, |number, (at, count)| number * count + at);
            // The overlap of box and chunk, computed from their corners.
            let low: Vec<u64> = (0..place.len()).map(|axis| start[axis].max(place[axis] * chunk[axis])).collect();
            let len: Vec<u64> =
                (0..place.len()).map(|axis| (start[axis] + shape[axis]).min((place[axis] + 1) * chunk[axis]) - low[axis]).collect();
            let in_box: Vec<u64> = low.iter().zip(start).map(|(low, start)| low - start).collect();
            let in_chunk: Vec<u64> = (0..place.len()).map(|axis| low[axis] - place[axis] * chunk[axis]).collect();
            let overlap = Overlap { len: &len, to: (shape, &in_box), from: (chunk, &in_chunk), itemsize: self.layout.spec.itemsize() };
            match self.find(number) {
                None => overlap.fill(&self.layout.fill, out),
                Some(chunk) if keep => overlap.copy(&self.kept(chunk, context)?, out),
                Some(chunk) => self.scratch.with(|Scratch { stored, spare, decoded }| {
                    // If the chunk is one run in the box, decode it in place.
                    if let Some(range) = overlap.whole_run(self.chunk_bytes) {
                        return self.decode(chunk, stored, spare, &mut out[range], context);
                    }
                    decoded.resize(self.chunk_bytes, 0);
                    self.decode(chunk, stored, spare, decoded, context)?;
                    overlap.copy(decoded, out);
                    Ok(())
                })?,
            }
        }
        Ok(())
    }
}

/// A box of elements in two arrays.
struct Overlap<'a> {
    len: &'a [u64],
    /// The target array: its shape, and where the box starts in it.
    to: (&'a [u64], &'a [u64]),
    from: (&'a [u64], &'a [u64]),
    itemsize: u64,
}

impl Overlap<'_> {
    /// Number of leading axes to iterate over; the remaining ones are contiguous in both arrays.
    fn outer(&self) -> usize {
        let is_whole = |axis: usize| self.len[axis] == self.to.0[axis] && self.len[axis] == self.from.0[axis];
        let whole = (0..self.len.len()).rev().take_while(|&axis| is_whole(axis)).count();
        self.len.len().saturating_sub(whole + 1)
    }

    /// The start of each run in both arrays and its length, in bytes.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let outer = self.outer();
        let run: u64 = self.len[outer..].iter().product();
        // The start of the first run, and the distance to the next one on each axis.
        let first = |(shape, start): (&[u64], &[u64])| (0..shape.len()).fold(0, |at, axis| at * shape[axis] + start[axis]);
        let step = |shape: &[u64], axis: usize| shape[axis + 1..].iter().product::<u64>();
        let steps: Vec<_> = (0..outer).map(|axis| (self.len[axis], step(self.to.0, axis), step(self.from.0, axis))).collect();
        let starts = (first(self.to), first(self.from));
        (0..self.len[..outer].iter().product()).map(move |mut number: u64| {
            let (mut to, mut from) = starts;
            for (len, to_step, from_step) in steps.iter().rev() {
                let index = number % len;
                number /= len;
                to += index * to_step;
                from += index * from_step;
            }
            (memory_len(to * self.itemsize), memory_len(from * self.itemsize), memory_len(run * self.itemsize))
        })
    }

    /// The place of the whole chunk in the target array, if it is one run there.
    fn whole_run(&self, chunk_bytes: usize) -> Option<Range<usize>> {
        let (to, from, len) = self.runs().next()?;
        (from == 0 && len == chunk_bytes).then(|| to..to + len)
    }

    fn copy(&self, from: &[u8], to: &mut [u8]) {
        for (target, source, len) in self.runs() {
            to[target..target + len].copy_from_slice(&from[source..source + len]);
        }
    }

    fn fill(&self, element: &[u8], to: &mut [u8]) {
        for (target, _, len) in self.runs() {
            fill(element, &mut to[target..target + len]);
        }
    }
}

/// Fills `out` with copies of one element.
fn fill(element: &[u8], out: &mut [u8]) {
    if element.iter().all(|&byte| byte == 0) {
        return out.fill(0);
    }
    out.chunks_mut(element.len()).for_each(|place| place.copy_from_slice(&element[..place.len()]));
}

impl TensorReader for Chunked {
    fn spec(&self) -> &TensorSpec {
        &self.layout.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.layout.order
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        // A run of elements splits into a few boxes per axis: the rest of a row, whole rows, and the front of one.
        let shape = self.layout.spec.shape();
        let (mut at, mut rest) = (elements.start, out);
        while at < elements.end {
            let mut taken = vec![1; shape.len()];
            let mut count = 1;
            let mut inner: u64 = shape.iter().product();
            for axis in 0..shape.len() {
                inner /= shape[axis];
                if at.is_multiple_of(inner) && elements.end - at >= inner {
                    taken[axis + 1..].copy_from_slice(&shape[axis + 1..]);
                    taken[axis] = ((elements.end - at) / inner).min(shape[axis] - at / inner % shape[axis]);
                    count = taken[axis] * inner;
                    break;
                }
            }
            let (now, later) = rest.split_at_mut(memory_len(count * self.layout.spec.itemsize()));
            self.fill_box(&unravel(at, shape), &taken, now, true, context)?;
            at += count;
            rest = later;
        }
        Ok(())
    }

    fn chunks(&self) -> Option<&[u64]> {
        Some(&self.layout.chunk)
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        self.fill_box(start, shape, out, false, context)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        // The kept chunks, and one that a reader still holds after its eviction.
        let kept = (self.most_kept() + 1) * self.chunk_bytes as u64;
        self.box_heap_bytes(MOST_WORKERS).saturating_add(kept)
    }

    fn box_heap_bytes(&self, workers: u64) -> u64 {
        let table = (self.chunks.capacity() * size_of::<StoredChunk>()) as u64;
        table.saturating_add(self.scratch.each.saturating_mul(workers.clamp(1, self.scratch.workers)))
    }
}

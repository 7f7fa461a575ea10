//! Temporary copies: a source that is decoded front to back or chunk by chunk is unpacked once into a nameless file. Any part of
//! that can be read.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::turns::ReadOrder;
use super::{Job, WorkerState};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::options::request::Run;
use crate::os;
use crate::os::residency::Residency;
use crate::output::meter::Meter;
use crate::output::private_file::PrivateFile;
use crate::output::sink::NpySink;
use crate::output::staging::hidden::ScratchDir;
use crate::plan::boxes::{ChunkBox, Cuts};
use crate::plan::grid::Unit;
use crate::plan::tiles::Runs;
use crate::plan::{MemoryShares, PAGE_BYTES, Resources};
use crate::reader::checksums::{RegionChecksums, Verified};
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::types::byte_order::ByteOrder;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Longer writes are no faster.
const MAX_BUFFER: u64 = 2 << 20;
/// The longest single read of a source.
const MAX_CHUNK: u64 = 256 << 10;
/// Most bytes of a copy on their way to the disk. They may still be so while the copy is read.
const MOST_BEHIND: u64 = 8 << 20;
/// Shorter reads are prefetched, since each would cost a wait.
const SHORT_BYTES: u64 = 64 << 10;

/// A file for a copy, with space for all of it. It disappears when this is dropped or the process ends.
pub(crate) struct Scratch {
    file: Arc<PrivateFile>,
    /// The directory of the file.
    path: PathBuf,
    method: Method,
    /// Holds the file if it needs a name.
    _dir: Option<ScratchDir>,
}

impl Scratch {
    /// Creates a file in the first of `places` that has room for `nbytes`; `None` if none has.
    pub(crate) fn create(places: &[PathBuf], nbytes: u64, run: &Run) -> Option<Self> {
        places.iter().find_map(|place| Self::create_in(place, run).filter(|scratch| scratch.reserve(nbytes)))
    }

    fn create_in(place: &Path, run: &Run) -> Option<Self> {
        let (file, dir) = match PrivateFile::unnamed(place, &run.calls) {
            Ok(file) => (file, None),
            Err(error) if os::is_unsupported(&error) => {
                let dir = ScratchDir::create_in(place, &run.cancel).ok()?;
                (PrivateFile::named(&dir.path().join("copy"), &run.calls).ok()?, Some(dir))
            }
            Err(_) => return None,
        };
        // A file in memory would gain nothing.
        if os::is_in_memory(file.file()) {
            return None;
        }
        let method = Method::to_copy(&file, None, None).ok()?;
        Some(Self { file: Arc::new(file), path: place.to_owned(), method, _dir: dir })
    }

    fn reserve(&self, nbytes: u64) -> bool {
        self.sink(0).reserve(nbytes).is_ok()
    }

    fn sink(&self, window_bytes: u64) -> NpySink {
        NpySink::new(Arc::clone(&self.file), &self.path, self.method, window_bytes).part(0)
    }
}

/// Most bytes of a copy that may be on their way to the disk.
pub(crate) fn copy_behind(run: &Run) -> u64 {
    (run.budget.as_bytes() / 8).min(MOST_BEHIND)
}

/// A part of a copy.
enum Piece {
    /// Chunks that follow each other in the copy, and their place in it.
    Chunks(Vec<ChunkBox>, Range<u64>),
    /// Elements that are contiguous in the source and in the copy, and their place in each.
    Run(Range<u64>, Range<u64>),
}

impl Job<'_> {
    /// Bytes of a copy of the selected rows, with elements as they are stored.
    pub(crate) fn copy_bytes(&self) -> u64 {
        self.spec.elements() * self.reader().spec().itemsize()
    }

    /// Memory for making a copy, and the size of a worker's buffer.
    fn copy_shares(&self, cuts: &Cuts) -> Result<(MemoryShares, u64)> {
        let resources = self.box_resources();
        let itemsize = self.reader().spec().itemsize();
        let chunks = cuts.parts().iter().filter(|cut| cut.unit == Unit::Chunk);
        let longest = chunks.map(|cut| cuts.most_elements_of(cut) * itemsize).max().unwrap_or(0);
        // One worker unpacks a stream while another writes.
        let most = if self.reader().is_sequential() { 2.min(resources.threads as u64) } else { resources.threads as u64 };
        let mut threads = most.min(resources.in_flight.map_or(u64::MAX, |slices| slices as u64)).max(1);
        loop {
            let heap_bytes = resources.heap_bytes.saturating_add(self.reader().box_heap_bytes(threads));
            let (fixed, left) = Resources { heap_bytes, ..resources }.fixed_and_left();
            let buffer = (left / 8 / threads).min(MAX_BUFFER).max(longest).max(PAGE_BYTES);
            let chunk = (left / 32 / threads).clamp(1, MAX_CHUNK);
            let own = threads.saturating_mul(buffer + chunk);
            if own <= left / 2 || threads == 1 && own <= left {
                let shares = MemoryShares {
                    threads: memory_len(threads),
                    chunk_bytes: memory_len(chunk),
                    raw_bytes: 0,
                    window_bytes: Resources::window_in(left - own).min(copy_behind(self.run)),
                    fixed_bytes: fixed + own,
                    total_bytes: self.spec.nbytes(),
                    budget: resources.budget,
                };
                return Ok((shares, buffer));
            }
            if threads == 1 {
                let what = "memory in the budget (raise `memory`)".into();
                return Err(Error::Limit { what, asked: fixed.saturating_add(own), allowed: Some(resources.budget.as_bytes()) });
            }
            threads -= 1;
        }
    }

    /// Copies all selected elements into `scratch` as they are stored, and verifies them. Every chunk is decoded once, and a
    /// stream is read once. Also returns the peak memory.
    pub(crate) fn unpack(&self, scratch: Scratch) -> Result<(Unpacked, Verified, u64)> {
        let spec = self.reader().spec();
        let itemsize = spec.itemsize();
        let cuts = Cuts::of_chunks(spec.shape(), &self.rows, &self.reader().chunk_grids());
        let (shares, buffer) = self.copy_shares(&cuts)?;
        let sink = scratch.sink(shares.window_bytes);
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let meter = Meter::new(&shares, self.run).step(0, 2);
        let (turns, in_turns) = (ReadOrder::default(), self.reader().is_sequential());
        let mut pieces = self.pieces(&cuts, buffer / itemsize);
        crate::os::workers::run(
            shares.threads,
            &self.run.cancel,
            ReadOrder::numbered(|| Ok(pieces.next())),
            || (WorkerState::new(&shares, checksums.as_ref(), self.run), vec![0; memory_len(buffer)]),
            |(number, piece), (lent, buffer)| {
                let turn = turns.of(number, in_turns);
                turn.wait(&self.run.cancel)?;
                let (Piece::Chunks(_, place) | Piece::Run(_, place)) = &piece;
                let place = place.start * itemsize..place.end * itemsize;
                let bytes = &mut buffer[..memory_len(place.end - place.start)];
                match &piece {
                    Piece::Chunks(chunks, _) => {
                        let mut rest = &mut *bytes;
                        for one in chunks {
                            let (now, later) = rest.split_at_mut(memory_len(one.elements() * itemsize));
                            self.reader().read_box(&one.start, &one.shape, now, &mut lent.context)?;
                            rest = later;
                        }
                    }
                    Piece::Run(elements, _) => self.reader().read(elements.clone(), bytes, &mut lent.context)?,
                }
                drop(turn);
                // A chunk may be longer than the limit of bytes on their way to the disk.
                let most = memory_len((sink.behind().limit() / 2).clamp(PAGE_BYTES, MAX_BUFFER) / PAGE_BYTES * PAGE_BYTES);
                for (part, at) in bytes.chunks(most).zip((place.start..).step_by(most)) {
                    sink.write(at..at + part.len() as u64, part)?;
                }
                meter.add(bytes.len() as u64 / itemsize * self.spec.itemsize(), sink.behind().held_and_peak().0);
                Ok(())
            },
        )?;
        sink.settle()?;
        let verified = self.verified(checksums.as_ref())?;
        let peak_memory = shares.fixed_bytes + sink.behind().held_and_peak().1;
        drop(pieces);
        let order = self.reader().byte_order();
        Ok((Unpacked { scratch, cuts, spec: spec.clone(), order, residency: Residency::default() }, verified, peak_memory))
    }

    /// The pieces to copy, in order: at most `most` elements each, unless a single chunk has more.
    fn pieces<'c>(&'c self, cuts: &'c Cuts, most: u64) -> impl Iterator<Item = Piece> + Send + 'c {
        let first = self.elements().start;
        cuts.parts().iter().flat_map(move |cut| {
            let is_chunked = cut.unit == Unit::Chunk;
            let mut boxes = cuts.boxes_of(cut).filter(move |_| is_chunked).peekable();
            let mut rest = if is_chunked { 0..0 } else { cuts.elements_of(cut) };
            std::iter::from_fn(move || {
                if let Some(one) = boxes.next() {
                    let start = cuts.before(cut, &one);
                    let mut end = start + one.elements();
                    let mut together = vec![one];
                    while let Some(one) = boxes.next_if(|one| end + one.elements() - start <= most) {
                        end += one.elements();
                        together.push(one);
                    }
                    return Some(Piece::Chunks(together, start..end));
                }
                let part = rest.start..(rest.start + most).min(rest.end);
                rest.start = part.end;
                (!part.is_empty()).then(|| Piece::Run(part.start + first..part.end + first, part))
            })
        })
    }
}

/// The selected rows of a tensor in a temporary file: chunk after chunk, each in C order.
pub(crate) struct Unpacked {
    scratch: Scratch,
    cuts: Cuts,
    spec: TensorSpec,
    order: ByteOrder,
    residency: Residency,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The elements that a chunk and a box have in common.
struct Common {
    elements: u64,
    /// Where they are in the file: element offsets from `first` on.
    first: u64,
    stored: Runs,
    /// Where they are in the box.
    wanted: Runs,
}

impl Common {
    /// The elements' ranges and their places in the file, run by run.
    fn runs(&self) -> impl Iterator<Item = (Range<u64>, Range<u64>)> + '_ {
        let mut next = 0;
        self.stored.of(0..self.elements).map(move |run| {
            let own = next..next + (run.end - run.start);
            next = own.end;
            (own, run.start + self.first..run.end + self.first)
        })
    }
}

impl Unpacked {
    /// What each chunk has in common with a box.
    fn common<'b>(&'b self, wanted: &'b ChunkBox) -> impl Iterator<Item = Common> + 'b {
        self.cuts.touching(wanted).map(|(cut, one)| {
            let end = |one: &ChunkBox, axis: usize| one.start[axis] + one.shape[axis];
            let low: Vec<u64> = one.start.iter().zip(&wanted.start).map(|(one, wanted)| *one.max(wanted)).collect();
            let len: Vec<u64> = (0..low.len()).map(|axis| end(&one, axis).min(end(wanted, axis)) - low[axis]).collect();
            let inside = |start: &[u64]| low.iter().zip(start).map(|(low, start)| low - start).collect::<Vec<_>>();
            Common {
                elements: len.iter().product(),
                first: self.cuts.before(cut, &one),
                stored: Runs::new(one.shape.clone(), inside(&one.start), len.clone()),
                wanted: Runs::new(wanted.shape.clone(), inside(&wanted.start), len),
            }
        })
    }

    /// Reads a run of common elements and puts them into their places in the box.
    fn read_run(&self, common: &Common, own: Range<u64>, stored: u64, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let itemsize = self.spec.itemsize();
        let bytes = |elements: Range<u64>| memory_len(elements.start * itemsize)..memory_len(elements.end * itemsize);
        let read = |buf: &mut [u8], stored: u64| {
            let file = self.scratch.file.file();
            let read = self.residency.read_exact_at(file, buf, stored * itemsize, self.scratch.file.calls());
            read.map_err(Error::io("read a temporary copy in", &self.scratch.path))
        };
        let mut places = common.wanted.of(own.clone());
        if let (Some(only), None) = (places.next(), places.next()) {
            return read(&mut out[bytes(only)], stored);
        }
        let mut scratch = context.take_scratch();
        let most = (scratch.len() as u64 / itemsize).max(1);
        if scratch.is_empty() {
            scratch.resize(memory_len(itemsize), 0);
        }
        let mut at = own.start;
        let mut result = Ok(());
        while at < own.end && result.is_ok() {
            let part = at..(at + most).min(own.end);
            let buf = &mut scratch[..memory_len((part.end - part.start) * itemsize)];
            result = context.check_cancelled().and_then(|()| read(buf, stored + at - own.start));
            let mut rest = &*buf;
            for place in common.wanted.of(part.clone()) {
                let place = &mut out[bytes(place)];
                let (now, later) = rest.split_at(place.len());
                place.copy_from_slice(now);
                rest = later;
            }
            at = part.end;
        }
        context.return_scratch(scratch);
        result
    }
}

impl TensorReader for Unpacked {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn read(&self, _: Range<u64>, _: &mut [u8], _: &mut ReadContext<'_>) -> Result<()> {
        Err(BadRequest::impossible("a temporary copy is read in runs").into())
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let wanted = ChunkBox { start: start.to_vec(), shape: shape.to_vec() };
        let (file, calls, itemsize) = (self.scratch.file.file(), self.scratch.file.calls(), self.spec.itemsize());
        let mut short: Option<Range<u64>> = None;
        for common in self.common(&wanted) {
            for (_, stored) in common.runs().filter(|(own, _)| (own.end - own.start) * itemsize < SHORT_BYTES) {
                let run = stored.start * itemsize..stored.end * itemsize;
                self.residency.prefetch(file, &run, calls);
                short = Some(short.map_or(run.clone(), |short| short.start.min(run.start)..short.end.max(run.end)));
            }
        }
        for common in self.common(&wanted) {
            context.check_cancelled()?;
            for (own, stored) in common.runs() {
                self.read_run(&common, own, stored.start, out, context)?;
            }
        }
        if let Some(short) = short {
            self.residency.evict(file, &short, calls);
        }
        Ok(())
    }
}

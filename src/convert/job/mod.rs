//! Makes one array by any method: joins source, plan, decoder and sink. [`Job`] is the place to start.

pub(crate) mod boxed;
pub(crate) mod data_runs;
pub(crate) mod fortran;
pub(crate) mod placed;
pub(crate) mod stream;
pub(crate) mod turns;
pub(crate) mod unpacked;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::array::{Array, ArrayItem};
use crate::cast::decoder::Decoder;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::options::method::Method;
use crate::options::request::{Form, Run};
use crate::os::buffer::Buffer;
use crate::os::residency;
use crate::output::meter::Meter;
use crate::output::part::Part;
use crate::output::place::ArrayPlace;
use crate::output::private_file::PrivateFile;
use crate::output::report::{Estimate, Outcome, Report};
use crate::output::share::Sharing;
use crate::output::sink::{self, NpySink, WindowWriter};
use crate::output::staging::file::TrialFile;
use crate::plan::tiles::Tile;
use crate::plan::{Memory, MemoryShares, Plan, Resources};
use crate::reader::checksums::{RegionChecksums, Verified};
use crate::reader::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::storage::stamp::Stamp;
use crate::types::dtype::Dtype;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::{MAX_NDIM, TensorSpec, even_part, unravel};

use data_runs::{DataRuns, slices};
use placed::ScatteredBox;
use turns::ReadOrder;

/// One array, ready to be made: every check that needs no output has passed.
pub(crate) struct Job<'a> {
    array: Array<'a>,
    /// The reader's tensor, with the element type of the output.
    whole: TensorSpec,
    /// The same, for the selected rows.
    pub(crate) spec: TensorSpec,
    rows: Range<u64>,
    /// The header of the output.
    pub(crate) header: Header,
    /// Whether elements are read in one order and written in another.
    changes_order: bool,
    decoder: Decoder,
    run: &'a Run,
}

/// The state of one worker.
struct WorkerState<'a> {
    context: ReadContext<'a>,
    /// A buffer for stored elements that are yet to be decoded; allocated when it is needed.
    raw: Vec<u8>,
    /// The most bytes that it may have.
    raw_bytes: usize,
}

impl<'a> Job<'a> {
    /// # Errors
    /// [`Error::Unsupported`] for a dtype, a cast, a byte order or a number of dimensions that NumPy lacks;
    /// [`Error::BadRequest`] for rows of a scalar.
    pub(crate) fn new(array: Array<'a>, rows: Option<Rows>, form: &Form, run: &'a Run) -> Result<Self> {
        let reader = array.reader.as_ref();
        let source = reader.spec();
        let rows = source.select(rows.filter(|_| !array.is_selected))?;
        let dtype = form.cast.unwrap_or(source.dtype());
        // Bool bytes that the reader keeps are copied unchanged.
        let as_is = source.dtype() == Dtype::Bool && dtype == Dtype::Bool && reader.keeps_bool_bytes();
        let [stored, written] = if as_is { [Dtype::UInt8; 2] } else { [source.dtype(), dtype] };
        let decoder = Decoder::new((stored, reader.byte_order()), (written, form.order()), form.strict)?;
        let whole = source.with_dtype(dtype)?;
        let spec = whole.with_rows(&rows);
        let header = array.header(dtype, spec.shape(), form)?;
        if header.shape.len() > MAX_NDIM {
            let what = format!("a tensor of {} dimensions", header.shape.len());
            return Err(Error::Unsupported { what, detail: format!("NumPy arrays have at most {MAX_NDIM}") });
        }
        let changes_order = array.is_reversed != header.fortran_order && header.orders_differ();
        if changes_order && run.method == Some(Method::Map) {
            return Err(BadRequest::OrderChanges { way: "written by method map", instead: "choose another `method`" }.into());
        }
        if array.item.is_some() && changes_order {
            let detail = "strings and records are written in the order in which they are read".into();
            return Err(Error::Unsupported { what: "reordering such elements".into(), detail });
        }
        Ok(Self { array, whole, spec, rows, header, changes_order, decoder, run })
    }

    /// # Errors
    /// [`Error::Limit`] when the memory does not suffice.
    pub(crate) fn check_memory(&self) -> Result<()> {
        match self.box_plan(false)? {
            Some(_) => Ok(()),
            None if self.changes_order => self.tile_plan(false).map(drop),
            None => self.plan(Memory::Buffers).map(drop),
        }
    }

    pub(crate) fn plan(&self, memory: Memory) -> Result<Plan> {
        Plan::new(&self.whole, &self.rows, memory, &self.resources(memory))
    }

    fn resources(&self, memory: Memory) -> Resources {
        Resources {
            heap_bytes: self.run.heap_bytes.saturating_add(self.reader().heap_bytes()),
            needs_scratch: !self.reader().fills_by_system_calls(),
            raw_itemsize: (!self.decoder.is_copy()).then(|| self.reader().spec().itemsize()),
            ..Resources::of(self.run, memory.threads_from(self.run.threads, || self.is_cached()))
        }
    }

    /// Whether the first run of stored elements is in the page cache. Readers without runs, or with one that cannot be opened, say no.
    fn is_cached(&self) -> bool {
        let itemsize = self.reader().spec().itemsize();
        let first = self.elements().start;
        self.run.calls.is_native()
            && self.reader().stored_run(first).ok().flatten().is_some_and(|run| {
                let start = run.offset + (first - run.elements.start) * itemsize;
                let count = run.elements.end.min(self.elements().end).saturating_sub(first);
                residency::is_cached(&run.file, &(start..start + count * itemsize))
            })
    }

    /// The cost of filling a file at `output`.
    pub(crate) fn estimate(&self, output: &Path) -> Result<Estimate> {
        let plans = self.box_plan(false)?;
        let method = match TrialFile::near(output, &self.run.calls) {
            Some(file) if self.can_share(&file)? => Method::Clone,
            trial => Method::as_tried(trial.as_deref(), self.run.method, Some(self.bytes_in_order(plans.is_some())))?,
        };
        let is_shared = method == Method::Clone;
        let (slices, slice_bytes, shares) = if let Some(plans) = plans {
            let plan = plans.direct;
            (memory_len(plan.count()), plan.box_bytes(), plan.shares)
        } else if self.changes_order {
            let plan = self.tile_plan(false)?;
            (memory_len(plan.count()), plan.tile_bytes(), plan.shares)
        } else {
            let plan = self.plan(method.memory())?;
            (plan.slices(), plan.slice_bytes().min(plan.shares.total_bytes), plan.shares)
        };
        let data = self.data_elements()?;
        Ok(Estimate {
            part: self.array.part,
            dtype: self.dtype(),
            item: self.item(),
            descr: self.header.descr.clone(),
            shape: self.header.shape.clone(),
            axes: self.header.shape.iter().copied().map(Some).collect(),
            has_rank: true,
            is_counted: true,
            nbytes: self.spec.nbytes(),
            read_bytes: if is_shared && !self.run.verify {
                0
            } else {
                self.array.read_bytes.unwrap_or(data * self.reader().spec().itemsize())
            },
            write_bytes: if is_shared { 0 } else { data * self.spec.itemsize() },
            slices,
            slice_bytes,
            threads: shares.threads,
            memory_bytes: if is_shared { shares.fixed_bytes } else { shares.memory_bytes() },
            method,
        })
    }

    /// Fills `out` with all elements, decoded for the output, and verifies them. Changing their order takes an equally long
    /// `spare`.
    pub(crate) fn read_whole(&self, out: &mut [u8], spare: &mut [u8], plan: &Plan) -> Result<Verified> {
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let lent = &mut WorkerState::new(&plan.shares, checksums.as_ref(), self.run);
        if self.changes_order {
            let read = &mut spare[..out.len()];
            self.read(self.elements(), read, lent)?;
            Tile::whole(self.spec.shape()).reverse_axes(read, 0, out, self.spec.itemsize());
        } else {
            self.read(self.elements(), out, lent)?;
        }
        self.verified(checksums.as_ref())
    }

    /// Fills `out` with elements, decoded for the output.
    fn read(&self, mut elements: Range<u64>, out: &mut [u8], lent: &mut WorkerState<'_>) -> Result<()> {
        if self.decoder.is_copy() {
            return self.reader().read(elements, out, &mut lent.context);
        }
        let (stored, written) = (memory_len(self.reader().spec().itemsize()), memory_len(self.spec.itemsize()));
        let step = even_part(out.len() / written, lent.raw_bytes / stored);
        if lent.raw.len() < step * stored {
            lent.raw.resize(step * stored, 0);
        }
        for out in out.chunks_mut(step * written) {
            let count = out.len() / written;
            let raw = &mut lent.raw[..count * stored];
            let next = elements.start + count as u64;
            self.reader().read(elements.start..next, raw, &mut lent.context)?;
            let first = elements.start - self.elements().start;
            self.decoder.decode(raw, out).map_err(|at| self.lossy(at, first + at as u64, raw, out))?;
            elements.start = next;
        }
        Ok(())
    }

    /// Whether elements are read in one order and written in another.
    pub(crate) fn changes_order(&self) -> bool {
        self.changes_order
    }

    /// The index in the array of the element that is read at a position.
    pub(crate) fn index_of(&self, position: u64) -> Vec<u64> {
        let mut index = unravel(position, self.spec.shape());
        if self.array.is_reversed {
            index.reverse();
        }
        index
    }

    /// The error for element `at` of `raw`, which did not keep its value. `position` counts in the order of reading.
    fn lossy(&self, at: usize, position: u64, raw: &[u8], out: &[u8]) -> Error {
        let (stored, written) = (memory_len(self.reader().spec().itemsize()), memory_len(self.spec.itemsize()));
        let detail = self.decoder.explain(&raw[at * stored..][..stored], &out[at * written..][..written]);
        Error::Lossy { what: self.array.name.clone().unwrap_or_else(|| "the tensor".into()), index: self.index_of(position), detail }
    }

    /// Calls `check` with every part of an array that is made of boxes or tiles, in any order, and a spare buffer of the same
    /// length. Returns `None` for an array that is made slice by slice. A temporary copy of the source may be in one of `places`.
    pub(crate) fn for_each_placed(
        &self,
        places: &[PathBuf],
        check: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Option<Verified>> {
        match self.box_plan(true)? {
            Some(plans) => self.for_each_boxed(&plans, places, check).map(Some),
            None if self.changes_order => self.for_each_turned(check).map(Some),
            None => Ok(None),
        }
    }

    /// Fills `place` with the header, if the file is its own, and the elements, verifies the checksums and syncs it.
    pub(crate) fn fill(&self, place: &ArrayPlace) -> Result<Outcome> {
        if place.region.is_none()
            && let Some(outcome) = self.share(place)?
        {
            return Ok(outcome);
        }
        let plans = self.box_plan(false)?;
        let method = place.method(self.run.method, Some(self.bytes_in_order(plans.is_some())))?;
        match plans {
            Some(plans) => self.place_boxes(place, method, &plans),
            None if self.changes_order => self.turn_into(place, method),
            None => self.copy_into(place, method),
        }
    }

    /// The bytes that workers write slice by slice. What is turned or made of boxes has pauses between writes, in which the page cache goes on
    /// writing and direct writes do not.
    fn bytes_in_order(&self, has_boxes: bool) -> u64 {
        if self.changes_order || has_boxes { 0 } else { self.spec.nbytes() }
    }

    /// Lets the file share the blocks of the source, if that is possible.
    fn share(&self, place: &ArrayPlace) -> Result<Option<Outcome>> {
        let ArrayPlace { file, path, .. } = place;
        let Some((run, sharing)) = self.sharing(file)? else { return Ok(None) };
        let stamp = Stamp::of(&run.file).map_err(Error::io("look at", &run.path))?;
        let failed = sink::write_error(file, path, "share the blocks of the source for", DATA_ALIGN as u64);
        if !sharing.apply(&run.file, file).map_err(failed)? {
            file.resize(0)?;
            return Ok(None);
        }
        let outcome = self.check_shared(&run)?;
        // The checks read the source, the output shares its earlier blocks: nothing may have changed in between.
        stamp.check(&run.file, &run.path)?;
        self.reader().check_unchanged()?;
        let sink = NpySink::shared(Arc::clone(file), path, sharing.data_start);
        Arc::new(sink).finish(&self.header, self.spec.nbytes())?;
        Ok(Some(outcome))
    }

    /// Whether an output in the place of `file`, which stays empty, would share blocks with the source.
    pub(crate) fn can_share(&self, file: &PrivateFile) -> Result<bool> {
        match self.sharing(file)? {
            Some((run, sharing)) => {
                let can = sharing.probe(&run.file, file).map_err(Error::io("try to share blocks of", &run.path))?;
                file.resize(0)?;
                Ok(can)
            }
            None => Ok(false),
        }
    }

    /// How the output could share blocks with the source; `None` if that is impossible or another method was chosen.
    fn sharing(&self, file: &PrivateFile) -> Result<Option<(StoredRun, Sharing)>> {
        let is_as_stored = self.decoder.is_copy() && !self.changes_order;
        if self.run.method.is_some_and(|method| method != Method::Clone) || !is_as_stored || self.spec.nbytes() == 0 {
            return Ok(None);
        }
        let itemsize = self.spec.itemsize();
        let first = self.elements().start;
        let Some(run) = self.reader().stored_run(first)?.filter(|run| run.elements.end - first >= self.spec.elements()) else {
            return Ok(None);
        };
        let Ok((block, metadata)) = Sharing::block_bytes(file).and_then(|block| Ok((block, run.file.metadata()?))) else {
            return Ok(None);
        };
        let start = run.offset + (first - run.elements.start) * itemsize;
        let sharing = Sharing::fit(start..start + self.spec.nbytes(), metadata.len(), &self.header, itemsize, block);
        Ok(sharing.map(|sharing| (run, sharing)))
    }

    /// Reads all shared bytes and compares their checksums, if that is wanted and the source has checksums for them.
    fn check_shared(&self, run: &StoredRun) -> Result<Outcome> {
        let plan = self.plan(Memory::Scan)?;
        let outcome = |verified| Outcome { method: Method::Clone, verified, peak_memory: plan.shares.fixed_bytes };
        let is_covered = run.region.is_some_and(|region| self.reader().regions()[region].nbytes == self.spec.nbytes());
        if !self.run.verify || !is_covered {
            return Ok(outcome(Verified::Not));
        }
        let checksums = RegionChecksums::new(self.reader().regions());
        let meter = Meter::new(&plan.shares, self.run);
        crate::os::workers::run(
            plan.shares.threads,
            &self.run.cancel,
            slices(&plan, self.runs(), Some(&checksums), |bytes| meter.add(bytes, 0)),
            || (WorkerState::new(&plan.shares, Some(&checksums), self.run), vec![0; memory_len(plan.slice_bytes())]),
            |slice, (lent, buffer)| {
                let len = slice.bytes.end - slice.bytes.start;
                self.reader().read(slice.elements, &mut buffer[..memory_len(len)], &mut lent.context)?;
                meter.add(len, 0);
                Ok(())
            },
        )?;
        Ok(outcome(self.verified(Some(&checksums))?))
    }

    fn copy_into(&self, place: &ArrayPlace, method: Method) -> Result<Outcome> {
        let start = place.region.map_or(DATA_ALIGN as u64, |region| region.start);
        let plan = self.plan(method.memory())?;
        let plan = if method == Method::Direct { plan.in_file(start) } else { plan };
        let sink = Arc::new(place.sink(method, plan.shares.window_bytes));
        self.reserve(&sink, &plan)?;
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let by_kernel = self.reader().fills_by_system_calls() && self.decoder.is_copy();
        let filler = if by_kernel { WindowWriter::Kernel } else { WindowWriter::Stores };
        let meter = Meter::new(&plan.shares, self.run);
        let turns = ReadOrder::default();
        crate::os::workers::run(
            plan.shares.threads,
            &self.run.cancel,
            ReadOrder::numbered(slices(&plan, self.runs(), checksums.as_ref(), |bytes| meter.add(bytes, 0))),
            || (WorkerState::new(&plan.shares, checksums.as_ref(), self.run), Buffer::new(memory_len(plan.slice_bytes()))),
            |(number, slice), (lent, buffer)| {
                let turn = turns.of(number, self.reader().is_sequential());
                let len = slice.bytes.end - slice.bytes.start;
                if method.memory() == Memory::Windows {
                    // A worker that waits for its turn must not hold a window: those before it may need that memory.
                    turn.wait(&self.run.cancel)?;
                    let mut window = sink.window(slice.bytes, filler)?;
                    self.read(slice.elements, &mut window, lent).map_err(|error| sink.explain(error, len))?;
                    drop(turn);
                    window.commit()?;
                } else {
                    let buffer = sink.memory_for(&slice.bytes, buffer)?;
                    turn.wait(&self.run.cancel)?;
                    self.read(slice.elements, buffer, lent)?;
                    drop(turn);
                    sink.write(slice.bytes, buffer)?;
                }
                meter.add(len, sink.behind().held_and_peak().0);
                Ok(())
            },
        )?;
        let verified = self.verified(checksums.as_ref())?;
        let behind = sink.finish(&self.header, self.spec.nbytes())?;
        Ok(Outcome { method, verified, peak_memory: plan.shares.fixed_bytes + behind.held_and_peak().1 })
    }

    /// Compares the checksums after everything has been read.
    fn verified(&self, checksums: Option<&RegionChecksums<'_>>) -> Result<Verified> {
        self.reader().check_unchanged()?;
        match checksums.map_or(Ok(Verified::Not), RegionChecksums::verify)? {
            Verified::Full if self.reader().is_partly_covered() => Ok(Verified::Partial),
            verified => Ok(verified),
        }
    }

    /// Elements of the output outside holes.
    fn data_elements(&self) -> Result<u64> {
        if self.changes_order {
            return Ok(self.spec.elements());
        }
        self.runs().data().try_fold(0, |sum, run| run.map(|run| sum + run.end - run.start))
    }

    /// Bytes of the output outside holes.
    pub(crate) fn data_bytes(&self) -> Result<u64> {
        Ok(self.data_elements()? * self.spec.itemsize())
    }

    /// Reserves disk space for all data.
    fn reserve(&self, sink: &NpySink, plan: &Plan) -> Result<()> {
        let data = self.data_bytes()?;
        if data == self.spec.nbytes() {
            return sink.reserve(data);
        }
        sink.check_space(data + DATA_ALIGN as u64)?;
        sink.reserve_parts(self.spec.nbytes(), self.runs().data().map(|run| Ok(plan.bytes(&run?))))
    }

    /// The selected elements, as flat positions in the tensor.
    fn elements(&self) -> Range<u64> {
        let first = self.rows.start * self.whole.row_elements();
        first..first + self.spec.elements()
    }

    fn runs(&self) -> DataRuns<'_> {
        DataRuns::new(self.reader(), self.elements(), self.run.calls.is_native(), &self.run.cancel)
    }

    /// Calls `check` with every slice's place in `array`, its decoded elements, and a spare buffer of the same length, in
    /// parallel and in any order. Slices that are holes on both sides are left out.
    pub(crate) fn for_each_decoded(
        &self,
        array: (&File, u64),
        check: impl Fn(Range<u64>, &[u8], &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let plan = self.plan(Memory::Windows)?;
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let meter = Meter::new(&plan.shares, self.run);
        let buffer = || vec![0; memory_len(plan.slice_bytes())];
        let (first, itemsize) = (self.elements().start, self.spec.itemsize());
        let array = data_runs::Finished { file: array.0, data_offset: array.1, first, itemsize };
        let runs = DataRuns::new(self.reader(), self.elements(), true, &self.run.cancel).beside(array);
        let turns = ReadOrder::default();
        crate::os::workers::run(
            plan.shares.threads,
            &self.run.cancel,
            ReadOrder::numbered(slices(&plan, runs, checksums.as_ref(), |bytes| meter.add(bytes, 0))),
            || (WorkerState::new(&plan.shares, checksums.as_ref(), self.run), buffer(), buffer()),
            |(number, slice), (lent, decoded, other)| {
                let turn = turns.of(number, self.reader().is_sequential());
                let len = memory_len(slice.bytes.end - slice.bytes.start);
                let decoded = &mut decoded[..len];
                turn.wait(&self.run.cancel)?;
                self.read(slice.elements, decoded, lent)?;
                drop(turn);
                check(slice.bytes, decoded, &mut other[..len])?;
                meter.add(len as u64, 0);
                Ok(())
            },
        )?;
        self.verified(checksums.as_ref())
    }

    fn reader(&self) -> &dyn TensorReader {
        self.array.reader.as_ref()
    }

    /// Which of the tensor's arrays this is.
    pub(crate) fn part(&self) -> Part {
        self.array.part
    }

    /// The dtype of the array's elements.
    pub(crate) fn dtype(&self) -> Dtype {
        if self.array.item.is_some() { self.array.source_dtype } else { self.spec.dtype() }
    }

    /// The element type as the source names it, where TensorFlow has no dtype for it.
    fn item(&self) -> Option<String> {
        match &self.array.item {
            Some(ArrayItem::Stored(descr)) => Some(descr.clone()),
            _ => None,
        }
    }

    pub(crate) fn report(&self, outcome: &Outcome, started: Instant) -> Report {
        Report {
            part: self.array.part,
            dtype: self.dtype(),
            source_dtype: self.array.source_dtype,
            item: self.item(),
            descr: self.header.descr.clone(),
            fortran_order: self.header.fortran_order,
            shape: self.header.shape.clone(),
            nbytes: self.spec.nbytes(),
            elapsed: started.elapsed(),
            method: outcome.method,
            verified: outcome.verified,
            peak_memory: outcome.peak_memory,
            lost: self.array.lost.clone(),
        }
    }
}

impl<'a> WorkerState<'a> {
    fn new(shares: &MemoryShares, checksums: Option<&'a RegionChecksums<'a>>, run: &Run) -> Self {
        let context = ReadContext::new(shares.chunk_bytes, checksums, &run.calls);
        Self { context, raw: Vec::new(), raw_bytes: shares.raw_bytes }
    }
}

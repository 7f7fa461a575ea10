//! Sources in compressed chunks, and streams whose order of elements changes: boxes are read, transposed where needed, and
//! written to their places.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::placed::ScatteredBox;
use super::turns::ReadOrder;
use super::unpacked::{Scratch, copy_behind};
use super::{Job, WorkerState};
use crate::error::Result;
use crate::options::method::Method;
use crate::output::meter::Meter;
use crate::output::place::ArrayPlace;
use crate::output::report::Outcome;
use crate::plan::boxes::{BoxPlan, BoxUse, ChunkBox};
use crate::plan::grid::{ChunkGrid, Unit};
use crate::plan::tiles::Tile;
use crate::plan::{Memory, Resources};
use crate::reader::checksums::{RegionChecksums, Verified};
use crate::reader::tensor_reader::TensorReader;
use crate::storage::paths::nearest_directory;
use crate::types::size::memory_len;

/// The plan for reading boxes of a source, and for reading them from a copy where the source's boxes are too narrow for the
/// output.
#[derive(Debug)]
pub(crate) struct BoxPlans {
    pub(crate) direct: BoxPlan,
    /// The plan for reading a copy.
    copied: Option<BoxPlan>,
}

impl BoxPlans {
    fn all(&self) -> impl Iterator<Item = &BoxPlan> {
        [&self.direct].into_iter().chain(&self.copied)
    }

    /// Most output pages that are not on disk yet.
    fn window_bytes(&self) -> u64 {
        self.all().map(|plan| plan.shares.window_bytes).min().unwrap_or(0)
    }
}

/// The result of reading all boxes.
#[derive(Debug)]
pub(crate) struct BoxesRead {
    pub(crate) verified: Verified,
    /// Peak memory while the copy was made.
    copying_bytes: u64,
    /// Memory for boxes.
    fixed_bytes: u64,
}

impl BoxesRead {
    /// Peak memory, if `beside` bytes were used beside boxes.
    pub(crate) fn peak_memory(&self, beside: u64) -> u64 {
        self.copying_bytes.max(self.fixed_bytes + beside)
    }
}

impl Job<'_> {
    /// The chunk grids of the source, if it is read in boxes.
    pub(crate) fn grids(&self) -> Vec<ChunkGrid> {
        let grids = self.reader().chunk_grids();
        let is_read_in_order = !self.changes_order && grids.iter().all(|grid| grid.unit == Unit::Stream);
        if is_read_in_order || self.run.method == Some(Method::Map) { Vec::new() } else { grids }
    }

    /// Resources that a plan for boxes may use; the reader's memory is left out.
    pub(crate) fn box_resources(&self) -> Resources {
        let resources = self.resources(Memory::Buffers);
        // Decoding keeps a core busy; it does not wait for the disk.
        let threads = Memory::Windows.threads(self.run.threads);
        Resources { threads, heap_bytes: self.run.heap_bytes, ..resources }
    }

    /// The plan for reading boxes; `None` if the source is not read in boxes.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) when the memory does not suffice.
    pub(crate) fn box_plan(&self, needs_spare: bool) -> Result<Option<BoxPlans>> {
        let grids = self.grids();
        if grids.is_empty() {
            return Ok(None);
        }
        let usage = BoxUse { changes_order: self.changes_order, needs_spare, is_balanced: false };
        let resources = self.box_resources();
        let heap = |workers| self.reader().box_heap_bytes(workers);
        let direct = BoxPlan::new(&self.whole, &self.rows, &grids, usage, &resources, heap)?;
        let usage = BoxUse { is_balanced: true, ..usage };
        let copied = if direct.is_scattered() { self.copy_plan(Unit::Element, usage).ok() } else { None };
        Ok(Some(BoxPlans { direct, copied }))
    }

    /// The plan for reading a temporary copy in boxes of this `unit`.
    ///
    /// # Errors
    /// Those of [`box_plan`](Self::box_plan).
    pub(crate) fn copy_plan(&self, unit: Unit, usage: BoxUse) -> Result<BoxPlan> {
        let grid = ChunkGrid { rows: 0..self.whole.rows(), chunk: vec![1; self.whole.shape().len()], unit };
        // The source's memory is still held, and so are the last pages of the copy.
        let heap = |workers| self.reader().box_heap_bytes(workers) + copy_behind(self.run);
        BoxPlan::new(&self.whole, &self.rows, &[grid], usage, &self.box_resources(), heap)
    }

    /// As `copy_into`, box by box.
    pub(crate) fn place_boxes(&self, place: &ArrayPlace, method: Method, plans: &BoxPlans) -> Result<Outcome> {
        let sink = place.sink(method, plans.window_bytes());
        sink.reserve(self.spec.nbytes())?;
        // A copy may be beside the output or in the temporary directory.
        let beside = nearest_directory(&place.path).map(Path::to_owned);
        let places: Vec<PathBuf> = beside.into_iter().chain([std::env::temp_dir()]).collect();
        let done = self.for_each_box(plans, &places, false, |placed, _| {
            sink.write_runs(placed.places(), placed.bytes, &self.run.cancel)?;
            Ok(sink.behind().held_and_peak().0)
        })?;
        let behind = Arc::new(sink).finish(&self.header, self.spec.nbytes())?;
        Ok(Outcome { method, verified: done.verified, peak_memory: done.peak_memory(behind.held_and_peak().1) })
    }

    /// Calls `check` with every box of the array, in any order, and a spare buffer of the same length. A temporary copy may be in
    /// one of `places`.
    pub(crate) fn for_each_boxed(
        &self,
        plans: &BoxPlans,
        places: &[PathBuf],
        check: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let checked = self.for_each_box(plans, places, true, |placed, spare| {
            check(placed, spare)?;
            Ok(0)
        });
        checked.map(|done| done.verified)
    }

    /// Calls `work` with every box, and with a buffer of the same length if there is a `spare`. `work` returns the bytes it holds
    /// beside the plan's memory.
    fn for_each_box(
        &self,
        plans: &BoxPlans,
        places: &[PathBuf],
        spare: bool,
        work: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<u64> + Sync,
    ) -> Result<BoxesRead> {
        if let Some(plan) = &plans.copied
            && let Some(scratch) = Scratch::create(places, self.copy_bytes(), self.run)
        {
            return self.for_each_box_of_copy(scratch, plan, spare, work);
        }
        self.for_each_box_here(&plans.direct, spare, work)
    }

    /// As `for_each_box`, reading the source.
    pub(crate) fn for_each_box_here(
        &self,
        plan: &BoxPlan,
        spare: bool,
        work: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<u64> + Sync,
    ) -> Result<BoxesRead> {
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let meter = Meter::new(&plan.shares, self.run);
        self.for_each_box_of(self.reader(), plan, &meter, checksums.as_ref(), spare, work)?;
        Ok(BoxesRead { verified: self.verified(checksums.as_ref())?, copying_bytes: 0, fixed_bytes: plan.shares.fixed_bytes })
    }

    /// As `for_each_box`, reading a copy that is made first.
    pub(crate) fn for_each_box_of_copy(
        &self,
        scratch: Scratch,
        plan: &BoxPlan,
        spare: bool,
        work: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<u64> + Sync,
    ) -> Result<BoxesRead> {
        let (copy, verified, copying_bytes) = self.unpack(scratch)?;
        let meter = Meter::new(&plan.shares, self.run).step(1, 2);
        self.for_each_box_of(&copy, plan, &meter, None, spare, work)?;
        Ok(BoxesRead { verified, copying_bytes, fixed_bytes: plan.shares.fixed_bytes })
    }

    fn for_each_box_of(
        &self,
        reader: &dyn TensorReader,
        plan: &BoxPlan,
        meter: &Meter<'_>,
        checksums: Option<&RegionChecksums<'_>>,
        spare: bool,
        work: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<u64> + Sync,
    ) -> Result<()> {
        let itemsize = self.spec.itemsize();
        let (turns, in_turns) = (ReadOrder::default(), reader.is_sequential());
        let mut boxes = plan.cuts.boxes();
        let buffer = |needed: bool| vec![0; if needed { memory_len(plan.box_bytes()) } else { 0 }];
        crate::os::workers::run(
            plan.shares.threads,
            &self.run.cancel,
            ReadOrder::numbered(|| Ok(boxes.next())),
            || (WorkerState::new(&plan.shares, checksums, self.run), buffer(true), buffer(plan.changes_order), buffer(spare)),
            |(number, one), (lent, read, turned, spare)| {
                let turn = turns.of(number, in_turns);
                let len = memory_len(one.elements() * itemsize);
                let read = &mut read[..len];
                let (source, output) = (plan.in_source(&one), plan.in_output(&one));
                turn.wait(&self.run.cancel)?;
                self.read_box(reader, &one, &|at| source.position(at), read, lent)?;
                drop(turn);
                let in_source = |at| source.position(if plan.changes_order { one.in_c_order(at) } else { at });
                let bytes = if plan.changes_order {
                    Tile::new(&one.start, &one.shape).reverse_axes(read, 0, &mut turned[..len], itemsize);
                    &turned[..len]
                } else {
                    &*read
                };
                let part = ScatteredBox { places: &output, part: 0..one.elements(), itemsize, bytes, position: &in_source };
                let len = spare.len().min(len);
                let held = work(&part, &mut spare[..len])?;
                meter.add(bytes.len() as u64, held);
                Ok(())
            },
        )
    }

    /// Fills `out` with the elements of a box, decoded for the output.
    fn read_box(
        &self,
        reader: &dyn TensorReader,
        one: &ChunkBox,
        position: &dyn Fn(u64) -> u64,
        out: &mut [u8],
        lent: &mut WorkerState<'_>,
    ) -> Result<()> {
        let ChunkBox { start, shape } = one;
        if self.decoder.is_copy() {
            return reader.read_box(start, shape, out, &mut lent.context);
        }
        let len = memory_len(one.elements() * self.reader().spec().itemsize());
        if lent.raw.len() < len {
            lent.raw.resize(len, 0);
        }
        let raw = &mut lent.raw[..len];
        reader.read_box(start, shape, raw, &mut lent.context)?;
        self.decoder.decode(raw, out).map_err(|at| self.lossy(at, position(at as u64), raw, out))
    }
}

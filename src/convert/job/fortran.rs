//! Arrays whose order changes from C to Fortran or back: they are read, transposed and written tile by tile.

use std::ops::Range;
use std::sync::Arc;

use super::placed::ScatteredBox;
use super::{Job, WorkerState};
use crate::error::{Error, Result};
use crate::options::budget::Budget;
use crate::options::method::Method;
use crate::os::buffer::PlacedBytes;
use crate::os::workers::Workers;
use crate::output::meter::Meter;
use crate::output::place::ArrayPlace;
use crate::output::report::Outcome;
use crate::plan::Memory;
use crate::plan::tiles::{Tile, TilePlan};
use crate::reader::checksums::{RegionChecksums, Verified};
use crate::types::size::memory_len;

/// Shorter reads go through the page cache, one page at a time.
const SHORT_BYTES: u64 = 64 << 10;

/// A worker's next step.
enum TileStep<'a, R> {
    /// Fill memory with the elements of these runs of the source.
    Read(R, &'a mut [u8]),
    /// Write transposed elements.
    Write(ScatteredBox<'a>),
}

impl Job<'_> {
    /// # Errors
    /// [`Error::Limit`] when the memory does not suffice.
    pub(crate) fn tile_plan(&self, needs_spare: bool) -> Result<TilePlan> {
        TilePlan::new(&self.spec, &self.resources(Memory::Buffers), needs_spare)
    }

    /// As `copy_into`, for an array whose order of elements changes.
    pub(crate) fn turn_into(&self, place: &ArrayPlace, method: Method) -> Result<Outcome> {
        let plan = self.tile_plan(false)?;
        let sink = place.sink(method, plan.shares.window_bytes);
        sink.reserve(self.spec.nbytes())?;
        let meter = Meter::new(&plan.shares, self.run);
        let verified = self.for_each_part(&plan, 0, |turned, _| {
            sink.write_runs(turned.places(), turned.bytes, &self.run.cancel)?;
            meter.add(turned.bytes.len() as u64, sink.behind().held_and_peak().0);
            Ok(())
        })?;
        let behind = Arc::new(sink).finish(&self.header, self.spec.nbytes())?;
        Ok(Outcome { method, verified, peak_memory: plan.shares.fixed_bytes + behind.held_and_peak().1 })
    }

    /// Calls `check` with every part of the array, in any order, and a spare buffer of the same length.
    pub(crate) fn for_each_turned(&self, check: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<()> + Sync) -> Result<Verified> {
        let plan = self.tile_plan(true)?;
        let meter = Meter::new(&plan.shares, self.run);
        self.for_each_part(&plan, plan.most_part_bytes(), |turned, spare| {
            check(turned, spare)?;
            meter.add(turned.bytes.len() as u64, 0);
            Ok(())
        })
    }

    /// Calls `work` with every part of every tile, and with the worker's spare buffer of `spare` bytes.
    fn for_each_part(
        &self,
        plan: &TilePlan,
        spare: u64,
        work: impl Fn(&ScatteredBox<'_>, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let itemsize = self.spec.itemsize();
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let workers = Workers::new(plan.shares.threads);
        let context = || (WorkerState::new(&plan.shares, checksums.as_ref(), self.run), vec![0; memory_len(spare)]);
        let mut read = vec![0; memory_len(plan.tile_bytes())];
        // Where columns are whole pages, the disk takes them from here.
        let turned = PlacedBytes::zeros(0, memory_len(plan.tile_bytes()));
        let mut turned = turned.map_err(|_| no_memory(plan.tile_bytes(), self.run.budget))?;
        let mut tiles = plan.tiles();
        let (mut ready, mut next) = (None::<Tile>, tiles.next());
        while ready.is_some() || next.is_some() {
            // One tile is written while the next one is read.
            let places = (ready.as_ref().map(|tile| plan.in_output(tile)), next.as_ref().map(|tile| plan.in_source(tile)));
            let mut writes = Vec::new();
            let written = ready.as_ref();
            let position = |at: u64| written.map_or(at, |tile| plan.position(tile, at));
            if let (Some(tile), Some(places)) = (written, &places.0) {
                let step = plan.part(places);
                let bytes = turned[..memory_len(tile.elements() * itemsize)].chunks(memory_len(step * itemsize));
                let write = |(part, bytes)| TileStep::Write(ScatteredBox { places, part, itemsize, bytes, position: &position });
                writes.extend(tile.parts(step).zip(bytes).map(write));
            }
            let mut to_read = Vec::new();
            if let (Some(tile), Some(places)) = (&next, &places.1) {
                let step = plan.part(places);
                let bytes = read[..memory_len(tile.elements() * itemsize)].chunks_mut(memory_len(step * itemsize));
                to_read.extend(tile.parts(step).zip(bytes).map(|(part, bytes)| TileStep::Read(places.of(part), bytes)));
            }
            let mut both = alternate(writes.into_iter(), to_read.into_iter());
            workers.run(
                &self.run.cancel,
                || Ok(both.next()),
                context,
                |part, (lent, spare)| match part {
                    TileStep::Read(runs, bytes) => self.read_runs(runs, bytes, lent),
                    TileStep::Write(turned) => {
                        let len = spare.len().min(turned.bytes.len());
                        work(&turned, &mut spare[..len])
                    }
                },
            )?;
            drop(both);
            (ready, next) = (next, tiles.next());
            if let Some(tile) = &ready {
                let len = memory_len(tile.elements() * itemsize);
                let columns = tile.columns(itemsize);
                let step = memory_len(columns * tile.column_elements() * itemsize);
                let mut parts = turned[..len].chunks_mut(step).zip(0..);
                workers.run(
                    &self.run.cancel,
                    || Ok(parts.next()),
                    || (),
                    |(to, i), ()| {
                        tile.reverse_axes(&read[..len], i * columns, to, itemsize);
                        Ok(())
                    },
                )?;
            }
        }
        self.verified(checksums.as_ref())
    }

    /// Fills `out` with the elements of the runs, in order.
    fn read_runs(&self, runs: impl Iterator<Item = Range<u64>> + Clone, mut out: &mut [u8], lent: &mut WorkerState<'_>) -> Result<()> {
        let first = self.elements().start;
        let runs = runs.map(|run| first + run.start..first + run.end);
        // Short runs are prefetched as one span: each of them would cost a wait.
        let mut span: Option<Range<u64>> = None;
        for run in runs.clone().filter(|run| (run.end - run.start) * self.reader().spec().itemsize() < SHORT_BYTES) {
            span = Some(span.map_or(run.clone(), |span| span.start.min(run.start)..span.end.max(run.end)));
            self.reader().prefetch(run, &lent.context);
        }
        for run in runs {
            let (now, later) = std::mem::take(&mut out).split_at_mut(memory_len((run.end - run.start) * self.spec.itemsize()));
            self.read(run, now, lent)?;
            out = later;
        }
        if let Some(span) = span {
            self.reader().evict(span, &lent.context);
        }
        Ok(())
    }
}

fn no_memory(asked: u64, budget: Budget) -> Error {
    Error::Limit { what: "memory for a tile".into(), asked, allowed: Some(budget.as_bytes()) }
}

/// Alternates between both, then yields the rest of the longer one.
fn alternate<T>(mut a: impl Iterator<Item = T>, mut b: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut turn = false;
    std::iter::from_fn(move || {
        turn = !turn;
        if turn { a.next().or_else(|| b.next()) } else { b.next().or_else(|| a.next()) }
    })
}

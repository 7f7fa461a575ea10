//! Sources in compressed chunks: whole chunks are decoded, put together, and written where they belong.

use std::sync::Arc;

use super::placed::Placed;
use super::{Job, Lent, Meter, Outcome};
use crate::boxes::{BoxPlan, ChunkBox};
use crate::error::Result;
use crate::method::Method;
use crate::options::Options;
use crate::plan::Memory;
use crate::sink::NpySink;
use crate::source::{Ledger, Verified};
use crate::spec::memory_len;

impl Job<'_> {
    /// How chunks are read, if there are any and nothing speaks against it.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) when the memory does not suffice.
    pub(super) fn box_plan(&self, options: &Options, needs_spare: bool) -> Result<Option<BoxPlan>> {
        let Some(chunks) = self.reader.chunks().filter(|_| !self.is_turned && options.method != Some(Method::Map)) else {
            return Ok(None);
        };
        // Decoding keeps a core busy, and does not wait for the disk.
        let mut resources = self.resources(Memory::Buffers, options);
        resources.threads = options.thread_count(Memory::Windows);
        BoxPlan::new(&self.whole, &self.rows, chunks, &resources, needs_spare).map(Some)
    }

    /// As `copy_into`, box by box.
    pub(super) fn place_boxes(&self, sink: NpySink, method: Method, plan: &BoxPlan, options: &Options) -> Result<Outcome> {
        sink.reserve(self.spec.nbytes())?;
        let meter = Meter::new(&plan.shares, options);
        let verified = self.for_each_box(plan, options, 0, |placed, _| {
            let mut places = placed.places();
            match (places.next(), places.next()) {
                (Some(only), None) => sink.write(only, placed.bytes)?,
                _ => sink.write_runs(placed.places(), placed.bytes, &options.cancel)?,
            }
            meter.add(placed.bytes.len() as u64, sink.behind().held_and_peak().0);
            Ok(())
        })?;
        let behind = Arc::new(sink).finish(&self.header, self.spec.nbytes())?;
        Ok(Outcome { method, verified, peak_memory: plan.shares.fixed_bytes + behind.held_and_peak().1 })
    }

    /// Calls `check` with every box of the array, in any order, and memory of the same length.
    pub(super) fn for_each_boxed(
        &self,
        plan: &BoxPlan,
        options: &Options,
        check: impl Fn(&Placed<'_>, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let meter = Meter::new(&plan.shares, options);
        self.for_each_box(plan, options, plan.box_bytes(), |placed, spare| {
            check(placed, spare)?;
            meter.add(placed.bytes.len() as u64, 0);
            Ok(())
        })
    }

    fn for_each_box(
        &self,
        plan: &BoxPlan,
        options: &Options,
        spare: u64,
        work: impl Fn(&Placed<'_>, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let itemsize = self.spec.itemsize();
        let mut boxes = plan.boxes();
        crate::pool::run(
            plan.shares.threads,
            &options.cancel,
            || Ok(boxes.next()),
            || (Lent::new(&plan.shares, ledger.as_ref(), options), vec![0; memory_len(plan.box_bytes())], vec![0; memory_len(spare)]),
            |chunk_box, (lent, buffer, spare)| {
                let len = memory_len(chunk_box.elements() * itemsize);
                let bytes = &mut buffer[..len];
                let places = plan.places(&chunk_box);
                self.read_box(&chunk_box, &|at| places.position(at), bytes, lent)?;
                let position = |at| places.position(at);
                let part_of_output = Placed { places: &places, part: 0..chunk_box.elements(), itemsize, bytes, position: &position };
                let len = spare.len().min(len);
                work(&part_of_output, &mut spare[..len])
            },
        )?;
        self.verified(ledger.as_ref())
    }

    /// Fills `out` with the elements of a box as they are written.
    fn read_box(&self, chunk_box: &ChunkBox, position: &dyn Fn(u64) -> u64, out: &mut [u8], lent: &mut Lent<'_>) -> Result<()> {
        let ChunkBox { start, shape } = chunk_box;
        if self.decoder.is_copy() {
            return self.reader.read_box(start, shape, out, &mut lent.context);
        }
        let len = memory_len(chunk_box.elements() * self.reader.spec().itemsize());
        if lent.raw.len() < len {
            lent.raw.resize(len, 0);
        }
        let raw = &mut lent.raw[..len];
        self.reader.read_box(start, shape, raw, &mut lent.context)?;
        self.decoder.decode(raw, out).map_err(|at| self.lossy(at, position(at as u64), raw, out))
    }
}

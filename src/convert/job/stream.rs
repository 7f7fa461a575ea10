//! Writes an array front to back, to a pipe or any other writer.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::placed::ScatteredBox;
use super::unpacked::Scratch;
use super::{Job, WorkerState};
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::options::method::Method;
use crate::output::meter::Meter;
use crate::output::report::Outcome;
use crate::output::stream::{write_error, write_header};
use crate::plan::Memory;
use crate::plan::boxes::BoxUse;
use crate::plan::grid::Unit;
use crate::reader::checksums::RegionChecksums;
use crate::types::size::memory_len;

/// Where a temporary copy may be. A directory for temporary files is often in memory, where a copy gains nothing.
fn scratch_places() -> Vec<PathBuf> {
    vec![std::env::temp_dir(), "/var/tmp".into(), ".".into()]
}

impl Job<'_> {
    /// Refuses an array that cannot be written front to back.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_stream(&self) -> Result<()> {
        if self.changes_order() {
            return Err(BadRequest::OrderChanges { way: "streamed", instead: "write it to a file" }.into());
        }
        Ok(())
    }

    /// Writes header and elements to `out`, slice after slice, and compares the checksums at the end.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where elements are read in one order and written in another; those of reading; [`Error::Io`].
    pub(crate) fn stream(&self, out: &mut (dyn Write + Send)) -> Result<Outcome> {
        self.check_stream()?;
        if let Some(outcome) = self.stream_boxes(out)? {
            return Ok(outcome);
        }
        let plan = self.plan(Memory::Buffers)?;
        write_header(&self.header, out)?;
        let checksums = self.run.verify.then(|| RegionChecksums::new(self.reader().regions()));
        let meter = Meter::new(&plan.shares, self.run);
        let lent = &mut WorkerState::new(&plan.shares, checksums.as_ref(), self.run);
        let mut buffer = vec![0; memory_len(plan.slice_bytes())];
        let elements = self.elements();
        let most = plan.slice_bytes() / self.spec.itemsize().max(1);
        let mut at = elements.start;
        while at < elements.end {
            self.run.cancel.check()?;
            let end = at.saturating_add(most.max(1)).min(elements.end);
            let bytes = &mut buffer[..memory_len((end - at) * self.spec.itemsize())];
            self.read(at..end, bytes, lent)?;
            out.write_all(bytes).map_err(write_error)?;
            meter.add(bytes.len() as u64, 0);
            at = end;
        }
        let verified = self.verified(checksums.as_ref())?;
        out.flush().map_err(write_error)?;
        Ok(Outcome { method: Method::Portable, verified, peak_memory: plan.shares.fixed_bytes })
    }

    /// As `stream`, for a source in chunks, each of which is decoded once: one row of chunks at a time, or through a temporary
    /// copy where such a row exceeds the memory. `None` for any other source, and where a copy has no room.
    fn stream_boxes(&self, out: &mut (dyn Write + Send)) -> Result<Option<Outcome>> {
        let Some(plans) = self.box_plan(false)? else { return Ok(None) };
        let out = Mutex::new(out);
        let lock = || out.lock().unwrap_or_else(PoisonError::into_inner);
        let write = |placed: &ScatteredBox<'_>, _: &mut [u8]| {
            lock().write_all(placed.bytes).map_err(write_error)?;
            Ok(0)
        };
        let done = if plans.direct.is_in_order() {
            write_header(&self.header, *lock())?;
            self.for_each_box_here(&plans.direct, false, write)?
        } else {
            let Some(scratch) = Scratch::create(&scratch_places(), self.copy_bytes(), self.run) else { return Ok(None) };
            let plan = self.copy_plan(Unit::Stream, BoxUse::default())?;
            write_header(&self.header, *lock())?;
            self.for_each_box_of_copy(scratch, &plan, false, write)?
        };
        lock().flush().map_err(write_error)?;
        Ok(Some(Outcome { method: Method::Portable, verified: done.verified, peak_memory: done.peak_memory(0) }))
    }
}

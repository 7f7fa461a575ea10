//! Which slices of a plan hold data: where a source is sparse, so is the output.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::os;
use crate::plan::Plan;
use crate::source::TensorReader;

/// `du` counts in these.
const STAT_BLOCK: u64 = 512;

/// Goes through a plan in order, from one run of slices with data to the next. A slice is left out only if all of it lies
/// in a hole of a file, which reads as zeros.
///
/// Nothing is kept of what was passed, so that a file of a million holes costs time, not memory.
#[derive(Debug)]
pub(crate) struct DataRuns<'a> {
    reader: &'a dyn TensorReader,
    plan: &'a Plan,
    cancel: &'a CancelToken,
    /// Whether holes are looked for.
    sparse: bool,
    next: usize,
}

/// A part of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Slices that may hold data.
    Data(Range<usize>),
    /// Slices that lie in a hole of this run, and the bytes of its file that they are.
    Hole { slices: Range<usize>, region: Option<usize>, bytes: Range<u64> },
}

impl<'a> DataRuns<'a> {
    pub(crate) fn new(reader: &'a dyn TensorReader, plan: &'a Plan, sparse: bool, cancel: &'a CancelToken) -> Self {
        Self { reader, plan, cancel, sparse, next: 0 }
    }

    /// The next part.
    pub(crate) fn next_part(&mut self) -> Result<Option<Part>> {
        let (from, count) = (self.next, self.plan.slices());
        if from >= count {
            return Ok(None);
        }
        self.cancel.check()?;
        let part = if self.sparse { self.part_at(from)? } else { Part::Data(from..count) };
        self.next = match &part {
            Part::Data(slices) | Part::Hole { slices, .. } => slices.end,
        };
        Ok(Some(part))
    }

    fn part_at(&self, from: usize) -> Result<Part> {
        let first = self.plan.slice(from).elements;
        let Some(run) = self.reader.stored_run(first.start)? else {
            return Ok(Part::Data(from..from + 1));
        };
        let itemsize = self.reader.spec().itemsize();
        let offset = run.offset + (first.start - run.elements.start) * itemsize;
        let end = run.offset + (run.elements.end - run.elements.start) * itemsize;
        // The element that holds this byte, or is the first behind the run.
        let element = |byte: u64| run.elements.start + (byte.min(end) - run.offset) / itemsize;
        match extent(&run.file, offset, end) {
            Extent::Data(until) => {
                // A slice that begins in data holds some; the last one may reach into the hole.
                let last = self.plan.slice_of(element(until).max(first.start + 1) - 1);
                Ok(Part::Data(from..last + 1))
            }
            Extent::Hole(until) => {
                let end = self.plan.slices_before(element(until));
                if end <= from {
                    return Ok(Part::Data(from..from + 1));
                }
                let elements = first.start..self.plan.slice(end - 1).elements.end;
                let bytes = offset..offset + (elements.end - elements.start) * itemsize;
                Ok(Part::Hole { slices: from..end, region: run.region, bytes })
            }
        }
    }

    /// The bytes of the output that hold data, run by run.
    pub(crate) fn data_bytes(mut self) -> impl Iterator<Item = Result<Range<u64>>> {
        std::iter::from_fn(move || {
            loop {
                match self.next_part() {
                    Ok(Some(Part::Data(slices))) => {
                        return Some(Ok(self.plan.slice(slices.start).bytes.start..self.plan.slice(slices.end - 1).bytes.end));
                    }
                    Ok(Some(Part::Hole { .. })) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }
}

enum Extent {
    /// Data from the offset up to here.
    Data(u64),
    /// A hole from the offset up to here.
    Hole(u64),
}

/// What lies at `offset` of a file, and up to where, but not further than `end`. What cannot be told is data.
fn extent(file: &File, offset: u64, end: u64) -> Extent {
    let is_sparse = file.metadata().is_ok_and(|metadata| metadata.blocks().saturating_mul(STAT_BLOCK) < metadata.len());
    if !is_sparse {
        return Extent::Data(end);
    }
    match os::next_data(file, offset) {
        Ok(data) if data > offset => Extent::Hole(data.min(end)),
        Ok(_) => Extent::Data(os::next_hole(file, offset).unwrap_or(end).clamp(offset + 1, end)),
        Err(_) => Extent::Data(end),
    }
}

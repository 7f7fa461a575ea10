//! Fortran order as C order: a tensor whose first axis varies fastest has the same bytes as one in C order with its axes reversed.

use std::ops::Range;

use super::checksums::Region;
use super::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::error::Result;
use crate::plan::grid::{ChunkGrid, Unit};
use crate::types::byte_order::ByteOrder;
use crate::types::layout::Layout;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Columns longer than this are read row by row; from shorter ones whole columns are read and the rows picked out.
const LONG_COLUMN: u64 = 64 << 10;

/// Rows of a tensor in Fortran order, as a tensor in C order whose last axis is these rows.
#[derive(Debug)]
pub(crate) struct ReversedAxes<'a> {
    reader: Box<dyn TensorReader + 'a>,
    spec: TensorSpec,
    /// Rows of the tensor's first axis.
    rows: Range<u64>,
    /// The length of that axis.
    column: u64,
}

impl<'a> ReversedAxes<'a> {
    /// `rows` of the tensor that `reader` reads.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] for a tensor that NumPy could not hold.
    pub(crate) fn new(reader: Box<dyn TensorReader + 'a>, rows: Range<u64>) -> Result<Self> {
        let selected = reader.spec().with_rows(&rows);
        let shape = selected.shape().iter().rev().copied().collect();
        let spec = TensorSpec::new(selected.dtype(), shape)?;
        let column = reader.spec().rows();
        Ok(Self { reader, spec, rows, column })
    }

    fn is_whole(&self) -> bool {
        self.rows == (0..self.column)
    }

    /// Maps `elements` to runs of the whole tensor, each with its offset from the start of `elements`.
    fn runs(&self, elements: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        let (height, mut next) = (self.rows.end - self.rows.start, elements.start);
        std::iter::from_fn(move || {
            let (column, row) = (next / height.max(1), next % height.max(1));
            let len = (height - row).min(elements.end - next);
            let start = column * self.column + self.rows.start + row;
            let at = next - elements.start;
            next += len;
            (len > 0).then(|| (start..start + len, at))
        })
    }
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl TensorReader for ReversedAxes<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.reader.byte_order()
    }

    fn layout(&self) -> Layout {
        Layout::C
    }

    fn keeps_bool_bytes(&self) -> bool {
        self.reader.keeps_bool_bytes()
    }

    fn is_partly_covered(&self) -> bool {
        self.reader.is_partly_covered()
    }

    fn chunks(&self) -> Option<&[u64]> {
        None
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        if self.is_whole() {
            return self.reader.read(elements, out, context);
        }
        let itemsize = self.spec.itemsize();
        let place = |at: u64, len: u64| memory_len(at * itemsize)..memory_len((at + len) * itemsize);
        if self.column * itemsize > LONG_COLUMN {
            for (run, at) in self.runs(elements) {
                let place = place(at, run.end - run.start);
                self.reader.read(run, &mut out[place], context)?;
            }
            return Ok(());
        }
        let mut columns = vec![0; memory_len(LONG_COLUMN)];
        let mut held = 0..0;
        // A joint read ends at the end of a run, so that nothing is read twice.
        let mut ends = self.runs(elements.clone()).map(|(run, _)| run.end).peekable();
        for (run, at) in self.runs(elements) {
            let len = run.end - run.start;
            if run.end > held.end {
                let most = run.start + LONG_COLUMN / itemsize;
                held = run.start..run.end;
                while let Some(end) = ends.next_if(|&end| end <= most) {
                    held.end = held.end.max(end);
                }
                let bytes = memory_len((held.end - held.start) * itemsize);
                self.reader.read(held.clone(), &mut columns[..bytes], context)?;
            }
            out[place(at, len)].copy_from_slice(&columns[place(run.start - held.start, len)]);
        }
        Ok(())
    }

    fn is_sequential(&self) -> bool {
        self.reader.is_sequential()
    }

    fn chunk_grids(&self) -> Vec<ChunkGrid> {
        let all = ChunkGrid { rows: 0..self.spec.rows(), chunk: vec![1; self.spec.shape().len()], unit: Unit::Stream };
        match &self.reader.chunk_grids()[..] {
            [grid] if grid.unit == Unit::Stream => vec![all],
            // Rows become the last axis here, so the selection has to start with a chunk.
            [grid] if grid.unit == Unit::Chunk && grid.chunk.first().is_some_and(|&len| self.rows.start.is_multiple_of(len.max(1))) => {
                vec![ChunkGrid { chunk: grid.chunk.iter().rev().copied().collect(), unit: Unit::Chunk, ..all }]
            }
            _ => Vec::new(),
        }
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let reversed = |axes: &[u64]| axes.iter().rev().copied().collect::<Vec<_>>();
        let (mut start, shape) = (reversed(start), reversed(shape));
        start.iter_mut().take(1).for_each(|row| *row += self.rows.start);
        self.reader.read_box(&start, &shape, out, context)
    }

    fn regions(&self) -> &[Region] {
        // Parts of columns may be read more than once.
        if self.is_whole() { self.reader.regions() } else { &[] }
    }

    fn has_stored_runs(&self) -> bool {
        self.is_whole() && self.reader.has_stored_runs()
    }

    fn stored_run(&self, element: u64) -> Result<Option<StoredRun>> {
        if self.is_whole() { self.reader.stored_run(element) } else { Ok(None) }
    }

    fn prefetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        if self.is_whole() {
            self.reader.prefetch(elements, context);
        }
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        if self.is_whole() {
            self.reader.evict(elements, context);
        }
    }

    fn check_unchanged(&self) -> Result<()> {
        self.reader.check_unchanged()
    }

    fn fills_by_system_calls(&self) -> bool {
        self.is_whole() && self.reader.fills_by_system_calls()
    }

    fn heap_bytes(&self) -> u64 {
        self.reader.heap_bytes().saturating_add(if self.is_whole() { 0 } else { LONG_COLUMN })
    }

    fn box_heap_bytes(&self, workers: u64) -> u64 {
        self.reader.box_heap_bytes(workers).saturating_add(if self.is_whole() { 0 } else { LONG_COLUMN })
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryTensor;
    use super::*;
    use crate::os::SystemCalls;
    use crate::types::cancel::CancelToken;
    use crate::types::dtype::Dtype;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_picked_out_of_columns(shape in prop::collection::vec(1u64..6, 1..4), ends in any::<[prop::sample::Index; 4]>()) {
            let total: u64 = shape.iter().product();
            // The element at [i, j, k] of the tensor has the value i + shape[0] * (j + shape[1] * k).
            let bytes: Vec<u8> = (0..total).map(|i| i as u8).collect();
            let stored = TensorSpec::new(Dtype::UInt8, shape.clone()).unwrap();
            let reader = MemoryTensor::new(stored, &bytes).unwrap();
            let mut rows = [ends[0].index(shape[0] as usize + 1) as u64, ends[1].index(shape[0] as usize + 1) as u64];
            rows.sort_unstable();
            let rows = rows[0]..rows[1];
            let reversed = ReversedAxes::new(Box::new(reader), rows.clone()).unwrap();
            let wanted: Vec<u8> = bytes.iter().copied().filter(|&b| rows.contains(&(u64::from(b) % shape[0]))).collect();
            let mut part = [ends[2].index(wanted.len() + 1), ends[3].index(wanted.len() + 1)];
            part.sort_unstable();
            let mut out = vec![0xff; part[1] - part[0]];
            let mut context = ReadContext::new(7, None, &SystemCalls::standard(&CancelToken::new()));
            reversed.read(part[0] as u64..part[1] as u64, &mut out, &mut context).unwrap();
            prop_assert_eq!(&out, &wanted[part[0]..part[1]]);
        }
    }
}

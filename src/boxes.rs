//! Compressed chunks: which of them are decoded together, so that each is decoded once and writes are long.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::plan::{MAX_BEHIND_BUFFERS, PAGE_BYTES, READ_AHEAD, Resources, Shares};
use crate::spec::{TensorSpec, memory_len};
use crate::tiles::Runs;

/// Larger boxes make nothing faster.
const MAX_BOX: u64 = 4 << 20;

/// How a tensor is cut into boxes of whole chunks, and what that costs in memory: a box for each worker, as it is stored and as it is
/// written where these differ, and output pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoxPlan {
    shape: Vec<u64>,
    /// The selected rows of the first axis.
    rows: Range<u64>,
    /// The lengths of a box, multiples of those of chunks.
    extents: Vec<u64>,
    itemsize: u64,
    pub(crate) shares: Shares,
}

/// A box of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkBox {
    /// The index of its first element.
    pub(crate) start: Vec<u64>,
    pub(crate) shape: Vec<u64>,
}

impl ChunkBox {
    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl BoxPlan {
    /// Cuts `rows` of a tensor that is stored in `chunks`. With `needs_spare` workers need memory for a box to compare it with.
    ///
    /// # Errors
    /// [`Error::Limit`] when not even one worker with one chunk fits.
    pub(crate) fn new(spec: &TensorSpec, rows: &Range<u64>, chunks: &[u64], resources: &Resources, needs_spare: bool) -> Result<Self> {
        let (fixed, left) = resources.fixed_and_left();
        let (shape, itemsize) = (spec.shape().to_vec(), spec.itemsize());
        let raw_itemsize = resources.raw_itemsize.unwrap_or(0);
        // Bytes that a worker has for each element of a box, and one element more of it in output pages.
        let each = itemsize * (1 + u64::from(needs_spare)) + raw_itemsize;
        let chunk: u64 = shape.iter().zip(chunks).map(|(&dim, &len)| len.min(dim).max(1)).fold(1, u64::saturating_mul);
        let smallest = chunk.saturating_mul(each + itemsize);
        let most_threads = (left / 2 / smallest.max(1)).clamp(1, resources.in_flight.map_or(u64::MAX, |boxes| boxes.max(1) as u64));
        let threads = (resources.threads as u64).min(most_threads).max(1);
        if smallest.saturating_add(PAGE_BYTES) > left {
            let asked = fixed.saturating_add(smallest).saturating_add(PAGE_BYTES);
            return Err(Error::Limit {
                what: "memory in the budget (--memory allows more)".into(),
                asked,
                allowed: Some(resources.budget.as_bytes()),
            });
        }
        let most = (left / 2 / threads / (each + itemsize)).min(MAX_BOX / itemsize.max(1)).max(chunk);
        let extents = extents(&shape, chunks, most);
        let box_elements: u64 = extents.iter().zip(&shape).map(|(&len, &dim)| len.min(dim)).product();
        let buffers = threads * box_elements * each;
        let read_ahead = READ_AHEAD.min((left - buffers) / 4);
        let total_bytes = spec.with_rows(rows).nbytes();
        let shares = Shares {
            threads: memory_len(threads),
            chunk_bytes: memory_len((box_elements * itemsize).max(PAGE_BYTES)),
            raw_bytes: memory_len(box_elements * raw_itemsize),
            window_bytes: Resources::window_in(left - buffers - read_ahead).min(MAX_BEHIND_BUFFERS),
            fixed_bytes: fixed + buffers + read_ahead,
            total_bytes,
            budget: resources.budget,
        };
        Ok(Self { shape, rows: rows.clone(), extents, itemsize, shares })
    }

    /// Bytes of the largest box.
    pub(crate) fn box_bytes(&self) -> u64 {
        self.extents.iter().zip(&self.shape).map(|(&len, &dim)| len.min(dim)).product::<u64>() * self.itemsize
    }

    /// Which boxes of the grid each axis has: those that the selected rows touch, and all of the others.
    fn grid(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.shape.iter().zip(&self.extents).enumerate().map(|(axis, (&dim, &extent))| {
            let selected = if axis == 0 { self.rows.clone() } else { 0..dim };
            if selected.is_empty() { 0..0 } else { selected.start / extent..selected.end.div_ceil(extent) }
        })
    }

    /// The number of boxes.
    pub(crate) fn count(&self) -> u64 {
        self.grid().map(|axis| axis.end - axis.start).product()
    }

    /// All boxes, in the order of their first elements.
    pub(crate) fn boxes(&self) -> impl Iterator<Item = ChunkBox> + '_ {
        let grid: Vec<Range<u64>> = self.grid().collect();
        (0..self.count()).map(move |mut index| {
            let mut both = ChunkBox { start: vec![0; grid.len()], shape: vec![0; grid.len()] };
            for (axis, steps) in grid.iter().enumerate().rev() {
                let count = steps.end - steps.start;
                let step = steps.start + index % count;
                index /= count;
                let within = if axis == 0 { self.rows.clone() } else { 0..self.shape[axis] };
                let start = (step * self.extents[axis]).max(within.start);
                both.start[axis] = start;
                both.shape[axis] = ((step + 1) * self.extents[axis]).min(within.end) - start;
            }
            both
        })
    }

    /// Where the elements of a box lie among the selected ones.
    pub(crate) fn places(&self, chunk_box: &ChunkBox) -> Runs {
        let (mut shape, mut start) = (self.shape.clone(), chunk_box.start.clone());
        if let (Some(rows), Some(first)) = (shape.first_mut(), start.first_mut()) {
            *rows = self.rows.end - self.rows.start;
            *first -= self.rows.start;
        }
        Runs::new(shape, start, chunk_box.shape.clone())
    }
}

/// The lengths of a box of at most `most` elements: chunks put together along the last axis first, for long runs.
fn extents(shape: &[u64], chunks: &[u64], most: u64) -> Vec<u64> {
    let mut extents: Vec<u64> = chunks.iter().map(|&len| len.max(1)).collect();
    // Where a box ends before its chunks do, that is what it has.
    let clipped = |extents: &[u64]| extents.iter().zip(shape).map(|(&len, &dim)| len.min(dim).max(1)).fold(1, u64::saturating_mul);
    for axis in (0..extents.len()).rev() {
        let others = clipped(&extents) / extents[axis].min(shape[axis]).max(1);
        let times = (most / others / extents[axis]).max(1).min(shape[axis].div_ceil(extents[axis]).max(1));
        extents[axis] = extents[axis].saturating_mul(times);
        if extents[axis] < shape[axis] {
            break;
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::dtype::Dtype;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn boxes_hold_every_selected_element_once_within_the_budget(
            axes in prop::collection::vec((0u64..40, 1u64..50), 1..4), cut in any::<[prop::sample::Index; 2]>(), mib in 13u64..64,
            raw in prop_oneof![Just(None), Just(Some(8))], spare in any::<bool>(), threads in 1usize..9,
        ) {
            let (shape, chunks): (Vec<u64>, Vec<u64>) = axes.into_iter().unzip();
            let spec = TensorSpec::new(Dtype::Float32, shape.clone()).unwrap();
            let mut ends = cut.map(|i| i.index(shape[0] as usize + 1) as u64);
            ends.sort_unstable();
            let rows = ends[0]..ends[1];
            let resources = Resources { budget: Budget::mib(mib), threads, heap_bytes: 0, needs_scratch: true, raw_itemsize: raw, in_flight: None };
            let plan = BoxPlan::new(&spec, &rows, &chunks, &resources, spare).unwrap();
            prop_assert!(plan.shares.fixed_bytes + plan.shares.window_bytes <= Budget::mib(mib).as_bytes());
            prop_assert!(plan.extents.iter().zip(&chunks).all(|(extent, chunk)| extent.is_multiple_of(*chunk)));
            let selected = spec.with_rows(&rows);
            let mut seen = vec![0u8; selected.elements() as usize];
            for chunk_box in plan.boxes() {
                prop_assert!(chunk_box.elements() * 4 <= plan.box_bytes());
                let places = plan.places(&chunk_box);
                let mut next = 0;
                for run in places.of(0..chunk_box.elements()) {
                    prop_assert_eq!(places.position(next), run.start);
                    next += run.end - run.start;
                    run.for_each(|at| seen[at as usize] += 1);
                }
                // The first element lies where the box says.
                let first = chunk_box.start.iter().zip(&shape).fold(0, |at, (start, dim)| at * dim + start);
                prop_assert_eq!(places.position(0) + rows.start * spec.row_elements(), first);
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn a_chunk_that_does_not_fit_is_a_limit() {
        let spec = TensorSpec::new(Dtype::Float32, vec![1 << 30, 1 << 10]).unwrap();
        let resources =
            Resources { budget: Budget::mib(64), threads: 2, heap_bytes: 0, needs_scratch: true, raw_itemsize: None, in_flight: None };
        assert!(matches!(BoxPlan::new(&spec, &(0..5), &[1 << 20, 1 << 10], &resources, false), Err(Error::Limit { .. })));
    }
}

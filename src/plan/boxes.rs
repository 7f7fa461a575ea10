//! Plans boxes of compressed chunks, so that each chunk is decoded once and writes are long.

use std::ops::Range;

use super::grid::{ChunkGrid, Unit};
use super::tiles::{Runs, balanced};
use super::{MAX_BEHIND_BUFFERS, MemoryShares, PAGE_BYTES, READ_AHEAD, Resources};
use crate::error::{Error, Result};
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Larger boxes are not faster if runs are long.
const MAX_BOX: u64 = 4 << 20;
/// Larger boxes than this are not faster if runs are short.
const MAX_SHORT_BOX: u64 = 64 << 20;
/// Runs shorter than this are not written to disk one by one if there is another way.
const LEAST_RUN: u64 = 4 << 10;
/// The longest single read of elements that are read in consecutive runs.
const MAX_CHUNK: u64 = 256 << 10;
/// Maximum number of workers to try.
const MOST_WORKERS: u64 = 256;

/// How the selected rows of a tensor are cut into boxes. Positions refer to the whole tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cuts {
    shape: Vec<u64>,
    /// The selected rows of the first axis.
    rows: Range<u64>,
    /// Consecutive parts along the first axis.
    parts: Vec<Cut>,
}

/// A range of rows that is cut uniformly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The selected rows of this part.
    rows: Range<u64>,
    /// The row at which boxes start to be counted.
    origin: u64,
    /// The size of a box; boxes at the ends of axes may be smaller.
    extents: Vec<u64>,
    pub(crate) unit: Unit,
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

    /// Converts the Fortran-order position `at` in the box to C order.
    pub(crate) fn in_c_order(&self, mut at: u64) -> u64 {
        let (mut place, mut stride) = (0, self.elements());
        for &len in &self.shape {
            stride /= len;
            place += at % len * stride;
            at /= len;
        }
        place
    }
}

impl Cuts {
    /// Cuts `rows` of a tensor along its `grids`. `extents` gives the box size for a grid and the shape of its rows.
    fn new(shape: &[u64], rows: &Range<u64>, grids: &[ChunkGrid], extents: impl Fn(&ChunkGrid, &[u64]) -> Vec<u64>) -> Self {
        let cut = |grid: &ChunkGrid| {
            let own = grid.rows.start.max(rows.start)..grid.rows.end.min(rows.end);
            let mut part = shape.to_vec();
            if let Some(first) = part.first_mut() {
                *first = own.end.saturating_sub(own.start);
            }
            let is_any = !own.is_empty();
            is_any.then(|| Cut { rows: own, origin: grid.rows.start, extents: extents(grid, &part), unit: grid.unit })
        };
        Self { shape: shape.to_vec(), rows: rows.clone(), parts: grids.iter().filter_map(cut).collect() }
    }

    /// Makes a box for each chunk, and a single box for each part that is not chunked.
    pub(crate) fn of_chunks(shape: &[u64], rows: &Range<u64>, grids: &[ChunkGrid]) -> Self {
        Self::new(shape, rows, grids, |grid, part| match grid.unit {
            Unit::Chunk => grid.chunk.iter().map(|&len| len.max(1)).collect(),
            Unit::Element | Unit::Stream => part.iter().map(|&dim| dim.max(1)).collect(),
        })
    }

    pub(crate) fn parts(&self) -> &[Cut] {
        &self.parts
    }

    /// Elements per row.
    fn row_elements(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// The range of elements of a cut on an axis.
    fn within(&self, cut: &Cut, axis: usize) -> Range<u64> {
        if axis == 0 { cut.rows.clone() } else { 0..self.shape[axis] }
    }

    /// The range of boxes of a cut on an axis that touch `elements` of the axis.
    fn steps(cut: &Cut, axis: usize, elements: &Range<u64>) -> Range<u64> {
        let (extent, origin) = (cut.extents[axis], if axis == 0 { cut.origin } else { 0 });
        if elements.is_empty() { 0..0 } else { (elements.start - origin) / extent..(elements.end - origin).div_ceil(extent) }
    }

    /// The boxes of a cut that touch these elements, as a range for every axis.
    fn grid(cut: &Cut, elements: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
        elements.enumerate().map(|(axis, elements)| Self::steps(cut, axis, &elements)).collect()
    }

    fn all(&self, cut: &Cut) -> Vec<Range<u64>> {
        Self::grid(cut, (0..self.shape.len()).map(|axis| self.within(cut, axis)))
    }

    /// The number of boxes of a cut.
    pub(crate) fn count_of(&self, cut: &Cut) -> u64 {
        self.all(cut).iter().map(|steps| steps.end - steps.start).product()
    }

    /// The number of boxes.
    pub(crate) fn count(&self) -> u64 {
        self.parts.iter().map(|cut| self.count_of(cut)).sum()
    }

    /// The boxes of a cut in the range `grid`, in the order of their first elements.
    fn boxes_in<'a>(&'a self, cut: &'a Cut, grid: Vec<Range<u64>>) -> impl Iterator<Item = ChunkBox> + 'a {
        let count = grid.iter().map(|steps| steps.end - steps.start).product();
        (0..count).map(move |mut index: u64| {
            let mut both = ChunkBox { start: vec![0; grid.len()], shape: vec![0; grid.len()] };
            for (axis, steps) in grid.iter().enumerate().rev() {
                let count = steps.end - steps.start;
                let step = steps.start + index % count;
                index /= count;
                let (within, extent) = (self.within(cut, axis), cut.extents[axis]);
                let origin = if axis == 0 { cut.origin } else { 0 };
                let start = (origin + step * extent).max(within.start);
                both.start[axis] = start;
                both.shape[axis] = (origin + step * extent).saturating_add(extent).min(within.end) - start;
            }
            both
        })
    }

    /// The boxes of a cut.
    pub(crate) fn boxes_of<'a>(&'a self, cut: &'a Cut) -> impl Iterator<Item = ChunkBox> + 'a {
        self.boxes_in(cut, self.all(cut))
    }

    /// All boxes.
    pub(crate) fn boxes(&self) -> impl Iterator<Item = ChunkBox> + '_ {
        self.parts.iter().flat_map(|cut| self.boxes_of(cut))
    }

    /// The boxes that overlap a box of the selected rows, each with its cut.
    pub(crate) fn touching<'a>(&'a self, wanted: &'a ChunkBox) -> impl Iterator<Item = (&'a Cut, ChunkBox)> + 'a {
        self.parts.iter().flat_map(move |cut| {
            let part = (0..self.shape.len()).map(|axis| {
                let (start, within) = (wanted.start[axis], self.within(cut, axis));
                start.max(within.start)..(start + wanted.shape[axis]).min(within.end)
            });
            self.boxes_in(cut, Self::grid(cut, part)).map(move |one| (cut, one))
        })
    }

    /// The number of elements before a box if all boxes are laid out in sequence.
    pub(crate) fn before(&self, cut: &Cut, one: &ChunkBox) -> u64 {
        // Counts, per axis, the boxes that first differ in this axis and come before.
        let mut before = (cut.rows.start - self.rows.start) * self.row_elements();
        let mut outer = 1;
        let mut inner = (cut.rows.end - cut.rows.start) * self.row_elements();
        for axis in 0..self.shape.len() {
            let within = self.within(cut, axis);
            inner /= (within.end - within.start).max(1);
            before += outer * (one.start[axis] - within.start) * inner;
            outer *= one.shape[axis];
        }
        before
    }

    /// Number of elements of the largest box.
    pub(crate) fn most_elements(&self) -> u64 {
        self.parts.iter().map(|cut| self.most_elements_of(cut)).max().unwrap_or(0)
    }

    /// Number of elements of the largest box of a cut.
    pub(crate) fn most_elements_of(&self, cut: &Cut) -> u64 {
        self.len_of(cut).iter().product()
    }

    /// The flat range of a cut's elements, counted from the first selected element.
    pub(crate) fn elements_of(&self, cut: &Cut) -> Range<u64> {
        (cut.rows.start - self.rows.start) * self.row_elements()..(cut.rows.end - self.rows.start) * self.row_elements()
    }

    /// The size of a full box of a cut, one that no axis clips.
    fn len_of(&self, cut: &Cut) -> Vec<u64> {
        let own = (0..self.shape.len()).map(|axis| self.within(cut, axis));
        own.zip(&cut.extents).map(|(within, &extent)| extent.min(within.end - within.start)).collect()
    }

    /// The shortest run over all cuts: contiguous output elements of a full box in this element order.
    fn run(&self, changes_order: bool) -> u64 {
        let run = |cut: &Cut| {
            let len = self.len_of(cut);
            self.runs(&ChunkBox { start: cut.extents.iter().map(|_| 0).collect(), shape: len }, 0, changes_order).run()
        };
        self.parts.iter().map(run).min().unwrap_or(0)
    }

    /// The runs of a box's elements in an output whose first row is `first`.
    fn runs(&self, one: &ChunkBox, first: u64, changes_order: bool) -> Runs {
        let (mut shape, mut start, mut len) = (self.shape.clone(), one.start.clone(), one.shape.clone());
        if let (Some(rows), Some(start)) = (shape.first_mut(), start.first_mut()) {
            *rows = self.rows.end - self.rows.start;
            *start -= first;
        }
        if changes_order {
            // Fortran order is C order with the axes reversed.
            for axes in [&mut shape, &mut start, &mut len] {
                axes.reverse();
            }
        }
        Runs::new(shape, start, len)
    }
}

/// How boxes are used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BoxUse {
    /// Whether the output has the opposite element order.
    pub(crate) changes_order: bool,
    /// Whether each worker needs spare memory of a box to compare with.
    pub(crate) needs_spare: bool,
    /// Whether boxes may be cut anywhere, and should be long along both the first and the last axes.
    pub(crate) is_balanced: bool,
}

/// How a tensor is cut into boxes of whole chunks, and the memory cost: per worker a box as stored and, if different, as written,
/// and output pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoxPlan {
    pub(crate) cuts: Cuts,
    pub(crate) changes_order: bool,
    itemsize: u64,
    pub(crate) shares: MemoryShares,
}

impl BoxPlan {
    /// Cuts `rows` of a tensor stored in `grids`. The reader needs the memory of `heap` for a given number of workers.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if not even one worker with one chunk fits.
    pub(crate) fn new(
        spec: &TensorSpec,
        rows: &Range<u64>,
        grids: &[ChunkGrid],
        usage: BoxUse,
        resources: &Resources,
        heap: impl Fn(u64) -> u64,
    ) -> Result<Self> {
        let itemsize = spec.itemsize();
        let raw_itemsize = resources.raw_itemsize.unwrap_or(0);
        // Worker bytes per box element, plus the element itself in the output pages.
        let each = itemsize * (1 + u64::from(usage.needs_spare) + u64::from(usage.changes_order)) + raw_itemsize;
        let chunk = |grid: &ChunkGrid| {
            let clipped = spec.shape().iter().zip(&grid.chunk).map(|(&dim, &len)| len.min(dim).max(1));
            if grid.unit == Unit::Chunk { clipped.fold(1, u64::saturating_mul) } else { 1 }
        };
        let chunk = if usage.is_balanced { 1 } else { grids.iter().map(chunk).max().unwrap_or(1) };
        let smallest = chunk.saturating_mul(each + itemsize).saturating_add(PAGE_BYTES);
        let left_for = |threads: u64| {
            let resources = Resources { heap_bytes: resources.heap_bytes.saturating_add(heap(threads)), ..*resources };
            resources.fixed_and_left()
        };
        let (fixed, left) = left_for(1);
        if smallest.saturating_add(PAGE_BYTES) > left {
            return Err(Error::Limit {
                what: "memory in the budget (`memory` allows more)".into(),
                asked: fixed.saturating_add(smallest).saturating_add(PAGE_BYTES),
                allowed: Some(resources.budget.as_bytes()),
            });
        }
        let most_threads = (left / 2 / smallest).clamp(1, resources.in_flight.map_or(u64::MAX, |boxes| boxes.max(1) as u64));
        let mut threads = (resources.threads as u64).min(most_threads).clamp(1, MOST_WORKERS);
        while threads > 1 && left_for(threads).1 / 2 < smallest * threads {
            threads -= 1;
        }
        let cut = |threads: u64, cap: u64| {
            let (_, left) = left_for(threads);
            let chunk_bytes = (left / 32).clamp(PAGE_BYTES, MAX_CHUNK);
            let share = (left.saturating_sub(threads * chunk_bytes) / 16 * 9 / threads / each.max(1)).min(left / 4 / itemsize.max(1));
            let most = share.min(cap / itemsize.max(1)).max(chunk);
            let extents = |grid: &ChunkGrid, part: &[u64]| extents(grid, part, itemsize, most, usage);
            Cuts::new(spec.shape(), rows, grids, extents)
        };
        // Boxes for all workers. If runs are too short, use larger boxes, or fewer workers with larger ones if that makes runs
        // long.
        let is_long = |cuts: &Cuts| cuts.run(usage.changes_order) * itemsize >= LEAST_RUN;
        let mut cuts = cut(threads, if usage.is_balanced { MAX_SHORT_BOX } else { MAX_BOX });
        if !is_long(&cuts) {
            let longest = (1..=threads).rev().map(|fewer| (fewer, cut(fewer, MAX_SHORT_BOX))).find(|(_, cuts)| is_long(cuts));
            (threads, cuts) = longest.unwrap_or_else(|| (threads, cut(threads, MAX_SHORT_BOX)));
        }
        let (fixed, left) = left_for(threads);
        let box_elements = cuts.most_elements();
        let chunk_bytes = (left / 32).clamp(PAGE_BYTES, MAX_CHUNK).min(left.saturating_sub(box_elements * (each + itemsize)) / threads / 2);
        let buffers = threads * (box_elements * each + chunk_bytes);
        let read_ahead = READ_AHEAD.min(left.saturating_sub(buffers + box_elements * itemsize) / 4);
        let total_bytes = spec.with_rows(rows).nbytes();
        let shares = MemoryShares {
            threads: memory_len(threads),
            chunk_bytes: memory_len(chunk_bytes.max(1)),
            raw_bytes: memory_len(box_elements * raw_itemsize),
            window_bytes: Resources::window_in(left.saturating_sub(buffers + read_ahead)).min(MAX_BEHIND_BUFFERS),
            fixed_bytes: fixed + buffers + read_ahead,
            total_bytes,
            budget: resources.budget,
        };
        Ok(Self { cuts, changes_order: usage.changes_order, itemsize, shares })
    }

    /// Bytes of the largest box.
    pub(crate) fn box_bytes(&self) -> u64 {
        self.cuts.most_elements() * self.itemsize
    }

    /// The number of boxes.
    pub(crate) fn count(&self) -> u64 {
        self.cuts.count()
    }

    /// Whether the output would be written in many runs shorter than a page, more than memory can hold.
    pub(crate) fn is_scattered(&self) -> bool {
        self.cuts.run(self.changes_order) * self.itemsize < LEAST_RUN && self.shares.total_bytes > self.shares.window_bytes
    }

    /// Whether every box is one run of the output, and boxes follow each other.
    pub(crate) fn is_in_order(&self) -> bool {
        self.cuts.parts.iter().all(|cut| {
            let len = self.cuts.len_of(cut);
            let is_whole = |axis: usize| len[axis] == self.cuts.within(cut, axis).end - self.cuts.within(cut, axis).start;
            // After the first axis with several elements, all axes must be whole.
            let first = (0..len.len()).find(|&axis| len[axis] > 1).unwrap_or(len.len());
            (first + 1..len.len()).all(is_whole)
        })
    }

    /// The runs of a box in the selected elements, in source order.
    pub(crate) fn in_source(&self, one: &ChunkBox) -> Runs {
        self.cuts.runs(one, self.cuts.rows.start, false)
    }

    /// The runs of a box in the output.
    pub(crate) fn in_output(&self, one: &ChunkBox) -> Runs {
        self.cuts.runs(one, self.cuts.rows.start, self.changes_order)
    }
}

/// The size of a box of at most `most` elements, for rows of this shape.
fn extents(grid: &ChunkGrid, shape: &[u64], itemsize: u64, most: u64, usage: BoxUse) -> Vec<u64> {
    let reversed = |axes: &[u64]| axes.iter().rev().copied().collect::<Vec<_>>();
    let bytes = most.saturating_mul(itemsize);
    match grid.unit {
        // The written side gets the longer runs.
        _ if usage.is_balanced && usage.changes_order => balanced(shape, itemsize, bytes),
        _ if usage.is_balanced => reversed(&balanced(&reversed(shape), itemsize, bytes)),
        // A stream is only read, so boxes are shaped for reading.
        Unit::Stream => grown(shape, &vec![1; shape.len()], most),
        Unit::Chunk | Unit::Element if usage.changes_order => reversed(&grown(&reversed(shape), &reversed(&grid.chunk), most)),
        Unit::Chunk | Unit::Element => grown(shape, &grid.chunk, most),
    }
}

/// The size of a box of at most `most` elements: chunks are joined along the last axis first, for long runs.
fn grown(shape: &[u64], chunks: &[u64], most: u64) -> Vec<u64> {
    let mut extents: Vec<u64> = chunks.iter().map(|&len| len.max(1)).collect();
    // A box that ends before its chunks do has only its own elements.
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
    use crate::options::budget::Budget;
    use crate::types::dtype::Dtype;
    use proptest::prelude::*;

    fn units() -> impl Strategy<Value = Unit> {
        prop::sample::select(vec![Unit::Chunk, Unit::Element, Unit::Stream])
    }

    proptest! {
        #[test]
        fn boxes_hold_every_selected_element_once_within_the_budget(
            axes in prop::collection::vec((0u64..40, 1u64..50), 1..4), others in prop::collection::vec((0u64..20, 1u64..50, units()), 0..3),
            cut in any::<[prop::sample::Index; 2]>(), mib in 13u64..64, raw in prop_oneof![Just(None), Just(Some(8))],
            [needs_spare, changes_order, is_balanced] in any::<[bool; 3]>(), threads in 1usize..9, heap in 0u64..1 << 17,
        ) {
            let (mut shape, chunk): (Vec<u64>, Vec<u64>) = axes.into_iter().unzip();
            // Consecutive parts, each with its own chunks.
            let mut grids = vec![ChunkGrid { rows: 0..shape[0], chunk: chunk.clone(), unit: Unit::Chunk }];
            for (rows, first, unit) in others {
                let mut chunk = chunk.clone();
                chunk[0] = first;
                let chunk = if unit == Unit::Chunk { chunk } else { vec![1; shape.len()] };
                grids.push(ChunkGrid { rows: shape[0]..shape[0] + rows, chunk, unit });
                shape[0] += rows;
            }
            let spec = TensorSpec::new(Dtype::Float32, shape.clone()).unwrap();
            let mut ends = cut.map(|i| i.index(shape[0] as usize + 1) as u64);
            ends.sort_unstable();
            let rows = ends[0]..ends[1];
            let resources = Resources { budget: Budget::mib(mib), threads, heap_bytes: 0, needs_scratch: true, raw_itemsize: raw, in_flight: None };
            let usage = BoxUse { changes_order, needs_spare, is_balanced };
            let plan = BoxPlan::new(&spec, &rows, &grids, usage, &resources, |workers| workers * heap).unwrap();
            prop_assert!(plan.shares.fixed_bytes + plan.shares.window_bytes <= Budget::mib(mib).as_bytes());
            prop_assert!(plan.box_bytes() <= plan.shares.window_bytes);
            let selected = spec.with_rows(&rows);
            let mut seen = vec![0u8; selected.elements() as usize];
            let mut last = None;
            for (cut, one) in plan.cuts.parts.iter().flat_map(|cut| plan.cuts.boxes_of(cut).map(move |one| (cut, one))) {
                prop_assert!(one.elements() * 4 <= plan.box_bytes());
                let places = plan.in_source(&one);
                let mut next = 0;
                for run in places.of(0..one.elements()) {
                    prop_assert_eq!(places.position(next), run.start);
                    next += run.end - run.start;
                    run.for_each(|at| seen[at as usize] += 1);
                }
                // The first element is where the box says.
                let first = one.start.iter().zip(&shape).fold(0, |at, (start, dim)| at * dim + start);
                prop_assert_eq!(places.position(0) + rows.start * spec.row_elements(), first);
                if cut.unit == Unit::Stream && !is_balanced {
                    prop_assert_eq!(places.of(0..one.elements()).count(), 1, "what follows is read");
                    prop_assert!(last < Some(first));
                    last = Some(first);
                }
                if cut.unit == Unit::Chunk && !is_balanced {
                    let grid = grids.iter().find(|grid| grid.rows.contains(&one.start[0])).unwrap();
                    for axis in 0..shape.len() {
                        let (within, origin) = (plan.cuts.within(cut, axis), if axis == 0 { cut.origin } else { 0 });
                        for end in [one.start[axis], one.start[axis] + one.shape[axis]] {
                            prop_assert!(end == within.start || end == within.end || (end - origin).is_multiple_of(grid.chunk[axis]));
                        }
                    }
                }
                for at in [0, one.elements() / 2, one.elements() - 1] {
                    let output = plan.in_output(&one).position(at);
                    let source = places.position(if changes_order { one.in_c_order(at) } else { at });
                    let reversed = crate::types::spec::unravel(source, selected.shape()).into_iter().zip(selected.shape()).rev();
                    let wanted = if changes_order { reversed.fold(0, |sum, (at, dim)| sum * dim + at) } else { source };
                    prop_assert_eq!(output, wanted);
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
        }

        #[test]
        fn boxes_one_behind_the_other_leave_no_gap_and_are_found_again(
            axes in prop::collection::vec((1u64..9, 1u64..6), 1..4), more in 0u64..9, cut in any::<[prop::sample::Index; 2]>(),
            wanted in any::<[prop::sample::Index; 6]>(),
        ) {
            let (mut shape, chunk): (Vec<u64>, Vec<u64>) = axes.into_iter().unzip();
            let first = shape[0];
            shape[0] += more;
            let grids = [
                ChunkGrid { rows: 0..first, chunk, unit: Unit::Chunk },
                ChunkGrid { rows: first..shape[0], chunk: vec![1; shape.len()], unit: Unit::Stream },
            ];
            let mut ends = cut.map(|i| i.index(shape[0] as usize + 1) as u64);
            ends.sort_unstable();
            let rows = ends[0]..ends[1];
            let cuts = Cuts::of_chunks(&shape, &rows, &grids);
            let mut next = 0;
            for (cut, one) in cuts.parts().iter().flat_map(|cut| cuts.boxes_of(cut).map(move |one| (cut, one))) {
                prop_assert_eq!(cuts.before(cut, &one), next);
                next += one.elements();
            }
            prop_assert_eq!(next, (rows.end - rows.start) * shape[1..].iter().product::<u64>());
            // The boxes that touch one are exactly those that contain an element of it.
            if rows.is_empty() {
                return Ok(());
            }
            let mut asked = ChunkBox { start: Vec::new(), shape: Vec::new() };
            for (axis, &dim) in shape.iter().enumerate() {
                let within = if axis == 0 { rows.clone() } else { 0..dim };
                let mut ends = [wanted[2 * axis], wanted[2 * axis + 1]].map(|i| within.start + i.index((within.end - within.start) as usize) as u64);
                ends.sort_unstable();
                asked.start.push(ends[0]);
                asked.shape.push(ends[1] + 1 - ends[0]);
            }
            let common = |one: &ChunkBox| (0..shape.len()).all(|axis| {
                one.start[axis] < asked.start[axis] + asked.shape[axis] && asked.start[axis] < one.start[axis] + one.shape[axis]
            });
            let expected: Vec<ChunkBox> = cuts.boxes().filter(common).collect();
            let found: Vec<ChunkBox> = cuts.touching(&asked).map(|(_, one)| one).collect();
            prop_assert_eq!(found, expected);
        }
    }

    fn plan(shape: &[u64], chunk: &[u64], changes_order: bool, mib: u64) -> Result<BoxPlan> {
        let spec = TensorSpec::new(Dtype::Float32, shape.to_vec()).unwrap();
        let grids = [ChunkGrid { rows: 0..shape[0], chunk: chunk.to_vec(), unit: Unit::Chunk }];
        let resources =
            Resources { budget: Budget::mib(mib), threads: 2, heap_bytes: 0, needs_scratch: true, raw_itemsize: None, in_flight: None };
        let usage = BoxUse { changes_order, needs_spare: false, is_balanced: false };
        BoxPlan::new(&spec, &(0..shape[0]), &grids, usage, &resources, |_| 0)
    }

    #[test]
    fn a_chunk_that_does_not_fit_is_a_limit() {
        assert!(matches!(plan(&[1 << 30, 1 << 10], &[1 << 20, 1 << 10], false, 64), Err(Error::Limit { .. })));
    }

    #[test]
    fn only_chunks_that_are_long_the_other_way_are_scattered() {
        let is_scattered = |shape: &[u64], chunk: &[u64], changes_order| plan(shape, chunk, changes_order, 40).unwrap().is_scattered();
        for (chunk, in_c_order, turned) in [
            ([1 << 15, 1], true, false),
            ([1, 1 << 15], false, true),
            ([128, 128], false, false),
            ([1000, 1], false, false),
            ([1 << 15, 1 << 6], true, false),
        ] {
            let shape = [1 << 15, 1 << 15];
            assert_eq!((is_scattered(&shape, &chunk, false), is_scattered(&shape, &chunk, true)), (in_c_order, turned), "{chunk:?}");
        }
        assert!(!is_scattered(&[1 << 8, 1 << 8, 1 << 15], &[1 << 8, 1, 1 << 8], false));
        assert!(!is_scattered(&[1 << 9, 1 << 9], &[1 << 9, 1], false), "what fits in memory");
    }
}

//! Fortran order: plans tiles that are transposed in memory, so that reads and writes both stay long.
//!
//! Elements that are adjacent in C order are far apart in Fortran order, and vice versa. A tile is a box that is long along the
//! last axes, for reading, and along the first ones, for writing. It is read whole, its axes are reversed in memory, and it is
//! written. Larger tiles give longer runs, so all workers share one.

use std::ops::Range;

use super::{MAX_BEHIND_BUFFERS, MemoryShares, PAGE_BYTES, READ_AHEAD, Resources};
use crate::error::{Error, Result};
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// With a smaller tile, reads and writes get very short.
const MIN_TILE: u64 = 256 << 10;
/// Larger parts are not faster.
const MAX_PART: u64 = 2 << 20;
/// The size of a cache line: neighbours on the last axis are transposed together.
const LINE_BYTES: u64 = 64;
/// How many times longer writes are than reads: each write takes a lock and starts its own I/O.
const WRITE_TO_READ: u64 = 2;
/// The longest single read.
const MAX_CHUNK: u64 = 2 << 20;

/// How a tensor is cut into tiles, and the memory cost: one tile as read, one as written, and output pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TilePlan {
    shape: Vec<u64>,
    itemsize: u64,
    /// The size of a tile; tiles at the ends of axes may be smaller.
    extents: Vec<u64>,
    /// Bytes that a worker reads, transposes or writes at a time.
    part_bytes: u64,
    pub(crate) shares: MemoryShares,
}

/// A box of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    start: Vec<u64>,
    len: Vec<u64>,
}

impl TilePlan {
    /// Cuts a tensor of at least one element. With `needs_spare`, workers also need memory of the longest part, to compare with.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if the smallest tile does not fit.
    pub(crate) fn new(spec: &TensorSpec, resources: &Resources, needs_spare: bool) -> Result<Self> {
        let (fixed, left) = resources.fixed_and_left();
        let itemsize = spec.itemsize();
        // After the memory of the workers, each of the two tiles gets five sixteenths of the rest. What remains is for output
        // pages and the kernel's read-ahead.
        let in_flight = resources.in_flight.map_or(u64::MAX, |parts| parts.max(1) as u64);
        let chunk = (left / 32).clamp(PAGE_BYTES, MAX_CHUNK) / PAGE_BYTES * PAGE_BYTES;
        let part_bytes = (left / 64).clamp(PAGE_BYTES, MAX_PART);
        let only_if = |needed: bool, bytes: u64| if needed { bytes } else { 0 };
        let (raw, scratch) = (only_if(resources.raw_itemsize.is_some(), chunk), only_if(resources.needs_scratch, chunk));
        let own = raw + scratch + only_if(needs_spare, part_bytes + PAGE_BYTES * itemsize);
        let threads = (resources.threads as u64).min(in_flight).min(left / 8 / own.max(1)).max(1);
        let most = left.saturating_sub(threads * own) / 16 * 5;
        if most < MIN_TILE {
            let asked = fixed + (MIN_TILE + PAGE_BYTES) * 4;
            return Err(Error::Limit {
                what: "memory in the budget (`memory` allows more)".into(),
                asked,
                allowed: Some(resources.budget.as_bytes()),
            });
        }
        let mut plan = Self {
            shape: spec.shape().to_vec(),
            itemsize,
            extents: balanced(spec.shape(), itemsize, most),
            part_bytes,
            shares: MemoryShares::default(),
        };
        let tile = plan.tile_bytes();
        let threads = threads.min(tile.div_ceil(plan.part_bytes));
        let buffers = 2 * tile + threads * own + READ_AHEAD.min(left / 16 * 3);
        plan.shares = MemoryShares {
            threads: memory_len(threads),
            chunk_bytes: memory_len(chunk),
            raw_bytes: memory_len(raw),
            window_bytes: Resources::window_in(left - buffers).min(MAX_BEHIND_BUFFERS).min(in_flight.saturating_mul(part_bytes)),
            fixed_bytes: fixed + buffers,
            total_bytes: spec.nbytes(),
            budget: resources.budget,
        };
        Ok(plan)
    }

    /// Bytes in the longest part, after rounding up to `PAGE_BYTES` elements.
    pub(crate) fn most_part_bytes(&self) -> u64 {
        self.part_bytes + PAGE_BYTES * self.itemsize
    }

    /// A good number of elements for a worker in a tile with these runs: several whole runs, or about equal parts of one run, on
    /// page boundaries if possible.
    pub(crate) fn part(&self, places: &Runs) -> u64 {
        let (run, most) = (places.run, (self.part_bytes / self.itemsize).max(1));
        if run <= most { most / run * run } else { run.div_ceil(run.div_ceil(most)).next_multiple_of(PAGE_BYTES) }
    }

    /// The number of tiles.
    pub(crate) fn count(&self) -> u64 {
        self.shape.iter().zip(&self.extents).map(|(dim, extent)| dim.div_ceil(*extent)).product()
    }

    /// Bytes of the largest tile.
    pub(crate) fn tile_bytes(&self) -> u64 {
        self.extents.iter().product::<u64>() * self.itemsize
    }

    /// All tiles. Neighbours along the first axis are consecutive, because they share pages of the output.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        (0..self.count()).map(|mut index| {
            let (mut start, mut len) = (Vec::with_capacity(self.shape.len()), Vec::with_capacity(self.shape.len()));
            for (&dim, &extent) in self.shape.iter().zip(&self.extents) {
                let steps = dim.div_ceil(extent);
                let at = index % steps * extent;
                index /= steps;
                start.push(at);
                len.push(extent.min(dim - at));
            }
            Tile { start, len }
        })
    }

    /// The runs of `tile` in the source, in C order.
    pub(crate) fn in_source(&self, tile: &Tile) -> Runs {
        Runs::new(self.shape.clone(), tile.start.clone(), tile.len.clone())
    }

    /// The runs of `tile` in the output, in Fortran order.
    pub(crate) fn in_output(&self, tile: &Tile) -> Runs {
        // Fortran order is C order with the axes reversed.
        let reversed = |axes: &[u64]| axes.iter().rev().copied().collect();
        Runs::new(reversed(&self.shape), reversed(&tile.start), reversed(&tile.len))
    }

    /// The source position of element `at` of a tile in its written order.
    pub(crate) fn position(&self, tile: &Tile, mut at: u64) -> u64 {
        let mut position = 0;
        let mut stride: u64 = self.shape.iter().product();
        for ((&dim, &start), &len) in self.shape.iter().zip(&tile.start).zip(&tile.len) {
            stride /= dim;
            position += (start + at % len) * stride;
            at /= len;
        }
        position
    }
}

/// The runs that the elements of a box form in a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    shape: Vec<u64>,
    start: Vec<u64>,
    len: Vec<u64>,
    /// The number of axes that are iterated; the remaining ones form a run.
    outer: usize,
    /// Elements per run.
    run: u64,
}

impl Runs {
    pub(crate) fn new(shape: Vec<u64>, start: Vec<u64>, len: Vec<u64>) -> Self {
        // The trailing axes that are whole, and the axis before them.
        let whole = shape.iter().zip(&len).rev().take_while(|(dim, len)| dim == len).count();
        let outer = shape.len().saturating_sub(whole + 1);
        let run = len[outer..].iter().product();
        Self { shape, start, len, outer, run }
    }

    /// The flat ranges of elements `part` of the box.
    pub(crate) fn of(&self, part: Range<u64>) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        let mut next = part.start;
        std::iter::from_fn(move || {
            let (index, inside) = (next / self.run, next % self.run);
            let len = (self.run - inside).min(part.end - next);
            next += len;
            let start = self.start_of(index) + inside;
            (len > 0).then(|| start..start + len)
        })
    }

    /// Elements per run.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// The flat position of element `at` of the box.
    pub(crate) fn position(&self, at: u64) -> u64 {
        self.start_of(at / self.run) + at % self.run
    }

    /// The flat position at which a run starts.
    fn start_of(&self, mut index: u64) -> u64 {
        let (mut position, mut stride) = (0, 1);
        for (axis, (&dim, &start)) in self.shape.iter().zip(&self.start).enumerate().rev() {
            let mut at = start;
            if axis < self.outer {
                at += index % self.len[axis];
                index /= self.len[axis];
            }
            position += at * stride;
            stride *= dim;
        }
        position
    }
}

impl Tile {
    /// The whole tensor as one box.
    pub(crate) fn whole(shape: &[u64]) -> Self {
        Self { start: vec![0; shape.len()], len: shape.to_vec() }
    }

    /// A box of a tensor.
    pub(crate) fn new(start: &[u64], len: &[u64]) -> Self {
        Self { start: start.to_vec(), len: len.to_vec() }
    }

    /// The number of elements.
    pub(crate) fn elements(&self) -> u64 {
        self.len.iter().product()
    }

    /// The elements in parts of `step`.
    pub(crate) fn parts(&self, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let elements = self.elements();
        (0..elements.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(elements))
    }

    /// How many elements of the last axis are transposed at a time; in Fortran order they form one run.
    pub(crate) fn columns(&self, itemsize: u64) -> u64 {
        (MAX_PART / itemsize / self.column_elements()).max((LINE_BYTES / itemsize).max(1))
    }

    /// Elements per element of the last axis.
    pub(crate) fn column_elements(&self) -> u64 {
        self.elements() / self.len.last().copied().unwrap_or(1)
    }

    /// Transposes elements from C to Fortran order: those of the last axis from `first` on, as many as fit in `to`.
    pub(crate) fn reverse_axes(&self, from: &[u8], first: u64, to: &mut [u8], itemsize: u64) {
        match itemsize {
            1 => reverse::<[u8; 1]>(&self.len, bytemuck::cast_slice(from), first, bytemuck::cast_slice_mut(to)),
            2 => reverse::<[u8; 2]>(&self.len, bytemuck::cast_slice(from), first, bytemuck::cast_slice_mut(to)),
            4 => reverse::<[u8; 4]>(&self.len, bytemuck::cast_slice(from), first, bytemuck::cast_slice_mut(to)),
            8 => reverse::<[u8; 8]>(&self.len, bytemuck::cast_slice(from), first, bytemuck::cast_slice_mut(to)),
            _ => reverse::<[u8; 16]>(&self.len, bytemuck::cast_slice(from), first, bytemuck::cast_slice_mut(to)),
        }
    }
}

/// The size of a box of at most `most` bytes whose runs are about equally long in both orders. It grows along the last and the
/// first axes in turns, on the side with the shorter run. Runs of the output are whole pages, if possible.
pub(crate) fn balanced(shape: &[u64], itemsize: u64, most: u64) -> Vec<u64> {
    let most = (most / itemsize).max(1);
    let mut extents = vec![1; shape.len()];
    let mut volume = 1;
    loop {
        let open = |(axis, extent): (usize, &u64)| (*extent < shape[axis]).then_some(axis);
        let Some(first) = extents.iter().enumerate().find_map(open) else { break };
        let last = extents.iter().enumerate().rev().find_map(open).unwrap_or(first);
        let front: u64 = extents[..=first].iter().product();
        let back: u64 = extents[last..].iter().product();
        let axis = if front <= back * WRITE_TO_READ { first } else { last };
        let others = volume / extents[axis];
        // The last remaining axis takes all that is left; others double.
        let wanted = if first == last { shape[axis] } else { extents[axis] * 2 };
        let grown = wanted.min(shape[axis]).min(most / others);
        if grown == extents[axis] {
            break;
        }
        extents[axis] = grown;
        volume = others * grown;
    }
    if let Some(partial) = extents.iter().zip(shape).position(|(extent, dim)| extent < dim) {
        let step_bytes = extents[..partial].iter().product::<u64>() * itemsize;
        let steps = PAGE_BYTES >> step_bytes.trailing_zeros().min(PAGE_BYTES.trailing_zeros());
        if extents[partial] > steps {
            extents[partial] -= extents[partial] % steps;
        }
    }
    extents
}

/// Side of a square of elements transposed at a time; its lines stay in the L1 cache.
const SQUARE: usize = 16;

/// Reverses the axes of `from`, whose shape is `len`: takes elements of the last axis from `first` on, as many as fit in `to`.
fn reverse<T: Copy>(len: &[u64], from: &[T], first: u64, to: &mut [T]) {
    // Axes of length 1 do not matter, except the last one.
    let Some((&columns, others)) = len.split_last() else { return to.copy_from_slice(from) };
    let others: Vec<usize> = others.iter().filter(|&&len| len > 1).map(|&len| memory_len(len)).collect();
    let (columns, first) = (memory_len(columns), memory_len(first));
    let Some((&rows, middle)) = others.split_first() else { return to.copy_from_slice(&from[first..first + to.len()]) };
    let inner: usize = middle.iter().product();
    // The distance between rows in `from`, and between columns in `to`.
    let (from_stride, to_stride) = (inner * columns, rows * inner);
    let wanted = to.len() / to_stride;
    for index in 0..inner {
        // Where this position on the middle axes starts on both sides.
        let (mut rest, mut from_start, mut to_start) = (index, first, 0);
        let (mut stride, mut reversed) = (inner, 1);
        for &len in middle {
            stride /= len;
            let at = rest / stride;
            rest %= stride;
            from_start += at * stride * columns;
            to_start += at * reversed * rows;
            reversed *= len;
        }
        for row in (0..rows).step_by(SQUARE) {
            for column in (0..wanted).step_by(SQUARE) {
                let (high, wide) = (SQUARE.min(rows - row), SQUARE.min(wanted - column));
                for c in column..column + wide {
                    let target = &mut to[to_start + c * to_stride + row..][..high];
                    for (r, place) in target.iter_mut().enumerate() {
                        *place = from[from_start + (row + r) * from_stride + c];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::budget::Budget;
    use crate::types::dtype::Dtype;
    use proptest::prelude::*;

    fn resources(mib: u64) -> Resources {
        Resources { budget: Budget::mib(mib), threads: 2, heap_bytes: 0, needs_scratch: true, raw_itemsize: Some(4), in_flight: None }
    }

    proptest! {
        #[test]
        fn tiles_put_every_element_where_fortran_order_has_it(shape in prop::collection::vec(1u64..9, 1..6), most in 1u64..400, part in 1u64..50) {
            let spec = TensorSpec::new(Dtype::UInt16, shape.clone()).unwrap();
            let total = spec.elements();
            let mut plan = TilePlan::new(&spec, &resources(32), false).unwrap();
            plan.extents = balanced(&shape, 2, most);
            prop_assert!(plan.tile_bytes() <= most.max(2));
            let source: Vec<u8> = (0..total as u16).flat_map(u16::to_le_bytes).collect();
            let mut output = vec![0xff; source.len()];
            for tile in plan.tiles() {
                let parts = || tile.parts(part);
                let mut read = Vec::new();
                for run in parts().flat_map(|part| plan.in_source(&tile).of(part).collect::<Vec<_>>()) {
                    read.extend(&source[2 * run.start as usize..2 * run.end as usize]);
                }
                prop_assert_eq!(read.len() as u64, 2 * tile.elements());
                let mut turned = vec![0; read.len()];
                let columns = (part % 4 + 1) as usize;
                let column = 2 * tile.column_elements() as usize;
                for (i, turned) in turned.chunks_mut(columns * column).enumerate() {
                    tile.reverse_axes(&read, (i * columns) as u64, turned, 2);
                }
                let mut rest = &turned[..];
                for run in parts().flat_map(|part| plan.in_output(&tile).of(part).collect::<Vec<_>>()) {
                    let (now, later) = rest.split_at(2 * (run.end - run.start) as usize);
                    output[2 * run.start as usize..2 * run.end as usize].copy_from_slice(now);
                    rest = later;
                }
                prop_assert!(rest.is_empty());
                for (i, element) in turned.chunks(2).enumerate() {
                    prop_assert_eq!(u64::from(u16::from_le_bytes([element[0], element[1]])), plan.position(&tile, i as u64));
                }
            }
            let array = ndarray::Array::from_shape_vec(shape.iter().map(|&dim| dim as usize).collect::<Vec<_>>(), (0..total as u16).collect()).unwrap();
            let expected: Vec<u8> = array.t().iter().flat_map(|x| x.to_le_bytes()).collect();
            prop_assert_eq!(output, expected);
        }

        #[test]
        fn tiles_stay_within_the_budget(
            dims in prop::collection::vec(prop_oneof![1u64..4, 1u64..3000, 1u64..2_000_000], 1..4), mib in 13u64..3000, threads in 1usize..40, needs in any::<[bool; 2]>(), spare in any::<bool>()
        ) {
            let Ok(spec) = TensorSpec::new(Dtype::Float32, dims) else { return Ok(()) };
            let resources = Resources { threads, needs_scratch: needs[0], raw_itemsize: needs[1].then_some(8), ..resources(mib) };
            let Ok(plan) = TilePlan::new(&spec, &resources, spare) else { panic!("there is enough") };
            let MemoryShares { threads, window_bytes, fixed_bytes, .. } = plan.shares;
            prop_assert!(fixed_bytes + window_bytes / 32 * 33 <= mib << 20);
            prop_assert!(threads >= 1 && 2 * plan.tile_bytes() <= fixed_bytes);
            prop_assert!(window_bytes >= plan.most_part_bytes());
        }
    }

    #[test]
    fn runs_are_long_in_both_orders() {
        let run = |shape: &[u64]| {
            let spec = TensorSpec::new(Dtype::UInt8, shape.to_vec()).unwrap();
            let mut plan = TilePlan::new(&spec, &resources(64), false).unwrap();
            plan.extents = balanced(shape, 1, 1 << 20);
            let tile = plan.tiles().next().unwrap();
            (plan.in_source(&tile).run, plan.in_output(&tile).run)
        };
        assert_eq!(run(&[1 << 15, 1 << 15]), (512, 2048));
        assert_eq!(run(&[1 << 24, 64]), (1 << 20, 1 << 14));
        // It would be 3 and 5 elements if only the first or the last axis counted.
        let (read, write) = run(&[3, 1 << 22, 5]);
        assert!(read > 100_000 && write > 100_000 && write % 4096 == 0, "{read} {write}");
    }
}

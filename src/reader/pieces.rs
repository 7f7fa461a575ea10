//! A tensor stored as one or more boxes: maps each element to bytes of a file.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use super::checksums::{Region, RegionChecksums};
use super::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::error::Result;
use crate::format::bundle::Extent;
use crate::storage::shards::ShardSet;
use crate::types::byte_order::ByteOrder;
use crate::types::size::memory_len;
use crate::types::spec::{TensorSpec, even_part};

/// Runs of at least this many bytes are read in place; shorter runs are read together and then copied to their places.
const DIRECT_RUN_BYTES: u64 = 128 << 10;

/// A box of a tensor, stored on its own in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PieceBox {
    /// The first index along each axis.
    pub(crate) start: Vec<u64>,
    /// The length along each axis.
    pub(crate) shape: Vec<u64>,
}

impl PieceBox {
    /// The box that covers the whole tensor.
    pub(crate) fn whole(shape: &[u64]) -> Self {
        Self { start: vec![0; shape.len()], shape: shape.to_vec() }
    }

    /// The box that a slice selects in a tensor of `shape`.
    ///
    /// # Errors
    /// Returns what is wrong with the slice.
    pub(crate) fn of_extents(extents: &[Extent], shape: &[u64]) -> Result<Self, String> {
        if extents.len() != shape.len() {
            return Err(format!("a piece has {} axes, the tensor {}", extents.len(), shape.len()));
        }
        let mut extent = Self { start: Vec::with_capacity(shape.len()), shape: Vec::with_capacity(shape.len()) };
        for (axis, (part, &dim)) in extents.iter().zip(shape).enumerate() {
            let inside = match *part {
                Extent { start: 0, length: None } => Some((0, dim)),
                Extent { start, length: Some(length) } => u64::try_from(start)
                    .ok()
                    .zip(u64::try_from(length).ok())
                    .filter(|&(start, length)| length > 0 && start.checked_add(length).is_some_and(|end| end <= dim)),
                Extent { length: None, .. } => None,
            };
            let (start, length) = inside.ok_or_else(|| {
                let length = part.length.map_or("all".to_owned(), |length| length.to_string());
                format!("a piece starts at {} with length {length} on axis {axis}, which has length {dim}", part.start)
            })?;
            extent.start.push(start);
            extent.shape.push(length);
        }
        Ok(extent)
    }

    pub(crate) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of elements of the box before `element` of the tensor, both in C order.
    ///
    /// The box keeps the tensor's order, so the elements that any flat range of the tensor shares with the box are a range of the
    /// box, too.
    fn rank(&self, tensor_shape: &[u64], element: u64) -> u64 {
        let (mut tensor_inner, mut inner): (u64, u64) = (tensor_shape.iter().product(), self.elements());
        if element >= tensor_inner {
            return inner;
        }
        let mut rest = element;
        let mut rank = 0;
        for ((&start, &len), &dim) in self.start.iter().zip(&self.shape).zip(tensor_shape) {
            tensor_inner /= dim;
            inner /= len;
            let coordinate = rest / tensor_inner;
            rest %= tensor_inner;
            if coordinate < start {
                return rank;
            }
            if coordinate >= start + len {
                return rank + len * inner;
            }
            rank += (coordinate - start) * inner;
        }
        rank
    }

    /// The flat position in the tensor of element `local` of the box.
    fn position(&self, tensor_shape: &[u64], local: u64) -> u64 {
        let (mut position, mut stride, mut rest) = (0, 1, local);
        for ((&start, &len), &dim) in self.start.iter().zip(&self.shape).zip(tensor_shape).rev() {
            position += (start + rest % len) * stride;
            rest /= len;
            stride *= dim;
        }
        position
    }

    /// Number of elements of the box that are contiguous in the tensor as well.
    fn run_elements(&self, tensor_shape: &[u64]) -> u64 {
        let mut run = 1;
        for (&len, &dim) in self.shape.iter().zip(tensor_shape).rev() {
            run *= len;
            if len != dim {
                break;
            }
        }
        run
    }
}

/// A Mersenne prime; the sum of two remainders fits a `u64`.
const PRIME: u64 = (1 << 61) - 1;

#[expect(clippy::cast_possible_truncation, reason = "a remainder of a 61-bit number")]
fn multiply(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

/// Checks that boxes cover every element of a shape exactly once. Boxes must lie inside the shape and not be empty.
///
/// As a polynomial, a box is the product over the axes of `x[start] - x[end]`; the boxes tile the tensor if and only if their sum
/// is the polynomial of the whole. Evaluated at random points modulo the prime 2⁶¹ - 1, a difference goes unnoticed with
/// probability rank / 2⁶¹ (Schwartz and Zippel). The time is linear in the number of boxes and none is kept; comparing pairs would
/// take hours for a hostile index.
#[derive(Debug, Default)]
pub(crate) struct Tiling {
    points: RandomState,
    sum: u64,
}

impl Tiling {
    pub(crate) fn add(&mut self, piece: &PieceBox) {
        self.sum = (self.sum + self.product(piece)) % PRIME;
    }

    pub(crate) fn is_exact(&self, shape: &[u64]) -> bool {
        self.sum == self.product(&PieceBox::whole(shape))
    }

    fn product(&self, piece: &PieceBox) -> u64 {
        let point = |axis: usize, at: u64| self.points.hash_one((axis, at)) % PRIME;
        piece.start.iter().zip(&piece.shape).enumerate().fold(1, |product, (axis, (&start, &len))| {
            let factor = point(axis, start) + PRIME - point(axis, start + len);
            multiply(product, factor % PRIME)
        })
    }
}

/// A box and the place of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) extent: PieceBox,
    pub(crate) shard: u32,
    /// Offset in the shard.
    pub(crate) offset: u64,
}

/// Where pieces are read from.
#[derive(Debug)]
enum Parts<'a> {
    /// Raw bytes in shards.
    Shards(&'a ShardSet),
    /// One reader for each piece, numbered by the piece's shard, with the range of its regions among all regions.
    Readers(Vec<(Box<dyn TensorReader + 'a>, Range<usize>)>),
}

/// Reads a tensor from its pieces.
#[derive(Debug)]
pub(crate) struct PieceReader<'a> {
    parts: Parts<'a>,
    spec: TensorSpec,
    order: ByteOrder,
    /// Sorted by first element.
    pieces: Vec<PlacedPiece>,
    regions: Vec<Region>,
    /// Whether every run of every piece is read in place.
    in_place: bool,
}

#[derive(Debug)]
struct PlacedPiece {
    piece: Piece,
    region: usize,
    /// Flat position of the first element.
    first: u64,
    /// Flat position after the last element of this piece and of all before it.
    reach: u64,
}

impl<'a> PieceReader<'a> {
    /// A reader over `pieces`, which tile the tensor; `regions[i]` describes the bytes of `pieces[i]`.
    pub(crate) fn new(shards: &'a ShardSet, spec: TensorSpec, order: ByteOrder, pieces: Vec<Piece>, regions: Vec<Region>) -> Self {
        Self::placed(Parts::Shards(shards), spec, order, pieces, regions)
    }

    /// A reader over boxes that tile the tensor, each with its own little-endian reader.
    pub(crate) fn of_readers(spec: TensorSpec, parts: Vec<(PieceBox, Box<dyn TensorReader + 'a>)>) -> Self {
        let (mut pieces, mut readers, mut regions) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, (extent, reader)) in (0..).zip(parts) {
            pieces.push(Piece { extent, shard, offset: 0 });
            let own_regions = regions.len()..regions.len() + reader.regions().len();
            regions.extend_from_slice(reader.regions());
            readers.push((reader, own_regions));
        }
        Self::placed(Parts::Readers(readers), spec, ByteOrder::Little, pieces, regions)
    }

    fn placed(parts: Parts<'a>, spec: TensorSpec, order: ByteOrder, pieces: Vec<Piece>, regions: Vec<Region>) -> Self {
        let shape = spec.shape();
        let mut placed: Vec<PlacedPiece> = pieces
            .into_iter()
            .enumerate()
            .filter(|(_, piece)| piece.extent.elements() > 0)
            .map(|(region, piece)| {
                let first = piece.extent.position(shape, 0);
                let reach = piece.extent.position(shape, piece.extent.elements() - 1) + 1;
                PlacedPiece { piece, region, first, reach }
            })
            .collect();
        placed.sort_by_key(|piece| piece.first);
        let mut reach = 0;
        for piece in &mut placed {
            reach = reach.max(piece.reach);
            piece.reach = reach;
        }
        let in_place = placed.iter().all(|placed| {
            let run = placed.piece.extent.run_elements(shape);
            run == placed.piece.extent.elements() || run * spec.itemsize() >= DIRECT_RUN_BYTES
        });
        let fill = match &parts {
            Parts::Shards(_) => true,
            Parts::Readers(readers) => readers.iter().all(|(reader, _)| reader.fills_by_system_calls()),
        };
        Self { parts, spec, order, pieces: placed, regions, in_place: in_place && fill }
    }

    /// Stored places of the parts of `elements` that lie in contiguous pieces.
    fn stored(&self, elements: Range<u64>) -> impl Iterator<Item = (u32, Range<u64>)> + '_ {
        let (shape, itemsize) = (self.spec.shape(), self.spec.itemsize());
        let from = self.pieces.partition_point(|piece| piece.reach <= elements.start);
        let near = self.pieces[from..].iter().take_while(move |piece| piece.first < elements.end);
        near.filter(|placed| placed.piece.extent.run_elements(shape) == placed.piece.extent.elements()).map(move |placed| {
            let rank = |element| placed.piece.offset + placed.piece.extent.rank(shape, element) * itemsize;
            (placed.piece.shard, rank(elements.start)..rank(elements.end))
        })
    }

    /// The reader of a piece, if pieces have readers.
    fn part(&self, shard: u32) -> Option<&(Box<dyn TensorReader + 'a>, Range<usize>)> {
        match &self.parts {
            Parts::Readers(readers) => readers.get(shard as usize),
            Parts::Shards(_) => None,
        }
    }

    /// Reads elements `local` of a piece from storage into `buf` in chunks, and records the checksum of each.
    fn read_piece(&self, placed: &PlacedPiece, local: u64, buf: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let shards = match &self.parts {
            Parts::Shards(shards) => shards,
            Parts::Readers(readers) => {
                let (reader, regions) = &readers[placed.piece.shard as usize];
                let elements = local..local + buf.len() as u64 / self.spec.itemsize();
                return context.with_regions(regions.clone(), |context| reader.read(elements, buf, context));
            }
        };
        let mut at = local * self.spec.itemsize();
        let chunk = even_part(buf.len(), context.chunk_bytes());
        for chunk in buf.chunks_mut(chunk) {
            context.check_cancelled()?;
            shards.read(placed.piece.shard, placed.piece.offset + at, chunk, &context.calls)?;
            context.record(placed.region, at, chunk);
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Writes elements `local` of a piece to their places in `out`, which starts at element `origin` of the tensor.
    fn read_part(&self, placed: &PlacedPiece, local: Range<u64>, origin: u64, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let (shape, itemsize) = (self.spec.shape(), self.spec.itemsize());
        let extent = &placed.piece.extent;
        let run = extent.run_elements(shape);
        // Splits `local` into runs that are contiguous in the tensor, as (first element, bytes of `out`).
        let runs = |local: Range<u64>| {
            let mut next = local.start;
            std::iter::from_fn(move || {
                let end = ((next / run + 1) * run).min(local.end);
                let start = std::mem::replace(&mut next, end);
                (start < end).then(|| {
                    let to = (extent.position(shape, start) - origin) * itemsize;
                    (start, memory_len(to)..memory_len(to + (end - start) * itemsize))
                })
            })
        };
        if run * itemsize >= DIRECT_RUN_BYTES || local.start / run == (local.end - 1) / run {
            for (start, range) in runs(local) {
                self.read_piece(placed, start, &mut out[range], context)?;
            }
            return Ok(());
        }
        let mut scratch = context.take_scratch();
        let step = (scratch.len() as u64 / itemsize).max(1);
        let mut next = local.start;
        while next < local.end {
            let end = (next + step).min(local.end);
            let buf = &mut scratch[..memory_len((end - next) * itemsize)];
            self.read_piece(placed, next, buf, context)?;
            for (start, range) in runs(next..end) {
                let from = memory_len((start - next) * itemsize);
                let len = range.len();
                out[range].copy_from_slice(&buf[from..from + len]);
            }
            next = end;
        }
        context.return_scratch(scratch);
        Ok(())
    }
}

impl TensorReader for PieceReader<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let shape = self.spec.shape();
        let from = self.pieces.partition_point(|piece| piece.reach <= elements.start);
        for placed in self.pieces[from..].iter().take_while(|piece| piece.first < elements.end) {
            let local = placed.piece.extent.rank(shape, elements.start)..placed.piece.extent.rank(shape, elements.end);
            if !local.is_empty() {
                self.read_part(placed, local, elements.start, out, context)?;
            }
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn is_partly_covered(&self) -> bool {
        let Parts::Readers(readers) = &self.parts else { return false };
        !self.regions.is_empty() && readers.iter().any(|(reader, regions)| regions.is_empty() || reader.is_partly_covered())
    }

    fn has_stored_runs(&self) -> bool {
        true
    }

    fn stored_run(&self, element: u64) -> Result<Option<StoredRun>> {
        let at = self.pieces.partition_point(|piece| piece.reach <= element);
        let Some(placed) = self.pieces.get(at) else { return Ok(None) };
        let elements = placed.first..placed.first + placed.piece.extent.elements();
        let lies_side_by_side = placed.piece.extent.run_elements(self.spec.shape()) == placed.piece.extent.elements();
        if !lies_side_by_side || !elements.contains(&element) {
            return Ok(None);
        }
        let Parts::Shards(shards) = &self.parts else { return Ok(None) };
        let Some(file) = shards.open(placed.piece.shard)?.local_file()? else { return Ok(None) };
        let path = Arc::clone(&self.regions[placed.region].path);
        Ok(Some(StoredRun { elements, file, path, offset: placed.piece.offset, region: Some(placed.region) }))
    }

    fn prefetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        let itemsize = self.spec.itemsize();
        self.stored(elements).for_each(|(shard, range)| match &self.parts {
            Parts::Shards(shards) => {
                if let Ok(blob) = shards.open(shard) {
                    blob.prefetch(&range, &context.calls);
                }
            }
            Parts::Readers(_) => {
                self.part(shard).iter().for_each(|(reader, _)| reader.prefetch(range.start / itemsize..range.end / itemsize, context));
            }
        });
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        let itemsize = self.spec.itemsize();
        self.stored(elements).for_each(|(shard, range)| match &self.parts {
            Parts::Shards(shards) => {
                if let Ok(blob) = shards.open(shard) {
                    blob.evict(&range, &context.calls);
                }
            }
            Parts::Readers(_) => {
                self.part(shard).iter().for_each(|(reader, _)| reader.evict(range.start / itemsize..range.end / itemsize, context));
            }
        });
    }

    fn check_unchanged(&self) -> Result<()> {
        match &self.parts {
            Parts::Shards(shards) => shards.check_unchanged(self.pieces.iter().map(|placed| placed.piece.shard)),
            Parts::Readers(readers) => readers.iter().try_for_each(|(reader, _)| reader.check_unchanged()),
        }
    }

    fn fills_by_system_calls(&self) -> bool {
        self.in_place
    }

    fn heap_bytes(&self) -> u64 {
        let axes = 2 * self.spec.shape().len() * size_of::<u64>();
        let piece = size_of::<PlacedPiece>() + size_of::<Region>() + axes;
        let readers = match &self.parts {
            Parts::Shards(_) => 0,
            Parts::Readers(readers) => readers.iter().map(|(reader, _)| reader.heap_bytes()).sum(),
        };
        readers + (self.pieces.len() * piece) as u64 + RegionChecksums::heap_bytes(self.regions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts `shape` into boxes at random places along random axes.
    fn cut(shape: &[u64], choices: &[(usize, u64)]) -> Vec<PieceBox> {
        let mut boxes = vec![PieceBox::whole(shape)];
        for &(pick, at) in choices {
            let target = boxes.swap_remove(pick % boxes.len());
            let axis = (pick / 7) % shape.len();
            let len = target.shape[axis];
            if len < 2 {
                boxes.push(target);
                continue;
            }
            let at = 1 + at % (len - 1);
            let (mut low, mut high) = (target.clone(), target);
            low.shape[axis] = at;
            high.start[axis] += at;
            high.shape[axis] -= at;
            boxes.extend([low, high]);
        }
        boxes
    }

    fn tile_exactly<'a>(shape: &[u64], boxes: impl IntoIterator<Item = &'a PieceBox>) -> bool {
        let mut tiling = Tiling::default();
        boxes.into_iter().for_each(|piece| tiling.add(piece));
        tiling.is_exact(shape)
    }

    fn shapes() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(1u64..7, 1..5)
    }

    proptest! {
        #[test]
        fn cutting_always_tiles(shape in shapes(), choices in prop::collection::vec((any::<usize>(), any::<u64>()), 0..12)) {
            let boxes = cut(&shape, &choices);
            prop_assert!(tile_exactly(&shape, &boxes));
            if boxes.len() > 1 {
                prop_assert!(!tile_exactly(&shape, &boxes[1..]), "a gap");
                let twice: Vec<_> = boxes.iter().chain(&boxes[..1]).collect();
                prop_assert!(!tile_exactly(&shape, twice), "an overlap");
                let mut moved = boxes.clone();
                moved[0] = moved[1].clone();
                prop_assert!(!tile_exactly(&shape, &moved), "a gap and an overlap");
            }
        }

        #[test]
        fn rank_counts_the_elements_before(shape in shapes(), choices in prop::collection::vec((any::<usize>(), any::<u64>()), 0..8)) {
            let total: u64 = shape.iter().product();
            for piece in cut(&shape, &choices) {
                let positions: Vec<u64> = (0..piece.elements()).map(|local| piece.position(&shape, local)).collect();
                prop_assert!(positions.is_sorted_by(|a, b| a < b));
                for element in 0..=total {
                    let before = positions.iter().filter(|&&p| p < element).count() as u64;
                    prop_assert_eq!(piece.rank(&shape, element), before);
                }
                let run = piece.run_elements(&shape);
                for (local, &position) in positions.iter().enumerate() {
                    let local = local as u64;
                    prop_assert_eq!(position, positions[(local / run * run) as usize] + local % run);
                }
            }
        }
    }

    #[test]
    fn a_scalar_is_one_box_of_one_element() {
        let whole = PieceBox::whole(&[]);
        assert_eq!((whole.elements(), whole.rank(&[], 0), whole.rank(&[], 1), whole.position(&[], 0)), (1, 0, 1, 0));
        assert!(tile_exactly(&[], [&whole]));
    }
}

//! Finds the chunks of a dataset through its index, of any kind (IV.A.2.i, VII).

use super::btree_v1::{self, Indexed};
use super::chunk_entries::{Entries, Grid, StoredChunk};
use super::cursor::Cursor;
use super::dataspace::Dataspace;
use super::failure::{Failure, Result};
use super::image::Image;
use super::layout::{ChunkedLayout, Index};
use super::{btree_v2, extensible_array, fixed_array};

const WHAT: &str = "chunk index";
/// Limit for chunks that are stored without an index.
const MOST_IMPLICIT: u64 = 1 << 24;

/// Calls `found` with the grid position and the place of every chunk that was written.
pub(crate) fn for_each(
    image: &Image,
    layout: &ChunkedLayout,
    space: &Dataspace,
    mut found: impl FnMut(&[u64], StoredChunk) -> Result<()>,
) -> Result<()> {
    let Some(address) = layout.address.filter(|_| !space.shape.contains(&0)) else { return Ok(()) };
    let at = image.place(address);
    let broken = |detail: String| Failure::broken(at, WHAT, detail);
    if layout.chunk.len() != space.shape.len() {
        return Err(broken(format!("chunks of {} dimensions, the dataset has {}", layout.chunk.len(), space.shape.len())));
    }
    let chunk_bytes = layout.chunk.iter().try_fold(layout.itemsize, |bytes, &len| bytes.checked_mul(len));
    let chunk_bytes = chunk_bytes.ok_or_else(|| broken(format!("chunks of shape {:?} have 2^64 bytes or more", layout.chunk)))?;
    let grid = Grid::new(layout, space);
    let mut found = |place: &[u64], chunk: StoredChunk| {
        // Whether a chunk extends beyond the dataset.
        let is_edge = || (0..place.len()).any(|axis| (space.shape[axis] - place[axis] * layout.chunk[axis]) < layout.chunk[axis]);
        let is_plain = layout.keeps_edges_plain && is_edge();
        found(place, StoredChunk { mask: if is_plain { u32::MAX } else { chunk.mask }, ..chunk })
    };
    let numbering = || grid.numbering().ok_or_else(|| broken(format!("an array index for a dataset that may grow to {:?}", space.most)));
    match layout.index {
        Index::Tree1 => tree_1(image, address, layout, &grid, chunk_bytes, found),
        Index::Tree2 => tree_2(image, address, &grid, chunk_bytes, found),
        Index::Single(packed) => {
            let (nbytes, mask) = packed.unwrap_or((chunk_bytes, 0));
            found(&vec![0; grid.counts.len()], StoredChunk { at, nbytes, mask })
        }
        Index::Implicit => {
            let numbering = numbering()?;
            let most = space.most.iter().zip(&layout.chunk).map(|(most, chunk)| most.unwrap_or(0).div_ceil(*chunk));
            let count = most.fold(1u64, u64::saturating_mul);
            let have = image.len().saturating_sub(at);
            if count > MOST_IMPLICIT || count.saturating_mul(chunk_bytes) > have {
                return Err(broken(format!("{count} chunks of {chunk_bytes} bytes, the file has {have} from here on")));
            }
            for number in 0..count {
                if let Some(place) = numbering.place(number) {
                    found(&place, StoredChunk { at: at + number * chunk_bytes, nbytes: chunk_bytes, mask: 0 })?;
                }
            }
            Ok(())
        }
        Index::FixedArray => {
            let numbering = numbering()?;
            fixed_array::for_each(image, address, chunk_bytes, |number, chunk| {
                numbering.place(number).map_or(Ok(()), |place| found(&place, chunk))
            })
        }
        Index::ExtensibleArray => {
            let numbering = numbering()?;
            extensible_array::for_each(image, address, chunk_bytes, |number, chunk| {
                numbering.place(number).map_or(Ok(()), |place| found(&place, chunk))
            })
        }
    }
}

/// A tree whose keys are a chunk's length, its skipped filters, and its corner in the dataset (III.A.1).
fn tree_1(
    image: &Image,
    address: u64,
    layout: &ChunkedLayout,
    grid: &Grid,
    chunk_bytes: u64,
    mut found: impl FnMut(&[u64], StoredChunk) -> Result<()>,
) -> Result<()> {
    let rank = layout.chunk.len();
    btree_v1::for_each(image, address, Indexed::Chunks, 8 + 8 * (rank + 1), |mut key, address| {
        let at_key = key.clone();
        let (nbytes, mask) = (u64::from(key.u32()?), key.u32()?);
        let corner = (0..rank).map(|_| key.u64()).collect::<Result<Vec<_>>>()?;
        let is_corner = corner.iter().zip(&layout.chunk).all(|(at, len)| at.is_multiple_of(*len));
        let place: Vec<u64> = corner.iter().zip(&layout.chunk).map(|(at, len)| at / len).collect();
        if !is_corner || !is_inside(&place, grid) {
            return Err(at_key.named(WHAT).failure(format!("a chunk at {corner:?}, which is not a corner of the grid")));
        }
        // A 32-bit length implies chunks of less than 4 GiB.
        if chunk_bytes > u64::from(u32::MAX) {
            return Err(at_key.named(WHAT).failure(format!("a chunk of {chunk_bytes} bytes")));
        }
        found(&place, StoredChunk { at: image.place(address), nbytes, mask })
    })
}

/// A tree whose records are an entry and a grid position (III.A.2, types 10 and 11).
fn tree_2(
    image: &Image,
    address: u64,
    grid: &Grid,
    chunk_bytes: u64,
    mut found: impl FnMut(&[u64], StoredChunk) -> Result<()>,
) -> Result<()> {
    let rank = grid.counts.len();
    btree_v2::for_each(image, address, &[btree_v2::CHUNKS, btree_v2::FILTERED_CHUNKS], |kind, mut record: Cursor<'_>| {
        let entries = if kind == btree_v2::FILTERED_CHUNKS {
            let around = usize::from(record.sizes().address) + 4 + 8 * rank;
            let width = record.left().checked_sub(around).filter(|width| (1..=8).contains(width));
            let width = width.ok_or_else(|| record.failure(format!("a record of {} bytes", record.left())))?;
            Entries { chunk_bytes, length_width: Some(width) }
        } else {
            Entries { chunk_bytes, length_width: None }
        };
        let chunk = entries.parse(image, &mut record)?;
        let place = (0..rank).map(|_| record.u64()).collect::<Result<Vec<_>>>()?;
        if !is_inside(&place, grid) {
            return Err(record.failure(format!("a chunk at {place:?} in a grid of {:?}", grid.counts)));
        }
        chunk.map_or(Ok(()), |chunk| found(&place, chunk))
    })
}

fn is_inside(place: &[u64], grid: &Grid) -> bool {
    place.iter().zip(&grid.counts).all(|(at, count)| at < count)
}

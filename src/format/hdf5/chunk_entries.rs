//! Shared by all chunk indexes: entries for chunks, and the grid that numbers them.

use super::cursor::Cursor;
use super::dataspace::Dataspace;
use super::failure::Result;
use super::image::Image;
use super::layout::ChunkedLayout;

/// The place of a stored chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredChunk {
    /// Offset of its bytes in the storage.
    pub(crate) at: u64,
    pub(crate) nbytes: u64,
    /// Bit mask of filters that were skipped.
    pub(crate) mask: u32,
}

/// The entries of an index: an address, and with filters a length and a mask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entries {
    /// Bytes of a chunk without filters.
    pub(crate) chunk_bytes: u64,
    /// The width of the length; `None` without filters.
    pub(crate) length_width: Option<usize>,
}

impl Entries {
    /// The entries of an array (VII.C and VII.D), whose header has the client and the length of an entry.
    pub(crate) fn of_array(client: u8, entry_len: u8, chunk_bytes: u64, place: &Cursor<'_>) -> Result<Self> {
        let entry_len = usize::from(entry_len);
        let address_len = usize::from(place.sizes().address);
        let length_width = match client {
            0 if entry_len == address_len => None,
            1 if (1..=8).contains(&entry_len.saturating_sub(address_len + 4)) => Some(entry_len - address_len - 4),
            client => return Err(place.failure(format!("entries of {entry_len} bytes for client {client}"))),
        };
        Ok(Self { chunk_bytes, length_width })
    }

    /// Bytes of an entry.
    pub(crate) fn nbytes(self, image: &Image) -> u64 {
        u64::from(image.sizes().address) + self.length_width.map_or(0, |width| width as u64 + 4)
    }

    /// Reads an entry; `None` for a chunk that was never written.
    pub(crate) fn parse(self, image: &Image, cursor: &mut Cursor<'_>) -> Result<Option<StoredChunk>> {
        let address = cursor.address()?;
        let (nbytes, mask) = match self.length_width {
            Some(width) => (cursor.uint(width)?, cursor.u32()?),
            None => (self.chunk_bytes, 0),
        };
        Ok(address.map(|address| StoredChunk { at: image.place(address), nbytes, mask }))
    }
}

/// The grid of a dataset's chunks.
#[derive(Debug)]
pub(crate) struct Grid {
    /// Number of chunks along each axis.
    pub(crate) counts: Vec<u64>,
    /// The same at the dataset's limits.
    most: Vec<Option<u64>>,
}

impl Grid {
    pub(crate) fn new(layout: &ChunkedLayout, space: &Dataspace) -> Self {
        let counts = space.shape.iter().zip(&layout.chunk).map(|(len, chunk)| len.div_ceil(*chunk)).collect();
        let most = space.most.iter().zip(&layout.chunk).map(|(most, chunk)| most.map(|most| most.div_ceil(*chunk))).collect();
        Self { counts, most }
    }

    /// How arrays number chunks: in C order of the largest grid, with an unlimited axis moved first. `None` for two unlimited
    /// axes, and for a grid of 2^64 chunks or more.
    pub(crate) fn numbering(&self) -> Option<Numbering<'_>> {
        let mut axes: Vec<usize> = (0..self.most.len()).collect();
        axes.sort_by_key(|&axis| self.most[axis].is_some());
        let mut steps = vec![1u64; axes.len()];
        for at in (1..axes.len()).rev() {
            steps[at - 1] = steps[at].checked_mul(self.most[axes[at]]?)?;
        }
        Some(Numbering { grid: self, axes, steps })
    }
}

/// Maps chunk numbers of an array to the grid.
#[derive(Debug)]
pub(crate) struct Numbering<'a> {
    grid: &'a Grid,
    /// Axes, the slowest first.
    axes: Vec<usize>,
    /// Distance in numbers between neighbours along each axis.
    steps: Vec<u64>,
}

impl Numbering<'_> {
    /// The grid position of a chunk number; `None` if it lies outside the dataset.
    pub(crate) fn place(&self, mut number: u64) -> Option<Vec<u64>> {
        let mut place = vec![0; self.axes.len()];
        for (&axis, &step) in self.axes.iter().zip(&self.steps) {
            place[axis] = number.checked_div(step)?;
            number %= step;
        }
        place.iter().zip(&self.grid.counts).all(|(at, count)| at < count).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::layout::Index;

    fn grid(shape: &[u64], most: &[Option<u64>], chunk: &[u64]) -> Grid {
        let layout =
            ChunkedLayout { chunk: chunk.to_vec(), itemsize: 1, index: Index::FixedArray, address: None, keeps_edges_plain: false };
        Grid::new(&layout, &Dataspace { shape: shape.to_vec(), most: most.to_vec(), is_null: false })
    }

    #[test]
    fn numbers_count_in_the_largest_grid() {
        let grid = grid(&[3, 5], &[Some(4), Some(9)], &[2, 2]);
        let numbering = grid.numbering().unwrap();
        assert_eq!(numbering.place(0), Some(vec![0, 0]));
        assert_eq!(numbering.place(2), Some(vec![0, 2]));
        assert_eq!(numbering.place(3), None, "not reached yet");
        assert_eq!(numbering.place(6), Some(vec![1, 1]));
        assert_eq!(numbering.place(u64::MAX), None);
    }

    #[test]
    fn an_axis_without_a_limit_changes_slowest() {
        let first = grid(&[4, 6, 2], &[Some(4), None, Some(2)], &[2, 3, 1]);
        let numbering = first.numbering().unwrap();
        assert_eq!(numbering.place(1), Some(vec![0, 0, 1]));
        assert_eq!(numbering.place(2), Some(vec![1, 0, 0]));
        assert_eq!(numbering.place(4), Some(vec![0, 1, 0]));
        assert!(grid(&[1, 1], &[None, None], &[1, 1]).numbering().is_none(), "two such axes");
        assert_eq!(grid(&[0, 1], &[Some(0), Some(0)], &[1, 1]).numbering().unwrap().place(0), None, "an empty dataset");
    }
}

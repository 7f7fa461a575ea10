//! Data layouts (IV.A.2.i): where and how the elements of a dataset are stored.

use super::cursor::Cursor;
use super::failure::Result;

/// `H5S_MAX_RANK` of the library, plus one for the bytes of an element.
const MOST_DIMENSIONS: usize = 33;

/// The storage layout of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In the object header.
    Compact(Vec<u8>),
    /// In one run; without an address, not written yet. Old messages omit the length.
    Contiguous {
        address: Option<u64>,
        nbytes: Option<u64>,
    },
    Chunked(ChunkedLayout),
    /// Composed from other datasets.
    Virtual,
}

/// The chunked layout of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkedLayout {
    /// The shape of a chunk.
    pub(crate) chunk: Vec<u64>,
    /// Bytes of an element.
    pub(crate) itemsize: u64,
    pub(crate) index: Index,
    /// Address of the index, or of the only chunk.
    pub(crate) address: Option<u64>,
    /// Chunks that extend beyond the dataset are stored without filters.
    pub(crate) keeps_edges_plain: bool,
}

/// The kind of chunk index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Index {
    /// A B-tree of version 1.
    Tree1,
    /// A single chunk. With filters, its length and the skipped filters.
    Single(Option<(u64, u32)>),
    /// All chunks in one run, without an index.
    Implicit,
    FixedArray,
    ExtensibleArray,
    /// A B-tree of version 2.
    Tree2,
}

const COMPACT: u8 = 0;
const CONTIGUOUS: u8 = 1;
const CHUNKED: u8 = 2;
const VIRTUAL: u8 = 3;

impl Layout {
    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self> {
        let version = cursor.version(1..=5)?;
        if version < 3 {
            return old(&mut cursor);
        }
        match cursor.u8()? {
            COMPACT => {
                let len = usize::from(cursor.u16()?);
                Ok(Self::Compact(cursor.take(len)?.to_vec()))
            }
            CONTIGUOUS => Ok(Self::Contiguous { address: cursor.address()?, nbytes: Some(cursor.length()?) }),
            CHUNKED if version == 3 => {
                let rank = rank(&mut cursor)?;
                let address = cursor.address()?;
                chunked(&mut cursor, rank, 4, |_| Ok((Index::Tree1, address, false)))
            }
            CHUNKED => new(&mut cursor),
            VIRTUAL => Ok(Self::Virtual),
            class => Err(cursor.failure(format!("class is {class}, expected 0 to 3"))),
        }
    }
}

/// Versions 1 and 2.
fn old(cursor: &mut Cursor<'_>) -> Result<Layout> {
    let rank = usize::from(cursor.u8()?);
    if rank > MOST_DIMENSIONS {
        return Err(cursor.failure(format!("{rank} dimensions, expected at most {MOST_DIMENSIONS}")));
    }
    let class = cursor.u8()?;
    cursor.skip(5)?;
    match class {
        COMPACT => {
            cursor.skip(4 * rank)?;
            let len = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
            Ok(Layout::Compact(cursor.take(len)?.to_vec()))
        }
        // The lengths of axes follow; the dataspace has them, too.
        CONTIGUOUS => Ok(Layout::Contiguous { address: cursor.address()?, nbytes: None }),
        CHUNKED => {
            let address = cursor.address()?;
            chunked(cursor, rank, 4, |_| Ok((Index::Tree1, address, false)))
        }
        class => Err(cursor.failure(format!("class is {class}, expected 0 to 2"))),
    }
}

/// Chunked layout of versions 4 and 5, which differ only in the index.
fn new(cursor: &mut Cursor<'_>) -> Result<Layout> {
    const PLAIN_EDGES: u8 = 1;
    const SINGLE_IS_FILTERED: u8 = 2;
    let flags = cursor.u8()?;
    let rank = rank(cursor)?;
    let width = usize::from(cursor.u8()?);
    chunked(cursor, rank, width, |cursor| {
        let index = match cursor.u8()? {
            1 if flags & SINGLE_IS_FILTERED != 0 => Index::Single(Some((cursor.length()?, cursor.u32()?))),
            1 => Index::Single(None),
            2 => Index::Implicit,
            // The next three have parameters that the header of the index repeats.
            3 => {
                cursor.skip(1)?;
                Index::FixedArray
            }
            4 => {
                cursor.skip(5)?;
                Index::ExtensibleArray
            }
            5 => {
                cursor.skip(6)?;
                Index::Tree2
            }
            index => return Err(cursor.failure(format!("the chunk index is of type {index}, expected 1 to 5"))),
        };
        Ok((index, cursor.address()?, flags & PLAIN_EDGES != 0))
    })
}

fn rank(cursor: &mut Cursor<'_>) -> Result<usize> {
    let rank = usize::from(cursor.u8()?);
    if rank > MOST_DIMENSIONS {
        return Err(cursor.failure(format!("{rank} dimensions, expected at most {MOST_DIMENSIONS}")));
    }
    Ok(rank)
}

/// Reads the shape of a chunk, whose last length is the bytes of an element, and calls `index` for the rest.
fn chunked(
    cursor: &mut Cursor<'_>,
    rank: usize,
    width: usize,
    index: impl FnOnce(&mut Cursor<'_>) -> Result<(Index, Option<u64>, bool)>,
) -> Result<Layout> {
    let place = cursor.clone();
    let mut chunk = (0..rank).map(|_| cursor.uint(width)).collect::<Result<Vec<_>>>()?;
    if chunk.len() < 2 || chunk.contains(&0) {
        return Err(place.failure(format!("chunks of shape {chunk:?}, where the last is the bytes of an element")));
    }
    let itemsize = chunk.pop().unwrap_or(0);
    let (index, address, keeps_edges_plain) = index(cursor)?;
    Ok(Layout::Chunked(ChunkedLayout { chunk, itemsize, index, address, keeps_edges_plain }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    fn parsed(bytes: &[u8]) -> Result<Layout> {
        Layout::parse(Cursor::new(bytes, 0, Sizes { address: 4, length: 4 }, "layout"))
    }

    const AT_9: [u8; 4] = [9, 0, 0, 0];
    const DIMS: [u8; 12] = [3, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0];

    fn chunks(index: Index) -> ChunkedLayout {
        ChunkedLayout { chunk: vec![3, 5], itemsize: 8, index, address: Some(9), keeps_edges_plain: false }
    }

    #[test]
    fn every_version_says_where_elements_lie() {
        assert_eq!(
            parsed(&[&[1, 2, 1, 0, 0, 0, 0, 0][..], &AT_9].concat()).unwrap(),
            Layout::Contiguous { address: Some(9), nbytes: None }
        );
        let compact = [&[2, 1, 0, 0, 0, 0, 0, 0][..], &[2, 0, 0, 0, 2, 0, 0, 0, 7, 8]].concat();
        assert_eq!(parsed(&compact).unwrap(), Layout::Compact(vec![7, 8]));
        assert_eq!(parsed(&[4, 0, 2, 0, 7, 8]).unwrap(), Layout::Compact(vec![7, 8]));
        let unwritten = [3, 1, 0xff, 0xff, 0xff, 0xff, 6, 0, 0, 0];
        assert_eq!(parsed(&unwritten).unwrap(), Layout::Contiguous { address: None, nbytes: Some(6) });
        for bytes in [[&[1, 3, 2, 0, 0, 0, 0, 0][..], &AT_9, &DIMS].concat(), [&[3, 2, 3][..], &AT_9, &DIMS].concat()] {
            assert_eq!(parsed(&bytes).unwrap(), Layout::Chunked(chunks(Index::Tree1)));
        }
    }

    #[test]
    fn version_4_has_five_indexes() {
        for (index, more, expected) in [
            (1, &[][..], Index::Single(None)),
            (2, &[], Index::Implicit),
            (3, &[10], Index::FixedArray),
            (4, &[32, 4, 4, 16, 10], Index::ExtensibleArray),
            (5, &[0, 8, 0, 0, 100, 40], Index::Tree2),
        ] {
            let bytes = [&[4, 2, 0, 3, 4][..], &DIMS, &[index], more, &AT_9].concat();
            assert_eq!(parsed(&bytes).unwrap(), Layout::Chunked(chunks(expected)));
        }
        let filtered = [&[4, 2, 3, 3, 4][..], &DIMS, &[1, 77, 0, 0, 0, 1, 0, 0, 0], &AT_9].concat();
        let expected = ChunkedLayout { keeps_edges_plain: true, ..chunks(Index::Single(Some((77, 1)))) };
        assert_eq!(parsed(&filtered).unwrap(), Layout::Chunked(expected));
    }

    #[test]
    fn what_is_cut_or_has_no_elements_in_a_chunk_is_refused() {
        assert!(parsed(&[3, 2, 3, 9, 0, 0, 0, 3, 0]).is_err(), "cut");
        assert!(parsed(&[&[3, 2, 3][..], &AT_9, &[0; 12]].concat()).is_err(), "a chunk without elements");
        assert!(parsed(&[&[3, 2, 1][..], &AT_9, &[8, 0, 0, 0]].concat()).is_err(), "no axes");
        assert!(parsed(&[4, 9]).is_err(), "an unknown class");
    }
}

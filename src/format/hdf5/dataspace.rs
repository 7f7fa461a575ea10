//! Dataspaces (IV.A.2.b): the shape of a dataset or an attribute.

use super::cursor::Cursor;
use super::failure::Result;

/// `H5S_MAX_RANK` of the library.
const MOST_DIMENSIONS: usize = 32;

/// The extent of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dataspace {
    pub(crate) shape: Vec<u64>,
    /// The limit of each axis; `None` for an unlimited one.
    pub(crate) most: Vec<Option<u64>>,
    /// It has no elements at all; a scalar has one.
    pub(crate) is_null: bool,
}

impl Dataspace {
    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self> {
        const HAS_MOST: u8 = 1;
        const NULL: u8 = 2;
        let version = cursor.version(1..=2)?;
        let rank = usize::from(cursor.u8()?);
        if rank > MOST_DIMENSIONS {
            return Err(cursor.failure(format!("{rank} dimensions, expected at most {MOST_DIMENSIONS}")));
        }
        let flags = cursor.u8()?;
        let is_null = if version == 1 {
            cursor.skip(5)?;
            false
        } else {
            let kind = cursor.u8()?;
            if kind > NULL {
                return Err(cursor.failure(format!("type is {kind}, expected 0 (scalar), 1 (simple) or 2 (null)")));
            }
            kind == NULL
        };
        let shape = (0..rank).map(|_| cursor.length()).collect::<Result<Vec<_>>>()?;
        let most = if flags & HAS_MOST == 0 {
            shape.iter().copied().map(Some).collect()
        } else {
            (0..rank).map(|_| cursor.limit()).collect::<Result<Vec<_>>>()?
        };
        if let Some(axis) = (0..rank).find(|&axis| most[axis].is_some_and(|most| most < shape[axis])) {
            return Err(cursor.failure(format!("axis {axis} has length {}, its limit is {:?}", shape[axis], most[axis])));
        }
        Ok(Self { shape, most, is_null })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    const SIZES: Sizes = Sizes { address: 8, length: 4 };

    fn parse(bytes: &[u8]) -> Result<Dataspace> {
        Dataspace::parse(Cursor::new(bytes, 0, SIZES, "dataspace"))
    }

    #[test]
    fn both_versions_have_a_shape_and_limits() {
        let shape = [3, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let expected = Dataspace { shape: vec![3, 5], most: vec![Some(3), None], is_null: false };
        assert_eq!(parse(&[&[1, 2, 1, 0, 0, 0, 0, 0][..], &shape].concat()).unwrap(), expected);
        assert_eq!(parse(&[&[2, 2, 1, 1][..], &shape].concat()).unwrap(), expected);
        assert!(parse(&[2, 0, 0, 2]).unwrap().is_null);
    }

    #[test]
    fn what_is_cut_or_contradicts_itself_is_refused() {
        assert!(parse(&[2, 2, 1, 1, 3, 0, 0, 0]).is_err(), "cut");
        assert!(parse(&[2, 33, 0, 1]).is_err(), "too many dimensions");
        assert!(parse(&[2, 1, 1, 1, 3, 0, 0, 0, 2, 0, 0, 0]).is_err(), "longer than its limit");
        assert!(parse(&[3, 0, 0, 0]).is_err(), "an unknown version");
    }
}

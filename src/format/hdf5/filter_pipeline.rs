//! Filter pipelines (IV.A.2.l): the filters of chunks.

use super::cursor::{Cursor, text};
use super::failure::Result;

/// A filter as stored in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) id: u16,
    pub(crate) name: Option<String>,
    pub(crate) values: Vec<u32>,
}

/// The filters of a pipeline, in the order in which they were applied.
pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Vec<Filter>> {
    /// Filters of the format itself need no name.
    const FIRST_NAMED: u16 = 256;
    let version = cursor.version(1..=2)?;
    let is_old = version == 1;
    let count = cursor.u8()?;
    cursor.skip(if is_old { 6 } else { 0 })?;
    let filter = |_| {
        let id = cursor.u16()?;
        let name_len = if is_old || id >= FIRST_NAMED { cursor.u16()? } else { 0 };
        let _flags = cursor.u16()?;
        let count = usize::from(cursor.u16()?);
        let name_len = usize::from(name_len);
        let name = cursor.take(if is_old { name_len.next_multiple_of(8) } else { name_len })?;
        let values = (0..count).map(|_| cursor.u32()).collect::<Result<_>>()?;
        // Version 1 pads an odd number of values.
        cursor.skip(if is_old && count % 2 == 1 { 4 } else { 0 })?;
        let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty()).map(text);
        Ok(Filter { id, name, values })
    };
    (0..count).map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    fn parsed(bytes: &[u8]) -> Result<Vec<Filter>> {
        parse(Cursor::new(bytes, 0, Sizes { address: 8, length: 8 }, "filter pipeline"))
    }

    #[test]
    fn both_versions_have_the_same_filters() {
        let filter = |id, name: Option<&str>, values: &[u32]| Filter { id, name: name.map(str::to_owned), values: values.to_vec() };
        let old = [
            &[1, 2, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 8, 0, 0, 0, 1, 0],
            b"deflate\0",
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[0x2c, 1, 4, 0, 0, 0, 2, 0],
            b"abc\0\0\0\0\0",
            &[5, 0, 0, 0, 6, 0, 0, 0],
        ]
        .concat();
        assert_eq!(parsed(&old).unwrap(), [filter(1, Some("deflate"), &[4]), filter(300, Some("abc"), &[5, 6])]);
        let new = [&[2, 2][..], &[1, 0, 0, 0, 1, 0, 4, 0, 0, 0], &[0x2c, 1, 3, 0, 0, 0, 0, 0], b"abc"].concat();
        assert_eq!(parsed(&new).unwrap(), [filter(1, None, &[4]), filter(300, Some("abc"), &[])]);
        assert!(parsed(&new[..new.len() - 1]).is_err(), "cut");
    }
}

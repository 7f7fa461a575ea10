//! Fill values (IV.A.2.e and IV.A.2.f): the value of elements that were never written.

use super::cursor::Cursor;
use super::failure::Result;

/// The bytes of the fill value; `None` if there is none, or if it is never written.
pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Option<Vec<u8>>> {
    const NEVER: u8 = 1;
    const HAS_VALUE: u8 = 0x20;
    let version = cursor.version(1..=3)?;
    let (write_time, is_defined) = if version < 3 {
        cursor.skip(1)?;
        (cursor.u8()?, cursor.u8()? == 1)
    } else {
        let flags = cursor.u8()?;
        (flags >> 2 & 3, flags & HAS_VALUE != 0)
    };
    // Version 1 always has a value, which may have no bytes.
    if write_time == NEVER || !(is_defined || version == 1) {
        return Ok(None);
    }
    value(&mut cursor)
}

/// The same for the old fill value message.
pub(crate) fn parse_old(mut cursor: Cursor<'_>) -> Result<Option<Vec<u8>>> {
    value(&mut cursor)
}

fn value(cursor: &mut Cursor<'_>) -> Result<Option<Vec<u8>>> {
    /// A size of -1 means no value.
    const NONE: u32 = u32::MAX;
    match cursor.u32()? {
        0 | NONE => Ok(None),
        size => Ok(Some(cursor.take(usize::try_from(size).unwrap_or(usize::MAX))?.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    fn cursor(bytes: &[u8]) -> Cursor<'_> {
        Cursor::new(bytes, 0, Sizes { address: 8, length: 8 }, "fill value")
    }

    #[test]
    fn values_of_every_version_are_found() {
        for bytes in [&[1, 1, 0, 0, 2, 0, 0, 0, 7, 8][..], &[2, 1, 0, 1, 2, 0, 0, 0, 7, 8], &[3, 0x20, 2, 0, 0, 0, 7, 8]] {
            assert_eq!(parse(cursor(bytes)).unwrap(), Some(vec![7, 8]));
        }
        assert_eq!(parse_old(cursor(&[2, 0, 0, 0, 7, 8])).unwrap(), Some(vec![7, 8]));
    }

    #[test]
    fn what_is_not_defined_or_never_written_is_none() {
        for bytes in [&[2, 1, 0, 0][..], &[3, 0x10], &[3, 0x24, 2, 0, 0, 0, 7, 8], &[1, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(parse(cursor(bytes)).unwrap(), None, "{bytes:?}");
        }
        assert!(parse(cursor(&[3, 0x20, 9, 0, 0, 0, 7, 8])).is_err(), "cut");
    }
}

//! Base-128 varints, as protocol buffers and `LevelDB` tables write them.

use crate::error::ParseError;

/// Reads one varint of at most 64 bits from the front of `bytes`; returns it and its length.
///
/// Errors report the offset `at`.
#[inline]
pub(crate) fn read_u64(bytes: &[u8], at: usize, what: &'static str) -> Result<(u64, usize), ParseError> {
    match bytes.first() {
        // Most tags and lengths have one byte.
        Some(&byte) if byte < 0x80 => Ok((u64::from(byte), 1)),
        _ => read_long(bytes, at, what),
    }
}

fn read_long(bytes: &[u8], at: usize, what: &'static str) -> Result<(u64, usize), ParseError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == 10 || (i == 9 && bits > 1) {
            return Err(ParseError::new(at, what, "varint is longer than 64 bits"));
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return Ok((value, i + 1));
        }
    }
    Err(ParseError::new(at, what, format!("varint is truncated after {} bytes", bytes.len())))
}

/// Appends a varint.
pub(crate) fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f | 0x80).to_le_bytes()[0]);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Reads one varint of at most 32 bits.
pub(crate) fn read_u32(bytes: &[u8], at: usize, what: &'static str) -> Result<(u32, usize), ParseError> {
    let (value, len) = read_u64(bytes, at, what)?;
    let value = u32::try_from(value).map_err(|_| ParseError::new(at, what, format!("varint is {value}, expected at most {}", u32::MAX)))?;
    Ok((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlong_and_cut_varints_are_errors() {
        assert_eq!(read_u64(&[0xac, 0x02, 9], 0, "n"), Ok((300, 2)));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read_u64(&max, 0, "n"), Ok((u64::MAX, 10)));
        let mut over = max;
        over[9] = 0x02;
        assert!(read_u64(&over, 0, "n").is_err());
        assert!(read_u64(&[0x80; 11], 0, "n").is_err());
        assert!(read_u64(&[0x80; 3], 0, "n").is_err());
        assert!(read_u64(&[], 0, "n").is_err());
        assert!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x10], 0, "n").is_err());
    }
}

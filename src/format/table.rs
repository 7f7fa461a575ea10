//! `LevelDB` tables (SSTables) as TensorFlow reads and writes them: the `.index` of a checkpoint.
//!
//! Layout: <https://github.com/google/leveldb/blob/main/doc/table_format.md>, with TensorFlow's magic number
//! (`tensorflow/core/lib/io/format.h`).

use byteorder::{ByteOrder, LittleEndian};

use super::{crc, varint};
use crate::error::ParseError;

/// Size of the footer at the end of every table.
pub(crate) const FOOTER_LEN: usize = 48;
/// Bytes after every block: its type and its checksum.
pub(crate) const TRAILER_LEN: usize = 5;
pub(crate) const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
pub(crate) const STORED: u8 = 0;
pub(crate) const SNAPPY: u8 = 1;
/// The densest element in Snappy expands 3 bytes to 64.
const SNAPPY_MAX_EXPANSION: usize = 22;

/// The position of a block; `size` excludes the trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHandle {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl BlockHandle {
    /// Parses a handle at the start of `bytes`; returns it and its length.
    pub(crate) fn parse(bytes: &[u8], at: usize, what: &'static str) -> Result<(Self, usize), ParseError> {
        let (offset, n) = varint::read_u64(bytes, at, what)?;
        let (size, m) = varint::read_u64(&bytes[n..], at + n, what)?;
        Ok((Self { offset, size }, n + m))
    }

    /// The end of the block with its trailer, if that is at most `limit`.
    pub(crate) fn end_within(self, limit: u64) -> Option<u64> {
        let end = self.offset.checked_add(self.size)?.checked_add(TRAILER_LEN as u64)?;
        (end <= limit).then_some(end)
    }
}

/// Parses the footer, the last [`FOOTER_LEN`] bytes of a table; returns the index block's handle.
pub(crate) fn parse_footer(footer: &[u8; FOOTER_LEN]) -> Result<BlockHandle, ParseError> {
    const WHAT: &str = "table footer";
    let magic = LittleEndian::read_u64(&footer[40..]);
    if magic != MAGIC {
        return Err(ParseError::new(
            40,
            WHAT,
            format!("magic is {magic:#018x}, expected {MAGIC:#018x}: the end of the file is missing, or it is no table"),
        ));
    }
    let (_metaindex, n) = BlockHandle::parse(&footer[..40], 0, WHAT)?;
    let (index, _) = BlockHandle::parse(&footer[n..40], n, WHAT)?;
    Ok(index)
}

/// The contents of a block, verified and decompressed.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) contents: Vec<u8>,
    pub(crate) was_snappy: bool,
}

/// Verifies and decompresses a block, given with its trailer as read from the file.
pub(crate) fn parse_block(mut stored: Vec<u8>) -> Result<Block, ParseError> {
    const WHAT: &str = "table block";
    let Some(size) = stored.len().checked_sub(TRAILER_LEN) else {
        return Err(ParseError::new(0, WHAT, format!("{} bytes, expected at least {TRAILER_LEN}", stored.len())));
    };
    let expected = crc::unmask(LittleEndian::read_u32(&stored[size + 1..]));
    let actual = crc::crc32c(&stored[..=size]);
    if actual != expected {
        return Err(ParseError::new(size + 1, WHAT, format!("checksum is {actual:#010x}, the file says {expected:#010x}")));
    }
    let kind = stored[size];
    stored.truncate(size);
    match kind {
        STORED => Ok(Block { contents: stored, was_snappy: false }),
        SNAPPY => Ok(Block { contents: decompress(&stored)?, was_snappy: true }),
        _ => Err(ParseError::new(size, WHAT, format!("compression type is {kind}, expected 0 (stored) or 1 (snappy)"))),
    }
}

const SNAPPY_BLOCK: &str = "snappy block";

/// The size that a snappy block claims to expand to.
pub(crate) fn expanded_len(stored: &[u8]) -> Result<usize, ParseError> {
    snap::raw::decompress_len(stored).map_err(|e| ParseError::new(0, SNAPPY_BLOCK, e.to_string()))
}

fn decompress(stored: &[u8]) -> Result<Vec<u8>, ParseError> {
    const WHAT: &str = SNAPPY_BLOCK;
    let claimed = expanded_len(stored)?;
    let possible = stored.len().saturating_mul(SNAPPY_MAX_EXPANSION);
    if claimed > possible {
        let detail = format!("claims to expand to {claimed} bytes, but {} bytes can hold at most {possible}", stored.len());
        return Err(ParseError::new(0, WHAT, detail));
    }
    snap::raw::Decoder::new().decompress_vec(stored).map_err(|e| ParseError::new(0, WHAT, e.to_string()))
}

/// Calls `visit` with the key, the value and the value's offset of every entry of a block, in order.
///
/// Checks that restart points share no prefix and that no bytes are left over. The caller checks the order of keys, because it
/// spans several blocks.
pub(crate) fn for_each_entry(block: &[u8], mut visit: impl FnMut(&[u8], &[u8], usize) -> Result<(), ParseError>) -> Result<(), ParseError> {
    const WHAT: &str = "table block";
    let Some(count_at) = block.len().checked_sub(4) else {
        return Err(ParseError::new(0, WHAT, format!("{} bytes, expected at least 4", block.len())));
    };
    let restarts = LittleEndian::read_u32(&block[count_at..]);
    let entries_end = usize::try_from(restarts)
        .ok()
        .filter(|&n| n > 0)
        .and_then(|n| n.checked_mul(4))
        .and_then(|bytes| count_at.checked_sub(bytes))
        .ok_or_else(|| ParseError::new(count_at, WHAT, format!("{restarts} restart points in {} bytes", block.len())))?;
    let mut restarts = block[entries_end..count_at].chunks_exact(4).map(LittleEndian::read_u32).peekable();

    let mut key: Vec<u8> = Vec::new();
    let mut pos = 0;
    while pos < entries_end {
        let at_restart = restarts.next_if(|&offset| offset as usize == pos).is_some();
        let start = pos;
        let mut number = || {
            let (value, len) = varint::read_u32(&block[pos..entries_end], pos, WHAT)?;
            pos += len;
            Ok(value as usize)
        };
        let (shared, unshared, value_len) = (number()?, number()?, number()?);
        if shared > key.len() || (at_restart && shared != 0) || (start == 0 && !at_restart) {
            let detail = format!("entry shares {shared} bytes with a key of {}; at a restart point: {at_restart}", key.len());
            return Err(ParseError::new(start, WHAT, detail));
        }
        let left = entries_end - pos;
        if unshared.checked_add(value_len).is_none_or(|len| len > left) {
            let detail = format!("entry has {unshared} bytes of key and {value_len} of value, {left} bytes left");
            return Err(ParseError::new(start, WHAT, detail));
        }
        key.truncate(shared);
        key.extend_from_slice(&block[pos..pos + unshared]);
        pos += unshared;
        visit(&key, &block[pos..pos + value_len], pos)?;
        pos += value_len;
    }
    match restarts.next() {
        None => Ok(()),
        Some(0) if entries_end == 0 => Ok(()),
        Some(offset) => Err(ParseError::new(entries_end, WHAT, format!("restart point {offset} is not the start of an entry"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entries = Vec<(Vec<u8>, Vec<u8>)>;

    fn entries(block: &[u8]) -> Result<Entries, ParseError> {
        let mut out = Vec::new();
        for_each_entry(block, |key, value, _| {
            out.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn prefixes_are_shared_from_entry_to_entry() {
        let mut block = vec![0, 3, 1, b'a', b'b', b'c', b'1', 2, 1, 1, b'd', b'2'];
        block.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        let expected = vec![(b"abc".to_vec(), b"1".to_vec()), (b"abd".to_vec(), b"2".to_vec())];
        assert_eq!(entries(&block).unwrap(), expected);
    }

    #[test]
    fn an_empty_block_has_no_entries() {
        assert_eq!(entries(&[0, 0, 0, 0, 1, 0, 0, 0]).unwrap(), []);
        assert!(entries(&[0, 0, 0, 0]).is_err(), "no restart point");
        assert!(entries(&[]).is_err());
    }

    #[test]
    fn broken_blocks_are_errors() {
        let good = [0, 1, 1, b'k', b'v', 0, 0, 0, 0, 1, 0, 0, 0];
        assert!(entries(&good).is_ok());
        for (at, byte) in [(0, 1), (0, 200), (1, 9), (2, 200), (9, 0), (9, 7), (12, 0xff), (5, 3)] {
            let mut bad = good;
            bad[at] = byte;
            assert!(entries(&bad).is_err(), "byte {at} set to {byte}");
        }
    }

    #[test]
    fn a_snappy_length_beyond_what_its_bytes_can_hold_is_refused_before_allocating() {
        let mut stored = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'a', SNAPPY];
        let sum = crc::crc32c(&stored);
        stored.extend(sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
        assert!(parse_block(stored).unwrap_err().detail.contains("4294967295"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_entries_or_an_error(mut bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..80), restarts in 0u32..4) {
            bytes.extend(restarts.to_le_bytes());
            let _ = entries(&bytes);
            let _ = parse_block(bytes);
        }
    }
}

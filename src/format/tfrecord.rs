//! The frame of a TFRecord: the length, its checksum, the data, their checksum.
//!
//! Source: `tensorflow/core/lib/io/record_writer.h`.

use byteorder::{ByteOrder as _, LittleEndian};

use super::crc;

/// A u64 length and the masked CRC32C of its bytes.
pub(crate) const HEADER_LEN: usize = 12;
/// The masked CRC32C of the data.
pub(crate) const FOOTER_LEN: usize = 4;

/// Reads the length of the data from a frame header.
///
/// # Errors
/// Returns what is wrong if the checksum of the header does not match.
pub(crate) fn data_len(header: &[u8; HEADER_LEN]) -> Result<u64, String> {
    let (len, stored) = (LittleEndian::read_u64(header), LittleEndian::read_u32(&header[8..]));
    let found = crc::crc32c(&header[..8]);
    if found == crc::unmask(stored) {
        return Ok(len);
    }
    if header.iter().all(|&byte| byte == 0) {
        return Err("found only zeros where a record should start: the file was extended beyond the data that was written".into());
    }
    Err(format!("the checksum of the length {len} is {found:#010x}, but the stored one is {:#010x}", crc::unmask(stored)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_hello() {
        let header = [5, 0, 0, 0, 0, 0, 0, 0, 0xea, 0xb2, 0x04, 0x3e];
        assert_eq!(data_len(&header), Ok(5));
        for i in 0..header.len() {
            let mut broken = header;
            broken[i] ^= 0x10;
            assert!(data_len(&broken).is_err(), "{i}");
        }
        assert!(data_len(&[0; 12]).unwrap_err().contains("zeros"));
    }
}

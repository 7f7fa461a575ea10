//! The checksum that TensorFlow computes over the lengths of strings.

use byteorder::ByteOrder as _;
use byteorder::{BigEndian, LittleEndian};

use crate::format::crc;

/// Bytes of lengths read at once.
pub(crate) const CHUNK: usize = 16 << 10;

/// The checksum of lengths, encoded as fixed-size integers.
pub(crate) struct LengthsCrc {
    big_endian: bool,
    crc: u32,
    waiting: Vec<u8>,
}

impl LengthsCrc {
    pub(crate) fn new(big_endian: bool) -> Self {
        Self { big_endian, crc: 0, waiting: Vec::with_capacity(CHUNK) }
    }

    pub(crate) fn add(&mut self, length: u64) {
        if self.waiting.len() + 8 > CHUNK {
            self.flush();
        }
        let mut bytes = [0; 8];
        let len = match (u32::try_from(length), self.big_endian) {
            (Ok(length), false) => {
                LittleEndian::write_u32(&mut bytes, length);
                4
            }
            (Ok(length), true) => {
                BigEndian::write_u32(&mut bytes, length);
                4
            }
            (Err(_), false) => {
                LittleEndian::write_u64(&mut bytes, length);
                8
            }
            (Err(_), true) => {
                BigEndian::write_u64(&mut bytes, length);
                8
            }
        };
        self.waiting.extend_from_slice(&bytes[..len]);
    }

    fn flush(&mut self) {
        self.crc = crc::append(self.crc, &self.waiting);
        self.waiting.clear();
    }

    pub(crate) fn finish(mut self) -> u32 {
        self.flush();
        self.crc
    }
}

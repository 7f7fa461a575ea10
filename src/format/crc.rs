//! CRC32C with the mask that `LevelDB` and TensorFlow apply to stored values, and the CRC-32 of ZIP archives.
//!
//! Both are reflected; the polynomials are Castagnoli's and that of IEEE 802.3. Source of the mask:
//! `tensorflow/core/lib/hash/crc32c.h`.

use std::sync::OnceLock;

use crc_fast::{CrcAlgorithm, Digest};

const MASK_DELTA: u32 = 0xa282_ead8;

/// Removes the mask from a stored checksum.
pub(crate) fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

/// Applies the mask to a checksum, for storing.
pub(crate) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// CRC32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    append(0, bytes)
}

/// Extends `crc`, the CRC of the preceding bytes, by `bytes`.
pub(crate) fn append(crc: u32, bytes: &[u8]) -> u32 {
    Kind::Crc32c.append(crc, bytes)
}

/// The inverse of [`shift`]: the CRC whose contribution, with `len` more bytes after it, is `crc`.
///
/// The polynomial is (x + 1) times a primitive one of degree 31. So shifting by the prime 2^31 - 1, in bytes or in bits, changes
/// nothing.
pub(crate) fn unshift(crc: u32, len: u64) -> u32 {
    const ORDER: u64 = (1 << 31) - 1;
    shift(crc, ORDER - len % ORDER)
}

/// The contribution of a CRC32C to the total CRC32C when `len` more bytes follow.
pub(crate) fn shift(crc: u32, len: u64) -> u32 {
    Kind::Crc32c.shift(crc, len)
}

/// The kind of checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Crc32c,
    /// The CRC-32 of ZIP archives.
    Crc32,
}

impl Kind {
    /// The name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Crc32 => "CRC-32",
        }
    }

    /// The checksum of `bytes`.
    pub(crate) fn of(self, bytes: &[u8]) -> u32 {
        self.append(0, bytes)
    }

    /// Extends `crc`, the checksum of the preceding bytes, by `bytes`.
    pub(crate) fn append(self, crc: u32, bytes: &[u8]) -> u32 {
        let algorithm = match self {
            Self::Crc32c => CrcAlgorithm::Crc32Iscsi,
            Self::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
        };
        // The register holds the inverted checksum.
        let mut digest = Digest::new_with_init_state(algorithm, u64::from(!crc));
        digest.update(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "both have 32 bits")]
        let crc = digest.finalize() as u32;
        crc
    }

    /// The checksum of `len` zero bytes.
    pub(crate) fn zeros(self, len: u64) -> u32 {
        !self.shift(!0, len)
    }

    /// The checksum of the last `len` bytes, given that of the bytes before them (`first`) and of all (`whole`).
    pub(crate) fn behind(self, first: u32, whole: u32, len: u64) -> u32 {
        whole ^ self.shift(first, len)
    }

    /// The contribution of a CRC to the total CRC when `len` more bytes follow.
    ///
    /// The contribution is linear in the bits of the CRC. We keep a matrix for every power of two and apply those whose bit is
    /// set in `len`. Source: `crc32_combine` of zlib, which computes the matrices anew each time.
    pub(crate) fn shift(self, crc: u32, len: u64) -> u32 {
        static POWERS: [OnceLock<Vec<[u32; 32]>>; 2] = [OnceLock::new(), OnceLock::new()];
        let powers = POWERS[usize::from(self == Self::Crc32)].get_or_init(|| {
            // The matrix of one zero byte, derived from its effect on each bit of the register.
            let mut matrix = std::array::from_fn(|bit| !self.append(!(1 << bit), &[0]));
            let mut powers = Vec::with_capacity(64);
            for _ in 0..64 {
                powers.push(matrix);
                matrix = std::array::from_fn(|bit| apply(&matrix, matrix[bit]));
            }
            powers
        });
        powers.iter().enumerate().filter(|(power, _)| len >> power & 1 == 1).fold(crc, |crc, (_, matrix)| apply(matrix, crc))
    }
}

/// Multiplies a matrix, given by its columns, with a vector of bits.
fn apply(columns: &[u32; 32], mut vector: u32) -> u32 {
    let mut product = 0;
    while vector != 0 {
        product ^= columns[vector.trailing_zeros() as usize];
        vector &= vector - 1;
    }
    product
}

/// A stored checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// CRC32C, unmasked.
    Crc32c(u32),
    /// The CRC-32 of ZIP archives.
    Crc32(u32),
}

impl Checksum {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Crc32c(_) => Kind::Crc32c,
            Self::Crc32(_) => Kind::Crc32,
        }
    }

    pub(crate) fn value(self) -> u32 {
        match self {
            Self::Crc32c(value) | Self::Crc32(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros_have_the_checksum_of_zeros() {
        let zeros = |len| Kind::Crc32c.zeros(len);
        for len in [0, 1, 2, 3, 4095, 4096, 100_001] {
            assert_eq!(zeros(len), crc32c(&vec![0; len as usize]), "{len}");
        }
        // Holds for all lengths: appending one zero byte equals one more zero.
        for len in [1u64 << 40, (1 << 62) + 12345, i64::MAX as u64] {
            assert_eq!(zeros(len + 1), append(zeros(len), &[0]));
        }
    }

    #[test]
    fn the_reference_value_and_the_mask_of_nothing() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(Kind::Crc32.of(b"123456789"), 0xcbf4_3926);
        assert_eq!(unmask(0xa282_ead8), 0);
        assert_eq!(unmask(0x7189_5b73), crc32c(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40]));
    }

    proptest! {
        #[test]
        fn other_implementations_agree(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000) {
            let (front, back) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(append(crc32c(front), back), ::crc32c::crc32c(&bytes));
            prop_assert_eq!(Kind::Crc32.append(Kind::Crc32.of(front), back), crc32fast::hash(&bytes));
        }
    }

    #[test]
    fn shifting_back_is_the_inverse() {
        for len in [0, 1, 5, 4096, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, (1 << 40) + 7] {
            // A linear map of bits is the identity if it keeps each single bit.
            for bit in 0..32 {
                assert_eq!(unshift(shift(1 << bit, len), len), 1 << bit, "{len}");
                assert_eq!(shift(1 << bit, (1 << 31) - 1), 1 << bit);
            }
        }
        let bytes: Vec<u8> = (0..999u32).map(|i| (i * 31 % 251) as u8).collect();
        let (front, back) = bytes.split_at(600);
        assert_eq!(unshift(crc32c(&bytes) ^ crc32c(back), 399), crc32c(front));
    }

    #[test]
    fn combining_parts_gives_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 7, 500, 999, 1000] {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(append(crc32c(a), b), crc32c(&bytes));
            for kind in [Kind::Crc32c, Kind::Crc32] {
                assert_eq!(kind.append(kind.of(a), b), kind.of(&bytes));
                assert_eq!(kind.behind(kind.of(a), kind.of(&bytes), b.len() as u64), kind.of(b));
            }
        }
    }
}

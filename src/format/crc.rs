//! CRC32C and the mask that `LevelDB` and TensorFlow put over stored values.
//!
//! Castagnoli polynomial, reflected. Source of the mask: `tensorflow/core/lib/hash/crc32c.h`.

use std::cell::RefCell;
use std::sync::OnceLock;

const MASK_DELTA: u32 = 0xa282_ead8;

/// The checksum that a stored, masked value stands for.
pub(crate) fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

/// CRC32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC32C of `bytes` behind others whose CRC is `crc`.
pub(crate) fn append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// CRC32C of a concatenation, from the CRCs of both halves and the length of the second.
///
/// For a given length this is linear over the bits of the first CRC. Parts come in one length most of the time, so its
/// matrix is kept once a length was met twice in a row; to work it out anew takes longer than to hash 100 KiB.
pub(crate) fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    thread_local! {
        static LAST: RefCell<Shift> = const { RefCell::new(Shift { len: 0, columns: None }) };
    }
    let plain = |first, second| crc32c::crc32c_combine(first, second, crate::spec::memory_len(second_len));
    LAST.with_borrow_mut(|last| {
        if last.len != second_len {
            *last = Shift { len: second_len, columns: None };
            return plain(first, second);
        }
        let columns = last.columns.get_or_insert_with(|| std::array::from_fn(|bit| plain(1 << bit, 0)));
        (0..32).filter(|bit| first & (1 << bit) != 0).fold(second, |crc, bit| crc ^ columns[bit])
    })
}

/// What `len` zero bytes do to each bit of a CRC in front of them.
struct Shift {
    len: u64,
    columns: Option<[u32; 32]>,
}

/// CRC32C of `len` zero bytes, put together from those of powers of two.
pub(crate) fn zeros(len: u64) -> u32 {
    static POWERS: OnceLock<[u32; 64]> = OnceLock::new();
    let powers = POWERS.get_or_init(|| {
        let mut powers = [crc32c(&[0]); 64];
        for i in 1..powers.len() {
            powers[i] = combine(powers[i - 1], powers[i - 1], 1 << (i - 1));
        }
        powers
    });
    (0..64).filter(|i| len & (1 << i) != 0).fold(0, |crc, i| combine(crc, powers[i], 1 << i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_the_checksum_of_zeros() {
        for len in [0, 1, 2, 3, 4095, 4096, 100_001] {
            assert_eq!(zeros(len), crc32c(&vec![0; len as usize]), "{len}");
        }
        // A property of all lengths: a zero more is a zero more.
        for len in [1u64 << 40, (1 << 62) + 12345, i64::MAX as u64] {
            assert_eq!(zeros(len + 1), append(zeros(len), &[0]));
        }
    }

    #[test]
    fn the_reference_value_and_the_mask_of_nothing() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(unmask(0xa282_ead8), 0);
        assert_eq!(unmask(0x7189_5b73), crc32c(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40]));
    }

    #[test]
    fn combining_parts_gives_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 7, 500, 999, 1000] {
            let (a, b) = bytes.split_at(cut);
            // The second time it is met, and later, a length has its matrix.
            for _ in 0..3 {
                assert_eq!(combine(crc32c(a), crc32c(b), b.len() as u64), crc32c(&bytes));
            }
            assert_eq!(append(crc32c(a), b), crc32c(&bytes));
        }
    }
}

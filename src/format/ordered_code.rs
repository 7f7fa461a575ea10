//! Keys of the pieces of a partitioned tensor: `OrderedCode`.
//!
//! Source: `tensorflow/core/lib/strings/ordered_code.cc` and `EncodeTensorNameSlice` in
//! `tensorflow/core/util/saved_tensor_slice_util.cc`.

use super::bundle::Extent;

/// The index key of the piece `extents` of the tensor `name`.
pub(crate) fn piece_key(name: &[u8], extents: &[Extent]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 8 + 4 * extents.len());
    push_unsigned(&mut key, 0);
    push_string(&mut key, name);
    push_unsigned(&mut key, extents.len() as u64);
    for extent in extents {
        push_signed(&mut key, extent.start);
        push_signed(&mut key, extent.length.unwrap_or(-1));
    }
    key
}

/// Whether `key` belongs to a piece; other keys are tensor names.
pub(crate) fn is_piece_key(key: &[u8]) -> bool {
    key.first() == Some(&0)
}

fn push_unsigned(key: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let zeros = value.leading_zeros().to_le_bytes()[0] / 8;
    key.push(8 - zeros);
    key.extend_from_slice(&bytes[usize::from(zeros)..]);
}

fn push_string(key: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            0x00 => key.extend([0x00, 0xff]),
            0xff => key.extend([0xff, 0x00]),
            _ => key.push(byte),
        }
    }
    key.extend([0x00, 0x01]);
}

fn push_signed(key: &mut Vec<u8>, value: i64) {
    let significant = 65 - (if value < 0 { !value } else { value }).leading_zeros();
    let len = significant.div_ceil(7) as usize;
    // Sign-extended to ten bytes; the top bits of the `len` kept bytes give the length, as ones.
    let mut bytes = [if value < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let kept = &mut bytes[10 - len..];
    let ones = !(u16::MAX >> len);
    for (byte, ones) in kept.iter_mut().zip(ones.to_be_bytes()) {
        *byte ^= ones;
    }
    key.extend_from_slice(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_numbers_are_encoded_as_in_the_table_of_the_format() {
        for (value, expected) in [
            (0, "80"),
            (1, "81"),
            (-1, "7f"),
            (63, "bf"),
            (-64, "40"),
            (-65, "3fbf"),
            (64, "c040"),
            (8191, "dfff"),
            (8192, "e02000"),
            (1_048_576, "f0100000"),
            (1 << 55, "ff8080000000000000"),
            (i64::MAX, "ffc07fffffffffffffff"),
        ] {
            let mut key = Vec::new();
            push_signed(&mut key, value);
            assert_eq!(format!("{key:02x?}").replace(['[', ']', ',', ' '], ""), expected, "{value}");
        }
    }

    #[test]
    fn encoding_keeps_the_order_of_numbers() {
        let mut values: Vec<i64> = (0..63).flat_map(|bit| [1i64 << bit, -(1i64 << bit), (1i64 << bit) - 1]).collect();
        values.extend([i64::MIN, i64::MAX]);
        values.sort_unstable();
        values.dedup();
        let encoded: Vec<Vec<u8>> = values
            .iter()
            .map(|&v| {
                let mut key = Vec::new();
                push_signed(&mut key, v);
                key
            })
            .collect();
        assert!(encoded.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn piece_keys_match_the_worked_example() {
        let all = Extent { start: 0, length: None };
        let first = piece_key(b"v", &[Extent { start: 0, length: Some(2) }, all]);
        assert_eq!(first, [0x00, 0x76, 0x00, 0x01, 0x01, 0x02, 0x80, 0x82, 0x80, 0x7f]);
        let last = piece_key(b"v", &[Extent { start: 5, length: Some(1) }, Extent { start: 0, length: Some(4) }]);
        assert_eq!(last, [0x00, 0x76, 0x00, 0x01, 0x01, 0x02, 0x85, 0x81, 0x80, 0x84]);
        assert!(is_piece_key(&piece_key(b"a\0\xff", &[])));
        assert!(!is_piece_key(b"a"));
    }
}

//! From stored elements to the elements of the array: byte order, and the two values of a bool.

use byteorder::{BigEndian, ByteOrder as _, LittleEndian};

use crate::dtype::Dtype;

/// The byte order of stored elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first, as in every array that is written.
    Little,
    /// Most significant byte first.
    Big,
}

/// What has to happen to the bytes of a slice, chosen once for a tensor. Elements keep their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// The stored bytes are the array's.
    Copy,
    /// Components of 2, 4 or 8 bytes are reversed; of a complex number each half by itself.
    Swap(usize),
    /// Any byte but 0 becomes 1, because other values are undefined for readers of `|b1`.
    Bool,
}

impl Decoder {
    pub(crate) fn resolve(dtype: Dtype, order: ByteOrder) -> Self {
        match (dtype, order, dtype.component_size()) {
            (Dtype::Bool, ..) => Self::Bool,
            (_, ByteOrder::Big, size @ (2 | 4 | 8)) => Self::Swap(crate::spec::memory_len(size)),
            _ => Self::Copy,
        }
    }

    /// Decodes whole elements where they are.
    pub(crate) fn apply(self, bytes: &mut [u8]) {
        match self {
            Self::Copy => {}
            Self::Swap(2) => bytes.chunks_exact_mut(2).for_each(|c| LittleEndian::write_u16(c, BigEndian::read_u16(c))),
            Self::Swap(4) => bytes.chunks_exact_mut(4).for_each(|c| LittleEndian::write_u32(c, BigEndian::read_u32(c))),
            Self::Swap(_) => bytes.chunks_exact_mut(8).for_each(|c| LittleEndian::write_u64(c, BigEndian::read_u64(c))),
            Self::Bool => bytes.iter_mut().for_each(|b| *b = u8::from(*b != 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapping_reverses_every_component() {
        for &dtype in Dtype::ALL {
            let Some(itemsize) = dtype.itemsize() else { continue };
            let original: Vec<u8> = (0..itemsize as u8 * 3).collect();
            let mut bytes = original.clone();
            Decoder::resolve(dtype, ByteOrder::Big).apply(&mut bytes);
            let mut expected = original.clone();
            if dtype == Dtype::Bool {
                expected = vec![0, 1, 1];
            } else {
                expected.chunks_exact_mut(dtype.component_size() as usize).for_each(<[u8]>::reverse);
            }
            assert_eq!(bytes, expected, "{dtype}");
        }
    }

    #[test]
    fn little_endian_elements_stay_as_they_are() {
        for &dtype in Dtype::ALL {
            let expected = if dtype == Dtype::Bool { Decoder::Bool } else { Decoder::Copy };
            assert_eq!(Decoder::resolve(dtype, ByteOrder::Little), expected);
        }
    }
}

//! Exact values of elements, for messages and to check whether a cast kept them.

use std::fmt;

use byteorder::{BigEndian, LittleEndian};
use half::{bf16, f16};

use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::small::Small;

/// The value of one element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i128),
    /// Floats of at most 32 bits are held exactly, too.
    Float(f64),
    Complex(f64, f64),
}

impl Value {
    /// Reads one element; `None` for a dtype that is not numeric.
    pub(crate) fn read(bytes: &[u8], dtype: Dtype, order: ByteOrder) -> Option<Self> {
        match order {
            ByteOrder::Little => Self::read_as::<LittleEndian>(bytes, dtype),
            ByteOrder::Big => Self::read_as::<BigEndian>(bytes, dtype),
        }
    }

    fn read_as<E: byteorder::ByteOrder>(bytes: &[u8], dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::Bool => Self::Bool(bytes[0] != 0),
            Dtype::Int8 | Dtype::QInt8 => Self::Int(bytes[0].cast_signed().into()),
            Dtype::UInt8 | Dtype::QUInt8 => Self::Int(bytes[0].into()),
            Dtype::Int16 | Dtype::QInt16 => Self::Int(E::read_i16(bytes).into()),
            Dtype::UInt16 | Dtype::QUInt16 => Self::Int(E::read_u16(bytes).into()),
            Dtype::Int32 | Dtype::QInt32 => Self::Int(E::read_i32(bytes).into()),
            Dtype::UInt32 => Self::Int(E::read_u32(bytes).into()),
            Dtype::Int64 => Self::Int(E::read_i64(bytes).into()),
            Dtype::UInt64 => Self::Int(E::read_u64(bytes).into()),
            Dtype::Float16 => Self::Float(f16::from_bits(E::read_u16(bytes)).into()),
            Dtype::BFloat16 => Self::Float(bf16::from_bits(E::read_u16(bytes)).into()),
            Dtype::Float32 => Self::Float(E::read_f32(bytes).into()),
            Dtype::Float64 => Self::Float(E::read_f64(bytes)),
            Dtype::Complex64 => Self::Complex(E::read_f32(bytes).into(), E::read_f32(&bytes[4..]).into()),
            Dtype::Complex128 => Self::Complex(E::read_f64(bytes), E::read_f64(&bytes[8..])),
            Dtype::String | Dtype::Resource | Dtype::Variant => return None,
            small => match Small::of(small)? {
                Small::Float(float) => Self::Float(float.decode(bytes[0]).into()),
                Small::Int(int) => Self::Int(int.decode(bytes[0]).into()),
            },
        })
    }

    /// Whether both are the same number. 1, 1.0, 1+0j and true are equal; so are 0.0 and -0.0, and NaN and NaN.
    pub(crate) fn is_same_number(self, other: Self) -> bool {
        let (re, im) = self.parts();
        let (other_re, other_im) = other.parts();
        re.is_same(other_re) && im.is_same(other_im)
    }

    fn parts(self) -> (Real, Real) {
        match self {
            Self::Bool(b) => (Real::Int(b.into()), Real::Int(0)),
            Self::Int(i) => (Real::Int(i), Real::Int(0)),
            Self::Float(x) => (Real::Float(x), Real::Int(0)),
            Self::Complex(re, im) => (Real::Float(re), Real::Float(im)),
        }
    }
}

#[derive(Clone, Copy)]
enum Real {
    Int(i128),
    Float(f64),
}

impl Real {
    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            #[expect(clippy::float_cmp, reason = "exact equality is intended")]
            (Self::Float(a), Self::Float(b)) => a == b || a.is_nan() && b.is_nan(),
            // A larger float saturates to an integer that no element has.
            #[expect(clippy::cast_possible_truncation, reason = "compared only if it is whole")]
            (Self::Int(i), Self::Float(x)) | (Self::Float(x), Self::Int(i)) => x.fract() == 0.0 && x as i128 == i,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Complex(re, im) => write!(f, "{re:?}{}{im:?}j", if im.is_sign_negative() { "" } else { "+" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_exactly_across_types() {
        let float = Value::Float;
        let same = [
            (Value::Int(1), float(1.0)),
            (float(-0.0), Value::Int(0)),
            (Value::Bool(true), Value::Complex(1.0, -0.0)),
            (float(f64::NAN), float(-f64::NAN)),
            (Value::Int(1 << 63), float(9_223_372_036_854_775_808.0)),
        ];
        for (a, b) in same {
            assert!(a.is_same_number(b) && b.is_same_number(a), "{a} {b}");
        }
        let different = [
            (Value::Int((1 << 53) + 1), float(9_007_199_254_740_992.0)),
            (Value::Int(i64::MAX.into()), float(9_223_372_036_854_775_808.0)),
            (Value::Int(0), float(f64::NAN)),
            (Value::Int(i128::MAX), float(f64::INFINITY)),
            (float(0.5), Value::Int(0)),
            (Value::Complex(1.0, 1.0), float(1.0)),
            (Value::Int(2), Value::Bool(true)),
        ];
        for (a, b) in different {
            assert!(!a.is_same_number(b) && !b.is_same_number(a), "{a} {b}");
        }
    }
}

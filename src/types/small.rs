//! Formats of eight bits or fewer, stored as one element per byte.
//!
//! Layouts: the OCP specifications of FP8 (E4M3, E5M2) and of microscaling formats (E2M1); the `FNUZ` and `B11` variants follow
//! `ml_dtypes` (`ml_dtypes/include/float8.h`, `mxfloat.h`).

use super::dtype::Dtype;

/// A format of eight bits or fewer, which gives each of the 256 bytes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Small {
    Float(SmallFloat),
    Int(SmallInt),
}

/// A float: a sign, an exponent and a mantissa, in the low bits of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SmallFloat {
    exponent: u32,
    mantissa: u32,
    bias: u32,
    special: Special,
}

/// How a format encodes infinities and NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// As in IEEE 754: the largest exponent encodes infinities and NaN.
    Ieee,
    /// No infinities; all ones is NaN.
    AllOnesNan,
    /// No infinities and no -0.0: the bit pattern of -0.0 is NaN.
    NegativeZeroNan,
    /// All bit patterns are finite numbers.
    None,
}

/// An integer in the low bits of a byte; the high bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SmallInt {
    pub(crate) bits: u32,
    pub(crate) signed: bool,
}

impl SmallFloat {
    pub(crate) const E5M2: Self = Self { exponent: 5, mantissa: 2, bias: 15, special: Special::Ieee };
    pub(crate) const E4M3FN: Self = Self { exponent: 4, mantissa: 3, bias: 7, special: Special::AllOnesNan };
    pub(crate) const E4M3FNUZ: Self = Self { exponent: 4, mantissa: 3, bias: 8, special: Special::NegativeZeroNan };
    pub(crate) const E4M3B11FNUZ: Self = Self { exponent: 4, mantissa: 3, bias: 11, special: Special::NegativeZeroNan };
    pub(crate) const E5M2FNUZ: Self = Self { exponent: 5, mantissa: 2, bias: 16, special: Special::NegativeZeroNan };
    pub(crate) const E2M1FN: Self = Self { exponent: 2, mantissa: 1, bias: 1, special: Special::None };
}

impl SmallInt {
    pub(crate) const INT4: Self = Self { bits: 4, signed: true };
    pub(crate) const UINT4: Self = Self { bits: 4, signed: false };
    pub(crate) const INT2: Self = Self { bits: 2, signed: true };
    pub(crate) const UINT2: Self = Self { bits: 2, signed: false };
}

impl Small {
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Float8E5M2 => Some(Self::Float(SmallFloat::E5M2)),
            Dtype::Float8E4M3Fn => Some(Self::Float(SmallFloat::E4M3FN)),
            Dtype::Float8E4M3Fnuz => Some(Self::Float(SmallFloat::E4M3FNUZ)),
            Dtype::Float8E4M3B11Fnuz => Some(Self::Float(SmallFloat::E4M3B11FNUZ)),
            Dtype::Float8E5M2Fnuz => Some(Self::Float(SmallFloat::E5M2FNUZ)),
            Dtype::Float4E2M1Fn => Some(Self::Float(SmallFloat::E2M1FN)),
            Dtype::Int4 => Some(Self::Int(SmallInt::INT4)),
            Dtype::UInt4 => Some(Self::Int(SmallInt::UINT4)),
            Dtype::Int2 => Some(Self::Int(SmallInt::INT2)),
            Dtype::UInt2 => Some(Self::Int(SmallInt::UINT2)),
            _ => None,
        }
    }
}

impl SmallFloat {
    /// The exact value of a bit pattern. NaNs have no payload; in formats without -0.0 the only NaN is negative.
    pub(crate) fn decode(self, code: u8) -> f32 {
        let code = u32::from(code);
        // In four-bit floats the bits above the sign should be 0; ml_dtypes treats them as signs.
        let is_negative = code >> (self.exponent + self.mantissa) != 0;
        let exponent = code >> self.mantissa & ((1 << self.exponent) - 1);
        let fraction = code & ((1 << self.mantissa) - 1);
        let all_ones = (1 << self.exponent) - 1;
        let magnitude = match self.special {
            Special::Ieee if exponent == all_ones && fraction == 0 => f32::INFINITY,
            Special::Ieee if exponent == all_ones => QUIET_NAN,
            Special::AllOnesNan if exponent == all_ones && fraction == (1 << self.mantissa) - 1 => QUIET_NAN,
            Special::NegativeZeroNan if is_negative && exponent == 0 && fraction == 0 => QUIET_NAN,
            _ => {
                let (whole, exponent) = if exponent == 0 { (fraction, 1) } else { (fraction + (1 << self.mantissa), exponent) };
                #[expect(clippy::cast_possible_truncation, reason = "four bits at most")]
                let whole = whole as u8;
                // 2^(exponent - bias - mantissa), which is a normal `f32` in every format.
                f32::from(whole) * f32::from_bits((127 + exponent - self.bias - self.mantissa) << 23)
            }
        };
        f32::from_bits(magnitude.to_bits() | u32::from(is_negative) << 31)
    }
}

const QUIET_NAN: f32 = f32::from_bits(0x7fc0_0000);

impl SmallInt {
    /// The value of a byte.
    pub(crate) fn decode(self, byte: u8) -> i8 {
        let shift = 8 - self.bits;
        if self.signed { (byte << shift).cast_signed() >> shift } else { (byte << shift >> shift).cast_signed() }
    }
}

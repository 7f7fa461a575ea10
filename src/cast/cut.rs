//! Truncates floats to integers with the single instruction that processors have for it.
#![expect(unsafe_code, reason = "the safe `as` checks each lane for values already excluded, and takes four times as long")]

use num_traits::Zero;

use super::number::Number;

/// A float that can be truncated to an integer.
pub(crate) trait Float: Number + Zero {
    /// Truncates toward zero; values that do not fit become -2³¹, as with `cvttps2dq` and similar instructions.
    fn to_i32(self) -> i32;
    /// Truncates toward zero; values that do not fit become -2⁶³.
    fn to_i64(self) -> i64;
    /// Subtracts 2⁶³ from a value of at least that, and reports whether it did.
    fn below_2_63(self) -> (Self, bool);
}

const TWO_31: f32 = 2_147_483_648.0;
const TWO_63: f32 = 9_223_372_036_854_775_808.0;

macro_rules! floats {
    ($($type:ty)*) => {$(
        impl Float for $type {
            #[inline(always)]
            fn to_i32(self) -> i32 {
                let limit = <$type>::from(TWO_31);
                let inside = if self.abs() < limit { self } else { -limit };
                // SAFETY: it is a number of at least -2^31 and below 2^31, so the truncated value fits; NaN compares false and
                // was replaced.
                unsafe { inside.to_int_unchecked() }
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                let limit = <$type>::from(TWO_63);
                let inside = if self.abs() < limit { self } else { -limit };
                // SAFETY: as above, with 2^63.
                unsafe { inside.to_int_unchecked() }
            }
            #[inline(always)]
            fn below_2_63(self) -> (Self, bool) {
                let limit = <$type>::from(TWO_63);
                (if self >= limit { self - limit } else { self }, self >= limit)
            }
        }
    )*};
}

floats! { f32 f64 }

//! Floats cut to integers, by the one instruction that processors have for it.
#![expect(unsafe_code, reason = "the safe `as` checks each lane for what was excluded before, and takes four times as long")]

use num_traits::Zero;

use super::number::Number;

/// A float that can be cut to an integer.
pub(crate) trait Float: Number + Zero {
    /// Towards zero; -2³¹ for what does not fit, which is what `cvttps2dq` and its like give.
    fn to_i32(self) -> i32;
    /// Towards zero; -2⁶³ for what does not fit.
    fn to_i64(self) -> i64;
    /// What is at least 2⁶³ less that much, and whether it was.
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
                // SAFETY: it is a number from -2^31 on and below 2^31, so that what it is cut to fits; NaN is not less than
                // anything, and was replaced.
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

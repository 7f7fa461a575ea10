//! Rust types for elements that Rust has no type for.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytemuck::{Pod, Zeroable};

use crate::cast::pairs::narrow;
use crate::cast::small::{SmallFloat, SmallInt};

macro_rules! floats {
    ($($(#[$doc:meta])* $name:ident = $format:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(u8);

        /// As numbers: NaN is equal to nothing, 0.0 to -0.0.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.to_f32() == other.to_f32()
            }
        }

        impl $name {
            /// The element with this code.
            #[must_use]
            pub fn from_bits(code: u8) -> Self {
                Self(code)
            }

            /// The code of the element.
            #[must_use]
            pub fn to_bits(self) -> u8 {
                self.0
            }

            /// The nearest value, ties to even; what is too large becomes what `ml_dtypes` makes of it.
            #[must_use]
            pub fn from_f32(value: f32) -> Self {
                Self(narrow(SmallFloat::$format, value))
            }

            /// Its value, exact.
            #[must_use]
            pub fn to_f32(self) -> f32 {
                SmallFloat::$format.decode(self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.to_f32())
            }
        }
    )*};
}

floats! {
    /// Five bits of exponent, two of mantissa, as in IEEE 754.
    Float8E5M2 = E5M2;
    /// Four bits of exponent, three of mantissa; no infinities.
    Float8E4M3Fn = E4M3FN;
    /// As [`Float8E4M3Fn`] with a bias of 8; no negative zero, which is NaN.
    Float8E4M3Fnuz = E4M3FNUZ;
    /// The same with a bias of 11.
    Float8E4M3B11Fnuz = E4M3B11FNUZ;
    /// As [`Float8E5M2`] with a bias of 16; no infinities, no negative zero, which is NaN.
    Float8E5M2Fnuz = E5M2FNUZ;
    /// Two bits of exponent, one of mantissa, in the low bits of a byte.
    Float4E2M1Fn = E2M1FN;
}

macro_rules! ints {
    ($($(#[$doc:meta])* $name:ident($int:ty) = $format:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(u8);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.get() == other.get()
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.get().hash(state);
            }
        }

        impl $name {
            /// The element with the low bits of this byte; the others do not count.
            #[must_use]
            pub fn from_bits(byte: u8) -> Self {
                Self(byte)
            }

            /// The byte it is stored as.
            #[must_use]
            pub fn to_bits(self) -> u8 {
                self.0
            }

            /// Its value.
            #[must_use]
            #[expect(clippy::allow_attributes, reason = "one of the types is that of the value already")]
            #[allow(clippy::cast_sign_loss, reason = "unsigned ones are not negative")]
            pub fn get(self) -> $int {
                SmallInt::$format.decode(self.0) as $int
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.get())
            }
        }
    )*};
}

ints! {
    /// From -8 to 7, in the low bits of a byte.
    Int4(i8) = INT4;
    /// From 0 to 15, in the low bits of a byte.
    UInt4(u8) = UINT4;
    /// From -2 to 1, in the low bits of a byte.
    Int2(i8) = INT2;
    /// From 0 to 3, in the low bits of a byte.
    UInt2(u8) = UINT2;
}

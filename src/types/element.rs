//! Rust types for the elements that Rust has no type for.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};
use num_complex::Complex;

use super::dtype::Dtype;
use super::small::{SmallFloat, SmallInt};

macro_rules! floats {
    ($($(#[$doc:meta])* $name:ident = $format:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name(u8);

        /// Compares values: NaN is equal to nothing, and 0.0 equals -0.0.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.to_f32() == other.to_f32()
            }
        }

        impl $name {
            /// The element with this bit pattern.
            #[must_use]
            pub fn from_bits(code: u8) -> Self {
                Self(code)
            }

            /// The bit pattern of the element.
            #[must_use]
            pub fn to_bits(self) -> u8 {
                self.0
            }

            /// The exact value.
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
    /// Five bits of exponent and two of mantissa, as in IEEE 754.
    Float8E5M2 = E5M2;
    /// Four bits of exponent and three of mantissa; no infinities.
    Float8E4M3Fn = E4M3FN;
    /// Like [`Float8E4M3Fn`] with a bias of 8 and no negative zero; the bit pattern of -0.0 is NaN.
    Float8E4M3Fnuz = E4M3FNUZ;
    /// Like [`Float8E4M3Fnuz`] with a bias of 11.
    Float8E4M3B11Fnuz = E4M3B11FNUZ;
    /// Like [`Float8E5M2`] with a bias of 16; no infinities, and no negative zero: its bit pattern is NaN.
    Float8E5M2Fnuz = E5M2FNUZ;
    /// Two bits of exponent and one of mantissa, in the low bits of a byte.
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
            /// The element in the low bits of this byte; the high bits are ignored.
            #[must_use]
            pub fn from_bits(byte: u8) -> Self {
                Self(byte)
            }

            /// The byte as stored.
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

/// A Rust type that an array can be viewed as. The trait is sealed because the layout must match the `.npy` data.
pub trait Element: sealed::Sealed + Send + Sync + 'static {
    /// The dtypes whose elements have the layout of this type.
    const DTYPES: &'static [Dtype];
    /// The type's name for messages.
    const NAME: &'static str;
}

mod sealed {
    use bytemuck::{CheckedBitPattern, Pod};

    pub trait Sealed: CheckedBitPattern<Bits: Pod + Send + Sync> {
        /// Converts raw bits to elements.
        ///
        /// # Errors
        /// Returns the position of the first invalid bit pattern.
        fn of_bits(bits: Vec<Self::Bits>) -> Result<Vec<Self>, usize>;
    }
}

macro_rules! elements {
    ($($type:ty = $name:literal: $($dtype:ident)|+;)*) => {$(
        impl sealed::Sealed for $type {
            fn of_bits(bits: Vec<Self>) -> Result<Vec<Self>, usize> {
                Ok(bits)
            }
        }
        impl Element for $type {
            const DTYPES: &'static [Dtype] = &[$(Dtype::$dtype),+];
            const NAME: &'static str = $name;
        }
    )*};
}

elements! {
    f32 = "f32": Float32;
    f64 = "f64": Float64;
    f16 = "half::f16": Float16;
    bf16 = "half::bf16": BFloat16;
    Complex<f32> = "Complex<f32>": Complex64;
    Complex<f64> = "Complex<f64>": Complex128;
    i8 = "i8": Int8 | QInt8;
    i16 = "i16": Int16 | QInt16;
    i32 = "i32": Int32 | QInt32;
    i64 = "i64": Int64;
    u8 = "u8": UInt8 | QUInt8;
    u16 = "u16": UInt16 | QUInt16;
    u32 = "u32": UInt32;
    u64 = "u64": UInt64;
    Float8E5M2 = "Float8E5M2": Float8E5M2;
    Float8E4M3Fn = "Float8E4M3Fn": Float8E4M3Fn;
    Float8E4M3Fnuz = "Float8E4M3Fnuz": Float8E4M3Fnuz;
    Float8E4M3B11Fnuz = "Float8E4M3B11Fnuz": Float8E4M3B11Fnuz;
    Float8E5M2Fnuz = "Float8E5M2Fnuz": Float8E5M2Fnuz;
    Float4E2M1Fn = "Float4E2M1Fn": Float4E2M1Fn;
    Int4 = "Int4": Int4;
    UInt4 = "UInt4": UInt4;
    Int2 = "Int2": Int2;
    UInt2 = "UInt2": UInt2;
}

impl sealed::Sealed for bool {
    fn of_bits(bits: Vec<u8>) -> Result<Vec<Self>, usize> {
        match bits.iter().position(|&bits| bits > 1) {
            Some(odd) => Err(odd),
            None => Ok(bits.into_iter().map(|bits| bits == 1).collect()),
        }
    }
}

impl Element for bool {
    const DTYPES: &'static [Dtype] = &[Dtype::Bool];
    const NAME: &'static str = "bool";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_are_as_large_as_their_dtypes() {
        fn check<T: Element>() {
            for dtype in T::DTYPES {
                assert_eq!(dtype.itemsize(), Some(size_of::<T>() as u64), "{dtype}");
            }
        }
        check::<f32>();
        check::<bf16>();
        check::<Complex<f64>>();
        check::<bool>();
        check::<u16>();
    }
}

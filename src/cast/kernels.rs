//! Operations on one element, without branches, so that the compiler can vectorise them.
//!
//! Results match `numpy.ndarray.astype` on x86-64, NaN bits included; `docs/formats.md` has the rules.

#![expect(clippy::inline_always, reason = "only inlined code is compiled for the vector unit of its caller")]

use std::marker::PhantomData;

use num_traits::{AsPrimitive, Zero};

use super::cut::Float;
use super::number::Number;

/// Converts one element. `apply` is always inlined into a loop that is compiled for several vector units.
pub(crate) trait Op: 'static {
    type From: Number;
    type To: Number;
    fn apply(x: Self::From) -> Self::To;
}

/// Applies `A`, then `B`.
pub(crate) struct Then<A, B>(PhantomData<(A, B)>);

impl<A: Op, B: Op<From = A::To>> Op for Then<A, B> {
    type From = A::From;
    type To = B::To;
    #[inline(always)]
    fn apply(x: A::From) -> B::To {
        B::apply(A::apply(x))
    }
}

/// Leaves an element unchanged.
pub(crate) struct Identity<T>(PhantomData<T>);

impl<T: Number> Op for Identity<T> {
    type From = T;
    type To = T;
    #[inline(always)]
    fn apply(x: T) -> T {
        x
    }
}

/// Converts a number to a bool: 0.0 and -0.0 become 0, all else 1, NaN included.
pub(crate) struct IsNonZero<T>(PhantomData<T>);

impl<T: Number + Zero> Op for IsNonZero<T> {
    type From = T;
    type To = u8;
    #[inline(always)]
    fn apply(x: T) -> u8 {
        u8::from(!x.is_zero())
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident $(<$generic:ident: $bound:path>)? ($x:ident: $from:ty) -> $to:ty $body:block)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name $(<$generic>)? ($(PhantomData<$generic>)?);
        impl $(<$generic: $bound>)? Op for $name $(<$generic>)? {
            type From = $from;
            type To = $to;
            #[inline(always)]
            #[expect(clippy::allow_attributes, reason = "not every body truncates")]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wrapping is what NumPy does")]
            fn apply($x: $from) -> $to $body
        }
    )*};
}

/// Rust's `as`. Integers wrap or are extended. Integers that become floats, and floats that become narrower, are rounded once,
/// ties to even.
pub(crate) struct As<F, T>(PhantomData<(F, T)>);

impl<F: Number + AsPrimitive<T>, T: Number> Op for As<F, T> {
    type From = F;
    type To = T;
    #[inline(always)]
    fn apply(x: F) -> T {
        x.as_()
    }
}

/// A type that keeps the low bits of an integer.
pub(crate) trait LowBits: Number {
    fn of_i32(x: i32) -> Self;
}

macro_rules! low_bits {
    ($($type:ty)*) => {$(
        impl LowBits for $type {
            #[inline(always)]
            #[expect(clippy::allow_attributes, reason = "not every type truncates")]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low bits are wanted")]
            fn of_i32(x: i32) -> Self {
                x as Self
            }
        }
    )*};
}

low_bits! { u8 u16 u32 }

/// Truncates a float to 32 bits and keeps the low bits, for integers of up to 32 bits except `uint32`.
pub(crate) struct Cut<F, T>(PhantomData<(F, T)>);

impl<F: Float, T: LowBits> Op for Cut<F, T> {
    type From = F;
    type To = T;
    #[inline(always)]
    fn apply(x: F) -> T {
        T::of_i32(x.to_i32())
    }
}

ops! {
    /// Truncates a float to 64 bits and keeps the low half. NumPy does this for single elements; for groups of elements it gives
    /// other values out of range.
    CutToU32<F: Float>(x: F) -> u32 { x.to_i64() as u32 }

    /// Truncates a float to `int64`.
    CutToI64<F: Float>(x: F) -> i64 { x.to_i64() }

    /// Truncates a float to `uint64`.
    CutToU64<F: Float>(x: F) -> u64 {
        let (x, is_above) = x.below_2_63();
        x.to_i64() as u64 ^ (u64::from(is_above) << 63)
    }

    /// Rounds to nearest, ties to even. A NaN keeps its sign and the upper bits of its payload.
    HalfOfSingle(x: f32) -> u16 {
        let (bits, sign) = (x.to_bits() & 0x7fff_ffff, x.to_bits() >> 16 & 0x8000);
        let normal = ((bits + 0xfff + (bits >> 13 & 1)) >> 13).wrapping_sub(112 << 10);
        // Adding a number whose last place equals the smallest half makes the adder round to that place.
        let subnormal = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if bits < 113 << 23 { subnormal } else { normal };
        let payload = bits >> 13 & 0x3ff;
        let nan = 0x7c00 | if payload == 0 { 1 } else { payload };
        (sign | if bits > 0x7f80_0000 { nan } else { finite.min(0x7c00) }) as u16
    }

    /// Like [`HalfOfSingle`], rounded once.
    HalfOfDouble(x: f64) -> u16 {
        let (bits, sign) = (x.to_bits() & (u64::MAX >> 1), x.to_bits() >> 48 & 0x8000);
        let normal = ((bits + ((1 << 41) - 1) + (bits >> 42 & 1)) >> 42).wrapping_sub(1008 << 10);
        let magic = f64::from_bits((1023 + 28) << 52);
        let subnormal = (f64::from_bits(bits) + magic).to_bits().wrapping_sub(magic.to_bits());
        let finite = if bits < 1009 << 52 { subnormal } else { normal };
        let payload = bits >> 42 & 0x3ff;
        let nan = 0x7c00 | if payload == 0 { 1 } else { payload };
        (sign | if bits > 0x7ff << 52 { nan } else { finite.min(0x7c00) }) as u16
    }

    /// Exact. A NaN keeps its sign and payload.
    SingleOfHalf(x: u16) -> f32 {
        let bits = u32::from(x & 0x7fff) << 13;
        let normal = bits + (112 << 23) + if bits >= 0x7c00 << 13 { 112 << 23 } else { 0 };
        let least = 113 << 23;
        let subnormal = (f32::from_bits(bits + least) - f32::from_bits(least)).to_bits();
        f32::from_bits(if bits < 0x400 << 13 { subnormal } else { normal } | u32::from(x & 0x8000) << 16)
    }

    /// Exact. A NaN keeps its sign and payload.
    DoubleOfHalf(x: u16) -> f64 {
        let bits = u64::from(x & 0x7fff) << 42;
        let normal = bits + (1008 << 52) + if bits >= 0x7c00 << 42 { 1008 << 52 } else { 0 };
        let least = 1009 << 52;
        let subnormal = (f64::from_bits(bits + least) - f64::from_bits(least)).to_bits();
        f64::from_bits(if bits < 0x400 << 42 { subnormal } else { normal } | u64::from(x & 0x8000) << 48)
    }

    /// Exact.
    SingleOfBfloat(x: u16) -> f32 { f32::from_bits(u32::from(x) << 16) }

    /// Exact, except that NaNs lose their payload.
    SingleOfBfloatPlainNan(x: u16) -> f32 {
        f32::from_bits(u32::from(if x & 0x7fff > 0x7f80 { x & 0x8000 | 0x7fc0 } else { x }) << 16)
    }

    /// Rounds to nearest, ties to even. NaNs lose their payload.
    BfloatOfSingle(x: f32) -> u16 {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
        (if bits & 0x7fff_ffff > 0x7f80_0000 { bits >> 16 & 0x8000 | 0x7fc0 } else { rounded }) as u16
    }

    /// A bool normalised to 0 or 1.
    IsNonZero8(x: u8) -> u8 { u8::from(x != 0) }
    /// The real part of a complex number, which comes first; and a complex number made from a real one.
    RealSingle(x: u64) -> f32 { f32::from_bits(x as u32) }
    RealDouble(x: u128) -> f64 { f64::from_bits(x as u64) }
    ComplexOfSingle(x: f32) -> u64 { x.to_bits().into() }
    ComplexOfDouble(x: f64) -> u128 { x.to_bits().into() }
    /// Whether either part is non-zero; signs are ignored.
    IsNonZeroComplex64(x: u64) -> u8 { u8::from(x & 0x7fff_ffff_7fff_ffff != 0) }
    IsNonZeroComplex128(x: u128) -> u8 { u8::from(x & 0x7fff_ffff_ffff_ffff_7fff_ffff_ffff_ffff != 0) }

    /// The low four or two bits of an integer, sign-extended if it is signed.
    Low4(x: u8) -> u8 { x & 0xf }
    Low2(x: u8) -> u8 { x & 3 }
    Extend4(x: i8) -> i8 { x << 4 >> 4 }
    Extend2(x: i8) -> i8 { x << 6 >> 6 }

    /// Swaps the byte order.
    Swap16(x: u16) -> u16 { x.swap_bytes() }
    Swap32(x: u32) -> u32 { x.swap_bytes() }
    Swap64(x: u64) -> u64 { x.swap_bytes() }
}

/// Rounds an `f32` to a float of at most eight bits, ties to even. The format defines overflow and NaN.
///
/// `MANTISSA` and `BIAS` describe the format. `LARGEST` is the code of its largest number, `OVER` replaces larger ones, `NAN`
/// replaces NaN, `SIGN` is the bit that a minus sign flips. `UNSIGNED_ZERO`: neither 0 nor NaN is signed.
pub(crate) struct Narrow<
    const MANTISSA: u32,
    const BIAS: u32,
    const LARGEST: u32,
    const OVER: u32,
    const NAN: u32,
    const SIGN: u32,
    const UNSIGNED_ZERO: bool,
>;

impl<const MANTISSA: u32, const BIAS: u32, const LARGEST: u32, const OVER: u32, const NAN: u32, const SIGN: u32, const UNSIGNED_ZERO: bool>
    Op for Narrow<MANTISSA, BIAS, LARGEST, OVER, NAN, SIGN, UNSIGNED_ZERO>
{
    type From = f32;
    type To = u8;
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "codes have eight bits")]
    fn apply(x: f32) -> u8 {
        let (bits, is_negative) = (x.to_bits() & 0x7fff_ffff, x.to_bits() >> 31);
        let shift = 23 - MANTISSA;
        let normal = ((bits + ((1 << (shift - 1)) - 1) + (bits >> shift & 1)) >> shift).wrapping_sub((127 - BIAS) << MANTISSA);
        // The same rounding as for halves.
        let magic = (127 + 24 - BIAS - MANTISSA) << 23;
        let subnormal = (f32::from_bits(bits) + f32::from_bits(magic)).to_bits().wrapping_sub(magic);
        let code = if bits < (128 - BIAS) << 23 { subnormal } else { normal };
        let code = if code > LARGEST { OVER } else { code };
        let code = if bits > 0x7f80_0000 { NAN } else { code };
        let sign = if UNSIGNED_ZERO && (code == 0 || code == NAN) { 0 } else { is_negative * SIGN };
        (code ^ sign) as u8
    }
}

pub(crate) type E5M2OfSingle = Narrow<2, 15, 0x7b, 0x7c, 0x7e, 0x80, false>;
pub(crate) type E4M3FnOfSingle = Narrow<3, 7, 0x7e, 0x7f, 0x7f, 0x80, false>;
pub(crate) type E4M3FnuzOfSingle = Narrow<3, 8, 0x7f, 0x80, 0x80, 0x80, true>;
pub(crate) type E4M3B11FnuzOfSingle = Narrow<3, 11, 0x7f, 0x80, 0x80, 0x80, true>;
pub(crate) type E5M2FnuzOfSingle = Narrow<2, 16, 0x7f, 0x80, 0x80, 0x80, true>;
/// Overflow becomes the largest number, and NaN the zero of the opposite sign.
pub(crate) type E2M1FnOfSingle = Narrow<1, 1, 7, 7, 8, 8, false>;

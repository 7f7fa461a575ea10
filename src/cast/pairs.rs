//! The table of casts: selects the loop for a pair of dtypes.
//!
//! Every source converts without loss to one of a few types (an integer, an `f32`, an `f64`), and every target is made from one
//! of these. Both halves are fused into one operation, so that each pair is one loop over memory.

use num_traits::AsPrimitive;

use super::cut::Float;
use super::kernels::{
    As, BfloatOfSingle, ComplexOfDouble, ComplexOfSingle, Cut, CutToI64, CutToU32, CutToU64, DoubleOfHalf, E2M1FnOfSingle,
    E4M3B11FnuzOfSingle, E4M3FnOfSingle, E4M3FnuzOfSingle, E5M2FnuzOfSingle, E5M2OfSingle, Extend2, Extend4, HalfOfDouble, HalfOfSingle,
    Identity, IsNonZero, IsNonZero8, IsNonZeroComplex64, IsNonZeroComplex128, Low2, Low4, Op, RealDouble, RealSingle, SingleOfBfloat,
    SingleOfBfloatPlainNan, SingleOfHalf, Then,
};
use super::step::{Step, map, map_parts};
use crate::types::dtype::Dtype;
use crate::types::element::{Float4E2M1Fn, Float8E4M3B11Fnuz, Float8E4M3Fn, Float8E4M3Fnuz, Float8E5M2, Float8E5M2Fnuz};
use crate::types::small::{Small, SmallFloat, SmallInt};

/// The part of a dtype that casts depend on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int {
        itemsize: usize,
        signed: bool,
    },
    Half,
    Bfloat,
    Single,
    Double,
    /// A complex number of two such parts.
    Complex(ComplexOf),
    Small(Small),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ComplexOf {
    Single,
    Double,
}

impl Kind {
    fn itemsize(self) -> usize {
        match self {
            Self::Bool | Self::Small(_) => 1,
            Self::Half | Self::Bfloat => 2,
            Self::Int { itemsize, .. } => itemsize,
            Self::Single => 4,
            Self::Double | Self::Complex(ComplexOf::Single) => 8,
            Self::Complex(ComplexOf::Double) => 16,
        }
    }

    fn of(dtype: Dtype) -> Option<Self> {
        let int = |itemsize, signed| Some(Self::Int { itemsize, signed });
        match dtype {
            Dtype::Bool => Some(Self::Bool),
            Dtype::Int8 | Dtype::QInt8 => int(1, true),
            Dtype::Int16 | Dtype::QInt16 => int(2, true),
            Dtype::Int32 | Dtype::QInt32 => int(4, true),
            Dtype::Int64 => int(8, true),
            Dtype::UInt8 | Dtype::QUInt8 => int(1, false),
            Dtype::UInt16 | Dtype::QUInt16 => int(2, false),
            Dtype::UInt32 => int(4, false),
            Dtype::UInt64 => int(8, false),
            Dtype::Float16 => Some(Self::Half),
            Dtype::BFloat16 => Some(Self::Bfloat),
            Dtype::Float32 => Some(Self::Single),
            Dtype::Float64 => Some(Self::Double),
            Dtype::Complex64 => Some(Self::Complex(ComplexOf::Single)),
            Dtype::Complex128 => Some(Self::Complex(ComplexOf::Double)),
            Dtype::String | Dtype::Resource | Dtype::Variant => None,
            small => Small::of(small).map(Self::Small),
        }
    }
}

/// The loop from one dtype to another; `None` if the bytes stay unchanged.
///
/// # Errors
/// Returns the reason if there is no such cast.
pub(crate) fn find(from: Dtype, to: Dtype) -> Result<Option<Step>, &'static str> {
    let Some(source) = Kind::of(from) else {
        return Err("its elements are not numbers");
    };
    let Some(target) = Kind::of(to) else {
        return Err("a cast can only produce numbers");
    };
    if from == to {
        // Bool is the only type in which some bytes are not valid values.
        return Ok((source == Kind::Bool).then(map::<IsNonZero8>));
    }
    if matches!(to, Dtype::QInt8 | Dtype::QUInt8 | Dtype::QInt16 | Dtype::QUInt16 | Dtype::QInt32) {
        return Err("a quantised dtype needs a scale, which a cast does not have; cast to the integer it is stored as, such as int8");
    }
    if let (Kind::Small(Small::Int(_)), Kind::Small(Small::Int(_))) = (source, target)
        && !matches!((from, to), (Dtype::Int2, Dtype::Int4) | (Dtype::UInt2, Dtype::UInt4))
    {
        return Err("NumPy only widens integers of four and two bits, with the same sign; cast to int8 first");
    }
    Ok(pair(source, target))
}

/// Like [`find`], for pairs that have a cast.
fn pair(source: Kind, target: Kind) -> Option<Step> {
    use ComplexOf::{Double, Single};
    Some(match (source, target) {
        _ if source == target => return None,
        // The bytes are the same.
        (Kind::Int { itemsize: a, .. }, Kind::Int { itemsize: b, .. }) if a == b => return None,
        (Kind::Int { itemsize, signed }, _) => match (itemsize, signed) {
            (1, true) => from_int::<Identity<i8>>(target),
            (1, false) => from_int::<Identity<u8>>(target),
            (2, true) => from_int::<Identity<i16>>(target),
            (2, false) => from_int::<Identity<u16>>(target),
            (4, true) => from_int::<Identity<i32>>(target),
            (4, false) => from_int::<Identity<u32>>(target),
            (_, true) => from_int::<Identity<i64>>(target),
            (_, false) => from_int::<Identity<u64>>(target),
        },
        (Kind::Small(Small::Int(int)), _) => match (int.bits, int.signed) {
            (4, true) => from_int::<Extend4>(target),
            (4, false) => from_int::<Low4>(target),
            (_, true) => from_int::<Extend2>(target),
            (_, false) => from_int::<Low2>(target),
        },
        (Kind::Bool, _) => from_int::<IsNonZero8>(target),
        (Kind::Small(Small::Float(float)), _) => table(float, target),
        (Kind::Bfloat, Kind::Half) => from_single::<SingleOfBfloatPlainNan>(target),
        (Kind::Bfloat, _) => from_single::<SingleOfBfloat>(target),
        (Kind::Half, Kind::Double | Kind::Complex(Double)) => from_double::<DoubleOfHalf>(target),
        (Kind::Half, _) => from_single::<SingleOfHalf>(target),
        (Kind::Single, _) => from_single::<Identity<f32>>(target),
        (Kind::Double, _) => from_double::<Identity<f64>>(target),
        (Kind::Complex(Single), Kind::Bool) => map::<IsNonZeroComplex64>(),
        (Kind::Complex(Double), Kind::Bool) => map::<IsNonZeroComplex128>(),
        (Kind::Complex(Single), Kind::Complex(_)) => map_parts::<As<f32, f64>>(),
        (Kind::Complex(Double), Kind::Complex(_)) => map_parts::<As<f64, f32>>(),
        (Kind::Complex(Single), _) => from_single::<RealSingle>(target),
        (Kind::Complex(Double), _) => from_double::<RealDouble>(target),
    })
}

/// Casts from the integer that `P` produces.
fn from_int<P: Op>(target: Kind) -> Step
where
    P::To: AsPrimitive<u8> + AsPrimitive<u16> + AsPrimitive<u32> + AsPrimitive<u64> + AsPrimitive<f32> + AsPrimitive<f64>,
{
    match target {
        Kind::Bool => map::<Then<Then<P, As<P::To, u64>>, IsNonZero<u64>>>(),
        Kind::Int { itemsize: 1, .. } => map::<Then<P, As<P::To, u8>>>(),
        Kind::Int { itemsize: 2, .. } => map::<Then<P, As<P::To, u16>>>(),
        Kind::Int { itemsize: 4, .. } => map::<Then<P, As<P::To, u32>>>(),
        Kind::Int { .. } => map::<Then<P, As<P::To, u64>>>(),
        Kind::Small(Small::Int(int)) => low::<Then<P, As<P::To, u8>>>(int),
        Kind::Double | Kind::Complex(ComplexOf::Double) => from_double::<Then<P, As<P::To, f64>>>(target),
        // An integer that an `f32` cannot hold exactly is too large for a half anyway.
        _ => from_single::<Then<P, As<P::To, f32>>>(target),
    }
}

/// Casts from the `f32` that `P` produces.
fn from_single<P: Op<To = f32>>(target: Kind) -> Step {
    match target {
        Kind::Small(Small::Float(float)) => match float {
            SmallFloat::E5M2 => map::<Then<P, E5M2OfSingle>>(),
            SmallFloat::E4M3FN => map::<Then<P, E4M3FnOfSingle>>(),
            SmallFloat::E4M3FNUZ => map::<Then<P, E4M3FnuzOfSingle>>(),
            SmallFloat::E4M3B11FNUZ => map::<Then<P, E4M3B11FnuzOfSingle>>(),
            SmallFloat::E5M2FNUZ => map::<Then<P, E5M2FnuzOfSingle>>(),
            _ => map::<Then<P, E2M1FnOfSingle>>(),
        },
        Kind::Half => map::<Then<P, HalfOfSingle>>(),
        Kind::Bfloat => map::<Then<P, BfloatOfSingle>>(),
        Kind::Single => map::<P>(),
        Kind::Double => map::<Then<P, As<f32, f64>>>(),
        Kind::Complex(ComplexOf::Single) => map::<Then<P, ComplexOfSingle>>(),
        Kind::Complex(ComplexOf::Double) => map::<Then<Then<P, As<f32, f64>>, ComplexOfDouble>>(),
        Kind::Bool | Kind::Int { .. } | Kind::Small(Small::Int(_)) => cut::<P>(target),
    }
}

/// The code of the small float that is nearest to a value.
fn narrow(float: SmallFloat, value: f32) -> u8 {
    let mut code = [0];
    from_single::<Identity<f32>>(Kind::Small(Small::Float(float))).run(&value.to_le_bytes(), &mut code);
    code[0]
}

macro_rules! from_singles {
    ($($name:ident = $format:ident;)*) => {$(
        impl $name {
            /// Rounds to the nearest value, ties to even; overflow is handled as in `ml_dtypes`.
            #[must_use]
            pub fn from_f32(value: f32) -> Self {
                Self::from_bits(narrow(SmallFloat::$format, value))
            }
        }
    )*};
}

from_singles! {
    Float8E5M2 = E5M2;
    Float8E4M3Fn = E4M3FN;
    Float8E4M3Fnuz = E4M3FNUZ;
    Float8E4M3B11Fnuz = E4M3B11FNUZ;
    Float8E5M2Fnuz = E5M2FNUZ;
    Float4E2M1Fn = E2M1FN;
}

/// Casts from the `f64` that `P` produces.
fn from_double<P: Op<To = f64>>(target: Kind) -> Step {
    match target {
        Kind::Half => map::<Then<P, HalfOfDouble>>(),
        Kind::Double => map::<P>(),
        Kind::Complex(ComplexOf::Double) => map::<Then<P, ComplexOfDouble>>(),
        Kind::Bool | Kind::Int { .. } | Kind::Small(Small::Int(_)) => cut::<P>(target),
        _ => from_single::<Then<P, As<f64, f32>>>(target),
    }
}

/// Casts from the float that `P` produces to a bool or an integer.
fn cut<P: Op>(target: Kind) -> Step
where
    P::To: Float,
{
    match target {
        Kind::Int { itemsize: 1, .. } => map::<Then<P, Cut<P::To, u8>>>(),
        Kind::Int { itemsize: 2, .. } => map::<Then<P, Cut<P::To, u16>>>(),
        Kind::Int { itemsize: 4, signed: true } => map::<Then<P, Cut<P::To, u32>>>(),
        Kind::Int { itemsize: 4, signed: false } => map::<Then<P, CutToU32<P::To>>>(),
        Kind::Int { signed: true, .. } => map::<Then<P, CutToI64<P::To>>>(),
        Kind::Int { .. } => map::<Then<P, CutToU64<P::To>>>(),
        Kind::Small(Small::Int(int)) => low::<Then<P, Cut<P::To, u8>>>(int),
        _ => map::<Then<P, IsNonZero<P::To>>>(),
    }
}

/// Keeps the low bits of the byte that `P` produces.
fn low<P: Op<To = u8>>(int: SmallInt) -> Step {
    if int.bits == 4 { map::<Then<P, Low4>>() } else { map::<Then<P, Low2>>() }
}

/// A table of the results for all 256 codes of a small float.
fn table(float: SmallFloat, target: Kind) -> Step {
    let values: Vec<f32> = (0..=255).map(|code| float.decode(code)).collect();
    let singles: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut entries = vec![0; 256 * target.itemsize()];
    match pair(Kind::Single, target) {
        Some(step) => step.run(&singles, &mut entries),
        None => entries.copy_from_slice(&singles),
    }
    // For infinities and NaN, ml_dtypes converts to integers like Rust's `as`; to four and two bits it goes through 32.
    for (value, entry) in values.iter().zip(entries.chunks_exact_mut(target.itemsize())).filter(|(value, _)| !value.is_finite()) {
        let Some(nearest) = nearest_integer(*value, target) else { break };
        entry.copy_from_slice(&nearest.to_le_bytes()[..entry.len()]);
    }
    Step::Table { entries, itemsize: target.itemsize() }
}

/// The integer of kind `target` nearest to a value, 0 for NaN; `None` if `target` is not an integer kind.
fn nearest_integer(value: f32, target: Kind) -> Option<i64> {
    fn clamp<T: AsPrimitive<i64>>(value: f32) -> i64
    where
        f32: AsPrimitive<T>,
    {
        let nearest: T = value.as_();
        nearest.as_()
    }
    Some(match target {
        Kind::Int { itemsize: 1, signed: true } => clamp::<i8>(value),
        Kind::Int { itemsize: 2, signed: true } => clamp::<i16>(value),
        Kind::Int { itemsize: 4, signed: true } => clamp::<i32>(value),
        Kind::Int { itemsize: 8, signed: true } => clamp::<i64>(value),
        Kind::Int { itemsize: 1, .. } => clamp::<u8>(value),
        Kind::Int { itemsize: 2, .. } => clamp::<u16>(value),
        Kind::Int { itemsize: 4, .. } => clamp::<u32>(value),
        Kind::Int { .. } => clamp::<u64>(value),
        Kind::Small(Small::Int(int)) => clamp::<i32>(value) & ((1 << int.bits) - 1),
        _ => return None,
    })
}

//! The table of casts: what is done to get from one element type to another.

use std::fmt;

use num_traits::AsPrimitive;

use super::cut::Float;
use super::kernels::{
    As, BfloatOfSingle, Cut, CutToI64, CutToU32, CutToU64, DoubleOfHalf, E2M1FnOfSingle, E4M3B11FnuzOfSingle, E4M3FnOfSingle,
    E4M3FnuzOfSingle, E5M2FnuzOfSingle, E5M2OfSingle, Extend2, Extend4, HalfOfDouble, HalfOfSingle, IsNonZero8, IsNonZero16, IsNonZero32,
    IsNonZero64, IsNonZeroComplex64, IsNonZeroComplex128, IsNonZeroDouble, IsNonZeroHalf, IsNonZeroSingle, Low2, Low4, Number, Op,
    SingleOfBfloat, SingleOfBfloatPlainNan, SingleOfHalf, Swap16, Swap32, Swap64,
};
use super::simd;
use super::small::{Small, SmallFloat, SmallInt};
use crate::decode::ByteOrder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::spec::memory_len;

/// Elements that go through all steps before the next ones do, so that what lies between steps stays in the nearest cache.
const BLOCK: usize = 1024;
/// Bytes of the largest element.
const MOST_ITEM: usize = 16;

/// A cast of elements from one dtype to another, as `numpy.ndarray.astype` does it with `casting="unsafe"`, bit for bit.
///
/// - Integers wrap. Floats become integers as on x86-64: cut towards zero to 32 bits (64 for 64-bit targets and `uint32`),
///   of which the low ones are kept; what does not fit, and NaN, is the least of those integers. NumPy has two answers for
///   floats outside `-2³¹..2³²` to `uint32`, depending on the place in the array; this is the one of single elements.
///   Infinities of eight-bit floats become the nearest integer, their NaN 0.
/// - Floats are rounded to nearest, ties to even, in one step; those to `bfloat16` and the eight-bit floats from `float64` and
///   from integers by way of `float32`, as `ml_dtypes` does.
/// - Complex numbers lose their imaginary part. Anything but 0 is true.
///
/// ```
/// use mmconvert::{Cast, Dtype};
///
/// let cast = Cast::new(Dtype::Float32, Dtype::Float16)?;
/// let mut halves = [0; 4];
/// cast.run(&[[0x00, 0x00, 0x80, 0x3f], [0x00, 0xe0, 0x7f, 0x47]].concat(), &mut halves)?; // 1.0 and 65504.0
/// assert_eq!(halves, [0x00, 0x3c, 0xff, 0x7b]);
/// # Ok::<(), mmconvert::Error>(())
/// ```
#[derive(Clone)]
pub struct Cast {
    from: Dtype,
    to: Dtype,
    pipe: Pipe,
}

/// Steps one after the other, with the bytes of an element before the first and behind the last.
#[derive(Clone)]
struct Pipe {
    steps: Vec<Step>,
    item_from: usize,
    item_to: usize,
}

/// One pass over a block.
#[derive(Clone)]
enum Step {
    /// A loop, and the bytes of the elements that it makes.
    Map { run: fn(&[u8], &mut [u8]), itemsize: usize },
    /// From bytes: what each of the 256 becomes, side by side.
    Table { entries: Vec<u8>, itemsize: usize },
}

fn map<O: Op>() -> Step {
    Step::Map { run: simd::map::<O>, itemsize: size_of::<<O::To as Number>::Bytes>() }
}

/// The same for both parts of a complex number.
fn map_parts<O: Op>() -> Step {
    Step::Map { run: simd::map::<O>, itemsize: 2 * size_of::<<O::To as Number>::Bytes>() }
}

impl Step {
    fn itemsize(&self) -> usize {
        match *self {
            Self::Map { itemsize, .. } | Self::Table { itemsize, .. } => itemsize,
        }
    }

    fn run(&self, from: &[u8], to: &mut [u8]) {
        match self {
            Self::Map { run, .. } => run(from, to),
            Self::Table { entries, itemsize } => match itemsize {
                1 => look_up::<1>(entries, from, to),
                2 => look_up::<2>(entries, from, to),
                4 => look_up::<4>(entries, from, to),
                8 => look_up::<8>(entries, from, to),
                _ => look_up::<16>(entries, from, to),
            },
        }
    }
}

fn look_up<const N: usize>(entries: &[u8], from: &[u8], to: &mut [u8]) {
    let (entries, _) = entries.as_chunks::<N>();
    let Some(entries) = entries.first_chunk::<256>() else { return };
    for (to, &byte) in to.as_chunks_mut::<N>().0.iter_mut().zip(from) {
        *to = entries[usize::from(byte)];
    }
}

impl Cast {
    /// The cast between two dtypes, both little-endian.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a cast makes no sense: strings, handles, to quantised integers (whose scale it could not
    /// know), and among `int4`, `uint4`, `int2` and `uint2` where NumPy has none: all but the wider of the same sign.
    pub fn new(from: Dtype, to: Dtype) -> Result<Self> {
        Self::ordered((from, ByteOrder::Little), (to, ByteOrder::Little))
    }

    /// The cast between elements of these byte orders.
    pub(crate) fn ordered(from: (Dtype, ByteOrder), to: (Dtype, ByteOrder)) -> Result<Self> {
        let steps = chain(from.0, to.0)
            .map_err(|why| Error::Unsupported { what: format!("a cast from {} to {}", from.0, to.0), detail: why.into() })?;
        let swap = |(dtype, order)| if order == ByteOrder::Big { swap_step(dtype) } else { None };
        let steps =
            if steps.is_empty() && from.1 == to.1 { Vec::new() } else { swap(from).into_iter().chain(steps).chain(swap(to)).collect() };
        Ok(Self { from: from.0, to: to.0, pipe: Pipe { steps, item_from: itemsize(from.0), item_to: itemsize(to.0) } })
    }

    /// The dtype of what goes in.
    #[must_use]
    pub fn from(&self) -> Dtype {
        self.from
    }

    /// The dtype of what comes out.
    #[must_use]
    pub fn to(&self) -> Dtype {
        self.to
    }

    /// Whether elements stay the bytes they are.
    pub(crate) fn is_copy(&self) -> bool {
        self.pipe.steps.is_empty()
    }

    /// Casts the elements in `from` into `to`, one after the other. Neither needs to be aligned.
    ///
    /// # Errors
    /// [`Error::BadRequest`] unless both hold whole elements, and equally many.
    pub fn run(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        let Pipe { item_from, item_to, .. } = self.pipe;
        if !from.len().is_multiple_of(item_from) || !to.len().is_multiple_of(item_to) || from.len() / item_from != to.len() / item_to {
            let detail = format!("{} bytes of {} elements cannot be cast into {} bytes of {}", from.len(), self.from, to.len(), self.to);
            return Err(Error::bad_request(detail));
        }
        self.pipe.run(from, to);
        Ok(())
    }

    /// As [`run`](Self::run), for lengths that are known to match.
    pub(crate) fn run_matching(&self, from: &[u8], to: &mut [u8]) {
        self.pipe.run(from, to);
    }
}

impl Pipe {
    fn run(&self, from: &[u8], to: &mut [u8]) {
        match self.steps.as_slice() {
            [] => to.copy_from_slice(from),
            [only] => only.run(from, to),
            [first, middle @ .., last] => {
                let (mut a, mut b) = ([0; BLOCK * MOST_ITEM], [0; BLOCK * MOST_ITEM]);
                for (from, to) in from.chunks(BLOCK * self.item_from).zip(to.chunks_mut(BLOCK * self.item_to)) {
                    let count = from.len() / self.item_from;
                    let mut len = count * first.itemsize();
                    first.run(from, &mut a[..len]);
                    for step in middle {
                        let input = &a[..len];
                        len = count * step.itemsize();
                        step.run(input, &mut b[..len]);
                        std::mem::swap(&mut a, &mut b);
                    }
                    last.run(&a[..len], to);
                }
            }
        }
    }
}

impl fmt::Debug for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cast({} -> {}, {} steps)", self.from, self.to, self.pipe.steps.len())
    }
}

fn itemsize(dtype: Dtype) -> usize {
    memory_len(dtype.itemsize().unwrap_or(1))
}

/// What swaps the byte order of every component.
fn swap_step(dtype: Dtype) -> Option<Step> {
    match (dtype.component_size(), dtype.itemsize()) {
        (1, _) => None,
        (2, _) => Some(map::<Swap16>()),
        (4, Some(4)) => Some(map::<Swap32>()),
        (4, _) => Some(map_parts::<Swap32>()),
        (_, Some(8)) => Some(map::<Swap64>()),
        _ => Some(map_parts::<Swap64>()),
    }
}

/// What matters of a dtype for casts.
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
    /// Of two of these.
    Complex(ComplexOf),
    Small(Small),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ComplexOf {
    Single,
    Double,
}

impl ComplexOf {
    fn part(self) -> Kind {
        match self {
            Self::Single => Kind::Single,
            Self::Double => Kind::Double,
        }
    }
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

/// The steps from one dtype to another; none where the bytes stay as they are.
fn chain(from: Dtype, to: Dtype) -> Result<Vec<Step>, &'static str> {
    let (Some(source), Some(target)) = (Kind::of(from), Kind::of(to)) else {
        return Err("its elements are no numbers");
    };
    if from == to {
        // A bool is the one type of which not every byte is a value.
        return Ok(if source == Kind::Bool { vec![map::<IsNonZero8>()] } else { Vec::new() });
    }
    if matches!(to, Dtype::QInt8 | Dtype::QUInt8 | Dtype::QInt16 | Dtype::QUInt16 | Dtype::QInt32) {
        return Err("a quantised number needs a scale, which a cast does not know; int8 and the like are what it is stored as");
    }
    if let (Kind::Small(Small::Int(_)), Kind::Small(Small::Int(_))) = (source, target)
        && !matches!((from, to), (Dtype::Int2, Dtype::Int4) | (Dtype::UInt2, Dtype::UInt4))
    {
        return Err("of integers of four and two bits NumPy only widens them; int8 is between the others");
    }
    Ok(steps(source, target))
}

/// As [`chain`], where there is one.
fn steps(source: Kind, target: Kind) -> Vec<Step> {
    const SINGLE: Kind = Kind::Single;
    let then = |first: Step, from: Kind| std::iter::once(first).chain(steps(from, target)).collect();
    let by_way_of = |middle: Kind| steps(source, middle).into_iter().chain(steps(middle, target)).collect();
    let byte = Kind::Int { itemsize: 1, signed: false };
    match (source, target) {
        _ if source == target => Vec::new(),
        (Kind::Small(Small::Float(float)), _) => vec![table(float, target)],
        (Kind::Small(Small::Int(int)), _) => then(extend(int), Kind::Int { itemsize: 1, signed: int.signed }),
        (Kind::Bool, _) => then(map::<IsNonZero8>(), byte),
        // Complex numbers, part by part.
        (Kind::Complex(ComplexOf::Single), Kind::Bool) => vec![map::<IsNonZeroComplex64>()],
        (Kind::Complex(ComplexOf::Double), Kind::Bool) => vec![map::<IsNonZeroComplex128>()],
        (Kind::Complex(ComplexOf::Single), Kind::Complex(_)) => vec![map_parts::<As<f32, f64>>()],
        (Kind::Complex(ComplexOf::Double), Kind::Complex(_)) => vec![map_parts::<As<f64, f32>>()],
        (Kind::Complex(ComplexOf::Single), _) => then(map::<As<u64, u32>>(), SINGLE),
        (Kind::Complex(ComplexOf::Double), _) => then(map::<As<u128, u64>>(), Kind::Double),
        (_, Kind::Complex(of)) => {
            let widen = if of == ComplexOf::Single { map::<As<u32, u64>>() } else { map::<As<u64, u128>>() };
            steps(source, of.part()).into_iter().chain([widen]).collect()
        }
        (_, Kind::Bool) => vec![is_non_zero(source)],
        (_, Kind::Small(Small::Int(SmallInt { bits, .. }))) => {
            let low = if bits == 4 { map::<Low4>() } else { map::<Low2>() };
            steps(source, byte).into_iter().chain([low]).collect()
        }
        (Kind::Single, Kind::Small(Small::Float(float))) => vec![narrow(float)],
        (Kind::Single, Kind::Bfloat) => vec![map::<BfloatOfSingle>()],
        // An integer that a single cannot hold exactly is too large for a half anyway.
        (_, Kind::Small(Small::Float(_)) | Kind::Bfloat) | (Kind::Int { .. }, Kind::Half) => by_way_of(SINGLE),
        (Kind::Int { .. }, Kind::Int { .. }) => int_to_int(source, target),
        (Kind::Int { itemsize, signed }, _) => vec![int_to_float(itemsize, signed, target)],
        (Kind::Bfloat, Kind::Half) => then(map::<SingleOfBfloatPlainNan>(), SINGLE),
        (Kind::Bfloat, _) => then(map::<SingleOfBfloat>(), SINGLE),
        (Kind::Half, Kind::Double) => vec![map::<DoubleOfHalf>()],
        (Kind::Half, _) => then(map::<SingleOfHalf>(), SINGLE),
        (Kind::Single, Kind::Half) => vec![map::<HalfOfSingle>()],
        (Kind::Single, Kind::Double) => vec![map::<As<f32, f64>>()],
        (Kind::Double, Kind::Half) => vec![map::<HalfOfDouble>()],
        (Kind::Double, Kind::Single) => vec![map::<As<f64, f32>>()],
        (Kind::Single, Kind::Int { itemsize, signed }) => vec![cut::<f32>(itemsize, signed)],
        (Kind::Double, Kind::Int { itemsize, signed }) => vec![cut::<f64>(itemsize, signed)],
        (Kind::Single | Kind::Double, Kind::Single | Kind::Double) => Vec::new(),
    }
}

fn is_non_zero(source: Kind) -> Step {
    match source {
        Kind::Int { itemsize: 2, .. } => map::<IsNonZero16>(),
        Kind::Int { itemsize: 4, .. } => map::<IsNonZero32>(),
        Kind::Int { itemsize: 8, .. } => map::<IsNonZero64>(),
        Kind::Half | Kind::Bfloat => map::<IsNonZeroHalf>(),
        Kind::Single => map::<IsNonZeroSingle>(),
        Kind::Double => map::<IsNonZeroDouble>(),
        _ => map::<IsNonZero8>(),
    }
}

/// Integers of the same length are the same bytes; shorter ones are the low bytes, longer ones are extended by the sign.
fn int_to_int(source: Kind, target: Kind) -> Vec<Step> {
    let (Kind::Int { itemsize: from, signed }, Kind::Int { itemsize: to, .. }) = (source, target) else { return Vec::new() };
    vec![match (from, to, signed) {
        (1, 2, true) => map::<As<i8, i16>>(),
        (1, 2, false) => map::<As<u8, u16>>(),
        (1, 4, true) => map::<As<i8, i32>>(),
        (1, 4, false) => map::<As<u8, u32>>(),
        (1, 8, true) => map::<As<i8, i64>>(),
        (1, 8, false) => map::<As<u8, u64>>(),
        (2, 4, true) => map::<As<i16, i32>>(),
        (2, 4, false) => map::<As<u16, u32>>(),
        (2, 8, true) => map::<As<i16, i64>>(),
        (2, 8, false) => map::<As<u16, u64>>(),
        (4, 8, true) => map::<As<i32, i64>>(),
        (4, 8, false) => map::<As<u32, u64>>(),
        (2, 1, _) => map::<As<u16, u8>>(),
        (4, 1, _) => map::<As<u32, u8>>(),
        (4, 2, _) => map::<As<u32, u16>>(),
        (8, 1, _) => map::<As<u64, u8>>(),
        (8, 2, _) => map::<As<u64, u16>>(),
        (8, 4, _) => map::<As<u64, u32>>(),
        _ => return Vec::new(),
    }]
}

fn int_to_float(itemsize: usize, signed: bool, target: Kind) -> Step {
    fn to<T: Number>(itemsize: usize, signed: bool) -> Step
    where
        u8: AsPrimitive<T>,
        i8: AsPrimitive<T>,
        u16: AsPrimitive<T>,
        i16: AsPrimitive<T>,
        u32: AsPrimitive<T>,
        i32: AsPrimitive<T>,
        u64: AsPrimitive<T>,
        i64: AsPrimitive<T>,
    {
        match (itemsize, signed) {
            (1, true) => map::<As<i8, T>>(),
            (1, false) => map::<As<u8, T>>(),
            (2, true) => map::<As<i16, T>>(),
            (2, false) => map::<As<u16, T>>(),
            (4, true) => map::<As<i32, T>>(),
            (4, false) => map::<As<u32, T>>(),
            (_, true) => map::<As<i64, T>>(),
            (_, false) => map::<As<u64, T>>(),
        }
    }
    if target == Kind::Single { to::<f32>(itemsize, signed) } else { to::<f64>(itemsize, signed) }
}

fn cut<F: Float>(itemsize: usize, signed: bool) -> Step {
    match (itemsize, signed) {
        (1, _) => map::<Cut<F, u8>>(),
        (2, _) => map::<Cut<F, u16>>(),
        (4, true) => map::<Cut<F, u32>>(),
        (4, false) => map::<CutToU32<F>>(),
        (_, true) => map::<CutToI64<F>>(),
        (_, false) => map::<CutToU64<F>>(),
    }
}

/// A single to a small float.
fn narrow(float: SmallFloat) -> Step {
    match float {
        SmallFloat::E5M2 => map::<E5M2OfSingle>(),
        SmallFloat::E4M3FN => map::<E4M3FnOfSingle>(),
        SmallFloat::E4M3FNUZ => map::<E4M3FnuzOfSingle>(),
        SmallFloat::E4M3B11FNUZ => map::<E4M3B11FnuzOfSingle>(),
        SmallFloat::E5M2FNUZ => map::<E5M2FnuzOfSingle>(),
        _ => map::<E2M1FnOfSingle>(),
    }
}

/// An integer of four or two bits to one of eight.
fn extend(int: SmallInt) -> Step {
    match (int.bits, int.signed) {
        (4, false) => map::<Low4>(),
        (4, true) => map::<Extend4>(),
        (_, false) => map::<Low2>(),
        (_, true) => map::<Extend2>(),
    }
}

/// What becomes of each of the 256 codes of a small float.
fn table(float: SmallFloat, target: Kind) -> Step {
    let values: Vec<f32> = (0..=255).map(|code| float.decode(code)).collect();
    let singles: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut entries = vec![0; 256 * target.itemsize()];
    Pipe { steps: steps(Kind::Single, target), item_from: 4, item_to: target.itemsize() }.run(&singles, &mut entries);
    // Where it is no number, ml_dtypes does to integers what Rust's `as` does; to those of four and two bits by way of 32.
    for (value, entry) in values.iter().zip(entries.chunks_exact_mut(target.itemsize())).filter(|(value, _)| !value.is_finite()) {
        let Some(nearest) = nearest_integer(*value, target) else { break };
        entry.copy_from_slice(&nearest.to_le_bytes()[..entry.len()]);
    }
    Step::Table { entries, itemsize: target.itemsize() }
}

/// The integer of the kind `target` that is nearest to a value, 0 for NaN; `None` if it is a kind of no integers.
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

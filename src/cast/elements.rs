//! Casts: a loop for a pair of dtypes, with byte swaps before and after it.

use std::fmt;

use super::kernels::{Swap16, Swap32, Swap64};
use super::pairs;
use super::step::{Step, map, map_parts};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// Elements processed in all steps before the next block, so that intermediate results stay in the L1 cache.
const BLOCK: usize = 1024;
/// Size of the largest element in bytes.
const MOST_ITEM: usize = 16;

/// Casts elements from one dtype to another, bit for bit like `numpy.ndarray.astype` with `casting="unsafe"`.
///
/// - Integers wrap. Floats become integers as on x86-64: they are truncated to 32 bits (64 for 64-bit targets and `uint32`), and
///   the low bits are kept. NaN and values that do not fit become the lowest of those integers. NumPy has two answers for floats
///   outside `-2³¹..2³²` to `uint32`, depending on the place in the array; this gives the one for single elements.
///   Infinities of eight-bit floats become the nearest integer, their NaN 0.
/// - Floats are rounded once, to nearest, ties to even. Casts from `float64` and integers to `bfloat16` and the eight-bit floats
///   go through `float32`, as in `ml_dtypes`.
/// - Complex numbers lose their imaginary part. Non-zero values become true.
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
    /// Byte orders before and after.
    orders: (ByteOrder, ByteOrder),
    /// The cast itself, with a byte swap before or after it for elements that are big-endian.
    steps: Vec<Step>,
}

impl Cast {
    /// The cast between two little-endian dtypes.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] for strings, handles and quantised targets (whose scale is unknown). Among `int4`, `uint4`,
    /// `int2` and `uint2` it supports only what NumPy does: widening with the same sign.
    pub fn new(from: Dtype, to: Dtype) -> Result<Self> {
        Self::ordered((from, ByteOrder::Little), (to, ByteOrder::Little))
    }

    /// The cast between elements of these byte orders; from a dtype to itself it only swaps bytes.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new).
    pub fn ordered(from: (Dtype, ByteOrder), to: (Dtype, ByteOrder)) -> Result<Self> {
        let cast = pairs::find(from.0, to.0)
            .map_err(|why| Error::Unsupported { what: format!("a cast from {} to {}", from.0, to.0), detail: why.into() })?;
        let swap = |(dtype, order)| if order == ByteOrder::Big { swap_step(dtype) } else { None };
        let steps = match cast {
            None if from.1 == to.1 => Vec::new(),
            cast => swap(from).into_iter().chain(cast).chain(swap(to)).collect(),
        };
        Ok(Self { from: from.0, to: to.0, orders: (from.1, to.1), steps })
    }

    /// The source dtype.
    #[must_use]
    pub fn from(&self) -> Dtype {
        self.from
    }

    /// The target dtype.
    #[must_use]
    pub fn to(&self) -> Dtype {
        self.to
    }

    /// Dtype and byte order of elements before and after.
    pub(crate) fn ends(&self) -> ((Dtype, ByteOrder), (Dtype, ByteOrder)) {
        ((self.from, self.orders.0), (self.to, self.orders.1))
    }

    /// Whether the bytes of elements stay unchanged.
    pub(crate) fn is_copy(&self) -> bool {
        self.steps.is_empty()
    }

    /// Casts the elements of `from` into `to` in order. Neither needs to be aligned.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] unless both hold the same number of whole elements.
    pub fn run(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        let (item_from, item_to) = (self.from.item_len(), self.to.item_len());
        if !from.len().is_multiple_of(item_from) || !to.len().is_multiple_of(item_to) || from.len() / item_from != to.len() / item_to {
            let (from_bytes, to_bytes) = (from.len() as u64, to.len() as u64);
            return Err(BadRequest::CastLength { from_bytes, from: self.from.name(), to_bytes, to: self.to.name() }.into());
        }
        self.run_matching(from, to);
        Ok(())
    }

    /// Like [`run`](Self::run), for lengths known to match.
    pub(crate) fn run_matching(&self, from: &[u8], to: &mut [u8]) {
        match self.steps.as_slice() {
            [] => to.copy_from_slice(from),
            [only] => only.run(from, to),
            [first, middle @ .., last] => {
                let (item_from, item_to) = (self.from.item_len(), self.to.item_len());
                let (mut a, mut b) = ([0; BLOCK * MOST_ITEM], [0; BLOCK * MOST_ITEM]);
                for (from, to) in from.chunks(BLOCK * item_from).zip(to.chunks_mut(BLOCK * item_to)) {
                    let count = from.len() / item_from;
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
        write!(f, "Cast({} -> {}, {} steps)", self.from, self.to, self.steps.len())
    }
}

/// The step that swaps the byte order of every component.
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

//! One pass over a block of elements.

use super::kernels::Op;
use super::number::Number;
use super::simd;

/// One pass over a block.
#[derive(Clone)]
pub(crate) enum Step {
    /// A loop, and the size of its output elements in bytes.
    Map { run: fn(&[u8], &mut [u8]), itemsize: usize },
    /// A table with the result for each of the 256 bytes, side by side.
    Table { entries: Vec<u8>, itemsize: usize },
}

pub(crate) fn map<O: Op>() -> Step {
    Step::Map { run: simd::map::<O>, itemsize: size_of::<<O::To as Number>::Bytes>() }
}

/// The same for both parts of a complex number.
pub(crate) fn map_parts<O: Op>() -> Step {
    Step::Map { run: simd::map::<O>, itemsize: 2 * size_of::<<O::To as Number>::Bytes>() }
}

impl Step {
    pub(crate) fn itemsize(&self) -> usize {
        match *self {
            Self::Map { itemsize, .. } | Self::Table { itemsize, .. } => itemsize,
        }
    }

    pub(crate) fn run(&self, from: &[u8], to: &mut [u8]) {
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

pub(crate) fn look_up<const N: usize>(entries: &[u8], from: &[u8], to: &mut [u8]) {
    let (entries, _) = entries.as_chunks::<N>();
    let Some(entries) = entries.first_chunk::<256>() else { return };
    for (to, &byte) in to.as_chunks_mut::<N>().0.iter_mut().zip(from) {
        *to = entries[usize::from(byte)];
    }
}

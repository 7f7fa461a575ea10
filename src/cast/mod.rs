//! Conversion of stored elements to array elements: byte order, casts, and normalised bools.
//!
//! This room works on slices of bytes in memory and does not know files, shapes or tensors. Start with `elements.rs` (the public
//! [`Cast`](elements::Cast)); `pairs.rs` picks the loop for two dtypes, `kernels.rs` has the arithmetic, and `decoder.rs` adds
//! the strict check.

mod cut;
pub(crate) mod decoder;
pub(crate) mod elements;
mod kernels;
mod number;
pub(crate) mod pairs;
mod simd;
pub(crate) mod step;
mod strict;
mod value;

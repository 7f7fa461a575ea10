//! From stored elements to the elements of the array: byte order, casts, and the two values of a bool.

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

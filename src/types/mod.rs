//! Basic types that every other room uses: dtypes, shapes, element types, names, row ranges, cancellation.
//!
//! This room knows no file formats and does no I/O. Start with `dtype.rs` (TensorFlow's and NumPy's names) and `spec.rs` (dtype,
//! shape and all sizes of a tensor).

pub(crate) mod byte_order;
pub(crate) mod cancel;
pub(crate) mod dtype;
pub(crate) mod element;
pub(crate) mod layout;
pub(crate) mod name;
pub(crate) mod rows;
pub(crate) mod size;
pub(crate) mod small;
pub(crate) mod spec;

//! `mmconvert._core`: what the Python package `mmconvert` is made on. Small classes around the library's own; indexing, objects of
//! other frameworks and everything that reads better in Python is in `python/mmconvert`.
//!
//! - `arguments`: keyword arguments to the library's options.
//! - `running`: work without the GIL, with signals and progress.
//! - `errors`: the library's errors as Python's.
//! - `memory`: arrays in memory, read and written in place.
//! - `source`, `convert`, `writer`: the classes and functions.

#![allow(clippy::needless_pass_by_value, reason = "what Python passes arrives converted, and owned")]

mod arguments;
mod convert;
mod errors;
mod memory;
mod running;
mod source;
mod writer;

/// The module.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::convert::{compare, convert, convert_array, export, manifest_of, pack};
    #[pymodule_export]
    use crate::source::{Source, Tensor, formats};
    #[pymodule_export]
    use crate::writer::{Directory, Writer};

    #[pymodule_export]
    use crate::arguments::memory_bytes;

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}

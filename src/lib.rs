//! Streams TensorFlow tensors that are bigger than memory into memory-mapped `.npy` arrays.
//!
//! ```
//! use mmconvert::{Budget, Converter, Source};
//!
//! // A checkpoint, a SavedModel, TFRecords, a video: the format is found from the content.
//! let source = Source::open("tests/data/generated/six_shards")?;
//! for tensor in source.tensors() {
//!     let tensor = tensor?;
//!     println!("{} {} {:?}", tensor.name(), tensor.dtype(), tensor.shape());
//! }
//!
//! // Some rows in memory, as an ndarray.
//! let rows = source.tensor("pv/rows")?.read::<f32>(0..10)?;
//! assert_eq!(rows.shape(), [10, 7]);
//!
//! // All of it in a file, within 64 MiB of memory, however large it is.
//! let out = tempfile::tempdir()?;
//! let report = Converter::new(&source.tensor("pv/rows")?)?.memory(Budget::mib(64)).write(out.path().join("rows.npy"))?;
//! assert_eq!((report.shape, report.nbytes), (vec![101, 7], 2828));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What to read next:
//!
//! - [`Source`]: what can be opened, and how tensors are found in it; [`Tensor::read`] for rows in memory.
//! - [`Converter`]: one tensor into one file, with [progress](Converter::progress), a [token](CancelToken) to cancel it, and a
//!   [report](Report). [`export`] writes many tensors into a directory, [`pack`] into one safetensors file, [`compare`] checks a file
//!   against its source.
//! - [`Options`]: every choice, once. [`RecordOptions`] is for records, [`ModelOptions`] for models that TensorFlow computes.
//! - [`ArrayWriter`]: arrays of rows that a program makes itself, in parallel, for a known or unknown number of them.
//!   [`OutputDirectory`] makes several of them appear together.
//! - [`MmapArray`] and [`view`]: finished arrays as `ndarray` views over the mapped file.
//! - [`Error`]: one variant for each party that has to act.
//!
//! Every output appears under its name complete, checked and on disk, or not at all. No TensorFlow is needed to read files; the
//! `tensorflow` feature (on by default) loads one at run time where something has to be computed.
//!
//! ```text
//!  source ──elements──▶ plan ──slices──▶ cast ──bytes──▶ output ──.npy──▶ view
//!  where bytes          rows cut under   dtypes, byte    mapped file,     ndarray over
//!  come from            a memory budget  order, bools    write-behind     the same pages
//! ```
#![cfg_attr(not(feature = "tensorflow"), allow(dead_code, reason = "some of it is for a running TensorFlow only"))]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::large_stack_arrays, clippy::duration_suboptimal_units, reason = "tests"))]

#[cfg(not(unix))]
compile_error!("mmconvert runs on Linux, and the portable way on other kinds of Unix: it needs positional reads and hard links");

/// The examples of the documents are compiled and checked like the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/sources.md")]
struct Sources;

mod cast;
mod convert;
mod error;
mod format;
mod image;
mod options;
mod os;
mod output;
mod plan;
pub mod reader;
pub mod records;
mod source;
mod storage;
#[cfg(feature = "tensorflow")]
pub mod tensorflow;
mod types;
mod view;
mod writer;

pub use cast::elements::Cast;
pub use convert::compare::{Comparison, Difference, compare, compare_packed};
pub use convert::export::export;
pub use convert::exported::{Export, Exported, Skipped};
pub use convert::manifest::{Manifest, ManifestFile};
pub use convert::pack::pack;
pub use convert::{Converted, Converter};
pub use error::request::BadRequest;
pub use error::texts::ShapeText;
pub use error::{Error, Result};
pub use format::meta_graph::{Argument, Signature};
pub use ndarray;
pub use options::Options;
pub use options::budget::{Budget, HumanBytes};
pub use options::method::Method;
pub use options::model::ModelOptions;
pub use options::progress::Progress;
pub use options::records::RecordOptions;
pub use options::strings::Strings;
pub use output::part::Part;
pub use output::report::{Estimate, Report};
pub use output::staging::notices::{Notice, take_notices};
pub use reader::checksums::Verified;
pub use source::container::TensorInfo;
pub use source::facts::Facts;
pub use source::formats::formats;
pub use source::location::Location;
pub use source::opened::{Source, Tensor};
pub use source::selection::Selection;
pub use types::byte_order::ByteOrder;
pub use types::cancel::CancelToken;
pub use types::dtype::Dtype;
pub use types::element::Element;
pub use types::layout::Layout;
pub use types::name::Name;
pub use types::rows::Rows;
pub use types::spec::TensorSpec;
pub use view::{MmapArray, view};
pub use writer::directory::OutputDirectory;
pub use writer::{ArrayBuilder, ArrayWriter};

/// Rust types for elements that Rust has no type for: floats and integers of eight bits and fewer, one a byte.
pub mod elements {
    pub use crate::types::element::{
        Float4E2M1Fn, Float8E4M3B11Fnuz, Float8E4M3Fn, Float8E4M3Fnuz, Float8E5M2, Float8E5M2Fnuz, Int2, Int4, UInt2, UInt4,
    };
}

/// What a conversion checks before it makes anything, alone: for programs that show what they would do.
pub mod dry_run {
    pub use crate::convert::dry_run::{Estimated, check_export, check_pack, check_packed, check_write, packing_room};
}

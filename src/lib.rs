//! Streams TensorFlow tensors that are bigger than memory into memory-mapped `.npy` arrays.
//!
//! ```text
//!  source ──elements──▶ plan ──slices──▶ decode ──bytes──▶ sink ──.npy──▶ view
//!  where bytes          rows cut under   casts, byte       mapped file,    ndarray over
//!  come from            a memory budget  order, bools      write-behind    the same pages
//! ```
//!
//! [`Source`] opens a checkpoint or a SavedModel and lists its [`Tensor`]s; [`Converter`] writes one of them to a
//! `.npy` and hands it back as an [`MmapArray`]; [`export`] writes many into a directory; [`compare`] checks an array
//! against its source; [`ArrayWriter`] writes an array from rows that a program makes itself; [`Cast`] casts elements in memory.
//!
//! Every output appears under its name complete, checked and on disk, or not at all. No TensorFlow is needed.
#![cfg_attr(not(feature = "tensorflow"), allow(dead_code, reason = "some of it is for a running TensorFlow only"))]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::large_stack_arrays, clippy::duration_suboptimal_units, reason = "tests"))]

#[cfg(not(unix))]
compile_error!("mmconvert runs on Linux, and the portable way on other kinds of Unix: it needs positional reads and hard links");

/// The example of the README is compiled and checked like the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
mod records;
mod source;
mod storage;
#[cfg(feature = "tensorflow")]
pub mod tensorflow;
mod types;
mod view;
mod writer;

pub use cast::elements::Cast;
pub use convert::compare::{Comparison, Difference, compare, compare_packed};
pub use convert::export::{Estimated, Export, check_export, check_write, export};
pub use convert::exported::{Exported, Skipped};
pub use convert::manifest::{Manifest, ManifestFile};
pub use convert::pack::{check_pack, check_packed, pack, packing_room};
pub use convert::{Converted, Converter};
pub use error::{Error, Result};
pub use format::meta_graph::{Argument, Signature};
pub use image::Jpeg;
pub use ndarray;
pub use options::budget::{Budget, HumanBytes};
pub use options::method::Method;
pub use options::model::ModelOptions;
pub use options::records::{Missing, Ragged, ReadAs, RecordOptions};
pub use options::{Options, Progress, Strings};
pub use output::part::Part;
pub use output::report::{Estimate, Report};
pub use output::staging::hidden::abandon;
pub use output::staging::notices::{Notice, take_notices};
pub use reader::checksums::Verified;
pub use records::columns::FeatureInfo;
pub use source::container::TensorInfo;
pub use source::formats::formats;
pub use source::location::Location;
pub use source::opened::{Source, Tensor};
pub use source::selection::Selection;
pub use types::byte_order::ByteOrder;
pub use types::cancel::CancelToken;
pub use types::dtype::Dtype;
pub use types::element::Element;
pub use types::element::{
    Float4E2M1Fn, Float8E4M3B11Fnuz, Float8E4M3Fn, Float8E4M3Fnuz, Float8E5M2, Float8E5M2Fnuz, Int2, Int4, UInt2, UInt4,
};
pub use types::layout::Layout;
pub use types::name::Name;
pub use types::rows::Rows;
pub use types::spec::{ShapeText, TensorSpec};
pub use view::{MmapArray, view};
pub use writer::{ArrayBuilder, ArrayWriter};

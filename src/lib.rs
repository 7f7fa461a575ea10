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

mod array;
mod batch;
mod boxes;
mod budget;
mod cancel;
mod columns;
mod compare;
mod convert;
mod decode;
mod dtype;
mod element;
mod error;
mod export;
mod file_name;
mod format;
mod glob;
mod job;
mod manifest;
mod method;
mod mmap;
mod model_options;
mod options;
mod os;
mod pack;
mod paths;
mod plan;
mod pool;
mod rows;
mod runs;
mod sink;
pub mod source;
mod spec;
mod staging;
mod tiles;
mod used;
mod view;
mod writer;

pub use array::Part;
pub use budget::{Budget, HumanBytes};
pub use cancel::CancelToken;
pub use columns::{FeatureInfo, Missing, Ragged, ReadAs, RecordOptions};
pub use compare::{Comparison, Difference, compare, compare_packed};
pub use convert::{Converted, Converter, Estimate, Report};
pub use decode::image::Jpeg;
pub use decode::{ByteOrder, Cast};
pub use dtype::{Dtype, Element};
pub use element::{Float4E2M1Fn, Float8E4M3B11Fnuz, Float8E4M3Fn, Float8E4M3Fnuz, Float8E5M2, Float8E5M2Fnuz, Int2, Int4, UInt2, UInt4};
pub use error::{Error, Result};
pub use export::{Estimated, Export, Exported, Skipped, check_export, check_write, export};
pub use format::meta_graph::{Argument, Signature};
pub use manifest::{Manifest, ManifestFile};
pub use method::Method;
pub use model_options::ModelOptions;
pub use ndarray;
pub use options::{Layout, Options, Progress, Strings};
pub use pack::{check_pack, check_packed, pack, packing_room};
pub use rows::Rows;
#[cfg(feature = "tensorflow")]
pub use source::live;
pub use source::{Location, Name, Selection, Source, Tensor, TensorInfo, Verified};
pub use spec::{ShapeText, TensorSpec};
pub use staging::{Notice, abandon, take_notices};
pub use view::{MmapArray, view};
pub use writer::{ArrayBuilder, ArrayWriter};

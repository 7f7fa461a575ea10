//! [`Container`], which every format implements: the named tensors of an opened source.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::records::columns::FeatureInfo;
use crate::records::container::RecordContainer;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// An opened set of files with named tensors.
pub(crate) trait Container: fmt::Debug + Send + Sync {
    /// The format's name, as `--format` takes it.
    fn format(&self) -> &'static str;
    /// Number of tensors. Reads the whole source if the number is not stored.
    fn len(&self) -> Result<usize>;
    /// Whether tensor `index` is selected by default.
    fn is_meant(&self, index: usize) -> Result<bool> {
        Ok(!self.info(index)?.bookkeeping)
    }
    /// Describes tensor `index` without reading its data.
    fn info(&self, index: usize) -> Result<TensorInfo>;
    /// The tensor with exactly this name.
    fn find(&self, name: &[u8]) -> Result<Option<usize>>;
    /// The tensor with this alias.
    fn find_alias(&self, _alias: &[u8]) -> Option<usize> {
        None
    }
    /// A reader for tensor `index`. Checks where its bytes are, but reads none of them.
    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>>;
    /// The strings of tensor `index`, which must have strings. Checks where they are, but reads none of them.
    fn strings(&self, index: usize) -> Result<StoredStrings<'_>>;
    /// The records that tensor `index` is a column of, if any, and the number of its feature.
    fn records(&self, _index: usize) -> Option<(&RecordContainer, usize)> {
        None
    }
    /// Takes out the records that all tensors are columns of, to join them to others. The container is empty afterwards.
    fn take_records(&mut self) -> Option<RecordContainer> {
        None
    }
    /// Whether a checksum over more than tensor `index` has been compared since opening, and matched.
    fn is_vouched_for(&self, _index: usize) -> bool {
        false
    }
    /// Heap bytes that the container holds.
    fn heap_bytes(&self) -> u64;
    /// The files of the source that exist.
    fn files(&self) -> Vec<PathBuf>;
    /// Facts about the files, for `info`.
    fn facts(&self) -> Map<String, Value>;
    /// Facts about the location of tensor `index`, for `info`.
    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>>;
    /// Non-fatal warnings, one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// Missing files that were tolerated, one sentence each; the warnings contain them, too.
    fn lost(&self) -> Vec<String> {
        Vec::new()
    }
    /// How values are changed that are not delivered as stored, one sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    /// The error that explains why there are no tensors.
    fn nothing(&self) -> Error {
        Error::Unsupported { what: "this source".into(), detail: "it holds no tensors".into() }
    }
    /// Whether a program or TensorFlow computes tensor `index` each time it is read.
    fn is_made(&self, _index: usize) -> bool {
        false
    }
    /// The claimed number of rows of tensor `index`, if only reading all of them could verify it.
    fn claimed_rows(&self, _index: usize) -> Option<u64> {
        None
    }
    /// The tag sets of a SavedModel's graphs.
    fn tag_sets(&self) -> &[Vec<String>] {
        &[]
    }
    /// The signatures that a graph or a model can compute.
    fn signatures(&self) -> &[Signature] {
        &[]
    }
}

/// A tensor's description, made without reading its data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The key exactly as TensorFlow lists it.
    pub name: Name,
    /// A friendlier name from the object graph, accepted wherever a name is.
    pub alias: Option<String>,
    /// Dtype and shape. Elements without a TensorFlow dtype ([`item`](Self::item)) are described as bytes, along an extra last
    /// axis.
    pub spec: TensorSpec,
    /// NumPy's descriptor of elements without a TensorFlow dtype: padded text, dates, structured records (`|S7`, `<M8[ns]`). They
    /// are copied unchanged.
    pub item: Option<String>,
    /// Whether TensorFlow keeps it for its own bookkeeping (the object graph, the save counter). It is selected only by name.
    pub bookkeeping: bool,
    /// The kind of tensor, if its source has several kinds: `variables`, `constants`.
    pub group: Option<&'static str>,
    /// Why this version cannot convert it, if it cannot.
    pub unsupported: Option<String>,
    /// What had to be given up, one sentence each: see [`RecordOptions::salvage`](crate::RecordOptions::salvage).
    pub lost: Vec<String>,
    /// The ragged or sparse output that it is a part of. Rows of a single part have no meaning.
    pub part_of: Option<String>,
    /// Axes whose length varies or is unknown before reading the source. Their length in the shape is 0.
    pub unknown_axes: Vec<usize>,
    /// Whether the number of axes is known. If it is not, the shape is empty.
    pub has_rank: bool,
    /// More facts about a feature of records, after these have been looked at.
    pub feature: Option<FeatureInfo>,
}

impl TensorInfo {
    /// A tensor whose facts are all known.
    pub(crate) fn new(name: Name, spec: TensorSpec) -> Self {
        Self {
            name,
            alias: None,
            spec,
            item: None,
            bookkeeping: false,
            group: None,
            unsupported: None,
            lost: Vec::new(),
            part_of: None,
            unknown_axes: Vec::new(),
            has_rank: true,
            feature: None,
        }
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.spec.dtype()
    }

    /// Bytes of all elements; 0 for strings, which have no fixed size.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.spec.nbytes()
    }

    /// The shape of the array, without the extra axis for the bytes of [`item`](Self::item).
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        let shape = self.spec.shape();
        if self.item.is_some() { &shape[..shape.len().saturating_sub(1)] } else { shape }
    }

    /// Whether it has no axes. The bytes of an [`item`](Self::item) are an axis of [`spec`](Self::spec), but no rows.
    pub(crate) fn is_scalar(&self) -> bool {
        self.has_rank && self.shape().is_empty()
    }

    /// The shape, with `None` for unknown lengths.
    #[must_use]
    pub fn axes(&self) -> Vec<Option<u64>> {
        let known = |(axis, &length): (usize, &u64)| (!self.unknown_axes.contains(&axis)).then_some(length);
        self.shape().iter().enumerate().map(known).collect()
    }
}

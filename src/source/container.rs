//! What every format gives when a source of it is opened: named tensors.

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

/// An opened set of files with named tensors. Implemented by every format.
pub(crate) trait Container: fmt::Debug + Send + Sync {
    /// The format's name, as `--format` takes it.
    fn format(&self) -> &'static str;
    /// How many tensors there are. Where nobody says so, all of the source is read for it.
    fn len(&self) -> Result<usize>;
    /// Whether tensor `index` is one of those that are meant where nobody names any.
    fn is_meant(&self, index: usize) -> Result<bool> {
        Ok(!self.info(index)?.bookkeeping)
    }
    /// What is known of tensor `index` without reading its data.
    fn info(&self, index: usize) -> Result<TensorInfo>;
    /// The tensor with exactly this name.
    fn find(&self, name: &[u8]) -> Result<Option<usize>>;
    /// The tensor that this other name leads to.
    fn find_alias(&self, _alias: &[u8]) -> Option<usize> {
        None
    }
    /// A reader for tensor `index`; validates where its bytes lie, reads none of them.
    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>>;
    /// The strings of tensor `index`, which has to be of strings; validates where they lie, reads none of them.
    fn strings(&self, index: usize) -> Result<StoredStrings<'_>>;
    /// The records that tensor `index` is a column of, if that is what it is, and its number among their features.
    fn records(&self, _index: usize) -> Option<(&RecordContainer, usize)> {
        None
    }
    /// The records that all tensors are columns of, to be joined to others; nothing is left of it then.
    fn take_records(&mut self) -> Option<RecordContainer> {
        None
    }
    /// Whether a checksum over more than tensor `index` has been compared since it was opened, and was right.
    fn is_vouched_for(&self, _index: usize) -> bool {
        false
    }
    /// Heap bytes that the container holds.
    fn heap_bytes(&self) -> u64;
    /// The files that it is read from, as far as they are there.
    fn files(&self) -> Vec<PathBuf>;
    /// Facts about the files, for `info`.
    fn facts(&self) -> Map<String, Value>;
    /// Facts about where tensor `index` lies, for `info`.
    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>>;
    /// What is odd but does not stand in the way, one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// The files that are missing and were let pass, one sentence each; they are among the warnings, too.
    fn lost(&self) -> Vec<String> {
        Vec::new()
    }
    /// What becomes of values that are not given as they are stored, one sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    /// Why there are no tensors, where there are none.
    fn nothing(&self) -> Error {
        Error::Unsupported { what: "this source".into(), detail: "it holds no tensors".into() }
    }
    /// Whether tensor `index` is made by a program, or by TensorFlow, each time it is read.
    fn is_made(&self, _index: usize) -> bool {
        false
    }
    /// How many rows tensor `index` should have, where the source says so and only reading all of it could prove it.
    fn claimed_rows(&self, _index: usize) -> Option<u64> {
        None
    }
    /// The sets of tags of the graphs of a SavedModel.
    fn tag_sets(&self) -> &[Vec<String>] {
        &[]
    }
    /// What it can compute, where it is a graph or a model.
    fn signatures(&self) -> &[Signature] {
        &[]
    }
}

/// What is known of a tensor without reading its data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The key exactly as TensorFlow lists it.
    pub name: Name,
    /// A friendlier name, where an object graph gives one; it is accepted wherever a name is.
    pub alias: Option<String>,
    /// Dtype and shape. Of elements that TensorFlow has no dtype for ([`item`](Self::item)) it is their bytes, along an axis of its own at
    /// the end.
    pub spec: TensorSpec,
    /// NumPy's descriptor of elements that TensorFlow has no dtype for: padded text, dates, records (`|S7`, `<M8[ns]`). They are copied
    /// as they are.
    pub item: Option<String>,
    /// Whether it is TensorFlow's own bookkeeping (the object graph, the counter of saves), which nobody means who does not name it.
    pub bookkeeping: bool,
    /// What of its source it is, where that has several kinds of tensors: `variables`, `constants`.
    pub group: Option<&'static str>,
    /// Why this version cannot convert it, if it cannot.
    pub unsupported: Option<String>,
    /// What of it had to be given up, one sentence each: see [`RecordOptions::salvage`](crate::RecordOptions::salvage).
    pub lost: Vec<String>,
    /// The ragged or sparse output that it is a part of: rows of parts mean nothing one by one.
    pub part_of: Option<String>,
    /// The axes of the shape whose length is not known before the source has been read, or differs; their length there is 0.
    pub unknown_axes: Vec<usize>,
    /// Whether it is known how many axes there are; the shape has none where it is not.
    pub has_rank: bool,
    /// What is known of it beyond that, where it is a feature of records that have been looked at.
    pub feature: Option<FeatureInfo>,
}

impl TensorInfo {
    /// A tensor of which everything is known.
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

    /// The shape of the array: without the axis of the bytes of [`item`](Self::item).
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        let shape = self.spec.shape();
        if self.item.is_some() { &shape[..shape.len().saturating_sub(1)] } else { shape }
    }

    /// The shape, with `None` for lengths that are not known.
    #[must_use]
    pub fn axes(&self) -> Vec<Option<u64>> {
        let known = |(axis, &length): (usize, &u64)| (!self.unknown_axes.contains(&axis)).then_some(length);
        self.shape().iter().enumerate().map(known).collect()
    }
}

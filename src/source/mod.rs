//! Where bytes come from: files with named tensors, and readers that fill a slice of one.

mod aliases;
mod archive;
mod bundle;
mod cache;
mod checkpoint;
mod concat;
mod constants;
mod driver;
pub(crate) mod graph;
mod hdf5;
mod index;
mod inflated;
mod keras;
mod keras_shards;
mod ledger;
mod listed;
#[cfg(feature = "tensorflow")]
pub mod live;
#[cfg(not(feature = "tensorflow"))]
#[path = "no_live.rs"]
mod live;
pub mod memory;
mod name;
mod npy;
mod npz;
mod outline;
mod pieces;
mod raw_stream;
pub(crate) mod records;
mod reversed;
mod safetensors;
pub(crate) mod saved_model;
mod shards;
mod stored;
pub(crate) mod strings;
mod tensor_proto;
mod tf_data;
mod tfds;
mod tfrecord;
mod together;
mod v1;
mod values;
mod video;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::cancel::CancelToken;
use crate::columns::FeatureInfo;
use crate::decode::ByteOrder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::options::{Layout, Options};
use crate::os::Calls;
use crate::spec::TensorSpec;

use driver::Driver;
pub use driver::{expand, formats, is_source};
pub(crate) use ledger::Ledger;
pub use ledger::{Checksum, Region, Verified};
pub use name::Name;
use records::RecordContainer;
pub(crate) use reversed::Reversed;
pub(crate) use stored::{StoredArray, StoredFile};
use strings::StoredStrings;

/// Every format, the surer ones first: a record is told by a checksum, JSON by its brackets. A format is its file, its module above and its line here.
static FORMATS: &[&dyn Driver] = &[
    &saved_model::SavedModelDir,
    &tf_data::TfData,
    &tfds::Tfds,
    &checkpoint::TensorBundle,
    &cache::TfDataCache,
    &npy::Npy,
    &hdf5::Hdf5,
    &keras::Keras,
    &keras_shards::KerasShards,
    &npz::Npz,
    &v1::V1Checkpoint,
    &raw_stream::RawStream,
    &video::Video,
    &tfrecord::TfRecord,
    &safetensors::SafeTensors,
    &tensor_proto::TensorProto,
    &graph::GraphDef,
];

/// Elements of one tensor, in any order, from any thread.
///
/// Positions are flat: element `i` is the `i`-th in the order of [`layout`](Self::layout). In C order rows of axis 0 are runs of
/// [`TensorSpec::row_elements`] of them, so a run of rows, one row and a part of a huge row are read alike.
pub trait TensorReader: fmt::Debug + Send + Sync {
    /// The tensor's dtype and shape.
    fn spec(&self) -> &TensorSpec;

    /// The byte order in which [`read`](Self::read) leaves elements.
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    /// The order in which flat positions count elements: C order, or Fortran order where the source is like that.
    fn layout(&self) -> Layout {
        Layout::C
    }

    /// Whether bytes of a `bool` other than 0 and 1 are kept as they are, as NumPy does with arrays of its own. Otherwise they become 1.
    fn keeps_odd_bools(&self) -> bool {
        false
    }

    /// Fills `out`, which holds exactly `elements`, or fails. Never a short read.
    ///
    /// Checksums of what was read go to the context, not over the bytes after decoding.
    ///
    /// # Errors
    /// [`Error::Io`] when reading fails, [`Error::Malformed`] when the file ends early, [`Error::Cancelled`].
    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()>;

    /// The lengths of the boxes that elements are stored in, where it takes all of a box to read any part of it: compressed chunks.
    /// One length for each axis; boxes start at multiples of them.
    fn chunks(&self) -> Option<&[u64]> {
        None
    }

    /// Fills `out`, which holds exactly the box of `shape` that starts at index `start`, in C order. Only where there are
    /// [`chunks`](Self::chunks); then each chunk is decoded once for each call that needs any of it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_box(&self, _start: &[u64], _shape: &[u64], _out: &mut [u8], _context: &mut ReadContext<'_>) -> Result<()> {
        Err(Error::Unsupported { what: "reading a box".into(), detail: "the elements are not stored in chunks".into() })
    }

    /// The stored checksums and the bytes each one covers; empty when the format has none.
    fn regions(&self) -> &[Region] {
        &[]
    }

    /// The run of stored bytes that flat position `element` lies in, if the bytes of the run are those of its elements,
    /// side by side and in order. Holes in it are left out of the output, and its blocks may be shared.
    ///
    /// # Errors
    /// [`Error::Io`] when its file cannot be opened.
    fn stored_run(&self, _element: u64) -> Result<Option<StoredRun>> {
        Ok(None)
    }

    /// Whether [`stored_run`](Self::stored_run) may say anything: whether it is worth the time to look for holes.
    fn has_stored_runs(&self) -> bool {
        false
    }

    /// Tells that these elements are read soon, before or after many others: what can be fetched meanwhile need not be waited for.
    fn fetch(&self, _elements: Range<u64>, _context: &ReadContext<'_>) {}

    /// Tells that these elements are not read again for a long time.
    fn forget(&self, _elements: Range<u64>, _context: &ReadContext<'_>) {}

    /// Called when all has been read: a reader that reads parts of the source twice fails here if those may differ.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the source was written to since the reader was made.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// Whether [`read`](Self::read) fills `out` through system calls only, which report a page of a mapped output that
    /// cannot be had. A reader that stores into `out` itself would be killed, so it gets pages that are all there, which
    /// takes longer.
    fn fills_by_system_calls(&self) -> bool {
        false
    }

    /// Heap bytes the reader keeps while it lives, which come out of the memory budget.
    fn heap_bytes(&self) -> u64 {
        0
    }
}

impl<T: TensorReader + ?Sized> TensorReader for &T {
    fn spec(&self) -> &TensorSpec {
        (**self).spec()
    }

    fn byte_order(&self) -> ByteOrder {
        (**self).byte_order()
    }

    fn layout(&self) -> Layout {
        (**self).layout()
    }

    fn keeps_odd_bools(&self) -> bool {
        (**self).keeps_odd_bools()
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        (**self).read(elements, out, context)
    }

    fn chunks(&self) -> Option<&[u64]> {
        (**self).chunks()
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        (**self).read_box(start, shape, out, context)
    }

    fn regions(&self) -> &[Region] {
        (**self).regions()
    }

    fn stored_run(&self, element: u64) -> Result<Option<StoredRun>> {
        (**self).stored_run(element)
    }

    fn has_stored_runs(&self) -> bool {
        (**self).has_stored_runs()
    }

    fn fetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        (**self).fetch(elements, context);
    }

    fn forget(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        (**self).forget(elements, context);
    }

    fn check_unchanged(&self) -> Result<()> {
        (**self).check_unchanged()
    }

    fn fills_by_system_calls(&self) -> bool {
        (**self).fills_by_system_calls()
    }

    fn heap_bytes(&self) -> u64 {
        (**self).heap_bytes()
    }
}

/// A run of elements as it lies in a file.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// Flat positions in the tensor.
    pub elements: Range<u64>,
    /// The file.
    pub file: Arc<File>,
    /// Its path, for messages.
    pub path: Arc<Path>,
    /// Where the first of them starts in the file.
    pub offset: u64,
    /// Which of [`TensorReader::regions`] covers them, starting with the same byte.
    pub region: Option<usize>,
}

/// What a worker lends to a reader: memory of its own and the place where checksums go.
#[derive(Debug)]
pub struct ReadContext<'a> {
    /// Memory that lives as long as the worker; [`chunk_bytes`](Self::chunk_bytes) long.
    scratch: Vec<u8>,
    chunk_bytes: usize,
    ledger: Option<&'a Ledger<'a>>,
    cancel: &'a CancelToken,
    calls: Calls,
    /// What the numbers of regions count from.
    first_region: usize,
}

impl<'a> ReadContext<'a> {
    pub(crate) fn new(chunk_bytes: usize, ledger: Option<&'a Ledger<'a>>, cancel: &'a CancelToken, calls: Calls) -> Self {
        Self { scratch: Vec::new(), chunk_bytes, ledger, cancel, calls, first_region: 0 }
    }

    /// The largest single read from storage, in bytes.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Fails once the caller has cancelled; readers ask between chunks.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check_cancelled(&self) -> Result<()> {
        self.cancel.check()
    }

    /// Notes that `bytes` were read at `offset` of the region with number `region` of [`TensorReader::regions`].
    pub fn record(&self, region: usize, offset: u64, bytes: &[u8]) {
        if let Some(ledger) = self.ledger {
            ledger.record(self.first_region + region, offset, bytes);
        }
    }

    /// Lets a part read whose regions are numbered from `first` on.
    fn with_regions_from<T>(&mut self, first: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.first_region;
        self.first_region += first;
        let result = read(self);
        self.first_region = before;
        result
    }

    /// The worker's own memory, taken for one call; hand it back with [`return_scratch`](Self::return_scratch).
    fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(self.chunk_bytes, 0);
        scratch
    }

    fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }
}

/// An opened set of files with named tensors. Implemented by every format.
pub(crate) trait Container: fmt::Debug + Send + Sync {
    /// The format's name, as `--format` takes it.
    fn format(&self) -> &'static str;
    /// How many tensors there are. Where nobody says so, all of the source is read for it.
    fn len(&self) -> Result<usize>;
    /// How many of the first tensors are meant where nobody names any.
    fn default_selection(&self) -> Result<usize> {
        self.len()
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
    /// The records that the tensors are columns of, if that is what they are.
    fn records(&self) -> Option<&records::RecordContainer> {
        None
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
    /// What of its source it is, where that has several kinds of tensors: `variables`, `constants`.
    pub group: Option<&'static str>,
    /// Why this version cannot convert it, if it cannot.
    pub unsupported: Option<String>,
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
            group: None,
            unsupported: None,
            unknown_axes: Vec::new(),
            has_rank: true,
            feature: None,
        }
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

/// An opened source: a checkpoint, a SavedModel, files of records.
///
/// ```no_run
/// let source = mmconvert::Source::open("model.ckpt-1000")?;
/// for tensor in source.tensors() {
///     let info = tensor?.info().clone();
///     println!("{} {}", info.name, info.spec);
/// }
/// # Ok::<(), mmconvert::Error>(())
/// ```
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    container: Box<dyn Container>,
}

impl Source {
    /// Opens what `path` names: a checkpoint prefix, its `.index` file, a directory with a `checkpoint` state file, a SavedModel
    /// directory, a frozen graph, a serialized tensor, a file of records or a pattern for several, a folder that tf.data wrote, a video.
    /// The format is found from the content.
    ///
    /// # Errors
    /// [`Error::NotFound`] says what is missing and what was found; [`Error::Unsupported`] names a format this version
    /// does not read; [`Error::Malformed`] says where a file is broken; [`Error::Io`] when reading fails;
    /// [`Error::Limit`] when the index is larger than an index may be.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_as(path, None)
    }

    /// Opens `path` as the format with this name (one of [`formats`]), whatever its content looks like.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::BadRequest`] for a format that does not exist.
    pub fn open_as(path: impl AsRef<Path>, format: Option<&str>) -> Result<Self> {
        Self::open_with(path, format, &Options::default())
    }

    /// As [`open_as`](Self::open_as), with the choices that opening and looking through a source take: memory, threads, whether
    /// checksums are verified, [`Options::records`].
    ///
    /// # Errors
    /// As [`open_as`](Self::open_as).
    pub fn open_with(path: impl AsRef<Path>, format: Option<&str>, options: &Options) -> Result<Self> {
        let path = path.as_ref();
        let container = driver::open(path, format, options)?;
        Ok(Self { path: path.to_owned(), container })
    }

    /// Several sources as one: the tensors of the first, each continued along axis 0 by those of the same name in the others. Where
    /// every source has only one tensor, its name does not matter.
    ///
    /// # Errors
    /// [`Error::BadRequest`] without sources and for sources of records; [`Error::Unsupported`] for tensors that do not fit together:
    /// dtypes and all axes but the first have to be the same; [`Error::NoSuchTensor`] for one that a source lacks.
    pub fn concat(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path.clone()).unwrap_or_default();
        Ok(Self { path, container: Box::new(concat::Concat::new(parts)?) })
    }

    /// Several sources as one that has the tensors of all. A name that several have gets that of its source in front: `model/bias`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for sources of records, and where two tensors would still have one name.
    pub fn together(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path.clone()).unwrap_or_default();
        Ok(Self { path, container: Box::new(together::Together::new(parts)?) })
    }

    /// The path the source was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's name: `tensor-bundle`, `saved-model`, `tfrecord`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.container.format()
    }

    /// How many tensors there are. To tell the features of records, all of them are read once.
    ///
    /// # Errors
    /// What is wrong with records that are read for it.
    pub fn len(&self) -> Result<usize> {
        self.container.len()
    }

    /// Whether there are no tensors.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// All tensors, in the order of the source: of names' bytes, or of components. An error comes first, and alone.
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor<'_>>> {
        let (count, failure) = match self.len() {
            Ok(count) => (count, None),
            Err(error) => (0, Some(Err(error))),
        };
        failure.into_iter().chain((0..count).map(|index| self.at(index)))
    }

    fn at(&self, index: usize) -> Result<Tensor<'_>> {
        Ok(Tensor { source: self, index, info: self.container.info(index)? })
    }

    /// The tensor called `name`: its exact key, else another name that leads to one tensor only.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] with the nearest names.
    pub fn tensor(&self, name: impl AsRef<[u8]>) -> Result<Tensor<'_>> {
        let name = name.as_ref();
        match self.find(name)? {
            Some(index) => self.at(index),
            None => Err(self.no_such_tensor(name)),
        }
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        if let Some(index) = self.container.find(name)?.or_else(|| self.container.find_alias(name)) {
            return Ok(Some(index));
        }
        // A name that cannot be typed (NUL, bytes that are not UTF-8) is accepted the way `ls` shows it.
        if !name.contains(&b'\\') {
            return Ok(None);
        }
        for index in 0..self.len()? {
            if self.container.info(index)?.name.to_string().as_bytes() == name {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn no_such_tensor(&self, name: &[u8]) -> Error {
        let nearest = name::nearest(name, (0..self.len().unwrap_or(0)).filter_map(|index| self.container.info(index).ok()));
        Error::NoSuchTensor { path: self.path.clone(), name: Name::new(name).to_string(), nearest }
    }

    /// The tensors that `patterns` select, each once, in the order of the source; all of them for no pattern, but of a SavedModel with
    /// variables only these.
    ///
    /// A pattern is a name, an alias, or a glob in which `*` matches any run of characters, `/` included. An exact
    /// name wins over a pattern.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] for a pattern that selects nothing.
    pub fn select<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Result<Vec<Tensor<'_>>> {
        if patterns.is_empty() {
            return (0..self.container.default_selection()?).map(|index| self.at(index)).collect();
        }
        let mut chosen = std::collections::BTreeSet::new();
        let mut globs = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            match self.find(pattern)? {
                Some(index) => {
                    chosen.insert(index);
                }
                None if pattern.contains(&b'*') => globs.push((pattern, false)),
                None => return Err(self.no_such_tensor(pattern)),
            }
        }
        if !globs.is_empty() {
            for index in 0..self.len()? {
                let info = self.container.info(index)?;
                for (pattern, matched) in &mut globs {
                    let alias = info.alias.as_ref().map(String::as_bytes);
                    if name::glob_matches(pattern, info.name.as_bytes()) || alias.is_some_and(|a| name::glob_matches(pattern, a)) {
                        *matched = true;
                        chosen.insert(index);
                    }
                }
            }
        }
        if let Some((pattern, _)) = globs.iter().find(|(_, matched)| !matched) {
            return Err(self.no_such_tensor(pattern));
        }
        chosen.into_iter().map(|index| self.at(index)).collect()
    }

    /// Facts about the files: shards, index blocks, byte order.
    #[must_use]
    pub fn facts(&self) -> Map<String, Value> {
        self.container.facts()
    }

    /// What a graph or a SavedModel can compute: its signatures.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        self.container.signatures()
    }

    /// Whether [`open_with`](Self::open_with) with these choices takes a running TensorFlow: see [`live::load`].
    ///
    /// # Errors
    /// [`Error::Io`] when looking at `path` fails.
    pub fn needs_tensorflow(path: impl AsRef<Path>, format: Option<&str>, options: &Options) -> Result<bool> {
        driver::needs_tensorflow(path.as_ref(), format, options)
    }

    /// Whether `names` are not those of tensors in a graph, but of what it computes: outputs of its nodes, such as `y:0`, for
    /// [`ModelOptions::output`](crate::ModelOptions::output).
    ///
    /// # Errors
    /// As [`needs_tensorflow`](Self::needs_tensorflow).
    pub fn are_outputs(path: impl AsRef<Path>, format: Option<&str>, names: &[&[u8]]) -> Result<bool> {
        driver::are_outputs(path.as_ref(), format, names)
    }

    /// What is odd about the files but does not stand in the way, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.container.warnings()
    }

    /// Whether the tensors are columns of records, all of which are made in one pass.
    #[must_use]
    pub fn is_of_records(&self) -> bool {
        self.records().is_some()
    }

    /// The records that the tensors are columns of, if that is what they are.
    pub(crate) fn records(&self) -> Option<&RecordContainer> {
        self.container.records()
    }

    /// Heap bytes that the source holds.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.container.heap_bytes()
    }

    /// Refuses an output that is one of the files the source is read from, by whatever name.
    pub(crate) fn check_not_own(&self, output: &Path) -> Result<()> {
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let Some(found) = identity(output) else { return Ok(()) };
        if self.container.files().iter().any(|own| identity(own) == Some(found)) {
            return Err(Error::bad_request(format!("{} is a file of the source itself; it is not replaced", output.display())));
        }
        Ok(())
    }
}

/// One tensor of a [`Source`]; nothing of its data has been read.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    source: &'a Source,
    index: usize,
    info: TensorInfo,
}

impl<'a> Tensor<'a> {
    /// Name, alias, dtype and shape.
    #[must_use]
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// Facts about where the tensor lies: pieces, shards, offsets, checksums.
    ///
    /// # Errors
    /// [`Error::Malformed`] when its pieces do not fit together.
    pub fn facts(&self) -> Result<Map<String, Value>> {
        self.source.container.tensor_facts(self.index)
    }

    /// A reader of the tensor's elements.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a dtype without a fixed size, [`Error::NotFound`] when a file is missing,
    /// [`Error::Malformed`] when the pieces do not tile the tensor or a file is too short.
    pub fn reader(&self) -> Result<Box<dyn TensorReader + 'a>> {
        self.check_supported()?;
        if self.info.spec.dtype() == Dtype::String {
            let detail = "strings have no fixed size; a Converter knows what becomes of them".into();
            return Err(Error::Unsupported { what: format!("a reader of {}", self.info.name), detail });
        }
        self.source.container.reader(self.index)
    }

    /// Where all of its elements lie side by side in a file, as this machine has them in memory: [`view`](crate::view) shows them there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what stands in the way: their order, their place, or how they are stored; and as
    /// [`reader`](Self::reader).
    pub fn in_place(&self) -> Result<StoredRun> {
        let reader = self.reader()?;
        let spec = reader.spec();
        let refused = |detail: String| {
            Err(Error::Unsupported { what: format!("a view of {} of {} in place", self.info.name, self.source.path.display()), detail })
        };
        let Some(run) = reader.stored_run(0)? else {
            return refused("its bytes are not stored as they are, side by side: they are packed, decoded or in pieces".into());
        };
        if run.elements != (0..spec.elements()) {
            return refused(format!("it is stored in pieces, the first of which has {} elements", run.elements.end));
        }
        let component = spec.dtype().component_size();
        if component > 1 && reader.byte_order() != ByteOrder::NATIVE {
            return refused(format!("its bytes are {}-endian, this machine's are not", reader.byte_order()));
        }
        if !run.offset.is_multiple_of(component) {
            return refused(format!("it starts at byte {}, which is not aligned to {component}", run.offset));
        }
        Ok(run)
    }

    /// Where the tensor's strings lie.
    pub(crate) fn strings(&self) -> Result<StoredStrings<'a>> {
        self.check_supported()?;
        self.source.container.strings(self.index)
    }

    /// Refuses what no array can hold.
    pub(crate) fn check_supported(&self) -> Result<()> {
        match &self.info.unsupported {
            None => Ok(()),
            Some(reason) => {
                let what = format!("tensor {} of {}", self.info.name, self.source.path.display());
                Err(Error::Unsupported { what, detail: reason.clone() })
            }
        }
    }

    /// Its number in the source.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The source it is a tensor of.
    #[must_use]
    pub fn source(&self) -> &'a Source {
        self.source
    }
}

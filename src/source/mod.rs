//! Where bytes come from: files with named tensors, and readers that fill a slice of one.

pub(crate) mod bundle;
pub(crate) mod cache;
pub(crate) mod container;
pub(crate) mod driver;
pub(crate) mod enclosing;
pub(crate) mod graph;
pub(crate) mod hdf5;
pub(crate) mod joined;
pub(crate) mod keras;
pub(crate) mod merged;
pub(crate) mod name;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod origin;
pub(crate) mod raw_stream;
pub(crate) mod runtime;
pub(crate) mod safetensors;
pub(crate) mod saved_model;
pub(crate) mod selection;
pub(crate) mod table;
pub(crate) mod tensor_proto;
pub(crate) mod tf_data;
pub(crate) mod tfds;
pub(crate) mod tfrecord;
pub(crate) mod unrecognised;
pub(crate) mod v1;
pub(crate) mod video;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cast::ByteOrder;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::options::Options;
use crate::storage::glob::{Glob, alternatives, is_pattern};
use crate::types::dtype::Dtype;

use crate::reader::strings::StoredStrings;
use crate::reader::tensor_reader::{StoredRun, TensorReader};
use crate::records::container::RecordContainer;
use crate::records::feature::Feature;
use container::{Container, TensorInfo};
use driver::Driver;
use driver::Location;
use name::Name;
use origin::Origin;
use selection::Selection;

/// Every format, the surer ones first: a record is told by a checksum, JSON by its brackets. A format is its file, its module above and its line here.
static FORMATS: &[&dyn Driver] = &[
    &saved_model::SavedModelDir,
    &tf_data::TfData,
    &tfds::Tfds,
    &bundle::path::TensorBundle,
    &cache::TfDataCache,
    &npy::Npy,
    &hdf5::Hdf5,
    &keras::Keras,
    &keras::shards::KerasShards,
    &npz::Npz,
    &v1::V1Checkpoint,
    &raw_stream::RawStream,
    &video::Video,
    &tfrecord::TfRecord,
    &safetensors::SafeTensors,
    &tensor_proto::TensorProto,
    &graph::GraphDef,
];

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
    pub(crate) container: Box<dyn Container>,
    origin: Origin,
    /// The files that were missing when it was looked for, and let pass.
    pub(crate) lost: Vec<String>,
}

impl Source {
    /// Opens what `path` names: a checkpoint prefix, its `.index` file, a directory with a `checkpoint` state file, a SavedModel
    /// directory, a frozen graph, a serialized tensor, a file of records or a pattern for several, a folder that tf.data wrote, a video.
    /// The format is found from the content. A pattern for files that are sources each gives all of their tensors, as [`together`](Self::together).
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
        let found = Location::find(path, format, options)?;
        let mut parts = found.iter().map(|location| location.open(options)).collect::<Result<Vec<_>>>()?;
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            last => {
                parts.extend(last);
                Self::together(parts)
            }
        }
    }

    pub(crate) fn new(path: &Path, container: Box<dyn Container>, origin: Origin) -> Self {
        Self { path: path.to_owned(), container, origin, lost: Vec::new() }
    }

    fn with_lost(self, lost: Vec<String>) -> Self {
        Self { lost, ..self }
    }

    /// Several sources as one: the tensors of the first, each continued along axis 0 by those of the same name in the others. Where
    /// every source has only one tensor, its name does not matter. A tensor that cannot be joined is listed, and an error where it is
    /// asked for.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for fewer than two sources; [`Error::Unsupported`] for records that do not fit together.
    pub fn concat(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path.clone()).unwrap_or_default();
        let origin = Origin::of_all(&parts, true);
        Ok(Self::new(&path, joined::join(parts)?, origin))
    }

    /// Several sources as one that has the tensors of all. A name that several have gets that of its source in front: `model/bias`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where two tensors would still have one name.
    pub fn together(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path.clone()).unwrap_or_default();
        let origin = Origin::of_all(&parts, false);
        Ok(Self::new(&path, Box::new(merged::Together::new(parts)?), origin))
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

    /// Why there are no tensors, where there are [none](Self::is_empty): as an error that says what is missing.
    #[must_use]
    pub fn nothing(&self) -> Error {
        match self.container.nothing() {
            Error::Unsupported { what: _, detail } => Error::Unsupported { what: format!("converting {}", self.path.display()), detail },
            other => other,
        }
    }

    /// All tensors, in the order of the source: of names' bytes, or of components. An error comes first, and alone.
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor<'_>>> {
        let (count, failure) = match self.len() {
            Ok(count) => (count, None),
            Err(error) => (0, Some(Err(error))),
        };
        failure.into_iter().chain((0..count).map(|index| self.at(index)))
    }

    pub(crate) fn at(&self, index: usize) -> Result<Tensor<'_>> {
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

    /// The tensors that `patterns` select, each once, in the order of the source. Without a pattern all that are meant: of a SavedModel
    /// with variables these, of a tf.data cache its components, and nowhere TensorFlow's bookkeeping ([`TensorInfo::bookkeeping`]).
    ///
    /// A pattern is a name, an alias, or a glob: `*` matches any run of characters, `/` included; `?`, `[…]` and `{a,b}` are as in a
    /// shell. An exact name wins over a pattern; each alternative of `{a,b}` has to select something. A glob leaves bookkeeping out where
    /// it matches anything else.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] for a pattern that selects nothing.
    pub fn select<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Result<Selection<'_>> {
        if !patterns.is_empty() {
            return self.named(patterns, false);
        }
        let mut chosen = Vec::new();
        for index in 0..self.len()? {
            if self.container.is_meant(index)? {
                chosen.push(self.at(index)?);
            }
        }
        Ok(Selection::new(self, chosen))
    }

    /// The tensors that patterns select, of which globs select bookkeeping too or only where they match nothing else.
    fn named<P: AsRef<[u8]>>(&self, patterns: &[P], with_bookkeeping: bool) -> Result<Selection<'_>> {
        let mut chosen = std::collections::BTreeSet::new();
        let mut globs = Vec::new();
        let mut open: Vec<Vec<u8>> = patterns.iter().rev().map(|pattern| pattern.as_ref().to_vec()).collect();
        while let Some(pattern) = open.pop() {
            if let Some(index) = self.find(&pattern)? {
                chosen.insert(index);
                continue;
            }
            if !is_pattern(&pattern) {
                return Err(self.no_such_tensor(&pattern));
            }
            let alternatives = alternatives(&pattern)?;
            if alternatives.len() > 1 {
                open.extend(alternatives.into_iter().rev());
                continue;
            }
            globs.push(Wanted { glob: Glob::new(&pattern)?, pattern, matched: false, bookkeeping: Vec::new() });
        }
        if !globs.is_empty() {
            for index in 0..self.len()? {
                let info = self.container.info(index)?;
                for wanted in &mut globs {
                    // The first slash of names that are paths may be left out, as in a name.
                    let name = info.name.as_bytes();
                    let names = [Some(name), name.strip_prefix(b"/"), info.alias.as_deref().map(str::as_bytes)];
                    if !names.into_iter().flatten().any(|name| wanted.glob.matches(name)) {
                        continue;
                    }
                    if info.bookkeeping && !with_bookkeeping {
                        wanted.bookkeeping.push(index);
                    } else {
                        wanted.matched = true;
                        chosen.insert(index);
                    }
                }
            }
        }
        for wanted in globs.iter().filter(|wanted| !wanted.matched) {
            if wanted.bookkeeping.is_empty() {
                return Err(self.no_such_tensor(&wanted.pattern));
            }
            chosen.extend(&wanted.bookkeeping);
        }
        let chosen = chosen.into_iter().map(|index| self.at(index)).collect::<Result<_>>()?;
        Ok(Selection::new(self, chosen))
    }

    /// As [`select`](Self::select), with nothing left out that nobody named: without a pattern all tensors, and globs select bookkeeping, too.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn select_all<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Result<Selection<'_>> {
        if patterns.is_empty() { self.all() } else { self.named(patterns, true) }
    }

    /// All tensors, in the order of the source.
    ///
    /// # Errors
    /// As [`tensors`](Self::tensors).
    pub fn all(&self) -> Result<Selection<'_>> {
        Ok(Selection::new(self, self.tensors().collect::<Result<_>>()?))
    }

    /// The sets of tags of the graphs of a SavedModel.
    #[must_use]
    pub fn tag_sets(&self) -> &[Vec<String>] {
        self.container.tag_sets()
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

    /// What is odd about the files but does not stand in the way, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.lost.iter().cloned().chain(self.container.warnings()).collect()
    }

    /// The files that are missing and were [let pass](crate::RecordOptions::salvage), one sentence each; they are among the
    /// [`warnings`](Self::warnings), too.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.lost.iter().cloned().chain(self.container.lost()).collect()
    }

    /// What becomes of values that are not given as they are stored, one sentence each: pixels of videos that are converted.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.container.notes()
    }

    /// How it was given.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Heap bytes that the source holds.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.container.heap_bytes()
    }

    /// Bytes of all its files.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.container.files().iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }

    /// Whether a checksum over more than a tensor vouches for it, which may have been compared only when the last of several was read.
    pub(crate) fn vouches_for(&self, name: &Name) -> bool {
        self.find(name.as_bytes()).ok().flatten().is_some_and(|index| self.container.is_vouched_for(index))
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

/// Where the values of a tensor are that is a column of records.
pub(crate) struct RecordColumn<'a> {
    pub(crate) records: &'a RecordContainer,
    /// The number of the set of records.
    pub(crate) set: usize,
    pub(crate) feature: Feature,
}

/// A glob among what is to be selected.
struct Wanted {
    pattern: Vec<u8>,
    glob: Glob,
    /// Whether it selects anything but bookkeeping.
    matched: bool,
    bookkeeping: Vec<usize>,
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

    /// Whether it is a column of records, all of which are made in one pass.
    #[must_use]
    pub fn is_of_records(&self) -> bool {
        self.records().is_some()
    }

    /// The records that it is a column of, if that is what it is, and which of their features it is.
    pub(crate) fn records(&self) -> Option<(&'a RecordContainer, usize)> {
        self.source.container.records(self.index)
    }

    /// Whether it is computed or decoded by another program each time it is read, so that looking at it is as much work as converting it.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.source.container.is_made(self.index)
    }

    /// How many rows there should be by what the source says of itself, where only reading all of it could prove that.
    #[must_use]
    pub fn claimed_rows(&self) -> Option<u64> {
        self.source.container.claimed_rows(self.index)
    }

    /// The set of records and the feature that it is a column of, if that is what it is. Choices find the feature by this tensor's name.
    pub(crate) fn column(&self) -> Option<RecordColumn<'a>> {
        let (records, number) = self.records()?;
        let (set, feature) = records.feature(number);
        Some(RecordColumn { records, set, feature: Feature { title: Some(self.info.name.to_json()), ..feature } })
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

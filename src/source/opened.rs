//! [`Source`], an opened source, and [`Tensor`], one of its tensors.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::{Container, TensorInfo};
use super::facts::Facts;
use super::nearest;
use super::origin::Origin;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::os::SystemCalls;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::{StoredRun, TensorReader};
use crate::records::container::RecordContainer;
use crate::records::feature::Feature;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::name::Name;

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
/// Clones are handles to the same source. It is closed when the last clone and the last of its tensors are dropped.
#[derive(Debug, Clone)]
pub struct Source {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    container: Box<dyn Container>,
    origin: Origin,
    /// Missing files that were tolerated when the source was found.
    lost: Vec<String>,
    /// The storage of its files.
    storage: Arc<dyn Storage>,
}

impl Source {
    pub(crate) fn new(path: &Path, container: Box<dyn Container>, origin: Origin) -> Self {
        Self::found(path, container, origin, Vec::new(), Arc::new(LocalStorage::new(SystemCalls::default())))
    }

    /// A source in a storage, perhaps with missing files that were tolerated.
    pub(crate) fn found(path: &Path, container: Box<dyn Container>, origin: Origin, lost: Vec<String>, storage: Arc<dyn Storage>) -> Self {
        Self { shared: Arc::new(Shared { path: path.to_owned(), container, origin, lost, storage }) }
    }

    /// Whether both are handles to one source.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn container(&self) -> &dyn Container {
        &*self.shared.container
    }

    /// The container, if no clone and no tensor of the source is left.
    pub(crate) fn container_mut(&mut self) -> Option<&mut dyn Container> {
        Some(&mut *Arc::get_mut(&mut self.shared)?.container)
    }

    /// The path the source was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The format's name: `tensor-bundle`, `saved-model`, `tfrecord`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        self.container().format()
    }

    /// Number of tensors. To find the features of records, all records are read once.
    ///
    /// # Errors
    /// Damage in records that are read for it.
    pub fn len(&self) -> Result<usize> {
        self.container().len()
    }

    /// Whether there are no tensors.
    ///
    /// # Errors
    /// Those of [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Explains why the source [is empty](Self::is_empty), as an error that names what is missing.
    #[must_use]
    pub fn nothing(&self) -> Error {
        match self.container().nothing() {
            Error::Unsupported { what: _, detail } => {
                Error::Unsupported { what: format!("converting {}", self.shared.path.display()), detail }
            }
            other => other,
        }
    }

    /// All tensors, in the order of the source: sorted by name, or by component. TensorFlow's bookkeeping is among them, and after the
    /// variables of a SavedModel the constants of its graphs (see [`TensorInfo::group`]); [`select`](Self::select) without a pattern gives
    /// the tensors that are converted by default. If listing fails, the error is the only item.
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor>> {
        let (count, failure) = match self.len() {
            Ok(count) => (count, None),
            Err(error) => (0, Some(Err(error))),
        };
        failure.into_iter().chain((0..count).map(|index| self.at(index)))
    }

    pub(crate) fn at(&self, index: usize) -> Result<Tensor> {
        Ok(Tensor { source: self.clone(), index, info: self.container().info(index)? })
    }

    /// The tensor called `name`: its exact key, or an alias of a single tensor.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] with the most similar names.
    pub fn tensor(&self, name: impl AsRef<[u8]>) -> Result<Tensor> {
        let name = name.as_ref();
        match self.find(name)? {
            Some(index) => self.at(index),
            None => Err(self.no_such_tensor(name)),
        }
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        if let Some(index) = self.container().find(name)?.or_else(|| self.container().find_alias(name)) {
            return Ok(Some(index));
        }
        // A name with NUL or bytes that are not UTF-8 is also accepted as `ls` shows it.
        if !name.contains(&b'\\') {
            return Ok(None);
        }
        for index in 0..self.len()? {
            if self.container().info(index)?.name.to_string().as_bytes() == name {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    pub(crate) fn no_such_tensor(&self, name: &[u8]) -> Error {
        let nearest = nearest::nearest(name, (0..self.len().unwrap_or(0)).filter_map(|index| self.container().info(index).ok()));
        Error::NoSuchTensor { path: self.shared.path.clone(), name: Name::new(name).to_string(), nearest }
    }

    /// The files of the source that exist.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.container().files()
    }

    /// The tag sets of a SavedModel's graphs.
    #[must_use]
    pub fn tag_sets(&self) -> &[Vec<String>] {
        self.container().tag_sets()
    }

    /// Facts about the files: shards, index blocks, byte order.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts::new(self.container().facts())
    }

    /// The signatures that a graph or a SavedModel can compute.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        self.container().signatures()
    }

    /// Non-fatal warnings about the files, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.shared.lost.iter().cloned().chain(self.container().warnings()).collect()
    }

    /// Missing files that were [tolerated](crate::RecordOptions::salvage), one sentence each. The [`warnings`](Self::warnings)
    /// contain them, too.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.shared.lost.iter().cloned().chain(self.container().lost()).collect()
    }

    /// How values are changed that are not delivered as stored, one sentence each: pixels of videos that are converted.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.container().notes()
    }

    /// A reader of tensor `index`; see [`Tensor::reader`].
    pub(crate) fn reader_of(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        self.reader_with(index, &self.container().info(index)?)
    }

    fn reader_with(&self, index: usize, info: &TensorInfo) -> Result<Box<dyn TensorReader + '_>> {
        self.check_supported(info)?;
        if info.spec.dtype() == Dtype::String {
            let detail = "strings have no fixed size: use a Converter".into();
            return Err(Error::Unsupported { what: format!("a reader of {}", info.name), detail });
        }
        self.container().reader(index)
    }

    fn check_supported(&self, info: &TensorInfo) -> Result<()> {
        match &info.unsupported {
            None => Ok(()),
            Some(reason) => {
                let what = format!("tensor {} of {}", info.name, self.shared.path.display());
                Err(Error::Unsupported { what, detail: reason.clone() })
            }
        }
    }

    /// Missing files that were tolerated when the source was found.
    pub(crate) fn missing_files(&self) -> &[String] {
        &self.shared.lost
    }

    /// The paths that the source was opened by.
    pub(crate) fn origin(&self) -> &Origin {
        &self.shared.origin
    }

    /// Heap bytes that the source holds.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.container().heap_bytes()
    }

    /// Bytes of all its files.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.container().files().iter().filter_map(|path| self.shared.storage.len_of(path)).sum()
    }

    /// Whether a checksum over several tensors covers this one and matched. It is compared when the last of them has been read.
    pub(crate) fn vouches_for(&self, name: &Name) -> bool {
        self.find(name.as_bytes()).ok().flatten().is_some_and(|index| self.container().is_vouched_for(index))
    }

    /// Refuses an output that is one of the source's own files, under any name.
    pub(crate) fn check_not_own(&self, output: &Path) -> Result<()> {
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let Some(found) = identity(output) else { return Ok(()) };
        if self.container().files().iter().any(|own| identity(own) == Some(found)) {
            return Err(BadRequest::OwnFile { path: output.to_owned() }.into());
        }
        Ok(())
    }
}

/// The records behind a tensor that is one of their columns.
pub(crate) struct RecordColumn<'a> {
    pub(crate) records: &'a RecordContainer,
    /// The number of the set of records.
    pub(crate) set: usize,
    pub(crate) feature: Feature,
}

/// One tensor of a [`Source`]. Its data have not been read.
#[derive(Debug, Clone)]
pub struct Tensor {
    source: Source,
    index: usize,
    info: TensorInfo,
}

impl Tensor {
    /// Name, alias, dtype and shape.
    #[must_use]
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The tensor's name, as TensorFlow lists it.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.info.name
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.info.dtype()
    }

    /// The length of every axis; empty for a scalar. A length that is unknown before reading is 0: see [`TensorInfo::axes`].
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.info.shape()
    }

    /// Number of bytes of its elements: [`TensorInfo::nbytes`].
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.info.nbytes()
    }

    /// Facts about the location of the tensor: pieces, shards, offsets, checksums.
    ///
    /// # Errors
    /// [`Error::Malformed`] when its pieces do not fit together.
    pub fn facts(&self) -> Result<Facts> {
        self.source.container().tensor_facts(self.index).map(Facts::new)
    }

    /// A reader of the tensor's elements.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a dtype without a fixed size, [`Error::NotFound`] when a file is missing,
    /// [`Error::Malformed`] when the pieces do not tile the tensor or a file is too short.
    pub fn reader(&self) -> Result<Box<dyn TensorReader + '_>> {
        self.source.reader_with(self.index, &self.info)
    }

    /// The place of the tensor in its file, if it is contiguous and has this machine's memory layout. [`view`](crate::view) maps
    /// it there.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the reason: byte order, alignment, or the way it is stored; and the errors of
    /// [`reader`](Self::reader).
    pub fn in_place(&self) -> Result<StoredRun> {
        let reader = self.reader()?;
        let spec = reader.spec();
        let refused = |detail: String| {
            Err(Error::Unsupported {
                what: format!("a view of {} of {} in place", self.info.name, self.source.shared.path.display()),
                detail,
            })
        };
        let Some(run) = reader.stored_run(0)? else {
            return refused("its elements are not contiguous in the file: they are packed, decoded or in pieces".into());
        };
        if run.elements != (0..spec.elements()) {
            return refused(format!("it is stored in pieces, and the first has {} elements", run.elements.end));
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

    /// The tensor's strings.
    pub(crate) fn strings(&self) -> Result<StoredStrings<'_>> {
        self.check_supported()?;
        self.source.container().strings(self.index)
    }

    /// Refuses tensors that no array can hold.
    pub(crate) fn check_supported(&self) -> Result<()> {
        self.source.check_supported(&self.info)
    }

    /// Whether it is a column of records. All columns of a set are made in one pass.
    #[must_use]
    pub fn is_of_records(&self) -> bool {
        self.records().is_some()
    }

    /// The records that it is a column of, if any, and the number of its feature.
    pub(crate) fn records(&self) -> Option<(&RecordContainer, usize)> {
        self.source.container().records(self.index)
    }

    /// Whether another program computes or decodes it each time it is read, so that inspecting it costs as much as converting it.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.source.container().is_made(self.index)
    }

    /// The claimed number of rows, if only reading all of them could verify it.
    #[must_use]
    pub fn claimed_rows(&self) -> Option<u64> {
        self.source.container().claimed_rows(self.index)
    }

    /// The set of records and the feature that it is a column of, if any. Options refer to the feature by this tensor's name.
    pub(crate) fn column(&self) -> Option<RecordColumn<'_>> {
        let (records, number) = self.records()?;
        let (set, feature) = records.feature(number);
        Some(RecordColumn { records, set, feature: Feature { title: Some(self.info.name.to_json()), ..feature } })
    }

    /// Its index in the source.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The source of the tensor.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }
}

//! Datasets: their names, types, and where their elements are.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::chunked::{Chunked, Chunks, Decoding};
use super::storage::{FileRange, WHAT};
use super::strings;
use super::types::{Elements, elements};
use crate::error::{Error, Result};
use crate::format::hdf5::chunk_index;
use crate::format::hdf5::dataspace::Dataspace;
use crate::format::hdf5::datatype::Datatype;
use crate::format::hdf5::failure::Failure;
use crate::format::hdf5::file::File;
use crate::format::hdf5::filters::Step;
use crate::format::hdf5::global_heap::TextPlace;
use crate::format::hdf5::layout::{ChunkedLayout, Layout};
use crate::format::hdf5::object_header::{Message, ObjectHeader};
use crate::reader::checksums::Region;
use crate::reader::enclosing::Enclosing;
use crate::reader::memory::FilledTensor;
use crate::reader::stored::{Check, StoredArray};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::source::container::TensorInfo;
use crate::source::table::TensorPlace;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::size::memory_len;
use crate::types::spec::{MAX_NDIM, TensorSpec};

/// Longest fill value.
const MOST_ZEROS: u64 = 1 << 16;

/// A dataset, and the other paths to it.
pub(crate) struct Found {
    pub(crate) info: TensorInfo,
    pub(crate) located: LocatedDataset,
    pub(crate) paths: Vec<String>,
}

/// The context in which datasets are looked up.
pub(crate) struct Datasets<'a> {
    pub(crate) part: &'a FileRange,
    pub(crate) opened: &'a Arc<File>,
}

/// Why a dataset cannot be converted.
enum Refusal {
    /// The reason to list it with.
    Unsupported(String),
    /// The file is broken.
    Failed(Error),
}

impl Datasets<'_> {
    /// The dataset with a header. `layer` names the layer that it is a variable of.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`]. A valid dataset that cannot be converted is listed with the reason.
    pub(crate) fn dataset(&self, path: &str, header: &ObjectHeader, layer: Option<&str>) -> Result<(TensorInfo, LocatedDataset)> {
        let (name, failed) = (Name::new(path.as_bytes()), |failure| self.part.error(what(path), failure));
        let space = self.opened.dataspace(header).map_err(failed)?;
        match self.readable(path, header, &space, layer) {
            Ok(found) => Ok(found),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Unsupported(reason)) => {
                let spec =
                    TensorSpec::new(Dtype::Variant, space.shape).map_err(|request| self.malformed(path, header, request.to_string()))?;
                Ok((TensorInfo { unsupported: Some(reason), ..TensorInfo::new(name, spec) }, LocatedDataset::nowhere(self.part)))
            }
        }
    }

    fn malformed(&self, path: &str, header: &ObjectHeader, detail: impl Into<String>) -> Error {
        Error::malformed_at(self.part.file.path(), what(path), self.part.offset(header.at), detail)
    }

    fn readable(
        &self,
        path: &str,
        header: &ObjectHeader,
        space: &Dataspace,
        layer: Option<&str>,
    ) -> Result<(TensorInfo, LocatedDataset), Refusal> {
        let unsupported = |reason: String| Err(Refusal::Unsupported(reason));
        let failed = |failure| match failure {
            Failure::Unsupported(reason) => Refusal::Unsupported(reason),
            failure => Refusal::Failed(self.part.error(what(path), failure)),
        };
        let datatype = self.opened.datatype(header).map_err(failed)?;
        let named = self.opened.text_attribute(header, "dtype").map_err(failed)?;
        let (dtype, order, axes, item) = match elements(&datatype, named.as_deref()) {
            Elements::Unsupported(reason) => return unsupported(reason),
            Elements::Plain(dtype, order, axes) => (dtype, order, axes, None),
            Elements::Items(descr, bytes) => (Dtype::UInt8, ByteOrder::Little, vec![bytes], Some(descr)),
            Elements::Strings => (Dtype::String, ByteOrder::Little, Vec::new(), None),
        };
        let shape: Vec<u64> = space.shape.iter().chain(&axes).copied().collect();
        if shape.len() - usize::from(item.is_some()) > MAX_NDIM {
            return unsupported(format!("{} dimensions, NumPy arrays have at most {MAX_NDIM}", shape.len()));
        }
        let spec = |dtype, shape| {
            TensorSpec::new(dtype, shape).map_err(|request| Refusal::Failed(self.malformed(path, header, request.to_string())))
        };
        let spec_of_strings = |bytes| spec(Dtype::UInt8, shape.iter().copied().chain([bytes]).collect());
        let tensor = spec(dtype, shape.clone())?;
        if space.is_null {
            return unsupported("it has no elements, not even one (a null dataspace)".into());
        }
        if header.find(Message::EXTERNAL_FILES).is_some() {
            return unsupported("its elements are in other files (external storage), which are not read".into());
        }
        // Strings of any length are stored as references, which are read first.
        let (spec, axes) = match dtype {
            Dtype::String => {
                let bytes = TextPlace::nbytes(&self.opened.image);
                (spec_of_strings(bytes)?, vec![bytes])
            }
            _ => (tensor.clone(), axes),
        };
        let stored = self.stored(path, header, space, &datatype, &spec, &axes)?;
        let alias = layer.zip(path.rsplit('/').next()).map(|(layer, number)| format!("{layer}/{number}"));
        let info = TensorInfo { alias, item, ..TensorInfo::new(Name::new(path.as_bytes()), tensor) };
        let strings = (dtype == Dtype::String).then(|| Box::new(spec));
        Ok((
            info,
            LocatedDataset { part: self.part.clone(), opened: Some(Arc::clone(self.opened)), order, stored, strings, enclosing: None },
        ))
    }

    /// How the elements of a dataset are stored. `axes` are the axes of its datatype.
    fn stored(
        &self,
        path: &str,
        header: &ObjectHeader,
        space: &Dataspace,
        datatype: &Datatype,
        spec: &TensorSpec,
        axes: &[u64],
    ) -> Result<DatasetStorage, Refusal> {
        let failed = |failure| match failure {
            Failure::Unsupported(reason) => Refusal::Unsupported(reason),
            failure => Refusal::Failed(self.part.error(what(path), failure)),
        };
        let malformed = |detail: String| Err(Refusal::Failed(self.malformed(path, header, detail)));
        let itemsize = u64::from(datatype.size);
        let fill = self.opened.fill_value(header).map_err(failed)?.filter(|value| value.len() as u64 == itemsize);
        let fill = fill.unwrap_or_else(|| vec![0; memory_len(itemsize.min(MOST_ZEROS))]);
        match self.opened.layout(header).map_err(failed)? {
            Layout::Compact(bytes) if bytes.len() as u64 != spec.nbytes() => {
                malformed(format!("{} bytes in its header, {spec} has {}", bytes.len(), spec.nbytes()))
            }
            Layout::Compact(bytes) => Ok(DatasetStorage::Compact(bytes)),
            Layout::Contiguous { address: None, .. } => Ok(DatasetStorage::Unwritten(fill)),
            Layout::Contiguous { nbytes: Some(nbytes), .. } if nbytes != spec.nbytes() => {
                malformed(format!("{nbytes} bytes, {spec} has {}", spec.nbytes()))
            }
            Layout::Contiguous { address: Some(address), .. } => {
                Ok(DatasetStorage::Contiguous(self.part.offset(self.opened.image.place(address))))
            }
            Layout::Chunked(layout) => {
                let filters = self.opened.filters(header).map_err(failed)?;
                let steps = Step::of_pipeline(&filters, memory_len(itemsize)).map_err(Refusal::Unsupported)?;
                if layout.chunk.len() != space.shape.len() || layout.itemsize != itemsize {
                    let (chunk, bytes) = (&layout.chunk, layout.itemsize);
                    return malformed(format!(
                        "chunks of shape {chunk:?} and elements of {bytes} bytes, the dataset has shape {:?} and elements of {itemsize}",
                        space.shape
                    ));
                }
                let chunk = layout.chunk.iter().chain(axes).copied().collect();
                Ok(DatasetStorage::Chunked(Box::new(ChunkedDataset { layout, space: space.clone(), chunk, steps, fill })))
            }
            Layout::Virtual => Err(Refusal::Unsupported("it is a virtual dataset, put together from others".into())),
        }
    }
}

/// The word for a dataset in messages.
fn what(path: &str) -> String {
    format!("HDF5 dataset {path}")
}

/// A dataset and where it is stored.
#[derive(Debug)]
pub(crate) struct LocatedDataset {
    part: FileRange,
    /// The file that contains it; `None` if it cannot be read.
    opened: Option<Arc<File>>,
    order: ByteOrder,
    stored: DatasetStorage,
    /// For strings of any length: the references that are stored in their place, as bytes.
    strings: Option<Box<TensorSpec>>,
    /// The enclosing archive member that has a checksum, if any.
    pub(crate) enclosing: Option<Arc<Enclosing>>,
}

/// How it is stored.
#[derive(Debug)]
enum DatasetStorage {
    /// Not readable.
    Nowhere,
    Compact(Vec<u8>),
    /// Never written: every element is this one.
    Unwritten(Vec<u8>),
    /// Contiguous, at this file offset.
    Contiguous(u64),
    Chunked(Box<ChunkedDataset>),
}

/// A dataset in chunks. Their places are looked up when it is read.
#[derive(Debug)]
struct ChunkedDataset {
    layout: ChunkedLayout,
    space: Dataspace,
    /// The shape of a chunk, with the axes of the datatype.
    chunk: Vec<u64>,
    steps: Vec<Step>,
    fill: Vec<u8>,
}

impl LocatedDataset {
    /// A place for a dataset that is listed but cannot be read.
    pub(crate) fn nowhere(part: &FileRange) -> Self {
        Self { part: part.clone(), opened: None, order: ByteOrder::Little, stored: DatasetStorage::Nowhere, strings: None, enclosing: None }
    }

    fn layout(&self) -> &'static str {
        match &self.stored {
            DatasetStorage::Nowhere => "none",
            _ if self.strings.is_some() => "variable-length",
            DatasetStorage::Compact(_) => "compact",
            DatasetStorage::Unwritten(_) => "not written",
            DatasetStorage::Contiguous(_) => "contiguous",
            DatasetStorage::Chunked(_) => "chunked",
        }
    }

    /// A reader of the stored bytes as elements of `spec`.
    fn stored<'a>(&'a self, name: &Name, spec: TensorSpec) -> Result<Box<dyn TensorReader + 'a>> {
        Ok(match (&self.stored, &self.opened) {
            (DatasetStorage::Contiguous(offset), _) => {
                let check = if spec.dtype() == Dtype::Bool { Check::OddBools } else { Check::Nothing };
                let nbytes = spec.nbytes();
                let stored = StoredArray::new(&self.part.file, *offset, spec, WHAT)?.byte_ordered(self.order).checked(check);
                Box::new(match &self.enclosing {
                    Some(enclosing) => stored.in_region(Region::within(enclosing, Arc::clone(self.part.file.path()), *offset, nbytes)),
                    None => stored,
                })
            }
            (DatasetStorage::Chunked(dataset), Some(opened)) => Box::new(self.chunked(name, spec, dataset, opened)?),
            (DatasetStorage::Compact(bytes) | DatasetStorage::Unwritten(bytes), _) => Box::new(FilledTensor::new(spec, self.order, bytes)),
            (DatasetStorage::Nowhere | DatasetStorage::Chunked(_), _) => {
                return Err(Error::Unsupported {
                    what: format!("reading {name}"),
                    detail: "its elements are not stored in this file".into(),
                });
            }
        })
    }

    fn chunked(&self, name: &Name, spec: TensorSpec, dataset: &ChunkedDataset, opened: &File) -> Result<Chunked> {
        let mut chunks = Chunks::new(&spec, &dataset.chunk);
        chunk_index::for_each(&opened.image, &dataset.layout, &dataset.space, |place, chunk| {
            let at = chunk.at;
            let offset = self.part.offset(at);
            chunks.add(place, offset, chunk.nbytes, chunk.mask).map_err(|detail| Failure::broken(at, "chunk index", detail))
        })
        .map_err(|failure| self.part.error(what(&name.to_json()), failure))?;
        let layout =
            Decoding { spec, order: self.order, chunk: dataset.chunk.clone(), steps: dataset.steps.clone(), fill: dataset.fill.clone() };
        Chunked::new(&self.part.file, layout, chunks)
    }
}

impl TensorPlace for LocatedDataset {
    fn reader<'a>(&'a self, info: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        if self.strings.is_some() {
            let detail = "its elements have no fixed size".into();
            return Err(Error::Unsupported { what: format!("reading {}", info.name), detail });
        }
        self.stored(&info.name, info.spec.clone())
    }

    fn strings<'a>(&'a self, info: &TensorInfo) -> Result<StoredStrings<'a>> {
        let (Some(spec), Some(opened)) = (&self.strings, &self.opened) else {
            return Err(Error::Unsupported { what: format!("strings of {}", info.name), detail: "it has none".into() });
        };
        strings::read(&self.part, opened, info, || self.stored(&info.name, (**spec).clone()))
    }

    fn is_vouched_for(&self) -> bool {
        self.enclosing.as_ref().is_some_and(|enclosing| enclosing.is_right())
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("layout".into(), json!(self.layout()));
        match &self.stored {
            _ if self.strings.is_some() => {}
            DatasetStorage::Contiguous(offset) => {
                facts.insert("offset".into(), json!(offset));
            }
            DatasetStorage::Chunked(dataset) => {
                facts.insert("chunks".into(), json!(dataset.chunk));
                facts.insert("filters".into(), json!(dataset.steps.iter().map(|step| step.name()).collect::<Vec<_>>()));
            }
            _ => {}
        }
        facts.insert("byte_order".into(), json!(self.order.to_string()));
        facts
    }
}

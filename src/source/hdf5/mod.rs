//! HDF5 files, which Keras writes its weights to: datasets by their paths, in one run or in chunks.
//!
//! The crate `hdf5-pure` finds out where bytes lie; they are read and unpacked here. Nothing is followed out of the file.

pub(crate) mod chunked;
pub(crate) mod filters;
pub(crate) mod header;
pub(crate) mod links;
pub(crate) mod tree;
pub(crate) mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use hdf5_pure::{ChunkIndex, Dataset, File, FormatError, Group, Layout as H5Layout};
use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::table::{TensorPlace, TensorTable};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::reader::checksums::Region;
use crate::reader::enclosing::Enclosing;
use crate::reader::memory::Filled;
use crate::reader::stored::{Check, StoredArray};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::size::memory_len;
use crate::types::spec::{MAX_NDIM, TensorSpec};

use chunked::{Chunked, ChunkedLayout, StoredChunk, grid};
use filters::Step;
use header::{Message, fill_value, is_null, messages, old_contiguous};
use links::{Link, Target, links};
use tree::{PathKey, PathLinks, Tree, path_key};
use types::{Elements, elements};

const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";
const WHAT: &str = "HDF5 file";
/// A superblock may lie behind a block of the user's, at a power of two from here on.
const FIRST_BLOCK: u64 = 512;
/// How far a superblock is looked for to recognise a file.
const LONGEST_FRONT: u64 = 16 << 10;
/// Groups nest no deeper.
const MOST_DEPTH: usize = 100;
/// Objects that are looked up one by one by their names, each of which takes a look at all of them.
const MOST_NAMED: usize = 10_000;
/// No file has more objects.
const MOST_OBJECTS: usize = 1_000_000;
/// The most memory for the strings of a dataset, as far as they are read at once.
const MOST_STRINGS: u64 = 64 << 20;
/// The name of what has the variables of a layer.
const VARS: &str = "vars";

/// An HDF5 file.
pub(crate) struct Hdf5;

impl Driver for Hdf5 {
    fn name(&self) -> &'static str {
        "hdf5"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? {
            return Ok(None);
        }
        let file = probe.open()?;
        // Blocks of the user's are short; to look for a superblock all over a large file would take a read for each power of two.
        Ok(superblock(&*file, 0..file.len().min(LONGEST_FRONT)).is_some().then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let file = place.open()?;
        let range = 0..file.len();
        Ok(Box::new(open_range(self.name(), &file, range, None)?))
    }
}

/// Where the superblock of the HDF5 file in a range of a file lies, from its start.
fn superblock(file: &dyn Blob, range: Range<u64>) -> Option<u64> {
    let len = range.end - range.start;
    let blocks = std::iter::successors(Some(FIRST_BLOCK), |at| at.checked_mul(2));
    std::iter::once(0).chain(blocks).take_while(|at| at + MAGIC.len() as u64 <= len).find(|at| {
        let mut front = [0; MAGIC.len()];
        file.read(range.start + at, &mut front, file.calls()).is_ok() && front == MAGIC
    })
}

/// The datasets of the HDF5 file in a range of a file, which may have a checksum of its own.
///
/// # Errors
/// [`Error::Malformed`]; [`Error::Unsupported`] for a link to another file; [`Error::Io`].
pub(crate) fn open_range(
    format: &'static str,
    file: &Arc<dyn Blob>,
    range: Range<u64>,
    enclosing: Option<&Arc<Enclosing>>,
) -> Result<TensorTable<Located>> {
    let Datasets { mut tensors, others, links, facts } = datasets(file, range)?;
    for (_, located) in &mut tensors {
        located.enclosing = enclosing.cloned();
    }
    Ok(TensorTable::new(format, vec![file.path().to_path_buf()], tensors, facts).also_found_by(others).found_through(Box::new(links)))
}

/// The datasets of a file.
pub(crate) struct Datasets {
    pub(crate) tensors: Vec<(TensorInfo, Located)>,
    /// Other names, with those that they lead to.
    pub(crate) others: Vec<(String, Name)>,
    links: PathLinks,
    facts: Map<String, Value>,
}

/// The same as a list.
pub(crate) fn datasets(file: &Arc<dyn Blob>, range: Range<u64>) -> Result<Datasets> {
    let start = range.start;
    if superblock(&**file, range.clone()).is_none() {
        return Err(Error::malformed_at(file.path(), WHAT, start, "no HDF5 signature at 0, 512, 1024, …"));
    }
    let place = header::Place::new(file, range);
    let opened = File::from_source(place.clone()).map_err(|error| failed(&**file, &error))?;
    let (said, have) = (opened.superblock().eof_address, hdf5_pure::Source::len(&place));
    if said > have {
        return Err(Error::malformed_at(
            file.path(),
            WHAT,
            start,
            format!("its superblock says {said} bytes, {have} are there: it was cut"),
        ));
    }
    let base = opened.superblock().base_address.get();
    let walker = Walker { file, place: place.based(base), opened };
    let mut tree = Tree::default();
    walker.walk(&mut tree)?;
    let count = tree.found.len();
    tree.follow(file)?;
    let Tree { found, links, .. } = tree;
    let super_block = walker.opened.superblock();
    let mut facts = Map::new();
    facts.insert("superblock".into(), json!(super_block.version));
    facts.insert("datasets".into(), json!(count));
    if let Ok(attributes) = walker.opened.root().attrs() {
        let text = |name: &str| attributes.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        for name in ["keras_version", "backend"] {
            facts.extend(text(name).map(|text| (name.to_owned(), json!(text))));
        }
    }
    let (mut tensors, mut others) = (Vec::with_capacity(found.len()), Vec::new());
    for (info, located, paths) in found.into_values() {
        // The first slash is left out by most.
        let plain = info.name.to_json().trim_start_matches('/').to_owned();
        let linked = paths.iter().flat_map(|path| [path.clone(), path.trim_start_matches('/').to_owned()]);
        others.extend(std::iter::once(plain).chain(linked).map(|other| (other, info.name.clone())));
        tensors.push((info, located));
    }
    name_layers(&mut tensors);
    Ok(Datasets { tensors, others, links, facts })
}

/// What `hdf5-pure` says, with the file.
fn failed(file: &dyn Blob, error: &hdf5_pure::Error) -> Error {
    match error {
        hdf5_pure::Error::Format(FormatError::UnsupportedExternalStorage) => {
            Error::Unsupported { what: format!("external storage in {}", file.path().display()), detail: error.to_string() }
        }
        error => Error::malformed(file.path(), WHAT, error.to_string()),
    }
}

/// Datasets of a group, by name, and the groups in it.
type NamedDatasets = Vec<(String, Dataset)>;
type NamedGroups = Vec<(String, Group)>;

/// A group to be visited.
struct Opened {
    path: String,
    /// Where its header lies.
    address: u64,
    object: Group,
    depth: usize,
}

struct Walker<'a> {
    file: &'a Arc<dyn Blob>,
    place: header::Place,
    opened: File,
}

impl Walker<'_> {
    /// Visits every object once, however many links lead to it.
    fn walk(&self, tree: &mut Tree) -> Result<()> {
        let (mut seen, mut objects, mut by_header) = (HashMap::new(), 0, HashMap::new());
        let root = self.opened.root();
        // Nothing says where the header of the root lies; it is what is read first for its attributes.
        let (_, asked) = self.place.watch(|| root.attrs());
        let mut open = vec![Opened { path: String::new(), address: asked.first().copied().unwrap_or(u64::MAX), object: root, depth: 0 }];
        while let Some(Opened { path, address, object: group, depth }) = open.pop() {
            if let Some(first) = seen.get(&address) {
                // Another link to the same group.
                tree.links.0.insert(path, Target::Path(format!("/{first}")));
                continue;
            }
            seen.insert(address, path.clone());
            let unknown = || Error::malformed(self.file.path(), WHAT, format!("the header of the group {path}/ cannot be read"));
            let header = messages(&self.place, address).ok_or_else(unknown)?;
            let links =
                links(&self.place, &header).map_err(|detail| Error::malformed(self.file.path(), format!("HDF5 group {path}/"), detail))?;
            let title = group.attrs().ok().and_then(|all| all.get("name").and_then(|name| name.as_str()).map(str::to_owned));
            let (datasets, mut groups) = self.objects(&path, &group, &links)?;
            objects += links.len() - datasets.len() - groups.len();
            let addresses: HashMap<&str, u64> = links.iter().filter_map(|link| Some((&*link.name, self.address(&link.target)?))).collect();
            let address_of = |name: &str| addresses.get(name).copied().unwrap_or(u64::MAX);
            let elsewhere = links.iter().filter(|link| !matches!(link.target, Target::Object(_)));
            tree.links.0.extend(elsewhere.map(|link| (format!("{path}/{}", link.name), link.target.clone())));
            tree.groups.insert(path.clone());
            for (name, dataset) in datasets {
                objects += 1;
                if objects > MOST_OBJECTS {
                    return Err(Error::malformed(self.file.path(), WHAT, format!("more than {MOST_OBJECTS} objects, at {path}/{name}")));
                }
                let (path, address) = (format!("{path}/{name}"), address_of(&name));
                // A dataset that several links lead to is listed by the first, and found by all.
                if let Some(known) = by_header.get(&address) {
                    let known: &PathKey = known;
                    if let Some((_, _, others)) = tree.found.get_mut(known) {
                        others.push(path);
                    }
                    continue;
                }
                let layer = title.as_deref().filter(|_| path.ends_with(&format!("/{VARS}/{name}")));
                let header = messages(&self.place, address).unwrap_or_default();
                let (info, located) = self.dataset(&path, &dataset, &header, layer)?;
                let key = path_key(&path);
                by_header.insert(address, key.clone());
                tree.found.insert(key, (info, located, Vec::new()));
            }
            groups.sort_by(|a, b| b.0.cmp(&a.0));
            for (name, group) in groups {
                objects += 1;
                if depth == MOST_DEPTH || objects > MOST_OBJECTS {
                    let detail = format!("more than {MOST_OBJECTS} objects, or groups that nest deeper than {MOST_DEPTH} at {path}/{name}");
                    return Err(Error::malformed(self.file.path(), WHAT, detail));
                }
                open.push(Opened { path: format!("{path}/{name}"), address: address_of(&name), object: group, depth: depth + 1 });
            }
        }
        Ok(())
    }

    /// The objects that the links of a group lead to: datasets in the order of their names, and groups.
    fn objects(&self, path: &str, group: &Group, links: &[Link]) -> Result<(NamedDatasets, NamedGroups)> {
        let names: Vec<&str> = links.iter().filter(|link| matches!(link.target, Target::Object(_))).map(|link| &*link.name).collect();
        let failed = |error: hdf5_pure::Error| failed(&**self.file, &error);
        let listed = || Ok((group.iter_datasets()?.collect(), group.iter_groups()?.collect(), group.named_datatypes()?.len()));
        let (mut datasets, groups, others): (NamedDatasets, NamedGroups, usize) = match listed() {
            // A group of the old form with links to paths cannot be listed.
            Err(hdf5_pure::Error::Format(_)) if names.len() < links.len() => {
                if names.len() > MOST_NAMED {
                    let what = format!("a soft link in {}", self.file.path().display());
                    let detail = format!(
                        "the group {path}/ of the old form has more than {MOST_NAMED} objects beside it: h5repack makes it one of the new form"
                    );
                    return Err(Error::Unsupported { what, detail });
                }
                let (mut datasets, mut groups) = (Vec::new(), Vec::new());
                for &name in &names {
                    if let Ok(dataset) = group.dataset(name) {
                        datasets.push((name.to_owned(), dataset));
                    } else if let Ok(group) = group.group(name) {
                        groups.push((name.to_owned(), group));
                    } else {
                        group.named_datatype(name).map_err(failed)?;
                    }
                }
                let others = names.len() - datasets.len() - groups.len();
                (datasets, groups, others)
            }
            listed => listed.map_err(failed)?,
        };
        self.check_others(path, links, &datasets, &groups)?;
        let found = datasets.len() + groups.len() + others;
        if found != names.len() {
            let detail = format!("{} links lead to objects of the file, {found} objects can be read", names.len());
            return Err(Error::malformed(self.file.path(), format!("HDF5 group {path}/"), detail));
        }
        datasets.sort_by_cached_key(|(name, _)| path_key(name));
        Ok((datasets, groups))
    }

    /// Refuses an object that is not taken for a dataset, although its header has what only datasets have.
    fn check_others(&self, path: &str, links: &[Link], datasets: &NamedDatasets, groups: &NamedGroups) -> Result<()> {
        let known: HashSet<&str> = datasets.iter().map(|(name, _)| &name[..]).chain(groups.iter().map(|(name, _)| &name[..])).collect();
        for link in links.iter().filter(|link| !known.contains(&*link.name)) {
            let Some(address) = self.address(&link.target) else { continue };
            let header = messages(&self.place, address).unwrap_or_default();
            if header.is_empty() || header.iter().any(Message::is_of_dataset) {
                let what = format!("HDF5 object {path}/{}", link.name);
                return Err(Error::malformed_at(self.file.path(), what, address, "its header is of no dataset, group or datatype"));
            }
        }
        Ok(())
    }

    /// Where in the file the header lies that a link leads to.
    fn address(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Object(address) => address.checked_add(self.place.base()),
            _ => None,
        }
    }

    fn dataset(&self, path: &str, dataset: &Dataset, header: &[Message], layer: Option<&str>) -> Result<(TensorInfo, Located)> {
        let malformed = |detail: String| Error::malformed(self.file.path(), format!("HDF5 dataset {path}"), detail);
        let failed = |error: hdf5_pure::Error| malformed(error.to_string());
        let shape = dataset.shape().map_err(failed)?;
        let datatype = dataset.datatype().map_err(failed)?;
        let attributes = dataset.attrs().unwrap_or_default();
        let elements = elements(&datatype, attributes.get("dtype").and_then(|name| name.as_str()));
        let name = Name::new(path.as_bytes());
        let unsupported = |reason: String| {
            let spec = TensorSpec::new(Dtype::Variant, shape.clone()).map_err(malformed)?;
            Ok((TensorInfo { unsupported: Some(reason), ..TensorInfo::new(name.clone(), spec) }, Located::nowhere(self.file)))
        };
        let (dtype, order, more, item) = match elements {
            Elements::Unsupported(reason) => return unsupported(reason),
            Elements::Plain(dtype, order, axes) => (dtype, order, axes, None),
            Elements::Items(descr, bytes) => (Dtype::UInt8, ByteOrder::Little, vec![bytes], Some(descr)),
            Elements::Strings => (Dtype::String, ByteOrder::Little, Vec::new(), None),
        };
        let full: Vec<u64> = shape.iter().chain(&more).copied().collect();
        if full.len() - usize::from(item.is_some()) > MAX_NDIM {
            return unsupported(format!("{} dimensions, NumPy arrays have at most {MAX_NDIM}", full.len()));
        }
        let spec = TensorSpec::new(dtype, full).map_err(malformed)?;
        // What is not known of it could be that its elements are elsewhere, or what those are that were never written.
        if header.is_empty() {
            return unsupported("its header is in a form that is not read".into());
        }
        if is_null(header) {
            return unsupported("it has no elements, not even one (a null dataspace)".into());
        }
        if header.iter().any(|message| message.kind == Message::EXTERNAL_FILES) {
            return unsupported("its elements are in other files (external storage), which are not read".into());
        }
        let layer = layer.zip(path.rsplit('/').next()).map(|(layer, number)| format!("{layer}/{number}"));
        let info = TensorInfo { item, alias: layer, ..TensorInfo::new(name.clone(), spec.clone()) };
        let itemsize = u64::from(datatype.type_size());
        let located = |stored| Located { file: Arc::clone(self.file), order, stored, enclosing: None };
        if dtype == Dtype::String {
            return Ok((info, located(Stored::Strings(Box::new(self.opened.clone()), path.to_owned()))));
        }
        let element =
            fill_value(header).filter(|value| value.len() as u64 == itemsize).unwrap_or_else(|| vec![0; memory_len(itemsize.min(1 << 16))]);
        let layout = match (dataset.layout(), old_contiguous(header)) {
            (Err(_), Some(address)) => H5Layout::Contiguous { address: Some(address).filter(|&at| at != u64::MAX), size: spec.nbytes() },
            (layout, _) => layout.map_err(failed)?,
        };
        let stored = match layout {
            H5Layout::Compact { size } => {
                if size != spec.nbytes() {
                    return Err(malformed(format!("{size} bytes in its header, {spec} has {}", spec.nbytes())));
                }
                Stored::Compact(dataset.read_raw().map_err(failed)?)
            }
            H5Layout::Contiguous { address: None, .. } => Stored::Unwritten(element),
            H5Layout::Contiguous { address: Some(address), size } => {
                if size != spec.nbytes() {
                    return Err(malformed(format!("{size} bytes, {spec} has {}", spec.nbytes())));
                }
                Stored::Contiguous(address.saturating_add(self.place.start()))
            }
            H5Layout::Chunked { index: ChunkIndex::BTreeV2, .. } => {
                return unsupported("its chunks are indexed by a B-tree of version 2, which is not read".into());
            }
            H5Layout::Chunked { chunk_shape, .. } => {
                let steps = match Step::of_pipeline(&dataset.filter_pipeline(), memory_len(itemsize)) {
                    Ok(steps) => steps,
                    Err(reason) => return unsupported(reason),
                };
                if chunk_shape.len() != shape.len() || chunk_shape.contains(&0) {
                    return Err(malformed(format!("chunks of shape {chunk_shape:?}, the dataset has shape {shape:?}")));
                }
                let chunk: Vec<u64> = chunk_shape.iter().chain(&more).copied().collect();
                Stored::Chunked(Box::new(ChunkedDataset {
                    opened: self.opened.clone(),
                    start: self.place.start(),
                    chunk,
                    steps,
                    fill: element,
                }))
            }
            H5Layout::Virtual => return unsupported("it is a virtual dataset, put together from others".into()),
            _ => return unsupported("its layout is not known".into()),
        };
        Ok((info, located(stored)))
    }
}

/// Leaves variables the names of their layers as aliases where these are unique.
fn name_layers(tensors: &mut [(TensorInfo, Located)]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for alias in tensors.iter().filter_map(|(info, _)| info.alias.clone()) {
        *counts.entry(alias).or_default() += 1;
    }
    for (info, _) in tensors {
        info.alias = info.alias.take().filter(|alias| counts.get(alias) == Some(&1));
    }
}

/// Where a dataset lies.
#[derive(Debug)]
pub(crate) struct Located {
    file: Arc<dyn Blob>,
    order: ByteOrder,
    stored: Stored,
    /// What the file is a part of that has a checksum.
    enclosing: Option<Arc<Enclosing>>,
}

/// How it is stored.
enum Stored {
    /// Nothing of it can be read.
    Nowhere,
    Compact(Vec<u8>),
    /// Never written: all elements are this one.
    Unwritten(Vec<u8>),
    /// In one run, from here in the file.
    Contiguous(u64),
    Chunked(Box<ChunkedDataset>),
    /// Text of any length, at this path.
    Strings(Box<File>, String),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Stored {
    fn name(&self) -> &'static str {
        match self {
            Self::Nowhere => "none",
            Self::Compact(_) => "compact",
            Self::Unwritten(_) => "not written",
            Self::Contiguous(_) => "contiguous",
            Self::Chunked(_) => "chunked",
            Self::Strings(..) => "variable-length",
        }
    }
}

/// A dataset in chunks, whose places are looked up when it is read.
struct ChunkedDataset {
    opened: File,
    /// Where in the file the HDF5 file starts.
    start: u64,
    chunk: Vec<u64>,
    steps: Vec<Step>,
    fill: Vec<u8>,
}

impl Located {
    fn nowhere(file: &Arc<dyn Blob>) -> Self {
        Self { file: Arc::clone(file), order: ByteOrder::Little, stored: Stored::Nowhere, enclosing: None }
    }

    fn chunks(&self, info: &TensorInfo, dataset: &ChunkedDataset) -> Result<Chunked> {
        let malformed = |detail: String| Error::malformed(self.file.path(), format!("HDF5 dataset {}", info.name), detail);
        let path = info.name.to_json();
        let found = dataset.opened.dataset(&path).and_then(|dataset| dataset.chunks()).map_err(|error| malformed(error.to_string()))?;
        let counts = grid(info.spec.shape(), &dataset.chunk);
        let mut chunks = Vec::with_capacity(found.len());
        for chunk in found {
            let inside = |(axis, &at): (usize, &u64)| {
                let step = at / dataset.chunk[axis];
                (at.is_multiple_of(dataset.chunk[axis]) && step < counts[axis]).then_some(step)
            };
            let place: Option<Vec<u64>> =
                if chunk.offset.len() <= counts.len() { chunk.offset.iter().enumerate().map(inside).collect() } else { None };
            let Some(mut place) = place else {
                return Err(malformed(format!("a chunk at {:?}, which is no corner of the grid", chunk.offset)));
            };
            // Axes of the datatype are in one chunk.
            place.resize(counts.len(), 0);
            let number = place.iter().zip(&counts).try_fold(0u64, |number, (at, count)| number.checked_mul(*count)?.checked_add(*at));
            let number = number.ok_or_else(|| malformed("its grid has 2^64 chunks or more".into()))?;
            let address = chunk.address.saturating_add(dataset.start);
            chunks.push(StoredChunk { number, address, nbytes: chunk.storage_size, mask: chunk.filter_mask });
        }
        let layout = ChunkedLayout {
            spec: info.spec.clone(),
            order: self.order,
            chunk: dataset.chunk.clone(),
            steps: dataset.steps.clone(),
            fill: dataset.fill.clone(),
        };
        Chunked::new(&self.file, layout, chunks)
    }
}

impl TensorPlace for Located {
    fn reader<'a>(&'a self, info: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        let spec = info.spec.clone();
        Ok(match &self.stored {
            Stored::Contiguous(offset) => {
                let check = if spec.dtype() == Dtype::Bool { Check::OddBools } else { Check::Nothing };
                let nbytes = spec.nbytes();
                let stored = StoredArray::new(&self.file, *offset, spec, WHAT)?.byte_ordered(self.order).checked(check);
                Box::new(match &self.enclosing {
                    Some(enclosing) => stored.in_region(Region::within(enclosing, Arc::clone(self.file.path()), *offset, nbytes)),
                    None => stored,
                })
            }
            Stored::Chunked(dataset) => Box::new(self.chunks(info, dataset)?),
            Stored::Compact(bytes) => Box::new(Filled::new(spec, self.order, bytes)),
            Stored::Unwritten(element) => Box::new(Filled::new(spec, self.order, element)),
            Stored::Strings(..) | Stored::Nowhere => {
                return Err(Error::Unsupported {
                    what: format!("reading {}", info.name),
                    detail: "it has no elements of one length".into(),
                });
            }
        })
    }

    fn strings<'a>(&'a self, info: &TensorInfo) -> Result<StoredStrings<'a>> {
        let Stored::Strings(opened, path) = &self.stored else {
            return Err(Error::Unsupported { what: format!("strings of {}", info.name), detail: "it has none".into() });
        };
        let malformed = |detail: String| Error::malformed(self.file.path(), format!("HDF5 dataset {path}"), detail);
        let dataset = opened.dataset(path).map_err(|error| malformed(error.to_string()))?;
        let limit = |asked: u64| {
            let what = format!("memory for the strings of {path} in {}", self.file.path().display());
            Error::Limit { what, asked, allowed: Some(MOST_STRINGS) }
        };
        // Each takes 16 bytes in the dataset, and an allocation; that is counted before anything is read.
        let asked = info.spec.elements().saturating_mul(80);
        if asked > MOST_STRINGS {
            return Err(limit(asked));
        }
        let size = dataset.vlen_string_payload_size().map_err(|error| malformed(error.to_string()))?;
        if size > MOST_STRINGS {
            return Err(limit(size));
        }
        let strings = dataset.read_string().map_err(|error| malformed(error.to_string()))?;
        if let Some(at) = strings.iter().position(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
            let what = format!("strings of {path} in {}", self.file.path().display());
            return Err(Error::Unsupported { what, detail: format!("element {at} is not UTF-8, and would not be kept as it is") });
        }
        if strings.len() as u64 != info.spec.elements() {
            return Err(malformed(format!("{} strings, expected {}", strings.len(), info.spec.elements())));
        }
        StoredStrings::held(self.file.path(), &info.name, info.spec.shape(), |each| {
            strings.iter().try_for_each(|text| each(text.as_bytes()))
        })
    }

    fn is_vouched_for(&self) -> bool {
        self.enclosing.as_ref().is_some_and(|enclosing| enclosing.is_right())
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("layout".into(), json!(self.stored.name()));
        match &self.stored {
            Stored::Contiguous(offset) => {
                facts.insert("offset".into(), json!(offset));
            }
            Stored::Chunked(dataset) => {
                facts.insert("chunks".into(), json!(dataset.chunk));
                facts.insert("filters".into(), json!(dataset.steps.iter().map(|step| step.name()).collect::<Vec<_>>()));
            }
            _ => {}
        }
        facts.insert("byte_order".into(), json!(self.order.to_string()));
        facts
    }
}

//! HDF5 files, such as Keras weights: datasets by their paths, contiguous or in chunks. Start at [`Hdf5`].
//!
//! [`format::hdf5`](crate::format::hdf5) finds out where bytes are; this module reads and unpacks them. Links out of the file are
//! never followed.

pub(crate) mod chunked;
pub(crate) mod dataset;
pub(crate) mod storage;
pub(crate) mod strings;
pub(crate) mod tree;
pub(crate) mod types;
pub(crate) mod walk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::table::TensorTable;
use crate::error::{Error, Result};
use crate::format::hdf5::file::File;
use crate::format::hdf5::superblock::SIGNATURE;
use crate::options::Options;
use crate::reader::enclosing::Enclosing;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::name::Name;

use dataset::{Found, LocatedDataset};
use storage::{FileRange, WHAT};
use tree::{PathLinks, Tree};
use walk::Walker;

/// A user block may precede the superblock, which then starts at this offset times a power of two.
const FIRST_BLOCK: u64 = 512;
/// How far to search for a superblock to recognise a file.
const LONGEST_FRONT: u64 = 16 << 10;

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
        // User blocks are short. To search all of a large file would cost a read for each power of two.
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

/// The offset of the superblock in a range of a file, relative to its start.
fn superblock(file: &dyn Blob, range: Range<u64>) -> Option<u64> {
    let len = range.end - range.start;
    let blocks = std::iter::successors(Some(FIRST_BLOCK), |at| at.checked_mul(2));
    std::iter::once(0).chain(blocks).take_while(|at| at + SIGNATURE.len() as u64 <= len).find(|at| {
        let mut front = [0; SIGNATURE.len()];
        file.read(range.start + at, &mut front, file.calls()).is_ok() && front == SIGNATURE
    })
}

/// The datasets of an HDF5 file that is a range of another file, which may have its own checksum.
///
/// # Errors
/// [`Error::Malformed`]; [`Error::Unsupported`] for a link to another file; [`Error::Io`].
pub(crate) fn open_range(
    format: &'static str,
    file: &Arc<dyn Blob>,
    range: Range<u64>,
    enclosing: Option<&Arc<Enclosing>>,
) -> Result<TensorTable<LocatedDataset>> {
    let Datasets { mut tensors, others, links, facts } = datasets(file, range)?;
    for (_, located) in &mut tensors {
        located.enclosing = enclosing.cloned();
    }
    Ok(TensorTable::new(format, vec![file.path().to_path_buf()], tensors, facts).also_found_by(others).found_through(Box::new(links)))
}

/// The datasets of a file.
pub(crate) struct Datasets {
    pub(crate) tensors: Vec<(TensorInfo, LocatedDataset)>,
    /// Other names, and the names that they lead to.
    pub(crate) others: Vec<(String, Name)>,
    links: PathLinks,
    facts: Map<String, Value>,
}

/// As `open_range`, as a list.
pub(crate) fn datasets(file: &Arc<dyn Blob>, range: Range<u64>) -> Result<Datasets> {
    let start = range.start;
    let Some(at) = superblock(&**file, range.clone()) else {
        return Err(Error::malformed_at(file.path(), WHAT, start, "no HDF5 signature at 0, 512, 1024, …"));
    };
    let part = FileRange::new(file, range);
    let failed = |failure| part.error(WHAT, failure);
    let opened = Arc::new(File::open(Arc::new(part.clone()), at).map_err(failed)?);
    let mut tree = Walker::new(&part, &opened).walk()?;
    let count = tree.found.len();
    tree.follow(&part)?;
    let Tree { found, links, .. } = tree;
    let mut facts = Map::new();
    facts.insert("superblock".into(), json!(opened.superblock.version));
    facts.insert("datasets".into(), json!(count));
    let root = opened.header(opened.superblock.root).map_err(failed)?;
    for name in ["keras_version", "backend"] {
        facts.extend(opened.text_attribute(&root, name).map_err(failed)?.map(|text| (name.to_owned(), json!(text))));
    }
    part.listed();
    let (mut tensors, mut others) = (Vec::with_capacity(found.len()), Vec::new());
    for Found { info, located, paths } in found.into_values() {
        // Most people leave out the leading slash.
        let plain = info.name.to_json().trim_start_matches('/').to_owned();
        let linked = paths.iter().flat_map(|path| [path.clone(), path.trim_start_matches('/').to_owned()]);
        others.extend(std::iter::once(plain).chain(linked).map(|other| (other, info.name.clone())));
        tensors.push((info, located));
    }
    name_layers(&mut tensors);
    Ok(Datasets { tensors, others, links, facts })
}

/// Keeps layer names as aliases of variables only where they are unique.
fn name_layers(tensors: &mut [(TensorInfo, LocatedDataset)]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for alias in tensors.iter().filter_map(|(info, _)| info.alias.clone()) {
        *counts.entry(alias).or_default() += 1;
    }
    for (info, _) in tensors {
        info.alias = info.alias.take().filter(|alias| counts.get(alias) == Some(&1));
    }
}

//! Folders of TensorFlow Datasets and RLDS: records with a description beside them.

use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::container::Container;
use super::driver::Driver;
use crate::error::{Error, Result};
use crate::format::tfds::{Features, Leaf, LeafEncoding, splits};
use crate::options::Options;
use crate::records::container::RecordContainer;
use crate::records::feature::{Declared, Encoding, Feature, Items, Key};
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::inputs::RecordFile;
use crate::storage::paths::{Found, parent_of};
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;

const FEATURES: &str = "features.json";
const INFO: &str = "dataset_info.json";

/// A version of a dataset: `<name>/<config>/<version>`, or a parent folder that contains no other version.
pub(crate) struct Tfds;

impl Driver for Tfds {
    fn name(&self) -> &'static str {
        "tfds"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        let (path, storage) = (probe.path(), probe.storage());
        if path.file_name().is_some_and(|name| name == FEATURES || name == INFO) && probe.is_file()? {
            return Ok(Some(probe.at(parent_of(path))));
        }
        let mut dir = probe.clone();
        for _ in 0..3 {
            if dir.found()? != Found::Directory {
                return Ok(None);
            }
            if storage.is_file(&dir.path().join(INFO))? {
                return Ok(Some(dir));
            }
            // The only subfolder.
            let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_folder = |path: &PathBuf| storage.look_at(path).is_ok_and(|found| found == Found::Directory) && !is_hidden(path);
            let mut inner: Vec<PathBuf> = storage.list(dir.path())?.into_iter().filter(is_folder).collect();
            match (inner.pop(), inner.is_empty()) {
                (Some(only), true) => dir = dir.at(only),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let (dir, storage) = (place.path(), place.storage());
        let path = dir.join(INFO);
        let text = storage.read_small(&path)?;
        let (format, splits) = splits(&text).map_err(|detail| Error::malformed(&path, "dataset_info.json", detail))?;
        if format != "tfrecord" {
            let detail = format!(
                "{} says that its files are {format}, but only tfrecord is read: convert them with tfds convert_format --dataset_version_dir={} --out_file_format=tfrecord --out_dir=DIR",
                path.display(),
                dir.display()
            );
            return Err(Error::Unsupported { what: "this dataset".into(), detail });
        }
        let path = dir.join(FEATURES);
        let features = if storage.is_file(&path)? {
            let text = storage.read_small(&path)?;
            Some(Features::parse(&text).map_err(|detail| Error::malformed(&path, "features.json", detail))?)
        } else {
            None
        };
        let (mut warnings, mut lost) = (Vec::new(), Vec::new());
        if features.is_none() {
            warnings.push(format!("there is no {}: the features are guessed from the records", path.display()));
        }
        let splits: Vec<_> = splits.into_iter().filter(|split| !split.files.is_empty()).collect();
        if splits.is_empty() {
            return Err(Error::NotFound { what: "split", detail: format!("{} names no split with files", dir.join(INFO).display()) });
        }
        let mut sets = Vec::new();
        for split in &splits {
            let mut files = Vec::new();
            for (file, expected) in &split.files {
                let path = dir.join(file);
                if storage.is_file(&path)? {
                    files.push(RecordFile::new(&place.at(path), *expected));
                } else if options.records.salvage.is_set() {
                    lost.push(format!("{} is missing", path.display()));
                } else {
                    let detail = format!(
                        "{} is missing from split {:?} of {}; `salvage` converts the other shards",
                        path.display(),
                        split.name,
                        dir.join(INFO).display()
                    );
                    return Err(Error::NotFound { what: "shard", detail });
                }
            }
            let base = RecordSet::undescribed(Inputs::files(files));
            let described = features.as_ref().map(columns);
            let discovers = described.is_none();
            let split = (splits.len() > 1).then(|| split.name.clone());
            sets.push(RecordSet { split, features: described.unwrap_or_default(), discovers, ..base });
        }
        let names: Vec<&str> = splits.iter().map(|split| split.name.as_str()).collect();
        let facts = Map::from_iter([("splits".to_owned(), json!(names))]);
        Ok(Box::new(RecordContainer::new(self.name(), dir, sets, options).with_facts(facts, warnings).with_lost(lost)))
    }
}

/// The features as columns of the records.
fn columns(features: &Features) -> Vec<Feature> {
    let mut columns: Vec<Feature> = features.leaves.iter().flat_map(of_leaf).collect();
    for (path, kind) in &features.unknown {
        let unsupported = Some(format!("it is {kind}, which is not read"));
        columns.push(Feature { unsupported, ..Feature::found(Key::Context(path.clone().into_bytes())) });
    }
    for (path, leaf) in &features.steps {
        // A leaf with this very path has a column already.
        let Some(leaf) = leaf.map(|leaf| &features.leaves[leaf]).filter(|leaf| leaf.path != *path) else { continue };
        let Some(mut column) = of_leaf(leaf).pop() else { continue };
        column.name = path.clone().into_bytes();
        if let Some(declared) = &mut column.declared {
            declared.only_offsets = true;
        }
        columns.push(column);
    }
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    columns
}

/// The columns of a leaf: its values, and for nested lists the lengths of the inner ones.
fn of_leaf(leaf: &Leaf) -> Vec<Feature> {
    let encoding = match leaf.storage {
        LeafEncoding::Values => Encoding::Values,
        LeafEncoding::Bytes => Encoding::Raw,
        LeafEncoding::Zlib => Encoding::Zlib,
        LeafEncoding::Image => Encoding::Image,
        LeafEncoding::Text => Encoding::Strings,
    };
    let name = |suffix: &str| format!("{}{suffix}", leaf.path).into_bytes();
    let feature = |suffix: &str, declared: Declared| Feature {
        name: name(""),
        declared: Some(declared),
        ..Feature::found(Key::Context(name(suffix)))
    };
    let base = Declared::new(leaf.dtype, leaf.shape.clone(), encoding);
    let unknown = leaf.shape.iter().filter(|axis| axis.is_none()).count();
    let is_steps = leaf.levels.first().is_some_and(|level| level.is_steps);
    if unknown > 1 && leaf.storage != LeafEncoding::Image {
        // Each tensor's shape is stored in a feature of its own.
        let mut column = feature("/value", Declared { shape_in: Some(name("/shape")), ..base });
        if !leaf.levels.is_empty() {
            column.unsupported = Some("tensors of several unknown axes in a list: each has a shape of its own".into());
        }
        return vec![column];
    }
    if unknown > 0 && leaf.storage == LeafEncoding::Values && !leaf.levels.is_empty() {
        let unsupported = Some("tensors with an unknown axis in a list: where one ends is not stored".into());
        return vec![Feature { unsupported, ..feature("", base) }];
    }
    if leaf.storage == LeafEncoding::Image && leaf.levels.len() > 1 {
        let unsupported = Some("images in lists in lists".into());
        return vec![Feature { unsupported, ..feature("/ragged_flat_values", base) }];
    }
    match &leaf.levels[..] {
        [] => vec![feature("", base)],
        [level] => vec![feature("", Declared { items: Items::of_length(level.length), flat: is_steps, ..base })],
        [outer, inner @ ..] => {
            let lengths = inner.iter().enumerate().map(|(index, _)| {
                let name = name(&format!("/ragged_row_lengths_{index}"));
                let declared = Declared { items: Items::Any, ..Declared::new(Dtype::Int64, Vec::new(), Encoding::Values) };
                Feature { name: name.clone(), declared: Some(declared), ..Feature::found(Key::Context(name)) }
            });
            // Inner lists of fixed length become axes. Otherwise the values are concatenated.
            let known: Option<Vec<Option<u64>>> = inner.iter().map(|level| level.length.map(Some)).collect();
            let is_even = known.is_some();
            let shape = [known.unwrap_or_default(), leaf.shape.clone()].concat();
            let items = if is_even { Items::of_length(outer.length) } else { Items::Nested };
            let values = feature("/ragged_flat_values", Declared { shape, items, flat: is_steps && is_even, ..base });
            std::iter::once(values).chain(lengths).collect()
        }
    }
}

//! Data that tf.data saved: `Dataset.save`, `Dataset.snapshot`, and distributed saves of the tf.data service.
//!
//! Files of version 2 are TFRecord files with one record per component of an element.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, json};

use super::container::Container;
use super::driver::Driver;
use crate::error::{Error, Result};
use crate::format::snapshot::{Component, Metadata, components};
use crate::options::Options;
use crate::records::container::RecordContainer;
use crate::records::feature::{Declared, Encoding, Feature, Key};
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::inputs::RecordFile;
use crate::storage::blob::Storage;
use crate::storage::paths::{Found, parent_of};
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;

const METADATA: &str = "snapshot.metadata";
const SPEC: &str = "dataset_spec.pb";
/// A folder written by tf.data.
pub(crate) struct TfData;

impl Driver for TfData {
    fn name(&self) -> &'static str {
        "tf-data"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        let (path, storage) = (probe.path(), probe.storage());
        if path.file_name().is_some_and(|name| name == METADATA) && probe.is_file()? {
            return Ok(Some(probe.at(parent_of(path))));
        }
        if probe.found()? != Found::Directory {
            return Ok(None);
        }
        if storage.is_file(&path.join(METADATA))? || storage.is_file(&path.join(SPEC))? {
            return Ok(Some(probe.clone()));
        }
        // A snapshot is in a subfolder named after its graph.
        let has_metadata = |dir: &PathBuf| storage.is_file(&dir.join(METADATA)).unwrap_or(false);
        let mut inner: Vec<PathBuf> = storage.list(path)?.into_iter().filter(has_metadata).collect();
        Ok(if inner.len() == 1 { inner.pop().map(|only| probe.at(only)) } else { None })
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let dir = place.path();
        let is_distributed = place.storage().look_at(&dir.join("chunks"))? == Found::Directory;
        let opened = if is_distributed { distributed(dir, place.storage(), options)? } else { saved(dir, place.storage(), options)? };
        let container = RecordContainer::new(self.name(), dir, vec![opened.records], options);
        Ok(Box::new(container.with_facts(opened.facts, opened.warnings)))
    }
}

struct Opened {
    records: RecordSet,
    facts: Map<String, serde_json::Value>,
    warnings: Vec<String>,
}

/// The number that a file name consists of before `suffix`.
fn number(path: &Path, suffix: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(suffix)?.parse().ok()
}

/// Opens a folder of `Dataset.save` or `Dataset.snapshot`.
fn saved(dir: &Path, storage: &Arc<dyn Storage>, options: &Options) -> Result<Opened> {
    let path = dir.join(METADATA);
    if !storage.is_file(&path)? {
        let is_folder = |path: &&PathBuf| storage.look_at(path).is_ok_and(|found| found == Found::Directory);
        let runs: Vec<String> = storage.list(dir)?.iter().filter(is_folder).map(|dir| dir.display().to_string()).collect();
        let detail = format!("{} is missing: the save was not completed; folders there: {}", path.display(), runs.join(", "));
        return Err(Error::NotFound { what: METADATA, detail });
    }
    let metadata = Metadata::parse(&storage.read_small(&path)?).map_err(|error| error.in_file(&path))?;
    if metadata.version != 2 {
        let detail =
            format!("{} is of version {}, version 2 is read: load it with TensorFlow and save it again", path.display(), metadata.version);
        return Err(Error::Unsupported { what: "this snapshot".into(), detail });
    }
    let mut warnings = Vec::new();
    if !metadata.finalized {
        let detail = "the write was not completed (finalized is not set)";
        if !options.records.salvage.is_set() {
            return Err(Error::malformed(&path, "snapshot metadata", format!("{detail}; `salvage` converts what is there")));
        }
        warnings.push(format!("{}: {detail}", path.display()));
    }
    let is_name = Path::new(&metadata.run_id).file_name().is_some_and(|name| name.to_str() == Some(&metadata.run_id));
    let safe = is_name && !metadata.run_id.contains('\0');
    let run = dir.join(&metadata.run_id);
    if !safe {
        return Err(Error::malformed(&path, "snapshot metadata", format!("run_id {:?} is not a folder name", metadata.run_id)));
    }
    if storage.look_at(&run)? != Found::Directory {
        return Err(Error::NotFound {
            what: "snapshot",
            detail: format!("{} names the folder {:?}, which does not exist", path.display(), metadata.run_id),
        });
    }
    let shards = shards(&run, storage)?;
    let spec = spec(dir, storage)?;
    let is_interleaved = spec.is_none() && metadata.dtypes.len() > 1 && metadata.dtypes[0] == Dtype::Int64.code();
    let count = u64::try_from(metadata.num_elements).ok().filter(|_| spec.is_some() && metadata.finalized);
    let group = metadata.dtypes.len();
    let features = features(&path, &metadata.dtypes[usize::from(is_interleaved)..], spec.as_deref())?;
    let files = |shard: Vec<PathBuf>| shard.iter().map(|path| RecordFile::new(&Probe::new(storage, path), None)).collect::<Vec<_>>();
    if shards.len() > 1 && !is_interleaved {
        warnings.push(format!(
            "{} shards are read one after the other; TensorFlow mixes them, in an order that depends on the machine",
            shards.len()
        ));
    }
    let facts = Map::from_iter([
        ("shards".to_owned(), json!(shards.len())),
        ("components".to_owned(), json!(features.len())),
        ("elements numbered".to_owned(), json!(is_interleaved)),
    ]);
    let inputs = if is_interleaved {
        Inputs::Interleaved(shards.into_iter().map(files).collect())
    } else {
        Inputs::files(shards.into_iter().flat_map(files))
    };
    let records =
        RecordSet { group, features, discovers: false, total: count.filter(|&count| count > 0), ..RecordSet::undescribed(inputs) };
    Ok(Opened { records, facts, warnings })
}

/// The files of each shard of a run, in order.
fn shards(run: &Path, storage: &Arc<dyn Storage>) -> Result<Vec<Vec<PathBuf>>> {
    let numbered: BTreeMap<u64, PathBuf> =
        storage.list(run)?.into_iter().filter_map(|entry| Some((number(&entry, ".shard")?, entry))).collect();
    let mut shards = Vec::new();
    for shard in numbered.values() {
        let files: BTreeMap<u64, PathBuf> =
            storage.list(shard)?.into_iter().filter_map(|entry| Some((number(&entry, ".snapshot")?, entry))).collect();
        // Reading stops at the first missing number, as in TensorFlow.
        let files = files.into_iter().zip(0..).take_while(|((number, _), expected)| number == expected).map(|((_, path), _)| path);
        shards.push(files.collect());
    }
    Ok(shards)
}

/// The structure of an element, if it was saved.
fn spec(dir: &Path, storage: &Arc<dyn Storage>) -> Result<Option<Vec<Component>>> {
    let path = dir.join(SPEC);
    if !storage.is_file(&path)? {
        return Ok(None);
    }
    components(&storage.read_small(&path)?).map(Some).map_err(|error| error.in_file(&path))
}

/// The components, named by the spec if there is one, else numbered.
fn features(path: &Path, dtypes: &[u64], spec: Option<&[Component]>) -> Result<Vec<Feature>> {
    if let Some(spec) = spec.filter(|spec| spec.len() != dtypes.len()) {
        let detail = format!("it has {} components, {SPEC} {}", dtypes.len(), spec.len());
        return Err(Error::malformed(path, "snapshot metadata", detail));
    }
    let feature = |(index, &code): (usize, &u64)| {
        let component = spec.map(|spec| &spec[index]);
        let name = component.map(|component| component.path.clone()).filter(|path| !path.is_empty()).unwrap_or_else(|| index.to_string());
        let dtype = Dtype::from_code(code)
            .ok_or_else(|| Error::malformed(path, "snapshot metadata", format!("dtype {code} of component {index} does not exist")))?;
        if let Some(other) = component.and_then(|component| component.dtype).filter(|&other| other != code) {
            let detail = format!("component {index} is {dtype}, {SPEC} says dtype {other}");
            return Err(Error::malformed(path, "snapshot metadata", detail));
        }
        let shape = component.and_then(|component| component.shape.clone()).unwrap_or_default();
        let is_plain = dtype != Dtype::Variant && dtype != Dtype::Resource;
        let composite = component.and_then(|component| component.composite.as_ref());
        let unsupported = match composite {
            Some(composite) => Some(composite.advice()),
            None if !is_plain => Some(format!(
                "it is a {dtype}, a TensorFlow object (a ragged or a sparse tensor, an Optional): save the tensors that it is made of, with Dataset.map before Dataset.save"
            )),
            None => None,
        };
        let declared = Declared::new(dtype, shape, Encoding::Tensor);
        let alias = (name != index.to_string()).then(|| index.to_string());
        Ok(Feature { name: name.into_bytes(), alias, declared: Some(declared), unsupported, ..Feature::found(Key::Part(index)) })
    };
    dtypes.iter().enumerate().map(feature).collect()
}

/// Opens a save of the tf.data service: chunks of elements in no particular order.
fn distributed(dir: &Path, storage: &Arc<dyn Storage>, options: &Options) -> Result<Opened> {
    let error = dir.join("ERROR");
    if storage.is_file(&error)? {
        let text = String::from_utf8_lossy(&storage.read_small(&error)?).trim().to_owned();
        return Err(Error::malformed(&error, "distributed save", format!("it failed: {text}")));
    }
    let mut warnings = vec!["elements of a distributed save are in no particular order: its writers did not keep one".to_owned()];
    if !storage.is_file(&dir.join("DONE"))? {
        if !options.records.salvage.is_set() {
            let detail = format!(
                "{} is missing: the save is not complete; `salvage` converts the chunks that are complete",
                dir.join("DONE").display()
            );
            return Err(Error::NotFound { what: "distributed save", detail });
        }
        warnings.push("the save is not complete".into());
    }
    let Some(spec) = spec(dir, storage)? else {
        return Err(Error::NotFound { what: SPEC, detail: format!("{} is missing", dir.join(SPEC).display()) });
    };
    // chunk_<stream>_<index>_<elements>; older names lack the last number.
    let numbers = |path: &Path| -> Option<(u64, u64, Option<u64>)> {
        let mut numbers = path.file_name()?.to_str()?.strip_prefix("chunk_")?.split('_').map(|number| number.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next().flatten()))
    };
    let mut chunks: Vec<_> = storage.list(&dir.join("chunks"))?.into_iter().filter_map(|path| Some((numbers(&path)?, path))).collect();
    chunks.sort();
    let dtypes = spec.iter().map(|component| component.dtype.unwrap_or(Dtype::Variant.code())).collect::<Vec<_>>();
    let features = features(&dir.join(SPEC), &dtypes, Some(&spec))?;
    let facts = Map::from_iter([("chunks".to_owned(), json!(chunks.len())), ("components".to_owned(), json!(features.len()))]);
    let files = chunks.into_iter().map(|((_, _, expected), path)| RecordFile::new(&Probe::new(storage, &path), expected));
    let records = RecordSet { group: dtypes.len(), features, discovers: false, ..RecordSet::undescribed(Inputs::files(files)) };
    Ok(Opened { records, facts, warnings })
}

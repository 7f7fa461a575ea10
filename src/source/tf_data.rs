//! What tf.data saved: `Dataset.save`, `Dataset.snapshot`, and saves of the tf.data service.
//!
//! Files of version 2 are TFRecord files with a record for each component of an element.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::container::Container;
use super::driver::Driver;
use crate::error::{Error, Result};
use crate::format::snapshot::{Component, Metadata, components};
use crate::options::Options;
use crate::os::Calls;
use crate::records::container::RecordContainer;
use crate::records::feature::{Declared, Encoding, Feature, Key};
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::inputs::RecordFile;
use crate::storage::input::read_small;
use crate::storage::paths::{Found, is_file, list, look_at, parent_of};
use crate::types::dtype::Dtype;

const METADATA: &str = "snapshot.metadata";
const SPEC: &str = "dataset_spec.pb";
/// A folder that tf.data wrote.
pub(crate) struct TfData;

impl Driver for TfData {
    fn name(&self) -> &'static str {
        "tf-data"
    }

    fn resolve(&self, path: &Path, _: &Calls) -> Result<Option<PathBuf>> {
        if path.file_name().is_some_and(|name| name == METADATA) && is_file(path)? {
            return Ok(Some(parent_of(path).to_owned()));
        }
        if look_at(path)? != Found::Directory {
            return Ok(None);
        }
        if is_file(&path.join(METADATA))? || is_file(&path.join(SPEC))? {
            return Ok(Some(path.to_owned()));
        }
        // A snapshot lies in a folder that is named for its graph.
        let mut inner: Vec<PathBuf> = list(path)?.into_iter().filter(|dir| dir.join(METADATA).is_file()).collect();
        Ok(if inner.len() == 1 { inner.pop() } else { None })
    }

    fn open(&self, dir: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let is_distributed = look_at(&dir.join("chunks"))? == Found::Directory;
        let opened = if is_distributed { distributed(dir, options)? } else { saved(dir, options)? };
        let container = RecordContainer::new(self.name(), dir, vec![opened.records], options);
        Ok(Box::new(container.with_facts(opened.facts, opened.warnings)))
    }
}

struct Opened {
    records: RecordSet,
    facts: Map<String, serde_json::Value>,
    warnings: Vec<String>,
}

/// The number that a name consists of before `suffix`.
fn number(path: &Path, suffix: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(suffix)?.parse().ok()
}

/// What `Dataset.save` and `Dataset.snapshot` write.
fn saved(dir: &Path, options: &Options) -> Result<Opened> {
    let path = dir.join(METADATA);
    if !is_file(&path)? {
        let runs: Vec<String> = list(dir)?.iter().filter(|entry| entry.is_dir()).map(|dir| dir.display().to_string()).collect();
        let detail = format!("{} is missing: the save did not come to its end; folders there: {}", path.display(), runs.join(", "));
        return Err(Error::NotFound { what: METADATA, detail });
    }
    let metadata = Metadata::parse(&read_small(&path, &options.calls())?).map_err(|error| error.in_file(&path))?;
    if metadata.version != 2 {
        let detail =
            format!("{} is of version {}, version 2 is read: load it with TensorFlow and save it again", path.display(), metadata.version);
        return Err(Error::Unsupported { what: "this snapshot".into(), detail });
    }
    let mut warnings = Vec::new();
    if !metadata.finalized {
        let detail = "the write did not come to its end (finalized is not set)";
        if !options.records.salvage.is_set() {
            return Err(Error::malformed(&path, "snapshot metadata", format!("{detail}; --salvage converts what is there")));
        }
        warnings.push(format!("{}: {detail}", path.display()));
    }
    let is_name = Path::new(&metadata.run_id).file_name().is_some_and(|name| name.to_str() == Some(&metadata.run_id));
    let safe = is_name && !metadata.run_id.contains('\0');
    let run = dir.join(&metadata.run_id);
    if !safe {
        return Err(Error::malformed(&path, "snapshot metadata", format!("run_id {:?} is no name of a folder", metadata.run_id)));
    }
    if look_at(&run)? != Found::Directory {
        return Err(Error::NotFound {
            what: "snapshot",
            detail: format!("{} names the folder {:?}, which is not there", path.display(), metadata.run_id),
        });
    }
    let shards = shards(&run)?;
    let spec = spec(dir, options)?;
    let is_dealt = spec.is_none() && metadata.dtypes.len() > 1 && metadata.dtypes[0] == Dtype::Int64.code();
    let count = u64::try_from(metadata.num_elements).ok().filter(|_| spec.is_some() && metadata.finalized);
    let group = metadata.dtypes.len();
    let features = features(&path, &metadata.dtypes[usize::from(is_dealt)..], spec.as_deref())?;
    let files = |shard: Vec<PathBuf>| shard.into_iter().map(|path| RecordFile::new(path, None)).collect::<Vec<_>>();
    if shards.len() > 1 && !is_dealt {
        warnings.push(format!(
            "{} shards are read one after the other; TensorFlow mixes them, in an order that depends on the machine",
            shards.len()
        ));
    }
    let facts = Map::from_iter([
        ("shards".to_owned(), json!(shards.len())),
        ("components".to_owned(), json!(features.len())),
        ("elements numbered".to_owned(), json!(is_dealt)),
    ]);
    let inputs =
        if is_dealt { Inputs::Dealt(shards.into_iter().map(files).collect()) } else { Inputs::files(shards.into_iter().flat_map(files)) };
    let records =
        RecordSet { group, features, discovers: false, total: count.filter(|&count| count > 0), ..RecordSet::undescribed(inputs) };
    Ok(Opened { records, facts, warnings })
}

/// The files of each shard of a run, in order.
fn shards(run: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let numbered: BTreeMap<u64, PathBuf> = list(run)?.into_iter().filter_map(|entry| Some((number(&entry, ".shard")?, entry))).collect();
    let mut shards = Vec::new();
    for shard in numbered.values() {
        let files: BTreeMap<u64, PathBuf> =
            list(shard)?.into_iter().filter_map(|entry| Some((number(&entry, ".snapshot")?, entry))).collect();
        // Reading stops where a number is missing, as TensorFlow's does.
        let files = files.into_iter().zip(0..).take_while(|((number, _), expected)| number == expected).map(|((_, path), _)| path);
        shards.push(files.collect());
    }
    Ok(shards)
}

/// The structure of an element, if it is written down.
fn spec(dir: &Path, options: &Options) -> Result<Option<Vec<Component>>> {
    let path = dir.join(SPEC);
    if !is_file(&path)? {
        return Ok(None);
    }
    components(&read_small(&path, &options.calls())?).map(Some).map_err(|error| error.in_file(&path))
}

/// The components by name, where there is a spec, and by number.
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
                "it is a {dtype}, an object of TensorFlow's (a ragged or a sparse tensor, an Optional): save the tensors that it is made of, with Dataset.map before Dataset.save"
            )),
            None => None,
        };
        let declared = Declared::new(dtype, shape, Encoding::Tensor);
        let alias = (name != index.to_string()).then(|| index.to_string());
        Ok(Feature { name: name.into_bytes(), alias, declared: Some(declared), unsupported, ..Feature::found(Key::Part(index)) })
    };
    dtypes.iter().enumerate().map(feature).collect()
}

/// What the tf.data service writes: chunks of elements in no order.
fn distributed(dir: &Path, options: &Options) -> Result<Opened> {
    let error = dir.join("ERROR");
    if is_file(&error)? {
        let text = String::from_utf8_lossy(&read_small(&error, &options.calls())?).trim().to_owned();
        return Err(Error::malformed(&error, "distributed save", format!("it failed: {text}")));
    }
    let mut warnings = vec!["elements of a distributed save are in no order: its writers did not keep theirs".to_owned()];
    if !is_file(&dir.join("DONE"))? {
        if !options.records.salvage.is_set() {
            let detail = format!(
                "{} is missing: the save has not come to its end; --salvage converts the chunks that are complete",
                dir.join("DONE").display()
            );
            return Err(Error::NotFound { what: "distributed save", detail });
        }
        warnings.push("the save has not come to its end".into());
    }
    let Some(spec) = spec(dir, options)? else {
        return Err(Error::NotFound { what: SPEC, detail: format!("{} is missing", dir.join(SPEC).display()) });
    };
    // chunk_<stream>_<index>_<elements>; older ones lack the last.
    let numbers = |path: &Path| -> Option<(u64, u64, Option<u64>)> {
        let mut numbers = path.file_name()?.to_str()?.strip_prefix("chunk_")?.split('_').map(|number| number.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next().flatten()))
    };
    let mut chunks: Vec<_> = list(&dir.join("chunks"))?.into_iter().filter_map(|path| Some((numbers(&path)?, path))).collect();
    chunks.sort();
    let dtypes = spec.iter().map(|component| component.dtype.unwrap_or(Dtype::Variant.code())).collect::<Vec<_>>();
    let features = features(&dir.join(SPEC), &dtypes, Some(&spec))?;
    let facts = Map::from_iter([("chunks".to_owned(), json!(chunks.len())), ("components".to_owned(), json!(features.len()))]);
    let files = chunks.into_iter().map(|((_, _, expected), path)| RecordFile::new(path, expected));
    let records = RecordSet { group: dtypes.len(), features, discovers: false, ..RecordSet::undescribed(Inputs::files(files)) };
    Ok(Opened { records, facts, warnings })
}

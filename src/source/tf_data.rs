//! What tf.data saved: `Dataset.save`, `Dataset.snapshot`, and saves of the tf.data service.
//!
//! Files of version 2 are TFRecord files with a record for each component of an element.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, json};

use super::Container;
use super::driver::Driver;
use super::records::{
    Batch, Batches, Declared, Encoding, Feature, Framing, Input, Inputs, Items, Key, Pool, Reading, RecordContainer, RecordFile, RecordSet,
    Sequential,
};
use crate::dtype::Dtype;
use crate::error::{Error, ParseError, Result};
use crate::format::snapshot::{Component, Metadata, components};
use crate::format::tensor_proto::TensorProto;
use crate::options::Options;
use crate::paths::{Found, is_file, look_at, parent_of};

const METADATA: &str = "snapshot.metadata";
const SPEC: &str = "dataset_spec.pb";
/// Metadata are a few hundred bytes; specs of the largest elements some thousands.
const MOST_METADATA: u64 = 16 << 20;

/// A folder that tf.data wrote.
pub(crate) struct TfData;

impl Driver for TfData {
    fn name(&self) -> &'static str {
        "tf-data"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
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
        let mut inner: Vec<PathBuf> = entries(path)?.into_iter().filter(|dir| dir.join(METADATA).is_file()).collect();
        Ok(if inner.len() == 1 { inner.pop() } else { None })
    }

    fn open(&self, dir: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let is_distributed = look_at(&dir.join("chunks"))? == Found::Directory;
        let opened = if is_distributed { distributed(dir, options)? } else { saved(dir, options)? };
        let container = RecordContainer::new(self.name(), dir, vec![opened.records], options);
        Ok(Box::new(container.with_facts(opened.facts, opened.warnings)))
    }
}

/// What lies in a directory, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>());
    let mut entries = entries.map_err(Error::io("list", dir))?;
    entries.sort();
    Ok(entries)
}

/// A small file, whole.
fn read(path: &Path) -> Result<Vec<u8>> {
    let len = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if len > MOST_METADATA {
        return Err(Error::Limit { what: format!("memory for {}", path.display()), asked: len, allowed: Some(MOST_METADATA) });
    }
    fs::read(path).map_err(Error::io("read", path))
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
        let runs: Vec<String> = entries(dir)?.iter().filter(|entry| entry.is_dir()).map(|dir| dir.display().to_string()).collect();
        let detail = format!("{} is missing: the save did not come to its end; folders there: {}", path.display(), runs.join(", "));
        return Err(Error::NotFound { what: METADATA, detail });
    }
    let metadata = Metadata::parse(&read(&path)?).map_err(|error| error.in_file(&path))?;
    if metadata.version != 2 {
        let detail =
            format!("{} is of version {}, version 2 is read: load it with TensorFlow and save it again", path.display(), metadata.version);
        return Err(Error::Unsupported { what: "this snapshot".into(), detail });
    }
    let mut warnings = Vec::new();
    if !metadata.finalized {
        let detail = "the write did not come to its end (finalized is not set)";
        if !options.records.salvage {
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
    let spec = spec(dir)?;
    let is_dealt = spec.is_none() && metadata.dtypes.len() > 1 && metadata.dtypes[0] == Dtype::Int64.code();
    let count = u64::try_from(metadata.num_elements).ok().filter(|_| spec.is_some() && metadata.finalized);
    let group = metadata.dtypes.len();
    let features = features(&path, &metadata.dtypes[usize::from(is_dealt)..], spec.as_deref())?;
    let files = |shard: Vec<PathBuf>| shard.into_iter().map(|path| RecordFile { path, expected: None }).collect::<Vec<_>>();
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
    let inputs = if is_dealt {
        Inputs::Dealt(shards.into_iter().map(files).collect())
    } else {
        Inputs::Files(shards.into_iter().flat_map(files).collect())
    };
    let records =
        RecordSet { group, features, discovers: false, total: count.filter(|&count| count > 0), ..RecordSet::undescribed(inputs) };
    Ok(Opened { records, facts, warnings })
}

/// The files of each shard of a run, in order.
fn shards(run: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let numbered: BTreeMap<u64, PathBuf> = entries(run)?.into_iter().filter_map(|entry| Some((number(&entry, ".shard")?, entry))).collect();
    let mut shards = Vec::new();
    for shard in numbered.values() {
        let files: BTreeMap<u64, PathBuf> =
            entries(shard)?.into_iter().filter_map(|entry| Some((number(&entry, ".snapshot")?, entry))).collect();
        // Reading stops where a number is missing, as TensorFlow's does.
        let files = files.into_iter().zip(0..).take_while(|((number, _), expected)| number == expected).map(|((_, path), _)| path);
        shards.push(files.collect());
    }
    Ok(shards)
}

/// The structure of an element, if it is written down.
fn spec(dir: &Path) -> Result<Option<Vec<Component>>> {
    let path = dir.join(SPEC);
    if !is_file(&path)? {
        return Ok(None);
    }
    components(&read(&path)?).map(Some).map_err(|error| error.in_file(&path))
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
        let unsupported = (!is_plain).then(|| format!("it is a {dtype}: ragged, sparse and other composite elements have no plain values"));
        let declared =
            Declared { dtype, shape, encoding: Encoding::Tensor, items: Items::One, flat: false, only_offsets: false, shape_in: None };
        let alias = (name != index.to_string()).then(|| index.to_string());
        Ok(Feature { name: name.into_bytes(), alias, key: Key::Part(index), declared: Some(declared), unsupported })
    };
    dtypes.iter().enumerate().map(feature).collect()
}

/// What the tf.data service writes: chunks of elements in no order.
fn distributed(dir: &Path, options: &Options) -> Result<Opened> {
    let error = dir.join("ERROR");
    if is_file(&error)? {
        let text = String::from_utf8_lossy(&read(&error)?).trim().to_owned();
        return Err(Error::malformed(&error, "distributed save", format!("it failed: {text}")));
    }
    let mut warnings = vec!["elements of a distributed save are in no order: its writers did not keep theirs".to_owned()];
    if !is_file(&dir.join("DONE"))? {
        if !options.records.salvage {
            let detail = format!(
                "{} is missing: the save has not come to its end; --salvage converts the chunks that are complete",
                dir.join("DONE").display()
            );
            return Err(Error::NotFound { what: "distributed save", detail });
        }
        warnings.push("the save has not come to its end".into());
    }
    let Some(spec) = spec(dir)? else {
        return Err(Error::NotFound { what: SPEC, detail: format!("{} is missing", dir.join(SPEC).display()) });
    };
    // chunk_<stream>_<index>_<elements>; older ones lack the last.
    let numbers = |path: &Path| -> Option<(u64, u64, Option<u64>)> {
        let mut numbers = path.file_name()?.to_str()?.strip_prefix("chunk_")?.split('_').map(|number| number.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next().flatten()))
    };
    let mut chunks: Vec<_> = entries(&dir.join("chunks"))?.into_iter().filter_map(|path| Some((numbers(&path)?, path))).collect();
    chunks.sort();
    let dtypes = spec.iter().map(|component| component.dtype.unwrap_or(Dtype::Variant.code())).collect::<Vec<_>>();
    let features = features(&dir.join(SPEC), &dtypes, Some(&spec))?;
    let facts = Map::from_iter([("chunks".to_owned(), json!(chunks.len())), ("components".to_owned(), json!(features.len()))]);
    let files = chunks.into_iter().map(|((_, _, expected), path)| RecordFile { path, expected }).collect();
    let records = RecordSet { group: dtypes.len(), features, discovers: false, ..RecordSet::undescribed(Inputs::Files(files)) };
    Ok(Opened { records, facts, warnings })
}

/// Elements that were dealt over shards, put in order by the number that each has in front.
pub(crate) struct Dealt {
    lanes: Vec<Lane>,
    /// The lane whose next element has this number.
    next: BTreeMap<u64, usize>,
    dir: Arc<Path>,
    group: usize,
    batch_bytes: usize,
    most_records: usize,
    rows: Range<u64>,
    pool: Arc<Pool>,
    /// Elements so far, wanted or not.
    seen: u64,
    number: u64,
    is_over: bool,
    salvage: bool,
    lost: Vec<String>,
}

/// A shard.
struct Lane {
    batches: Sequential,
    batch: Option<Batch>,
    record: usize,
}

impl Dealt {
    pub(crate) fn open(shards: &[Vec<RecordFile>], framing: Framing, group: usize, reading: &Reading, pool: &Arc<Pool>) -> Result<Self> {
        const LEAST: u64 = 16 << 10;
        // A half is for the shards, the other for what is put together.
        let each = reading.memory_bytes / 2 / shards.len().max(1) as u64;
        let batch_bytes = (reading.batch_bytes as u64).min(each / 2).max(LEAST);
        let lane = |files: &Vec<RecordFile>| {
            let inputs = files.iter().cloned().map(Input::File).collect();
            let reading =
                Reading { batch_bytes: crate::spec::memory_len(batch_bytes), memory_bytes: each, rows: 0..u64::MAX, ..reading.clone() };
            let batches = Sequential::new(inputs, framing, group, reading, Pool::new(each))?;
            Ok(Lane { batches, batch: None, record: 0 })
        };
        let dir = shards.iter().flatten().next().map_or(Path::new(""), |file| parent_of(parent_of(&file.path)));
        let mut dealt = Self {
            lanes: shards.iter().map(lane).collect::<Result<_>>()?,
            next: BTreeMap::new(),
            dir: dir.into(),
            group,
            batch_bytes: reading.batch_bytes,
            most_records: reading.most_records,
            rows: reading.rows.clone(),
            pool: Arc::clone(pool),
            seen: 0,
            number: 0,
            is_over: false,
            salvage: reading.salvage,
            lost: Vec::new(),
        };
        for lane in 0..dealt.lanes.len() {
            dealt.look_up(lane)?;
        }
        Ok(dealt)
    }

    /// Notes which element a lane has next.
    fn look_up(&mut self, index: usize) -> Result<()> {
        let lane = &mut self.lanes[index];
        while lane.batch.as_ref().is_none_or(|batch| lane.record == batch.len()) {
            lane.batch = None;
            let Some(mut batch) = lane.batches.next_batch()? else {
                self.lost.extend_from_slice(lane.batches.lost());
                return Ok(());
            };
            batch.load()?;
            (lane.batch, lane.record) = (Some(batch), 0);
        }
        let Some(batch) = &lane.batch else { return Ok(()) };
        let number = element_number(batch.part(lane.record, 0)).map_err(|error| batch.error(lane.record, 0, &error))?;
        if let Some(other) = self.next.insert(number, index).filter(|&other| other != index) {
            let detail = format!("shards {other} and {index} both have an element {number}: their first component does not number them");
            return Err(Error::malformed(&self.dir, "snapshot", detail));
        }
        Ok(())
    }
}

/// The number in front of an element.
fn element_number(bytes: &[u8]) -> Result<u64, ParseError> {
    let proto = TensorProto::parse(bytes, 0)?;
    let mut number = [0; 8];
    if proto.spec.dtype() != Dtype::Int64 || !proto.spec.shape().is_empty() {
        return Err(ParseError::new(0, "TensorProto", format!("an element's number is {}, expected an int64", proto.spec)));
    }
    proto.fill(&mut number)?;
    u64::try_from(i64::from_le_bytes(number)).map_err(|_| ParseError::new(0, "TensorProto", "an element's number is negative"))
}

impl Batches for Dealt {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let held = self.pool.hold(self.batch_bytes as u64);
        let (mut bytes, mut frames) = (self.pool.buffer(), Vec::new());
        let parts = self.group - 1;
        let mut first = None;
        while !self.is_over && self.seen < self.rows.end && bytes.len() < self.batch_bytes && frames.len() < self.most_records * parts {
            let Some((number, index)) = self.next.pop_first() else {
                self.is_over = true;
                break;
            };
            if number != self.seen && self.salvage {
                self.lost.push(format!("{}: element {} is missing; it and those behind it are lost", self.dir.display(), self.seen));
                self.is_over = true;
                break;
            }
            if number != self.seen {
                let detail = format!("the elements are not numbered 0, 1, 2 and so on: {} is missing, {number} follows", self.seen);
                return Err(Error::malformed(&self.dir, "snapshot", detail));
            }
            let lane = &mut self.lanes[index];
            if let Some(batch) = lane.batch.as_ref().filter(|_| self.rows.contains(&number)) {
                first.get_or_insert(number - self.rows.start);
                for part in 1..self.group {
                    let start = bytes.len();
                    bytes.extend_from_slice(batch.part(lane.record, part));
                    frames.push(start..bytes.len());
                }
            }
            lane.record += 1;
            self.seen += 1;
            self.look_up(index)?;
        }
        let Some(first) = first else { return Ok(None) };
        let batch = Batch::gathered(self.number, first, Arc::clone(&self.dir), bytes, frames, parts, held);
        self.number += 1;
        Ok(Some(batch))
    }

    fn known(&self) -> Option<u64> {
        None
    }

    fn lost(&self) -> &[String] {
        &self.lost
    }
}

//! Sources that are records one after the other: TFRecord files, tf.data files, streams of frames.
//!
//! Their tensors are columns: axis 0 is the record. Records are read from front to back, once, for any number of columns.

mod batches;
mod bytes;
mod files;
mod framing;
mod survey;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::strings::StoredStrings;
use super::{Container, Name, TensorInfo, TensorReader};
use crate::dtype::Dtype;
use crate::error::{Error, ParseError, Result};
use crate::format::example::{self, Place};
use crate::format::tfrecord;
use crate::job::{Scan, scan};
use crate::options::Options;
use crate::spec::TensorSpec;

pub(crate) use batches::{Batch, Batches, Input, Pool, Reading, RecordFile, Sequential};
pub(crate) use bytes::Compression;
pub(crate) use files::FileSet;
pub(crate) use framing::{Framing, ppm_header};
pub(crate) use survey::{First, Look, Stats, Survey};

/// What looking at the first bytes of a file may take.
const LOOKING_BYTES: u64 = 16 << 20;
/// Records that are only counted are read by so many bytes.
const COUNTING_BYTES: usize = 1 << 20;
/// The name of records that are taken as they are.
pub(crate) const RECORDS: &[u8] = b"records";

/// Where a feature is found in a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// By its name, in an Example or the context of a SequenceExample.
    Context(Vec<u8>),
    /// By its name, among the feature lists of a SequenceExample.
    List(Vec<u8>),
    /// It is this part of the record by itself.
    Part(usize),
}

/// How the values of a feature are stored, where somebody says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As lists of numbers.
    Values,
    /// Little-endian elements in bytes.
    Raw,
    /// The same, compressed with zlib.
    Zlib,
    /// JPEG or PNG files.
    Image,
    /// Byte strings.
    Strings,
    /// Serialized `TensorProto`s.
    Tensor,
}

/// How many items of a feature a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Items {
    /// One, which is a row.
    One,
    /// A list of so many.
    Exactly(u64),
    /// A list of any number.
    Any,
}

impl Items {
    /// A list of a length that may be known.
    pub(crate) fn of_length(length: Option<u64>) -> Self {
        length.map_or(Self::Any, Self::Exactly)
    }

    /// The length of the list, if it is known.
    pub(crate) fn length(self) -> Option<u64> {
        if let Self::Exactly(length) = self { Some(length) } else { None }
    }

    pub(crate) fn is_list(self) -> bool {
        self != Self::One
    }
}

/// What somebody says of a feature: metadata beside the records, or whoever opened them.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) dtype: Dtype,
    /// The shape of an item; `None` where a length is not known.
    pub(crate) shape: Vec<Option<u64>>,
    pub(crate) encoding: Encoding,
    /// How many items a record has.
    pub(crate) items: Items,
    /// Whether every item is a row.
    pub(crate) flat: bool,
    /// Whether it stands for where the items of each record start.
    pub(crate) only_offsets: bool,
    /// The name of the feature that has the shape of this one.
    pub(crate) shape_in: Option<Vec<u8>>,
}

/// A feature that records have.
#[derive(Debug, Clone)]
pub(crate) struct Feature {
    pub(crate) name: Vec<u8>,
    pub(crate) alias: Option<String>,
    pub(crate) key: Key,
    pub(crate) declared: Option<Declared>,
    /// Why it cannot be converted.
    pub(crate) unsupported: Option<String>,
}

impl Feature {
    /// A feature of which nothing is known but where it is found.
    pub(crate) fn found(key: Key) -> Self {
        let name = match &key {
            Key::Context(name) | Key::List(name) => name.clone(),
            Key::Part(part) => part.to_string().into_bytes(),
        };
        Self { name, alias: None, key, declared: None, unsupported: None }
    }
}

/// Where the bytes of records are.
pub(crate) enum Inputs {
    /// Files, one after the other.
    Files(Vec<RecordFile>),
    /// Files between which records were dealt; part 0 of each is its number.
    Dealt(Vec<Vec<RecordFile>>),
    /// What can be read once.
    Once(Mutex<Option<Box<dyn Read + Send>>>, PathBuf),
    /// The frames of a video, as `ffmpeg` decodes them.
    Video(PathBuf),
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
            Self::Dealt(files) => f.debug_tuple("Dealt").field(files).finish(),
            Self::Once(_, name) => f.debug_tuple("Once").field(name).finish(),
            Self::Video(path) => f.debug_tuple("Video").field(path).finish(),
        }
    }
}

/// Records that belong together: all those of a source, or of a split.
#[derive(Debug)]
pub(crate) struct RecordSet {
    /// The split, where there are several.
    pub(crate) split: Option<String>,
    pub(crate) inputs: Inputs,
    pub(crate) framing: Framing,
    /// Frames that make a record.
    pub(crate) group: usize,
    /// The features that are known beforehand; those of Examples without metadata are found in the records.
    pub(crate) features: Vec<Feature>,
    /// Whether records may have other features than those.
    pub(crate) discovers: bool,
    /// How many records somebody says there are in all.
    pub(crate) total: Option<u64>,
}

impl RecordSet {
    /// Records that nobody has said anything about.
    pub(crate) fn undescribed(inputs: Inputs) -> Self {
        Self { split: None, inputs, framing: Framing::TfRecord, group: 1, features: Vec::new(), discovers: true, total: None }
    }

    /// Starts to read the records.
    ///
    /// # Errors
    /// Those of the first files; [`Error::BadRequest`] for a pipe that has been read.
    pub(crate) fn open(&self, reading: Reading, pool: &Arc<Pool>) -> Result<Box<dyn Batches>> {
        let inputs = match &self.inputs {
            Inputs::Files(files) => files.iter().cloned().map(Input::File).collect(),
            Inputs::Dealt(shards) => return Ok(Box::new(super::tf_data::Dealt::open(shards, self.framing, self.group, &reading, pool)?)),
            Inputs::Once(bytes, name) => {
                let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
                let bytes = bytes.ok_or_else(|| Error::bad_request(format!("{} can be read once only, and has been", name.display())))?;
                vec![Input::Stream(bytes, name.clone())]
            }
            Inputs::Video(path) => vec![Input::Stream(super::video::decode(path)?, path.clone())],
        };
        Ok(Box::new(Sequential::new(inputs, self.framing, self.group, reading, Arc::clone(pool))?))
    }

    /// Whether the records can be read any number of times.
    pub(crate) fn can_be_read_again(&self) -> bool {
        !matches!(self.inputs, Inputs::Once(..))
    }

    fn files(&self) -> Vec<PathBuf> {
        match &self.inputs {
            Inputs::Files(files) => files.iter().map(|file| file.path.clone()).collect(),
            Inputs::Dealt(shards) => shards.iter().flatten().map(|file| file.path.clone()).collect(),
            Inputs::Once(..) => Vec::new(),
            Inputs::Video(path) => vec![path.clone()],
        }
    }

    /// How many records somebody says there are.
    pub(crate) fn expected(&self) -> Option<u64> {
        match &self.inputs {
            _ if self.total.is_some() => self.total,
            Inputs::Files(files) if !files.is_empty() => files.iter().map(|file| file.expected).sum(),
            _ => None,
        }
    }

    /// Whether all there is to know of the features is known without looking at records.
    pub(crate) fn is_known(&self) -> bool {
        let is_raw = |feature: &Feature| {
            feature.declared.as_ref().is_some_and(|declared| declared.encoding == Encoding::Raw && !declared.shape.contains(&None))
        };
        !self.discovers && self.features.iter().all(is_raw)
    }

    /// Bytes of all files.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.files().iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }
}

/// Where in a record the features are that are wanted.
#[derive(Debug)]
pub(crate) struct Locator {
    keys: Vec<Key>,
    context: HashMap<Vec<u8>, Vec<usize>>,
    lists: HashMap<Vec<u8>, Vec<usize>>,
    /// The only key, which saves looking it up.
    only: Option<(Place, Vec<u8>)>,
}

/// Bytes of a part of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: usize,
    len: usize,
}

impl Span {
    /// Where there are none.
    pub(crate) const MISSING: Self = Self { start: 0, len: usize::MAX };
}

/// What a record has for a feature, as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    Missing,
    /// A `Feature` message, and where it starts in its part.
    Feature(&'a [u8], usize),
    /// A `FeatureList` message.
    List(&'a [u8], usize),
    /// A value by itself.
    Value(&'a [u8]),
}

impl Locator {
    pub(crate) fn new(keys: Vec<Key>) -> Self {
        let (mut context, mut lists): (HashMap<_, Vec<usize>>, HashMap<_, Vec<usize>>) = Default::default();
        for (index, key) in keys.iter().enumerate() {
            match key {
                Key::Context(name) => context.entry(name.clone()).or_default().push(index),
                Key::List(name) => lists.entry(name.clone()).or_default().push(index),
                Key::Part(_) => {}
            }
        }
        let only = match &keys[..] {
            [Key::Context(name)] => Some((Place::Context, name.clone())),
            [Key::List(name)] => Some((Place::Lists, name.clone())),
            _ => None,
        };
        Self { keys, context, lists, only }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Finds the features of record `record`: one span for each key.
    pub(crate) fn locate(&self, batch: &Batch, record: usize, spans: &mut [Span]) -> Result<()> {
        spans.fill(Span::MISSING);
        if let Some((wanted, name)) = &self.only {
            let found = example::entries(batch.part(record, 0), |place, key, value, start| {
                if place == *wanted && key == name {
                    spans[0] = Span { start, len: value.len() };
                }
            });
            return found.map_err(|error| batch.error(record, 0, &error));
        }
        if !self.context.is_empty() || !self.lists.is_empty() {
            let found = example::entries(batch.part(record, 0), |place, key, value, start| {
                let wanted = if place == Place::Context { &self.context } else { &self.lists };
                for &index in wanted.get(key).into_iter().flatten() {
                    spans[index] = Span { start, len: value.len() };
                }
            });
            found.map_err(|error| batch.error(record, 0, &error))?;
        }
        for (key, span) in self.keys.iter().zip(spans) {
            if let Key::Part(part) = key {
                *span = Span { start: 0, len: batch.part(record, *part).len() };
            }
        }
        Ok(())
    }

    /// What key number `index` has in a record.
    pub(crate) fn stored<'a>(&self, batch: &'a Batch, record: usize, index: usize, span: Span) -> Stored<'a> {
        if span.len == usize::MAX {
            return Stored::Missing;
        }
        let part = batch.part(record, self.part(index));
        let bytes = &part[span.start..span.start + span.len];
        match &self.keys[index] {
            Key::Context(_) => Stored::Feature(bytes, span.start),
            Key::List(_) => Stored::List(bytes, span.start),
            Key::Part(_) => Stored::Value(bytes),
        }
    }

    /// The part of a record that a key is in.
    pub(crate) fn part(&self, index: usize) -> usize {
        if let Key::Part(part) = self.keys[index] { part } else { 0 }
    }
}

/// An opened source of records.
#[derive(Debug)]
pub(crate) struct RecordContainer {
    format: &'static str,
    path: PathBuf,
    sets: Vec<RecordSet>,
    options: Options,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    /// What is known of each set: of its first records, then of all.
    surveys: Mutex<Vec<Option<Arc<Survey>>>>,
    /// The features that have been found, in the order in which they were.
    known: Mutex<Vec<(usize, Feature)>>,
}

impl RecordContainer {
    /// Opened sets of records.
    pub(crate) fn new(format: &'static str, path: &Path, sets: Vec<RecordSet>, options: &Options) -> Self {
        let surveys = Mutex::new(sets.iter().map(|_| None).collect());
        let mut known = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            known.extend(set.features.iter().map(|feature| (index, feature.clone())));
        }
        Self {
            format,
            path: path.to_owned(),
            sets,
            options: options.clone(),
            facts: Map::new(),
            warnings: Vec::new(),
            surveys,
            known: Mutex::new(known),
        }
    }

    /// The same with facts about the files and what is odd about them.
    pub(crate) fn with_facts(self, facts: Map<String, Value>, warnings: Vec<String>) -> Self {
        Self { facts, warnings, ..self }
    }

    /// The path that it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The set of records number `index`.
    pub(crate) fn set(&self, index: usize) -> &RecordSet {
        &self.sets[index]
    }

    /// The set that a feature is in, and the feature.
    pub(crate) fn feature(&self, index: usize) -> (usize, Feature) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)[index].clone()
    }

    /// What is known of a set: of all of its records, or where that was not asked for before, of the first ones.
    ///
    /// # Errors
    /// What is wrong with the records that are read for it.
    pub(crate) fn survey(&self, set: usize, complete: bool) -> Result<Arc<Survey>> {
        let mut surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(survey) = surveys[set].as_ref().filter(|survey| survey.is_complete || !complete) {
            return Ok(Arc::clone(survey));
        }
        let wanted = Scan { rows: 0..u64::MAX, complete, whole: false };
        let survey = Arc::new(scan(&self.sets[set], &wanted, &self.options)?);
        surveys[set] = Some(Arc::clone(&survey));
        drop(surveys);
        self.register(set, &survey);
        Ok(survey)
    }

    /// The number of records of a set, for which they are read if need be.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where they can be read only once.
    pub(crate) fn count(&self, set: usize) -> Result<u64> {
        let records = &self.sets[set];
        if !records.can_be_read_again() {
            return Err(Error::bad_request("rows are counted from the end, of a source whose length is not known before it has been read"));
        }
        if !records.is_known() {
            return self.survey(set, true).map(|survey| survey.records);
        }
        let reading = Reading {
            batch_bytes: COUNTING_BYTES,
            most_records: usize::MAX,
            memory_bytes: self.options.budget().as_bytes() / 4,
            rows: 0..u64::MAX,
            verify: false,
            salvage: self.options.records.salvage,
            calls: self.options.calls(),
        };
        let mut batches = records.open(reading, &Pool::new(self.options.budget().as_bytes() / 4))?;
        if let Some(known) = batches.known() {
            return Ok(known);
        }
        let mut count = 0;
        while let Some(batch) = batches.next_batch()? {
            count += batch.len() as u64;
        }
        Ok(count)
    }

    /// Takes over the features that records turned out to have.
    fn register(&self, index: usize, survey: &Survey) {
        let set = &self.sets[index];
        if !set.discovers {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before: HashSet<Key> = known.iter().filter(|(other, _)| *other == index).map(|(_, feature)| feature.key.clone()).collect();
        for key in survey.features.keys() {
            if !before.contains(key) {
                let mut feature = Feature::found(key.clone());
                match key {
                    Key::Part(_) => feature.name = RECORDS.to_vec(),
                    // One name in both places.
                    Key::List(name) if survey.features.contains_key(&Key::Context(name.clone())) => {
                        feature.name = [b"feature_lists/", &name[..]].concat();
                    }
                    _ => {}
                }
                known.push((index, feature));
            }
        }
    }

    /// Looks at all records of which that is needed to tell the features.
    fn discover(&self) -> Result<()> {
        (0..self.sets.len())
            .filter(|&set| self.sets[set].can_be_read_again() && self.sets[set].discovers)
            .try_for_each(|set| self.survey(set, true).map(drop))
    }

    fn find_in(&self, known: &[(usize, Feature)], name: &[u8]) -> Option<usize> {
        let is_named = |(set, feature): &(usize, Feature)| match &self.sets[*set].split {
            Some(split) => name.strip_prefix(split.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")) == Some(&feature.name),
            None => feature.name == name,
        };
        known.iter().position(is_named)
    }

    fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.find_in(&self.known.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// The shape and dtype of a feature's array, with lengths of 0 where they are not known, and which those are.
    fn shape(feature: &Feature, survey: Option<&Survey>, set: &RecordSet) -> (Dtype, Vec<Option<u64>>) {
        let records = survey.filter(|survey| survey.is_complete).map(|survey| survey.records).or(set.expected());
        let stats = survey.and_then(|survey| survey.features.get(&feature.key));
        let (dtype, row) = crate::columns::natural_row(feature, stats, survey);
        (dtype, [records].into_iter().chain(row).collect())
    }
}

impl Container for RecordContainer {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        self.discover()?;
        Ok(self.known.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let (set, feature) = self.feature(index);
        let survey = self.surveys.lock().unwrap_or_else(PoisonError::into_inner)[set].clone();
        let set = &self.sets[set];
        let (dtype, axes) = Self::shape(&feature, survey.as_deref(), set);
        let spec = TensorSpec::new(dtype, axes.iter().map(|axis| axis.unwrap_or(0)).collect())
            .map_err(|d| Error::malformed(&self.path, "feature", d))?;
        let name = match &set.split {
            Some(split) => [split.as_bytes(), b"/", &feature.name].concat(),
            None => feature.name.clone(),
        };
        let stats =
            survey.as_deref().filter(|survey| survey.is_complete).and_then(|survey| Some((survey, survey.features.get(&feature.key)?)));
        let facts = stats.map(|(survey, stats)| crate::columns::describe(&feature, stats, survey));
        let unknown_axes = (0..axes.len()).filter(|&axis| axes[axis].is_none()).collect();
        Ok(TensorInfo { name: Name::new(name), alias: feature.alias, spec, unsupported: feature.unsupported, unknown_axes, feature: facts })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        if let Some(found) = self.lookup(name) {
            return Ok(Some(found));
        }
        for complete in [false, true] {
            for set in (0..self.sets.len()).filter(|&set| self.sets[set].discovers && self.sets[set].can_be_read_again()) {
                self.survey(set, complete)?;
            }
            // Records can always be had as they are: that is no reason to look at all of them.
            if let Some(found) = self.lookup(name).or_else(|| self.find_alias(name)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Records can always be had as they are.
        if alias == RECORDS && self.sets.len() == 1 && self.sets[0].discovers {
            known.push((0, Feature { name: RECORDS.to_vec(), ..Feature::found(Key::Part(0)) }));
            return Some(known.len() - 1);
        }
        known.iter().position(|(_, feature)| feature.alias.as_ref().is_some_and(|own| own.as_bytes() == alias))
    }

    fn reader(&self, _: usize) -> Result<Box<dyn TensorReader + '_>> {
        let detail = "records are read from front to back; a Converter does".into();
        Err(Error::Unsupported { what: "a reader of a feature of records".into(), detail })
    }

    fn strings(&self, _: usize) -> Result<StoredStrings<'_>> {
        let detail = "records are read from front to back; a Converter does".into();
        Err(Error::Unsupported { what: "a reader of a feature of records".into(), detail })
    }

    fn records(&self) -> Option<&RecordContainer> {
        Some(self)
    }

    fn heap_bytes(&self) -> u64 {
        const FEATURE_BYTES: u64 = 256;
        const FILE_BYTES: u64 = 256;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        known * FEATURE_BYTES + self.files().len() as u64 * FILE_BYTES
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sets.iter().flat_map(RecordSet::files).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.facts.clone();
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        for (set, survey) in self.sets.iter().zip(surveys.iter()) {
            let records = survey.as_ref().filter(|survey| survey.is_complete).map(|survey| survey.records).or(set.expected());
            let key = set.split.as_ref().map_or_else(|| "records".to_owned(), |split| format!("records of {split}"));
            facts.insert(key, json!(records));
        }
        let files = self.files();
        facts.insert("files".into(), json!(files.len()));
        let compressions: Option<Vec<Compression>> =
            files.iter().take(1).map(|path| bytes::open(path).ok().and_then(|file| Compression::detect(&file).ok()?)).collect();
        if let Some([compression]) = compressions.as_deref() {
            facts.insert("compression".into(), json!(compression));
        }
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (set, _) = self.feature(index);
        if self.sets[set].can_be_read_again() {
            self.survey(set, true)?;
        }
        Ok(Map::new())
    }

    fn warnings(&self) -> Vec<String> {
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = surveys.iter().flatten().filter(|survey| survey.is_complete).flat_map(|survey| survey.lost.clone());
        self.warnings.iter().cloned().chain(lost).collect()
    }
}

/// Whether what a file holds, decompressed, starts like a record.
pub(crate) fn starts_with_record(path: &Path) -> Result<bool> {
    let file = bytes::open(path)?;
    let failed = |error| Error::io("read", path)(error);
    let Some(compression) = Compression::detect(&file).map_err(failed)? else { return Ok(false) };
    let stream = bytes::FileBytes::new(file, crate::os::Calls::Standard).map_err(failed)?;
    let mut header = [0; tfrecord::HEADER_LEN];
    let read = bytes::read_full(bytes::decompressed(stream, compression, LOOKING_BYTES).as_mut(), &mut header)
        .map_err(|error| bytes::read_error(path, 0, error))?;
    Ok(read == header.len() && tfrecord::data_len(&header).is_ok())
}

impl Stored<'_> {
    /// The integers that it is a list of.
    pub(crate) fn ints(&self) -> Result<Vec<i64>, ParseError> {
        let mut ints = Vec::new();
        if let Self::Feature(feature, base) = self
            && let Some(values) = example::Values::parse(feature, *base)?.filter(|values| values.kind() == example::Kind::Ints)
        {
            values.ints(|value| ints.push(value))?;
        }
        Ok(ints)
    }
}

/// Looks at the records of a batch.
pub(crate) fn look_at_batch(set: &RecordSet, batch: &Batch, as_examples: bool, survey: &mut Survey) -> Result<()> {
    for record in 0..batch.len() {
        let number = batch.first + record as u64;
        let at = |part| move |error: ParseError| (part, error);
        let seen = if as_examples {
            survey.see_example(number, batch.part(record, 0)).map_err(at(0))
        } else {
            survey.records += 1;
            let parts: Vec<_> = set
                .features
                .iter()
                .filter_map(|feature| if let Key::Part(part) = feature.key { Some((part, feature)) } else { None })
                .collect();
            if parts.is_empty() {
                survey.see_part(number, 0, batch.part(record, 0), None).map_err(at(0))
            } else {
                parts.iter().try_for_each(|(part, feature)| {
                    survey.see_part(number, *part, batch.part(record, *part), feature.declared.as_ref()).map_err(at(*part))
                })
            }
        };
        seen.map_err(|(part, error)| batch.error(record, part, &error))?;
    }
    Ok(())
}

/// Whether records are Examples: all of them can be read as such, and one has a feature.
pub(crate) fn are_examples(batch: &Batch) -> bool {
    let mut features = 0;
    (0..batch.len()).all(|record| {
        let parsed = example::entries(batch.part(record, 0), |_, _, value, base| {
            features += u64::from(example::Values::parse(value, base).is_ok());
        });
        parsed.is_ok()
    }) && features > 0
}

//! Records as a source of tensors: its features are found by looking at them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::RecordSet;
use super::feature::{Declared, Encoding, Feature, Key, RECORDS};
use super::survey::Survey;
use crate::cast::ByteOrder;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::records::Called;
use crate::os::Calls;
use crate::reader::strings::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::records::pass::scan::Scan;
use crate::records::pass::scan::scan;
use crate::records::stream::batches::Reading;
use crate::records::stream::bytes;
use crate::records::stream::bytes::Compression;
use crate::records::stream::memory_pool::Pool;
use crate::source::container::{Container, TensorInfo};
use crate::source::name::Name;
use crate::types::dtype::Dtype;
use crate::types::spec::TensorSpec;

/// Records that are only counted are read by so many bytes.
const COUNTING_BYTES: usize = 1 << 20;

/// An opened source of records.
#[derive(Debug)]
pub(crate) struct RecordContainer {
    format: &'static str,
    path: PathBuf,
    sets: Vec<RecordSet>,
    options: Options,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    /// The files that are missing and were let pass.
    lost: Vec<String>,
    /// What becomes of values that do not stay what they are.
    notes: Vec<String>,
    /// What it is read from beside the inputs of its sets.
    files: Vec<PathBuf>,
    held_bytes: u64,
    /// What is known of each set: of its first records, then of all.
    surveys: Mutex<Vec<Option<Arc<Survey>>>>,
    /// The features that have been found, in the order in which they were.
    known: Mutex<Vec<(usize, Feature)>>,
}

impl RecordContainer {
    /// Opened sets of records.
    pub(crate) fn new(format: &'static str, path: &Path, sets: Vec<RecordSet>, options: &Options) -> Self {
        options.records.salvage.note();
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
            lost: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
            held_bytes: 0,
            surveys,
            known: Mutex::new(known),
        }
    }

    /// The same with facts about the files and what is odd about them.
    pub(crate) fn with_facts(self, facts: Map<String, Value>, warnings: Vec<String>) -> Self {
        Self { facts, warnings, ..self }
    }

    /// The same with what becomes of values that do not stay what they are.
    pub(crate) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// The same with more that is odd.
    /// The same, of which these files are missing.
    pub(crate) fn with_lost(mut self, lost: Vec<String>) -> Self {
        self.lost.extend(lost);
        self
    }

    /// The same, read from these files, too, for which it holds so many bytes.
    pub(crate) fn with_files(self, files: Vec<PathBuf>, held_bytes: u64) -> Self {
        Self { files, held_bytes, ..self }
    }

    /// Records of several sources as one, one behind the other: sets of the same split, or the only ones.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where they do not continue each other.
    pub(crate) fn join(parts: Vec<Self>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().ok_or_else(|| Error::bad_request("there is nothing to join"))?;
        let mut paths = vec![whole.path.to_string_lossy().into_owned()];
        for part in parts {
            let refused = |detail: String| Error::Unsupported {
                what: format!("joining {} to {}", part.path.display(), whole.path.display()),
                detail,
            };
            let splits = |sets: &[RecordSet]| sets.iter().map(|set| set.split.clone()).collect::<Vec<_>>();
            let (own, others) = (splits(&whole.sets), splits(&part.sets));
            if own.len() != others.len() || own.len() > 1 && own != others {
                let names = |splits: &[Option<String>]| splits.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
                return Err(refused(format!("it has other splits ({}) than the first ({})", names(&others), names(&own))));
            }
            for (set, other) in whole.sets.iter_mut().zip(part.sets) {
                set.append(other).map_err(&refused)?;
            }
            paths.push(part.path.to_string_lossy().into_owned());
            whole.warnings.extend(part.warnings);
            whole.lost.extend(part.lost);
            whole.notes.extend(part.notes.into_iter().filter(|note| !whole.notes.contains(note)).collect::<Vec<_>>());
            whole.files.extend(part.files);
            whole.held_bytes = whole.held_bytes.saturating_add(part.held_bytes);
        }
        whole.facts.insert("joined".into(), json!(paths));
        Ok(whole)
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
        if complete {
            self.check_ends(set)?;
        }
        let wanted = Scan { rows: 0..u64::MAX, joined_rows: u64::MAX, complete, whole: false };
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
            let detail = "rows are counted from the end, of a source whose length is not known before it has been read";
            return Err(Error::bad_request(format!("{}: {detail}", self.path.display())));
        }
        if !records.is_known() {
            return self.survey(set, true).map(|survey| survey.records);
        }
        self.count_frames(set, &self.options)
    }

    /// The number of records of a set that can be read again, for which nobody looks into them.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn count_frames(&self, set: usize, options: &Options) -> Result<u64> {
        let survey = self.surveys.lock().unwrap_or_else(PoisonError::into_inner)[set].clone();
        if let Some(survey) = survey.filter(|survey| survey.is_complete) {
            return Ok(survey.records);
        }
        let records = &self.sets[set];
        let memory_bytes = options.budget().as_bytes() / 4;
        let reading = Reading { verify: false, ..Reading::new(COUNTING_BYTES, memory_bytes, options) };
        let mut batches = records.open(reading, &Pool::new(memory_bytes))?;
        if let Some(known) = batches.known() {
            return Ok(known);
        }
        let mut count = 0;
        while let Some(batch) = batches.next_batch()? {
            count += batch.len() as u64;
        }
        Ok(count)
    }

    /// Refuses a set of which all is wanted, and that has no end.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_ends(&self, set: usize) -> Result<()> {
        if self.sets[set].is_endless() {
            let detail = format!("{} has no end: --rows A:B says which rows are wanted", self.path.display());
            return Err(Error::bad_request(detail));
        }
        Ok(())
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

    /// A feature of records of which there are none, where its dtype and shape are told.
    fn told(&self, name: &[u8]) -> Option<usize> {
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let [Some(survey)] = &surveys[..] else { return None };
        let is_none = survey.is_complete && survey.records == 0 && survey.lost.is_empty();
        let called = Called::only(std::str::from_utf8(name).ok().filter(|_| is_none)?);
        let raw = self.options.records.raw_of(called).filter(|_| self.sets[0].discovers)?;
        let shape = self.options.records.shape_of(called, true)?.iter().map(|&axis| u64::try_from(axis).ok()).collect();
        let order = raw.order.unwrap_or(ByteOrder::Little);
        let declared = Declared { order, ..Declared::new(raw.dtype, shape, Encoding::Raw) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((0, Feature { declared: Some(declared), ..Feature::found(Key::Context(name.to_vec())) }));
        Some(known.len() - 1)
    }

    fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.find_in(&self.known.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// The shape and dtype of a feature's array, with lengths of 0 where they are not known, and which those are.
    fn shape(feature: &Feature, survey: Option<&Survey>, set: &RecordSet) -> (Dtype, Vec<Option<u64>>) {
        let records = survey.filter(|survey| survey.is_complete).map(|survey| survey.records).or(set.expected());
        let stats = survey.and_then(|survey| survey.features.get(&feature.key));
        if let Some(declared) = feature.declared.as_ref().filter(|declared| declared.flat) {
            if declared.only_offsets {
                return (Dtype::Int64, vec![records.map(|records| records + 1)]);
            }
            // As many rows as all records have together.
            let (dtype, row) = super::columns::natural_row(feature, stats, survey);
            return (dtype, std::iter::once(None).chain(row).collect());
        }
        let (dtype, row) = super::columns::natural_row(feature, stats, survey);
        (dtype, [records].into_iter().chain(row).collect())
    }
}

impl Container for RecordContainer {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        self.discover()?;
        // Where nobody wrote down what elements are like, the first ones tell; what is computed is not, before it is converted.
        for (index, set) in self.sets.iter().enumerate().filter(|(_, set)| !set.is_made()) {
            let is_untold =
                |feature: &Feature| feature.declared.as_ref().is_some_and(|d| d.encoding == Encoding::Tensor && d.shape.is_empty());
            if set.features.iter().any(is_untold) {
                self.survey(index, false)?;
            }
        }
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
        let facts = stats.map(|(survey, stats)| super::columns::describe(&feature, stats, survey));
        let unknown_axes = (0..axes.len()).filter(|&axis| axes[axis].is_none()).collect();
        let has_rank = survey.is_some() || feature.declared.as_ref().is_none_or(|declared| declared.has_rank);
        Ok(TensorInfo {
            alias: feature.alias,
            has_rank,
            unsupported: feature.unsupported,
            unknown_axes,
            feature: facts,
            ..TensorInfo::new(Name::new(name), spec)
        })
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
        Ok(self.told(name))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Records can always be had as they are.
        if alias == RECORDS && self.sets.len() == 1 && self.sets[0].discovers {
            if let Some(known) = known.iter().position(|(_, feature)| feature.name == RECORDS) {
                return Some(known);
            }
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

    fn records(&self, index: usize) -> Option<(&RecordContainer, usize)> {
        Some((self, index))
    }

    fn take_records(&mut self) -> Option<RecordContainer> {
        let empty = Self::new(self.format, Path::new(""), Vec::new(), &self.options);
        Some(std::mem::replace(self, empty))
    }

    fn heap_bytes(&self) -> u64 {
        const FEATURE_BYTES: u64 = 256;
        const FILE_BYTES: u64 = 256;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        known * FEATURE_BYTES + self.files().len() as u64 * FILE_BYTES + self.held_bytes
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sets.iter().flat_map(RecordSet::files).chain(self.files.iter().cloned()).collect()
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
        let compressions: Option<Vec<Compression>> = files
            .iter()
            .take(1)
            .map(|path| bytes::open(path, &Calls::default()).ok().and_then(|file| Compression::detect(&file).ok()?))
            .collect();
        if let Some([compression]) = compressions.as_deref() {
            facts.insert("compression".into(), json!(compression));
        }
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (set, _) = self.feature(index);
        if self.sets[set].can_be_read_again() && !self.sets[set].is_made() {
            self.survey(set, true)?;
        }
        Ok(Map::new())
    }

    fn is_made(&self, index: usize) -> bool {
        self.sets[self.feature(index).0].is_made()
    }

    fn claimed_rows(&self, index: usize) -> Option<u64> {
        self.sets[self.feature(index).0].claimed()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn nothing(&self) -> Error {
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<String> = surveys.iter().flatten().flat_map(|survey| survey.lost.clone()).collect();
        if let Some(first) = lost.first() {
            return Error::malformed(&self.path, "records", format!("no record is left: {first}"));
        }
        let detail = "it has no records, and only these tell which features there are. With a name, --raw NAME=DTYPE and --shape NAME=… it is an array of 0 rows";
        Error::Unsupported { what: self.path.display().to_string(), detail: detail.into() }
    }

    fn warnings(&self) -> Vec<String> {
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = surveys.iter().flatten().filter(|survey| survey.is_complete).flat_map(|survey| survey.lost.clone());
        let mixed = surveys.iter().flatten().filter_map(|survey| survey.mixed.clone());
        self.lost.iter().chain(&self.warnings).cloned().chain(lost).chain(mixed).collect()
    }

    fn lost(&self) -> Vec<String> {
        self.lost.clone()
    }
}

//! Opened sets of records; their features are found by looking at them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::feature::{Declared, Encoding, Feature, Key, RECORDS};
use super::scan::{Scan, scan};
use super::set::RecordSet;
use super::stream::batches::ReadSettings;
use super::stream::memory_pool::Pool;
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::records::Called;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// Records that are only counted are read by so many bytes.
const COUNTING_BYTES: usize = 1 << 20;

/// An opened source of records.
#[derive(Debug)]
pub(crate) struct RecordContainer {
    pub(crate) format: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) sets: Vec<RecordSet>,
    pub(crate) options: Options,
    pub(crate) facts: Map<String, Value>,
    pub(crate) warnings: Vec<String>,
    /// The files that are missing and were let pass.
    pub(crate) lost: Vec<String>,
    /// What becomes of values that do not stay what they are.
    pub(crate) notes: Vec<String>,
    /// What it is read from beside the inputs of its sets.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) held_bytes: u64,
    /// What is known of each set: of its first records, then of all.
    pub(crate) surveys: Mutex<Vec<Option<Arc<Survey>>>>,
    /// The features that have been found, in the order in which they were.
    pub(crate) known: Mutex<Vec<(usize, Feature)>>,
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
        let reading = ReadSettings { verify: false, ..ReadSettings::new(COUNTING_BYTES, memory_bytes, options) };
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
            let detail = format!("{} has no end: `rows` A:B says which rows are wanted", self.path.display());
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
    pub(crate) fn discover(&self) -> Result<()> {
        (0..self.sets.len())
            .filter(|&set| self.sets[set].can_be_read_again() && self.sets[set].discovers)
            .try_for_each(|set| self.survey(set, true).map(drop))
    }

    pub(crate) fn find_in(&self, known: &[(usize, Feature)], name: &[u8]) -> Option<usize> {
        let is_named = |(set, feature): &(usize, Feature)| match &self.sets[*set].split {
            Some(split) => name.strip_prefix(split.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")) == Some(&feature.name),
            None => feature.name == name,
        };
        known.iter().position(is_named)
    }

    /// A feature of records of which there are none, where its dtype and shape are told.
    pub(crate) fn told(&self, name: &[u8]) -> Option<usize> {
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

    pub(crate) fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.find_in(&self.known.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// The shape and dtype of a feature's array, with lengths of 0 where they are not known, and which those are.
    pub(crate) fn shape(feature: &Feature, survey: Option<&Survey>, set: &RecordSet) -> (Dtype, Vec<Option<u64>>) {
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

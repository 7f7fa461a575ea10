//! An opened source of records, whose features are found by scanning records.

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
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::records::Called;
use crate::options::request::{Request, Run};
use crate::storage::blob::Storage;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// Batch size for counting records.
const COUNTING_BYTES: usize = 1 << 20;

/// An opened source of records.
#[derive(Debug)]
pub(crate) struct RecordContainer {
    pub(crate) format: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) sets: Vec<RecordSet>,
    pub(crate) request: Request,
    /// The storage of its files.
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) facts: Map<String, Value>,
    pub(crate) warnings: Vec<String>,
    /// Missing files that were tolerated.
    pub(crate) lost: Vec<String>,
    /// Values that change when they are read, and how.
    pub(crate) notes: Vec<String>,
    /// Files read beside the inputs of its sets.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) held_bytes: u64,
    /// The survey of each set: first of some records, then of all.
    pub(crate) surveys: Mutex<Vec<Option<Arc<Survey>>>>,
    /// The features found so far, in order.
    pub(crate) known: Mutex<Vec<(usize, Feature)>>,
}

impl RecordContainer {
    /// A source of opened record sets.
    pub(crate) fn new(format: &'static str, path: &Path, sets: Vec<RecordSet>, options: &Options) -> Self {
        Self::of(format, path, sets, (options.request(None, 0), options.storage(path)))
    }

    pub(crate) fn of(format: &'static str, path: &Path, sets: Vec<RecordSet>, (request, storage): (Request, Arc<dyn Storage>)) -> Self {
        request.run.salvage.note();
        let surveys = Mutex::new(sets.iter().map(|_| None).collect());
        let mut known = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            known.extend(set.features.iter().map(|feature| (index, feature.clone())));
        }
        Self {
            format,
            path: path.to_owned(),
            sets,
            request,
            storage,
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

    /// Adds facts about the files, and warnings.
    pub(crate) fn with_facts(self, facts: Map<String, Value>, warnings: Vec<String>) -> Self {
        Self { facts, warnings, ..self }
    }

    /// Adds notes on values that change when they are read.
    pub(crate) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// Adds missing files.
    pub(crate) fn with_lost(mut self, lost: Vec<String>) -> Self {
        self.lost.extend(lost);
        self
    }

    /// Adds other files that it is read from, which take `held_bytes` of memory.
    pub(crate) fn with_files(self, files: Vec<PathBuf>, held_bytes: u64) -> Self {
        Self { files, held_bytes, ..self }
    }

    /// Joins the records of several sources: sets of the same split, or the only sets.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] where the sets do not fit together.
    pub(crate) fn join(parts: Vec<Self>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().ok_or(BadRequest::NothingToJoin { only: None, are_files_joined: false })?;
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
                return Err(refused(format!("it has the splits ({}), the first has ({})", names(&others), names(&own))));
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

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The set of records number `index`.
    pub(crate) fn set(&self, index: usize) -> &RecordSet {
        &self.sets[index]
    }

    /// The set of a feature, and the feature.
    pub(crate) fn feature(&self, index: usize) -> (usize, Feature) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)[index].clone()
    }

    /// The survey of a set: of all records if `complete` or done before, else of the first ones.
    ///
    /// # Errors
    /// Returns errors in the records that are read.
    pub(crate) fn survey(&self, set: usize, complete: bool) -> Result<Arc<Survey>> {
        let mut surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(survey) = surveys[set].as_ref().filter(|survey| survey.is_complete || !complete) {
            return Ok(Arc::clone(survey));
        }
        if complete {
            self.check_ends(set)?;
        }
        let wanted = Scan { rows: 0..u64::MAX, joined_rows: u64::MAX, complete, whole: false };
        let survey = Arc::new(scan(&self.sets[set], &wanted, &self.request.run)?);
        surveys[set] = Some(Arc::clone(&survey));
        drop(surveys);
        self.register(set, &survey);
        Ok(survey)
    }

    /// The number of records of a set, which are read if needed.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] where they can be read only once.
    pub(crate) fn count(&self, set: usize) -> Result<u64> {
        let records = &self.sets[set];
        if !records.can_be_read_again() {
            return Err(BadRequest::UnknownEnd { path: Some(self.path.clone()) }.into());
        }
        if !records.is_known() {
            return self.survey(set, true).map(|survey| survey.records);
        }
        self.count_frames(set, &self.request.run)
    }

    /// The number of records of a set that can be read again; counts without parsing them.
    ///
    /// # Errors
    /// Returns errors in the files.
    pub(crate) fn count_frames(&self, set: usize, run: &Run) -> Result<u64> {
        let survey = self.surveys.lock().unwrap_or_else(PoisonError::into_inner)[set].clone();
        if let Some(survey) = survey.filter(|survey| survey.is_complete) {
            return Ok(survey.records);
        }
        let records = &self.sets[set];
        let memory_bytes = run.budget.as_bytes() / 4;
        let reading = ReadSettings { verify: false, ..ReadSettings::new(COUNTING_BYTES, memory_bytes, run) };
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

    /// Refuses an endless set of which all records are requested.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_ends(&self, set: usize) -> Result<()> {
        if self.sets[set].is_endless() {
            return Err(BadRequest::Endless { path: self.path.clone() }.into());
        }
        Ok(())
    }

    /// Adds the features that a survey found.
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
                    // Both places have a feature of this name.
                    Key::List(name) if survey.features.contains_key(&Key::Context(name.clone())) => {
                        feature.name = [b"feature_lists/", &name[..]].concat();
                    }
                    _ => {}
                }
                known.push((index, feature));
            }
        }
    }

    /// Surveys all records of the sets whose features must be discovered.
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

    /// A feature of an empty source, if options state its dtype and shape.
    pub(crate) fn told(&self, name: &[u8]) -> Option<usize> {
        let surveys = self.surveys.lock().unwrap_or_else(PoisonError::into_inner);
        let [Some(survey)] = &surveys[..] else { return None };
        let is_none = survey.is_complete && survey.records == 0 && survey.lost.is_empty();
        let called = Called::only(std::str::from_utf8(name).ok().filter(|_| is_none)?);
        let raw = self.request.records.raw_of(called).filter(|_| self.sets[0].discovers)?;
        let shape = self.request.records.shape_of(called, true)?.iter().map(|&axis| u64::try_from(axis).ok()).collect();
        let order = raw.order.unwrap_or(ByteOrder::Little);
        let declared = Declared { order, ..Declared::new(raw.dtype, shape, Encoding::Raw) };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push((0, Feature { declared: Some(declared), ..Feature::found(Key::Context(name.to_vec())) }));
        Some(known.len() - 1)
    }

    pub(crate) fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.find_in(&self.known.lock().unwrap_or_else(PoisonError::into_inner), name)
    }

    /// The dtype and shape of a feature's array; `None` for unknown lengths.
    pub(crate) fn shape(feature: &Feature, survey: Option<&Survey>, set: &RecordSet) -> (Dtype, Vec<Option<u64>>) {
        let records = survey.filter(|survey| survey.is_complete).map(|survey| survey.records).or(set.expected());
        let stats = survey.and_then(|survey| survey.features.get(&feature.key));
        if let Some(declared) = feature.declared.as_ref().filter(|declared| declared.flat) {
            if declared.only_offsets {
                return (Dtype::Int64, vec![records.map(|records| records + 1)]);
            }
            // The number of rows is that of all records together.
            let (dtype, row) = super::columns::natural_row(feature, stats, survey);
            return (dtype, std::iter::once(None).chain(row).collect());
        }
        let (dtype, row) = super::columns::natural_row(feature, stats, survey);
        (dtype, [records].into_iter().chain(row).collect())
    }
}

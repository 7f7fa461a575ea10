//! Records as a source of tensors: one for each feature.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use crate::error::{Error, Result};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::records::container::RecordContainer;
use crate::records::feature::{Encoding, Feature, Key, RECORDS};
use crate::records::set::RecordSet;
use crate::records::stream::compression::Compression;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

impl Container for RecordContainer {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        self.discover()?;
        // Read the first elements if their shape is not stored, but not if they would have to be computed.
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
            .map_err(|request| Error::malformed(&self.path, "feature", request.to_string()))?;
        let name = match &set.split {
            Some(split) => [split.as_bytes(), b"/", &feature.name].concat(),
            None => feature.name.clone(),
        };
        let stats =
            survey.as_deref().filter(|survey| survey.is_complete).and_then(|survey| Some((survey, survey.features.get(&feature.key)?)));
        let facts = stats.map(|(survey, stats)| crate::records::columns::describe(&feature, stats, survey));
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
            // Raw records are always available. Do not scan all of them for that.
            if let Some(found) = self.lookup(name).or_else(|| self.find_alias(name)) {
                return Ok(Some(found));
            }
        }
        Ok(self.told(name))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Raw records are always available.
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
        let detail = "records can be read from front to back only: use a Converter".into();
        Err(Error::Unsupported { what: "a reader of a feature of records".into(), detail })
    }

    fn strings(&self, _: usize) -> Result<StoredStrings<'_>> {
        let detail = "records can be read from front to back only: use a Converter".into();
        Err(Error::Unsupported { what: "a reader of a feature of records".into(), detail })
    }

    fn records(&self, index: usize) -> Option<(&RecordContainer, usize)> {
        Some((self, index))
    }

    fn take_records(&mut self) -> Option<RecordContainer> {
        let empty = Self::of(self.format, Path::new(""), Vec::new(), (self.request.clone(), Arc::clone(&self.storage)));
        Some(std::mem::replace(self, empty))
    }

    fn heap_bytes(&self) -> u64 {
        const FEATURE_BYTES: u64 = 256;
        const FILE_BYTES: u64 = 768;
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
        let compressions: Option<Vec<Compression>> =
            files.iter().take(1).map(|path| self.storage.open(path).ok().and_then(|file| Compression::detect(&*file).ok()?)).collect();
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
        let detail = "it has no records, so its features are unknown. With a name, `raw` NAME=DTYPE and `shape` NAME=… it becomes an array of 0 rows";
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

//! TFRecord files: one, a glob, `base@N`.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Map;

use super::Container;
use super::driver::Driver;
use super::records::{Compression, FileSet, Inputs, RecordContainer, RecordFile, RecordSet};
use crate::error::{Error, Result};
use crate::options::Options;

/// A word that is in the names of most files of records. It says nothing about what is in them.
const USUAL: &str = ".tfrecord";

/// Files of records, judged by their content.
pub(crate) struct TfRecord;

impl Driver for TfRecord {
    fn name(&self) -> &'static str {
        "tfrecord"
    }

    fn reads_patterns(&self) -> bool {
        true
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        let Some(set) = FileSet::expand(path)? else { return Ok(None) };
        // The first one that has anything in it says what they are.
        for file in &set.files {
            let opened = File::open(file).map_err(Error::io("open", file))?;
            if opened.metadata().map_err(Error::io("look at", file))?.len() == 0 {
                continue;
            }
            let is_named = set.files.len() > 1 || file.to_string_lossy().contains(USUAL);
            let is_one = Compression::detect(&opened)
                .map_err(Error::io("read", file))?
                .is_some_and(|found| found == Compression::None || is_named || is_record(file));
            return Ok((is_one || is_named).then(|| path.to_owned()));
        }
        Ok(Some(path.to_owned()).filter(|_| set.files.iter().any(|file| file.to_string_lossy().contains(USUAL)) || set.files.len() > 1))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let set = FileSet::expand(path)?
            .ok_or_else(|| Error::NotFound { what: "source", detail: format!("there is no file {}", path.display()) })?;
        let mut warnings = Vec::new();
        match set.check_complete() {
            Err(error) if options.records.salvage => warnings.push(error.to_string()),
            result => result?,
        }
        let files = set.files.into_iter().map(|path| RecordFile { path, expected: None }).collect();
        let records = RecordSet::undescribed(Inputs::Files(files));
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options).with_facts(Map::new(), warnings)))
    }
}

/// Whether what a compressed file holds starts like a record.
fn is_record(path: &Path) -> bool {
    super::records::starts_with_record(path).unwrap_or(false)
}

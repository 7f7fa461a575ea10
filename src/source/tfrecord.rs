//! TFRecord files: one, or several as one source.

use std::path::{Path, PathBuf};

use super::container::Container;
use super::driver::Driver;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::Calls;
use crate::records::container::RecordContainer;
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::bytes::Compression;
use crate::records::stream::files::FileSet;
use crate::records::stream::inputs::RecordFile;
use crate::storage::input::open_file;
use crate::storage::paths::is_file;

/// A word that is in the names of most files of records. It says nothing about what is in them.
const USUAL: &str = ".tfrecord";

/// Files of records, judged by their content.
pub(crate) struct TfRecord;

impl Driver for TfRecord {
    fn name(&self) -> &'static str {
        "tfrecord"
    }

    fn joins_files(&self) -> bool {
        true
    }

    fn resolve(&self, path: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
        if !is_file(path)? {
            return Ok(None);
        }
        let is_named = path.to_string_lossy().contains(USUAL);
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let is_empty = file.metadata().map_err(Error::io("look at", path))?.len() == 0;
        let is_one = !is_empty
            && Compression::detect(&file)
                .map_err(Error::io("read", path))?
                .is_some_and(|found| found == Compression::None || is_record(path, calls));
        Ok((is_one || is_named).then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, options: &Options) -> Result<Box<dyn Container>> {
        self.open_files(path, FileSet { files: vec![path.to_owned()], missing: Vec::new() }, options)
    }

    fn open_files(&self, path: &Path, set: FileSet, options: &Options) -> Result<Box<dyn Container>> {
        let files = set.files.into_iter().map(|path| RecordFile::new(path, None));
        let records = RecordSet::undescribed(Inputs::files(files));
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options)))
    }
}

/// Whether what a compressed file holds starts like a record.
fn is_record(path: &Path, calls: &Calls) -> bool {
    crate::records::stream::bytes::starts_with_record(path, calls).unwrap_or(false)
}

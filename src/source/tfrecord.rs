//! TFRecord files: one, or several as one source.

use std::path::Path;
use std::sync::Arc;

use super::container::Container;
use super::driver::Driver;
use crate::error::Result;
use crate::options::Options;
use crate::records::container::RecordContainer;
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::compression::Compression;
use crate::records::stream::files::FileSet;
use crate::records::stream::inputs::RecordFile;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;

/// A word in the names of most record files. It does not decide the format.
const USUAL: &str = ".tfrecord";

/// Record files, recognised by their content.
pub(crate) struct TfRecord;

impl Driver for TfRecord {
    fn name(&self) -> &'static str {
        "tfrecord"
    }

    fn joins_files(&self) -> bool {
        true
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? {
            return Ok(None);
        }
        let is_named = probe.path().to_string_lossy().contains(USUAL);
        let file = probe.open()?;
        let is_one = file.len() > 0 && Compression::detect(&*file)?.is_some_and(|found| found == Compression::None || is_record(&file));
        Ok((is_one || is_named).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let records = RecordSet::undescribed(Inputs::files([RecordFile::new(place, None)]));
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options)))
    }

    fn open_files(&self, path: &Path, set: FileSet, options: &Options) -> Result<Box<dyn Container>> {
        let storage = options.storage(path);
        let files = set.files.iter().map(|path| RecordFile::new(&Probe::new(&storage, path), None));
        let records = RecordSet::undescribed(Inputs::files(files));
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options)))
    }
}

/// Whether a compressed file starts with a record.
fn is_record(file: &Arc<dyn Blob>) -> bool {
    crate::records::stream::compression::starts_with_record(file).unwrap_or(false)
}

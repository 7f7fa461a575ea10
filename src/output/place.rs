//! Where an array goes: a file of its own, or a region of a file that it shares with others.

use std::path::PathBuf;
use std::sync::Arc;

use super::method::LEAST_DIRECT;
use super::private_file::PrivateFile;
use super::sink::NpySink;
use super::staging::file::StagedFile;
use crate::error::Result;
use crate::options::method::Method;

/// Where an array goes.
#[derive(Debug)]
pub(crate) struct ArrayPlace {
    pub(crate) file: Arc<PrivateFile>,
    /// The final path, for messages.
    pub(crate) path: PathBuf,
    /// Its region of the file; `None` if the file is its own.
    pub(crate) region: Option<FileRegion>,
}

/// The region of an array in a file. The file has its full length already, unless the region is the last and grows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileRegion {
    pub(crate) start: u64,
    /// The method that was found to work for the file.
    pub(crate) method: Method,
    /// The one for arrays that gain nothing from direct writes.
    pub(crate) small_method: Method,
    /// For columns of records: the number of rows that were counted, and no more may be written; `None` where that is unknown.
    pub(crate) rows: Option<u64>,
}

impl ArrayPlace {
    /// A file of its own.
    pub(crate) fn whole(staged: &StagedFile) -> Self {
        Self { file: Arc::clone(staged.file()), path: staged.target().to_owned(), region: None }
    }

    /// A region of a file.
    pub(crate) fn region(staged: &StagedFile, region: FileRegion) -> Self {
        Self { region: Some(region), ..Self::whole(staged) }
    }

    /// The method to copy `nbytes` of elements to it; `None`: an unknown number of them.
    ///
    /// # Errors
    /// Those of [`Method::to_copy`].
    pub(crate) fn method(&self, wanted: Option<Method>, nbytes: Option<u64>) -> Result<Method> {
        match self.region {
            Some(region) if nbytes.is_some_and(|nbytes| nbytes < LEAST_DIRECT) => Ok(region.small_method),
            Some(region) => Ok(region.method),
            None => Method::to_copy(&self.file, wanted, nbytes),
        }
    }

    /// What writes to it, with `window_bytes` of output pages at most.
    pub(crate) fn sink(&self, method: Method, window_bytes: u64) -> NpySink {
        let sink = NpySink::new(Arc::clone(&self.file), &self.path, method, window_bytes);
        match self.region {
            Some(region) => sink.part(region.start),
            None => sink,
        }
    }
}

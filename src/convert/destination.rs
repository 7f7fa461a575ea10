//! Where the arrays of many tensors go: each into a file of its own in a directory, or all into one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::options::method::Method;
use crate::options::request::Run;
use crate::output::place::{ArrayPlace, FileRegion};
use crate::output::sink;
use crate::output::staging::dir::StagedDir;
use crate::output::staging::file::StagedFile;

/// Places for arrays that are numbered from 0.
pub(crate) trait Destination: Sync {
    /// Opens the place of an array, and makes its file if it has one of its own.
    fn open(&self, array: usize) -> Result<ArrayPlace>;
    /// Sorts arrays by their positions on the disk.
    fn position(&self, array: usize) -> u64;
    /// Gives up an array whose place was opened.
    fn give_up(&self, array: usize) -> Result<()>;
    /// The path of an array's file.
    fn path(&self, array: usize) -> PathBuf;
    /// Whether one [`sync`](Self::sync) covers everything written before.
    fn syncs_as_a_whole(&self) -> bool;
    fn sync(&self) -> Result<()>;
    /// Frees synced pages, where arrays share them and so must be written through the page cache.
    fn drop_pages(&self) {}
    /// The method for small arrays, which are written with one call each; `None` where each must be made like a large one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a method that is not available.
    fn small_method(&self, run: &Run) -> Result<Option<Method>>;
}

/// The files of a directory.
pub(crate) struct Directory<'a> {
    pub(crate) staged: &'a StagedDir,
    pub(crate) path: &'a Path,
    /// The name of each array's file.
    pub(crate) files: Vec<String>,
}

impl Directory<'_> {
    /// Makes the file of this name.
    pub(crate) fn create(&self, file: &str) -> Result<ArrayPlace> {
        Ok(ArrayPlace { file: Arc::new(self.staged.create_file(file)?), path: self.path.join(file), region: None })
    }
}

impl Destination for Directory<'_> {
    fn open(&self, array: usize) -> Result<ArrayPlace> {
        self.create(&self.files[array])
    }

    fn position(&self, array: usize) -> u64 {
        array as u64
    }

    fn give_up(&self, array: usize) -> Result<()> {
        self.staged.remove_file(&self.files[array])
    }

    fn path(&self, array: usize) -> PathBuf {
        self.path.join(&self.files[array])
    }

    fn syncs_as_a_whole(&self) -> bool {
        self.staged.syncs_as_a_whole()
    }

    fn sync(&self) -> Result<()> {
        self.staged.sync_files()
    }

    fn small_method(&self, run: &Run) -> Result<Option<Method>> {
        match run.method {
            Some(Method::Clone | Method::Direct | Method::Map) => Ok(None),
            wanted => Method::as_tried(self.staged.trial_file().as_deref(), wanted, Some(0)).map(Some),
        }
    }
}

/// Regions of one file.
pub(crate) struct Packed<'a> {
    pub(crate) staged: &'a StagedFile,
    /// The method that was asked for.
    wanted: Option<Method>,
    pub(crate) method: Method,
    /// The one for arrays that gain nothing from direct writes.
    small_method: Method,
    /// Where each array's region starts.
    pub(crate) starts: Vec<u64>,
}

impl<'a> Packed<'a> {
    /// Regions of a file that is empty yet, for `nbytes` of elements; `None`: an unknown number of them.
    ///
    /// # Errors
    /// Those of [`Method::to_copy`].
    pub(crate) fn new(staged: &'a StagedFile, wanted: Option<Method>, nbytes: Option<u64>) -> Result<Self> {
        let method = Method::to_copy(staged.file(), wanted, nbytes)?;
        let small_method = if wanted.is_some() { method } else { Method::to_copy(staged.file(), None, Some(0))? };
        Ok(Self { staged, wanted, method, small_method, starts: Vec::new() })
    }

    /// The region from `start` on, with room for so many rows.
    pub(crate) fn region(&self, start: u64, rows: Option<u64>) -> ArrayPlace {
        ArrayPlace::region(self.staged, FileRegion { start, method: self.method, small_method: self.small_method, rows })
    }
}

impl Destination for Packed<'_> {
    fn open(&self, array: usize) -> Result<ArrayPlace> {
        Ok(self.region(self.starts[array], None))
    }

    fn position(&self, array: usize) -> u64 {
        self.starts[array]
    }

    fn give_up(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn path(&self, _: usize) -> PathBuf {
        self.staged.target().to_owned()
    }

    fn syncs_as_a_whole(&self) -> bool {
        true
    }

    fn sync(&self) -> Result<()> {
        let (file, path) = (self.staged.file(), self.staged.target());
        file.sync_data().map_err(sink::write_error(file, path, "sync", 0))
    }

    fn drop_pages(&self) {
        self.staged.file().drop_pages(&(0..i64::MAX.unsigned_abs()));
    }

    fn small_method(&self, _: &Run) -> Result<Option<Method>> {
        match self.wanted {
            // Each array is made on its own, as it is in a directory.
            Some(Method::Direct) => Ok(None),
            // Mapping each small region on its own would only cost.
            Some(Method::Map) => Ok(Some(Method::Portable)),
            _ => Ok(Some(self.small_method)),
        }
    }
}

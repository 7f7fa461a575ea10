//! An unfinished directory, or files that go into an existing one together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use super::Directory;
use super::file::{TrialFile, keep_permissions, keep_permissions_of};
use super::hidden::{ANY, HiddenDir, sweep};
use super::moves::{Failed, Move, WayBack, check_way_back, exchanges, is_missing_call, keep_old, move_all, name_error};
use super::target::{DANGLING, check_replaceable, is_link};
use crate::error::{Error, Result};
use crate::options::request::Existing;
use crate::os::{self, SystemCalls, free_bytes, is_unsupported};
use crate::output::private_file::PrivateFile;
use crate::storage::paths::{Found, look_at, parent_of};

/// An unfinished directory. Dropping it removes it with its contents.
///
/// If nothing has the final name, the whole directory gets it in one step, if the file system can rename directories. An existing
/// directory keeps its place, its owner and its other contents: files are made in a hidden directory inside it, and when all are
/// complete they get their names one by one.
#[derive(Debug)]
pub(crate) struct StagedDir {
    target: PathBuf,
    /// Whether the target is an existing directory.
    is_there: bool,
    existing: Existing,
    /// The target itself if it exists, else its parent.
    outer: Directory,
    /// Files to move into an existing directory, in this order.
    files: Mutex<Vec<OsString>>,
    calls: SystemCalls,
    /// Whether names in it can be exchanged; tried if old files are to be replaced.
    exchanges: bool,
    /// Last, so that removing it may use the descriptors that the other fields close.
    hidden: HiddenDir,
}

impl StagedDir {
    /// Makes a hidden directory that is to become `target`. An existing `target` must be empty, unless `existing` allows replacing
    /// files in it; the files then go there.
    ///
    /// # Errors
    /// Returns [`Error::OutputExists`], [`Error::Io`].
    pub(crate) fn create(target: &Path, existing: Existing, calls: &SystemCalls) -> Result<Self> {
        // With a trailing slash, `target` would name something inside the directory.
        let target = target.components().as_path();
        let is_there = Self::check_target(target, existing)?;
        let place = if is_there { target.join(ANY) } else { target.to_owned() };
        // A run that was killed while moving files into the directory it had made left some beside it.
        sweep(target);
        if is_there {
            sweep(&place);
        }
        let outer = Directory::open(parent_of(&place))?;
        let hidden = HiddenDir::make(&place, 0o777, calls.cancel())?;
        let exchanges = is_there && existing == Existing::Replace && exchanges(hidden.path(), calls);
        Ok(Self { target: target.to_owned(), is_there, existing, outer, files: Mutex::default(), calls: calls.clone(), exchanges, hidden })
    }

    /// Refuses a target that cannot become the output or take its files; returns whether it is an existing directory.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Io`].
    pub(crate) fn check_target(target: &Path, existing: Existing) -> Result<bool> {
        // With a trailing slash, the name of a file names nothing.
        let named = target.components().as_path();
        match look_at(named)? {
            Found::Nothing if is_link(named) => Err(Error::OutputExists { path: target.to_owned(), hint: DANGLING }),
            Found::Nothing => Ok(false),
            Found::Directory => {
                if existing == Existing::Keep && fs::read_dir(target).map_err(Error::io("list", target))?.next().is_some() {
                    let hint = "it is not empty; `overwrite` adds the arrays to it, and replaces files of the same name";
                    return Err(Error::OutputExists { path: target.to_owned(), hint });
                }
                Ok(true)
            }
            Found::File | Found::Other => {
                let hint = "it is not a directory, and the output would be one: choose another name";
                Err(Error::OutputExists { path: target.to_owned(), hint })
            }
        }
    }

    /// Whether files go into an existing directory.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there
    }

    /// The directory while it is unfinished.
    pub(crate) fn hidden_path(&self) -> &Path {
        self.hidden.path()
    }

    /// Refuses a name in the existing directory that no file can get, or not together with others.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Io`].
    pub(crate) fn check_replaceable(&self, file: &str) -> Result<()> {
        let target = self.target.join(file);
        check_replaceable(&target)?;
        match self.existing {
            Existing::Keep => Ok(()),
            Existing::Replace => check_way_back(&target, self.hidden.path(), self.exchanges),
        }
    }

    /// A new file in the directory. The caller syncs it, or [`sync_files`](Self::sync_files) syncs all.
    pub(crate) fn create_file(&self, file: &str) -> Result<PrivateFile> {
        let created = PrivateFile::named_in((&self.hidden.file, self.hidden.path()), file, &self.calls);
        let created = created.map_err(|error| Error::io("create", &self.hidden.path().join(file))(error))?;
        if self.is_there && self.existing == Existing::Replace {
            keep_permissions(&created, &self.target.join(file))?;
        }
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file.into());
        Ok(created)
    }

    /// Counts a file that somebody else made in the hidden directory, complete and synced.
    pub(crate) fn adopt(&self, file: &str) -> Result<()> {
        let (made, target) = (self.hidden.path().join(file), self.target.join(file));
        if self.is_there && self.existing == Existing::Replace {
            keep_permissions_of(&fs::File::open(&made).map_err(Error::io("open", &made))?, &target)?;
        }
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file.into());
        Ok(())
    }

    /// Removes a file that was created.
    pub(crate) fn remove_file(&self, file: &str) -> Result<()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|created| created != file);
        let path = self.hidden.path().join(file);
        fs::remove_file(&path).map_err(Error::io("remove", &path))
    }

    /// An empty file for trials. It is made beside the hidden directory, so it cannot end up in the output.
    pub(crate) fn trial_file(&self) -> Option<TrialFile> {
        TrialFile::create_in(&self.outer.path, &self.calls)
    }

    /// Refuses a file of `len` bytes where no file may be that long.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn check_length(&self, file: &str, len: u64) -> Result<()> {
        self.trial_file().map_or(Ok(()), |trial| trial.check_length(&self.target.join(file), len))
    }

    /// Whether [`sync_files`](Self::sync_files) can replace a sync of each file.
    pub(crate) fn syncs_as_a_whole(&self) -> bool {
        self.calls.is_native() && os::syncs_as_a_whole(&self.hidden.file)
    }

    /// Syncs all files written so far, and other dirty data of their file system.
    pub(crate) fn sync_files(&self) -> Result<()> {
        // Any other error is final, as for a single file.
        let synced = match self.calls.once(|| self.calls.native(|| os::sync_file_system(&self.hidden.file))) {
            Err(error) if is_unsupported(&error) => {
                let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                files.iter().try_for_each(|file| os::sync_all(&fs::File::open(self.hidden.path().join(file))?))
            }
            result => result,
        };
        synced.map_err(Error::io("sync the files for", &self.target))
    }

    /// Free bytes on the file system of the files.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.hidden.file)
    }

    /// Gives everything its final name: the directory, or the files one by one in the order they were made.
    ///
    /// # Errors
    /// Returns [`Error::OutputExists`] when the name was taken meanwhile, [`Error::Io`], [`Error::NotUndone`].
    pub(crate) fn publish(self) -> Result<()> {
        Directory::sync_open(&self.hidden.file, &self.target, "sync the directory for")?;
        if self.is_there {
            return self.publish_files();
        }
        match self.rename_to_target() {
            Ok(()) => {
                self.hidden.name.keep();
                self.outer.sync()
            }
            // The file system can only rename files.
            Err(error) if is_missing_call(&error) => {
                let (made, outer) = (self.target.clone(), Directory::open(&self.outer.path)?);
                fs::create_dir(&made).map_err(|error| name_error(error, &made))?;
                let published = Directory::open(&made).and_then(|target| Self { outer: target, ..self }.publish_files());
                published.and_then(|()| outer.sync()).inspect_err(|_| {
                    // Files that could not be moved back stay in it.
                    let _ = fs::remove_dir(&made);
                })
            }
            Err(error) => Err(name_error(error, &self.target)),
        }
    }

    fn rename_to_target(&self) -> io::Result<()> {
        let from = self.hidden.path();
        match self.calls.native(|| os::rename_new(from, &self.target)) {
            // A directory never replaces a file, and another directory only if that is empty.
            Err(error) if is_unsupported(&error) => fs::rename(from, &self.target),
            result => result,
        }
    }

    /// Moves the files into the existing directory. If one cannot be moved, the earlier ones are moved back and the files they
    /// replaced are restored.
    fn publish_files(self) -> Result<()> {
        let Self { target, existing, outer, files, calls, exchanges, hidden, .. } = self;
        let files = files.into_inner().unwrap_or_else(PoisonError::into_inner);
        let moves: Vec<Move> = files.iter().map(|file| Move { from: hidden.path().join(file), to: target.join(file), existing }).collect();
        let way_back = if exchanges { WayBack::Exchange } else { keep_old(&moves)? };
        match move_all(&moves, way_back, &calls) {
            Ok(()) => outer.sync(),
            Err(Failed { error, kept }) => {
                if !kept.is_empty() {
                    hidden.keep();
                }
                Err(error)
            }
        }
    }
}

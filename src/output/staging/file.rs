//! An unfinished file.

use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Directory;
use super::hidden::{ANY, HiddenDir, HiddenName, check_dir, lock, sweep};
use super::moves::{Move, WayBack, check_way_back, exchanges, keep_old, move_all, name_error, rename_new};
use super::target::check_target;
use crate::error::{Error, Result};
use crate::options::request::Existing;
use crate::os::{self, SystemCalls, is_unsupported};
use crate::output::private_file::PrivateFile;
use crate::output::sink;
use crate::storage::paths::{nearest_directory, parent_of};

/// A file without its final name. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: Arc<PrivateFile>,
    target: PathBuf,
    existing: Existing,
    /// The directory, opened before any work, so that syncing it at the end needs nothing more.
    directory: Directory,
    /// Its name until then, if it needs one.
    hidden: Option<HiddenName>,
}

impl StagedFile {
    /// Makes an empty file that is to become `target`. If it replaces a file, it gets that file's permissions.
    ///
    /// # Errors
    /// Returns [`Error::OutputExists`], [`Error::Io`] also when `target` cannot be replaced.
    pub(crate) fn create(target: &Path, existing: Existing, calls: &SystemCalls) -> Result<Self> {
        let target = check_target(target, existing)?;
        sweep(&target);
        let existing = if fs::symlink_metadata(&target).is_err() { Existing::Keep } else { existing };
        match PrivateFile::unnamed(parent_of(&target), calls) {
            // In an append-only directory the name of a trial would stay, and every unnamed file can be named.
            Ok(file) if existing == Existing::Keep && check_dir(parent_of(&target)).is_err() => Self::of(file, target, existing, None),
            Ok(file) if can_be_named(&target, calls) => Self::of(file, target, existing, None),
            Err(error) if !is_unsupported(&error) => Err(Error::io_in("create a file in", parent_of(&target))(error)),
            _ => Self::create_named(target, existing, calls),
        }
    }

    /// Makes the files that become `targets` together by [`publish_all`]. Refuses now what could not be undone then.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn create_all(targets: &[PathBuf], existing: Existing, calls: &SystemCalls) -> Result<Vec<Self>> {
        let staged: Vec<Self> = targets.iter().map(|target| Self::create(target, existing, calls)).collect::<Result<_>>()?;
        if staged.len() > 1 {
            staged.iter().try_for_each(|one| check_dir(&one.directory.path))?;
            let replacing = staged.iter().filter(|one| one.existing == Existing::Replace);
            replacing.map(|one| &one.target).try_for_each(|target| check_together(target, calls))?;
        }
        Ok(staged)
    }

    /// Refuses a length that no file may have, by setting it: only for a file that is not filled.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn check_length(&self, len: u64) -> Result<()> {
        check_length(&self.file, &self.target, len)
    }

    /// Refuses outputs that need more than the free space of the file system.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn check_room(&self, needed: u64) -> Result<()> {
        match os::free_bytes(self.file.file()) {
            Some(free) if free < needed => {
                Err(Error::Limit { what: format!("disk space for {}", self.target.display()), asked: needed, allowed: Some(free) })
            }
            _ => Ok(()),
        }
    }

    /// For file systems without unnamed files, or where those cannot be named.
    pub(crate) fn create_named(target: PathBuf, existing: Existing, calls: &SystemCalls) -> Result<Self> {
        let (name, file) = HiddenName::make(&target, "create a file in", calls.cancel(), |path| PrivateFile::named(path, calls))?;
        Self::of(file, target, existing, Some(name))
    }

    fn of(file: PrivateFile, target: PathBuf, existing: Existing, hidden: Option<HiddenName>) -> Result<Self> {
        lock(file.file());
        if existing == Existing::Replace {
            keep_permissions(&file, &target)?;
        }
        let directory = Directory::open(parent_of(&target))?;
        Ok(Self { file: Arc::new(file), target, existing, directory, hidden })
    }

    pub(crate) fn file(&self) -> &Arc<PrivateFile> {
        &self.file
    }

    /// The final name, with symbolic links followed.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file, which must be synced, its final name, and syncs the directory.
    ///
    /// # Errors
    /// Returns [`Error::OutputExists`] when the name was taken meanwhile and must be kept, [`Error::Io`].
    pub(crate) fn publish(self) -> Result<()> {
        let Self { file, target, existing, directory, hidden } = self;
        let failed = |error| name_error(error, &target);
        let name = match (hidden, existing) {
            (Some(name), _) => name,
            (None, Existing::Keep) => {
                os::name_file(file.file(), &target).map_err(failed)?;
                return directory.sync();
            }
            (None, Existing::Replace) => name_hidden(&file, &target)?,
        };
        match existing {
            Existing::Keep => rename_new(name.path(), &target, file.calls()),
            Existing::Replace => fs::rename(name.path(), &target),
        }
        .map_err(failed)?;
        name.keep();
        directory.sync()
    }

    /// Moves the file into its own hidden directory, which also has room for the file it replaces.
    fn into_hidden_dir(self) -> Result<(HiddenDir, Move, Directory)> {
        let Self { file, target, existing, directory, hidden } = self;
        let dir = HiddenDir::make(&target, 0o777, file.calls().cancel())?;
        let from = dir.path().join(target.file_name().unwrap_or_default());
        let failed = |error| name_error(error, &target);
        match hidden {
            Some(name) => {
                fs::rename(name.path(), &from).map_err(failed)?;
                name.keep();
            }
            None => os::name_file(file.file(), &from).map_err(failed)?,
        }
        Ok((dir, Move { from, to: target, existing }, directory))
    }
}

/// Refuses `len` bytes for `file`, which is to be `target`, where no file may be that long.
fn check_length(file: &PrivateFile, target: &Path, len: u64) -> Result<()> {
    match file.set_len(len) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(sink::write_error(file, target, "resize", len)(error)),
        // Any other failure is reported where it matters.
        _ => Ok(()),
    }
}

/// An empty file for trials in a directory. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct TrialFile {
    file: PrivateFile,
    /// Its name, where the file system has no unnamed files.
    _hidden: Option<HiddenName>,
}

impl TrialFile {
    /// Makes one in `dir`; `None` where that fails.
    pub(crate) fn create_in(dir: &Path, calls: &SystemCalls) -> Option<Self> {
        if let Ok(file) = PrivateFile::unnamed(dir, calls) {
            return Some(Self { file, _hidden: None });
        }
        let made = HiddenName::make(&dir.join(ANY), "create a file in", calls.cancel(), |path| {
            let file = PrivateFile::named(path, calls)?;
            lock(file.file());
            Ok(file)
        });
        made.ok().map(|(name, file)| Self { file, _hidden: Some(name) })
    }

    /// Makes one where an output at `path` would be; `None` where that fails.
    pub(crate) fn near(path: &Path, calls: &SystemCalls) -> Option<Self> {
        nearest_directory(path).and_then(|dir| Self::create_in(dir, calls))
    }

    /// Refuses `len` bytes for `target`, in the same directory, where no file may be that long.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub(crate) fn check_length(&self, target: &Path, len: u64) -> Result<()> {
        check_length(&self.file, target, len)
    }
}

impl Deref for TrialFile {
    type Target = PrivateFile;

    fn deref(&self) -> &PrivateFile {
        &self.file
    }
}

/// Gives an unnamed file a hidden name.
fn name_hidden(file: &PrivateFile, target: &Path) -> Result<HiddenName> {
    HiddenName::make(target, "name the finished output in", file.calls().cancel(), |path| os::name_file(file.file(), path))
        .map(|(name, ())| name)
}

/// Whether an unnamed file can get a name beside `target`. Tries it with another file before the work.
fn can_be_named(target: &Path, calls: &SystemCalls) -> bool {
    PrivateFile::unnamed(parent_of(target), calls).is_ok_and(|file| {
        lock(file.file());
        name_hidden(&file, target).is_ok()
    })
}

/// Refuses to replace `target` together with other files if that could not be undone.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn check_together(target: &Path, calls: &SystemCalls) -> Result<()> {
    if fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    let dir = HiddenDir::make(target, 0o777, calls.cancel())?;
    check_way_back(target, dir.path(), exchanges(dir.path(), calls))
}

/// Gives synced files that belong together their final names, all or none, and syncs their directories.
///
/// Names are given one by one, so a kill between two of them leaves the first file new and the second as it was.
///
/// # Errors
/// As [`StagedFile::publish`]; [`Error::NotUndone`].
pub(crate) fn publish_all(mut files: Vec<StagedFile>) -> Result<()> {
    if files.len() <= 1 {
        return files.pop().map_or(Ok(()), StagedFile::publish);
    }
    let calls = files[0].file.calls().clone();
    let (mut dirs, mut moves, mut directories) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let (dir, one, directory) = file.into_hidden_dir()?;
        dirs.push(dir);
        moves.push(one);
        directories.push(directory);
    }
    let way_back = keep_old(&moves).or_else(|error| {
        let can_exchange = dirs.iter().all(|dir| exchanges(dir.path(), &calls));
        if can_exchange { Ok(WayBack::Exchange) } else { Err(error) }
    })?;
    if let Err(failed) = move_all(&moves, way_back, &calls) {
        let has_old = |dir: &HiddenDir| failed.kept.iter().any(|old| old.starts_with(dir.path()));
        dirs.into_iter().filter(has_old).for_each(HiddenDir::keep);
        return Err(failed.error);
    }
    directories.iter().try_for_each(Directory::sync)
}

/// Gives a new file the permissions of the file it replaces, so that private data stay private. Nothing else is copied, such as
/// setuid: the new file is ours, and must not run with our rights.
pub(crate) fn keep_permissions(file: &PrivateFile, target: &Path) -> Result<()> {
    keep_permissions_of(file.file(), target)
}

/// The same for a file that has a name.
pub(crate) fn keep_permissions_of(file: &fs::File, target: &Path) -> Result<()> {
    let mode = |file: &fs::Metadata| file.permissions().mode() & 0o777;
    // A link that is itself replaced has no permissions to keep.
    let Some(old) = fs::symlink_metadata(target).ok().filter(fs::Metadata::is_file) else { return Ok(()) };
    let new = file.metadata().map_err(Error::io("look at the file that replaces", target))?;
    if mode(&new) == mode(&old) {
        return Ok(());
    }
    let permissions = fs::Permissions::from_mode(mode(&old));
    file.set_permissions(permissions).map_err(Error::io("set the permissions of the file that replaces", target))
}

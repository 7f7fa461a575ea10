//! Files and directories in the making, and how they get their final names.
//!
//! A file is made without any name (`O_TMPFILE`) where the file system can do that: whatever happens to the process,
//! the kernel takes it away. Elsewhere it has a random name beside its final one. Directories always have such a name.
//! What a killed process left under one is swept away by the next run for the same output: whoever makes something
//! holds a lock on it, and a kill gives the lock up.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::error::{Error, Result};
use crate::os::{self, Calls, free_bytes, is_unsupported};
use crate::paths::{Found, look_at, parent_of};
use crate::sink::PrivateFile;

const SUFFIX: &[u8] = b".mmconvert-tmp";
/// A file name has at most 255 bytes; the rest is for the random part and the suffix.
const MOST_OF_NAME: usize = 200;
/// Something younger than this may belong to a process that has not locked it yet.
const SWEEP_AGE: Duration = Duration::from_secs(10);

/// What may stand at an output's final name before it gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing: what stands there is left as it is and is an error.
    Keep,
    /// A regular file, which is replaced in one step.
    Replace,
}

/// A file that has no final name yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: Arc<PrivateFile>,
    target: PathBuf,
    existing: Existing,
    /// The directory, opened before any work is done, so that nothing is missing to sync it at the end.
    directory: Directory,
    /// The name it has meanwhile, where it has to have one.
    temporary: Option<TemporaryName>,
}

/// A name that is removed when dropped, unless it was kept.
#[derive(Debug)]
struct TemporaryName(Option<PathBuf>);

/// The hidden names that there are now.
static HIDDEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
            Self::forget(path);
        }
    }
}

/// Removes what outputs that are not complete have in the file system, for a program that ends at once: everything that unwinding or
/// dropping would remove. What is still being worked on fails.
pub fn abandon() {
    let hidden = std::mem::take(&mut *HIDDEN.lock().unwrap_or_else(PoisonError::into_inner));
    for path in hidden {
        remove(&path);
    }
}

/// Removes a file or a directory with all in it. Nobody is left to tell if that fails; the next run for the same output
/// tries again.
fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

impl TemporaryName {
    fn new(path: PathBuf) -> Self {
        HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Self(Some(path))
    }

    fn forget(path: &Path) {
        HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != path);
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// The name belongs to somebody else now.
    fn keep(mut self) {
        if let Some(path) = self.0.take() {
            Self::forget(&path);
        }
    }
}

impl StagedFile {
    /// Makes an empty file that is to become `target`. If it replaces a file, it gets that file's permissions.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Io`] also when `target` is something else than a regular file.
    pub(crate) fn create(target: &Path, existing: Existing, calls: Calls) -> Result<Self> {
        let target = check_target(target, existing)?;
        sweep(&target);
        match PrivateFile::unnamed(parent_of(&target), calls) {
            Ok(file) => Self::of(file, target, existing, None),
            Err(error) if is_unsupported(&error) => Self::create_named(target, existing, calls),
            Err(error) => Err(Error::io("create a file in", parent_of(&target))(error)),
        }
    }

    /// The way for file systems that know no files without names.
    fn create_named(target: PathBuf, existing: Existing, calls: Calls) -> Result<Self> {
        let name = TemporaryName::new(temporary_name(&target));
        let file = PrivateFile::named(name.path(), calls).map_err(Error::io("create", name.path()))?;
        Self::of(file, target, existing, Some(name))
    }

    fn of(file: PrivateFile, target: PathBuf, existing: Existing, temporary: Option<TemporaryName>) -> Result<Self> {
        lock(file.file());
        if existing == Existing::Replace {
            keep_permissions(&file, &target)?;
        }
        let directory = Directory::open(parent_of(&target))?;
        Ok(Self { file: Arc::new(file), target, existing, directory, temporary })
    }

    pub(crate) fn file(&self) -> &Arc<PrivateFile> {
        &self.file
    }

    /// The final name, symbolic links followed.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file, which must be synced, its final name, and syncs the directory.
    ///
    /// # Errors
    /// [`Error::OutputExists`] when the name was taken meanwhile and is to be kept, [`Error::Io`].
    pub(crate) fn publish(self) -> Result<()> {
        self.place(None)?.directory.sync()
    }

    /// Gives the file its final name.
    fn place(self, old: Option<TemporaryName>) -> Result<NamedFile> {
        let Self { file, target, existing, directory, temporary } = self;
        let temporary = match (temporary, existing) {
            (Some(name), _) => name,
            (None, Existing::Keep) => {
                os::name_file(file.file(), &target).map_err(|error| name_error(error, &target))?;
                return Ok(NamedFile { file, target, directory, old });
            }
            (None, Existing::Replace) => {
                let name = temporary_name(&target);
                os::name_file(file.file(), &name).map_err(|error| name_error(error, &target))?;
                TemporaryName::new(name)
            }
        };
        rename(temporary.path(), &target, existing, file.calls()).map_err(|error| name_error(error, &target))?;
        temporary.keep();
        Ok(NamedFile { file, target, directory, old })
    }

    /// Another name for what the file will replace, if it will replace something.
    fn second_name_of_old(&self) -> Option<TemporaryName> {
        let name = temporary_name(&self.target);
        (self.existing == Existing::Replace && fs::hard_link(&self.target, &name).is_ok()).then(|| TemporaryName::new(name))
    }
}

/// A file that has its final name.
#[derive(Debug)]
struct NamedFile {
    file: Arc<PrivateFile>,
    target: PathBuf,
    directory: Directory,
    /// What it replaced.
    old: Option<TemporaryName>,
}

impl NamedFile {
    /// Puts back what was there before, unless somebody else has put another file in its place meanwhile.
    fn undo(self) {
        let identity = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if identity(fs::symlink_metadata(&self.target)) != identity(self.file.file().metadata()) {
            return;
        }
        match self.old {
            Some(old) if fs::rename(old.path(), &self.target).is_ok() => old.keep(),
            Some(_) => {}
            None => drop(fs::remove_file(&self.target)),
        }
    }
}

/// Gives files that belong together their final names, all or none, and syncs their directories.
///
/// One name follows the other, so that a kill between two of them leaves the first one new and the second one as it was.
///
/// # Errors
/// As [`StagedFile::publish`].
pub(crate) fn publish_all(files: Vec<StagedFile>) -> Result<()> {
    let mut placed: Vec<NamedFile> = Vec::with_capacity(files.len());
    let is_alone = files.len() == 1;
    for file in files {
        let old = if is_alone { None } else { file.second_name_of_old() };
        match file.place(old) {
            Ok(done) => placed.push(done),
            Err(error) => {
                placed.into_iter().rev().for_each(NamedFile::undo);
                return Err(error);
            }
        }
    }
    placed.iter().try_for_each(|placed| placed.directory.sync())
}

/// Gives a new file the permissions of the one that it is to replace, so that private data stay private. Nothing more:
/// it is ours, and must not run with our rights.
fn keep_permissions(file: &PrivateFile, target: &Path) -> Result<()> {
    let Ok(old) = fs::metadata(target) else { return Ok(()) };
    let permissions = fs::Permissions::from_mode(old.permissions().mode() & 0o777);
    file.file().set_permissions(permissions).map_err(Error::io("set the permissions of the file that replaces", target))
}

/// A directory that is open, to be synced later.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Makes the names in it outlive a power cut.
    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("sync the directory of the output, which is in its place,", &self.path))
    }
}

fn name_error(error: io::Error, target: &Path) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            Error::OutputExists { path: target.to_owned(), hint: "it was not there at the start" }
        }
        _ => Error::io("name the finished output", target)(error),
    }
}

fn rename(from: &Path, to: &Path, existing: Existing, calls: Calls) -> io::Result<()> {
    if existing == Existing::Replace {
        return fs::rename(from, to);
    }
    match calls.native(|| os::rename_new(from, to)) {
        // A hard link does not replace anything either.
        Err(error) if is_unsupported(&error) && from.is_file() => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        // Nor does a directory replace a file, or another directory unless that is empty.
        Err(error) if is_unsupported(&error) => fs::rename(from, to),
        result => result,
    }
}

/// Resolves links and refuses what must not or cannot be replaced.
pub(crate) fn check_target(target: &Path, existing: Existing) -> Result<PathBuf> {
    if target.file_name().is_none() {
        return Err(Error::bad_request(format!("{} is no name for a file", target.display())));
    }
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target.to_owned()),
        Err(error) => Err(Error::io("look at", target)(error)),
        Ok(_) if existing == Existing::Keep => {
            let hint = match look_at(target)? {
                Found::Nothing => DANGLING,
                Found::File => "-f replaces it",
                Found::Directory => "it is a directory",
                Found::Other => "it is no regular file; standard output is -",
            };
            Err(Error::OutputExists { path: target.to_owned(), hint })
        }
        Ok(metadata) if metadata.is_symlink() => {
            if look_at(target)? == Found::Nothing {
                return Err(Error::OutputExists { path: target.to_owned(), hint: DANGLING });
            }
            let resolved = fs::canonicalize(target).map_err(Error::io("follow the link", target))?;
            check_replaceable(&resolved)?;
            Ok(resolved)
        }
        Ok(_) => {
            check_replaceable(target)?;
            Ok(target.to_owned())
        }
    }
}

/// What to do about a name that is taken by a link to nothing.
const DANGLING: &str = "it is a symbolic link to something that is not there: remove it, or make what it leads to";

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Refuses to replace anything but a regular file.
fn check_replaceable(target: &Path) -> Result<()> {
    match look_at(target)? {
        Found::Nothing | Found::File => Ok(()),
        Found::Directory | Found::Other => Err(Error::Io {
            action: "replace",
            path: target.to_owned(),
            source: io::Error::other("it is no regular file; standard output is -"),
        }),
    }
}

/// A directory in the making. Dropped, it and all in it is gone.
///
/// Where there is nothing under the final name, the whole directory gets it in one step. A directory that exists keeps its
/// place, its owner and what else is in it: files are made in a hidden directory inside it, and when all are complete they
/// get their names one by one.
#[derive(Debug)]
pub(crate) struct StagedDir {
    target: PathBuf,
    /// Whether the target is a directory already.
    is_there: bool,
    existing: Existing,
    /// The target itself if it is there, else the directory it is to lie in.
    outer: Directory,
    /// The hidden directory, locked.
    inner: Directory,
    /// What is to be moved into an existing directory, in this order.
    files: Mutex<Vec<OsString>>,
    calls: Calls,
    /// Last, so that the removal may use the descriptors that the others give back.
    name: TemporaryName,
}

/// The name that hidden directories inside an existing one are made of.
const INSIDE: &str = "mmconvert";

impl StagedDir {
    /// Makes a directory that is to become `target`. If `target` is a directory, it must be empty or `existing` allow that
    /// files in it are replaced.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Io`].
    pub(crate) fn create(target: &Path, existing: Existing, calls: Calls) -> Result<Self> {
        let is_there = Self::check_target(target, existing)?;
        let place = if is_there { target.join(INSIDE) } else { target.to_owned() };
        sweep(&place);
        let outer = Directory::open(parent_of(&place))?;
        let name = temporary_name(&place);
        fs::create_dir(&name).map_err(Error::io("create a directory in", &outer.path))?;
        let name = TemporaryName::new(name);
        let inner = Directory::open(name.path())?;
        lock(&inner.file);
        Ok(Self { target: target.to_owned(), is_there, existing, outer, inner, files: Mutex::default(), calls, name })
    }

    /// Refuses a target that cannot become, or take, what is written; tells whether it is a directory already.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::Io`].
    pub(crate) fn check_target(target: &Path, existing: Existing) -> Result<bool> {
        // A slash at the end of the name of a file makes it the name of nothing.
        let named = target.components().as_path();
        match look_at(named)? {
            Found::Nothing if is_link(named) => Err(Error::OutputExists { path: target.to_owned(), hint: DANGLING }),
            Found::Nothing => Ok(false),
            Found::Directory => {
                if existing == Existing::Keep && fs::read_dir(target).map_err(Error::io("list", target))?.next().is_some() {
                    let hint = "it is not empty; -f puts the arrays beside what is in it, and replaces files of the same name";
                    return Err(Error::OutputExists { path: target.to_owned(), hint });
                }
                Ok(true)
            }
            Found::File | Found::Other => {
                let hint = "it is no directory, which is what would be written: give it another name";
                Err(Error::OutputExists { path: target.to_owned(), hint })
            }
        }
    }

    /// Whether files are to be put into a directory that exists already.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Refuses names under which something else than a file lies in the existing directory.
    pub(crate) fn check_replaceable(&self, file: &str) -> Result<()> {
        check_replaceable(&self.target.join(file))
    }

    /// A new file in the directory; to be synced by whoever fills it, or with all others by [`sync_files`](Self::sync_files).
    pub(crate) fn create_file(&self, file: &str) -> Result<PrivateFile> {
        let created = PrivateFile::named_in(&self.inner.file, file, self.calls);
        let created = created.map_err(|error| Error::io("create", &self.inner.path.join(file))(error))?;
        if self.is_there && self.existing == Existing::Replace {
            keep_permissions(&created, &self.target.join(file))?;
        }
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file.into());
        Ok(created)
    }

    /// Gives up a file that was created.
    pub(crate) fn remove_file(&self, file: &str) -> Result<()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).retain(|created| created != file);
        let path = self.inner.path.join(file);
        fs::remove_file(&path).map_err(Error::io("remove", &path))
    }

    /// A file beside the others that never has a name, to try on it what can be done here.
    pub(crate) fn unnamed_file(&self) -> io::Result<PrivateFile> {
        PrivateFile::unnamed(&self.inner.path, self.calls)
    }

    /// Whether [`sync_files`](Self::sync_files) can do the work of a sync of each file.
    pub(crate) fn syncs_as_a_whole(&self) -> bool {
        self.calls == Calls::Native && os::syncs_as_a_whole(&self.inner.file)
    }

    /// Syncs all files written so far, and what else is dirty in their file system.
    pub(crate) fn sync_files(&self) -> Result<()> {
        let synced = match self.calls.native(|| os::sync_file_system(&self.inner.file)) {
            Err(error) if is_unsupported(&error) => {
                let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                files.iter().try_for_each(|file| File::open(self.inner.path.join(file))?.sync_all())
            }
            result => result,
        };
        synced.map_err(Error::io("sync the files for", &self.target))
    }

    /// Bytes that can still be written where the files are.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.inner.file)
    }

    /// Gives everything its final name: the directory, or the files one after the other in the order they were made.
    ///
    /// # Errors
    /// [`Error::OutputExists`] when the name was taken meanwhile, [`Error::Io`].
    pub(crate) fn publish(self) -> Result<()> {
        self.inner.file.sync_all().map_err(Error::io("sync the directory for", &self.target))?;
        if self.is_there {
            self.place_files()?;
            return self.outer.sync();
        }
        rename(self.name.path(), &self.target, Existing::Keep, self.calls).map_err(|error| name_error(error, &self.target))?;
        self.name.keep();
        self.outer.sync()
    }

    /// Moves the files into the existing directory. If one cannot be moved, those before it are taken out again and what
    /// they replaced comes back.
    fn place_files(&self) -> Result<()> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut placed = Vec::with_capacity(files.len());
        for file in files.iter() {
            let (from, to) = (self.inner.path.join(file), self.target.join(file));
            match self.place(&from, &to) {
                Ok(how) => placed.push((from, to, how)),
                Err(error) => {
                    for (from, to, how) in placed.into_iter().rev() {
                        // What cannot be undone stays: a complete new file in place of a complete old one.
                        let _ = match how {
                            Placed::New => fs::rename(&to, &from),
                            Placed::Exchanged => os::exchange(&to, &from),
                            Placed::Replaced => Ok(()),
                        };
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn place(&self, from: &Path, to: &Path) -> Result<Placed> {
        let failed = |error| name_error(error, to);
        if self.existing == Existing::Keep || look_at(to)? == Found::Nothing {
            return rename(from, to, Existing::Keep, self.calls).map(|()| Placed::New).map_err(failed);
        }
        check_replaceable(to)?;
        match self.calls.native(|| os::exchange(from, to)) {
            // Two names cannot be exchanged here.
            Err(error) if is_unsupported(&error) => fs::rename(from, to).map(|()| Placed::Replaced).map_err(failed),
            result => result.map(|()| Placed::Exchanged).map_err(failed),
        }
    }
}

/// How a file got its place in an existing directory.
#[derive(Debug, Clone, Copy)]
enum Placed {
    /// There was nothing.
    New,
    /// What was there is in the hidden directory now.
    Exchanged,
    /// What was there is gone.
    Replaced,
}

/// The part that all temporary names for `target` start with.
fn temporary_prefix(target: &Path) -> Vec<u8> {
    let name = target.file_name().unwrap_or_else(|| OsStr::new("output")).as_bytes();
    [b".", &name[..name.len().min(MOST_OF_NAME)], b"."].concat()
}

fn temporary_name(target: &Path) -> PathBuf {
    let random = std::hash::RandomState::new().hash_one(std::process::id());
    let name = [&temporary_prefix(target), format!("{random:016x}").as_bytes(), SUFFIX].concat();
    parent_of(target).join(OsString::from_vec(name))
}

/// A folder for what is needed for a while only. It is removed with this; one that a kill left is removed when the next is made
/// beside it.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    _lock: File,
    name: TemporaryName,
}

impl ScratchDir {
    /// Makes one in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create_in(dir: &Path) -> Result<Self> {
        let place = dir.join(INSIDE);
        sweep(&place);
        let name = temporary_name(&place);
        fs::DirBuilder::new().mode(0o700).create(&name).map_err(Error::io("create a directory in", dir))?;
        let name = TemporaryName::new(name);
        let file = File::open(name.path()).map_err(Error::io("open", name.path()))?;
        lock(&file);
        Ok(Self { _lock: file, name })
    }

    pub(crate) fn path(&self) -> &Path {
        self.name.path()
    }
}

/// Holds on to `file` so that no sweep takes it. File systems without locks are not swept either.
fn lock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
}

/// Removes what killed processes left behind for `target`.
fn sweep(target: &Path) {
    let prefix = temporary_prefix(target);
    for entry in fs::read_dir(parent_of(target)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.as_bytes().strip_prefix(prefix.as_slice()).and_then(|rest| rest.strip_suffix(SUFFIX));
        if random.is_none_or(|random| random.len() != 16 || !random.iter().all(u8::is_ascii_hexdigit)) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > SWEEP_AGE);
        if old
            && (metadata.is_file() || metadata.is_dir())
            && let Ok(file) = File::open(entry.path())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The ways of making a file and giving it its name: without one at first, with one, and as on other systems.
    const WAYS: usize = 3;

    fn staged(way: usize, target: &Path, existing: Existing) -> StagedFile {
        match way {
            0 => StagedFile::create(target, existing, Calls::Native).unwrap(),
            1 => StagedFile::create_named(check_target(target, existing).unwrap(), existing, Calls::Native).unwrap(),
            _ => StagedFile::create(target, existing, Calls::Standard).unwrap(),
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for way in 0..WAYS {
            let staged = staged(way, &dir.path().join("out.npy"), Existing::Keep);
            staged.file().file().write_all(b"half").unwrap();
            drop(staged);
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn a_published_file_has_its_name_and_no_other() {
        for way in 0..WAYS {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            for (content, existing) in [("one", Existing::Keep), ("two", Existing::Replace)] {
                let staged = staged(way, &target, existing);
                staged.file().file().write_all(content.as_bytes()).unwrap();
                staged.publish().unwrap();
                assert_eq!(fs::read_to_string(&target).unwrap(), content);
                assert_eq!(names(dir.path()), ["out.npy"]);
            }
        }
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        for way in 0..WAYS {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            let staged = staged(way, &target, Existing::Keep);
            fs::write(&target, "theirs").unwrap();
            assert!(matches!(staged.publish(), Err(Error::OutputExists { .. })));
            assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
            assert_eq!(names(dir.path()), ["out.npy"]);
        }
    }

    #[test]
    fn only_regular_files_are_replaced_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.npy");
        let alias = dir.path().join("alias.npy");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("real.npy", &alias).unwrap();
        assert!(matches!(StagedFile::create(&alias, Existing::Keep, Calls::Native), Err(Error::OutputExists { .. })));
        let staged = StagedFile::create(&alias, Existing::Replace, Calls::Native).unwrap();
        staged.file().file().write_all(b"new").unwrap();
        staged.publish().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600, "a private file stays private");
        assert!(fs::symlink_metadata(&alias).unwrap().is_symlink());
        for bad in [dir.path(), Path::new("/dev/null")] {
            assert!(matches!(StagedFile::create(bad, Existing::Replace, Calls::Native), Err(Error::Io { .. })));
        }
        assert!(matches!(StagedFile::create(&dir.path().join("no/out.npy"), Existing::Keep, Calls::Native), Err(Error::Io { .. })));
    }

    #[test]
    fn a_new_directory_appears_whole_or_not_at_all() {
        for calls in [Calls::Native, Calls::Standard] {
            check_a_new_directory(calls);
        }
    }

    fn check_a_new_directory(calls: Calls) {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let stage = |existing| {
            let staged = StagedDir::create(&target, existing, calls)?;
            staged.create_file("a.npy")?.file().write_all(b"a").unwrap();
            Ok::<_, Error>(staged)
        };
        drop(stage(Existing::Keep).unwrap());
        assert!(names(dir.path()).is_empty());
        let (first, second) = (stage(Existing::Keep).unwrap(), stage(Existing::Keep).unwrap());
        assert!(!target.exists());
        first.publish().unwrap();
        assert!(matches!(second.publish(), Err(Error::OutputExists { .. })));
        assert_eq!((names(dir.path()), names(&target)), (vec!["out".to_owned()], vec!["a.npy".to_owned()]));
        assert!(matches!(stage(Existing::Keep), Err(Error::OutputExists { .. })), "it is not empty");
    }

    #[test]
    fn an_existing_directory_keeps_its_place_and_what_else_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir(&target).unwrap();
        let inode = fs::metadata(&target).unwrap().ino();
        for (existing, content, calls) in [
            (Existing::Keep, "one", Calls::Native),
            (Existing::Replace, "two", Calls::Native),
            (Existing::Replace, "three", Calls::Standard),
        ] {
            let staged = StagedDir::create(&target, existing, calls).unwrap();
            staged.create_file("a.npy").unwrap().file().write_all(content.as_bytes()).unwrap();
            staged.publish().unwrap();
            assert_eq!(fs::read_to_string(target.join("a.npy")).unwrap(), content);
            fs::write(target.join("mine.txt"), "mine").unwrap();
            let dropped = StagedDir::create(&target, Existing::Replace, Calls::Native).unwrap();
            dropped.create_file("a.npy").unwrap().file().write_all(b"never").unwrap();
            drop(dropped);
            assert_eq!(names(&target), ["a.npy", "mine.txt"]);
            assert_eq!(fs::read_to_string(target.join("a.npy")).unwrap(), content);
        }
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode);
        fs::create_dir(target.join("d.npy")).unwrap();
        assert!(StagedDir::create(&target, Existing::Replace, Calls::Native).unwrap().check_replaceable("d.npy").is_err());
    }

    #[test]
    fn a_name_that_cannot_be_given_takes_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.npy"), "old").unwrap();
        fs::set_permissions(dir.path().join("a.npy"), fs::Permissions::from_mode(0o4600)).unwrap();
        let staged = StagedDir::create(dir.path(), Existing::Replace, Calls::Native).unwrap();
        for name in ["a.npy", "b.npy", "c.npy", "d.npy"] {
            staged.create_file(name).unwrap().file().write_all(b"new").unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&staged.inner.path.join("a.npy")), 0o600);
        fs::create_dir(dir.path().join("c.npy")).unwrap();
        assert!(staged.publish().is_err());
        assert_eq!(names(dir.path()), ["a.npy", "c.npy"]);
        assert_eq!(fs::read_to_string(dir.path().join("a.npy")).unwrap(), "old");
    }

    #[test]
    fn leftovers_of_dead_processes_are_swept_and_those_of_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.npy");
        let live = StagedFile::create_named(target.clone(), Existing::Keep, Calls::Native).unwrap();
        let live_name = live.temporary.as_ref().unwrap().path().to_owned();
        let dead = temporary_name(&target);
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("x"), "x").unwrap();
        let young = temporary_name(&target);
        fs::write(&young, "x").unwrap();
        let foreign = dir.path().join(".out.npy.mine.mmconvert-tmp");
        fs::write(&foreign, "x").unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(60);
        for path in [&live_name, &dead, &foreign] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        sweep(&target);
        assert!(live_name.exists() && young.exists() && foreign.exists());
        assert!(!dead.exists());
    }
}

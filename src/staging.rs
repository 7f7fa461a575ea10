//! Files and directories in the making, and how they get their final names.
//!
//! A file is made without any name (`O_TMPFILE`) where the file system can do that: whatever happens to the process,
//! the kernel takes it away. Elsewhere it has a random name beside its final one. Directories always have such a name.
//! What a killed process left under one is swept away by the next run for the same output: whoever makes something
//! holds a lock on it, and a kill gives the lock up.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::mmap::PrivateFile;

const SUFFIX: &[u8] = b".mmconvert-tmp";
/// A file name has at most 255 bytes; the rest is for the random part and the suffix.
const MOST_OF_NAME: usize = 200;
/// Something younger than this may belong to a process that has not locked it yet.
const SWEEP_AGE: Duration = Duration::from_secs(10);

/// The directory a path lies in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

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
    /// The name it has meanwhile, where it has to have one.
    temporary: Option<TemporaryName>,
}

/// A name that is removed when dropped.
#[derive(Debug)]
struct TemporaryName(PathBuf);

impl Drop for TemporaryName {
    fn drop(&mut self) {
        // Nobody is left to tell; the next run for the same output tries again.
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.0),
            _ => fs::remove_file(&self.0),
        };
    }
}

impl TemporaryName {
    /// The name belongs to somebody else now.
    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl StagedFile {
    /// Makes an empty file that is to become `target`.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::BadRequest`] when `target` is something else than a regular file,
    /// [`Error::Io`].
    pub(crate) fn create(target: &Path, existing: Existing) -> Result<Self> {
        let target = check_target(target, existing)?;
        let dir = parent_of(&target);
        sweep(&target);
        match rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o666)) {
            Ok(fd) => Ok(Self { file: Arc::new(PrivateFile::new(fd.into())), target, existing, temporary: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(target, existing),
            Err(errno) => Err(Error::os("create a file in", dir)(errno)),
        }
    }

    /// The way for file systems that know no files without names.
    fn create_named(target: PathBuf, existing: Existing) -> Result<Self> {
        let name = temporary_name(&target);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&name).map_err(Error::io("create", &name))?;
        lock(&file);
        Ok(Self { file: Arc::new(PrivateFile::new(file)), target, existing, temporary: Some(TemporaryName(name)) })
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
        let Self { file, target, existing, temporary } = self;
        let temporary = match (temporary, existing) {
            (Some(name), _) => name,
            (None, Existing::Keep) => {
                link(&file, &target).map_err(|errno| name_error(errno, &target))?;
                return sync_directory(parent_of(&target));
            }
            (None, Existing::Replace) => {
                let name = TemporaryName(temporary_name(&target));
                link(&file, &name.0).map_err(|errno| name_error(errno, &name.0))?;
                name
            }
        };
        rename(&temporary.0, &target, existing).map_err(|errno| name_error(errno, &target))?;
        temporary.keep();
        sync_directory(parent_of(&target))
    }
}

fn name_error(errno: Errno, target: &Path) -> Error {
    match errno {
        Errno::EXIST | Errno::NOTEMPTY => Error::OutputExists { path: target.to_owned() },
        errno => Error::os("name the finished output", target)(errno),
    }
}

/// Gives a name to a file that has none; fails where the name is taken.
fn link(file: &PrivateFile, name: &Path) -> Result<(), Errno> {
    let proc = format!("/proc/self/fd/{}", file.file().as_raw_fd());
    match rustix::fs::linkat(CWD, proc.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW) {
        // No /proc: the direct way needs a privilege before Linux 6.10, but may be there.
        Err(Errno::NOENT | Errno::NOTDIR) => rustix::fs::linkat(file.file().as_fd(), "", CWD, name, AtFlags::EMPTY_PATH),
        result => result,
    }
}

fn rename(from: &Path, to: &Path, existing: Existing) -> Result<(), Errno> {
    if existing == Existing::Replace {
        return rustix::fs::rename(from, to);
    }
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without the flag: a hard link does not replace either, and directories never replace files.
        Err(Errno::INVAL | Errno::NOSYS) if from.is_file() => {
            rustix::fs::link(from, to)?;
            rustix::fs::unlink(from)
        }
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to),
        result => result,
    }
}

/// Resolves links and refuses what must not or cannot be replaced.
fn check_target(target: &Path, existing: Existing) -> Result<PathBuf> {
    if target.file_name().is_none() {
        return Err(Error::bad_request(format!("{} is no name for a file", target.display())));
    }
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = parent_of(target);
            if !dir.is_dir() {
                return Err(Error::Io { action: "create a file in", path: dir.to_owned(), source: io::ErrorKind::NotFound.into() });
            }
            Ok(target.to_owned())
        }
        Err(error) => Err(Error::io("look at", target)(error)),
        Ok(_) if existing == Existing::Keep => Err(Error::OutputExists { path: target.to_owned() }),
        Ok(metadata) if metadata.is_file() => Ok(target.to_owned()),
        Ok(metadata) if metadata.is_symlink() => {
            let resolved = fs::canonicalize(target).map_err(Error::io("follow the link", target))?;
            if resolved.is_file() { Ok(resolved) } else { Err(not_a_file(target)) }
        }
        Ok(_) => Err(not_a_file(target)),
    }
}

fn not_a_file(target: &Path) -> Error {
    Error::bad_request(format!("{} exists and is not a regular file; it is not replaced", target.display()))
}

/// A directory that has no final name yet. Dropped, it and all in it is gone.
#[derive(Debug)]
pub(crate) struct StagedDir {
    name: TemporaryName,
    target: PathBuf,
    _lock: File,
}

impl StagedDir {
    /// Makes a directory that is to become `target`, where there is nothing or an empty directory.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        sweep(target);
        let name = TemporaryName(temporary_name(target));
        fs::create_dir(&name.0).map_err(Error::io("create", &name.0))?;
        let opened = File::open(&name.0).map_err(Error::io("open", &name.0))?;
        lock(&opened);
        Ok(Self { name, target: target.to_owned(), _lock: opened })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.name.0
    }

    /// Syncs the directory and gives it its final name.
    pub(crate) fn publish(self) -> Result<()> {
        let Self { name, target, _lock } = self;
        sync_directory(&name.0)?;
        // Over an empty directory a plain rename is as safe: it fails on one that is not empty.
        let existing = if target.is_dir() { Existing::Replace } else { Existing::Keep };
        rename(&name.0, &target, existing).map_err(|errno| name_error(errno, &target))?;
        name.keep();
        sync_directory(parent_of(&target))
    }
}

/// Syncs a directory, so that the names in it outlive a power cut.
pub(crate) fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync the directory", dir))
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

/// Holds on to `file` so that no sweep takes it; on file systems without locks it is left to its age.
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
        let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > SWEEP_AGE);
        if let Ok(file) = File::open(entry.path())
            && old
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            drop(TemporaryName(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Both ways of making a file.
    fn both(target: &Path, existing: Existing) -> Vec<StagedFile> {
        vec![
            StagedFile::create(target, existing).unwrap(),
            StagedFile::create_named(check_target(target, existing).unwrap(), existing).unwrap(),
        ]
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for way in 0..2 {
            let staged = both(&dir.path().join("out.npy"), Existing::Keep).swap_remove(way);
            staged.file().file().write_all(b"half").unwrap();
            drop(staged);
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn a_published_file_has_its_name_and_no_other() {
        for way in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            for (content, existing) in [("one", Existing::Keep), ("two", Existing::Replace)] {
                let staged = both(&target, existing).swap_remove(way);
                staged.file().file().write_all(content.as_bytes()).unwrap();
                staged.publish().unwrap();
                assert_eq!(fs::read_to_string(&target).unwrap(), content);
                assert_eq!(names(dir.path()), ["out.npy"]);
            }
        }
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        for way in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            let staged = both(&target, Existing::Keep).swap_remove(way);
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
        std::os::unix::fs::symlink("real.npy", &alias).unwrap();
        assert!(matches!(StagedFile::create(&alias, Existing::Keep), Err(Error::OutputExists { .. })));
        let staged = StagedFile::create(&alias, Existing::Replace).unwrap();
        staged.file().file().write_all(b"new").unwrap();
        staged.publish().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&alias).unwrap().is_symlink());
        for bad in [dir.path(), Path::new("/dev/null")] {
            assert!(matches!(StagedFile::create(bad, Existing::Replace), Err(Error::BadRequest { .. })));
        }
        assert!(matches!(StagedFile::create(&dir.path().join("no/out.npy"), Existing::Keep), Err(Error::Io { .. })));
    }

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let staged = StagedDir::create(&target).unwrap();
        fs::write(staged.path().join("a.npy"), "a").unwrap();
        assert!(!target.exists());
        staged.publish().unwrap();
        assert_eq!(names(&target), ["a.npy"]);
        assert_eq!(names(dir.path()), ["out"]);
        let staged = StagedDir::create(&target).unwrap();
        assert!(matches!(staged.publish(), Err(Error::OutputExists { .. })), "it is not empty");
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(names(&target), ["a.npy"]);
    }

    #[test]
    fn leftovers_of_dead_processes_are_swept_and_those_of_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.npy");
        let live = StagedFile::create_named(target.clone(), Existing::Keep).unwrap();
        let live_name = live.temporary.as_ref().unwrap().0.clone();
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

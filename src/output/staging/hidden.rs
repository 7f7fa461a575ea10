//! Hidden names of unfinished outputs, and the removal of those that killed processes left behind.
//!
//! A hidden name is `.NAME.N.mmconvert-tmp`, where `NAME` is the output's name and `N` the lowest free number. So a run can find
//! what an earlier one left behind without listing the directory, which may have hundreds of thousands of entries. The process
//! that makes something holds a lock (`flock`) on it; a kill releases the lock.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::notices::{self, Notice};
use crate::error::{Error, Result};
use crate::os;
use crate::storage::paths::parent_of;
use crate::types::cancel::CancelToken;

const SUFFIX: &str = ".mmconvert-tmp";
/// A file name has at most 255 bytes; the rest is for the number and the suffix.
const MOST_OF_NAME: usize = 200;
/// Younger entries may belong to a process that has not locked them yet.
const SWEEP_AGE: Duration = Duration::from_secs(10);
/// Limit for runs that work on outputs of one name at a time.
const MOST_NUMBERS: usize = 1024;
/// A sweep checks this many numbers at once, and goes on while any of them is taken.
const WINDOW: usize = 8;
/// The name of things that belong to no single output, such as a working directory.
pub(crate) const ANY: &str = "mmconvert";
/// A file that marks a hidden directory as holding the only copy of somebody's data.
const KEEP: &str = "keep";

/// The hidden names of this process, each with the token of the caller that had it made.
static HIDDEN: Mutex<Vec<(PathBuf, CancelToken)>> = Mutex::new(Vec::new());

/// A name that is removed when dropped, with everything under it, unless it was kept.
#[derive(Debug)]
pub(crate) struct HiddenName(Option<PathBuf>);

impl Drop for HiddenName {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove(path);
            forget(path);
        }
    }
}

fn forget(path: &Path) {
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| other != path);
}

impl CancelToken {
    /// Cancels, and at once removes the files of unfinished outputs that hold this token: everything that dropping them would
    /// remove. For a program that exits without waiting for running work, which then fails. Outputs with other tokens go on.
    pub fn abandon(&self) {
        self.cancel();
        let mut hidden = HIDDEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, others) = std::mem::take(&mut *hidden).into_iter().partition(|(_, token)| token.is_same(self));
        *hidden = others;
        drop(hidden);
        let own: Vec<(PathBuf, CancelToken)> = own;
        for (path, _) in own {
            remove(&path);
        }
    }
}

impl HiddenName {
    /// Makes something under a hidden name for `target` with `create`, which must fail if the name is taken.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn make<T>(
        target: &Path,
        action: &'static str,
        cancel: &CancelToken,
        create: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<(Self, T)> {
        check_dir(parent_of(target))?;
        for number in 0..MOST_NUMBERS {
            let path = hidden(target, number);
            let mut made = create(&path);
            if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) && sweep_one(&path) == Found::Swept {
                made = create(&path);
            }
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io_in(action, parent_of(target))(error)),
                Ok(made) => {
                    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), cancel.clone()));
                    return Ok((Self(Some(path)), made));
                }
            }
        }
        let detail = format!("{MOST_NUMBERS} names like {} are taken: remove those that no run uses", hidden(target, 0).display());
        Err(Error::io(action, parent_of(target))(io::Error::new(ErrorKind::AlreadyExists, detail)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Gives up ownership: the name is no longer removed.
    pub(crate) fn keep(mut self) {
        if let Some(path) = self.0.take() {
            forget(&path);
        }
    }
}

/// A locked hidden directory. Dropping it removes it with its contents.
#[derive(Debug)]
pub(crate) struct HiddenDir {
    pub(crate) file: File,
    /// Last, so that removing it may use the descriptor that `file` closes.
    pub(crate) name: HiddenName,
}

impl HiddenDir {
    /// Makes one for `target`, with permissions `mode` less the process's umask.
    pub(crate) fn make(target: &Path, mode: u32, cancel: &CancelToken) -> Result<Self> {
        let create = |path: &Path| DirBuilder::new().mode(mode).create(path);
        let (name, ()) = HiddenName::make(target, "create a directory in", cancel, create)?;
        let file = File::open(name.path()).map_err(Error::io("open", name.path()))?;
        lock(&file);
        Ok(Self { file, name })
    }

    pub(crate) fn path(&self) -> &Path {
        self.name.path()
    }

    /// Leaves the directory in place, and marks it for later runs, because it holds the only copy of something.
    pub(crate) fn keep(self) {
        // If even that fails, the error being returned says where the files are.
        let _ = File::create(self.path().join(KEEP));
        self.name.keep();
    }
}

/// A temporary directory, removed when dropped. One that a kill left is removed by the next run with an output or such a directory
/// beside it.
#[derive(Debug)]
pub(crate) struct ScratchDir(HiddenDir);

impl ScratchDir {
    /// Makes one in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create_in(dir: &Path, cancel: &CancelToken) -> Result<Self> {
        let place = dir.join(ANY);
        sweep(&place);
        HiddenDir::make(&place, 0o700, cancel).map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A hidden name for `target`.
fn hidden(target: &Path, number: usize) -> PathBuf {
    let name = target.file_name().unwrap_or_else(|| OsStr::new("output")).as_bytes();
    let name = [b".", &name[..name.len().min(MOST_OF_NAME)], format!(".{number}{SUFFIX}").as_bytes()].concat();
    parent_of(target).join(OsString::from_vec(name))
}

/// Refuses a directory where hidden names could not be removed: an append-only one.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn check_dir(dir: &Path) -> Result<()> {
    if !os::attributes(dir).is_fixed {
        return Ok(());
    }
    let why = "names in it cannot be changed (chattr +a or +i), and the output first gets a hidden one: write to another directory";
    Err(Error::io("create a file in", dir)(io::Error::new(ErrorKind::PermissionDenied, why)))
}

/// Locks `file` so that no sweep removes it. On file systems without locks, sweeps remove nothing either.
pub(crate) fn lock(file: &File) {
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
}

/// Removes what killed processes left behind for `target`, and beside it for no single output.
pub(crate) fn sweep(target: &Path) {
    for place in [target, &parent_of(target).join(ANY)] {
        for first in (0..MOST_NUMBERS).step_by(WINDOW) {
            let looked_at: Vec<Found> = (first..first + WINDOW).map(|number| sweep_one(&hidden(place, number))).collect();
            if looked_at.iter().all(|&found| found == Found::Nothing) {
                break;
            }
        }
    }
}

/// The result of checking a hidden name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Removed: its process was dead.
    Swept,
    Other,
}

/// Removes the entry at a hidden name if its process is dead.
fn sweep_one(path: &Path) -> Found {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Found::Nothing,
        Err(_) => return Found::Other,
        Ok(metadata) => metadata,
    };
    let is_old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > SWEEP_AGE);
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_old || !is_ours || !(metadata.is_file() || metadata.is_dir()) || path.join(KEEP).exists() {
        return Found::Other;
    }
    let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) else {
        return Found::Other;
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Found::Other;
    }
    // Another sweep may have removed it before we had the lock, and a run may have taken the name again.
    let is_same = |now: Metadata| file.metadata().is_ok_and(|locked| (now.dev(), now.ino()) == (locked.dev(), locked.ino()));
    if !fs::symlink_metadata(path).is_ok_and(is_same) {
        return Found::Other;
    }
    if remove(path) { Found::Swept } else { Found::Other }
}

/// Removes a file, or a directory with its contents. Anything that cannot be removed becomes a notice, and the rest goes; a later
/// run for the same output tries again.
pub(crate) fn remove(path: &Path) -> bool {
    let result = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).or_else(|first| remove_each(path).map_err(|_| first)),
        _ => fs::remove_file(path),
    };
    if let Err(error) = &result {
        notices::tell(Notice::LeftBehind { path: path.to_owned(), detail: error.to_string() });
    }
    result.is_ok()
}

/// Removes as much of a directory as possible, going on after failures.
fn remove_each(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        let _ = if entry.file_type()?.is_dir() { remove_each(&path) } else { fs::remove_file(&path) };
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aged(path: &Path) {
        let long_ago = std::time::SystemTime::now() - Duration::from_mins(1);
        File::open(path).unwrap().set_modified(long_ago).unwrap();
    }

    #[test]
    fn leftovers_of_dead_processes_are_swept_and_those_of_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.npy");
        let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let (live, file) = HiddenName::make(&target, "create", &CancelToken::new(), create).unwrap();
        lock(&file);
        let (dead, young, foreign) = (hidden(&target, 1), hidden(&target, 2), dir.path().join(".out.npy.mine.mmconvert-tmp"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("x"), "x").unwrap();
        fs::write(&young, "x").unwrap();
        fs::write(&foreign, "x").unwrap();
        let scratch = hidden(&dir.path().join(ANY), 0);
        fs::create_dir(&scratch).unwrap();
        [live.path(), &dead, &foreign, &scratch].into_iter().for_each(aged);
        sweep(&target);
        assert!(live.path().exists() && young.exists() && foreign.exists());
        assert!(!dead.exists(), "of a run for the same output");
        assert!(!scratch.exists(), "of any run beside it");
    }

    #[test]
    fn a_sweep_finds_every_leftover_of_runs_that_were_killed_together() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.npy");
        for number in 0..3 * WINDOW {
            fs::write(hidden(&target, number), "x").unwrap();
            aged(&hidden(&target, number));
        }
        sweep(&target);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_the_only_copy_of_something_is_never_swept() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.npy");
        let kept = HiddenDir::make(&target, 0o777, &CancelToken::new()).unwrap();
        let path = kept.path().to_owned();
        fs::write(path.join("old.npy"), "old").unwrap();
        kept.keep();
        aged(&path);
        sweep(&target);
        assert_eq!(fs::read_to_string(path.join("old.npy")).unwrap(), "old");
        let next = HiddenDir::make(&target, 0o777, &CancelToken::new()).unwrap();
        assert_ne!(next.path(), path);
    }
}

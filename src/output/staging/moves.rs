//! Gives finished files their names: one in one step, or several that belong together, all or none.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::hidden::remove;
use crate::error::{Error, Result};
use crate::options::request::Existing;
use crate::os::{self, SystemCalls, is_unsupported};
use crate::storage::paths::parent_of;

/// Directory, in a hidden one, for the second names of old files.
const OLD: &str = "old";

/// A complete file in a hidden directory, and its final name.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    pub(crate) existing: Existing,
}

impl Move {
    fn replaces(&self) -> bool {
        self.existing == Existing::Replace && fs::symlink_metadata(&self.to).is_ok()
    }

    /// The second name of the old file, in the directory of the new one.
    fn backup(&self) -> PathBuf {
        let dir = self.from.parent().unwrap_or(Path::new(""));
        dir.join(OLD).join(self.from.file_name().unwrap_or_default())
    }

    fn keep_old(&self) -> Result<()> {
        let backup = self.backup();
        let linked = fs::create_dir(backup.parent().unwrap_or(Path::new("")))
            .or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
            .and_then(|()| fs::hard_link(&self.to, &backup));
        linked.map_err(|error| no_way_back(&self.to, &error))
    }

    fn name_error(&self, error: io::Error) -> Error {
        name_error(error, &self.to)
    }
}

/// The error for a file that cannot be replaced together with others.
fn no_way_back(target: &Path, error: &io::Error) -> Error {
    let why = format!(
        "several files would be replaced together, and the old one cannot be kept until all are there ({error}): remove it first, or write \
         to another place"
    );
    Error::Io { action: "replace", path: target.to_owned(), source: io::Error::new(error.kind(), why) }
}

/// How a file got its name.
enum How {
    /// The name was free.
    New,
    /// The old file has the hidden name now.
    Exchanged,
    /// The old file has only its second name.
    Replaced,
}

/// A completed move, and the identity of the moved file.
struct Made<'a> {
    which: &'a Move,
    how: How,
    identity: Option<Identity>,
}

/// Why several files did not get their names.
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// Old files that now exist only in a hidden directory.
    pub(crate) kept: Vec<PathBuf>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, kept: Vec::new() }
    }
}

/// How old files are kept until all new ones have their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WayBack {
    /// They take the hidden names of the new ones, in one step: see [`exchanges`].
    Exchange,
    /// They already have second names from [`keep_old`].
    SecondNames,
}

/// Gives old files second names, before anything is renamed.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn keep_old(moves: &[Move]) -> Result<WayBack> {
    moves.iter().filter(|one| one.replaces()).try_for_each(Move::keep_old).map(|()| WayBack::SecondNames)
}

/// Makes all moves in order, or none.
///
/// A kill between two of them leaves earlier files new and later ones as they were.
///
/// # Errors
/// Returns [`Error::OutputExists`] when a name was taken meanwhile and must be kept; [`Error::Io`]; [`Error::NotUndone`].
pub(crate) fn move_all(moves: &[Move], way_back: WayBack, calls: &SystemCalls) -> Result<(), Failed> {
    let mut made: Vec<Made<'_>> = Vec::with_capacity(moves.len());
    for one in moves {
        let identity = identity(&one.from);
        let result = if fs::symlink_metadata(&one.to).is_ok_and(|old| old.is_dir()) {
            Err(ErrorKind::IsADirectory.into())
        } else if !one.replaces() {
            rename_new(&one.from, &one.to, calls).map(|()| How::New)
        } else if way_back == WayBack::Exchange {
            os::exchange(&one.from, &one.to).map(|()| How::Exchanged)
        } else if fs::symlink_metadata(one.backup()).is_ok() {
            fs::rename(&one.from, &one.to).map(|()| How::Replaced)
        } else {
            // It did not exist when the others got second names.
            Err(ErrorKind::AlreadyExists.into())
        };
        match result {
            Ok(how) => made.push(Made { which: one, how, identity }),
            Err(error) => return Err(undo(made, moves, one.name_error(error))),
        }
    }
    Ok(())
}

/// Undoes moves, the last one first.
fn undo(made: Vec<Made<'_>>, moves: &[Move], error: Error) -> Failed {
    undo_as(made, moves, error, identity)
}

fn undo_as(made: Vec<Made<'_>>, moves: &[Move], error: Error, identity: impl Fn(&Path) -> Option<Identity>) -> Failed {
    let (mut new, mut kept, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for Made { which, how, identity: moved } in made.into_iter().rev() {
        let Move { from, to, .. } = which;
        let old = match how {
            How::New => None,
            How::Exchanged => Some(from.clone()),
            How::Replaced => Some(which.backup()),
        };
        // Another process has put its own file in this place meanwhile: it must stay.
        if moved.is_some_and(|moved| identity(to).is_some_and(|found| found != moved)) {
            kept.extend(old);
            theirs.push(to);
            continue;
        }
        let undone = match how {
            How::New => match fs::rename(to, from).or_else(|_| fs::remove_file(to)) {
                // Another process has removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                undone => undone,
            },
            How::Exchanged => os::exchange(to, from).or_else(|_| fs::rename(from, to)),
            How::Replaced => fs::rename(which.backup(), to).or_else(|_| os::exchange(&which.backup(), to)),
        };
        if undone.is_err() {
            new.push(to.clone());
            kept.extend(old);
        }
    }
    if new.is_empty() && kept.is_empty() {
        return error.into();
    }
    let is_old = |to: &&PathBuf| !new.contains(to) && !theirs.contains(to) && fs::symlink_metadata(to).is_ok();
    let old = moves.iter().map(|one| &one.to).filter(is_old).cloned().collect();
    new.reverse();
    kept.reverse();
    Failed { error: Error::NotUndone { failure: Box::new(error), new, old, kept: kept.clone() }, kept }
}

/// Identifies a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// Device and inode numbers, and the time of modification: a new file may reuse the number of a deleted one.
    Numbers { dev: u64, ino: u64, modified: (i64, i64) },
    /// The length, where moving a file may change its inode number.
    Length(u64),
}

/// The identity of the file at a path, if the system tells it.
fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(if os::keeps_inodes_in(parent_of(path)) {
        Identity::Numbers { dev: metadata.dev(), ino: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    } else {
        Identity::Length(metadata.len())
    })
}

/// Whether two names in the hidden directory `dir` can be exchanged. Tries it.
pub(crate) fn exchanges(dir: &Path, calls: &SystemCalls) -> bool {
    let [one, other] = ["one", "other"].map(|name| dir.join(name));
    let make = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path).map(drop);
    let tried = make(&one).and_then(|()| make(&other)).and_then(|()| calls.native(|| os::exchange(&one, &other)));
    // Leftovers are removed with the directory.
    let _ = (fs::remove_file(one), fs::remove_file(other));
    tried.is_ok()
}

/// Refuses to replace `target` together with other files if that could not be undone: names cannot be exchanged, and the old file
/// cannot get a second name in the hidden directory `dir`.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn check_way_back(target: &Path, dir: &Path, exchanges: bool) -> Result<()> {
    if exchanges || fs::symlink_metadata(target).is_err() {
        return Ok(());
    }
    let trial = dir.join("trial");
    let linked = match fs::hard_link(target, &trial) {
        // An earlier trial that could not be removed proves that links work.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(|error| no_way_back(target, &error)),
    };
    let _ = fs::remove_file(trial);
    linked
}

pub(crate) fn name_error(error: io::Error, target: &Path) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => {
            Error::OutputExists { path: target.to_owned(), hint: "it was not there at the start" }
        }
        _ => Error::io("name the finished output", target)(error),
    }
}

/// Renames a file if the new name is free, by the best of three ways that the file system has.
pub(crate) fn rename_new(from: &Path, to: &Path, calls: &SystemCalls) -> io::Result<()> {
    match calls.native(|| os::rename_new(from, to)) {
        Err(error) if is_unsupported(&error) => {}
        result => return result,
    }
    // A hard link never replaces anything either.
    match fs::hard_link(from, to) {
        // If the hidden name cannot be removed, that is a notice; the output is correct.
        Ok(()) => {
            remove(from);
            return Ok(());
        }
        Err(error) if !is_missing_call(&error) => return Err(error),
        Err(_) => {}
    }
    // The process that creates the name owns it and may rename over it. A crash between the two calls leaves an empty file.
    OpenOptions::new().write(true).create_new(true).open(to)?;
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// Whether a file system lacks the call altogether. The error codes for that differ: see `link(2)`, EPERM.
pub(crate) fn is_missing_call(error: &io::Error) -> bool {
    const MISSING: [Errno; 7] = [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL, Errno::XDEV, Errno::MLINK, Errno::ISDIR];
    is_unsupported(error) || Errno::from_io_error(error).is_some_and(|errno| MISSING.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::cancel::CancelToken;
    use std::collections::BTreeMap;

    fn contents(dir: &Path) -> BTreeMap<String, String> {
        let named = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
        entries.map(named).collect()
    }

    /// Files `a` to `d`; `a` and `c` exist already.
    fn prepare(dir: &Path) -> Vec<Move> {
        let hidden = dir.join(".hidden");
        fs::create_dir(&hidden).unwrap();
        for name in ["a", "c"] {
            fs::write(dir.join(name), "old").unwrap();
        }
        let make = |name: &str| {
            fs::write(hidden.join(name), "new").unwrap();
            Move { from: hidden.join(name), to: dir.join(name), existing: Existing::Replace }
        };
        ["a", "b", "c", "d"].map(make).into()
    }

    fn expect(dir: &Path, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect();
        assert_eq!(contents(dir), expected);
    }

    /// Ways to replace: exchanging names, second names, and second names without Linux-only calls.
    fn ways() -> [(bool, SystemCalls); 3] {
        [(true, SystemCalls::default()), (false, SystemCalls::default()), (false, SystemCalls::standard(&CancelToken::new()))]
    }

    #[test]
    fn several_files_get_their_names_together() {
        for (exchanges, calls) in ways() {
            let dir = tempfile::tempdir().unwrap();
            let moves = prepare(dir.path());
            let way_back = if exchanges { WayBack::Exchange } else { keep_old(&moves).unwrap() };
            assert!(move_all(&moves, way_back, &calls).is_ok());
            expect(dir.path(), &[("a", "new"), ("b", "new"), ("c", "new"), ("d", "new")]);
        }
    }

    #[test]
    fn a_name_that_cannot_be_given_takes_the_others_back() {
        for (exchanges, calls) in ways() {
            let dir = tempfile::tempdir().unwrap();
            let mut moves = prepare(dir.path());
            moves[3].to = dir.path().join("missing/d");
            let way_back = if exchanges { WayBack::Exchange } else { keep_old(&moves).unwrap() };
            let Err(Failed { error: Error::Io { .. }, .. }) = move_all(&moves, way_back, &calls) else {
                panic!("there is no such directory")
            };
            expect(dir.path(), &[("a", "old"), ("c", "old")]);
        }
    }

    #[test]
    fn an_old_file_that_cannot_be_kept_is_an_error_before_anything_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let moves = prepare(dir.path());
        // A file cannot contain second names.
        fs::write(dir.path().join(".hidden").join(OLD), "").unwrap();
        assert!(matches!(keep_old(&moves), Err(Error::Io { action: "replace", .. })), "there is no way back");
        expect(dir.path(), &[("a", "old"), ("c", "old")]);
    }

    #[test]
    fn somebody_elses_file_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let moves = prepare(dir.path());
        let made = Made { which: &moves[1], how: How::New, identity: identity(&moves[1].from) };
        fs::write(dir.path().join("b"), "theirs").unwrap();
        let failed = undo(vec![made], &moves, Error::Cancelled);
        assert!(matches!(failed.error, Error::Cancelled));
        expect(dir.path(), &[("a", "old"), ("b", "theirs"), ("c", "old")]);
        // If it replaced an old file, that one is kept and reported.
        let made = Made { which: &moves[2], how: How::Exchanged, identity: identity(&moves[2].from) };
        os::exchange(&moves[2].from, &moves[2].to).unwrap();
        fs::remove_file(&moves[2].to).unwrap();
        fs::write(&moves[2].to, "theirs, too").unwrap();
        let failed = undo(vec![made], &moves, Error::Cancelled);
        let Error::NotUndone { new, old, kept, .. } = failed.error else { panic!("the old file has no name of its own") };
        assert_eq!((new, old), (vec![], vec![dir.path().join("a"), dir.path().join("b")]));
        assert_eq!((&kept, fs::read_to_string(&kept[0]).unwrap().as_str()), (&failed.kept, "old"));
        expect(dir.path(), &[("a", "old"), ("b", "theirs"), ("c", "theirs, too")]);
    }

    #[test]
    fn a_file_that_gets_another_number_when_it_is_moved_is_ours_all_the_same() {
        for how in [How::New, How::Exchanged, How::Replaced] {
            let dir = tempfile::tempdir().unwrap();
            let moves = prepare(dir.path());
            let which = if matches!(how, How::New) { &moves[1] } else { &moves[0] };
            match how {
                How::New => fs::rename(&which.from, &which.to).unwrap(),
                How::Exchanged => os::exchange(&which.from, &which.to).unwrap(),
                How::Replaced => {
                    which.keep_old().unwrap();
                    fs::rename(&which.from, &which.to).unwrap();
                }
            }
            // The identity that [`identity`] returns where inode numbers are unstable.
            let made = Made { which, how, identity: Some(Identity::Length(3)) };
            let found = Identity::Length(fs::metadata(&which.to).unwrap().len());
            assert_eq!(made.identity, Some(found));
            assert!(matches!(undo_as(vec![made], &moves, Error::Cancelled, |_| Some(found)).error, Error::Cancelled));
            expect(dir.path(), &[("a", "old"), ("c", "old")]);
        }
    }

    #[test]
    fn what_cannot_be_undone_is_listed_and_kept() {
        for (exchanges, calls) in ways() {
            let dir = tempfile::tempdir().unwrap();
            let moves = prepare(dir.path());
            let mut made = Vec::new();
            let first = identity(&moves[0].from);
            if exchanges {
                os::exchange(&moves[0].from, &moves[0].to).unwrap();
                made.push(Made { which: &moves[0], how: How::Exchanged, identity: first });
                // The old file has been moved from its place, so it cannot be restored.
                fs::rename(&moves[0].from, dir.path().join(".hidden/elsewhere")).unwrap();
            } else {
                moves[0].keep_old().unwrap();
                fs::rename(&moves[0].from, &moves[0].to).unwrap();
                made.push(Made { which: &moves[0], how: How::Replaced, identity: first });
                fs::rename(moves[0].backup(), dir.path().join(".hidden/elsewhere")).unwrap();
            }
            let Failed { error: Error::NotUndone { new, old, .. }, kept } = undo(made, &moves, Error::Cancelled) else {
                panic!("{calls:?}")
            };
            assert_eq!((new, old, kept.len()), (vec![dir.path().join("a")], vec![dir.path().join("c")], 1));
        }
    }
}

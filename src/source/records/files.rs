//! Sets of files: one, a glob, `base@N`, and shards in the order of their numbers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::paths::{Found, look_at};

/// Numbers of shards have at least so many digits when we make a name.
const DIGITS: usize = 5;
/// No set has more shards than this; a name may claim any number.
const MOST_SHARDS: u64 = 1_000_000;

/// The files that a pattern stands for, in their order, and the shards that are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileSet {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) missing: Vec<PathBuf>,
}

/// The place of a shard in its set: `-00003-of-00010` in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shard {
    total: u64,
    index: u64,
}

impl FileSet {
    /// Expands `path`: a file as it is, `base@N`, or a glob. `None` if it is none of these.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a pattern that matches nothing, [`Error::Malformed`] where shards of several sets are mixed.
    pub(crate) fn expand(path: &Path) -> Result<Option<Self>> {
        if look_at(path)? == Found::File {
            return Ok(Some(Self { files: vec![path.to_owned()], missing: Vec::new() }));
        }
        if let Some(total) = sharded_total(path) {
            return of_total(path, total).map(Some);
        }
        let text = path.to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            return Ok(None);
        }
        let wrong = |error: glob::PatternError| Error::bad_request(format!("{} is no pattern: {error}", path.display()));
        let found = glob::glob(&text).map_err(wrong)?;
        let mut files = Vec::new();
        for file in found {
            let file = file.map_err(|error| Error::io("look at", error.path())(io::Error::other(error.to_string())))?;
            if file.is_file() {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(Error::NotFound { what: "source", detail: format!("no file matches {}", path.display()) });
        }
        // Who writes out which numbers are wanted does not want the others.
        let is_complete = !text.contains('[');
        Self::in_order(files, is_complete).map(Some)
    }

    /// Sorts files by the numbers of shards, if they have them, else by name. Shards that should be there are reported where `is_complete`.
    fn in_order(mut files: Vec<PathBuf>, is_complete: bool) -> Result<Self> {
        files.sort();
        let shards: Option<Vec<(Shard, &PathBuf)>> = files.iter().map(|file| Some((shard_of(file)?, file))).collect();
        let Some(shards) = shards else { return Ok(Self { files, missing: Vec::new() }) };
        // Sets of several names are several sets, one after the other.
        let mut sets: BTreeMap<Vec<u8>, BTreeMap<Shard, &PathBuf>> = BTreeMap::new();
        for (shard, file) in shards {
            sets.entry(without_numbers(file)).or_default().insert(shard, file);
        }
        let (mut sorted, mut missing) = (Vec::new(), Vec::new());
        for set in sets.values() {
            let Some((first, name)) = set.first_key_value() else { continue };
            if let Some((other, path)) = set.iter().find(|(shard, _)| shard.total != first.total) {
                let detail = format!("it is one of {} shards, {} is one of {}", other.total, name.display(), first.total);
                return Err(Error::malformed(path, "set of shards", detail));
            }
            if let Some((beyond, path)) = set.iter().find(|(shard, _)| shard.index >= shard.total) {
                return Err(Error::malformed(path, "set of shards", format!("it has number {} of {}", beyond.index, beyond.total)));
            }
            if is_complete && first.total <= MOST_SHARDS {
                let absent = (0..first.total).filter(|&index| !set.contains_key(&Shard { index, ..*first }));
                missing.extend(absent.map(|index| renumbered(name, index)));
            }
            sorted.extend(set.values().map(|&path| path.clone()));
        }
        Ok(Self { files: sorted, missing })
    }

    /// Refuses a set with holes.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the names.
    pub(crate) fn check_complete(&self) -> Result<()> {
        const SHOWN: usize = 5;
        if self.missing.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.missing.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        let more = if self.missing.len() > SHOWN { ", …" } else { "" };
        let all = self.missing.len() + self.files.len();
        let detail = format!("{} of {all} are missing: {}{more}; --salvage goes without them", self.missing.len(), names.join(", "));
        Err(Error::NotFound { what: "shard", detail })
    }
}

/// `N` of `base@N`, or of `base@N.ext`.
fn sharded_total(path: &Path) -> Option<u64> {
    let name = path.file_name()?.as_bytes();
    let at = name.iter().rposition(|&byte| byte == b'@')?;
    let digits = name[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = &name[at + 1 + digits..];
    let total = std::str::from_utf8(&name[at + 1..at + 1 + digits]).ok()?.parse().ok()?;
    (rest.is_empty() || rest[0] == b'.').then_some(total)
}

/// The set that `base@N` names.
fn of_total(path: &Path, total: u64) -> Result<FileSet> {
    if total == 0 || total > MOST_SHARDS {
        return Err(Error::bad_request(format!("{}: a set has 1 to {MOST_SHARDS} shards", path.display())));
    }
    let name = path.file_name().unwrap_or_default().as_bytes();
    let at = name.iter().rposition(|&byte| byte == b'@').unwrap_or(0);
    let digits = name[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let named = |index: u64| {
        let numbers = format!("-{index:0DIGITS$}-of-{total:0DIGITS$}");
        path.with_file_name(OsStr::from_bytes(&[&name[..at], numbers.as_bytes(), &name[at + 1 + digits..]].concat()))
    };
    let mut set = FileSet { files: Vec::new(), missing: Vec::new() };
    for path in (0..total).map(named) {
        let list = if look_at(&path)? == Found::File { &mut set.files } else { &mut set.missing };
        list.push(path);
    }
    if set.files.is_empty() {
        let detail = format!("there is none of {} and so on", set.missing[0].display());
        return Err(Error::NotFound { what: "source", detail });
    }
    Ok(set)
}

/// Where `-I-of-N` stands in a name, and its numbers.
fn numbers(name: &[u8]) -> Option<(std::ops::Range<usize>, Shard)> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
    let of = name.windows(4).rposition(|window| window == b"-of-")?;
    let behind = name[of + 4..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let before = name[..of].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = (of - before).checked_sub(1).filter(|&start| name[start] == b'-')?;
    let shard = Shard { index: number(&name[of - before..of])?, total: number(&name[of + 4..of + 4 + behind])? };
    Some((start..of + 4 + behind, shard))
}

fn shard_of(path: &Path) -> Option<Shard> {
    numbers(path.file_name()?.as_bytes()).map(|(_, shard)| shard)
}

/// The path without what differs between shards.
fn without_numbers(path: &Path) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let range = numbers(name).map_or(0..0, |(range, _)| range);
    let rest = [&name[..range.start], b"/", &name[range.end..]].concat();
    path.with_file_name(OsStr::from_bytes(&rest)).into_os_string().as_bytes().to_vec()
}

/// The path of another shard of the same set.
fn renumbered(path: &Path, index: u64) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let Some((range, _)) = numbers(name) else { return path.to_owned() };
    let text = String::from_utf8_lossy(&name[range.clone()]).into_owned();
    let (own, total) = text[1..].split_once("-of-").unwrap_or_default();
    let numbers = format!("-{index:0width$}-of-{total}", width = own.len());
    path.with_file_name(OsStr::from_bytes(&[&name[..range.start], numbers.as_bytes(), &name[range.end..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_files(names: &[&str], pattern: &str) -> (tempfile::TempDir, Result<Option<FileSet>>) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let set = FileSet::expand(&dir.path().join(pattern));
        (dir, set)
    }

    fn names(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn shards_come_in_the_order_of_their_numbers() {
        let shards = ["t-9-of-11", "t-10-of-11", "t-0-of-11"];
        let (_dir, set) = with_files(&shards, "t-*");
        let set = set.unwrap().unwrap();
        assert_eq!(names(&set.files), ["t-0-of-11", "t-9-of-11", "t-10-of-11"]);
        assert_eq!(set.missing.len(), 8);
        assert!(set.check_complete().unwrap_err().to_string().contains("t-1-of-11"));
    }

    #[test]
    fn a_total_names_all_shards() {
        for (pattern, second) in
            [("t@2", "t-00001-of-00002"), ("t@2.tfrecord", "t-00001-of-00002.tfrecord"), ("t.tfrecord@2", "t.tfrecord-00001-of-00002")]
        {
            let (_dir, set) = with_files(&[second], pattern);
            let set = set.unwrap().unwrap();
            assert_eq!((names(&set.files), set.missing.len()), (vec![second], 1), "{pattern}");
        }
        let (_dir, set) = with_files(&[], "t@2");
        assert!(set.is_err());
    }

    #[test]
    fn holes_and_mixed_sets_are_reported() {
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00002-of-00003"], "t-?????-of-00003");
        assert_eq!(names(&set.unwrap().unwrap().missing), ["t-00001-of-00003"]);
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00002-of-00003"], "t-0000[0-1]-of-00003");
        assert_eq!(set.unwrap().unwrap().missing.len(), 0);
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00000-of-00002"], "t-*");
        assert!(set.is_err());
        let (_dir, set) = with_files(&["a-0-of-1.x", "b-0-of-1.x", "plain"], "*");
        assert_eq!(names(&set.unwrap().unwrap().files), ["a-0-of-1.x", "b-0-of-1.x", "plain"]);
        let (_dir, set) = with_files(&["a-0-of-1.x", "b-0-of-2.x", "b-1-of-2.x"], "*.x");
        assert_eq!(names(&set.unwrap().unwrap().files), ["a-0-of-1.x", "b-0-of-2.x", "b-1-of-2.x"]);
        let (_dir, set) = with_files(&["a"], "b*");
        assert!(set.is_err());
        let (_dir, set) = with_files(&["a"], "b");
        assert_eq!(set.unwrap(), None);
    }
}

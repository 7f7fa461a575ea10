//! Expands sets of files: patterns, `base@N`, lists of files, and shards in the order of their numbers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::storage::blob::Storage;
use crate::storage::glob::{self, Glob};
use crate::storage::paths::Found;

/// Minimum digits of shard numbers in names made here.
const DIGITS: usize = 5;
/// Limit for the shards of a set; a name may claim any number.
const MOST_SHARDS: u64 = 1_000_000;

/// The files of a set in order, and the shards that are missing.
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
    /// Expands `path`, which does not exist: `base@N`, or a pattern without braces. `None` if it is neither, or matches nothing.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] where shards of several sets are mixed, [`Error::Io`].
    pub(crate) fn expand(path: &Path, storage: &dyn Storage) -> Result<Option<Self>> {
        if let Some(total) = sharded_total(path) {
            return of_total(path, total, storage).map(Some);
        }
        if !glob::is_pattern(path.as_os_str().as_bytes()) {
            return Ok(None);
        }
        let mut found = glob::expand(path, storage)?;
        let files: Vec<PathBuf> = found.iter().filter(|path| storage.is_file(path).unwrap_or(false)).cloned().collect();
        // If files match, matching directories are ignored.
        if !files.is_empty() {
            found = files;
        }
        if found.is_empty() {
            return Ok(None);
        }
        // Shards that the pattern does not match are not requested.
        let names = Glob::of_file_names(path)?;
        let mut set = Self::in_order(found)?;
        set.missing.retain(|path| path.file_name().is_some_and(|name| names.matches(name.as_bytes())));
        Ok(Some(set))
    }

    /// A list of files, kept in order unless they are shards. An existing shard that is not listed was not requested.
    ///
    /// # Errors
    /// As [`expand`](Self::expand).
    pub(crate) fn of_files(files: Vec<PathBuf>, storage: &dyn Storage) -> Result<Self> {
        let mut set = Self::in_order(files)?;
        set.missing.retain(|path| storage.look_at(path).map_or(true, |found| found == Found::Nothing));
        Ok(set)
    }

    /// Sorts files by their shard numbers, if they have them, and finds missing shards.
    fn in_order(files: Vec<PathBuf>) -> Result<Self> {
        let shards: Option<Vec<(Shard, &PathBuf)>> = files.iter().map(|file| Some((shard_of(file)?, file))).collect();
        let Some(shards) = shards else { return Ok(Self { files, missing: Vec::new() }) };
        // Different names are different sets, one after the other.
        let mut sets: Vec<(Vec<u8>, BTreeMap<Shard, &PathBuf>)> = Vec::new();
        for (shard, file) in shards {
            let name = without_numbers(file);
            match sets.iter_mut().rev().find(|(known, _)| *known == name) {
                Some((_, set)) => {
                    if let Some(twice) = set.insert(shard, file) {
                        return Err(BadRequest::GivenTwice { path: twice.clone(), again: Some(file.clone()) }.into());
                    }
                }
                None => sets.push((name, BTreeMap::from([(shard, file)]))),
            }
        }
        let (mut sorted, mut missing) = (Vec::new(), Vec::new());
        for (_, set) in &sets {
            let Some((first, name)) = set.first_key_value() else { continue };
            if let Some((other, path)) = set.iter().find(|(shard, _)| shard.total != first.total) {
                let detail = format!("it is one of {} shards, {} is one of {}", other.total, name.display(), first.total);
                return Err(Error::malformed(path, "set of shards", detail));
            }
            // Some writers count from 1.
            let last = set.last_key_value().map_or(first.index, |(shard, _)| shard.index);
            let start = u64::from(first.index > 0 && last == first.total);
            if let Some((beyond, path)) = set.iter().find(|(shard, _)| shard.index >= first.total.saturating_add(start)) {
                let detail = format!("it has number {} of {}, and there is a number {}", beyond.index, beyond.total, first.index);
                return Err(Error::malformed(path, "set of shards", detail));
            }
            if first.total <= MOST_SHARDS {
                let absent = (start..first.total + start).filter(|&index| !set.contains_key(&Shard { index, ..*first }));
                missing.extend(absent.map(|index| renumbered(name, index)));
            }
            sorted.extend(set.values().map(|&path| path.clone()));
        }
        Ok(Self { files: sorted, missing })
    }

    /// Describes the missing shards; `None` for a complete set.
    pub(crate) fn missing_shards(&self) -> Option<String> {
        const SHOWN: usize = 5;
        if self.missing.is_empty() {
            return None;
        }
        let names: Vec<_> = self.missing.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        let more = if self.missing.len() > SHOWN { ", …" } else { "" };
        let all = self.missing.len() + self.files.len();
        Some(format!("{} of {all} are missing: {}{more}", self.missing.len(), names.join(", ")))
    }
}

/// What the shards of a set share: the path without the number, and the total. `None` for a file that is not a shard.
pub(crate) fn shard_set(path: &Path) -> Option<(Vec<u8>, u64)> {
    shard_of(path).map(|shard| (without_numbers(path), shard.total))
}

/// A sort key that compares digits in names as numbers.
pub(crate) fn natural_key(path: &Path) -> Vec<(Vec<u8>, u128)> {
    let mut rest = path.as_os_str().as_bytes();
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (text, others) = rest.split_at(rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len()));
        let (digits, others) = others.split_at(others.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(others.len()));
        let number = digits.iter().fold(0u128, |number, digit| number.saturating_mul(10).saturating_add(u128::from(digit - b'0')));
        key.push((text.to_vec(), number));
        rest = others;
    }
    key
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
fn of_total(path: &Path, total: u64, storage: &dyn Storage) -> Result<FileSet> {
    if total == 0 || total > MOST_SHARDS {
        return Err(BadRequest::NumberOfShards { path: path.to_owned(), most: MOST_SHARDS }.into());
    }
    let name = path.file_name().unwrap_or_default().as_bytes();
    let at = name.iter().rposition(|&byte| byte == b'@').unwrap_or(0);
    let digits = name[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let named = |index: u64| {
        let numbers = format!("-{index:0DIGITS$}-of-{total:0DIGITS$}");
        path.with_file_name(OsStr::from_bytes(&[&name[..at], numbers.as_bytes(), &name[at + 1 + digits..]].concat()))
    };
    // Some writers count from 1.
    let least = u64::from(storage.is_file(&named(total))? && !storage.is_file(&named(0))?);
    let mut set = FileSet { files: Vec::new(), missing: Vec::new() };
    for path in (least..total + least).map(named) {
        let list = if storage.is_file(&path)? { &mut set.files } else { &mut set.missing };
        list.push(path);
    }
    if set.files.is_empty() {
        let detail = format!("none of {} and so on exists", set.missing[0].display());
        return Err(Error::NotFound { what: "source", detail });
    }
    Ok(set)
}

/// The range of `-I-of-N` in a name, or of `I-of-N` at its front, and its numbers.
fn numbers(name: &[u8]) -> Option<(std::ops::Range<usize>, Shard)> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
    let of = name.windows(4).rposition(|window| window == b"-of-")?;
    let behind = name[of + 4..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let before = name[..of].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = match name[..of - before].last() {
        None => 0,
        Some(b'-' | b'_' | b'.') => of - before - 1,
        Some(_) => return None,
    };
    let shard = Shard { index: number(&name[of - before..of])?, total: number(&name[of + 4..of + 4 + behind])? };
    Some((start..of + 4 + behind, shard))
}

fn shard_of(path: &Path) -> Option<Shard> {
    numbers(path.file_name()?.as_bytes()).map(|(_, shard)| shard)
}

/// The path without the shard numbers.
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
    let (own, total) = text.split_once("-of-").unwrap_or_default();
    let mark = own.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbers = format!("{mark}{index:0width$}-of-{total}", width = own.len() - mark.len());
    path.with_file_name(OsStr::from_bytes(&[&name[..range.start], numbers.as_bytes(), &name[range.end..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SystemCalls;
    use crate::storage::local::LocalStorage;

    fn with_files(names: &[&str], pattern: &str) -> (tempfile::TempDir, Result<Option<FileSet>>) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let set = FileSet::expand(&dir.path().join(pattern), &LocalStorage::new(SystemCalls::default()));
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
        assert!(set.missing_shards().unwrap().contains("t-1-of-11"));
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
    fn shards_may_be_counted_from_1() {
        for (present, pattern, missing) in [
            (&["t-1-of-3", "t-2-of-3", "t-3-of-3"][..], "t-*", &[][..]),
            (&["t-1-of-3", "t-3-of-3"], "t-*", &["t-2-of-3"]),
            (&["t-00001-of-00002", "t-00002-of-00002"], "t@2", &[]),
            (&["001-of-003.x", "003-of-003.x"], "*.x", &["002-of-003.x"]),
            (&["t-1-of-3", "t-2-of-3"], "t-*", &["t-0-of-3"]),
        ] {
            let (_dir, set) = with_files(present, pattern);
            let set = set.unwrap().unwrap();
            assert_eq!((set.files.len(), names(&set.missing)), (present.len(), missing.to_vec()), "{pattern}");
        }
        let (_dir, set) = with_files(&["t-0-of-2", "t-1-of-2", "t-2-of-2"], "t-*");
        assert!(set.is_err(), "three of two");
    }

    #[test]
    fn files_named_one_by_one_are_a_set_and_shards_that_are_there_are_not_missing() {
        let (dir, _) = with_files(&["t-0-of-4", "t-1-of-4", "t-3-of-4"], "t-*");
        let storage = LocalStorage::new(SystemCalls::default());
        let named = |names: &[&str]| FileSet::of_files(names.iter().map(|name| dir.path().join(name)).collect(), &storage).unwrap();
        assert_eq!(names(&named(&["t-1-of-4", "t-0-of-4"]).files), ["t-0-of-4", "t-1-of-4"]);
        assert_eq!(names(&named(&["t-0-of-4", "t-1-of-4"]).missing), ["t-2-of-4"]);
    }

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["part-10.npy", "part-9.npy", "part-1.npy", "a2-3", "a2-20", "a10-1"];
        names.sort_by_cached_key(|name| natural_key(Path::new(name)));
        assert_eq!(names, ["a2-3", "a2-20", "a10-1", "part-1.npy", "part-9.npy", "part-10.npy"]);
    }

    #[test]
    fn holes_and_mixed_sets_are_reported() {
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00002-of-00003"], "t-?????-of-00003");
        assert_eq!(names(&set.unwrap().unwrap().missing), ["t-00001-of-00003"]);
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00002-of-00003"], "t-0000[0-1]-of-00003");
        assert_eq!(names(&set.unwrap().unwrap().missing), ["t-00001-of-00003"]);
        let (_dir, set) = with_files(&["t-00000-of-00003", "t-00000-of-00002"], "t-*");
        assert!(set.is_err());
        let (_dir, set) = with_files(&["a-0-of-1.x", "b-0-of-1.x", "plain"], "*");
        assert_eq!(names(&set.unwrap().unwrap().files), ["a-0-of-1.x", "b-0-of-1.x", "plain"]);
        let (_dir, set) = with_files(&["a-0-of-1.x", "b-0-of-2.x", "b-1-of-2.x"], "*.x");
        assert_eq!(names(&set.unwrap().unwrap().files), ["a-0-of-1.x", "b-0-of-2.x", "b-1-of-2.x"]);
        let (_dir, set) = with_files(&["a"], "b*");
        assert_eq!(set.unwrap(), None);
        // A pattern that selects some shards does not request the others.
        let (_dir, set) = with_files(&["t-00000-of-01000", "t-00002-of-01000"], "t-0000[0-3]*");
        assert_eq!(names(&set.unwrap().unwrap().missing), ["t-00001-of-01000", "t-00003-of-01000"]);
        let (_dir, set) = with_files(&["a"], "b");
        assert_eq!(set.unwrap(), None);
    }
}

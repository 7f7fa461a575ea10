//! The data files of a bundle: positional reads, few of them open at a time.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::input::{InputFile, open_file};
use super::paths::parent_of;
use super::stamp::Stamp;
use crate::error::{Error, Result};
use crate::os::{self, Calls, Cold};

/// Files kept open at once, so that a bundle of thousands of shards works under any limit on descriptors.
const MOST_OPEN: usize = 6;

/// The files `P.data-SSSSS-of-NNNNN` of the prefix `P`.
#[derive(Debug)]
pub(crate) struct ShardSet {
    prefix: PathBuf,
    num_shards: u32,
    calls: Calls,
    /// Lengths and paths of shards that were looked at.
    known: Mutex<HashMap<u32, (u64, Arc<Path>)>>,
    open: Mutex<OpenShards>,
}

#[derive(Debug, Default)]
struct OpenShards {
    /// Most recently used last.
    recent: Vec<(u32, Shard)>,
    /// What those showed that were ever opened.
    stamps: HashMap<u32, Stamp>,
}

/// An opened file.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) file: InputFile,
    cold: Cold,
}

impl ShardSet {
    pub(crate) fn new(prefix: PathBuf, num_shards: u32, calls: &Calls) -> Self {
        Self { prefix, num_shards, calls: calls.clone(), known: Mutex::default(), open: Mutex::default() }
    }

    /// Which calls may be made for what is read of a file when it is opened.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn num_shards(&self) -> u32 {
        self.num_shards
    }

    /// The path of a shard, whether it is there or not.
    pub(crate) fn path(&self, shard: u32) -> PathBuf {
        let mut name = self.prefix.clone().into_os_string();
        name.push(format!(".data-{shard:05}-of-{:05}", self.num_shards));
        name.into()
    }

    /// Path and length of a shard that has to be there.
    pub(crate) fn stat(&self, shard: u32) -> Result<(u64, Arc<Path>)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((len, path)) = known.get(&shard) {
            return Ok((*len, Arc::clone(path)));
        }
        let path = self.path(shard);
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Err(Error::NotFound { what: "shard", detail: format!("{} is not a regular file", path.display()) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.missing(shard, &path)),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let entry = (metadata.len(), Arc::from(path.as_path()));
        known.insert(shard, entry.clone());
        Ok(entry)
    }

    fn missing(&self, shard: u32, path: &Path) -> Error {
        let (stem, found) = self.siblings();
        let same_number = found.iter().find(|name| name.starts_with(&format!("{stem}.data-{shard:05}-of-")));
        let hint = match same_number {
            Some(name) => format!("; {name} is there: are the index and the shards of the same save?"),
            None if found.is_empty() => "; no other shard of this checkpoint is there either".to_owned(),
            None => format!("; found {} of {} shards: {}", found.len(), self.num_shards, shorten(&found)),
        };
        Error::NotFound { what: "shard", detail: format!("{}, which the index names{hint}", path.display()) }
    }

    /// The shards of this checkpoint that are there.
    pub(crate) fn present(&self) -> Vec<PathBuf> {
        let (_, names) = self.siblings();
        names.iter().map(|name| self.prefix.with_file_name(name)).collect()
    }

    /// The prefix's last component and the names of all its shards in the directory.
    fn siblings(&self) -> (String, Vec<String>) {
        let stem = self.prefix.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let start = format!("{stem}.data-");
        let dir = parent_of(&self.prefix);
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(&start))
            .collect();
        names.sort();
        (stem, names)
    }

    /// The opened file of a shard.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not the one, or not as it was, that was opened first; [`Error::Io`].
    pub(crate) fn open(&self, shard: u32) -> Result<Shard> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenShards { recent, stamps } = &mut *open;
        let entry = if let Some(at) = recent.iter().position(|(id, _)| *id == shard) {
            recent.remove(at)
        } else {
            if recent.len() == MOST_OPEN {
                recent.remove(0);
            }
            let path = self.path(shard);
            let file = open_file(&path, &self.calls).map_err(Error::io("open", &path))?;
            match stamps.get(&shard) {
                Some(stamp) => stamp.check(&file, &path)?,
                None => drop(stamps.insert(shard, Stamp::of(&file).map_err(Error::io("look at", &path))?)),
            }
            (shard, Shard { file, cold: Cold::default() })
        };
        let opened = entry.1.clone();
        recent.push(entry);
        Ok(opened)
    }

    /// Fails if any of these shards was replaced or written to since it was opened first.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn check_unchanged(&self, shards: impl IntoIterator<Item = u32>) -> Result<()> {
        let shards: BTreeSet<u32> = shards.into_iter().collect();
        shards.into_iter().try_for_each(|shard| {
            let stamp = self.open.lock().unwrap_or_else(PoisonError::into_inner).stamps.get(&shard).cloned();
            stamp.map_or(Ok(()), |stamp| stamp.check(&self.open(shard)?.file, &self.path(shard)))
        })
    }

    /// Lets `range` of a shard be fetched meanwhile.
    pub(crate) fn fetch(&self, shard: u32, range: &Range<u64>, calls: &Calls) {
        if let Ok(Shard { file, cold }) = self.open(shard) {
            cold.fetch(&file, range, calls);
        }
    }

    /// Lets the memory of `range` of a shard be used for something else.
    pub(crate) fn forget(&self, shard: u32, range: &Range<u64>, calls: &Calls) {
        if let Ok(Shard { file, cold }) = self.open(shard) {
            cold.forget(&file, range, calls);
        }
    }

    /// Fills `buf` from `offset` of a shard.
    pub(crate) fn read(&self, shard: u32, offset: u64, buf: &mut [u8], calls: &Calls) -> Result<()> {
        let Shard { file, cold } = self.open(shard)?;
        os::read_exact_at(&file, buf, offset, calls, &cold).map_err(|error| {
            let path = self.path(shard);
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::malformed_at(
                    &path,
                    "shard",
                    offset,
                    format!("the file ends within the next {} bytes; it was longer before", buf.len()),
                )
            } else {
                Error::io("read", &path)(error)
            }
        })
    }
}

fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += ", …";
    }
    text
}

//! The data files of a bundle; each is opened on first use.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::blob::{Blob, Storage};
use super::paths::{Found, parent_of};
use crate::error::{Error, Result};
use crate::os::SystemCalls;

/// The files `P.data-SSSSS-of-NNNNN` of the prefix `P`.
#[derive(Debug)]
pub(crate) struct ShardSet {
    prefix: PathBuf,
    num_shards: u32,
    storage: Arc<dyn Storage>,
    calls: SystemCalls,
    /// The shards opened so far.
    opened: Mutex<HashMap<u32, Arc<dyn Blob>>>,
}

impl ShardSet {
    pub(crate) fn new(prefix: PathBuf, num_shards: u32, storage: &Arc<dyn Storage>, calls: &SystemCalls) -> Self {
        Self { prefix, num_shards, storage: Arc::clone(storage), calls: calls.clone(), opened: Mutex::default() }
    }

    /// Which system calls are allowed for what is read when a file is opened.
    pub(crate) fn calls(&self) -> &SystemCalls {
        &self.calls
    }

    pub(crate) fn num_shards(&self) -> u32 {
        self.num_shards
    }

    /// The path of a shard, which may not exist.
    pub(crate) fn path(&self, shard: u32) -> PathBuf {
        let mut name = self.prefix.clone().into_os_string();
        name.push(format!(".data-{shard:05}-of-{:05}", self.num_shards));
        name.into()
    }

    /// The length of a shard; `None` if it is not there.
    pub(crate) fn len_of(&self, shard: u32) -> Option<u64> {
        self.storage.len_of(&self.path(shard))
    }

    /// Opens the file of a shard.
    ///
    /// # Errors
    /// Returns [`Error::NotFound`] with the existing shards, or [`Error::Io`].
    pub(crate) fn open(&self, shard: u32) -> Result<Arc<dyn Blob>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blob) = opened.get(&shard) {
            return Ok(Arc::clone(blob));
        }
        let path = self.path(shard);
        let blob = match self.storage.look_at(&path)? {
            Found::File => self.storage.open(&path)?,
            Found::Nothing => return Err(self.missing(shard, &path)),
            _ => return Err(Error::NotFound { what: "shard", detail: format!("{} is not a regular file", path.display()) }),
        };
        opened.insert(shard, Arc::clone(&blob));
        Ok(blob)
    }

    fn missing(&self, shard: u32, path: &Path) -> Error {
        let (stem, found) = self.siblings();
        let same_number = found.iter().find(|name| name.starts_with(&format!("{stem}.data-{shard:05}-of-")));
        let hint = match same_number {
            Some(name) => format!("; {name} is there: are the index and the shards from the same save?"),
            None if found.is_empty() => "; no other shard of this checkpoint exists either".to_owned(),
            None => format!("; found {} of {} shards: {}", found.len(), self.num_shards, shorten(&found)),
        };
        Error::NotFound { what: "shard", detail: format!("{}, which the index refers to{hint}", path.display()) }
    }

    /// The existing shards of this checkpoint.
    pub(crate) fn present(&self) -> Vec<PathBuf> {
        let (_, names) = self.siblings();
        names.iter().map(|name| self.prefix.with_file_name(name)).collect()
    }

    /// The prefix's last component and the names of all its shards in the directory.
    fn siblings(&self) -> (String, Vec<String>) {
        let stem = self.prefix.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let start = format!("{stem}.data-");
        let dir = parent_of(&self.prefix);
        let listed = self.storage.list(dir).unwrap_or_default();
        let names = listed.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        let names: Vec<String> = names.filter(|name| name.starts_with(&start)).collect();
        (stem, names)
    }

    /// Fails if any of these shards was replaced or modified since it was first opened.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] or [`Error::Io`].
    pub(crate) fn check_unchanged(&self, shards: impl IntoIterator<Item = u32>) -> Result<()> {
        let shards: BTreeSet<u32> = shards.into_iter().collect();
        shards.into_iter().try_for_each(|shard| {
            let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned();
            opened.map_or(Ok(()), |blob| blob.check_unchanged())
        })
    }

    /// Fills `buf` from `offset` of a shard.
    ///
    /// # Errors
    /// Returns the errors of [`open`](Self::open) and of [`Blob::read`].
    pub(crate) fn read(&self, shard: u32, offset: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        self.open(shard)?.read(offset, buf, calls)
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

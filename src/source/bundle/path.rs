//! Finds the V2 checkpoint at a path: its prefix, its `.index`, one of its shards, or a directory that holds it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{prefixes_in, shard_prefix, to_path};
use super::state::{Newest, newest};
use crate::error::Result;
use crate::storage::blob::Storage;
use crate::storage::paths::Found;
use crate::storage::probe::Probe;

/// The checkpoint to open for `path`, if a V2 checkpoint is there.
///
/// # Errors
/// [`Error::Io`], [`Error::NotFound`].
pub(crate) fn resolve(probe: &Probe) -> Result<Option<Probe>> {
    let (path, storage) = (probe.path(), probe.storage());
    if storage.is_file(&super::index_path(path))? {
        return Ok(Some(probe.clone()));
    }
    let bytes = path.as_os_str().as_bytes();
    let has_index = |prefix: &PathBuf| storage.is_file(&super::index_path(prefix)).unwrap_or(false);
    let prefix = match probe.found()? {
        Found::File => match (bytes.strip_suffix(b".index"), shard_prefix(bytes)) {
            (Some(prefix), _) => Some(to_path(prefix)),
            (None, Some(prefix)) => Some(to_path(prefix)).filter(has_index),
            (None, None) => None,
        },
        Found::Directory => resolve_directory(path, storage)?,
        Found::Nothing | Found::Other => None,
    };
    Ok(prefix.map(|prefix| probe.at(prefix)))
}

/// The checkpoint of a directory: the newest in its state file, else the only one there.
pub(crate) fn resolve_directory(dir: &Path, storage: &Arc<dyn Storage>) -> Result<Option<PathBuf>> {
    let state = dir.join("checkpoint");
    if storage.is_file(&state)? {
        return Ok(match newest(dir, &state, storage)? {
            Newest::Bundle(prefix) => Some(prefix),
            Newest::V1(_) => None,
        });
    }
    let mut prefixes = prefixes_in(dir, storage);
    Ok(if prefixes.len() == 1 { prefixes.pop() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lead_back_to_their_prefix() {
        assert_eq!(shard_prefix(b"d/model.ckpt-10.data-00000-of-00001"), Some(&b"d/model.ckpt-10"[..]));
        assert_eq!(shard_prefix(b"a.data-1.data-00002-of-00003"), Some(&b"a.data-1"[..]));
        assert_eq!(shard_prefix(b"a.data-x-of-y"), None);
        assert_eq!(shard_prefix(b"a.index"), None);
    }
}

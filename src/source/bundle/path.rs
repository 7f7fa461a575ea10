//! How a path leads to a V2 checkpoint: by its prefix, its `.index`, one of its shards, or a directory that holds it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{prefixes_in, shard_prefix, to_path};
use super::state::{Newest, newest};
use crate::error::Result;
use crate::os::Calls;
use crate::storage::paths::{Found, is_file, look_at};

/// What to open for `path`, if a V2 checkpoint is there.
///
/// # Errors
/// [`Error::Io`], [`Error::NotFound`].
pub(crate) fn resolve(path: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
    if is_file(&super::index_path(path))? {
        return Ok(Some(path.to_owned()));
    }
    let bytes = path.as_os_str().as_bytes();
    match look_at(path)? {
        Found::File => match (bytes.strip_suffix(b".index"), shard_prefix(bytes)) {
            (Some(prefix), _) => Ok(Some(to_path(prefix))),
            (None, Some(prefix)) => Ok(Some(to_path(prefix)).filter(|prefix| super::index_path(prefix).is_file())),
            (None, None) => Ok(None),
        },
        Found::Directory => resolve_directory(path, calls),
        Found::Nothing | Found::Other => Ok(None),
    }
}

/// The checkpoint that a directory stands for: the newest of its state file, else the only one there.
pub(crate) fn resolve_directory(dir: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
    let state = dir.join("checkpoint");
    if is_file(&state)? {
        return Ok(match newest(dir, &state, calls)? {
            Newest::Bundle(prefix) => Some(prefix),
            Newest::V1(_) => None,
        });
    }
    let mut prefixes = prefixes_in(dir);
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

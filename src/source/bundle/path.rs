//! How a path leads to a V2 checkpoint: by its prefix, its `.index`, one of its shards, or a directory that holds it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Bundle;
use crate::error::{Error, Result};
use crate::format::checkpoint_state;
use crate::options::Options;
use crate::options::budget::Limits;
use crate::os::Calls;
use crate::source::cache::Cache;
use crate::source::container::Container;
use crate::source::driver::Driver;
use crate::source::v1;
use crate::storage::paths::{Found, is_file, list, look_at, read_small};

/// A V2 checkpoint: its prefix, its `.index`, one of its shards, or a directory that holds it.
pub(crate) struct TensorBundle;

impl Driver for TensorBundle {
    fn name(&self) -> &'static str {
        "tensor-bundle"
    }

    fn resolve(&self, path: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
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

    fn open(&self, prefix: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let bundle = Bundle::open(prefix, self.name(), &Limits::default(), &options.calls())?;
        Ok(match Cache::components(&bundle) {
            Some(components) => Box::new(Cache::new(bundle, components, false)?),
            None => Box::new(bundle),
        })
    }
}

pub(crate) fn to_path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

/// `P` of `P.data-00001-of-00004`.
pub(crate) fn shard_prefix(bytes: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b".data-";
    let at = bytes.windows(MARK.len()).rposition(|window| window == MARK)?;
    let numbers = &bytes[at + MARK.len()..];
    (numbers.windows(4).any(|w| w == b"-of-") && numbers.iter().all(|b| b.is_ascii_digit() || b"-of".contains(b))).then(|| &bytes[..at])
}

/// The checkpoint that a directory stands for: the newest of its state file, else the only one there.
fn resolve_directory(dir: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
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

/// What a state file names last.
pub(crate) enum Newest {
    /// The prefix of one that has an index.
    Bundle(PathBuf),
    /// A file of the first version, or the pattern for several.
    V1(PathBuf),
}

/// The checkpoint that the state file names last.
///
/// # Errors
/// [`Error::NotFound`] if it is not there, [`Error::Malformed`], [`Error::Io`].
pub(crate) fn newest(dir: &Path, state: &Path, calls: &Calls) -> Result<Newest> {
    let text = read_small(state, calls)?;
    let latest = to_path(&checkpoint_state::parse_latest(&text).map_err(|e| e.in_file(state))?);
    // A relative path counts from the directory; an absolute one is where it was written, often somewhere else.
    let named = dir.join(&latest);
    let beside = latest.file_name().map(|name| dir.join(name));
    let mut tried = vec![named];
    tried.extend(beside.filter(|path| *path != tried[0]));
    if let Some(found) = tried.iter().find(|prefix| super::index_path(prefix).is_file()) {
        return Ok(Newest::Bundle(found.clone()));
    }
    if let Some(found) = tried.iter().find(|path| v1::files(path, calls).is_ok_and(|files| files.is_some())) {
        return Ok(Newest::V1(found.clone()));
    }
    let tried: Vec<String> = tried.iter().map(|path| super::index_path(path).display().to_string()).collect();
    let detail = format!("{} names {}, but there is no {}{}", state.display(), latest.display(), tried.join(" and no "), instead(dir));
    Err(Error::NotFound { what: "checkpoint", detail })
}

/// Every `P` with a `P.index` in `dir`, sorted.
fn prefixes_in(dir: &Path) -> Vec<PathBuf> {
    names_in(dir).iter().filter_map(|name| Some(dir.join(to_path(name.as_bytes().strip_suffix(b".index")?)))).collect()
}

/// What could have been meant instead of something in `dir`.
pub(crate) fn instead(dir: &Path) -> String {
    const SHOWN: usize = 5;
    let mut prefixes: Vec<String> = prefixes_in(dir).iter().map(|path| path.display().to_string()).collect();
    let more = if prefixes.len() > SHOWN { ", …" } else { "" };
    prefixes.truncate(SHOWN);
    if prefixes.is_empty() { String::new() } else { format!("; checkpoints there: {}{more}", prefixes.join(", ")) }
}

/// The names in a directory, sorted; none if it cannot be listed.
pub(crate) fn names_in(dir: &Path) -> Vec<OsString> {
    list(dir).unwrap_or_default().iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect()
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

//! The file names of checkpoints.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::blob::Storage;

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

/// Every `P` with a `P.index` in `dir`, sorted.
pub(crate) fn prefixes_in(dir: &Path, storage: &Arc<dyn Storage>) -> Vec<PathBuf> {
    names_in(dir, storage).iter().filter_map(|name| Some(dir.join(to_path(name.as_bytes().strip_suffix(b".index")?)))).collect()
}

/// Suggests checkpoints in `dir` for an error message.
pub(crate) fn other_checkpoints(dir: &Path, storage: &Arc<dyn Storage>) -> String {
    const SHOWN: usize = 5;
    let mut prefixes: Vec<String> = prefixes_in(dir, storage).iter().map(|path| path.display().to_string()).collect();
    let more = if prefixes.len() > SHOWN { ", …" } else { "" };
    prefixes.truncate(SHOWN);
    if prefixes.is_empty() { String::new() } else { format!("; checkpoints there: {}{more}", prefixes.join(", ")) }
}

/// The names in a directory, sorted; none if it cannot be listed.
pub(crate) fn names_in(dir: &Path, storage: &Arc<dyn Storage>) -> Vec<OsString> {
    storage.list(dir).unwrap_or_default().iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect()
}

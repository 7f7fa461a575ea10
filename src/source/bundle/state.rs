//! The state file of a directory of checkpoints, which names the newest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{other_checkpoints, to_path};
use crate::error::{Error, Result};
use crate::format::checkpoint_state;
use crate::source::v1::files::files;
use crate::storage::blob::Storage;
use crate::storage::probe::Probe;

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
pub(crate) fn newest(dir: &Path, state: &Path, storage: &Arc<dyn Storage>) -> Result<Newest> {
    let text = storage.read_small(state)?;
    let latest = to_path(&checkpoint_state::parse_latest(&text).map_err(|e| e.in_file(state))?);
    // A relative path counts from the directory; an absolute one is where it was written, often somewhere else.
    let named = dir.join(&latest);
    let beside = latest.file_name().map(|name| dir.join(name));
    let mut tried = vec![named];
    tried.extend(beside.filter(|path| *path != tried[0]));
    if let Some(found) = tried.iter().find(|prefix| storage.is_file(&super::index_path(prefix)).unwrap_or(false)) {
        return Ok(Newest::Bundle(found.clone()));
    }
    if let Some(found) = tried.iter().find(|path| files(&Probe::new(storage, path)).is_ok_and(|files| files.is_some())) {
        return Ok(Newest::V1(found.clone()));
    }
    let tried: Vec<String> = tried.iter().map(|path| super::index_path(path).display().to_string()).collect();
    let detail = format!(
        "{} names {}, but there is no {}{}",
        state.display(),
        latest.display(),
        tried.join(" and no "),
        other_checkpoints(dir, storage)
    );
    Err(Error::NotFound { what: "checkpoint", detail })
}

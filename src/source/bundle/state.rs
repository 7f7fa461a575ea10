//! The state file of a directory of checkpoints, which names the newest one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{other_checkpoints, to_path};
use crate::error::{Error, Result};
use crate::format::checkpoint_state;
use crate::source::v1::files::files;
use crate::storage::blob::Storage;
use crate::storage::probe::Probe;

/// The newest checkpoint that a state file names.
pub(crate) enum Newest {
    /// The prefix of a checkpoint with an index.
    Bundle(PathBuf),
    /// A V1 file, or the pattern for several.
    V1(PathBuf),
}

/// The newest checkpoint that the state file names.
///
/// # Errors
/// [`Error::NotFound`] if that checkpoint does not exist, [`Error::Malformed`], [`Error::Io`].
pub(crate) fn newest(dir: &Path, state: &Path, storage: &Arc<dyn Storage>) -> Result<Newest> {
    let text = storage.read_small(state)?;
    let latest = to_path(&checkpoint_state::parse_latest(&text).map_err(|e| e.in_file(state))?);
    // A relative path starts at the directory. An absolute path is where the checkpoint was written, which may be elsewhere.
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

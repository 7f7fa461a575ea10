//! Helpers for paths and files that several modules use.

use std::fs::{self};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The directory that contains a path.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What exists at a path; links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File,
    Directory,
    /// A pipe, a device, a socket.
    Other,
}

/// Looks at a path. Reports nothing only if the path certainly does not exist; an unsearchable directory is an error.
///
/// # Errors
/// Returns [`Error::Io`].
pub(crate) fn look_at(path: &Path) -> Result<Found> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Found::File),
        Ok(metadata) if metadata.is_dir() => Ok(Found::Directory),
        Ok(_) => Ok(Found::Other),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename) => {
            Ok(Found::Nothing)
        }
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

/// Whether a path is a regular file.
///
/// # Errors
/// Returns [`Error::Io`].
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    Ok(look_at(path)? == Found::File)
}

/// The entries of a directory, sorted by name.
///
/// # Errors
/// Returns [`Error::Io`].
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(Error::io("list", dir))?;
    entries.sort();
    Ok(entries)
}

/// The nearest existing directory above an output; missing ones would be created in it.
pub(crate) fn nearest_directory(output: &Path) -> Option<&Path> {
    output.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).find(|dir| dir.is_dir())
}

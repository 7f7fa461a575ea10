//! Questions about paths that more than one module asks.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// The directory a path lies in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What lies at a path, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File,
    Directory,
    /// A pipe, a device, a socket.
    Other,
}

/// Looks at a path. Only what certainly is not there counts as nothing; a directory that may not be searched does not.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn look_at(path: &Path) -> Result<Found> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Found::File),
        Ok(metadata) if metadata.is_dir() => Ok(Found::Directory),
        Ok(_) => Ok(Found::Other),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename) => {
            Ok(Found::Nothing)
        }
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

/// Whether a regular file lies at a path.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    Ok(look_at(path)? == Found::File)
}

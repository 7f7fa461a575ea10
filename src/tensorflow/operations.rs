//! Libraries of custom operations.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::session::attempt;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};

/// Loads libraries of custom operations, each once. They stay loaded.
///
/// # Errors
/// [`Error::BadRequest`] for paths that are not UTF-8, [`Error::Io`], [`Error::TensorFlow`] for files that are not such libraries.
pub(crate) fn load_operations(libraries: &[PathBuf]) -> Result<()> {
    static OPERATIONS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    for path in libraries {
        // A bare file name would make the system search its library path.
        let whole = fs::canonicalize(path).map_err(Error::io("open", path))?;
        let mut loaded = OPERATIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.contains(&whole) {
            continue;
        }
        let text = whole.to_str().ok_or_else(|| BadRequest::PathNotUtf8 { path: path.clone() })?;
        attempt(|| format!("loading the operations in {}", path.display()), || ::tensorflow::Library::load(text).map(drop))?;
        loaded.push(whole);
    }
    Ok(())
}

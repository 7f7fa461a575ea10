//! Libraries with operations that TensorFlow lacks.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::session::attempt;
use crate::error::{Error, Result};

/// Loads libraries with operations that TensorFlow lacks. One that has been loaded stays.
///
/// # Errors
/// [`Error::BadRequest`] for paths that are not UTF-8, [`Error::Io`], [`Error::TensorFlow`] for what is no such library.
pub(crate) fn load_operations(libraries: &[PathBuf]) -> Result<()> {
    static OPERATIONS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    for path in libraries {
        // Without a directory the system would look for it elsewhere.
        let whole = fs::canonicalize(path).map_err(Error::io("open", path))?;
        let mut loaded = OPERATIONS.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.contains(&whole) {
            continue;
        }
        let text = whole.to_str().ok_or_else(|| Error::bad_request(format!("{}: TensorFlow takes only paths in UTF-8", path.display())))?;
        attempt(|| format!("loading the operations in {}", path.display()), || ::tensorflow::Library::load(text).map(drop))?;
        loaded.push(whole);
    }
    Ok(())
}

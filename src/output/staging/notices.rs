//! Notices: problems that leave the outputs correct.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A problem that is no error, because every output is correct, but that a user may have to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A temporary file or directory could not be removed.
    LeftBehind {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// The file system cannot sync a directory: a power cut may undo a name that was just given.
    NotSynced {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftBehind { path, detail } => {
                write!(f, "{} could not be removed: {detail}; nothing needs it any more", path.display())
            }
            Self::NotSynced { path, detail } => {
                write!(f, "the file system cannot sync directory {}: {detail}; a power cut may undo the last renames", path.display())
            }
        }
    }
}

static NOTICES: Mutex<Vec<Notice>> = Mutex::new(Vec::new());

pub(crate) fn tell(notice: Notice) {
    let mut notices = NOTICES.lock().unwrap_or_else(PoisonError::into_inner);
    if !notices.contains(&notice) {
        notices.push(notice);
    }
}

/// Takes the notices of this process since the last call. They arise while outputs are made and while their temporary files are
/// dropped, also in other threads.
#[must_use]
pub fn take_notices() -> Vec<Notice> {
    std::mem::take(&mut *NOTICES.lock().unwrap_or_else(PoisonError::into_inner))
}

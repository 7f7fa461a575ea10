//! What went wrong beside outputs that are right all the same.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Something that is no error, because every output is right, and that somebody may have to do something about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A file or directory that was needed for a while could not be removed.
    LeftBehind {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// The file system cannot sync a directory: a power cut may take away a name that was given just before.
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
                write!(
                    f,
                    "the file system cannot sync directory {}: {detail}; a power cut may undo the last change of names",
                    path.display()
                )
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

/// Takes the notices that have come up in this process since this was last called. They come up while outputs are made and while what was
/// needed for them is dropped, also by another thread.
#[must_use]
pub fn take_notices() -> Vec<Notice> {
    std::mem::take(&mut *NOTICES.lock().unwrap_or_else(PoisonError::into_inner))
}

//! Which of the arrays of a tensor a file holds.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::file_name;
use crate::error::Result;

/// Which of the arrays of a tensor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The only one.
    Whole,
    /// The bytes of strings.
    Values,
    /// Where strings start among the bytes.
    Offsets,
}

impl Part {
    /// What names of files have before `.npy`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Values => ".values",
            Self::Offsets => ".offsets",
        }
    }

    /// The path of this array, where `path` was given for all of the tensor: `NAME.values.npy` for `NAME.npy`.
    #[must_use]
    pub fn path(self, path: &Path) -> PathBuf {
        match path.file_name() {
            Some(name) if self != Self::Whole => {
                let stem = name.as_bytes().strip_suffix(file_name::EXTENSION.as_bytes()).unwrap_or(name.as_bytes());
                let name = [stem, self.suffix().as_bytes(), file_name::EXTENSION.as_bytes()].concat();
                path.with_file_name(OsStr::from_bytes(&name))
            }
            _ => path.to_owned(),
        }
    }
}

impl Serialize for Part {
    /// As manifests and `--json` have it: nothing where there is only one.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole => serializer.serialize_none(),
            part => serializer.collect_str(part),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Whole => "array",
            Self::Values => "values",
            Self::Offsets => "offsets",
        })
    }
}

//! The part of a tensor that a file holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::file_name;
use crate::error::Result;

/// The part of a tensor that an array holds. Most tensors become one array, strings can become two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum Part {
    /// All of it, in one array.
    #[strum(to_string = "array")]
    Whole,
    /// The bytes of strings.
    Values,
    /// The start of each string among the bytes.
    Offsets,
}

impl Part {
    /// The part of file names before `.npy`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Values => ".values",
            Self::Offsets => ".offsets",
        }
    }

    /// The path of this array, if `path` was given for the whole tensor: `NAME.values.npy` for `NAME.npy`.
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
    /// For manifests and `--json`: null for the only array of a tensor.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole => serializer.serialize_none(),
            part => serializer.collect_str(part),
        }
    }
}

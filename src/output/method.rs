//! The ways in which bytes can get into an output, and which of them a file system allows.

use std::fmt;
use std::str::FromStr;

use super::mmap;
use super::private_file::PrivateFile;
use crate::error::{Error, Result};
use crate::os;
use crate::plan::Memory;

/// How an output is written. The fastest one that the file system and the tensor allow is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The output shares the source's blocks: nothing is copied. For one contiguous run of bytes that need no decoding,
    /// on a file system that can do it (XFS, Btrfs), at an offset to which a header can be fitted.
    Clone,
    /// Buffers, written past the page cache (`RWF_DONTCACHE`, Linux 6.14, file systems that know it).
    Uncached,
    /// Buffers and plain writes: what every Unix and every file system can do. Where it is chosen, calls that only Linux
    /// has still reserve space and push pages out; where it is asked for, none of them is made.
    Portable,
    /// Read straight into mapped windows of the output. Only on request: buffers are as fast and more even, but this is the
    /// way of [`ArrayWriter`](crate::ArrayWriter), to be measured here.
    Map,
}

impl Method {
    /// All of them: the first of three that can be had is taken, the last on request.
    pub const ALL: [Self; 4] = [Self::Clone, Self::Uncached, Self::Portable, Self::Map];

    /// The name that reports and `--method` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Uncached => "uncached",
            Self::Map => "map",
            Self::Portable => "portable",
        }
    }

    /// Where workers put the bytes of a slice on this way.
    pub(crate) fn memory(self) -> Memory {
        match self {
            Self::Map => Memory::Windows,
            Self::Clone => Memory::Scan,
            Self::Uncached | Self::Portable => Memory::Buffers,
        }
    }

    /// The way to copy into `file`, which must be empty: the `wanted` one, or the best that works.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the wanted one does not; [`Error::Io`].
    pub(crate) fn to_copy(file: &PrivateFile, wanted: Option<Self>) -> Result<Self> {
        match wanted {
            None if Self::Uncached.works_for(file)? => Ok(Self::Uncached),
            None => Ok(Self::Portable),
            Some(method) if method.works_for(file)? => Ok(method),
            Some(method) => {
                let detail = match method {
                    Self::Clone => {
                        "that needs one contiguous run of bytes that are not decoded, at an offset to which a header can be fitted, \
                         and a file system that shares blocks between source and output"
                    }
                    _ => "the file system of the output does not know the calls for it",
                };
                Err(Error::Unsupported { what: format!("method {method} for this output"), detail: detail.into() })
            }
        }
    }

    /// Whether a way that copies can be taken for `file`, which must be empty and is so again afterwards: it is tried with a
    /// byte.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be made empty again.
    fn works_for(self, file: &PrivateFile) -> Result<bool> {
        // Anything but a plain no is left to the real attempt, which has the right words for it.
        let known = |tried: std::io::Result<()>| !tried.is_err_and(|error| os::is_unsupported(&error));
        let works = match self {
            Self::Clone => false,
            Self::Uncached => known(file.write_uncached_at(&[0], 0)),
            Self::Map => known(file.reserve(&(0..1))) && mmap::can_map(file),
            Self::Portable => return Ok(true),
        };
        file.resize(0)?;
        Ok(works)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| format!("there is no method {text:?}, only {names}"))
    }
}

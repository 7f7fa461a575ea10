//! Finds the methods of writing an output that its file system supports.

use super::mmap;
use super::private_file::PrivateFile;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::os;
use crate::plan::{Memory, PAGE_BYTES};
use crate::types::size::memory_len;

/// Shorter arrays take no longer through the page cache, and a trial of a direct write is another wait for the disk.
pub(crate) const LEAST_DIRECT: u64 = 16 << 20;

impl Method {
    /// Where workers put the bytes of a slice with this method.
    pub(crate) fn memory(self) -> Memory {
        match self {
            Self::Map => Memory::Windows,
            Self::Clone => Memory::Scan,
            Self::Direct => Memory::Direct,
            Self::Uncached | Self::Portable => Memory::Buffers,
        }
    }

    /// Whether what goes through the page cache has to leave it at once, where there is a call for that.
    pub(crate) fn leaves_cache(self) -> bool {
        matches!(self, Self::Direct | Self::Uncached)
    }

    /// The method to copy `nbytes` (`None`: an unknown number of them) into `file`, which must be empty: the `wanted` one, or the best that
    /// works.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] when the wanted method does not work; [`Error::Io`].
    pub(crate) fn to_copy(file: &PrivateFile, wanted: Option<Self>, nbytes: Option<u64>) -> Result<Self> {
        match wanted {
            None if nbytes.is_none_or(|nbytes| nbytes >= LEAST_DIRECT) && Self::Direct.works_for(file)? => Ok(Self::Direct),
            None if Self::Uncached.works_for(file)? => Ok(Self::Uncached),
            None => Ok(Self::Portable),
            Some(method) if method.works_for(file)? => Ok(method),
            Some(method) => {
                let reason = match method {
                    Self::Clone => {
                        "it needs one contiguous run of bytes that are not decoded, at an offset to which a header can be fitted, \
                         and a file system that shares blocks between source and output"
                    }
                    Self::Direct => "that file system cannot write past the page cache (one in memory never can)",
                    Self::Uncached => "uncached writes need Linux 6.14 and a file system that has them (ext4, XFS)",
                    Self::Map => "that file system cannot reserve space or has no maps for writing",
                    Self::Portable => "that file system refuses plain writes",
                };
                let what = format!("method {method} for an output in {}", file.dir().display());
                let detail = format!("{reason}; without `method`, the fastest that works there is chosen");
                Err(Error::Unsupported { what, detail })
            }
        }
    }

    /// As [`to_copy`](Self::to_copy), for a file like `trial`. Without one, the method that works everywhere is assumed.
    ///
    /// # Errors
    /// As [`to_copy`](Self::to_copy).
    pub(crate) fn as_tried(trial: Option<&PrivateFile>, wanted: Option<Self>, nbytes: Option<u64>) -> Result<Self> {
        trial.map_or(Ok(wanted.unwrap_or(Self::Portable)), |trial| Self::to_copy(trial, wanted, nbytes))
    }

    /// Whether this copying method works for `file`. Tries it with a page; `file` must be empty and is empty again afterwards.
    ///
    /// # Errors
    /// Returns [`Error::Io`] when the file cannot be emptied again.
    fn works_for(self, file: &PrivateFile) -> Result<bool> {
        // Any failure except "unsupported" counts as working: the real attempt reports it with the right message.
        let known = |tried: std::io::Result<()>| !tried.is_err_and(|error| os::is_unsupported(&error));
        let works = match self {
            Self::Clone => false,
            Self::Direct => file.writes_directly().unwrap_or(true),
            // Not with a byte: ext4 keeps short files in the inode (`inline_data`), and one that was cut after it was written there loses what
            // is written to its start later.
            Self::Uncached => known(file.write_uncached_at(&vec![0; memory_len(PAGE_BYTES)], 0)),
            Self::Map => known(file.reserve(&(0..PAGE_BYTES))) && mmap::can_map(file),
            Self::Portable => return Ok(true),
        };
        file.resize(0)?;
        Ok(works)
    }
}

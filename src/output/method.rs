//! Which of the ways to write an output a file system allows.

use super::mmap;
use super::private_file::PrivateFile;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::os;
use crate::plan::Memory;

impl Method {
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

//! System calls beyond the standard library. Other modules do not ask which system they run on.
//!
//! A call that the system or the file system does not support fails with [`Unsupported`](std::io::ErrorKind::Unsupported); the
//! caller then uses a portable way. This room does not decide what is read or written.
//!
//! `linux.rs` has the calls, `other.rs` has stubs, `residency.rs` keeps what the page cache held, and `workers.rs` has threads. Start
//! with [`SystemCalls`]: its `standard` value refuses the special calls on Linux too, so that tests cover the portable paths.

pub(crate) mod attributes;
pub(crate) mod buffer;
pub(crate) mod direct;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
pub(crate) mod residency;
pub(crate) mod workers;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

#[cfg(doc)]
use crate::error::Error;
use crate::types::cancel::CancelToken;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::*;

/// Which system calls are allowed. After cancellation, an interrupted or partial call is not repeated.
#[derive(Debug, Clone)]
pub(crate) struct SystemCalls {
    is_native: bool,
    cancel: CancelToken,
}

/// All calls of the system, without cancellation.
impl Default for SystemCalls {
    fn default() -> Self {
        Self::all(&CancelToken::new())
    }
}

impl SystemCalls {
    /// All calls of the system.
    pub(crate) fn all(cancel: &CancelToken) -> Self {
        Self { is_native: true, cancel: cancel.clone() }
    }

    /// Only the calls that every Unix has.
    pub(crate) fn standard(cancel: &CancelToken) -> Self {
        Self { is_native: false, cancel: cancel.clone() }
    }

    /// Whether system-specific calls are allowed.
    pub(crate) fn is_native(&self) -> bool {
        self.is_native
    }

    pub(crate) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Makes `call` if system-specific calls are allowed.
    pub(crate) fn native<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_native { call() } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Makes `call` and repeats it while signals interrupt it.
    ///
    /// # Errors
    /// Returns the errors of the call, and [`Error::Cancelled`] wrapped in an `io::Error`, which [`Error::io`] unwraps.
    pub(crate) fn repeat<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Makes `call` once. A signal that interrupts it is an error like others.
    ///
    /// # Errors
    /// As [`repeat`](Self::repeat).
    pub(crate) fn once<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.cancel.check().map_err(io::Error::other)?;
        call()
    }

    /// Fills `buf` from `offset` through the page cache.
    ///
    /// # Errors
    /// Returns the errors of [`repeat`](Self::repeat), and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file is too
    /// short.
    pub(crate) fn read_exact_at(&self, file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let read = self.repeat(|| file.read_at(buf, offset))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = &mut buf[read..];
            offset += read as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset` with `write`, which may write only a part per call.
    ///
    /// # Errors
    /// Returns the errors of [`repeat`](Self::repeat).
    pub(crate) fn write_all_at(
        &self,
        mut bytes: &[u8],
        mut offset: u64,
        write: impl Fn(&[u8], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.repeat(|| write(bytes, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }
}

/// Whether an error means that the system or file system does not support the call, as the functions of this room report it.
///
/// An errno as the system gave it never does, even one of which the standard library makes the same kind (ENOSYS, EOPNOTSUPP): it may be the
/// record of a write that failed earlier.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported && error.raw_os_error().is_none()
}

/// Bytes that the file system of `file` has left for this user, as `df` reports; `None` if it does not say.
pub(crate) fn free_bytes(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok().filter(|stat| stat.f_blocks > 0)?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Allocation unit of the file system of `file`.
pub(crate) fn block_bytes(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstatvfs(file)?.f_bsize)
}

/// The most that one page-table entry maps, if file offset and address are aligned to it (`x86-64` and `AArch64` with pages of 4
/// KiB).
pub(crate) const LARGE_PAGE: u64 = 2 << 20;

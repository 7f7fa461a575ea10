//! What a system offers beyond the standard library, so that no other module asks which system it runs on.
//!
//! A call that the system or the file system does not know fails with [`Unsupported`](std::io::ErrorKind::Unsupported);
//! whoever makes it has another way. `other.rs` has none of the calls, and [`SystemCalls::standard`] does without
//! them on Linux too: by it tests go the ways that other systems have to go.

pub(crate) mod attributes;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;
pub(crate) mod workers;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

#[cfg(doc)]
use crate::error::Error;
use crate::types::cancel::CancelToken;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::*;

/// Which calls may be made, and until when: once the token was used none is made again that a signal interrupted or that did a part only.
#[derive(Debug, Clone)]
pub(crate) struct SystemCalls {
    is_native: bool,
    cancel: CancelToken,
}

/// All that the system has, where nobody can cancel.
impl Default for SystemCalls {
    fn default() -> Self {
        Self::all(&CancelToken::new())
    }
}

impl SystemCalls {
    /// All that the system has.
    pub(crate) fn all(cancel: &CancelToken) -> Self {
        Self { is_native: true, cancel: cancel.clone() }
    }

    /// Those that every Unix has.
    pub(crate) fn standard(cancel: &CancelToken) -> Self {
        Self { is_native: false, cancel: cancel.clone() }
    }

    /// Whether those of this system may be made.
    pub(crate) fn is_native(&self) -> bool {
        self.is_native
    }

    pub(crate) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Makes `call` unless only standard ones are allowed.
    pub(crate) fn native<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_native { call() } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Makes `call`, and again as long as signals interrupt it.
    ///
    /// # Errors
    /// Those of the call, and [`Error::Cancelled`] inside an error of its own kind, which [`Error::io`] takes out again.
    pub(crate) fn repeat<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.cancel.check().map_err(io::Error::other)?;
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Fills `buf` from `offset`, through the page cache.
    ///
    /// # Errors
    /// As [`repeat`](Self::repeat), and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) where the file ends before.
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

    /// Writes all of `bytes` at `offset` with `write`, which may write a part of what it is given.
    ///
    /// # Errors
    /// As [`repeat`](Self::repeat).
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

/// Whether the system or the file system does not know a call.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// How far back pages are looked for that were not given up when they were read.
const REACH_BACK: u64 = 64 << 20;
/// Shorter reads leave their pages in the cache: what lies beside them is likely to be read next.
const MIN_UNCACHED: usize = 64 << 10;

/// Fills `buf` from `offset`. A long read leaves in the page cache what was there before and nothing else: by an uncached read
/// where the system can do that, and by dropping pages after it if the file was cold before the first. (The kernel keeps pages
/// of an uncached read, too, where another thread was just reading from the same folio: that reaches back over what this read.)
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64, calls: &SystemCalls, cold: &Cold) -> io::Result<()> {
    let range = offset..offset + buf.len() as u64;
    // Asked before the first read, however short, because that one brings in more than it reads.
    let drop_behind = calls.is_native() && cold.get(file) && buf.len() >= MIN_UNCACHED;
    let (mut rest, mut at) = (buf, offset);
    while rest.len() >= MIN_UNCACHED {
        match calls.repeat(|| calls.native(|| read_uncached(file, rest, at))) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                rest = &mut rest[read..];
                at += read as u64;
            }
            Err(error) if is_unsupported(&error) => break,
            Err(error) => return Err(error),
        }
    }
    calls.read_exact_at(file, rest, at)?;
    if drop_behind {
        drop_pages(file, &(range.start.saturating_sub(REACH_BACK)..range.end));
    }
    Ok(())
}

/// Whether a file was hardly in the page cache when that was first asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cold(Arc<OnceLock<bool>>);

impl Cold {
    /// Asks for `range` to be fetched meanwhile, if the file was cold.
    pub(crate) fn prefetch(&self, file: &File, range: &Range<u64>, calls: &SystemCalls) {
        if calls.is_native() && !range.is_empty() && self.get(file) {
            fetch_pages(file, range);
        }
    }

    /// Gives up the pages of `range`, if the file was cold.
    pub(crate) fn evict(&self, file: &File, range: &Range<u64>, calls: &SystemCalls) {
        if calls.is_native() && !range.is_empty() && self.get(file) {
            drop_pages(file, range);
        }
    }

    /// Looks at some places of the file: to count all its pages takes a tenth of a second for a few GiB.
    pub(crate) fn get(&self, file: &File) -> bool {
        const PLACES: u64 = 64;
        const LENGTH: u64 = 64 << 10;
        *self.0.get_or_init(|| {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            let cached = |i: u64| cached_bytes(file, len / PLACES * i, LENGTH);
            len > 0 && (0..PLACES).map(cached).try_fold(0, |sum, bytes| bytes.map(|bytes| sum + bytes)).is_ok_and(|sum| sum < LENGTH)
        })
    }
}

/// What the file system of `file` has left for this user, as `df` says it; `None` where it does not say.
pub(crate) fn free_bytes(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok().filter(|stat| stat.f_blocks > 0)?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// The unit in which the file system of `file` gives out space.
pub(crate) fn block_bytes(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstatvfs(file)?.f_bsize)
}

/// What one entry of a page table maps at most, where file and address are aligned to it (`x86-64` and `AArch64` with
/// pages of 4 KiB).
pub(crate) const LARGE_PAGE: u64 = 2 << 20;

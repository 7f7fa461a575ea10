//! What a system offers beyond the standard library, so that no other module asks which system it runs on.
//!
//! A call that the system or the file system does not know fails with [`Unsupported`](std::io::ErrorKind::Unsupported);
//! whoever makes it has another way. `other.rs` has none of the calls, and [`Calls::Standard`] does without
//! them on Linux too: by it tests go the ways that other systems have to go.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::*;

/// Which calls may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// All that the system has.
    Native,
    /// Those that every Unix has.
    Standard,
}

impl Calls {
    /// Makes `call` unless only standard ones are allowed.
    pub(crate) fn native<T>(self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Native => call(),
            Self::Standard => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Whether the system or the file system does not know a call.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// Shorter reads leave their pages in the cache: what lies beside them is likely to be read next.
const MIN_UNCACHED: usize = 64 << 10;

/// Fills `buf` from `offset`. A long read leaves in the page cache what was there before and nothing else, where the
/// system can do that; where it cannot, pages of a file that `was_cold` are dropped after the read.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64, calls: Calls, was_cold: bool) -> io::Result<()> {
    let range = offset..offset + buf.len() as u64;
    let uncached = read_uncached_exact_at(file, buf, offset, calls)?;
    if !uncached && was_cold && calls == Calls::Native && buf.len() >= MIN_UNCACHED {
        drop_pages(file, &range);
    }
    Ok(())
}

/// Whether all of it was read past the page cache.
fn read_uncached_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64, calls: Calls) -> io::Result<bool> {
    while buf.len() >= MIN_UNCACHED {
        match calls.native(|| read_uncached(file, buf, offset)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_unsupported(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let plain = buf.len() >= MIN_UNCACHED;
    file.read_exact_at(buf, offset)?;
    Ok(!plain)
}

/// Whether hardly anything of a file is in the page cache, as far as the system says.
pub(crate) fn is_cold(file: &File) -> bool {
    let (Ok(cached), Ok(metadata)) = (cached_bytes(file), file.metadata()) else { return false };
    cached < metadata.len() / 64
}

/// Writes all of `bytes` at `offset`, through the page cache and out of it.
///
/// # Errors
/// Unsupported where the system cannot do that; nothing is written then.
pub(crate) fn write_all_uncached_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_uncached(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

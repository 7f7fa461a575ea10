//! ZIP archives: the positions of their members. Members are not unpacked here.
//!
//! Source: PKWARE's APPNOTE.TXT, 4.3 and 4.5, as implemented by the `zip` crate.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;

use super::blob::Blob;
use crate::error::{Error, Result};
use crate::format::crc::Checksum;

const WHAT: &str = "ZIP archive";
/// The first bytes of an archive: a member, or the end record of an empty archive.
pub(crate) const MAGICS: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// The compression of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Stored,
    Deflated,
}

/// A member of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    /// Its compression, or why it cannot be read.
    pub(crate) packing: Result<Packing, String>,
    /// The offset of its data in the file.
    pub(crate) offset: u64,
    /// The number of bytes in the file.
    pub(crate) packed: u64,
    /// The number of bytes unpacked.
    pub(crate) size: u64,
    /// The checksum of the unpacked bytes.
    pub(crate) checksum: Checksum,
}

/// Lists the members of an archive in the order of its directory.
///
/// # Errors
/// Returns [`Error::Malformed`] or [`Error::Io`].
pub(crate) fn members(file: &Arc<dyn Blob>) -> Result<Vec<Member>> {
    let failed = |error: ZipError| match error {
        ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => Error::io("read", file.path())(error),
        error => Error::malformed(file.path(), WHAT, error.to_string()),
    };
    let reader = BufReader::new(Cursor { file: Arc::clone(file), at: 0 });
    let mut archive = ZipArchive::new(reader).map_err(|error| match failed(error) {
        // The directory is the end of the file.
        Error::Malformed { path, what, offset, detail } => {
            let detail = format!("{detail}; of its {} bytes the last, where the directory is, may be missing or damaged", file.len());
            Error::Malformed { path, what, offset, detail }
        }
        error => error,
    })?;
    // The lengths in the members' own headers must match the directory.
    archive.validate_header_consistency().map_err(failed)?;
    let mut members = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(failed)?;
        let packing = match entry.compression() {
            _ if entry.encrypted() => Err("it is encrypted".to_owned()),
            CompressionMethod::STORE => Ok(Packing::Stored),
            CompressionMethod::DEFLATE => Ok(Packing::Deflated),
            other => Err(format!("it is compressed by {other}, but only stored and deflated members can be read")),
        };
        let offset = entry.data_start().ok_or_else(|| Error::malformed(file.path(), WHAT, format!("member {index} has no data")))?;
        let (packed, size) = (entry.compressed_size(), entry.size());
        let name = entry.name_raw().to_vec();
        let malformed = |detail| Err(Error::malformed_at(file.path(), WHAT, offset, detail));
        if offset.checked_add(packed).is_none_or(|end| end > file.len()) {
            return malformed(format!("a member of {packed} bytes, but only {} are left in the file", file.len().saturating_sub(offset)));
        }
        if packing == Ok(Packing::Stored) && packed != size {
            return malformed(format!("a stored member of {size} bytes takes {packed} bytes in the file"));
        }
        members.push(Member { name, packing, offset, packed, size, checksum: Checksum::Crc32(entry.crc32()) });
    }
    Ok(members)
}

/// A file with its own read position.
struct Cursor {
    file: Arc<dyn Blob>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len().saturating_sub(self.at);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read(self.at, &mut buf[..len], self.file.calls()).map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(back) => self.file.len().checked_add_signed(back),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

//! The superblock (II.A), which has the place of the root group and the widths of addresses and lengths.

use std::sync::Arc;

use super::cursor::{Cursor, Sizes};
use super::failure::{Failure, Result};
use super::image::{Image, ImageBytes, check};
use crate::types::size::memory_len;

pub(crate) const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
const WHAT: &str = "superblock";
/// The longest superblock, with addresses of 8 bytes.
const MOST_BYTES: u64 = 128;

/// The fields of a superblock.
#[derive(Debug)]
pub(crate) struct Superblock {
    pub(crate) version: u8,
    /// The address of the root group's header.
    pub(crate) root: u64,
    /// The address of the header with more messages about the file.
    pub(crate) extension: Option<u64>,
    /// End of the file, as an offset in the storage.
    pub(crate) end: u64,
}

/// Reads the superblock at byte `at` of a storage. Addresses count from there.
///
/// A superblock states a base for addresses. Like the HDF5 library, this uses the place where the superblock was found instead: a
/// block in front of the file may have been added or removed since.
pub(crate) fn open(storage: Arc<dyn ImageBytes>, at: u64) -> Result<(Image, Superblock)> {
    let mut front = vec![0; memory_len(storage.len().saturating_sub(at).min(MOST_BYTES))];
    storage.read_at(at, &mut front).map_err(Failure::Read)?;
    let unknown = Sizes { address: 8, length: 8 };
    let mut cursor = Cursor::new(&front, at, unknown, WHAT);
    if cursor.take(SIGNATURE.len())? != SIGNATURE {
        return Err(Failure::broken(at, WHAT, "no HDF5 signature"));
    }
    let version = cursor.version(0..=3)?;
    if version < 2 {
        cursor.skip(4)?;
    }
    let sizes = sizes(&mut cursor)?;
    let mut cursor = Cursor::new(cursor.rest(), cursor.place(), sizes, WHAT);
    let (base, extension, end, root);
    if version < 2 {
        // The child counts of B-trees follow, which readers do not need: nodes have their own.
        cursor.skip(if version == 1 { 13 } else { 9 })?;
        base = cursor.known_address("the base")?;
        cursor.address()?;
        end = cursor.known_address("the end of the file")?;
        cursor.address()?;
        // The symbol table entry of the root group (III.C).
        cursor.address()?;
        (root, extension) = (cursor.known_address("the root group")?, None);
    } else {
        cursor.skip(1)?;
        base = cursor.known_address("the base")?;
        extension = cursor.address()?;
        end = cursor.known_address("the end of the file")?;
        root = cursor.known_address("the root group")?;
        let len = front.len() - cursor.left();
        check(cursor.u32()?, &front[..len], &cursor)?;
    }
    let end = end.saturating_sub(base).saturating_add(at);
    Ok((Image::new(storage, at, sizes), Superblock { version, root, extension, end }))
}

fn sizes(cursor: &mut Cursor<'_>) -> Result<Sizes> {
    let sizes = Sizes { address: cursor.u8()?, length: cursor.u8()? };
    if [sizes.address, sizes.length].iter().all(|size| matches!(size, 2 | 4 | 8)) {
        return Ok(sizes);
    }
    Err(cursor.failure(format!("addresses of {} bytes and lengths of {}, expected 2, 4 or 8", sizes.address, sizes.length)))
}

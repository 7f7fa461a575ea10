//! Reads blocks of an HDF5 file by address, within bounds.

use std::collections::HashSet;
use std::sync::Arc;

use super::cursor::{Cursor, Sizes};
use super::failure::{Failure, Result};
use super::lookup3::lookup3;
use crate::error::Error;
use crate::types::size::memory_len;

/// Limit for a block of metadata.
const MOST_BYTES: u64 = 128 << 20;

/// A source of the bytes of an HDF5 file.
pub(crate) trait ImageBytes: std::fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from byte `at`; the whole range is inside the storage.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<(), Error>;
}

/// The HDF5 file in a storage.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    storage: Arc<dyn ImageBytes>,
    /// Offset of the superblock. Addresses count from here.
    base: u64,
    sizes: Sizes,
}

impl Image {
    pub(crate) fn new(storage: Arc<dyn ImageBytes>, base: u64, sizes: Sizes) -> Self {
        Self { storage, base, sizes }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Converts an address to an offset in the storage.
    pub(crate) fn place(&self, address: u64) -> u64 {
        self.base.saturating_add(address)
    }

    /// The length of the storage.
    pub(crate) fn len(&self) -> u64 {
        self.storage.len()
    }

    /// Reads the `len` bytes at an address, called `what` in messages.
    pub(crate) fn read(&self, address: u64, len: u64, what: &'static str) -> Result<Block> {
        let at = self.place(address);
        let have = self.storage.len().saturating_sub(at);
        if len > have || at > self.storage.len() {
            return Err(Failure::broken(at, what, format!("{len} bytes, the file has {have} from here on")));
        }
        if len > MOST_BYTES {
            return Err(Failure::broken(at, what, format!("{len} bytes, at most {MOST_BYTES} are read")));
        }
        let mut bytes = vec![0; memory_len(len)];
        self.storage.read_at(at, &mut bytes).map_err(Failure::Read)?;
        Ok(Block { at, bytes, sizes: self.sizes })
    }

    /// Reads `most` bytes at an address, or up to the end of the file.
    pub(crate) fn read_up_to(&self, address: u64, most: u64, what: &'static str) -> Result<Block> {
        let have = self.storage.len().saturating_sub(self.place(address));
        self.read(address, most.min(have), what)
    }
}

/// A block of the file.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its offset in the storage.
    at: u64,
    bytes: Vec<u8>,
    sizes: Sizes,
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A copy of the `len` bytes from byte `start` on, if the block has them.
    pub(crate) fn part(&self, start: u64, len: u64) -> Option<Self> {
        let start_here = usize::try_from(start).ok()?;
        let bytes = self.bytes.get(start_here..start_here.checked_add(usize::try_from(len).ok()?)?)?;
        Some(Self { at: self.at + start, bytes: bytes.to_vec(), sizes: self.sizes })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn cursor(&self, what: &'static str) -> Cursor<'_> {
        Cursor::new(&self.bytes, self.at, self.sizes, what)
    }

    /// Verifies the checksum in the last four bytes; returns a cursor over the rest.
    pub(crate) fn checked(&self, what: &'static str) -> Result<Cursor<'_>> {
        let cursor = self.cursor(what);
        let Some((bytes, sum)) = self.bytes.split_last_chunk::<4>() else {
            return Err(cursor.failure("no room for a checksum"));
        };
        check(u32::from_le_bytes(*sum), bytes, &cursor)?;
        Ok(Cursor::new(bytes, self.at, self.sizes, what))
    }
}

/// Verifies the checksum of `bytes`; errors are placed at `place`.
pub(crate) fn check(expected: u32, bytes: &[u8], place: &Cursor<'_>) -> Result<()> {
    let actual = lookup3(bytes);
    #[cfg(test)]
    let expected = if tests::LETS_CHECKSUMS_PASS.get() { actual } else { expected };
    if actual == expected {
        return Ok(());
    }
    Err(place.failure(format!("checksum is {actual:#010x}, the file says {expected:#010x}")))
}

/// Reads the blocks of one structure, each only once.
///
/// A damaged tree could lead back to itself or claim overlapping blocks. So no block is read twice, and the sum of all blocks may
/// not exceed the file.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    image: &'a Image,
    seen: HashSet<u64>,
    left: u64,
}

impl<'a> Visit<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        Self { image, seen: HashSet::new(), left: image.len() }
    }

    pub(crate) fn image(&self) -> &'a Image {
        self.image
    }

    /// Reads the `len` bytes at an address that has not been read before.
    pub(crate) fn read(&mut self, address: u64, len: u64, what: &'static str) -> Result<Block> {
        if !self.seen.insert(address) {
            return Err(Failure::broken(self.image.place(address), what, "it is referenced twice"));
        }
        let overlap = || Failure::broken(self.image.place(address), what, "all blocks have more bytes than the file: they overlap");
        self.left = self.left.checked_sub(len).ok_or_else(overlap)?;
        self.image.read(address, len, what)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Lets damage reach the parsers, as if its checksum had been adapted.
        pub(crate) static LETS_CHECKSUMS_PASS: Cell<bool> = const { Cell::new(false) };
    }

    impl ImageBytes for Vec<u8> {
        fn len(&self) -> u64 {
            Vec::len(self) as u64
        }

        fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<(), Error> {
            let at = usize::try_from(at).unwrap();
            buf.copy_from_slice(&self[at..at + buf.len()]);
            Ok(())
        }
    }

    fn image(bytes: &[u8]) -> Image {
        Image::new(Arc::new(bytes.to_vec()), 2, Sizes { address: 8, length: 8 })
    }

    #[test]
    fn addresses_count_from_the_base_and_end_with_the_file() {
        let image = image(b"..abcdef");
        assert_eq!(image.read(1, 3, "block").unwrap().bytes(), b"bcd");
        assert_eq!(image.read_up_to(4, 10, "block").unwrap().bytes(), b"ef");
        for (address, len) in [(4, 3), (7, 1), (u64::MAX - 1, 1), (0, u64::MAX)] {
            assert!(image.read(address, len, "block").is_err());
        }
    }

    #[test]
    fn no_block_is_visited_twice_and_all_fit_the_file() {
        let image = image(b"..abcdef");
        let mut visit = Visit::new(&image);
        visit.read(0, 3, "block").unwrap();
        assert!(visit.read(0, 1, "block").is_err(), "twice");
        visit.read(1, 5, "block").unwrap();
        assert!(visit.read(2, 1, "block").is_err(), "more than the file");
    }

    #[test]
    fn a_flipped_bit_is_found_by_its_checksum() {
        let mut bytes = b"..abcd".to_vec();
        bytes.extend(lookup3(b"abcd").to_le_bytes());
        assert!(image(&bytes).read(0, 8, "block").unwrap().checked("block").is_ok());
        bytes[3] ^= 1;
        assert!(image(&bytes).read(0, 8, "block").unwrap().checked("block").is_err());
    }
}

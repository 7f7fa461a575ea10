//! Extensible arrays (VII.D): the chunk index of a dataset that is unlimited along one axis.
//!
//! An index block has the first entries, the addresses of the first data blocks, and the addresses of super blocks, which point to
//! the other data blocks. Each super block covers more and longer data blocks than the one before. Long data blocks are split into
//! pages.

use super::chunk_entries::{Entries, StoredChunk};
use super::cursor::Cursor;
use super::failure::Result;
use super::fixed_array::bit;
use super::image::{Image, Visit};
use crate::types::size::memory_len;

const WHAT: &str = "extensible array";
const CHECKSUM: u64 = 4;
/// Bytes before the content of a block: signature, version, client.
const FRONT: u64 = 6;

/// The fields of the header, and the state of the walk.
struct Array<'a> {
    visit: Visit<'a>,
    entries: Entries,
    entry_len: u64,
    /// Entries in the index block.
    index_entries: u64,
    /// Entries of the shortest data block.
    least_entries: u64,
    /// Number of data blocks of the first super block that is stored.
    least_blocks: u64,
    /// Entries of a page.
    page: u64,
    /// The width of a block's offset in the array.
    offset_width: u64,
    /// One more than the number of the last entry that was written.
    end: u64,
    /// The number of the next entry.
    next: u64,
}

/// The data blocks of a super block.
#[derive(Debug, Clone, Copy)]
struct SuperBlock {
    blocks: u64,
    /// Entries of each data block.
    entries: u64,
}

/// Calls `found` with the number and the place of every chunk in the array at `address`.
pub(crate) fn for_each(image: &Image, address: u64, chunk_bytes: u64, mut found: impl FnMut(u64, StoredChunk) -> Result<()>) -> Result<()> {
    let sizes = image.sizes();
    let (address_len, length_len) = (u64::from(sizes.address), u64::from(sizes.length));
    let header = image.read(address, 12 + 6 * length_len + address_len + CHECKSUM, WHAT)?;
    let mut cursor = header.checked(WHAT)?;
    cursor.signature(*b"EAHD")?;
    cursor.version(0..=0)?;
    let place = cursor.clone();
    let (client, entry_len) = (cursor.u8()?, cursor.u8()?);
    let entries = Entries::of_array(client, entry_len, chunk_bytes, &place)?;
    let [bits, index_entries, least_entries, least_blocks, page_bits] =
        [cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?];
    for _ in 0..4 {
        cursor.length()?;
    }
    let end = cursor.length()?;
    cursor.length()?;
    let Some(index) = cursor.address()? else { return Ok(()) };
    let is_sound = least_entries.is_power_of_two() && least_blocks.is_power_of_two() && least_blocks > 1;
    let least_bits = least_entries.checked_ilog2().unwrap_or(0);
    if !is_sound || bits > 64 || page_bits > 32 || u32::from(bits) < least_bits {
        let detail =
            format!("2^{bits} entries in blocks of {least_entries} or more, {least_blocks} blocks or more, pages of 2^{page_bits}");
        return Err(place.failure(detail));
    }
    let mut array = Array {
        visit: Visit::new(image),
        entries,
        entry_len: entries.nbytes(image),
        index_entries: index_entries.into(),
        least_entries: least_entries.into(),
        least_blocks: least_blocks.into(),
        page: 1 << page_bits,
        offset_width: u64::from(bits).div_ceil(8),
        end,
        next: 0,
    };
    array.index_block(index, u32::from(bits) - least_bits + 1, &mut found)
}

impl Array<'_> {
    fn super_block_of(&self, number: u32) -> Option<SuperBlock> {
        let entries = self.least_entries.checked_mul(1u64.checked_shl(number.div_ceil(2))?)?;
        Some(SuperBlock { blocks: 1u64.checked_shl(number / 2)?, entries })
    }

    /// VII.D, "Extensible Array Index Block".
    fn index_block(&mut self, address: u64, super_blocks: u32, found: &mut impl FnMut(u64, StoredChunk) -> Result<()>) -> Result<()> {
        const WHAT: &str = "extensible array index block";
        let address_len = u64::from(self.visit.image().sizes().address);
        // The first super blocks are not stored.
        let inside = 2 * self.least_blocks.ilog2();
        let blocks = 2 * (self.least_blocks - 1);
        let others = u64::from(super_blocks.saturating_sub(inside));
        let len = FRONT + address_len + self.index_entries * self.entry_len + (blocks + others) * address_len + CHECKSUM;
        let block = self.visit.read(address, len, WHAT)?;
        let mut cursor = block.checked(WHAT)?;
        front(&mut cursor, *b"EAIB")?;
        self.entries(&mut cursor, self.index_entries, found)?;
        let too_many = |place: &Cursor<'_>| place.failure("super blocks with 2^64 entries or more");
        for number in 0..inside {
            let of = self.super_block_of(number).ok_or_else(|| too_many(&cursor))?;
            for _ in 0..of.blocks {
                // These data blocks have no pages: no super block says which pages were written.
                let data = cursor.address()?;
                self.data_block(data, of.entries, None, found)?;
            }
        }
        for number in inside..super_blocks {
            let of = self.super_block_of(number).ok_or_else(|| too_many(&cursor))?;
            match cursor.address()? {
                Some(address) => self.super_block(address, of, found)?,
                None => self.pass(of.blocks.saturating_mul(of.entries)),
            }
        }
        Ok(())
    }

    /// VII.D, "Extensible Array Secondary Block".
    fn super_block(&mut self, address: u64, of: SuperBlock, found: &mut impl FnMut(u64, StoredChunk) -> Result<()>) -> Result<()> {
        const WHAT: &str = "extensible array super block";
        let address_len = u64::from(self.visit.image().sizes().address);
        let pages = if of.entries > self.page { of.entries / self.page } else { 0 };
        let bits = of.blocks.saturating_mul(pages.div_ceil(8));
        let addresses = of.blocks.saturating_mul(address_len);
        let len = (FRONT + address_len + self.offset_width + CHECKSUM).saturating_add(bits).saturating_add(addresses);
        let block = self.visit.read(address, len, WHAT)?;
        let mut cursor = block.checked(WHAT)?;
        front(&mut cursor, *b"EASB")?;
        cursor.skip(memory_len(self.offset_width))?;
        let is_written = cursor.take(memory_len(bits))?;
        for number in 0..of.blocks {
            let pages = (pages > 0).then_some((is_written, number * pages));
            self.data_block(cursor.address()?, of.entries, pages, found)?;
        }
        Ok(())
    }

    /// VII.D, "Extensible Array Data Block". `pages` has the bits of the written pages, and the number of the first page.
    fn data_block(
        &mut self,
        address: Option<u64>,
        count: u64,
        pages: Option<(&[u8], u64)>,
        found: &mut impl FnMut(u64, StoredChunk) -> Result<()>,
    ) -> Result<()> {
        const WHAT: &str = "extensible array data block";
        let Some(address) = address.filter(|_| self.next < self.end) else {
            self.pass(count);
            return Ok(());
        };
        let front_len = FRONT + u64::from(self.visit.image().sizes().address) + self.offset_width + CHECKSUM;
        let inside = if pages.is_some() { 0 } else { count.saturating_mul(self.entry_len) };
        let block = self.visit.read(address, front_len.saturating_add(inside), WHAT)?;
        let mut cursor = block.checked(WHAT)?;
        front(&mut cursor, *b"EADB")?;
        cursor.skip(memory_len(self.offset_width))?;
        let Some((is_written, first)) = pages else { return self.entries(&mut cursor, count, found) };
        let page_len = self.page.saturating_mul(self.entry_len).saturating_add(CHECKSUM);
        for number in 0..count / self.page {
            if self.next >= self.end || !bit(is_written, first + number) {
                self.pass(self.page);
                continue;
            }
            let at = number.saturating_mul(page_len).saturating_add(address).saturating_add(front_len);
            let block = self.visit.read(at, page_len, "extensible array page")?;
            self.entries(&mut block.checked("extensible array page")?, self.page, found)?;
        }
        Ok(())
    }

    fn entries(&mut self, cursor: &mut Cursor<'_>, count: u64, found: &mut impl FnMut(u64, StoredChunk) -> Result<()>) -> Result<()> {
        for _ in 0..count {
            if let Some(chunk) = self.entries.parse(self.visit.image(), cursor)? {
                found(self.next, chunk)?;
            }
            self.pass(1);
        }
        Ok(())
    }

    fn pass(&mut self, count: u64) {
        self.next = self.next.saturating_add(count);
    }
}

/// The front of every block: its signature and version, and the address of the header.
fn front(cursor: &mut Cursor<'_>, signature: [u8; 4]) -> Result<()> {
    cursor.signature(signature)?;
    cursor.version(0..=0)?;
    cursor.skip(1)?;
    cursor.address()?;
    Ok(())
}

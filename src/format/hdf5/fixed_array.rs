//! Fixed arrays (VII.C): the chunk index of a dataset whose axes are all limited.

use super::chunk_entries::{Entries, StoredChunk};
use super::failure::Result;
use super::image::{Image, Visit};

const CHECKSUM: u64 = 4;

/// Calls `found` with the number and the place of every chunk in the array at `address`.
pub(crate) fn for_each(image: &Image, address: u64, chunk_bytes: u64, mut found: impl FnMut(u64, StoredChunk) -> Result<()>) -> Result<()> {
    const WHAT: &str = "fixed array";
    const BLOCK: &str = "fixed array data block";
    const PAGE: &str = "fixed array page";
    let sizes = image.sizes();
    let header = image.read(address, 8 + u64::from(sizes.length) + u64::from(sizes.address) + CHECKSUM, WHAT)?;
    let mut cursor = header.checked(WHAT)?;
    cursor.signature(*b"FAHD")?;
    cursor.version(0..=0)?;
    let place = cursor.clone();
    let (client, entry_len, page_bits) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
    let entries = Entries::of_array(client, entry_len, chunk_bytes, &place)?;
    let count = cursor.length()?;
    let Some(block) = cursor.address()? else { return Ok(()) };
    let page = 1u64.checked_shl(page_bits.into()).ok_or_else(|| place.failure(format!("pages of 2^{page_bits} entries")))?;
    let entry_len = entries.nbytes(image);
    let (pages, bits) = if count > page { (count.div_ceil(page), count.div_ceil(page).div_ceil(8)) } else { (0, 0) };
    let inside = if pages > 0 { 0 } else { count.saturating_mul(entry_len) };
    let front_len = 6 + u64::from(sizes.address) + bits;
    let mut visit = Visit::new(image);
    let data = visit.read(block, (front_len + CHECKSUM).saturating_add(inside), BLOCK)?;
    let mut cursor = data.checked(BLOCK)?;
    cursor.signature(*b"FADB")?;
    cursor.version(0..=0)?;
    cursor.skip(1)?;
    cursor.address()?;
    if pages == 0 {
        for number in 0..count {
            entries.parse(image, &mut cursor)?.map_or(Ok(()), |chunk| found(number, chunk))?;
        }
        return Ok(());
    }
    let is_written = cursor.rest();
    let page_len = page.saturating_mul(entry_len).saturating_add(CHECKSUM);
    for number in (0..pages).filter(|&number| bit(is_written, number)) {
        let first = number * page;
        let here = page.min(count - first);
        let at = number.saturating_mul(page_len).saturating_add(block).saturating_add(front_len + CHECKSUM);
        let data = visit.read(at, here.saturating_mul(entry_len).saturating_add(CHECKSUM), PAGE)?;
        let mut cursor = data.checked(PAGE)?;
        for number in first..first + here {
            entries.parse(image, &mut cursor)?.map_or(Ok(()), |chunk| found(number, chunk))?;
        }
    }
    Ok(())
}

/// A bit of a bitmap that starts each byte at the highest bit.
pub(crate) fn bit(bytes: &[u8], number: u64) -> bool {
    let byte = usize::try_from(number / 8).ok().and_then(|at| bytes.get(at));
    byte.is_some_and(|byte| byte & (0x80 >> (number % 8)) != 0)
}

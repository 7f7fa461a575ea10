//! Groups of the old form: names in a local heap (III.D), links in symbol tables (III.B, III.C) under a B-tree.

use super::btree_v1::{self, Indexed};
use super::cursor::{Cursor, text};
use super::failure::Result;
use super::image::{Block, Image, Visit};
use super::link::{Link, LinkTarget};

/// The links of a group with a symbol table message (IV.A.2.r).
pub(crate) fn links(image: &Image, mut message: Cursor<'_>) -> Result<Vec<Link>> {
    let (tree, heap) = (message.known_address("the tree of links")?, message.known_address("the heap of names")?);
    let block = local_heap(image, heap)?;
    let mut names = Names { left: block.bytes().len(), block };
    let (mut links, mut visit) = (Vec::new(), Visit::new(image));
    let key_len = usize::from(image.sizes().length);
    btree_v1::for_each(image, tree, Indexed::Links, key_len, |_, table| symbols(&mut visit, table, &mut names, &mut links))?;
    Ok(links)
}

/// The data segment of a local heap.
fn local_heap(image: &Image, address: u64) -> Result<Block> {
    const WHAT: &str = "local heap";
    let sizes = image.sizes();
    let front = image.read(address, 8 + 2 * u64::from(sizes.length) + u64::from(sizes.address), WHAT)?;
    let mut cursor = front.cursor(WHAT);
    cursor.signature(*b"HEAP")?;
    cursor.version(0..=0)?;
    cursor.skip(3)?;
    let len = cursor.length()?;
    cursor.length()?;
    image.read(cursor.known_address("its data")?, len, WHAT)
}

/// The links in a table.
fn symbols(visit: &mut Visit<'_>, address: u64, names: &mut Names, links: &mut Vec<Link>) -> Result<()> {
    const WHAT: &str = "symbol table";
    const FRONT: u64 = 8;
    const SCRATCH: usize = 16;
    const IS_SOFT: u32 = 2;
    let front = visit.image().read(address, FRONT, WHAT)?;
    let mut cursor = front.cursor(WHAT);
    cursor.signature(*b"SNOD")?;
    cursor.version(1..=1)?;
    cursor.skip(1)?;
    let count = cursor.u16()?;
    let address_len = usize::from(cursor.sizes().address);
    let entry_len = 2 * address_len + 8 + SCRATCH;
    let table = visit.read(address, FRONT + u64::from(count) * entry_len as u64, WHAT)?;
    let mut cursor = table.cursor(WHAT);
    cursor.skip(8)?;
    for _ in 0..count {
        let mut entry = cursor.part(entry_len)?;
        let place = entry.clone();
        let name = entry.uint(address_len)?;
        let object = entry.address()?;
        let is_soft = entry.u32()? == IS_SOFT;
        entry.skip(4)?;
        let target = match object {
            _ if is_soft => LinkTarget::Path(names.at(entry.u32()?.into(), &place)?),
            Some(address) => LinkTarget::Object(address),
            None => return Err(place.failure("the address of a linked object is undefined")),
        };
        links.push(Link { name: names.at(name, &place)?, target });
    }
    Ok(())
}

/// The names of links.
struct Names {
    block: Block,
    /// Bytes of names that may still be read: names do not overlap, so there is a limit.
    left: usize,
}

impl Names {
    /// The name at an offset; `place` is the entry that refers to it.
    fn at(&mut self, offset: u64, place: &Cursor<'_>) -> Result<String> {
        let len = self.block.bytes().len();
        let rest = usize::try_from(offset).ok().and_then(|offset| self.block.bytes().get(offset..));
        let rest = rest.ok_or_else(|| place.failure(format!("a name at byte {offset} of a heap of {len} bytes")))?;
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        self.left = self.left.checked_sub(end).ok_or_else(|| place.failure(format!("names overlap in a heap of {len} bytes")))?;
        Ok(text(&rest[..end]))
    }
}

//! B-trees of version 1 (III.A.1), which index the links of old groups and the chunks of most datasets.

use super::cursor::Cursor;
use super::failure::Result;
use super::image::{Image, Visit};

/// Limit for the depth of trees.
const MOST_LEVELS: u8 = 32;

/// The entries of a tree: the type of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Indexed {
    Links = 0,
    Chunks = 1,
}

/// Calls `found` with the key and the address of every entry of the tree at `root`. Keys take `key_len` bytes.
pub(crate) fn for_each(
    image: &Image,
    root: u64,
    indexed: Indexed,
    key_len: usize,
    mut found: impl FnMut(Cursor<'_>, u64) -> Result<()>,
) -> Result<()> {
    const WHAT: &str = "B-tree node";
    let address_len = usize::from(image.sizes().address);
    let front_len = 8 + 2 * address_len;
    let mut visit = Visit::new(image);
    let mut open = vec![(root, None)];
    while let Some((address, expected)) = open.pop() {
        let front = image.read(address, front_len as u64, WHAT)?;
        let mut cursor = front.cursor(WHAT);
        cursor.signature(*b"TREE")?;
        let place = cursor.clone();
        let (kind, level, count) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
        if kind != indexed as u8 {
            return Err(place.failure(format!("type is {kind}, expected {}", indexed as u8)));
        }
        if expected.map_or(level > MOST_LEVELS, |expected| level != expected) {
            return Err(place.failure(format!("level is {level}, expected {}", expected.unwrap_or(MOST_LEVELS))));
        }
        // Keys stand before, between and after the children. The last one is not needed.
        let len = front_len + usize::from(count) * (key_len + address_len);
        let node = visit.read(address, len as u64, WHAT)?;
        let mut cursor = node.cursor(WHAT);
        cursor.skip(front_len)?;
        let first = open.len();
        for _ in 0..count {
            let key = cursor.part(key_len)?;
            let child = cursor.known_address("a child")?;
            match level.checked_sub(1) {
                None => found(key, child)?,
                below => open.push((child, below)),
            }
        }
        open[first..].reverse();
    }
    Ok(())
}

//! B-trees of version 2 (III.A.2), which index links, attributes, objects of heaps and chunks.

use super::cursor::{Cursor, width_of};
use super::failure::Result;
use super::image::{Image, Visit};
use crate::types::size::memory_len;

/// Limit for the depth of trees.
const MOST_LEVELS: u16 = 32;
/// A signature, a version and a type before the records of a node.
const FRONT: u64 = 6;
const CHECKSUM: u64 = 4;

/// The type of a tree's records, from its header.
pub(crate) type RecordType = u8;
/// Huge objects of a heap, by their numbers.
pub(crate) const HUGE_OBJECTS: RecordType = 1;
/// The same, with filters.
pub(crate) const HUGE_FILTERED_OBJECTS: RecordType = 2;
/// Links by the hash of their names.
pub(crate) const LINK_NAMES: RecordType = 5;
/// Attributes by the hash of their names.
pub(crate) const ATTRIBUTE_NAMES: RecordType = 8;
/// Chunks without filters.
pub(crate) const CHUNKS: RecordType = 10;
/// Chunks with filters.
pub(crate) const FILTERED_CHUNKS: RecordType = 11;

/// Calls `found` with the type and the bytes of every record in the tree at `address`.
pub(crate) fn for_each(
    image: &Image,
    address: u64,
    types: &[RecordType],
    mut found: impl FnMut(RecordType, Cursor<'_>) -> Result<()>,
) -> Result<()> {
    const WHAT: &str = "B-tree header";
    const NODE: &str = "B-tree node";
    let sizes = image.sizes();
    let header = image.read(address, 22 + u64::from(sizes.address) + u64::from(sizes.length), WHAT)?;
    let mut cursor = header.checked(WHAT)?;
    cursor.signature(*b"BTHD")?;
    cursor.version(0..=0)?;
    let kind = cursor.u8()?;
    if !types.contains(&kind) {
        return Err(cursor.failure(format!("records are of type {kind}, expected one of {types:?}")));
    }
    let (node_len, record_len, depth) = (u64::from(cursor.u32()?), u64::from(cursor.u16()?), cursor.u16()?);
    cursor.skip(2)?;
    let root = cursor.address()?;
    let (root_count, all) = (u64::from(cursor.u16()?), cursor.length()?);
    let place = cursor;
    let (count_width, all_widths) = widths(node_len, record_len, depth, sizes.address)
        .ok_or_else(|| place.failure(format!("records of {record_len} bytes in nodes of {node_len}, at depth {depth}")))?;
    let (mut visit, mut open, mut seen) = (Visit::new(image), Vec::new(), 0);
    open.extend(root.filter(|_| root_count > 0).map(|root| (root, root_count, usize::from(depth))));
    while let Some((address, count, level)) = open.pop() {
        let pointer = level.checked_sub(1).map_or(0, |below| usize::from(sizes.address) + count_width + all_widths[below]);
        let pointers = if level > 0 { (count + 1) * pointer as u64 } else { 0 };
        let len = FRONT + count * record_len + pointers + CHECKSUM;
        if len > node_len {
            return Err(place.failure(format!("a node with {count} records, which do not fit its {node_len} bytes")));
        }
        let node = visit.read(address, len, NODE)?;
        let mut cursor = node.checked(NODE)?;
        cursor.signature(if level > 0 { *b"BTIN" } else { *b"BTLF" })?;
        cursor.version(0..=0)?;
        if cursor.u8()? != kind {
            return Err(cursor.failure("the type of records differs from the header"));
        }
        for _ in 0..count {
            found(kind, cursor.part(memory_len(record_len))?)?;
        }
        seen += count;
        let first = open.len();
        if let Some(below) = level.checked_sub(1) {
            for _ in 0..=count {
                let child = cursor.known_address("a child")?;
                open.push((child, cursor.uint(count_width)?, below));
                cursor.skip(all_widths[below])?;
            }
        }
        open[first..].reverse();
    }
    if seen != all {
        return Err(place.failure(format!("{seen} records, expected {all}")));
    }
    Ok(())
}

/// The widths of the counts beside a child's address: of its records, and, by its level, of all records in it and below. III.A.2,
/// "Version 2 B-tree, Internal Node".
fn widths(node_len: u64, record_len: u64, depth: u16, address: u8) -> Option<(usize, Vec<usize>)> {
    (record_len > 0 && depth <= MOST_LEVELS).then_some(())?;
    let room = node_len.checked_sub(FRONT + CHECKSUM)?;
    let leaf = room / record_len;
    let count_width = width_of(leaf);
    // The most records of a node and all nodes below it, by level. Leaves have none below.
    let (mut all, mut all_widths) = (leaf, vec![0]);
    for level in 0..usize::from(depth) {
        let pointer = u64::from(address) + (count_width + all_widths[level]) as u64;
        let most = room.checked_sub(pointer)? / (record_len + pointer);
        all = most.checked_add(1)?.saturating_mul(all).saturating_add(most);
        all_widths.push(width_of(all));
    }
    Some((count_width, all_widths))
}

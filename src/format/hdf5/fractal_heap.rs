//! Fractal heaps (III.G): links of large groups, attributes of objects that have many, and shared messages.

use std::collections::HashMap;

use super::cursor::{Cursor, width_of};
use super::failure::{Failure, Result};
use super::filters::Step;
use super::image::{Block, Image, Visit, check};
use super::{btree_v2, filter_pipeline};
use crate::types::size::memory_len;

const WHAT: &str = "fractal heap";
const DIRECT: &str = "fractal heap block";
const CHECKSUM: u64 = 4;
/// Limit for the length of a block and of an object.
const MOST_BYTES: u64 = 64 << 20;
/// Limit for nested indirect blocks.
const MOST_LEVELS: usize = 64;

/// A heap whose direct blocks have been found.
#[derive(Debug)]
pub(crate) struct Heap<'a> {
    visit: Visit<'a>,
    front: Front,
    /// Sorted by their starts in the heap.
    blocks: Vec<DirectBlock>,
    /// The block that was read last: its number and its bytes.
    last: Option<(usize, Block)>,
    /// Addresses and lengths of huge objects, by their numbers; read when first needed.
    huge: Option<HashMap<u64, (u64, u64)>>,
    /// Bytes of objects that may still be read: objects do not overlap, so there is a limit.
    left: u64,
}

/// A block that holds objects.
#[derive(Debug, Clone, Copy)]
struct DirectBlock {
    /// Start in the address space of the heap.
    start: u64,
    len: u64,
    address: u64,
    /// Its stored length, and the filters that were skipped.
    filtered: Option<(u64, u32)>,
}

/// The header of a heap.
#[derive(Debug)]
struct Front {
    id_len: usize,
    has_checksums: bool,
    huge_tree: Option<u64>,
    width: u64,
    first_len: u64,
    most_direct: u64,
    offset_width: usize,
    length_width: usize,
    steps: Vec<Step>,
}

/// The kind of an object: bits 4 and 5 of the first byte of its identifier.
const MANAGED: u8 = 0;
const HUGE: u8 = 1;
const TINY: u8 = 2;

impl<'a> Heap<'a> {
    pub(crate) fn open(image: &'a Image, address: u64) -> Result<Self> {
        let (front, root, rows, filtered) = front(image, address)?;
        let mut heap = Self { visit: Visit::new(image), front, blocks: Vec::new(), last: None, huge: None, left: 0 };
        match root {
            Some(root) if rows == 0 => {
                heap.blocks.push(DirectBlock { start: 0, len: heap.front.first_len, address: root, filtered });
            }
            Some(root) => heap.indirect(root, rows)?,
            None => {}
        }
        heap.left = heap.blocks.iter().fold(image.len(), |left, block| left.saturating_add(block.len));
        Ok(heap)
    }

    /// Finds the direct blocks below the indirect block at `root`.
    fn indirect(&mut self, root: u64, rows: u64) -> Result<()> {
        let mut open = vec![(root, rows, 0u64, 0)];
        while let Some((address, rows, mut start, depth)) = open.pop() {
            let place = self.visit.image().place(address);
            let broken = |detail: &str| Failure::broken(place, WHAT, detail);
            if depth > MOST_LEVELS {
                return Err(broken("indirect blocks nest too deep"));
            }
            let (sizes, front) = (self.visit.image().sizes(), &self.front);
            let (address_len, length_len) = (u64::from(sizes.address), u64::from(sizes.length));
            let is_direct = |row| front.block_len(row).is_some_and(|len| len <= front.most_direct);
            let direct_rows = (0..rows).take_while(|&row| is_direct(row)).count() as u64;
            let filter_len = if front.steps.is_empty() { 0 } else { length_len + 4 };
            let entries = rows.saturating_mul(front.width).saturating_mul(address_len);
            let filters = direct_rows.saturating_mul(front.width).saturating_mul(filter_len);
            let before = 5 + address_len + front.offset_width as u64;
            let block = self.visit.read(address, (before + CHECKSUM).saturating_add(entries).saturating_add(filters), WHAT)?;
            let mut cursor = block.checked(WHAT)?;
            cursor.signature(*b"FHIB")?;
            cursor.skip(memory_len(before - 4))?;
            for row in 0..rows {
                let len = self.front.block_len(row).ok_or_else(|| broken("rows whose blocks have 2^64 bytes or more"))?;
                for _ in 0..self.front.width {
                    let child = cursor.address()?;
                    if row < direct_rows {
                        let filtered = if filter_len > 0 { Some((cursor.length()?, cursor.u32()?)) } else { None };
                        self.blocks.extend(child.map(|address| DirectBlock { start, len, address, filtered }));
                    } else if let Some(child) = child {
                        let rows = self.front.rows_of(len).ok_or_else(|| broken("an indirect block of less than a row"))?;
                        open.push((child, rows, start, depth + 1));
                    }
                    start = start.checked_add(len).ok_or_else(|| broken("more than 2^64 bytes"))?;
                }
            }
        }
        self.blocks.sort_by_key(|block| block.start);
        Ok(())
    }

    /// Calls `found` with each object, in the order of the heap, so that each block is read once.
    pub(crate) fn objects(&mut self, mut ids: Vec<Vec<u8>>, mut found: impl FnMut(Cursor<'_>) -> Result<()>) -> Result<()> {
        ids.sort_by_cached_key(|id| self.managed(id).map_or(0, |(offset, _)| offset));
        ids.iter().try_for_each(|id| self.object(id, &mut found))
    }

    /// Offset in the heap's address space, and length, of an object stored in a block.
    fn managed(&self, id: &[u8]) -> Option<(u64, u64)> {
        let sizes = self.visit.image().sizes();
        let mut cursor = Cursor::new(id, 0, sizes, WHAT);
        if cursor.u8().ok()? >> 4 & 3 != MANAGED {
            return None;
        }
        Some((cursor.uint(self.front.offset_width).ok()?, cursor.uint(self.front.length_width).ok()?))
    }

    /// Calls `found` with an object.
    pub(crate) fn object(&mut self, id: &[u8], found: impl FnOnce(Cursor<'_>) -> Result<()>) -> Result<()> {
        /// In identifiers up to this length, the first byte has the length of a tiny object.
        const SHORT: usize = 17;
        let image = self.visit.image();
        let broken = |detail: String| Failure::broken(image.place(0), WHAT, detail);
        let kind = id.first().map(|first| first >> 4 & 3);
        match (kind, self.managed(id)) {
            (_, Some((offset, len))) => {
                let at = self.blocks.partition_point(|block| block.start <= offset).checked_sub(1);
                let inside = at.map(|at| (at, offset - self.blocks[at].start)).filter(|&(at, before)| before < self.blocks[at].len);
                let (at, before) =
                    inside.ok_or_else(|| broken(format!("an object at byte {offset} of the heap, where it has no block")))?;
                self.count(len)?;
                let mut cursor = self.block(at)?.cursor(DIRECT);
                cursor.skip(memory_len(before))?;
                found(cursor.part(memory_len(len))?)
            }
            (Some(HUGE), _) => {
                let (address, len) = self.huge(id)?;
                if len > MOST_BYTES {
                    return Err(broken(format!("an object of {len} bytes, at most {MOST_BYTES} are read")));
                }
                self.count(len)?;
                found(image.read(address, len, "object of a fractal heap")?.cursor("object of a fractal heap"))
            }
            (Some(TINY), _) => {
                let first = usize::from(id[0] & 15);
                let (start, len) = if self.front.id_len <= SHORT {
                    (1, first + 1)
                } else {
                    (2, (first << 8 | usize::from(id.get(1).copied().unwrap_or(0))) + 1)
                };
                let bytes = id.get(start..start + len).ok_or_else(|| broken(format!("{len} bytes in an identifier of {}", id.len())))?;
                found(Cursor::new(bytes, image.place(0), image.sizes(), WHAT))
            }
            _ => Err(broken(format!("an identifier {} of an unknown kind", id.escape_ascii()))),
        }
    }

    /// Counts the bytes of an object against the limit.
    fn count(&mut self, len: u64) -> Result<()> {
        let more = || Failure::broken(self.visit.image().place(0), WHAT, "its objects have more bytes than the heap: they overlap");
        self.left = self.left.checked_sub(len).ok_or_else(more)?;
        Ok(())
    }

    /// The bytes of a direct block.
    fn block(&mut self, number: usize) -> Result<&Block> {
        let is_last = self.last.as_ref().is_some_and(|(last, _)| *last == number);
        if !is_last {
            let DirectBlock { len, address, filtered, .. } = self.blocks[number];
            let stored = filtered.map_or(len, |(stored, _)| stored);
            let mut block = self.visit.read(address, stored, DIRECT)?;
            if let Some((_, mask)) = filtered {
                let mut out = vec![0; memory_len(len)];
                super::filters::undo(&self.front.steps, mask, block.bytes_mut(), &mut Vec::new(), &mut out)
                    .map_err(|detail| block.cursor(DIRECT).failure(detail))?;
                *block.bytes_mut() = out;
            }
            self.check(&mut block)?;
            self.last = Some((number, block));
        }
        match &self.last {
            Some((_, block)) => Ok(block),
            None => Err(Failure::broken(0, DIRECT, "it was not read")),
        }
    }

    /// Verifies the signature and the checksum of a direct block. The checksum is computed with zeros in its own place.
    fn check(&self, block: &mut Block) -> Result<()> {
        let mut cursor = block.cursor(DIRECT);
        cursor.signature(*b"FHDB")?;
        cursor.version(0..=0)?;
        cursor.address()?;
        cursor.skip(self.front.offset_width)?;
        if !self.front.has_checksums {
            return Ok(());
        }
        let at = cursor.pos();
        let expected = cursor.u32()?;
        block.bytes_mut()[at..at + 4].fill(0);
        check(expected, block.bytes(), &block.cursor(DIRECT))
    }

    /// Address and length of a huge object, which is too long for blocks.
    fn huge(&mut self, id: &[u8]) -> Result<(u64, u64)> {
        let image = self.visit.image();
        let sizes = image.sizes();
        if !self.front.steps.is_empty() {
            return Err(Failure::Unsupported("a long object of a fractal heap with filters".into()));
        }
        let mut cursor = Cursor::new(id, image.place(0), sizes, WHAT);
        cursor.skip(1)?;
        if usize::from(sizes.address + sizes.length) < self.front.id_len {
            return Ok((cursor.known_address("an object")?, cursor.length()?));
        }
        let number = cursor.uint(cursor.left().min(8))?;
        if self.huge.is_none() {
            let mut huge = HashMap::new();
            let tree = self.front.huge_tree.ok_or_else(|| cursor.failure("long objects without an index"))?;
            btree_v2::for_each(image, tree, &[btree_v2::HUGE_OBJECTS, btree_v2::HUGE_FILTERED_OBJECTS], |_, mut record| {
                let place = (record.known_address("an object")?, record.length()?);
                huge.insert(record.length()?, place);
                Ok(())
            })?;
            self.huge = Some(huge);
        }
        let found = self.huge.as_ref().and_then(|huge| huge.get(&number));
        found.copied().ok_or_else(|| cursor.failure(format!("no object has the number {number}")))
    }
}

impl Front {
    /// The length of the blocks of a row: III.G, "Doubling Table".
    fn block_len(&self, row: u64) -> Option<u64> {
        let shift = u32::try_from(row.saturating_sub(1)).ok()?;
        self.first_len.checked_mul(1u64.checked_shl(shift)?)
    }

    /// Number of rows of an indirect block that covers `len` bytes of the heap.
    fn rows_of(&self, len: u64) -> Option<u64> {
        let row = self.first_len.checked_mul(self.width)?;
        Some(u64::from(len.ilog2().checked_sub(row.ilog2())?) + 1)
    }
}

/// For a filtered root block: its stored length and the filters that were skipped.
type Filtered = Option<(u64, u32)>;

/// Reads the header: its fields, the root block, the root's rows and filters.
fn front(image: &Image, address: u64) -> Result<(Front, Option<u64>, u64, Filtered)> {
    let sizes = image.sizes();
    let (address_len, length_len) = (u64::from(sizes.address), u64::from(sizes.length));
    let plain_len = 22 + 12 * length_len + 3 * address_len;
    let header = image.read(address, plain_len, WHAT)?;
    let mut cursor = header.cursor(WHAT);
    cursor.signature(*b"FRHP")?;
    cursor.version(0..=0)?;
    let (id_len, filters_len) = (cursor.u16()?, cursor.u16()?);
    let more = if filters_len > 0 { length_len + 4 + u64::from(filters_len) } else { 0 };
    let header = image.read(address, plain_len + more + CHECKSUM, WHAT)?;
    let mut cursor = header.checked(WHAT)?;
    cursor.skip(9)?;
    let flags = cursor.u8()?;
    let most_object = u64::from(cursor.u32()?);
    cursor.length()?;
    let huge_tree = cursor.address()?;
    cursor.length()?;
    cursor.address()?;
    for _ in 0..8 {
        cursor.length()?;
    }
    let place = cursor.clone();
    let width = u64::from(cursor.u16()?);
    let (first_len, most_direct, bits) = (cursor.length()?, cursor.length()?, u64::from(cursor.u16()?));
    cursor.skip(2)?;
    let (root, rows) = (cursor.address()?, u64::from(cursor.u16()?));
    let (mut filtered, mut steps) = (None, Vec::new());
    if filters_len > 0 {
        filtered = Some((cursor.length()?, cursor.u32()?));
        steps = Step::of_pipeline(&filter_pipeline::parse(cursor)?, 1).map_err(Failure::Unsupported)?;
    }
    let is_sound = width.is_power_of_two() && first_len.is_power_of_two() && most_direct.is_power_of_two();
    if !is_sound || most_direct < first_len || most_direct > MOST_BYTES || bits > 64 {
        let detail = format!("{width} blocks in a row, of {first_len} to {most_direct} bytes, in a heap of {bits} bits");
        return Err(place.failure(detail));
    }
    let front = Front {
        id_len: id_len.into(),
        has_checksums: flags & 2 != 0,
        huge_tree,
        width,
        first_len,
        most_direct,
        offset_width: memory_len(bits.div_ceil(8)),
        length_width: memory_len(u64::from(most_direct.ilog2()).div_ceil(8)).min(width_of(most_object)),
        steps,
    };
    Ok((front, root, rows, filtered))
}

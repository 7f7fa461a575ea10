//! The links of groups: to objects of the file, to paths, to other files. `hdf5-pure` gives the first only.
//!
//! Source: HDF5 File Format Specification 3.0: III.A (B-trees), III.B and III.C (groups of the old form), III.D (local heaps), III.G
//! (fractal heaps), IV.A.2.c and IV.A.2.g (groups of the new form); for widths that it leaves open, `H5B2hdr.c` and `H5HFdtable.c` of
//! the HDF5 library.

use super::header::{Message, Place, number};

/// An address that leads nowhere.
const UNDEFINED: u64 = u64::MAX;
/// No group has more links, and no tree more nodes.
const MOST_LINKS: usize = 1_000_000;
/// Trees are no deeper.
const MOST_LEVELS: u8 = 16;
/// No node or heap of a group is longer.
const MOST_BYTES: u64 = 64 << 20;

/// A link of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) target: Target,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The object whose header is here in the file.
    Object(u64),
    /// A path in the file, from the root or from the link's group. There may be nothing.
    Path(String),
    /// An object of another file.
    File { file: String, path: String },
    /// What only the program knows that made the file: the number of its kind of link.
    Own(u8),
}

/// The links of the group whose header has these messages.
///
/// # Errors
/// In words, where they cannot be told.
pub(crate) fn links(place: &Place, messages: &[Message]) -> Result<Vec<Link>, String> {
    if let Some(table) = messages.iter().find(|message| message.kind == Message::SYMBOL_TABLE) {
        return Table::read(place, &table.body).ok_or_else(|| "the table of its links cannot be read".to_owned())?;
    }
    let mut links = Vec::new();
    for message in messages.iter().filter(|message| message.kind == Message::LINK) {
        links.push(link(&message.body).ok_or("a link in its header cannot be read")?);
    }
    let Some(info) = messages.iter().find(|message| message.kind == Message::LINK_INFO) else { return Ok(links) };
    let at = 2 + if info.body.get(1).is_some_and(|flags| flags & 1 != 0) { 8 } else { 0 };
    match (number(&info.body, at, 8), number(&info.body, at + 8, 8)) {
        (Some(UNDEFINED), _) => Ok(links),
        (Some(heap), Some(index)) => {
            let unknown = || "the heap of its links cannot be read".to_owned();
            let heap = Heap::read(place, heap).ok_or_else(unknown)?;
            let ids = ids(place, index).ok_or("the index of its links cannot be read")?;
            ids.iter().map(|id| heap.object(id).and_then(|object| link(&object)).ok_or_else(unknown)).collect()
        }
        _ => Err("it does not say where its links are".to_owned()),
    }
}

/// A link message (IV.A.2.g).
fn link(body: &[u8]) -> Option<Link> {
    const HARD: u8 = 0;
    const SOFT: u8 = 1;
    const EXTERNAL: u8 = 64;
    let flags = *body.get(1)?;
    let mut pos = 2;
    let kind = if flags & 8 != 0 { *body.get(pos)? } else { HARD };
    pos += usize::from(flags & 8 != 0) + if flags & 4 != 0 { 8 } else { 0 } + usize::from(flags & 0x10 != 0);
    let width = 1usize << (flags & 3);
    let len = usize::try_from(number(body, pos, width)?).ok()?;
    let end = (pos + width).checked_add(len)?;
    let name = text(body.get(pos + width..end)?);
    let value = || body.get(end + 2..(end + 2).checked_add(usize::try_from(number(body, end, 2)?).ok()?)?);
    let target = match kind {
        HARD => Target::Object(number(body, end, 8)?),
        SOFT => Target::Path(text(value()?)),
        EXTERNAL => {
            // A byte of flags, then two texts that end in NUL.
            let mut texts = value()?.get(1..)?.split(|&byte| byte == 0);
            Target::File { file: text(texts.next()?), path: text(texts.next()?) }
        }
        other => Target::Own(other),
    };
    Some(Link { name, target })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A block of the file that starts with `magic`, the first `len` bytes of it.
fn block(place: &Place, address: u64, magic: &[u8], len: u64) -> Option<Vec<u8>> {
    let at = address.checked_add(place.base()).filter(|_| address != UNDEFINED && len <= MOST_BYTES)?;
    place.bytes(at, usize::try_from(len).ok()?).filter(|bytes| bytes.starts_with(magic))
}

/// A group of the old form: its names are in a local heap, its links in nodes that a B-tree of version 1 leads to.
struct Table<'a> {
    place: &'a Place,
    names: Vec<u8>,
    links: Vec<Link>,
    nodes: usize,
}

impl<'a> Table<'a> {
    /// `None` where the heap cannot be read; an error, in words, for the tree.
    fn read(place: &'a Place, body: &[u8]) -> Option<Result<Vec<Link>, String>> {
        let (tree, heap) = (number(body, 0, 8)?, number(body, 8, 8)?);
        let heap = block(place, heap, b"HEAP", 32)?;
        let names = block(place, number(&heap, 24, 8)?, b"", number(&heap, 8, 8)?)?;
        let mut table = Self { place, names, links: Vec::new(), nodes: 0 };
        let is_read = table.node(tree, MOST_LEVELS).is_some();
        Some(if is_read { Ok(table.links) } else { Err("a table of its links cannot be read".to_owned()) })
    }

    fn node(&mut self, address: u64, levels: u8) -> Option<()> {
        const FRONT: u64 = 24;
        self.nodes += 1;
        (self.nodes <= MOST_LINKS).then_some(())?;
        let level = *block(self.place, address, b"TREE", FRONT)?.get(5)?;
        let used = number(&block(self.place, address, b"TREE", FRONT)?, 6, 2)?;
        (level < levels).then_some(())?;
        let node = block(self.place, address, b"TREE", FRONT + used * 16)?;
        for entry in 0..usize::try_from(used).ok()? {
            // Keys stand before, between and behind the children.
            let child = number(&node, 24 + 16 * entry + 8, 8)?;
            if level > 0 {
                self.node(child, level)?;
            } else {
                self.symbols(child)?;
            }
        }
        Some(())
    }

    fn symbols(&mut self, address: u64) -> Option<()> {
        const FRONT: u64 = 8;
        const ENTRY: u64 = 40;
        const SOFT: u64 = 2;
        let count = number(&block(self.place, address, b"SNOD", FRONT)?, 6, 2)?;
        let node = block(self.place, address, b"SNOD", FRONT + count * ENTRY)?;
        for entry in node[8..].chunks_exact(40) {
            (self.links.len() < MOST_LINKS).then_some(())?;
            let name = self.name(number(entry, 0, 8)?)?;
            let target = if number(entry, 16, 4)? == SOFT {
                Target::Path(self.name(number(entry, 24, 4)?)?)
            } else {
                Target::Object(number(entry, 8, 8)?)
            };
            self.links.push(Link { name, target });
        }
        Some(())
    }

    fn name(&self, at: u64) -> Option<String> {
        let rest = self.names.get(usize::try_from(at).ok()?..)?;
        Some(text(rest.split(|&byte| byte == 0).next()?))
    }
}

/// Bytes that it takes to write numbers up to `most`: `H5VM_limit_enc_size`.
fn width_of(most: u64) -> usize {
    usize::try_from(most.max(1).ilog2() / 8 + 1).unwrap_or(8)
}

/// The identifiers of links in the heap, in the order of the B-tree of version 2 at `address` (III.A.2): records of type 5.
fn ids(place: &Place, address: u64) -> Option<Vec<Vec<u8>>> {
    const BY_NAME: u8 = 5;
    /// Magic, version, type and a checksum.
    const AROUND: u64 = 10;
    /// An address.
    const ADDRESS: usize = 8;
    let header = block(place, address, b"BTHD", 34)?;
    let (node_size, record) = (number(&header, 6, 4)?, number(&header, 10, 2)?);
    let depth = number(&header, 12, 2)?;
    (header[5] == BY_NAME && record > 4 && depth < u64::from(MOST_LEVELS)).then_some(())?;
    // How many records nodes of each level have at most, all of those below them, and how wide the numbers of both are.
    let leaf = node_size.checked_sub(AROUND)? / record;
    let count_width = width_of(leaf);
    let (mut all, mut all_widths) = (leaf, vec![0]);
    for _ in 0..depth {
        let pointer = (ADDRESS + count_width + all_widths.last()?) as u64;
        let most = node_size.checked_sub(AROUND + pointer)? / (record + pointer);
        all = most.checked_add(1)?.checked_mul(all)?.checked_add(most)?;
        all_widths.push(width_of(all));
    }
    let (mut ids, mut open) = (Vec::new(), Vec::new());
    open.push((number(&header, 16, 8)?, number(&header, 24, 2)?, usize::try_from(depth).ok()?));
    let (record, mut nodes) = (usize::try_from(record).ok()?, 0);
    while let Some((at, count, level)) = open.pop() {
        nodes += 1;
        (nodes <= MOST_LINKS && ids.len() < MOST_LINKS).then_some(())?;
        if count == 0 && level == 0 {
            continue;
        }
        let node = block(place, at, if level == 0 { b"BTLF" } else { b"BTIN" }, node_size)?;
        let count = usize::try_from(count).ok()?;
        let pointers = 6 + count.checked_mul(record)?;
        for record in node.get(6..pointers)?.chunks_exact(record) {
            ids.push(record[4..].to_vec());
        }
        if level > 0 {
            let step = ADDRESS + count_width + all_widths.get(level - 1)?;
            for child in 0..=count {
                let pointer = pointers + child * step;
                open.push((number(&node, pointer, ADDRESS)?, number(&node, pointer + ADDRESS, count_width)?, level - 1));
            }
        }
    }
    (Some(ids.len() as u64) == number(&header, 26, 8)).then_some(ids)
}

/// A fractal heap (III.G): objects in blocks that lie side by side in the heap's own space, not in the file.
struct Heap<'a> {
    place: &'a Place,
    width: u64,
    first_block: u64,
    longest_direct: u64,
    offset_width: usize,
    length_width: usize,
    root: u64,
    root_rows: u64,
}

impl<'a> Heap<'a> {
    fn read(place: &'a Place, address: u64) -> Option<Self> {
        let header = block(place, address, b"FRHP", 142)?;
        let (longest_object, bits) = (number(&header, 10, 4)?, number(&header, 128, 2)?);
        let (width, first_block, longest_direct) = (number(&header, 110, 2)?, number(&header, 112, 8)?, number(&header, 120, 8)?);
        let is_filtered = number(&header, 7, 2)? != 0;
        let is_sound = width.is_power_of_two() && first_block.is_power_of_two() && longest_direct.is_power_of_two();
        (is_sound && !is_filtered && longest_direct >= first_block && longest_direct <= MOST_BYTES && bits <= 64).then_some(())?;
        let offset_width = usize::try_from(bits.div_ceil(8)).ok()?;
        let length_width = usize::try_from(longest_direct.ilog2().div_ceil(8)).ok()?.min(width_of(longest_object));
        let (root, root_rows) = (number(&header, 132, 8)?, number(&header, 140, 2)?);
        Some(Self { place, width, first_block, longest_direct, offset_width, length_width, root, root_rows })
    }

    /// The object with this identifier; `None` for objects too long to lie in a block.
    fn object(&self, id: &[u8]) -> Option<Vec<u8>> {
        const MANAGED: u8 = 0;
        const TINY: u8 = 2;
        let kind = *id.first()?;
        match kind >> 4 & 3 {
            MANAGED => {
                let offset = number(id, 1, self.offset_width)?;
                let len = number(id, 1 + self.offset_width, self.length_width)?;
                let (address, before) = self.direct(offset)?;
                let at = address.checked_add(before)?.checked_add(self.place.base())?;
                self.place.bytes(at, usize::try_from(len).ok().filter(|&len| len as u64 <= self.longest_direct)?)
            }
            TINY => id.get(1..2 + usize::from(kind & 15)).map(<[u8]>::to_vec),
            _ => None,
        }
    }

    /// The length of the blocks of a row.
    fn block_len(&self, row: u64) -> Option<u64> {
        let shift = u32::try_from(row.saturating_sub(1)).ok()?;
        self.first_block.checked_mul(1u64.checked_shl(shift)?)
    }

    /// Where the direct block lies that has the heap's byte `offset`, and how many bytes of it come before.
    fn direct(&self, mut offset: u64) -> Option<(u64, u64)> {
        let (mut address, mut rows) = (self.root, self.root_rows);
        for _ in 0..MOST_LEVELS {
            if rows == 0 {
                return (offset < self.longest_direct).then_some((address, offset));
            }
            let mut row = 0;
            loop {
                let row_len = self.block_len(row)?.checked_mul(self.width)?;
                if offset < row_len {
                    break;
                }
                offset -= row_len;
                row += 1;
            }
            (row < rows).then_some(())?;
            let len = self.block_len(row)?;
            let (column, before) = (offset / len, offset % len);
            let entry = row.checked_mul(self.width)?.checked_add(column)?;
            // Magic, version, the header's address, its own offset; then the addresses of the blocks.
            let front = 13 + self.offset_width as u64;
            let node = block(self.place, address, b"FHIB", front + (entry + 1) * 8)?;
            address = number(&node, usize::try_from(front + entry * 8).ok()?, 8)?;
            (address != UNDEFINED).then_some(())?;
            if len <= self.longest_direct {
                return Some((address, before));
            }
            offset = before;
            rows = u64::from(len.ilog2().checked_sub(self.first_block.checked_mul(self.width)?.ilog2())?) + 1;
        }
        None
    }
}

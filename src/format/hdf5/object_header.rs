//! Object headers (IV.A): the messages that describe a group, a dataset or a named datatype.

use super::cursor::{Cursor, Sizes};
use super::failure::{Failure, Result};
use super::image::{Block, Image, Visit};

const WHAT: &str = "object header";
/// Bytes read before the length of a header is known: most are shorter.
const FIRST_READ: u64 = 512;
/// Limit for the messages of a header.
const MOST_MESSAGES: usize = 1 << 17;
/// Limit for the bytes of a header with all its blocks.
const MOST_BYTES: u64 = 64 << 20;

/// A message of an object header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u8,
    /// Offset of the body in the storage.
    pub(crate) at: u64,
    pub(crate) body: Vec<u8>,
}

impl Message {
    const NIL: u16 = 0;
    pub(crate) const DATASPACE: u16 = 1;
    pub(crate) const LINK_INFO: u16 = 2;
    pub(crate) const DATATYPE: u16 = 3;
    pub(crate) const OLD_FILL_VALUE: u16 = 4;
    pub(crate) const FILL_VALUE: u16 = 5;
    pub(crate) const LINK: u16 = 6;
    pub(crate) const EXTERNAL_FILES: u16 = 7;
    pub(crate) const LAYOUT: u16 = 8;
    pub(crate) const FILTER_PIPELINE: u16 = 0x0b;
    pub(crate) const ATTRIBUTE: u16 = 0x0c;
    pub(crate) const SHARED_MESSAGES: u16 = 0x0f;
    const CONTINUATION: u16 = 0x10;
    pub(crate) const SYMBOL_TABLE: u16 = 0x11;
    pub(crate) const ATTRIBUTE_INFO: u16 = 0x15;
    /// The last message in the specification.
    const LAST: u16 = 0x18;
    /// The body is a reference to the message.
    const SHARED: u8 = 2;
    /// Readers that do not know the message must not read the object.
    const MUST_BE_KNOWN: u8 = 0x80;

    pub(crate) fn is_shared(&self) -> bool {
        self.flags & Self::SHARED != 0
    }

    pub(crate) fn cursor(&self, sizes: Sizes, what: &'static str) -> Cursor<'_> {
        Cursor::new(&self.body, self.at, sizes, what)
    }
}

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Group,
    Dataset,
    Datatype,
}

/// The header of an object.
#[derive(Debug)]
pub(crate) struct ObjectHeader {
    /// Offset of the header in the storage.
    pub(crate) at: u64,
    pub(crate) messages: Vec<Message>,
}

impl ObjectHeader {
    /// Reads the header at an address, with its continuation blocks.
    pub(crate) fn read(image: &Image, address: u64) -> Result<Self> {
        let mut header = Self { at: image.place(address), messages: Vec::new() };
        let mut reader =
            Reader { visit: Visit::new(image), messages: &mut header.messages, blocks: Vec::new(), count: 0, left: MOST_BYTES };
        let front = image.read_up_to(address, FIRST_READ, WHAT)?;
        if front.bytes().starts_with(b"OHDR") {
            reader.version_2(address, &front)?;
        } else {
            reader.version_1(address, &front)?;
        }
        Ok(header)
    }

    /// The first message of a kind.
    pub(crate) fn find(&self, kind: u16) -> Option<&Message> {
        self.all(kind).next()
    }

    /// All messages of a kind.
    pub(crate) fn all(&self, kind: u16) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.kind == kind)
    }

    /// The kind of the object, by the messages that only this kind has.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let has = |kind| self.find(kind).is_some();
        let is_group = has(Message::SYMBOL_TABLE) || has(Message::LINK_INFO);
        let is_dataset = has(Message::DATASPACE) || has(Message::LAYOUT);
        match (is_group, is_dataset, has(Message::DATATYPE)) {
            (true, false, false) => Some(Kind::Group),
            (false, true, true) => Some(Kind::Dataset),
            (false, false, true) => Some(Kind::Datatype),
            _ => None,
        }
    }
}

struct Reader<'a> {
    visit: Visit<'a>,
    messages: &'a mut Vec<Message>,
    /// Continuation blocks not read yet: address and length.
    blocks: Vec<(u64, u64)>,
    /// Messages so far, including those that are not kept.
    count: usize,
    left: u64,
}

impl Reader<'_> {
    /// IV.A.1.a: a front of 16 bytes, then messages with fronts of 8 bytes.
    fn version_1(&mut self, address: u64, read: &Block) -> Result<()> {
        const FRONT: u64 = 16;
        let mut front = read.cursor(WHAT);
        front.version(1..=1)?;
        front.skip(1)?;
        let count = front.clone().u16()?;
        let place = front.clone();
        front.skip(6)?;
        let len = u64::from(front.u32()?);
        self.blocks.push((address.saturating_add(FRONT), len));
        let mut first = read.part(FRONT, len);
        while let Some((address, len)) = self.blocks.pop() {
            let block = self.block(address, len, first.take())?;
            let mut cursor = block.cursor(WHAT);
            while cursor.left() >= 8 {
                let kind = cursor.u16()?;
                let len = cursor.u16()?;
                let flags = cursor.u8()?;
                cursor.skip(3)?;
                self.message(kind, flags, cursor.part(len.into())?)?;
            }
        }
        // Bytes that only look like a header fail here: the count is wrong.
        if self.count != usize::from(count) {
            return Err(place.failure(format!("{} messages, expected {count}", self.count)));
        }
        Ok(())
    }

    /// IV.A.1.b: a front of 6 to 34 bytes, then messages with fronts of 4 or 6 bytes. A checksum ends each block.
    fn version_2(&mut self, address: u64, read: &Block) -> Result<()> {
        const CREATION_ORDER: u8 = 4;
        const PHASES: u8 = 0x10;
        const TIMES: u8 = 0x20;
        let mut front = read.cursor(WHAT);
        front.signature(*b"OHDR")?;
        front.version(2..=2)?;
        let flags = front.u8()?;
        front.skip(if flags & TIMES != 0 { 16 } else { 0 } + if flags & PHASES != 0 { 4 } else { 0 })?;
        let len = front.uint(1 << (flags & 3))?;
        let before = front.pos();
        let whole = len.saturating_add(before as u64 + 4);
        let mut is_first = true;
        self.blocks.push((address, whole));
        let mut first = read.part(0, whole);
        while let Some((address, len)) = self.blocks.pop() {
            let block = self.block(address, len, first.take())?;
            let mut cursor = block.checked(if is_first { WHAT } else { "continuation block of an object header" })?;
            if is_first {
                cursor.skip(before)?;
            } else {
                cursor.signature(*b"OCHK")?;
            }
            is_first = false;
            let more = if flags & CREATION_ORDER != 0 { 2 } else { 0 };
            while cursor.left() >= 4 + more {
                let kind = cursor.u8()?;
                let len = cursor.u16()?;
                let flags = cursor.u8()?;
                cursor.skip(more)?;
                self.message(kind.into(), flags, cursor.part(len.into())?)?;
            }
        }
        Ok(())
    }

    /// Reads a block, unless it is already known.
    fn block(&mut self, address: u64, len: u64, known: Option<Block>) -> Result<Block> {
        let long = || Failure::broken(self.visit.image().place(address), WHAT, format!("more than {MOST_BYTES} bytes"));
        self.left = self.left.checked_sub(len).ok_or_else(long)?;
        known.map_or_else(|| self.visit.read(address, len, WHAT), Ok)
    }

    /// Keeps a message, or queues the continuation block that it announces (IV.A.2.q).
    fn message(&mut self, kind: u16, flags: u8, mut body: Cursor<'_>) -> Result<()> {
        self.count += 1;
        if self.count > MOST_MESSAGES {
            return Err(body.failure(format!("more than {MOST_MESSAGES} messages")));
        }
        match kind {
            Message::NIL => {}
            Message::CONTINUATION => {
                let address = body.known_address("a continuation block")?;
                self.blocks.push((address, body.length()?));
            }
            kind if kind > Message::LAST && flags & Message::MUST_BE_KNOWN != 0 => {
                return Err(Failure::Unsupported(format!("an object has a message of kind {kind}, which readers must know")));
            }
            kind => self.messages.push(Message { kind, flags, at: body.place(), body: body.rest().to_vec() }),
        }
        Ok(())
    }
}

//! Where HDF5 objects lie, and the messages of their headers that `hdf5-pure` does not hand out: fill values, links.
//!
//! Source: HDF5 File Format Specification 3.0, IV.A.1 (object headers), IV.A.2.f (fill values).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use byteorder::{ByteOrder, LittleEndian};
use hdf5_pure::{FormatError, Source};

use crate::storage::blob::Blob;

/// No header has more blocks or bytes than this.
const MOST_BLOCKS: usize = 1024;
const MOST_BYTES: u64 = 64 << 20;
const V2_MAGIC: &[u8] = b"OHDR";
const V2_BLOCK: &[u8] = b"OCHK";

/// The part of a file that is an HDF5 file. It remembers where it was read, which tells where the headers of objects lie.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: Arc<dyn Blob>,
    range: Range<u64>,
    /// What addresses in the file count from.
    base: u64,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Place {
    pub(crate) fn new(file: &Arc<dyn Blob>, range: Range<u64>) -> Self {
        Self { file: Arc::clone(file), range, base: 0, asked: Arc::default() }
    }

    /// The same for a file whose superblock says that addresses count from `base`: there is a block of the user's before it.
    pub(crate) fn based(self, base: u64) -> Self {
        Self { base, ..self }
    }

    /// What addresses in it count from.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Where in the file the HDF5 file starts.
    pub(crate) fn start(&self) -> u64 {
        self.range.start
    }

    /// Calls `look`; returns the places that were read for it, too.
    pub(crate) fn watch<T>(&self, look: impl FnOnce() -> T) -> (T, Vec<u64>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let result = look();
        (result, std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Bytes of the HDF5 file; `None` where it ends before.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let end = at.checked_add(len as u64).filter(|&end| end <= self.len())?;
        self.file.read(self.range.start + (end - len as u64), &mut bytes, self.file.calls()).ok()?;
        Some(bytes)
    }
}

/// The error for what lies behind the end.
fn beyond(offset: u64, len: usize, available: u64) -> FormatError {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    FormatError::UnexpectedEof { expected: number(offset.saturating_add(len as u64)), available: number(available) }
}

impl Source for Place {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < MOST_BLOCKS {
            asked.push(offset);
        }
        drop(asked);
        let available = self.len();
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > available) {
            return Err(beyond(offset, buf.len(), available));
        }
        self.file.read(self.range.start + offset, buf, self.file.calls()).map_err(|error| FormatError::Source(error.to_string()))
    }
}

/// A message of an object's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    const DATASPACE: u16 = 1;
    pub(crate) const LINK_INFO: u16 = 2;
    pub(crate) const FILL_VALUE_OLD: u16 = 4;
    pub(crate) const FILL_VALUE: u16 = 5;
    pub(crate) const LINK: u16 = 6;
    pub(crate) const EXTERNAL_FILES: u16 = 7;
    pub(crate) const LAYOUT: u16 = 8;
    pub(crate) const SYMBOL_TABLE: u16 = 0x11;

    /// Whether only datasets have messages of this kind.
    pub(crate) fn is_of_dataset(&self) -> bool {
        matches!(self.kind, Self::DATASPACE | Self::FILL_VALUE_OLD | Self::FILL_VALUE | Self::EXTERNAL_FILES | Self::LAYOUT)
    }
}

/// A number of `len` bytes.
pub(crate) fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    (len <= 8).then_some(())?;
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(if len == 0 { 0 } else { LittleEndian::read_uint(bytes, len) })
}

/// The messages of the header at `address`; `None` where there is no header.
pub(crate) fn messages(place: &Place, address: u64) -> Option<Vec<Message>> {
    let front = place.bytes(address, 16)?;
    if front.starts_with(V2_MAGIC) { messages_of_2(place, address) } else { messages_of_1(place, address, &front) }
}

/// Version 1: a prefix of 16 bytes, then messages with headers of 8 bytes.
fn messages_of_1(place: &Place, address: u64, front: &[u8]) -> Option<Vec<Message>> {
    (front[0] == 1 && front[1] == 0).then_some(())?;
    let mut blocks = vec![(address.checked_add(16)?, number(front, 8, 4)?)];
    let (mut messages, mut next, mut total, mut count) = (Vec::new(), 0, 0u64, 0);
    while let Some(&(at, len)) = blocks.get(next) {
        next += 1;
        total = total.checked_add(len).filter(|&total| total <= MOST_BYTES && next <= MOST_BLOCKS)?;
        let bytes = place.bytes(at, usize::try_from(len).ok()?)?;
        let mut pos = 0;
        while pos + 8 <= bytes.len() {
            let kind = LittleEndian::read_u16(&bytes[pos..]);
            let size = usize::from(LittleEndian::read_u16(&bytes[pos + 2..]));
            let body = bytes.get(pos + 8..pos + 8 + size)?;
            push(&mut messages, &mut blocks, (kind, bytes[pos + 4]), body, place.base)?;
            pos += 8 + size;
            count += 1;
        }
    }
    // Bytes that only look like a header have another number of messages than they say.
    (Some(count) == number(front, 2, 2)).then_some(messages)
}

/// Version 2: `OHDR`, and `OCHK` before each block that continues it; a checksum ends each.
fn messages_of_2(place: &Place, address: u64) -> Option<Vec<Message>> {
    let front = place.bytes(address, 6)?;
    let flags = front[5];
    let times = if flags & 0x20 != 0 { 16 } else { 0 };
    let phases = if flags & 0x10 != 0 { 4 } else { 0 };
    let width = 1usize << (flags & 3);
    let before = 6 + times + phases;
    let len = number(&place.bytes(address + before as u64, width)?, 0, width)?;
    let header = if flags & 4 != 0 { 6 } else { 4 };
    let mut blocks = vec![(address.checked_add((before + width) as u64)?, len)];
    let (mut messages, mut next, mut total) = (Vec::new(), 0, 0u64);
    while let Some(&(at, len)) = blocks.get(next) {
        total = total.checked_add(len).filter(|&total| total <= MOST_BYTES && next <= MOST_BLOCKS)?;
        let bytes = place.bytes(at, usize::try_from(len).ok()?)?;
        let bytes = match next {
            0 => &bytes[..],
            _ => bytes.strip_prefix(V2_BLOCK)?.split_last_chunk::<4>()?.0,
        };
        next += 1;
        let mut pos = 0;
        while pos + header <= bytes.len() {
            let kind = u16::from(bytes[pos]);
            let size = usize::from(LittleEndian::read_u16(&bytes[pos + 1..]));
            let body = bytes.get(pos + header..pos + header + size)?;
            push(&mut messages, &mut blocks, (kind, bytes[pos + 3]), body, place.base)?;
            pos += header + size;
        }
    }
    Some(messages)
}

/// Keeps a message, or goes on where it says. `None` for one that matters and is stored elsewhere, shared with other objects.
fn push(messages: &mut Vec<Message>, blocks: &mut Vec<(u64, u64)>, (kind, flags): (u16, u8), body: &[u8], base: u64) -> Option<()> {
    const CONTINUATION: u16 = 0x10;
    const SHARED: u8 = 2;
    if kind == CONTINUATION {
        blocks.push((number(body, 0, 8)?.checked_add(base)?, number(body, 8, 8)?));
        return Some(());
    }
    let matters = matches!(kind, Message::DATASPACE | Message::FILL_VALUE_OLD | Message::FILL_VALUE | Message::EXTERNAL_FILES);
    if flags & SHARED != 0 && matters {
        return None;
    }
    messages.push(Message { kind, body: body.to_vec() });
    Some(())
}

/// Whether a dataset has no elements, not even one (IV.A.2.b).
pub(crate) fn is_null(messages: &[Message]) -> bool {
    const NULL: u8 = 2;
    messages.iter().any(|Message { kind, body }| *kind == Message::DATASPACE && body.first() == Some(&2) && body.get(3) == Some(&NULL))
}

/// The fill value in a header's messages; `None` where there is none, or it is not written.
pub(crate) fn fill_value(messages: &[Message]) -> Option<Vec<u8>> {
    let find = |kind| messages.iter().find(|message| message.kind == kind);
    if let Some(Message { body, .. }) = find(Message::FILL_VALUE) {
        const NEVER: u8 = 1;
        let (at, write_time, is_defined) = match *body.first()? {
            1 | 2 => (4, body.get(2)?, body[0] == 1 || *body.get(3)? == 1),
            _ => (2, &(body.get(1)? >> 2 & 3), body.get(1)? & 0x20 != 0),
        };
        if !is_defined || *write_time == NEVER {
            return None;
        }
        let size = usize::try_from(number(body, at, 4)?).ok()?;
        return body.get(at + 4..at + 4 + size).filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
    }
    let Message { body, .. } = find(Message::FILL_VALUE_OLD)?;
    let size = usize::try_from(number(body, 0, 4)?).ok()?;
    body.get(4..4 + size).filter(|value| !value.is_empty()).map(<[u8]>::to_vec)
}

/// Where the elements of a dataset lie whose layout message is of version 1 or 2, which `hdf5-pure` does not read, if they lie in one
/// run (IV.A.2.i).
pub(crate) fn old_contiguous(messages: &[Message]) -> Option<u64> {
    const CONTIGUOUS: u8 = 1;
    let body = &messages.iter().find(|message| message.kind == Message::LAYOUT)?.body;
    let is_one = matches!(body.first()?, 1 | 2) && *body.get(2)? == CONTIGUOUS;
    number(body, 8, 8).filter(|_| is_one)
}

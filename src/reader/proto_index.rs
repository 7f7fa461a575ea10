//! Walks the fields of messages in a file without reading their contents: graphs can have gigabytes.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::varint;
use crate::storage::blob::{Blob, check_most};
use crate::types::size::memory_len;

/// Bytes of the longest tag and length.
const MOST_HEADER: u64 = 20;
const BUFFER: u64 = 64 << 10;
/// How deep groups may nest; protobuf's own limit for messages.
const MAX_DEPTH: usize = 100;

/// Walks the fields of the message in a range of a file, and of messages nested in it.
///
/// Wire format: <https://protobuf.dev/programming-guides/encoding/>. Groups are skipped.
#[derive(Debug)]
pub(crate) struct FieldWalker<'a> {
    file: &'a dyn Blob,
    what: &'static str,
    at: u64,
    end: u64,
    /// The end of the outermost message: the limit for reading.
    last: u64,
    buffer: Vec<u8>,
    buffered: Range<u64>,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OuterField {
    pub(crate) number: u64,
    /// Offset of the tag.
    pub(crate) offset: u64,
    /// Offset after the tag: of a varint, or of the length of bytes.
    pub(crate) start: u64,
    pub(crate) value: FieldValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldValue {
    Varint(u64),
    /// Place in the file of the bytes of a string or a message.
    Bytes(Range<u64>),
    /// Place of a number of 4 or 8 bytes.
    Fixed(Range<u64>),
}

/// One step over a tag.
enum Step {
    Field(FieldValue),
    OpenGroup,
    CloseGroup,
}

impl<'a> FieldWalker<'a> {
    /// Walks the message that is the whole file.
    pub(crate) fn of_file(file: &'a dyn Blob, what: &'static str) -> Self {
        Self::new(file, what, 0..file.len())
    }

    /// Walks the message in `range` of a file, called `what` in error messages.
    pub(crate) fn new(file: &'a dyn Blob, what: &'static str, range: Range<u64>) -> Self {
        let (at, end) = (range.start, range.end);
        Self { file, what, at, end, last: end, buffer: Vec::new(), buffered: 0..0 }
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &'a Path {
        self.file.path()
    }

    /// Place of the rest of the message.
    pub(crate) fn rest(&self) -> Range<u64> {
        self.at..self.end
    }

    /// Start of the next field.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// An error at a byte of the file.
    pub(crate) fn malformed(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::malformed_at(self.file.path(), self.what, at, detail)
    }

    /// Walks the nested message in `range`, and comes back. Small messages are read from the buffer.
    ///
    /// # Errors
    /// As `walk`.
    pub(crate) fn within<T>(&mut self, range: &Range<u64>, walk: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = (self.at, self.end);
        (self.at, self.end) = (range.start, range.end);
        let walked = walk(self);
        (self.at, self.end) = outer;
        walked
    }

    /// The buffered bytes from `at` on, up to `end`: at least `least`, unless `end` comes first.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] where the file ends too early, [`Error::Io`].
    pub(crate) fn window(&mut self, at: u64, end: u64, least: u64) -> Result<&[u8]> {
        let wanted = at.saturating_add(least).min(end);
        if at < self.buffered.start || wanted > self.buffered.end {
            let len = (self.last.max(end) - at).min(BUFFER.max(least));
            let have = self.file.len().saturating_sub(at);
            if have < wanted - at {
                self.buffered = 0..0;
                return Err(self.malformed(at + have, "the file ends here; it was longer before"));
            }
            self.buffer.resize(memory_len(len.min(have)), 0);
            self.buffered = 0..0;
            self.file.read(at, &mut self.buffer, self.file.calls())?;
            self.buffered = at..at + self.buffer.len() as u64;
        }
        let start = memory_len(at - self.buffered.start);
        Ok(&self.buffer[start..memory_len(end.min(self.buffered.end) - self.buffered.start)])
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] for invalid wire data, [`Error::Io`].
    pub(crate) fn next_field(&mut self) -> Result<Option<OuterField>> {
        let mut groups: Vec<u64> = Vec::new();
        loop {
            if self.at == self.end {
                return if groups.is_empty() { Ok(None) } else { Err(self.malformed(self.at, "a group is not closed")) };
            }
            let offset = self.at;
            let (number, start, step) = self.step()?;
            match step {
                Step::Field(value) if groups.is_empty() => return Ok(Some(OuterField { number, offset, start, value })),
                Step::Field(_) => {}
                Step::OpenGroup if groups.len() == MAX_DEPTH => {
                    return Err(self.malformed(offset, format!("groups nest deeper than {MAX_DEPTH}")));
                }
                Step::OpenGroup => groups.push(number),
                Step::CloseGroup => {
                    if groups.pop() != Some(number) {
                        return Err(self.malformed(offset, format!("end of group {number} without its start")));
                    }
                }
            }
        }
    }

    /// Reads the next tag; returns its field number, the offset after it, and the step.
    fn step(&mut self) -> Result<(u64, u64, Step)> {
        let (what, offset, left) = (self.what, self.at, self.end - self.at);
        let front = self.window(offset, self.end, MOST_HEADER)?;
        let number = |from: usize| varint::read_u64(front.get(from..).unwrap_or_default(), from, what).map_err(|error| error.detail);
        let parsed = number(0).and_then(|(tag, tag_len)| {
            if tag >> 3 == 0 || tag >> 3 >= 1 << 29 {
                return Err(format!("field number {} is not valid", tag >> 3));
            }
            let fixed = |len: u64| {
                let start = offset + tag_len as u64;
                (tag_len as u64 + len, Step::Field(FieldValue::Fixed(start..start.saturating_add(len))))
            };
            let (size, step) = match tag & 7 {
                0 => number(tag_len).map(|(value, len)| ((tag_len + len) as u64, Step::Field(FieldValue::Varint(value))))?,
                1 => fixed(8),
                2 => {
                    let (len, len_len) = number(tag_len)?;
                    let start = (tag_len + len_len) as u64;
                    let size = start.saturating_add(len);
                    (size, Step::Field(FieldValue::Bytes(offset + start..offset.saturating_add(size))))
                }
                3 => (tag_len as u64, Step::OpenGroup),
                4 => (tag_len as u64, Step::CloseGroup),
                5 => fixed(4),
                wire => return Err(format!("tag {tag:#x} has wire type {wire}, which does not exist")),
            };
            if size > left {
                return Err(format!("a field of {size} bytes, {left} bytes are left"));
            }
            Ok((size, (tag >> 3, offset + tag_len as u64, step)))
        });
        let (size, step) = parsed.map_err(|detail| self.malformed(offset, detail))?;
        self.at += size;
        Ok(step)
    }

    /// Reads the bytes of a field, at most `most`.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] for a longer field, [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn read(&mut self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        check_most(self.file.path(), range, most)?;
        Ok(self.window(range.start, range.end, range.end - range.start)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::HeldBytes;

    fn fields(bytes: &[u8]) -> Result<Vec<OuterField>> {
        let file = HeldBytes::new(&Path::new("m").into(), bytes.to_vec());
        let mut outline = FieldWalker::of_file(&*file, "message");
        let mut found = Vec::new();
        while let Some(field) = outline.next_field()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_are_found_across_buffers() {
        let long = vec![7; 3 * BUFFER as usize + 5];
        let mut bytes = vec![0x08, 0x96, 0x01, 0x12];
        let mut len = long.len();
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        let start = bytes.len() as u64;
        bytes.extend_from_slice(&long);
        let end = bytes.len() as u64;
        bytes.extend([0x1d, 1, 2, 3, 4]);
        let found = fields(&bytes).unwrap();
        assert_eq!(
            found,
            [
                OuterField { number: 1, offset: 0, start: 1, value: FieldValue::Varint(150) },
                OuterField { number: 2, offset: 3, start: 4, value: FieldValue::Bytes(start..end) },
                OuterField { number: 3, offset: end, start: end + 1, value: FieldValue::Fixed(end + 1..end + 5) },
            ]
        );
    }

    #[test]
    fn what_is_cut_or_no_message_is_an_error() {
        assert_eq!(fields(&[]).unwrap(), []);
        for bytes in [
            &[0x0a, 5, 1][..],
            &[0x0b],
            &[0x0c],
            &[0x0f],
            &[0x00, 0],
            &[0x08, 0x80],
            &[0x0d, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(fields(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn groups_are_skipped_as_deep_as_messages_nest() {
        let found = fields(&[0x0b, 0x10, 1, 0x13, 0x14, 0x0c, 0x08, 5]).unwrap();
        assert_eq!(found, [OuterField { number: 1, offset: 6, start: 7, value: FieldValue::Varint(5) }]);
        assert!(fields(&[0x0b, 0x14]).is_err(), "another group ends");
        assert!(fields(&[0x0b; 200_000]).unwrap_err().to_string().contains("deeper"));
    }

    #[test]
    fn messages_in_a_message_are_walked_and_left_again() {
        let inner = [0x08, 7, 0x12, 1, b'x'];
        let bytes = HeldBytes::new(&Path::new("m").into(), [&[0x0a, 5][..], &inner, &[0x10, 3]].concat());
        let mut outline = FieldWalker::of_file(&*bytes, "message");
        let Some(OuterField { value: FieldValue::Bytes(range), .. }) = outline.next_field().unwrap() else { panic!() };
        let text = outline.within(&range, |inner| {
            assert_eq!(inner.next_field()?.unwrap().value, FieldValue::Varint(7));
            let Some(OuterField { value: FieldValue::Bytes(text), .. }) = inner.next_field()? else { panic!() };
            assert_eq!(inner.next_field()?, None);
            inner.read(&text, 1)
        });
        assert_eq!(text.unwrap(), b"x");
        assert_eq!(outline.next_field().unwrap().unwrap().value, FieldValue::Varint(3));
        assert_eq!(outline.next_field().unwrap(), None);
    }
}

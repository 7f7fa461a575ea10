//! A zero-copy parser for the protocol buffer wire format.
//!
//! Follows <https://protobuf.dev/programming-guides/encoding/>. Groups are skipped here, nesting is limited, and every length is
//! checked against the available bytes. Callers skip unknown fields.

use byteorder::{ByteOrder, LittleEndian};

use super::varint;
use crate::error::ParseError;

/// Nesting limit for groups; protobuf has the same limit for messages.
const MAX_DEPTH: usize = 100;

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field<'a> {
    /// The field number.
    pub(crate) number: u32,
    /// The value as encoded.
    pub(crate) value: Value<'a>,
    /// Offset of the field's tag.
    pub(crate) offset: usize,
}

/// A value of one of the wire types; groups are skipped and never returned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A string, bytes, message or packed field, and the offset of its first byte.
    Bytes(&'a [u8], usize),
    Fixed32(u32),
}

/// The fields of one message, in the order of the wire.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    pos: usize,
    base: usize,
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Walks the message `bytes`, which starts `base` bytes into the file; errors call it `what`.
    pub(crate) fn new(bytes: &'a [u8], base: usize, what: &'static str) -> Self {
        Self { bytes, pos: 0, base, what }
    }

    fn error(&self, at: usize, detail: impl Into<String>) -> ParseError {
        ParseError::new(self.base + at, self.what, detail)
    }

    fn varint(&mut self) -> Result<u64, ParseError> {
        let (value, len) = varint::read_u64(&self.bytes[self.pos..], self.base + self.pos, self.what)?;
        self.pos += len;
        Ok(value)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], ParseError> {
        let left = self.bytes.len() - self.pos;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let taken = &self.bytes[self.pos..self.pos + len];
                self.pos += len;
                Ok(taken)
            }
            _ => Err(self.error(self.pos, format!("field of {len} bytes, {left} bytes left"))),
        }
    }

    /// The next field, with groups skipped; `None` at the end.
    fn step(&mut self) -> Result<Option<Field<'a>>, ParseError> {
        let mut group: Vec<u32> = Vec::new();
        loop {
            let offset = self.pos;
            if offset == self.bytes.len() {
                return if group.is_empty() { Ok(None) } else { Err(self.error(offset, "a group is not closed")) };
            }
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3)
                .ok()
                .filter(|&n| n != 0 && n < 1 << 29)
                .ok_or_else(|| self.error(offset, format!("field number {} is not valid", tag >> 3)))?;
            let value = match tag & 7 {
                0 => Value::Varint(self.varint()?),
                1 => Value::Fixed64(LittleEndian::read_u64(self.take(8)?)),
                2 => {
                    let len = self.varint()?;
                    let start = self.base + self.pos;
                    Value::Bytes(self.take(len)?, start)
                }
                3 => {
                    if group.len() == MAX_DEPTH {
                        return Err(self.error(offset, format!("groups nest deeper than {MAX_DEPTH}")));
                    }
                    group.push(number);
                    continue;
                }
                4 => {
                    if group.pop() != Some(number) {
                        return Err(self.error(offset, format!("end of group {number} without its start")));
                    }
                    continue;
                }
                5 => Value::Fixed32(LittleEndian::read_u32(self.take(4)?)),
                wire => return Err(self.error(offset, format!("wire type {wire} does not exist"))),
            };
            if group.is_empty() {
                return Ok(Some(Field { number, value, offset: self.base + offset }));
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if matches!(item, Some(Err(_))) {
            self.pos = self.bytes.len();
        }
        item
    }
}

impl<'a> Field<'a> {
    fn mismatch(&self, what: &'static str, expected: &str) -> ParseError {
        let found = match self.value {
            Value::Varint(_) => "varint",
            Value::Fixed64(_) => "fixed64",
            Value::Bytes(..) => "bytes",
            Value::Fixed32(_) => "fixed32",
        };
        ParseError::new(self.offset, what, format!("field {} is a {found}, expected a {expected}", self.number))
    }

    /// The value of a varint field.
    pub(crate) fn varint(&self, what: &'static str) -> Result<u64, ParseError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.mismatch(what, "varint")),
        }
    }

    /// The value of an `int64` or `int32` field: two's complement in a varint.
    pub(crate) fn int64(&self, what: &'static str) -> Result<i64, ParseError> {
        self.varint(what).map(u64::cast_signed)
    }

    /// The value of a non-negative `int64` field.
    pub(crate) fn count(&self, what: &'static str, name: &str) -> Result<u64, ParseError> {
        let value = self.int64(what)?;
        u64::try_from(value).map_err(|_| ParseError::new(self.offset, what, format!("{name} is {value}, expected at least 0")))
    }

    /// The value of a fixed32 field.
    pub(crate) fn fixed32(&self, what: &'static str) -> Result<u32, ParseError> {
        match self.value {
            Value::Fixed32(value) => Ok(value),
            _ => Err(self.mismatch(what, "fixed32")),
        }
    }

    /// The bytes of a string, bytes or message field.
    pub(crate) fn bytes(&self, what: &'static str) -> Result<&'a [u8], ParseError> {
        match self.value {
            Value::Bytes(bytes, _) => Ok(bytes),
            _ => Err(self.mismatch(what, "length-delimited field")),
        }
    }

    /// The fields of a message field.
    pub(crate) fn message(&self, what: &'static str) -> Result<Fields<'a>, ParseError> {
        match self.value {
            Value::Bytes(bytes, offset) => Ok(Fields::new(bytes, offset, what)),
            _ => Err(self.mismatch(what, "message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(bytes: &[u8]) -> Result<Vec<Field<'_>>, ParseError> {
        Fields::new(bytes, 0, "test").collect()
    }

    #[test]
    fn every_wire_type_is_read_and_groups_are_skipped() {
        let bytes = [0x08, 0x96, 0x01, 0x1b, 0x08, 0x01, 0x1c, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let fields = collect(&bytes).unwrap();
        let values: Vec<_> = fields.iter().map(|f| (f.number, f.value)).collect();
        assert_eq!(values, [(1, Value::Varint(150)), (2, Value::Bytes(b"hi", 9)), (3, Value::Fixed32(1)), (4, Value::Fixed64(2))]);
    }

    #[test]
    fn broken_messages_are_errors_at_an_offset() {
        for (bytes, offset) in [
            (&[0x0f_u8, 0][..], 0),   // wire type 7
            (&[0x00, 0x00], 0),       // field number 0
            (&[0x0a, 0x05, 1], 2),    // three bytes short
            (&[0x08, 0x01, 0x0c], 2), // end of group alone
            (&[0x0b], 1),             // group never closed
            (&[0x0d, 1, 2], 1),       // fixed32 cut
            (&[0x08, 0x80], 1),       // varint cut
        ] {
            assert_eq!(collect(bytes).unwrap_err().offset, offset, "{bytes:02x?}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        assert!(collect(&[0x0b; 200_000]).unwrap_err().detail.contains("deeper"));
    }

    #[test]
    fn any_prefix_of_garbage_ends() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for start in 0..bytes.len() {
            let _ = collect(&bytes[start..]);
        }
    }
}

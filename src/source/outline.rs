//! The outermost fields of a message in a file, without reading what is in them: graphs have gigabytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::varint;
use crate::spec::memory_len;

/// A tag and a length.
const MOST_HEADER: u64 = 20;
const BUFFER: usize = 64 << 10;

/// Walks the fields of the message in a range of a file.
///
/// Wire format: <https://protobuf.dev/programming-guides/encoding/>. Groups are refused; no graph has any.
#[derive(Debug)]
pub(crate) struct Outline<'a> {
    file: &'a File,
    path: &'a Path,
    what: &'static str,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    buffered: Range<u64>,
}

/// A field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outer {
    pub(crate) number: u64,
    /// Where the tag lies.
    pub(crate) offset: u64,
    pub(crate) value: OuterValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OuterValue {
    Varint(u64),
    /// Where the bytes of a string or a message lie in the file.
    Bytes(Range<u64>),
    /// A number of 4 or 8 bytes.
    Fixed,
}

impl<'a> Outline<'a> {
    /// The message in all of a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn of_file(file: &'a File, path: &'a Path, what: &'static str) -> Result<Self> {
        let len = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self::new(file, path, what, 0..len))
    }

    /// The message in `range` of a file, which messages call `what`.
    pub(crate) fn new(file: &'a File, path: &'a Path, what: &'static str, range: Range<u64>) -> Self {
        let (at, end) = (range.start, range.end);
        Self { file, path, what, at, end, buffer: Vec::new(), buffered: 0..0 }
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// An error at a byte of the file.
    pub(crate) fn malformed(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::malformed_at(self.path, self.what, at, detail)
    }

    /// The bytes in the file from `at` on that a tag and a length can take.
    fn front(&mut self) -> Result<&[u8]> {
        if self.at < self.buffered.start || (self.at + MOST_HEADER > self.buffered.end && self.buffered.end < self.end) {
            self.buffer.resize(BUFFER.min(memory_len(self.end - self.at)), 0);
            let n = self.file.read_at(&mut self.buffer, self.at).map_err(Error::io("read", self.path))?;
            if n == 0 {
                return Err(self.malformed(self.at, "the file ends here; it was longer before"));
            }
            self.buffered = self.at..self.at + n as u64;
        }
        Ok(&self.buffer[memory_len(self.at - self.buffered.start)..memory_len(self.buffered.end - self.buffered.start)])
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what no message can have, [`Error::Io`].
    pub(crate) fn next_field(&mut self) -> Result<Option<Outer>> {
        if self.at == self.end {
            return Ok(None);
        }
        let (what, offset, left) = (self.what, self.at, self.end - self.at);
        let front = self.front()?;
        let number = |from: usize| varint::read_u64(front.get(from..).unwrap_or_default(), from, what).map_err(|error| error.detail);
        let parsed = number(0).and_then(|(tag, tag_len)| {
            let (size, value) = match tag & 7 {
                0 => number(tag_len).map(|(value, len)| ((tag_len + len) as u64, OuterValue::Varint(value)))?,
                1 => (tag_len as u64 + 8, OuterValue::Fixed),
                2 => {
                    let (len, len_len) = number(tag_len)?;
                    let start = (tag_len + len_len) as u64;
                    let size = start.saturating_add(len);
                    (size, OuterValue::Bytes(offset + start..offset.saturating_add(size)))
                }
                5 => (tag_len as u64 + 4, OuterValue::Fixed),
                wire => return Err(format!("tag {tag:#x} has wire type {wire}, expected 0, 1, 2 or 5")),
            };
            if size > left {
                return Err(format!("a field of {size} bytes, {left} bytes are left"));
            }
            Ok((size, Outer { number: tag >> 3, offset, value }))
        });
        let (size, field) = parsed.map_err(|detail| self.malformed(offset, detail))?;
        self.at += size;
        Ok(Some(field))
    }

    /// Reads the bytes of a field of at most `most` bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] for a longer one, [`Error::Io`].
    pub(crate) fn read(&self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        read_range(self.file, self.path, range, most)
    }
}

/// Reads a range of a file that may be at most `most` bytes long.
///
/// # Errors
/// [`Error::Limit`], [`Error::Io`].
pub(crate) fn read_range(file: &File, path: &Path, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
    let asked = range.end - range.start;
    if asked > most {
        return Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(most) });
    }
    let mut bytes = vec![0; memory_len(asked)];
    file.read_exact_at(&mut bytes, range.start).map_err(Error::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn fields(bytes: &[u8]) -> Result<Vec<Outer>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut outline = Outline::of_file(&file, Path::new("m"), "message")?;
        let mut found = Vec::new();
        while let Some(field) = outline.next_field()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_are_found_across_buffers() {
        let long = vec![7; 3 * BUFFER + 5];
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
                Outer { number: 1, offset: 0, value: OuterValue::Varint(150) },
                Outer { number: 2, offset: 3, value: OuterValue::Bytes(start..end) },
                Outer { number: 3, offset: end, value: OuterValue::Fixed },
            ]
        );
    }

    #[test]
    fn what_is_cut_or_no_message_is_an_error() {
        assert_eq!(fields(&[]).unwrap(), []);
        for bytes in
            [&[0x0a, 5, 1][..], &[0x0b], &[0x08, 0x80], &[0x0d, 1], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(fields(bytes).is_err(), "{bytes:02x?}");
        }
    }
}

//! Reads numbers, addresses and text from the front of a byte slice, and knows the place for messages.

use std::ops::RangeInclusive;

use super::failure::{Failure, Result};

/// Widths of addresses and lengths in a file: II.A, "Size of Offsets" and "Size of Lengths".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) address: u8,
    pub(crate) length: u8,
}

/// A position in a byte slice of the file. All numbers are little-endian.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Offset of the slice in the storage.
    at: u64,
    sizes: Sizes,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: u64, sizes: Sizes, what: &'static str) -> Self {
        Self { bytes, pos: 0, at, sizes, what }
    }

    /// The same position, called `what` in messages.
    pub(crate) fn named(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// An error at this position.
    pub(crate) fn failure(&self, detail: impl Into<String>) -> Failure {
        Failure::broken(self.place(), self.what, detail)
    }

    /// Offset of the next byte in the storage.
    pub(crate) fn place(&self) -> u64 {
        self.at.saturating_add(self.pos as u64)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Number of bytes left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// Number of bytes read.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes = self.rest().get(..len).ok_or_else(|| self.failure(format!("{len} bytes needed, {} are left", self.left())))?;
        self.pos += len;
        Ok(bytes)
    }

    /// A cursor over the next `len` bytes, which this one skips.
    pub(crate) fn part(&mut self, len: usize) -> Result<Cursor<'a>> {
        let at = self.place();
        Ok(Cursor { bytes: self.take(len)?, pos: 0, at, ..*self })
    }

    pub(crate) fn skip(&mut self, len: usize) -> Result<()> {
        self.take(len).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of at most 8 bytes.
    pub(crate) fn uint(&mut self, width: usize) -> Result<u64> {
        if width > 8 {
            return Err(self.failure(format!("a number of {width} bytes, expected at most 8")));
        }
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// An address, relative to the base address of the file. All bits set mean `None`.
    pub(crate) fn address(&mut self) -> Result<Option<u64>> {
        let width = usize::from(self.sizes.address);
        let value = self.uint(width)?;
        Ok((value != all_ones(width)).then_some(value))
    }

    /// An address that must be defined.
    pub(crate) fn known_address(&mut self, of: &str) -> Result<u64> {
        let failure = self.failure(format!("the address of {of} is undefined"));
        self.address()?.ok_or(failure)
    }

    pub(crate) fn length(&mut self) -> Result<u64> {
        self.uint(usize::from(self.sizes.length))
    }

    /// A length; all bits set mean no limit.
    pub(crate) fn limit(&mut self) -> Result<Option<u64>> {
        let width = usize::from(self.sizes.length);
        let value = self.uint(width)?;
        Ok((value != all_ones(width)).then_some(value))
    }

    /// Checks and skips the signature of a structure.
    pub(crate) fn signature(&mut self, expected: [u8; 4]) -> Result<()> {
        let failure = |found: &[u8]| format!("signature is {:?}, expected {:?}", found.escape_ascii().to_string(), text(&expected));
        let found = self.rest().get(..4).unwrap_or(self.rest());
        if found != expected {
            return Err(self.failure(failure(found)));
        }
        self.skip(4)
    }

    /// A version, which must be in `known`.
    pub(crate) fn version(&mut self, known: RangeInclusive<u8>) -> Result<u8> {
        let failure = |found| self.failure(format!("version is {found}, expected {} to {}", known.start(), known.end()));
        match self.rest().first() {
            Some(&version) if !known.contains(&version) => Err(failure(version)),
            _ => self.u8(),
        }
    }

    /// Text that ends in NUL. With `padded`, text and NUL take a multiple of 8 bytes.
    pub(crate) fn text(&mut self, padded: bool) -> Result<String> {
        let len = self.rest().iter().position(|&byte| byte == 0).ok_or_else(|| self.failure("text without a NUL at its end"))?;
        let text = text(self.take(len)?);
        self.skip(if padded { (len + 1).next_multiple_of(8) - len } else { 1 })?;
        Ok(text)
    }
}

/// Bytes as text; invalid UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The largest number of `width` bytes.
fn all_ones(width: usize) -> u64 {
    if width >= 8 { u64::MAX } else { (1 << (8 * width)) - 1 }
}

/// Number of bytes in which the HDF5 library stores numbers up to `most`.
pub(crate) fn width_of(most: u64) -> usize {
    most.max(1).ilog2() as usize / 8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { address: 4, length: 2 };

    #[test]
    fn widths_are_those_of_the_file_and_all_ones_are_no_address() {
        let bytes = [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 2, 1, 0xff, 0xff];
        let mut cursor = Cursor::new(&bytes, 100, SIZES, "test");
        assert_eq!(cursor.address().unwrap(), Some(1));
        assert_eq!(cursor.address().unwrap(), None);
        assert_eq!(cursor.length().unwrap(), 0x102);
        assert_eq!(cursor.limit().unwrap(), None);
        let Err(Failure::Broken(error)) = cursor.u8() else { panic!("there are no more bytes") };
        assert_eq!((error.offset, error.what), (112, "test"));
    }

    #[test]
    fn padded_text_takes_a_multiple_of_eight_bytes() {
        let mut cursor = Cursor::new(b"ab\0\0\0\0\0\0abcdefgh\0\0\0\0\0\0\0\0x\0y", 0, SIZES, "test");
        assert_eq!(cursor.text(true).unwrap(), "ab");
        assert_eq!(cursor.text(true).unwrap(), "abcdefgh");
        assert_eq!(cursor.text(false).unwrap(), "x");
        assert!(cursor.text(false).is_err());
    }

    #[test]
    fn numbers_up_to_a_limit_take_as_many_bytes_as_in_the_library() {
        assert_eq!([0, 1, 255, 256, 65_535, 65_536, u64::MAX].map(width_of), [1, 1, 1, 2, 2, 3, 8]);
    }
}

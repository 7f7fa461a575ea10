//! Memory for direct reads and writes.

use std::io;
use std::ops::{Deref, DerefMut, Range};

use memmap2::{MmapMut, MmapOptions};

use super::LARGE_PAGE;

/// Enough for every file system that was met: a block is a page or a part of one, and memory needs no more than a block.
const ALIGN: u64 = 4096;

/// Memory whose bytes can be placed at any address modulo a page, so that a direct write needs no copy. It is allocated at its first use.
///
/// Where it is long enough it is made of large pages: a request to a disk has a limited number of runs of memory (254 with virtio),
/// so with small pages a write of 2 MiB is three requests, and with large ones a single one.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    len: usize,
    /// The memory, and where in it the bytes for offset 0 start.
    memory: Option<(MmapMut, usize)>,
}

impl Buffer {
    /// Memory for as many bytes.
    pub(crate) fn new(len: usize) -> Self {
        Self { len, memory: None }
    }

    /// What such a buffer takes.
    pub(crate) fn memory_bytes(len: u64) -> u64 {
        Shape::of(len).len.saturating_add(ALIGN)
    }

    /// `len` bytes, at an address that is equal to `offset` modulo a page: zeros at first, then what the last call left there.
    ///
    /// # Errors
    /// The error of the system if there is no memory.
    pub(crate) fn at(&mut self, offset: u64, len: usize) -> io::Result<&mut [u8]> {
        if self.len < len {
            *self = Self::new(len);
        }
        let memory = self.memory.take().map_or_else(|| allocate(self.len), Ok)?;
        let (map, start) = self.memory.insert(memory);
        let start = *start + usize::try_from(offset % ALIGN).map_err(io::Error::other)?;
        Ok(&mut map[start..start + len])
    }
}

/// Bytes at an address that is equal to an offset modulo a page.
#[derive(Debug)]
pub(crate) struct PlacedBytes {
    map: MmapMut,
    range: Range<usize>,
}

impl PlacedBytes {
    /// `len` zeros for `offset`.
    ///
    /// # Errors
    /// The error of the system if there is no memory.
    pub(crate) fn zeros(offset: u64, len: usize) -> io::Result<Self> {
        let (map, start) = allocate(len)?;
        let start = start + usize::try_from(offset % ALIGN).map_err(io::Error::other)?;
        Ok(Self { map, range: start..start + len })
    }
}

impl Deref for PlacedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl DerefMut for PlacedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.range.clone()]
    }
}

/// The length of memory, and what it is aligned to.
struct Shape {
    len: u64,
    align: u64,
}

impl Shape {
    /// Large pages, where rounding up to them adds little.
    fn of(len: u64) -> Self {
        let whole = len.next_multiple_of(LARGE_PAGE);
        if whole - len <= len / 8 {
            Self { len: whole, align: LARGE_PAGE }
        } else {
            Self { len: len.next_multiple_of(ALIGN), align: ALIGN }
        }
    }
}

fn allocate(len: usize) -> io::Result<(MmapMut, usize)> {
    let to_len = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
    let shape = Shape::of(len as u64);
    // The system gives whole pages. Any start within one has to have room, and a start at a large page.
    let map = MmapOptions::new().len(to_len(shape.len + ALIGN + shape.align)?).map_anon()?;
    let start = to_len((map.as_ptr().addr() as u64).wrapping_neg() % shape.align)?;
    if shape.align == LARGE_PAGE {
        super::use_large_pages(&map, start..start + to_len(shape.len)?);
    }
    Ok((map, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_where_the_offset_says_and_none_are_shared() {
        for len in [1, 4095, 4096, 65_536, (2 << 20) - 300_000, (2 << 20) - 100_000, 2 << 20, (2 << 20) + 1, 5 << 20] {
            let mut buffer = Buffer::new(len);
            for offset in [0u64, 1, 8, 511, 512, 4095, 4096, 1 << 40, (1 << 40) + 4095] {
                let bytes = buffer.at(offset, len).unwrap();
                assert_eq!(bytes.len(), len);
                assert_eq!(bytes.as_ptr().addr() as u64 % 4096, offset % 4096);
                bytes.fill(7);
            }
            assert!(Buffer::memory_bytes(len as u64) >= len as u64 + 4096);
            assert!(Buffer::memory_bytes(len as u64) <= len as u64 + len as u64 / 8 + 8192);
        }
    }

    #[test]
    fn a_buffer_grows_when_more_is_needed() {
        let mut buffer = Buffer::new(10);
        buffer.at(3, 10).unwrap().fill(1);
        assert_eq!(buffer.at(7, 1 << 20).unwrap().len(), 1 << 20);
        assert!(Buffer::default().at(0, 0).unwrap().is_empty());
    }
}

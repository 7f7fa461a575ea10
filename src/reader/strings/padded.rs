//! Strings as elements of one length, padded with zeros.

use std::ops::Range;
use std::sync::Arc;

use super::Strings;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::reader::checksums::Region;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Elements read at once.
const BLOCK: u64 = 4096;

/// The bytes of `|S<n>` elements: a `uint8` tensor with one more axis, as long as the longest element.
#[derive(Debug)]
pub(crate) struct Padded<'a> {
    strings: Arc<Strings<'a>>,
    spec: TensorSpec,
    width: u64,
}

/// The part of an element that is read, and how much of it is stored.
struct ElementPart {
    /// Bytes in the output, padding included.
    room: usize,
    /// Bytes of the element.
    len: usize,
    /// Whether its last byte is included.
    ends: bool,
}

impl<'a> Padded<'a> {
    /// # Errors
    /// Returns [`Error::BadRequest`] when the elements, all as long as the longest, exceed what an array can have.
    pub(crate) fn new(strings: Arc<Strings<'a>>) -> Result<Self> {
        let width = strings.longest().max(1);
        let shape = strings.shape().iter().copied().chain([width]).collect();
        let spec = TensorSpec::new(Dtype::UInt8, shape).map_err(|request| BadRequest::StringsTooLong {
            name: strings.stored.name.clone(),
            longest: width,
            unit: "bytes",
            request: Box::new(request),
        })?;
        Ok(Self { strings, spec, width })
    }
}

impl TensorReader for Padded<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, bytes: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let mut element = bytes.start / self.width;
        let mut skipped = bytes.start % self.width;
        let mut lengths = self.strings.lengths_from(element, &context.calls)?;
        let mut parts = Vec::new();
        let mut rest = out;
        while !rest.is_empty() {
            // Collects elements until the block or the output is full.
            let data_at = lengths.data_at();
            let (mut room, mut len, mut first_skip) = (0, 0, 0);
            parts.clear();
            while parts.len() < memory_len(BLOCK) && room < rest.len() {
                let length = lengths.next_length()?.unwrap_or(0);
                let until = (rest.len() - room) as u64 + skipped;
                let (from, to) = (skipped.min(length), until.min(self.width).min(length));
                let part = ElementPart {
                    room: memory_len(self.width.min(until) - skipped),
                    len: memory_len(to - from),
                    ends: to == length && from < to,
                };
                if parts.is_empty() {
                    first_skip = from;
                }
                room += part.room;
                len += part.len;
                parts.push(part);
                skipped = 0;
            }
            let (block, behind) = std::mem::take(&mut rest).split_at_mut(room);
            rest = behind;
            // Bytes are read to the end of the block and moved forward; the gap before the rest stays at least as large as the
            // padding still to be written.
            self.strings.read_data(data_at + first_skip, &mut block[room - len..], context)?;
            self.spread(block, room - len, &parts, element)?;
            element += parts.len() as u64;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        self.strings.regions()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.strings.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        self.strings.heap_bytes()
    }
}

impl Padded<'_> {
    /// Moves the contiguous elements that start at `from` to their places and pads each with zeros.
    fn spread(&self, block: &mut [u8], mut from: usize, parts: &[ElementPart], first: u64) -> Result<()> {
        let mut to = 0;
        for (i, part) in parts.iter().enumerate() {
            block.copy_within(from..from + part.len, to);
            block[to + part.len..to + part.room].fill(0);
            if part.ends && block[to + part.len - 1] == 0 {
                let detail = format!("ends in a NUL byte, which NumPy would lose in |S{}: `strings` offsets keeps it", self.width);
                return Err(self.strings.lossy(first + i as u64, detail));
            }
            from += part.len;
            to += part.room;
        }
        Ok(())
    }
}

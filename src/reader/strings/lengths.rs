//! The lengths of strings: checked in one pass, then found from the marks that the pass left.

use std::ops::Range;
use std::sync::Arc;

use byteorder::{ByteOrder as _, LittleEndian};

use super::lengths_crc::{CHUNK, LengthsCrc};
use super::stored::StoredStrings;
use crate::error::Result;
use crate::format::crc::Checksum;
use crate::format::{crc, varint};
use crate::os::SystemCalls;
use crate::reader::checksums::Region;

/// The longest varint.
const MOST_VARINT: usize = 10;
/// Bytes of a stored checksum.
const CRC_BYTES: usize = 4;
/// Initial number of elements between marks; at [`MOST_MARKS`] marks it doubles and every second mark is dropped.
const FIRST_STEP: u64 = if cfg!(test) { 2 } else { 1024 };
const MOST_MARKS: usize = if cfg!(test) { 8 } else { 16 << 10 };

/// A place where reading lengths can resume.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The element whose length comes next.
    element: u64,
    /// Place of that length, from the start of the stored tensor.
    length_at: u64,
    /// Place of the element's bytes, from the start of the data.
    data_at: u64,
}

/// What one pass over all lengths found.
#[derive(Debug)]
pub(crate) struct LengthScan {
    /// The number of elements of the tensor.
    elements: u64,
    /// Elements between marks.
    step: u64,
    marks: Vec<Mark>,
    /// Start of the elements' data, from the start of the stored tensor.
    pub(crate) data_start: u64,
    /// The checksum of everything before them.
    crc_before_data: u32,
    /// Bytes of the longest selected element.
    pub(crate) longest: u64,
    /// Place of the selected elements' bytes, from the start of the data.
    pub(crate) selected_data: Range<u64>,
}

impl LengthScan {
    pub(crate) fn new(stored: &StoredStrings<'_>, selected: &Range<u64>, verify: bool, calls: &SystemCalls) -> Result<Self> {
        let elements: u64 = stored.shape.iter().product();
        let size = stored.region.nbytes;
        if elements.checked_add(CRC_BYTES as u64).is_none_or(|least| least > size) {
            return Err(stored.malformed(0, format!("{elements} strings need a byte each and {CRC_BYTES} more, {size} bytes are stored")));
        }
        let mut lengths = Lengths::new(stored, Mark { element: 0, length_at: 0, data_at: 0 }, elements, calls);
        let mut checksum = LengthsCrc::new(stored.big_endian);
        let (mut step, mut marks, mut longest) = (FIRST_STEP, Vec::new(), 0);
        let mut selected_data = 0..0;
        loop {
            let mark = lengths.next;
            if mark.element == selected.start {
                selected_data.start = mark.data_at;
            }
            if mark.element == selected.end {
                selected_data.end = mark.data_at;
            }
            if mark.element.is_multiple_of(step) {
                calls.cancel().check()?;
                if marks.len() == MOST_MARKS {
                    step *= 2;
                    marks.retain(|mark: &Mark| mark.element.is_multiple_of(step));
                }
                if mark.element.is_multiple_of(step) {
                    marks.push(mark);
                }
            }
            let Some(length) = lengths.next_length()? else { break };
            checksum.add(length);
            if selected.contains(&mark.element) {
                longest = longest.max(length);
            }
        }
        let end = lengths.next;
        let data_start = end.length_at + CRC_BYTES as u64;
        if data_start.checked_add(end.data_at) != Some(size) {
            let detail = format!("{elements} strings of {} bytes together and {data_start} before them in {size} bytes", end.data_at);
            return Err(stored.malformed(0, detail));
        }
        let mut stored_crc = [0; CRC_BYTES];
        stored.read(end.length_at, &mut stored_crc, calls)?;
        let (expected, actual) = (crc::unmask(LittleEndian::read_u32(&stored_crc)), checksum.finish());
        if verify && actual != expected {
            let detail = format!("CRC32C of the lengths is {actual:#010x}, the file says {expected:#010x}");
            return Err(stored.malformed(end.length_at, detail));
        }
        Ok(Self { elements, step, marks, data_start, crc_before_data: crc::append(actual, &stored_crc), longest, selected_data })
    }

    /// The data of the elements stored in `region`, with its expected checksum.
    pub(crate) fn data(&self, region: &Region) -> Region {
        let nbytes = region.nbytes - self.data_start;
        // The checksum of a whole is a linear function of the checksums of its parts.
        let checksum = region.checksum.kind().behind(self.crc_before_data, region.checksum.value(), nbytes);
        Region::new(Arc::clone(&region.path), region.offset + self.data_start, nbytes, Checksum::Crc32c(checksum))
    }

    /// Lengths from `element` of the tensor on.
    pub(crate) fn lengths_from<'b>(&self, stored: &'b StoredStrings<'b>, element: u64, calls: &SystemCalls) -> Result<Lengths<'b>> {
        let at = crate::types::size::memory_len(element / self.step).min(self.marks.len() - 1);
        let mut lengths = Lengths::new(stored, self.marks[at], self.elements, calls);
        while lengths.next.element < element {
            lengths.next_length()?;
        }
        Ok(lengths)
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.marks.capacity() * size_of::<Mark>()) as u64
    }
}

/// Reads lengths one after the other.
#[derive(Debug)]
pub(crate) struct Lengths<'a> {
    stored: &'a StoredStrings<'a>,
    calls: SystemCalls,
    /// The number of elements of the tensor.
    elements: u64,
    next: Mark,
    /// Place of the first length that was read.
    start: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer already used.
    used: usize,
}

impl Drop for Lengths<'_> {
    fn drop(&mut self) {
        self.stored.evict(self.start..self.next.length_at, &self.calls);
    }
}

impl<'a> Lengths<'a> {
    fn new(stored: &'a StoredStrings<'a>, next: Mark, elements: u64, calls: &SystemCalls) -> Self {
        Self { stored, calls: calls.clone(), elements, start: next.length_at, next, buffer: Vec::new(), used: 0 }
    }

    /// Place of the next element's bytes, from the start of the data.
    pub(crate) fn data_at(&self) -> u64 {
        self.next.data_at
    }

    /// The length of the next element; `None` after the last.
    pub(crate) fn next_length(&mut self) -> Result<Option<u64>> {
        if self.next.element == self.elements {
            return Ok(None);
        }
        if self.buffer.len() - self.used < MOST_VARINT {
            self.refill()?;
        }
        let at = self.next.length_at;
        let (length, n) =
            varint::read_u64(&self.buffer[self.used..], 0, "string length").map_err(|e| self.stored.malformed(at, e.detail))?;
        let size = self.stored.region.nbytes;
        let data_at = self.next.data_at.checked_add(length).filter(|&end| end <= size).ok_or_else(|| {
            let detail = format!("element {} has {length} bytes, all strings together have {size}", self.next.element);
            self.stored.malformed(at, detail)
        })?;
        self.used += n;
        self.next = Mark { element: self.next.element + 1, length_at: at + n as u64, data_at };
        Ok(Some(length))
    }

    /// Refills the buffer, up to the end of what is stored.
    fn refill(&mut self) -> Result<()> {
        let left = self.stored.region.nbytes - self.next.length_at;
        // At most what the lengths can take: the elements' data follows them.
        let most = (self.elements - self.next.element).saturating_mul(MOST_VARINT as u64);
        self.buffer.resize(crate::types::size::memory_len(left.min(most)).min(CHUNK), 0);
        self.used = 0;
        self.stored.read(self.next.length_at, &mut self.buffer, &self.calls)
    }
}

#[cfg(test)]
mod tests {
    use crate::storage::blob::Storage;
    use crate::storage::local::LocalStorage;
    use std::path::Path;

    use super::super::stored::StringBytes;
    use super::*;
    use crate::storage::shards::ShardSet;
    use proptest::prelude::*;

    fn varint(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        varint::push(&mut out, value);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_element_is_found_from_the_marks(lengths in prop::collection::vec(prop_oneof![0u64..3, 0u64..400], 0..120), picks in any::<[prop::sample::Index; 2]>()) {
            let mut bytes = vec![0; 7];
            let mut crc = LengthsCrc::new(false);
            for &length in &lengths {
                bytes.extend(varint(length));
                crc.add(length);
            }
            let masked = crc.finish().rotate_right(15).wrapping_add(0xa282_ead8);
            bytes.extend(masked.to_le_bytes());
            bytes.resize(bytes.len() + lengths.iter().sum::<u64>() as usize, b'x');
            let dir = tempfile::tempdir().unwrap();
            let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(SystemCalls::default()));
            std::fs::write(dir.path().join("s.data-00000-of-00001"), &bytes).unwrap();
            let shards = ShardSet::new(dir.path().join("s"), 1, &storage, &SystemCalls::default());
            let region = Region::new(Path::new("s").into(), 7, bytes.len() as u64 - 7, Checksum::Crc32c(0));
            let shape = vec![lengths.len() as u64];
            let stored = StoredStrings { bytes: StringBytes::Shard(&shards, 0), big_endian: false, name: "t".into(), shape, region };
            let mut ends = picks.map(|pick| pick.index(lengths.len() + 1) as u64);
            ends.sort_unstable();
            let scan = LengthScan::new(&stored, &(ends[0]..ends[1]), true, &SystemCalls::default()).unwrap();
            prop_assert!(scan.marks.len() <= MOST_MARKS);
            let selected = &lengths[ends[0] as usize..ends[1] as usize];
            prop_assert_eq!(scan.longest, selected.iter().copied().max().unwrap_or(0));
            let start: u64 = lengths[..ends[0] as usize].iter().sum();
            prop_assert_eq!(scan.selected_data.clone(), start..start + selected.iter().sum::<u64>());
            for element in 0..=lengths.len() {
                let mut found = scan.lengths_from(&stored, element as u64, &SystemCalls::default()).unwrap();
                prop_assert_eq!(found.data_at(), lengths[..element].iter().sum::<u64>());
                prop_assert_eq!(found.next_length().unwrap(), lengths.get(element).copied());
            }
        }
    }
}

//! Batches of consecutive records of one file.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder as _, LittleEndian};

use super::memory_pool::PoolShare;
use crate::error::{Error, ParseError, Result};
use crate::format::{crc, tfrecord};
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Bytes of a long record that are read between checks for cancellation.
const PART_BYTES: usize = 8 << 20;

/// Consecutive records of one file.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The number of the batch.
    pub(crate) number: u64,
    /// The number of its first record among the selected records.
    pub(crate) first: u64,
    /// The number of its first record in its file.
    pub(crate) in_file: u64,
    pub(crate) path: Arc<Path>,
    /// Offset of its bytes in the decompressed file.
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Range<usize>>,
    /// Number of frames in a record.
    pub(crate) group: usize,
    /// The file to read the bytes from, and their length, if not read yet.
    pub(crate) unread: Option<(Arc<dyn Blob>, usize)>,
    /// Whether checksums of the data still have to be compared.
    pub(crate) unchecked: bool,
    /// Bits by which big-endian 16-bit samples still have to be shifted right.
    pub(crate) shift: u32,
    pub(crate) held: PoolShare,
}

impl Batch {
    /// A batch of records copied from several files.
    pub(crate) fn gathered(
        number: u64,
        first: u64,
        path: Arc<Path>,
        bytes: Vec<u8>,
        frames: Vec<Range<usize>>,
        group: usize,
        held: PoolShare,
    ) -> Self {
        Self { number, first, in_file: first, path, base: 0, bytes, frames, group, unread: None, unchecked: false, shift: 0, held }
    }

    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.frames.len() / self.group
    }

    /// Part `part` of record `record`.
    pub(crate) fn part(&self, record: usize, part: usize) -> &[u8] {
        &self.bytes[self.frames[record * self.group + part].clone()]
    }

    /// Reads and verifies what is still pending.
    pub(crate) fn load(&mut self) -> Result<()> {
        if let Some((file, len)) = self.unread.take() {
            self.bytes.reserve_exact(len);
            self.bytes.resize(len, 0);
            let mut at = self.base;
            for part in self.bytes.chunks_mut(PART_BYTES) {
                file.read(at, part, file.calls())?;
                at += part.len() as u64;
            }
        }
        let shift = std::mem::take(&mut self.shift);
        for frame in self.frames.iter().filter(|_| shift > 0) {
            for sample in self.bytes[frame.clone()].chunks_exact_mut(2) {
                BigEndian::write_u16(sample, BigEndian::read_u16(sample) >> shift);
            }
        }
        if !std::mem::take(&mut self.unchecked) {
            return Ok(());
        }
        match (0..self.frames.len()).find_map(|frame| wrong_checksum(&self.bytes, &self.frames[frame]).map(|detail| (frame, detail))) {
            None => Ok(()),
            Some((frame, detail)) => {
                let record = frame / self.group;
                let whole = intact_before(self.in_file + record as u64, false);
                Err(self.malformed(record, self.frames[frame].start, "TFRecord", &format!("{detail}; {whole}")))
            }
        }
    }

    /// The error for part `part` of record `record`, with its place in the file.
    pub(crate) fn error(&self, record: usize, part: usize, error: &ParseError) -> Error {
        let at = self.frames[record * self.group + part].start + memory_len(error.offset);
        self.malformed(record, at, error.what, &error.detail)
    }

    fn malformed(&self, record: usize, at: usize, what: &str, detail: &str) -> Error {
        Error::malformed_at(&self.path, format!("{what} of record {}", self.in_file + record as u64), self.base + at as u64, detail)
    }

    /// Names a record in messages.
    pub(crate) fn describe(&self, record: usize) -> String {
        format!("record {} of {}", self.in_file + record as u64, self.path.display())
    }
}

/// Compares the checksum after the data; returns what is wrong.
pub(crate) fn wrong_checksum(bytes: &[u8], data: &Range<usize>) -> Option<String> {
    let stored = crc::unmask(LittleEndian::read_u32(&bytes[data.end..data.end + tfrecord::FOOTER_LEN]));
    let found = crc::crc32c(&bytes[data.clone()]);
    (stored != found).then(|| format!("the checksum of its {} bytes is {found:#010x}, stored is {stored:#010x}", data.len()))
}

impl Drop for Batch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.bytes);
        let mut state = self.held.pool.lock();
        // Buffers that a long record enlarged are not kept.
        let kept: usize = state.free.iter().map(Vec::capacity).sum();
        if (kept + buffer.capacity()) as u64 <= self.held.pool.limit / 8 {
            state.free.push(buffer);
        }
    }
}

/// States how many records before a damage are intact, and hints at `salvage` unless it is set.
pub(crate) fn intact_before(records: u64, is_salvage: bool) -> String {
    match records {
        0 => "no record before it".to_owned(),
        records if is_salvage => format!("the {records} records before it are whole"),
        records => format!("the {records} records before it are whole, and `salvage` converts them"),
    }
}

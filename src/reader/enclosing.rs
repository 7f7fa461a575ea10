//! A checksum over a run of a file that holds several tensors: the CRC-32 of a member of a ZIP archive.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::format::crc::Checksum;
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Limit for the bytes between tensors that are read for the comparison: this much, or the whole divided by [`PART_BETWEEN`].
const MOST_BETWEEN: u64 = 16 << 20;
const PART_BETWEEN: u64 = 8;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A run of a file under one checksum. Once its tensors have been read, the bytes between them are read, too, and the whole is
/// compared.
pub(crate) struct Enclosing {
    file: Arc<dyn Blob>,
    range: Range<u64>,
    checksum: Checksum,
    /// Its name in error messages.
    what: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Length and CRC of each part that has been read, by its start.
    parts: BTreeMap<u64, (u64, u32)>,
    /// Whether the whole has been compared and matched.
    is_right: bool,
}

impl fmt::Debug for Enclosing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enclosing").field("what", &self.what).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Enclosing {
    pub(crate) fn new(file: &Arc<dyn Blob>, range: Range<u64>, checksum: Checksum, what: String) -> Arc<Self> {
        Arc::new(Self { file: Arc::clone(file), range, checksum, what, state: Mutex::default() })
    }

    /// Adds a part read at `offset` of the file; compares the whole if little is missing. Returns whether the whole was compared.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] where the checksum differs, [`Error::Io`].
    pub(crate) fn add(&self, offset: u64, len: u64, crc: u32) -> Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_right {
            return Ok(true);
        }
        // A part that overlaps another, as in no file that a library writes, counts as a gap where it is alone.
        let before = state.parts.range(..offset.saturating_add(len)).next_back();
        if before.is_none_or(|(&start, &(known, _))| start + known <= offset || (start, known) == (offset, len)) {
            state.parts.insert(offset, (len, crc));
        }
        let gaps = self.gaps(&state.parts);
        let missing: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        if missing > MOST_BETWEEN.max((self.range.end - self.range.start) / PART_BETWEEN) {
            return Ok(false);
        }
        let kind = self.checksum.kind();
        let at_end = |crc: u32, end: u64| kind.shift(crc, self.range.end - end);
        let mut found = state.parts.iter().fold(0, |sum, (&start, &(len, crc))| sum ^ at_end(crc, start + len));
        for gap in gaps {
            found ^= at_end(self.crc_of(&gap)?, gap.end);
        }
        if found != self.checksum.value() {
            let (name, expected, len) = (kind.name(), self.checksum.value(), self.range.end - self.range.start);
            let detail = format!("{name} of {len} bytes is {found:#010x}, the archive says {expected:#010x}");
            return Err(Error::malformed_at(self.file.path(), &self.what, self.range.start, detail));
        }
        state.is_right = true;
        Ok(true)
    }

    /// Whether the whole has been compared and matched.
    pub(crate) fn is_right(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_right
    }

    /// The ranges that have not been read.
    fn gaps(&self, parts: &BTreeMap<u64, (u64, u32)>) -> Vec<Range<u64>> {
        let (mut gaps, mut at) = (Vec::new(), self.range.start);
        for (&start, &(len, _)) in parts {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(start + len);
        }
        if at < self.range.end {
            gaps.push(at..self.range.end);
        }
        gaps
    }

    fn crc_of(&self, range: &Range<u64>) -> Result<u32> {
        let mut buffer = vec![0; CHUNK.min(memory_len(range.end - range.start))];
        let (mut at, mut crc) = (range.start, 0);
        while at < range.end {
            let len = memory_len((range.end - at).min(buffer.len() as u64));
            self.file.read(at, &mut buffer[..len], self.file.calls())?;
            crc = self.checksum.kind().append(crc, &buffer[..len]);
            at += len as u64;
        }
        Ok(crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::Kind;
    use crate::os::SystemCalls;
    use crate::storage::local::LocalFile;

    #[test]
    fn parts_and_what_lies_between_are_compared_with_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file: Arc<dyn Blob> = LocalFile::open(&path, &SystemCalls::default()).unwrap();
        let whole = Checksum::Crc32(Kind::Crc32.of(&bytes[10..990]));
        let crc = |range: Range<usize>| Kind::Crc32.of(&bytes[range]);
        let right = Enclosing::new(&file, 10..990, whole, "x".into());
        assert!(!right.is_right());
        assert!(right.add(500, 100, crc(500..600)).unwrap() && right.is_right());
        let wrong = Enclosing::new(&file, 10..990, whole, "x".into());
        assert!(matches!(wrong.add(500, 100, crc(500..600) ^ 1), Err(Error::Malformed { .. })));
        let overlapping = Enclosing::new(&file, 10..990, whole, "x".into());
        overlapping.state.lock().unwrap().parts.insert(450, (100, crc(450..550)));
        assert!(overlapping.add(500, 100, crc(500..600)).unwrap(), "bytes that two parts share count once");
        let damaged = Enclosing::new(&file, 11..990, whole, "x".into());
        assert!(matches!(damaged.add(500, 100, crc(500..600)), Err(Error::Malformed { .. })));
    }
}

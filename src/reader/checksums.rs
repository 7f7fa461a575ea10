//! The checksums of a conversion: combines CRCs of parts into the CRC that the file states for the whole.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::enclosing::Enclosing;
use crate::error::{Error, Result};
use crate::format::crc::{Checksum, Kind};

/// A run of stored bytes covered by one checksum.
#[derive(Debug, Clone)]
pub struct Region {
    /// The file.
    pub path: Arc<Path>,
    /// Where the run starts in the file.
    pub offset: u64,
    /// Its length.
    pub nbytes: u64,
    /// The checksum that the format states.
    pub checksum: Checksum,
    /// A larger run with a checksum, if this part has none of its own.
    pub(crate) enclosing: Option<Arc<Enclosing>>,
}

impl Region {
    /// A run with its own checksum.
    #[must_use]
    pub fn new(path: Arc<Path>, offset: u64, nbytes: u64, checksum: Checksum) -> Self {
        Self { path, offset, nbytes, checksum, enclosing: None }
    }

    /// A part of a run that has a checksum.
    pub(crate) fn within(enclosing: &Arc<Enclosing>, path: Arc<Path>, offset: u64, nbytes: u64) -> Self {
        Self { enclosing: Some(Arc::clone(enclosing)), ..Self::new(path, offset, nbytes, Checksum::Crc32(0)) }
    }
}

/// How much of what was written was verified by stored checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// All of it.
    Full,
    /// Only pieces that were read whole; the rest has no checksum, or checking it would take reading more than was requested.
    Partial,
    /// None of it: verifying is off, or the selection lies inside the bytes that one checksum covers.
    Not,
}

/// Collects the CRCs of parts from all workers and compares the wholes.
///
/// The CRC of a whole is the sum of its parts' contributions, each shifted by the bytes after it. So parts may come in any order
/// and none is kept.
#[derive(Debug)]
pub(crate) struct RegionChecksums<'a> {
    regions: &'a [Region],
    progress: Vec<Mutex<Progress>>,
}

/// Progress of one region.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    /// Bytes read so far.
    len: u64,
    /// Sum of their contributions.
    crc: u32,
}

impl<'a> RegionChecksums<'a> {
    pub(crate) fn new(regions: &'a [Region]) -> Self {
        Self { regions, progress: regions.iter().map(|_| Mutex::default()).collect() }
    }

    /// Heap bytes for a number of regions.
    pub(crate) fn heap_bytes(regions: usize) -> u64 {
        (regions * size_of::<Mutex<Progress>>()) as u64
    }

    /// Records bytes of a region. Each byte must be recorded at most once; the order does not matter.
    pub(crate) fn record(&self, region: usize, offset: u64, bytes: &[u8]) {
        self.record_crc(region, offset, bytes.len() as u64, |kind| kind.of(bytes));
    }

    /// As [`record`](Self::record), for `len` zeros.
    pub(crate) fn record_zeros(&self, region: usize, offset: u64, len: u64) {
        self.record_crc(region, offset, len, |kind| kind.zeros(len));
    }

    fn record_crc(&self, region: usize, offset: u64, len: u64, crc: impl FnOnce(Kind) -> u32) {
        let (Some(progress), Some(whole)) = (self.progress.get(region), self.regions.get(region)) else { return };
        let kind = whole.checksum.kind();
        let crc = crc(kind);
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.len = progress.len.saturating_add(len);
        match whole.nbytes.checked_sub(offset).and_then(|rest| rest.checked_sub(len)) {
            Some(behind) => progress.crc ^= kind.shift(crc, behind),
            // Bytes outside the region must never count as verified.
            None => progress.len = u64::MAX,
        }
    }

    /// Compares every region that was read completely.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] for the first region whose checksum differs.
    pub(crate) fn verify(&self) -> Result<Verified> {
        let mut whole = 0;
        for (region, progress) in self.regions.iter().zip(&self.progress) {
            let Progress { len, crc: actual } = *progress.lock().unwrap_or_else(PoisonError::into_inner);
            if len < region.nbytes {
                continue;
            }
            if len > region.nbytes {
                let detail = format!("more bytes were read than the {} that the checksum covers", region.nbytes);
                return Err(Error::malformed_at(&region.path, "tensor data", region.offset, detail));
            }
            if let Some(enclosing) = &region.enclosing {
                whole += usize::from(enclosing.add(region.offset, region.nbytes, actual)?);
                continue;
            }
            whole += 1;
            let (name, expected) = (region.checksum.kind().name(), region.checksum.value());
            if actual != expected {
                let detail = format!("{name} of {} bytes is {actual:#010x}, the source says {expected:#010x}", region.nbytes);
                return Err(Error::malformed_at(&region.path, "tensor data", region.offset, detail));
            }
        }
        Ok(match whole {
            _ if whole == self.regions.len() && whole > 0 => Verified::Full,
            0 => Verified::Not,
            _ => Verified::Partial,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(bytes: &[u8]) -> Region {
        Region::new(Path::new("t.data").into(), 0, bytes.len() as u64, Checksum::Crc32c(Kind::Crc32c.of(bytes)))
    }

    proptest! {
        #[test]
        fn parts_in_any_order_verify_the_whole(bytes in prop::collection::vec(any::<u8>(), 1..400), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9), seed in any::<u64>()) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let mut parts: Vec<_> = cuts.windows(2).map(|w| w[0]..w[1]).collect();
            parts.sort_by_key(|part| (part.start as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let regions = [region(&bytes)];
            let checksums = RegionChecksums::new(&regions);
            for part in &parts {
                prop_assert_eq!(checksums.verify().unwrap(), Verified::Not);
                checksums.record(0, part.start as u64, &bytes[part.clone()]);
            }
            prop_assert_eq!(checksums.verify().unwrap(), Verified::Full);
        }
    }

    #[test]
    fn zeros_need_not_be_read() {
        let mut bytes = vec![0; 1000];
        bytes[..3].fill(7);
        bytes[700] = 9;
        let regions = [region(&bytes)];
        let checksums = RegionChecksums::new(&regions);
        checksums.record_zeros(0, 701, 299);
        checksums.record(0, 0, &bytes[..3]);
        checksums.record(0, 700, &bytes[700..701]);
        checksums.record_zeros(0, 3, 697);
        assert_eq!(checksums.verify().unwrap(), Verified::Full);
    }

    #[test]
    fn one_flipped_bit_is_found() {
        let bytes = [7u8; 64];
        let regions = [region(&bytes)];
        let checksums = RegionChecksums::new(&regions);
        let mut bad = bytes;
        bad[40] ^= 1;
        checksums.record(0, 32, &bad[32..]);
        checksums.record(0, 0, &bad[..32]);
        assert!(matches!(checksums.verify(), Err(Error::Malformed { .. })));
    }

    #[test]
    fn nothing_has_a_checksum_too() {
        let mut regions = [region(&[])];
        assert_eq!(RegionChecksums::new(&regions).verify().unwrap(), Verified::Full);
        regions[0].checksum = Checksum::Crc32(1);
        assert!(RegionChecksums::new(&regions).verify().is_err());
    }
}

//! Which parts of a file were in the page cache before this process read them. Those stay there; what reads bring in besides is
//! dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::{SystemCalls, cached_bytes, drop_pages, fetch_pages, is_unsupported, read_uncached};

/// Shorter reads leave their pages in the cache, since neighbouring data is likely to be read next.
const MIN_UNCACHED: usize = 64 << 10;
/// Parts of a file are looked up this many bytes at a time.
const SEGMENT: u64 = 64 << 20;
/// The smallest part that is kept or dropped as a whole: one bit of a segment.
const GRANULE: u64 = 1 << 20;
/// How far before a read to look for pages that an earlier eviction missed.
const REACH_BACK: u64 = SEGMENT;
/// How far beyond a read the kernel may read ahead.
const READ_AHEAD: u64 = 16 << 20;
/// One place of a granule that tells most of those that are cached with a call over few pages.
const PLACE: u64 = 64 << 10;
/// How many places are looked at in samples.
const PLACES: u64 = 64;

/// Which parts of a file were in the page cache at their first check.
#[derive(Debug, Clone, Default)]
pub(crate) struct Residency(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    is_cold: OnceLock<bool>,
    /// For every segment that was looked up, a bit for each granule that had a page in the cache.
    segments: RwLock<BTreeMap<u64, u64>>,
}

impl Residency {
    /// Fills `buf` from `offset`. A long read adds nothing to the page cache: it uses an uncached read where supported, and drops
    /// the pages of granules that were not cached before. (The kernel also keeps the pages of an uncached read if another thread was
    /// just reading the same folio; the eviction reaches back over those.)
    ///
    /// # Errors
    /// Returns the errors of [`SystemCalls::read_exact_at`].
    pub(crate) fn read_exact_at(&self, file: &File, buf: &mut [u8], offset: u64, calls: &SystemCalls) -> io::Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let is_long = buf.len() >= MIN_UNCACHED;
        // Checked before the first read, however short, because a read also brings in pages beyond its own.
        if calls.is_native() {
            self.look_up(file, &range);
        }
        let (mut rest, mut at) = (buf, offset);
        while rest.len() >= MIN_UNCACHED {
            match calls.repeat(|| calls.native(|| read_uncached(file, rest, at))) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    rest = &mut rest[read..];
                    at += read as u64;
                }
                Err(error) if is_unsupported(&error) => break,
                Err(error) => return Err(error),
            }
        }
        calls.read_exact_at(file, rest, at)?;
        if calls.is_native() && is_long {
            let range = range.start.saturating_sub(REACH_BACK)..range.end;
            self.uncached(&range).iter().for_each(|part| drop_pages(file, part));
        }
        Ok(())
    }

    /// Starts to fetch the parts of `range` that were not cached.
    pub(crate) fn prefetch(&self, file: &File, range: &Range<u64>, calls: &SystemCalls) {
        if calls.is_native() && !range.is_empty() {
            self.look_up(file, range);
            self.uncached(range).iter().for_each(|part| fetch_pages(file, part));
        }
    }

    /// Evicts the parts of `range` that were not cached before they were read.
    pub(crate) fn evict(&self, file: &File, range: &Range<u64>, calls: &SystemCalls) {
        if calls.is_native() && !range.is_empty() {
            self.uncached(range).iter().for_each(|part| drop_pages(file, part));
        }
    }

    /// Whether little of the file was in the page cache at the first call, by samples of the whole file.
    pub(crate) fn is_cold(&self, file: &File) -> bool {
        *self.0.is_cold.get_or_init(|| {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            len > 0 && sample(file, &(0..len)).is_ok_and(|cached| cached < PLACE)
        })
    }

    /// Looks up the segments that a read of `range` may bring pages into.
    fn look_up(&self, file: &File, range: &Range<u64>) {
        let segments = range.start / SEGMENT..range.end.saturating_add(READ_AHEAD).div_ceil(SEGMENT);
        let known = self.0.segments.read().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<u64> = segments.filter(|segment| !known.contains_key(segment)).collect();
        drop(known);
        if !missing.is_empty() {
            // Others who want to read these segments wait here, so their pages are not taken for older ones.
            let mut known = self.0.segments.write().unwrap_or_else(PoisonError::into_inner);
            for segment in missing {
                known.entry(segment).or_insert_with(|| cached_granules(|offset, len| cached_bytes(file, offset, len), segment));
            }
        }
    }

    /// The parts of `range` that were looked up and not cached.
    fn uncached(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let known = self.0.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut parts: Vec<Range<u64>> = Vec::new();
        for (&segment, &cached) in known.range(range.start / SEGMENT..range.end.div_ceil(SEGMENT)) {
            for granule in (0..SEGMENT / GRANULE).filter(|granule| cached >> granule & 1 == 0) {
                let start = segment * SEGMENT + granule * GRANULE;
                let (start, end) = (start.max(range.start), start.saturating_add(GRANULE).min(range.end));
                match parts.last_mut() {
                    _ if start >= end => {}
                    Some(last) if last.end == start => last.end = end,
                    _ => parts.push(start..end),
                }
            }
        }
        parts
    }
}

/// Whether nearly all of a part of a file is in the page cache, by samples.
pub(crate) fn is_cached(file: &File, range: &Range<u64>) -> bool {
    range.end - range.start >= PLACES * PLACE && sample(file, range).is_ok_and(|cached| cached >= (PLACES - PLACES / 8) * PLACE)
}

/// How many bytes are cached of 64 places in a part of a file.
fn sample(file: &File, range: &Range<u64>) -> io::Result<u64> {
    let step = (range.end - range.start) / PLACES;
    (0..PLACES).try_fold(0, |sum, i| Ok(sum + cached_bytes(file, range.start + i * step, PLACE)?))
}

/// A bit for each granule of a segment that has a page in the cache, where `cached` says how many bytes of a part are. All bits if
/// it does not say.
///
/// Counting every page of a cached file takes longer than a few per cent of reading it, so a granule whose first place is cached
/// is not counted; the count of what is not cached is quick.
fn cached_granules(cached: impl Fn(u64, u64) -> io::Result<u64>, segment: u64) -> u64 {
    let start = segment.saturating_mul(SEGMENT);
    let has = |offset, len| cached(offset, len).map_or(true, |bytes| bytes > 0);
    if !has(start, PLACE) && !has(start, SEGMENT) {
        return 0;
    }
    let places = (0..SEGMENT / GRANULE).map(|granule| start.saturating_add(granule * GRANULE));
    places.rev().fold(0, |bits, at| bits << 1 | u64::from(has(at, PLACE) || has(at, GRANULE)))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A granule has a bit exactly if one of its pages is cached, wherever the page lies.
        #[test]
        fn every_cached_page_is_found(pages in prop::collection::btree_set(0..3 * SEGMENT / 4096, 0..40), segment in 0..3u64) {
            let count = |offset: u64, len: u64| Ok(pages.iter().filter(|&&page| (offset..offset + len).contains(&(page * 4096))).count() as u64 * 4096);
            let bits = cached_granules(count, segment);
            for granule in 0..SEGMENT / GRANULE {
                let start = segment * SEGMENT + granule * GRANULE;
                prop_assert_eq!(bits >> granule & 1 == 1, count(start, GRANULE).unwrap() > 0);
            }
        }

        /// What is dropped and what was cached divide the looked-up segments among them.
        #[test]
        fn parts_are_the_granules_without_a_bit(bits in prop::collection::btree_map(0..4u64, any::<u64>(), 0..4), start in 0..5 * SEGMENT, len in 0..3 * SEGMENT) {
            let residency = Residency::default();
            residency.0.segments.write().unwrap().clone_from(&bits);
            let range = start..start + len;
            let parts = residency.uncached(&range);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(parts.iter().all(|part| range.start <= part.start && part.start < part.end && part.end <= range.end));
            let mut at = range.start;
            while at < range.end {
                let is_uncached = bits.get(&(at / SEGMENT)).is_some_and(|bits| bits >> (at % SEGMENT / GRANULE) & 1 == 0);
                prop_assert_eq!(parts.iter().any(|part| part.contains(&at)), is_uncached);
                at = (at / GRANULE + 1) * GRANULE;
            }
        }
    }

    /// A cached segment costs a call for each granule, an uncached one two.
    #[test]
    fn few_calls_tell_what_is_cached() {
        let calls = Cell::new(0);
        let count = |cached: u64| {
            calls.set(0);
            let bits = cached_granules(
                |_, len| {
                    calls.set(calls.get() + 1);
                    Ok(cached * len)
                },
                5,
            );
            (bits, calls.get())
        };
        assert_eq!(count(0), (0, 2));
        assert_eq!(count(1), (u64::MAX, 65));
        // A system that does not say keeps everything.
        assert_eq!(cached_granules(|_, _| Err(io::ErrorKind::Unsupported.into()), 0), u64::MAX);
    }
}

//! Parts of blocks at the ends of direct writes. They are kept until the neighbour brings the rest, because a write of a part of a block goes
//! through the page cache, and there it waits for all direct writes to the file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::types::size::memory_len;

/// Most bytes of blocks that are kept. Neighbours mostly come soon.
const MOST_BYTES: u64 = 256 << 10;

/// Unfinished blocks of one file, by their number.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    blocks: Mutex<BTreeMap<u64, Edge>>,
    /// Whether there is memory for them.
    have_memory: OnceLock<bool>,
}

#[derive(Debug)]
struct Edge {
    bytes: Vec<u8>,
    /// The parts of the block that are there; they do not overlap.
    parts: Vec<Range<usize>>,
}

impl Edges {
    /// Whether there is memory for them. `set_aside` is asked once.
    pub(crate) fn have_memory(&self, set_aside: impl Fn(u64) -> bool) -> bool {
        *self.have_memory.get_or_init(|| set_aside(MOST_BYTES))
    }

    /// Takes bytes that lie within one block of `unit` bytes, at `at` of the file, unless there are too many blocks already.
    pub(crate) fn add(&self, at: u64, bytes: &[u8], unit: u64) -> Added {
        let mut edges = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let number = at / unit;
        if edges.len() as u64 >= MOST_BYTES / unit && !edges.contains_key(&number) {
            return Added::No;
        }
        let edge = edges.entry(number).or_insert_with(|| Edge { bytes: vec![0; memory_len(unit)], parts: Vec::new() });
        let start = memory_len(at % unit);
        let part = start..start + bytes.len();
        edge.bytes[part.clone()].copy_from_slice(bytes);
        edge.parts.push(part);
        if edge.parts.iter().map(Range::len).sum::<usize>() < edge.bytes.len() {
            return Added::Kept;
        }
        edges.remove(&number).map_or(Added::Kept, |edge| Added::Complete(number * unit, edge.bytes))
    }

    /// Takes out what is left: places in the file, and bytes.
    pub(crate) fn take(&self, unit: u64) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let edges = std::mem::take(&mut *self.blocks.lock().unwrap_or_else(PoisonError::into_inner));
        edges.into_iter().flat_map(move |(number, edge)| {
            edge.parts.into_iter().map(move |part| (number * unit + part.start as u64, edge.bytes[part].to_vec())).collect::<Vec<_>>()
        })
    }
}

/// What became of bytes.
#[derive(Debug)]
pub(crate) enum Added {
    /// They are kept.
    Kept,
    /// With them this block is whole: its place in the file, and its bytes.
    Complete(u64, Vec<u8>),
    /// They are not kept.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_comes_back_once(cuts in prop::collection::vec(1u64..4000, 0..6), seed in any::<u64>(), is_whole in any::<bool>()) {
            let mut ends: Vec<u64> = cuts.into_iter().chain([0, 4096]).collect();
            ends.sort_unstable();
            ends.dedup();
            let mut parts: Vec<_> = ends.windows(2).map(|ends| ends[0]..ends[1]).collect();
            parts.sort_by_key(|part| (part.start ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if !is_whole {
                parts.pop();
            }
            let block: Vec<u8> = (0u64..4096).map(|i| (i % 251) as u8).collect();
            let edges = Edges::default();
            for (i, part) in parts.iter().enumerate() {
                let bytes = &block[part.start as usize..part.end as usize];
                match edges.add(7 * 4096 + part.start, bytes, 4096) {
                    Added::Complete(at, done) => prop_assert!(is_whole && i + 1 == parts.len() && at == 7 * 4096 && done == block),
                    added => prop_assert!(matches!(added, Added::Kept) && !(is_whole && i + 1 == parts.len())),
                }
            }
            let left: Vec<_> = edges.take(4096).collect();
            prop_assert_eq!(left.len(), if is_whole { 0 } else { parts.len() });
            for (at, bytes) in left {
                let at = (at - 7 * 4096) as usize;
                prop_assert_eq!(&block[at..at + bytes.len()], &bytes[..]);
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let edges = Edges::default();
        (0..64).for_each(|i| assert!(matches!(edges.add(i * 4096, &[1], 4096), Added::Kept)));
        assert!(matches!(edges.add(64 * 4096, &[1], 4096), Added::No));
        assert!(matches!(edges.add(4097, &[1; 4095], 4096), Added::Complete(4096, _)));
        assert!(matches!(edges.add(64 * 4096, &[1], 4096), Added::Kept));
    }
}

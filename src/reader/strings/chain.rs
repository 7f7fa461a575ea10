//! Strings of many small tensors, presented as one tensor: the elements of a tf.data cache.

use std::ops::Range;

use crate::error::Result;
use crate::os::SystemCalls;
use crate::reader::checksums::{Region, RegionChecksums};
use crate::storage::shards::ShardSet;
use crate::types::size::memory_len;

/// The lengths of all strings, in memory, and the places of each tensor's bytes.
///
/// They read as if one tensor had been stored: lengths, their checksum, bytes.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) shards: &'a ShardSet,
    pub(crate) front: Vec<u8>,
    pub(crate) parts: Vec<TensorBytes>,
    /// Expected checksum of the bytes of each tensor.
    pub(crate) regions: Vec<Region>,
}

/// The string bytes of one tensor.
#[derive(Debug)]
pub(crate) struct TensorBytes {
    /// Start among the bytes of all tensors.
    pub(crate) start: u64,
    pub(crate) shard: u32,
    /// Offset in the shard.
    pub(crate) offset: u64,
}

/// The part of a byte range within one tensor: its index, the offset in it, and the part of the range.
type Piece = (usize, u64, Range<usize>);

impl Chain<'_> {
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.shards.check_unchanged(self.parts.iter().map(|part| part.shard))
    }

    /// Splits `len` bytes from `at` of all string bytes by the tensors that hold them.
    pub(crate) fn pieces(&self, at: u64, len: usize) -> impl Iterator<Item = Piece> + '_ {
        let first = self.parts.partition_point(|part| part.start <= at).saturating_sub(1);
        let end = at.saturating_add(len as u64);
        let parts = self.parts[first..].iter().zip(&self.regions[first..]).enumerate();
        parts.take_while(move |(_, (part, _))| part.start < end).map(move |(number, (part, region))| {
            let (from, to) = (part.start.max(at), part.start.saturating_add(region.nbytes).min(end));
            (first + number, from - part.start, memory_len(from - at)..memory_len(to.max(from) - at))
        })
    }

    /// Fills `buf`, starting at `at`.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        let len = self.front.len() as u64;
        let (held, stored) = buf.split_at_mut(memory_len(len.saturating_sub(at)).min(buf.len()));
        if !held.is_empty() {
            let at = memory_len(at);
            held.copy_from_slice(&self.front[at..at + held.len()]);
        }
        for (number, inside, range) in self.pieces(at.saturating_sub(len), stored.len()) {
            let part = &self.parts[number];
            self.shards.read(part.shard, part.offset + inside, &mut stored[range], calls)?;
        }
        Ok(())
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        let lists = self.front.len() + self.parts.len() * (size_of::<TensorBytes>() + size_of::<Region>());
        (lists as u64).saturating_add(RegionChecksums::heap_bytes(self.regions.len()))
    }
}

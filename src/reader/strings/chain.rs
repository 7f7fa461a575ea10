//! Strings of many small tensors, put together to those of one: the elements of a tf.data cache.

use std::ops::Range;
use std::sync::Arc;

use super::lengths::{LengthsCrc, Scan};
use super::{StoredStrings, StringBytes};
use crate::error::{Error, Result};
use crate::format::{crc, varint};
use crate::os::Calls;
use crate::reader::checksums::{Checksum, Ledger, Region};
use crate::storage::shards::ShardSet;
use crate::types::spec::memory_len;

/// The lengths of all strings, held; and where the bytes of each tensor lie.
///
/// Together they read as if one tensor had been stored: lengths, their checksum, bytes.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    shards: &'a ShardSet,
    front: Vec<u8>,
    parts: Vec<Part>,
    /// What the bytes of each tensor have to be like.
    regions: Vec<Region>,
}

/// The bytes of the strings of a tensor.
#[derive(Debug)]
struct Part {
    /// Where they start among those of all.
    start: u64,
    shard: u32,
    /// Where they lie in the shard.
    offset: u64,
}

/// A part of some bytes that lies in one tensor: which, where in it, and which of the bytes.
type Piece = (usize, u64, Range<usize>);

impl<'a> Chain<'a> {
    /// The strings of tensors in `shards`, of so many elements together.
    ///
    /// # Errors
    /// [`Error::Malformed`] where lengths are not what is stored, [`Error::Io`].
    pub(crate) fn join(
        shards: &'a ShardSet,
        name: &str,
        shape: Vec<u64>,
        tensors: impl IntoIterator<Item = Result<StoredStrings<'a>>>,
    ) -> Result<StoredStrings<'a>> {
        let (mut front, mut parts, mut regions, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
        let (mut checksum, mut path, mut big_endian) = (None, None, false);
        for stored in tensors {
            let stored = stored?;
            let StringBytes::Shard(_, shard) = stored.bytes else {
                return Err(stored.malformed(0, "its strings lie in no shard"));
            };
            let elements: u64 = stored.shape.iter().product();
            let scan = Scan::new(&stored, &(0..elements), true, shards.calls())?;
            big_endian = stored.big_endian;
            let checksum = checksum.get_or_insert_with(|| LengthsCrc::new(big_endian));
            let mut lengths = scan.lengths_from(&stored, 0, shards.calls())?;
            while let Some(length) = lengths.next_length()? {
                varint::push(&mut front, length);
                checksum.add(length);
            }
            let data = scan.data(&stored.region);
            path.get_or_insert_with(|| Arc::clone(&data.path));
            parts.push(Part { start, shard, offset: data.offset });
            start = start.checked_add(data.nbytes).ok_or_else(|| Error::bad_request("strings of 2^64 bytes or more"))?;
            regions.push(data);
        }
        let (Some(checksum), Some(path)) = (checksum, path) else {
            return Err(Error::bad_request(format!("there are no strings to be {name}")));
        };
        front.extend(crc::mask(checksum.finish()).to_le_bytes());
        // Each part has a checksum of its own; there is none over all.
        let region = Region::new(path, 0, (front.len() as u64).saturating_add(start), Checksum::Crc32c(0));
        let bytes = StringBytes::Chain(Arc::new(Self { shards, front, parts, regions }));
        Ok(StoredStrings { bytes, big_endian, name: name.to_owned(), shape, region })
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.shards.check_unchanged(self.parts.iter().map(|part| part.shard))
    }

    /// The tensors that `len` bytes from `at` of those of all strings lie in.
    pub(crate) fn pieces(&self, at: u64, len: usize) -> impl Iterator<Item = Piece> + '_ {
        let first = self.parts.partition_point(|part| part.start <= at).saturating_sub(1);
        let end = at.saturating_add(len as u64);
        let parts = self.parts[first..].iter().zip(&self.regions[first..]).enumerate();
        parts.take_while(move |(_, (part, _))| part.start < end).map(move |(number, (part, region))| {
            let (from, to) = (part.start.max(at), part.start.saturating_add(region.nbytes).min(end));
            (first + number, from - part.start, memory_len(from - at)..memory_len(to.max(from) - at))
        })
    }

    /// Fills `buf` from `at` on.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8], calls: &Calls) -> Result<()> {
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
        let lists = self.front.len() + self.parts.len() * (size_of::<Part>() + size_of::<Region>());
        (lists as u64).saturating_add(Ledger::heap_bytes(self.regions.len()))
    }
}

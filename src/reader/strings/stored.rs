//! How the strings of a tensor are stored: lengths, their checksum, bytes.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::chain::Chain;
use super::lengths_crc::LengthsCrc;
use crate::error::{Error, Result};
use crate::format::crc::Checksum;
use crate::format::{crc, varint};
use crate::os::SystemCalls;
use crate::reader::checksums::Region;
use crate::storage::shards::ShardSet;
use crate::types::name::Name;
use crate::types::size::memory_len;

/// The most memory for strings that are converted to this form.
pub(crate) const MOST_HELD: u64 = 64 << 20;

/// The strings of one tensor as they are stored.
///
/// A varint for each length, the masked CRC32C of the lengths, the bytes of all elements. The checksum of the lengths covers
/// 32-bit integers (64-bit where the value needs it) in the byte order of the file. The entry's checksum continues from there:
/// over the four stored bytes, then the bytes of the elements. Source: `ReadStringTensor` and `WriteStringTensor` in
/// `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`.
#[derive(Debug, Clone)]
pub(crate) struct StoredStrings<'a> {
    pub(crate) bytes: StringBytes<'a>,
    pub(crate) big_endian: bool,
    /// The tensor's name, for messages.
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    /// All stored bytes of the tensor, and their checksum.
    pub(crate) region: Region,
}

/// Where they are stored.
#[derive(Debug, Clone)]
pub(crate) enum StringBytes<'a> {
    /// In a shard of a checkpoint.
    Shard(&'a ShardSet, u32),
    /// In memory, collected from a format that stores each string on its own.
    Held(Arc<[u8]>),
    /// The strings of many tensors, in shards of a checkpoint.
    Chain(Arc<Chain<'a>>),
}

impl StoredStrings<'static> {
    /// Collects strings of another format into this form. `path` is their source.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] for more than [`MOST_HELD`] bytes.
    pub(crate) fn held(
        path: &Arc<Path>,
        name: &Name,
        shape: &[u64],
        collect: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<Self> {
        let (mut lengths, mut data, mut checksum) = (Vec::new(), Vec::new(), LengthsCrc::new(false));
        // Each string takes at least a byte.
        let count: u64 = shape.iter().product();
        if count > MOST_HELD {
            let what = format!("memory for the strings of {name} in {}", path.display());
            return Err(Error::Limit { what, asked: count, allowed: Some(MOST_HELD) });
        }
        collect(&mut |string| {
            if (lengths.len() + data.len() + string.len()) as u64 > MOST_HELD {
                let what = format!("memory for the strings of {name} in {}", path.display());
                return Err(Error::Limit { what, asked: (data.len() + string.len()) as u64, allowed: Some(MOST_HELD) });
            }
            varint::push(&mut lengths, string.len() as u64);
            checksum.add(string.len() as u64);
            data.extend_from_slice(string);
            Ok(())
        })?;
        let sum = checksum.finish();
        let stored = crc::mask(sum).to_le_bytes();
        let checksum = Checksum::Crc32c(crc::append(crc::append(sum, &stored), &data));
        lengths.extend(stored);
        lengths.append(&mut data);
        let region = Region::new(Arc::clone(path), 0, lengths.len() as u64, checksum);
        let bytes = StringBytes::Held(lengths.into());
        Ok(Self { bytes, big_endian: false, name: name.to_string(), shape: shape.to_vec(), region })
    }
}

impl StoredStrings<'_> {
    pub(crate) fn malformed(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::malformed_at(&self.region.path, format!("strings of {:?}", self.name), self.region.offset + at, detail)
    }

    /// Drops pages that were cached by reading this range, if they were not cached before.
    pub(crate) fn evict(&self, stored: Range<u64>, calls: &SystemCalls) {
        if let StringBytes::Shard(shards, shard) = &self.bytes
            && let Ok(blob) = shards.open(*shard)
        {
            blob.evict(&(self.region.offset + stored.start..self.region.offset + stored.end), calls);
        }
    }

    pub(crate) fn read(&self, at: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => shards.read(*shard, self.region.offset + at, buf, calls),
            StringBytes::Held(bytes) => {
                buf.copy_from_slice(&bytes[memory_len(at)..memory_len(at) + buf.len()]);
                Ok(())
            }
            StringBytes::Chain(chain) => chain.read(at, buf, calls),
        }
    }

    /// The file, if it holds the strings as one run.
    pub(crate) fn file(&self) -> Result<Option<Arc<File>>> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => shards.open(*shard)?.local_file(),
            StringBytes::Held(_) | StringBytes::Chain(_) => Ok(None),
        }
    }

    /// Fails if a file with the strings has changed since it was first opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => shards.check_unchanged([*shard]),
            StringBytes::Chain(chain) => chain.check_unchanged(),
            StringBytes::Held(_) => Ok(()),
        }
    }
}

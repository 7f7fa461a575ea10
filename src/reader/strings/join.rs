//! Joins the strings of many small tensors.

use std::sync::Arc;

use super::chain::{Chain, TensorBytes};
use super::lengths::LengthScan;
use super::lengths_crc::LengthsCrc;
use super::stored::{StoredStrings, StringBytes};
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::format::crc::Checksum;
use crate::format::{crc, varint};
use crate::reader::checksums::Region;
use crate::storage::shards::ShardSet;

impl<'a> Chain<'a> {
    /// Joins the strings of tensors in `shards` into one tensor of `shape`.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] where lengths do not match what is stored, [`Error::Io`].
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
                return Err(stored.malformed(0, "its strings are in no shard"));
            };
            let elements: u64 = stored.shape.iter().product();
            let scan = LengthScan::new(&stored, &(0..elements), true, shards.calls())?;
            big_endian = stored.big_endian;
            let checksum = checksum.get_or_insert_with(|| LengthsCrc::new(big_endian));
            let mut lengths = scan.lengths_from(&stored, 0, shards.calls())?;
            while let Some(length) = lengths.next_length()? {
                varint::push(&mut front, length);
                checksum.add(length);
            }
            let data = scan.data(&stored.region);
            path.get_or_insert_with(|| Arc::clone(&data.path));
            parts.push(TensorBytes { start, shard, offset: data.offset });
            start = start.checked_add(data.nbytes).ok_or(BadRequest::TooMany { what: "bytes of strings" })?;
            regions.push(data);
        }
        let (Some(checksum), Some(path)) = (checksum, path) else {
            return Err(BadRequest::impossible(format!("there are no strings for {name}")).into());
        };
        front.extend(crc::mask(checksum.finish()).to_le_bytes());
        // Each part has its own checksum; none covers the whole.
        let region = Region::new(path, 0, (front.len() as u64).saturating_add(start), Checksum::Crc32c(0));
        let bytes = StringBytes::Chain(Arc::new(Self { shards, front, parts, regions }));
        Ok(StoredStrings { bytes, big_endian, name: name.to_owned(), shape, region })
    }
}

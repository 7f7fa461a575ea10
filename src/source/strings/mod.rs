//! String tensors: lengths in one run, bytes in another, and the arrays they can become.
//!
//! Nothing of the length of the tensor is held: one pass over the lengths leaves marks, from which any element is found.

mod lengths;
mod offsets;
mod padded;
mod text;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::shards::ShardSet;
use super::{Ledger, ReadContext, Region};
use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::format::crc;
use crate::os::Calls;
use crate::paths::Stamp;
use crate::spec::{even_part, memory_len, unravel};

use lengths::{Lengths, Scan};
pub(crate) use offsets::{Offsets, Values};
pub(crate) use padded::Padded;
pub(crate) use text::Text;

/// The strings of one tensor as they are stored.
///
/// A varint for each length, the masked CRC32C of the lengths, the bytes of all elements. The checksum of the lengths is
/// over integers of 32 bits (64 for what does not fit) in the byte order of the file, and the entry's checksum goes on
/// from there: over the four stored bytes, then the bytes of the elements. Source: `ReadStringTensor` and
/// `WriteStringTensor` in `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`.
#[derive(Debug, Clone)]
pub(crate) struct StoredStrings<'a> {
    pub(crate) shards: &'a ShardSet,
    pub(crate) shard: u32,
    pub(crate) big_endian: bool,
    /// The tensor's name, for messages.
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    /// All that is stored of the tensor, and its checksum.
    pub(crate) region: Region,
}

impl StoredStrings<'_> {
    fn malformed(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::malformed_at(&self.region.path, format!("strings of {:?}", self.name), self.region.offset + at, detail)
    }

    /// Gives up the memory of what was read of a file that was not in it before.
    fn forget(&self, stored: Range<u64>, calls: Calls) {
        self.shards.forget(self.shard, &(self.region.offset + stored.start..self.region.offset + stored.end), calls);
    }

    fn read(&self, at: u64, buf: &mut [u8], calls: Calls) -> Result<()> {
        self.shards.read(self.shard, self.region.offset + at, buf, calls)
    }
}

/// The selected strings of a tensor, after one pass over its lengths.
#[derive(Debug)]
pub(crate) struct Strings<'a> {
    stored: StoredStrings<'a>,
    scan: Scan,
    /// The elements that are wanted, as flat positions.
    selected: Range<u64>,
    /// Their shape.
    shape: Vec<u64>,
    /// Where the bytes of all elements lie, with the checksum that they have to have.
    data: [Region; 1],
    /// The file as it was when the lengths were gone over; they are read again.
    stamp: Stamp,
    verify: bool,
    cancel: CancelToken,
}

impl<'a> Strings<'a> {
    /// Goes over the lengths: checks that they fit what is stored and, if that is wanted, their checksum.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`], [`Error::Cancelled`].
    pub(crate) fn open(stored: StoredStrings<'a>, rows: &Range<u64>, verify: bool, cancel: &CancelToken) -> Result<Self> {
        let stamp = Stamp::of(&stored.shards.open(stored.shard)?.file).map_err(Error::io("look at", &stored.region.path))?;
        let mut shape = stored.shape.clone();
        let row: u64 = shape.iter().skip(1).product();
        if let Some(axis) = shape.first_mut() {
            *axis = rows.end - rows.start;
        }
        let selected = rows.start * row..rows.end * row;
        let scan = Scan::new(&stored, &selected, verify, cancel)?;
        let region = &stored.region;
        let nbytes = region.nbytes - scan.data_start;
        // The checksum of a whole is a linear function of those of its parts.
        let crc32c = region.crc32c ^ crc::combine(scan.crc_before_data, 0, nbytes);
        let data = [Region { path: Arc::clone(&region.path), offset: region.offset + scan.data_start, nbytes, crc32c }];
        Ok(Self { stored, scan, selected, shape, data, stamp, verify, cancel: cancel.clone() })
    }

    /// The length of the longest selected element, in bytes.
    pub(crate) fn longest(&self) -> u64 {
        self.scan.longest
    }

    /// Bytes that have to be read for the selected elements.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.scan.data_start + self.selected_bytes()
    }

    /// Bytes before those of the elements.
    pub(crate) fn lengths_bytes(&self) -> u64 {
        self.scan.data_start
    }

    /// The shape of the selected elements.
    pub(crate) fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Bytes of all selected elements together.
    fn selected_bytes(&self) -> u64 {
        self.scan.selected_data.end - self.scan.selected_data.start
    }

    fn path(&self) -> &Arc<Path> {
        &self.data[0].path
    }

    /// The lengths of the selected elements, from the one at `element` of them on.
    fn lengths_from(&self, element: u64, calls: Calls) -> Result<Lengths<'_>> {
        self.check_unchanged()?;
        self.scan.lengths_from(&self.stored, self.selected.start + element, calls)
    }

    /// Fills `buf` with the bytes at `at` of those of all elements, and notes their checksum.
    fn read_data(&self, mut at: u64, buf: &mut [u8], context: &ReadContext<'_>) -> Result<()> {
        let chunk = even_part(buf.len(), context.chunk_bytes());
        for chunk in buf.chunks_mut(chunk) {
            context.check_cancelled()?;
            self.stored.read(self.scan.data_start + at, chunk, context.calls)?;
            context.record(0, at, chunk);
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Fails if the file was written to since it was opened.
    fn check_unchanged(&self) -> Result<()> {
        self.stamp.check(&self.stored.shards.open(self.stored.shard)?.file, self.path())
    }

    /// The error for an element that the array cannot hold. If it is like that because the file is corrupt, it is the error for
    /// that.
    fn lossy(&self, element: u64, detail: impl Into<String>) -> Error {
        let lossy = Error::Lossy { what: self.stored.name.clone(), index: unravel(element, &self.shape), detail: detail.into() };
        if self.verify { self.verify_data().err().unwrap_or(lossy) } else { lossy }
    }

    /// Reads the bytes of all elements for their checksum.
    fn verify_data(&self) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        let ledger = Ledger::new(&self.data);
        let context = ReadContext::new(memory_len(CHUNK), Some(&ledger), &self.cancel, Calls::Native);
        let nbytes = self.data[0].nbytes;
        let mut buffer = vec![0; memory_len(CHUNK.min(nbytes))];
        for at in (0..nbytes).step_by(buffer.len().max(1)) {
            self.read_data(at, &mut buffer[..memory_len((nbytes - at).min(CHUNK))], &context)?;
        }
        ledger.verify().map(|_| ())
    }

    /// Reads the only string of a scalar tensor; returns where in its file it lies, too.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Malformed`] when the checksum does not match.
    pub(crate) fn read_scalar(stored: StoredStrings<'a>) -> Result<(u64, Vec<u8>)> {
        let cancel = CancelToken::new();
        let strings = Self::open(stored, &(0..1), true, &cancel)?;
        let [region] = &strings.data;
        let mut bytes = vec![0; memory_len(region.nbytes)];
        let ledger = Ledger::new(&strings.data);
        strings.read_data(0, &mut bytes, &ReadContext::new(1 << 20, Some(&ledger), &cancel, Calls::Standard))?;
        ledger.verify()?;
        Ok((region.offset, bytes))
    }

    fn heap_bytes(&self) -> u64 {
        self.scan.heap_bytes()
    }
}

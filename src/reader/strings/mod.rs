//! String tensors: lengths in one run, bytes in another, and the arrays they can become.
//!
//! Nothing of the length of the tensor is held: one pass over the lengths leaves marks, from which any element is found.

pub(crate) mod chain;
pub(crate) mod lengths;
pub(crate) mod offsets;
pub(crate) mod padded;
pub(crate) mod text;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checksums::{Checksum, Ledger, Region};
use super::tensor_reader::ReadContext;
use crate::error::{Error, Result};
use crate::format::{crc, varint};
use crate::os::Calls;
use crate::source::name::Name;
use crate::storage::paths::InputFile;
use crate::storage::shards::ShardSet;
use crate::types::spec::{even_part, memory_len, unravel};

use chain::Chain;
use lengths::{Lengths, LengthsCrc, Scan};

/// The most memory for strings that are put into this form.
const MOST_HELD: u64 = 64 << 20;

/// The strings of one tensor as they are stored.
///
/// A varint for each length, the masked CRC32C of the lengths, the bytes of all elements. The checksum of the lengths is
/// over integers of 32 bits (64 for what does not fit) in the byte order of the file, and the entry's checksum goes on
/// from there: over the four stored bytes, then the bytes of the elements. Source: `ReadStringTensor` and
/// `WriteStringTensor` in `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`.
#[derive(Debug, Clone)]
pub(crate) struct StoredStrings<'a> {
    pub(crate) bytes: StringBytes<'a>,
    pub(crate) big_endian: bool,
    /// The tensor's name, for messages.
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    /// All that is stored of the tensor, and its checksum.
    pub(crate) region: Region,
}

/// Where they are stored.
#[derive(Debug, Clone)]
pub(crate) enum StringBytes<'a> {
    /// In a shard of a checkpoint.
    Shard(&'a ShardSet, u32),
    /// In memory, where a format that stores each on its own was gone through.
    Held(Arc<[u8]>),
    /// Those of many tensors, in shards of a checkpoint.
    Chain(Arc<Chain<'a>>),
}

impl StoredStrings<'static> {
    /// Strings that another format has, put into this form. `path` is where they come from.
    ///
    /// # Errors
    /// [`Error::Limit`] for more than fit the memory that there is for it.
    pub(crate) fn held(
        path: &Arc<Path>,
        name: &Name,
        shape: &[u64],
        collect: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<Self> {
        let (mut lengths, mut data, mut checksum) = (Vec::new(), Vec::new(), LengthsCrc::new(false));
        // Each takes a byte at least.
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
    fn malformed(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::malformed_at(&self.region.path, format!("strings of {:?}", self.name), self.region.offset + at, detail)
    }

    /// Gives up the memory of what was read of a file that was not in it before.
    fn forget(&self, stored: Range<u64>, calls: &Calls) {
        if let StringBytes::Shard(shards, shard) = &self.bytes {
            shards.forget(*shard, &(self.region.offset + stored.start..self.region.offset + stored.end), calls);
        }
    }

    fn read(&self, at: u64, buf: &mut [u8], calls: &Calls) -> Result<()> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => shards.read(*shard, self.region.offset + at, buf, calls),
            StringBytes::Held(bytes) => {
                buf.copy_from_slice(&bytes[memory_len(at)..memory_len(at) + buf.len()]);
                Ok(())
            }
            StringBytes::Chain(chain) => chain.read(at, buf, calls),
        }
    }

    /// The file, if they lie in it as one run.
    fn file(&self) -> Result<Option<InputFile>> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => Ok(Some(shards.open(*shard)?.file)),
            StringBytes::Held(_) | StringBytes::Chain(_) => Ok(None),
        }
    }

    /// Fails if a file that has them was written to since it was opened first.
    fn check_unchanged(&self) -> Result<()> {
        match &self.bytes {
            StringBytes::Shard(shards, shard) => shards.check_unchanged([*shard]),
            StringBytes::Chain(chain) => chain.check_unchanged(),
            StringBytes::Held(_) => Ok(()),
        }
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
    data: Region,
    /// The files as they were when the lengths were gone over; they are read again.
    verify: bool,
    calls: Calls,
}

impl<'a> Strings<'a> {
    /// Goes over the lengths: checks that they fit what is stored and, if that is wanted, their checksum.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`], [`Error::Cancelled`].
    pub(crate) fn open(stored: StoredStrings<'a>, rows: &Range<u64>, verify: bool, calls: &Calls) -> Result<Self> {
        let mut shape = stored.shape.clone();
        let row: u64 = shape.iter().skip(1).product();
        if let Some(axis) = shape.first_mut() {
            *axis = rows.end - rows.start;
        }
        let selected = rows.start * row..rows.end * row;
        let scan = Scan::new(&stored, &selected, verify, calls)?;
        let data = scan.data(&stored.region);
        Ok(Self { stored, scan, selected, shape, data, verify, calls: calls.clone() })
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
        &self.data.path
    }

    /// What the source vouches for: nothing where its form is ours.
    fn regions(&self) -> &[Region] {
        match &self.stored.bytes {
            StringBytes::Shard(..) => std::slice::from_ref(&self.data),
            StringBytes::Held(_) => &[],
            StringBytes::Chain(chain) => chain.regions(),
        }
    }

    /// The lengths of the selected elements, from the one at `element` of them on.
    fn lengths_from(&self, element: u64, calls: &Calls) -> Result<Lengths<'_>> {
        self.check_unchanged()?;
        self.scan.lengths_from(&self.stored, self.selected.start + element, calls)
    }

    /// Fills `buf` with the bytes at `at` of those of all elements, and notes their checksum.
    fn read_data(&self, mut at: u64, buf: &mut [u8], context: &ReadContext<'_>) -> Result<()> {
        let chunk = even_part(buf.len(), context.chunk_bytes());
        for chunk in buf.chunks_mut(chunk) {
            context.check_cancelled()?;
            self.stored.read(self.scan.data_start + at, chunk, &context.calls)?;
            self.record(at, chunk, context);
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Notes the checksum of bytes at `at` of those of all elements.
    fn record(&self, at: u64, bytes: &[u8], context: &ReadContext<'_>) {
        if let StringBytes::Chain(chain) = &self.stored.bytes {
            chain.pieces(at, bytes.len()).for_each(|(region, inside, range)| context.record(region, inside, &bytes[range]));
        } else {
            context.record(0, at, bytes);
        }
    }

    /// Fails if the file was written to since it was opened.
    fn check_unchanged(&self) -> Result<()> {
        self.stored.check_unchanged()
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
        let ledger = Ledger::new(self.regions());
        let context = ReadContext::new(memory_len(CHUNK), Some(&ledger), &self.calls);
        let nbytes = self.data.nbytes;
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
    pub(crate) fn read_scalar(stored: StoredStrings<'a>, calls: &Calls) -> Result<(u64, Vec<u8>)> {
        let strings = Self::open(stored, &(0..1), true, calls)?;
        let region = &strings.data;
        let mut bytes = vec![0; memory_len(region.nbytes)];
        let ledger = Ledger::new(std::slice::from_ref(region));
        strings.read_data(0, &mut bytes, &ReadContext::new(1 << 20, Some(&ledger), calls))?;
        ledger.verify()?;
        Ok((region.offset, bytes))
    }

    fn heap_bytes(&self) -> u64 {
        let held = match &self.stored.bytes {
            StringBytes::Shard(..) => 0,
            StringBytes::Held(bytes) => bytes.len() as u64,
            StringBytes::Chain(chain) => chain.heap_bytes(),
        };
        self.scan.heap_bytes() + held
    }
}

//! String tensors: lengths in one run, bytes in another, and the arrays made from them.
//!
//! Memory does not grow with the tensor: one pass over the lengths leaves marks, from which any element is found. Start with
//! [`Strings::open`].

pub(crate) mod chain;
pub(crate) mod join;
pub(crate) mod lengths;
pub(crate) mod lengths_crc;
pub(crate) mod offsets;
pub(crate) mod padded;
pub(crate) mod stored;
pub(crate) mod text;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checksums::{Region, RegionChecksums};
use super::tensor_reader::ReadContext;
use crate::error::{Error, Result};
use crate::os::SystemCalls;
use crate::types::size::memory_len;
use crate::types::spec::{even_part, unravel};

use lengths::{LengthScan, Lengths};
use stored::{StoredStrings, StringBytes};

/// The selected strings of a tensor, after one pass over its lengths.
#[derive(Debug)]
pub(crate) struct Strings<'a> {
    stored: StoredStrings<'a>,
    scan: LengthScan,
    /// The selected elements, as flat positions.
    selected: Range<u64>,
    /// Shape of the selected elements.
    shape: Vec<u64>,
    /// The bytes of all elements, with their expected checksum.
    data: Region,
    /// Whether checksums are compared.
    verify: bool,
    calls: SystemCalls,
}

impl<'a> Strings<'a> {
    /// Reads all lengths; checks that they fit what is stored and, if `verify`, their checksum.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`], [`Error::Io`], [`Error::Cancelled`].
    pub(crate) fn open(stored: StoredStrings<'a>, rows: &Range<u64>, verify: bool, calls: &SystemCalls) -> Result<Self> {
        let mut shape = stored.shape.clone();
        let row: u64 = shape.iter().skip(1).product();
        if let Some(axis) = shape.first_mut() {
            *axis = rows.end - rows.start;
        }
        let selected = rows.start * row..rows.end * row;
        let scan = LengthScan::new(&stored, &selected, verify, calls)?;
        let data = scan.data(&stored.region);
        Ok(Self { stored, scan, selected, shape, data, verify, calls: calls.clone() })
    }

    /// The length of the longest selected element, in bytes.
    pub(crate) fn longest(&self) -> u64 {
        self.scan.longest
    }

    /// Bytes to read for the selected elements.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.scan.data_start + self.selected_bytes()
    }

    /// Bytes stored before the data of the elements.
    pub(crate) fn lengths_bytes(&self) -> u64 {
        self.scan.data_start
    }

    /// The shape of the selected elements.
    pub(crate) fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Total bytes of the selected elements.
    fn selected_bytes(&self) -> u64 {
        self.scan.selected_data.end - self.scan.selected_data.start
    }

    fn path(&self) -> &Arc<Path> {
        &self.data.path
    }

    /// Regions that the source has checksums for: none if [`StoredStrings`] were made here.
    fn regions(&self) -> &[Region] {
        match &self.stored.bytes {
            StringBytes::Shard(..) => std::slice::from_ref(&self.data),
            StringBytes::Held(_) => &[],
            StringBytes::Chain(chain) => chain.regions(),
        }
    }

    /// Lengths of the selected elements, starting at the selected element `element`.
    fn lengths_from(&self, element: u64, calls: &SystemCalls) -> Result<Lengths<'_>> {
        self.check_unchanged()?;
        self.scan.lengths_from(&self.stored, self.selected.start + element, calls)
    }

    /// Fills `buf` from offset `at` of the data of all elements, and records its checksum.
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

    /// Records the checksum of `bytes` at offset `at` of the data of all elements.
    fn record(&self, at: u64, bytes: &[u8], context: &ReadContext<'_>) {
        if let StringBytes::Chain(chain) = &self.stored.bytes {
            chain.pieces(at, bytes.len()).for_each(|(region, inside, range)| context.record(region, inside, &bytes[range]));
        } else {
            context.record(0, at, bytes);
        }
    }

    /// Fails if the file has changed since it was opened.
    fn check_unchanged(&self) -> Result<()> {
        self.stored.check_unchanged()
    }

    /// The error for an element that the array cannot hold. If a corrupt file is the cause, returns the checksum error instead.
    fn lossy(&self, element: u64, detail: impl Into<String>) -> Error {
        let lossy = Error::Lossy { what: self.stored.name.clone(), index: unravel(element, &self.shape), detail: detail.into() };
        if self.verify { self.verify_data().err().unwrap_or(lossy) } else { lossy }
    }

    /// Reads the data of all elements to verify its checksum.
    fn verify_data(&self) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        let checksums = RegionChecksums::new(self.regions());
        let context = ReadContext::new(memory_len(CHUNK), Some(&checksums), &self.calls);
        let nbytes = self.data.nbytes;
        let mut buffer = vec![0; memory_len(CHUNK.min(nbytes))];
        for at in (0..nbytes).step_by(buffer.len().max(1)) {
            self.read_data(at, &mut buffer[..memory_len((nbytes - at).min(CHUNK))], &context)?;
        }
        checksums.verify().map(|_| ())
    }

    /// Reads the only string of a scalar tensor; also returns its offset in the file.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Malformed`] when the checksum does not match.
    pub(crate) fn read_scalar(stored: StoredStrings<'a>, calls: &SystemCalls) -> Result<(u64, Vec<u8>)> {
        let strings = Self::open(stored, &(0..1), true, calls)?;
        let region = &strings.data;
        let mut bytes = vec![0; memory_len(region.nbytes)];
        let checksums = RegionChecksums::new(std::slice::from_ref(region));
        strings.read_data(0, &mut bytes, &ReadContext::new(1 << 20, Some(&checksums), calls))?;
        checksums.verify()?;
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

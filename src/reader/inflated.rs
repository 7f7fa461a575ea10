//! Elements in a deflated stream, which can only be read forward.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use super::checksums::Region;
use super::tensor_reader::{ReadContext, TensorReader};
use crate::error::{Error, Result};
use crate::format::crc::Kind;
use crate::os::SystemCalls;
use crate::storage::blob::Blob;
use crate::types::byte_order::ByteOrder;
use crate::types::layout::Layout;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

const WHAT: &str = "deflated data";
/// Compressed bytes read at once.
const CHUNK: usize = 256 << 10;

/// A place in the decompressed stream, and the state to go on from there.
struct Stream {
    inflater: Decompress,
    /// Compressed bytes read so far.
    taken: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that comes next.
    ready: Range<usize>,
    /// Decompressed bytes handed out so far.
    at: u64,
}

impl Stream {
    fn new() -> Self {
        Self { inflater: Decompress::new(false), taken: 0, buffer: vec![0; CHUNK], ready: 0..0, at: 0 }
    }

    /// Fills `out` with the next bytes of the stream compressed in range `packed` of `file`.
    fn fill(&mut self, file: &dyn Blob, packed: &Range<u64>, out: &mut [u8], calls: &SystemCalls) -> Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            if self.ready.is_empty() {
                let len = memory_len((packed.end - packed.start - self.taken).min(CHUNK as u64));
                file.read(packed.start + self.taken, &mut self.buffer[..len], calls)?;
                self.taken += len as u64;
                self.ready = 0..len;
            }
            let before = (self.inflater.total_in(), self.inflater.total_out());
            let input = &self.buffer[self.ready.clone()];
            let at = packed.start + before.0;
            let malformed = |detail: String| Error::malformed_at(file.path(), WHAT, at, detail);
            let status = self.inflater.decompress(input, &mut out[filled..], FlushDecompress::None);
            let status = status.map_err(|error| malformed(error.to_string()))?;
            let consumed = memory_len(self.inflater.total_in() - before.0);
            let made = memory_len(self.inflater.total_out() - before.1);
            self.ready.start += consumed;
            filled += made;
            self.at += made as u64;
            let is_over = status == Status::StreamEnd || (consumed == 0 && made == 0);
            if is_over && filled < out.len() {
                return Err(malformed(format!("the stream ends after {} bytes, {} more are expected", self.at, out.len() - filled)));
            }
        }
        Ok(())
    }
}

/// The first `most` bytes of the stream compressed in a range of a file.
///
/// # Errors
/// Returns [`Error::Malformed`], [`Error::Io`].
pub(crate) fn inflate_front(file: &dyn Blob, packed: &Range<u64>, most: usize) -> Result<Vec<u8>> {
    let mut front = vec![0; most];
    Stream::new().fill(file, packed, &mut front, file.calls())?;
    Ok(front)
}

/// The checksum of a whole deflated stream of `len` decompressed bytes.
///
/// # Errors
/// As [`inflate_front`].
pub(crate) fn checksum(file: &dyn Blob, packed: &Range<u64>, len: u64, kind: Kind) -> Result<u32> {
    let (mut stream, mut chunk, mut crc) = (Stream::new(), vec![0; 64 << 10], 0);
    let mut left = len;
    while left > 0 {
        let part = memory_len(left.min(chunk.len() as u64));
        stream.fill(file, packed, &mut chunk[..part], file.calls())?;
        crc = kind.append(crc, &chunk[..part]);
        left -= part as u64;
    }
    Ok(crc)
}

/// An array in a deflated stream.
///
/// Reading on after the last read continues there. Reading anything earlier decompresses from the start again.
pub(crate) struct Inflated {
    file: Arc<dyn Blob>,
    packed: Range<u64>,
    /// Decompressed bytes before the elements.
    start: u64,
    spec: TensorSpec,
    order: (ByteOrder, Layout),
    regions: Vec<Region>,
    stream: Mutex<Stream>,
}

impl fmt::Debug for Inflated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflated").field("file", &self.file).field("packed", &self.packed).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Inflated {
    /// The elements that start `start` bytes into the stream compressed in `packed` of `file`.
    pub(crate) fn new(
        file: &Arc<dyn Blob>,
        packed: Range<u64>,
        start: u64,
        spec: TensorSpec,
        order: (ByteOrder, Layout),
        region: Option<Region>,
    ) -> Self {
        let stream = Mutex::new(Stream::new());
        Self { file: Arc::clone(file), packed, start, spec, order, regions: region.into_iter().collect(), stream }
    }

    /// Decompresses into `out`, from byte `at` of the stream on.
    fn unpack(&self, at: u64, out: &mut [u8], context: &ReadContext<'_>) -> Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.at > at {
            *stream = Stream::new();
        }
        let mut passed = vec![0; memory_len((at - stream.at).min(CHUNK as u64))];
        while stream.at < at {
            context.check_cancelled()?;
            let len = memory_len((at - stream.at).min(passed.len() as u64));
            stream.fill(&*self.file, &self.packed, &mut passed[..len], &context.calls)?;
        }
        for part in out.chunks_mut(CHUNK) {
            context.check_cancelled()?;
            stream.fill(&*self.file, &self.packed, part, &context.calls)?;
        }
        Ok(())
    }
}

impl TensorReader for Inflated {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order.0
    }

    fn layout(&self) -> Layout {
        self.order.1
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn keeps_bool_bytes(&self) -> bool {
        true
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        let at = elements.start * self.spec.itemsize();
        self.unpack(self.start + at, out, context)?;
        context.record(0, at, out);
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        // Input, skipped output, and the window and tables of the inflater.
        3 * CHUNK as u64
    }
}

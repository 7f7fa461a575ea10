//! Elements that lie side by side in a file, as they are or nearly so: what most formats lead to.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::checksums::Region;
use super::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::cast::ByteOrder;
use crate::error::{Error, Result};
use crate::options::Layout;
use crate::os::{self, Calls, Cold};
use crate::storage::paths::{InputFile, Stamp, open_file};
use crate::types::dtype::Dtype;
use crate::types::spec::{TensorSpec, even_part};

/// Files kept open at once, by all sources together, so that an array of thousands of files works under any limit on descriptors.
const MOST_OPEN: usize = 32;

/// A file that is read at positions. It is open only while it is needed, and has to stay as it was.
#[derive(Debug)]
pub(crate) struct StoredFile {
    path: Arc<Path>,
    len: u64,
    stamp: Stamp,
    calls: Calls,
    opened: Mutex<Weak<Opened>>,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: InputFile,
    cold: Cold,
}

/// Keeps the last files open that were opened, as long as somebody has the [`StoredFile`].
static RECENT: Mutex<VecDeque<Arc<Opened>>> = Mutex::new(VecDeque::new());

impl StoredFile {
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(path: &Path, calls: &Calls) -> Result<Arc<Self>> {
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        let stamp = Stamp::of(&file).map_err(Error::io("look at", path))?;
        let opened = Mutex::new(Arc::downgrade(&remember(file)));
        Ok(Arc::new(Self { path: path.into(), len, stamp, calls: calls.clone(), opened }))
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Which calls may be made for what it says of itself. Elements are read as whoever wants them says.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The opened file.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it was written to since it was opened first, [`Error::Io`].
    pub(crate) fn opened(&self) -> Result<Arc<Opened>> {
        let mut known = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = known.upgrade() {
            return Ok(opened);
        }
        let file = open_file(&self.path, &self.calls).map_err(Error::io("open", &self.path))?;
        self.stamp.check(&file, &self.path)?;
        let opened = remember(file);
        *known = Arc::downgrade(&opened);
        Ok(opened)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the file ends before, [`Error::Io`].
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8], calls: &Calls) -> Result<()> {
        let opened = self.opened()?;
        os::read_exact_at(&opened.file, buf, offset, calls, &opened.cold).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                let detail = format!("the file ends within the next {} bytes", buf.len());
                return Error::malformed_at(&self.path, "source", offset, detail);
            }
            Error::io("read", &self.path)(error)
        })
    }

    /// Bytes of metadata.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Error::Limit`] for more than `most`.
    pub(crate) fn read_range(&self, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
        crate::source::graph::proto_index::read_range(&self.opened()?.file, &self.path, range, most)
    }

    /// Lets `range` be fetched meanwhile.
    pub(crate) fn fetch(&self, range: &Range<u64>, calls: &Calls) {
        if let Ok(opened) = self.opened() {
            opened.cold.fetch(&opened.file, range, calls);
        }
    }

    /// Lets the memory of `range` be used for something else.
    pub(crate) fn forget(&self, range: &Range<u64>, calls: &Calls) {
        if let Ok(opened) = self.opened() {
            opened.cold.forget(&opened.file, range, calls);
        }
    }

    /// Fails if the file was written to since it was opened.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.stamp.check(&self.opened()?.file, &self.path)
    }
}

impl Drop for StoredFile {
    /// Closes the file: nobody can ask for it any more.
    fn drop(&mut self) {
        let opened = self.opened.get_mut().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(opened) = opened {
            RECENT.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, &opened));
        }
    }
}

fn remember(file: InputFile) -> Arc<Opened> {
    let opened = Arc::new(Opened { file, cold: Cold::default() });
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if recent.len() == MOST_OPEN {
        recent.pop_front();
    }
    recent.push_back(Arc::clone(&opened));
    opened
}

/// What stored bytes have to be like, beyond being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing is asked of them.
    Nothing,
    /// The same, and bools that are neither 0 nor 1 are kept.
    OddBools,
    /// Zeros and ones.
    Bools,
}

impl Check {
    /// What TensorFlow asks of the raw bytes of a `TensorProto`: `Tensor::FromProto` in `tensorflow/core/framework/tensor.cc`.
    pub(crate) fn of_tensor_content(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bool => Self::Bools,
            _ => Self::Nothing,
        }
    }
}

/// An array whose elements lie side by side in a file.
#[derive(Debug)]
pub(crate) struct StoredArray {
    file: Arc<StoredFile>,
    spec: TensorSpec,
    offset: u64,
    order: ByteOrder,
    layout: Layout,
    check: Check,
    regions: Vec<Region>,
}

impl StoredArray {
    /// The elements of `spec` from `offset` of `file` on, little-endian and in C order. Messages call them `what`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the file ends before they do.
    pub(crate) fn new(file: &Arc<StoredFile>, offset: u64, spec: TensorSpec, what: &'static str) -> Result<Self> {
        let end = offset.checked_add(spec.nbytes());
        if end.is_none_or(|end| end > file.len()) {
            let detail = format!("{spec} has {} bytes, the file has {} from here on", spec.nbytes(), file.len().saturating_sub(offset));
            return Err(Error::malformed_at(file.path(), what, offset, detail));
        }
        let file = Arc::clone(file);
        Ok(Self { file, spec, offset, order: ByteOrder::Little, layout: Layout::C, check: Check::Nothing, regions: Vec::new() })
    }

    pub(crate) fn byte_ordered(self, order: ByteOrder) -> Self {
        Self { order, ..self }
    }

    pub(crate) fn laid_out(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    pub(crate) fn checked(self, check: Check) -> Self {
        Self { check, ..self }
    }

    /// The same with a checksum over all of it.
    pub(crate) fn in_region(self, region: Region) -> Self {
        Self { regions: vec![region], ..self }
    }

    fn place(&self, elements: &Range<u64>) -> Range<u64> {
        let itemsize = self.spec.itemsize();
        self.offset + elements.start * itemsize..self.offset + elements.end * itemsize
    }
}

impl TensorReader for StoredArray {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn keeps_odd_bools(&self) -> bool {
        self.check == Check::OddBools
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let mut at = self.place(&elements).start;
        let chunk = even_part(out.len(), context.chunk_bytes());
        for chunk in out.chunks_mut(chunk) {
            context.check_cancelled()?;
            self.file.read(at, chunk, &context.calls)?;
            context.record(0, at - self.offset, chunk);
            match self.check {
                Check::Nothing | Check::OddBools => {}
                Check::Bools => {
                    if let Some(odd) = chunk.iter().position(|&byte| byte > 1) {
                        let detail = format!("a bool is {}, expected 0 or 1", chunk[odd]);
                        return Err(Error::malformed_at(self.file.path(), "tensor data", at + odd as u64, detail));
                    }
                }
            }
            at += chunk.len() as u64;
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn has_stored_runs(&self) -> bool {
        true
    }

    fn stored_run(&self, _: u64) -> Result<Option<StoredRun>> {
        let (file, path) = (self.file.opened()?.file.shared(), Arc::clone(self.file.path()));
        let region = (!self.regions.is_empty()).then_some(0);
        Ok(Some(StoredRun { elements: 0..self.spec.elements(), file, path, offset: self.offset, region }))
    }

    fn fetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.file.fetch(&self.place(&elements), &context.calls);
    }

    fn forget(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.file.forget(&self.place(&elements), &context.calls);
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn fills_by_system_calls(&self) -> bool {
        self.check != Check::Bools
    }
}

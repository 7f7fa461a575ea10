//! Contiguous elements in a file, read without decoding: most formats end up here.

use std::ops::Range;
use std::sync::Arc;

use super::checksums::Region;
use super::tensor_reader::{ReadContext, StoredRun, TensorReader};
use crate::error::{Error, Result};
use crate::storage::blob::Blob;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::spec::{TensorSpec, even_part};

/// Checks on the values of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Any byte is accepted.
    Nothing,
    /// The same, and bools other than 0 and 1 are kept.
    OddBools,
    /// Every byte must be 0 or 1.
    Bools,
}

impl Check {
    /// The check that TensorFlow applies to the raw bytes of a `TensorProto`: `Tensor::FromProto` in
    /// `tensorflow/core/framework/tensor.cc`.
    pub(crate) fn of_tensor_content(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bool => Self::Bools,
            _ => Self::Nothing,
        }
    }
}

/// An array whose elements are contiguous in a file.
#[derive(Debug)]
pub(crate) struct StoredArray {
    file: Arc<dyn Blob>,
    spec: TensorSpec,
    offset: u64,
    order: ByteOrder,
    layout: Layout,
    check: Check,
    regions: Vec<Region>,
}

impl StoredArray {
    /// The elements of `spec` from `offset` of `file` on, little-endian and in C order, called `what` in error messages.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] where the file ends too early.
    pub(crate) fn new(file: &Arc<dyn Blob>, offset: u64, spec: TensorSpec, what: &'static str) -> Result<Self> {
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

    fn keeps_bool_bytes(&self) -> bool {
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
        let Some(file) = self.file.local_file()? else { return Ok(None) };
        let path = Arc::clone(self.file.path());
        let region = (!self.regions.is_empty()).then_some(0);
        Ok(Some(StoredRun { elements: 0..self.spec.elements(), file, path, offset: self.offset, region }))
    }

    fn prefetch(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.file.prefetch(&self.place(&elements), &context.calls);
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.file.evict(&self.place(&elements), &context.calls);
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn fills_by_system_calls(&self) -> bool {
        self.check != Check::Bools
    }
}

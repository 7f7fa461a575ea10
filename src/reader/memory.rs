//! A tensor that is already in memory: for tests, examples and tensors that callers made.

use std::ops::Range;

use super::tensor_reader::{ReadContext, TensorReader};
use crate::error::{Error, Result};
use crate::types::byte_order::ByteOrder;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Reads a tensor from a slice of little-endian bytes in C order.
#[derive(Debug)]
pub struct MemoryTensor<'a> {
    spec: TensorSpec,
    bytes: &'a [u8],
}

impl<'a> MemoryTensor<'a> {
    /// A reader of `bytes`.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] when `bytes` is not exactly as long as `spec` says.
    pub fn new(spec: TensorSpec, bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() as u64 != spec.nbytes() {
            return Err(Error::from(spec.length_differs(bytes.len() as u64)));
        }
        Ok(Self { spec, bytes })
    }
}

impl TensorReader for MemoryTensor<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        let start = memory_len(elements.start * self.spec.itemsize());
        out.copy_from_slice(&self.bytes[start..start + out.len()]);
        Ok(())
    }
}

/// A tensor of a few elements repeated, or of all its elements: used for values from a file's metadata.
#[derive(Debug)]
pub(crate) struct FilledTensor<'a> {
    spec: TensorSpec,
    order: ByteOrder,
    /// The elements to repeat.
    bytes: &'a [u8],
}

impl<'a> FilledTensor<'a> {
    /// A tensor of `bytes`, repeated until it is full; of zeros if `bytes` is empty.
    pub(crate) fn new(spec: TensorSpec, order: ByteOrder, bytes: &'a [u8]) -> Self {
        Self { spec, order, bytes }
    }
}

impl TensorReader for FilledTensor<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        let len = self.bytes.len() as u64;
        let Some(from) = (elements.start * self.spec.itemsize()).checked_rem(len) else {
            out.fill(0);
            return Ok(());
        };
        let (front, rest) = out.split_at_mut(out.len().min(memory_len(len - from)));
        front.copy_from_slice(&self.bytes[memory_len(from)..][..front.len()]);
        rest.chunks_mut(self.bytes.len()).for_each(|place| place.copy_from_slice(&self.bytes[..place.len()]));
        Ok(())
    }
}

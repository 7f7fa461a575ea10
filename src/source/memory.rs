//! A tensor that is in memory already: for tests, examples and callers that made one.

use std::ops::Range;

use super::{ReadContext, TensorReader};
use crate::error::{Error, Result};
use crate::spec::{TensorSpec, memory_len};

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
    /// [`Error::BadRequest`] when `bytes` is not exactly as long as `spec` says.
    pub fn new(spec: TensorSpec, bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() as u64 != spec.nbytes() {
            return Err(Error::bad_request(format!("{} bytes for {spec}, which has {}", bytes.len(), spec.nbytes())));
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

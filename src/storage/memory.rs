//! Bytes in memory as blobs.

use std::path::Path;
use std::sync::Arc;

use super::blob::Blob;
use crate::error::{Error, Result};
use crate::os::SystemCalls;
use crate::types::size::memory_len;

/// Bytes that were unpacked or generated.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    path: Arc<Path>,
    bytes: Vec<u8>,
    calls: SystemCalls,
}

impl HeldBytes {
    /// Wraps `bytes`; messages report them as `path`.
    pub(crate) fn new(path: &Arc<Path>, bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { path: Arc::clone(path), bytes, calls: SystemCalls::default() })
    }
}

impl Blob for HeldBytes {
    fn path(&self) -> &Arc<Path> {
        &self.path
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn calls(&self) -> &SystemCalls {
        &self.calls
    }

    fn heap_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, buf: &mut [u8], _: &SystemCalls) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.len());
        let Some(end) = end else {
            let detail = format!("{} bytes were requested, but it has only {} in total", buf.len(), self.len());
            return Err(Error::malformed_at(&self.path, "source", offset, detail));
        };
        buf.copy_from_slice(&self.bytes[memory_len(offset)..memory_len(end)]);
        Ok(())
    }
}

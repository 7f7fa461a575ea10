//! What the pixels of a decoded image are.

use std::fmt;

use crate::types::dtype::Dtype;

/// What an image has when it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageForm {
    pub(crate) height: u64,
    pub(crate) width: u64,
    pub(crate) channels: u64,
    /// `uint8`, or `uint16` for a PNG of 16 bits a sample.
    pub(crate) dtype: Dtype,
}

impl fmt::Display for ImageForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{} pixels of {} channels ({})", self.width, self.height, self.channels, self.dtype)
    }
}

impl ImageForm {
    /// Bytes of all samples.
    pub(crate) fn nbytes(&self) -> u64 {
        self.samples().saturating_mul(self.dtype.itemsize().unwrap_or(1))
    }

    fn samples(&self) -> u64 {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }
}

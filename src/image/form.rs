//! The size and sample type of a decoded image.

use std::fmt;

use crate::types::dtype::Dtype;

/// The size and sample type of a decoded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageForm {
    pub(crate) height: u64,
    pub(crate) width: u64,
    pub(crate) channels: u64,
    /// `uint8`, or `uint16` for a PNG with 16 bits per sample.
    pub(crate) dtype: Dtype,
}

impl fmt::Display for ImageForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{} pixels of {} channels ({})", self.width, self.height, self.channels, self.dtype)
    }
}

impl ImageForm {
    /// Total bytes of all samples.
    pub(crate) fn nbytes(&self) -> u64 {
        self.samples().saturating_mul(self.dtype.itemsize().unwrap_or(1))
    }

    fn samples(&self) -> u64 {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }
}

//! What a conversion makes, before and after it.

use std::time::Duration;

use super::part::Part;
use crate::options::method::Method;
use crate::reader::checksums::Verified;
use crate::types::dtype::Dtype;

/// What a conversion did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// Which of the arrays of the tensor it is.
    pub part: Part,
    /// The dtype of the array's elements, which its header may have lost: `V2` can be any type of two bytes.
    pub dtype: Dtype,
    /// The tensor's dtype.
    pub source_dtype: Dtype,
    /// NumPy's descriptor of elements that TensorFlow has no dtype for, which `dtype` has as bytes: see [`TensorInfo::item`](crate::TensorInfo::item).
    pub item: Option<String>,
    /// What the header says of the elements.
    pub descr: String,
    /// Whether the array is in Fortran order.
    pub fortran_order: bool,
    /// The array's shape.
    pub shape: Vec<u64>,
    /// Bytes of elements.
    pub nbytes: u64,
    /// From opening the output to its name being on disk.
    pub elapsed: Duration,
    /// How the output was written.
    pub method: Method,
    /// How much of the data stored checksums vouch for.
    pub verified: Verified,
    /// The most memory in use, by the plan's account: process, source, buffers, output pages not on disk yet.
    pub peak_memory: u64,
    /// What of the source had to be given up, one sentence each: see [`RecordOptions::salvage`](crate::RecordOptions::salvage).
    pub lost: Vec<String>,
}

/// What a conversion would read, write and use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Estimate {
    /// Which of the arrays of the tensor it is.
    pub part: Part,
    /// The dtype of the output's elements.
    pub dtype: Dtype,
    /// NumPy's descriptor of elements that TensorFlow has no dtype for.
    pub item: Option<String>,
    /// What the output's header would say of them.
    pub descr: String,
    /// The output's shape; lengths that are not known yet are 0.
    pub shape: Vec<u64>,
    /// The output's shape, with `None` for lengths that are not known before all has been read.
    pub axes: Vec<Option<u64>>,
    /// Whether it is known how many axes there are.
    pub has_rank: bool,
    /// Whether all is known: otherwise [`nbytes`](Self::nbytes) and [`write_bytes`](Self::write_bytes) are of what is.
    pub is_counted: bool,
    /// Bytes of the output's elements.
    pub nbytes: u64,
    /// Bytes to read from the source: its holes, and what is shared and not verified, need not be.
    pub read_bytes: u64,
    /// Bytes of elements to write.
    pub write_bytes: u64,
    /// The number of slices.
    pub slices: usize,
    /// Bytes of the longest slice.
    pub slice_bytes: u64,
    /// Workers.
    pub threads: usize,
    /// The most memory in use.
    pub memory_bytes: u64,
    /// How the output would be written.
    pub method: Method,
}

/// What filling a file gave.
pub(crate) struct Outcome {
    pub(crate) method: Method,
    pub(crate) verified: Verified,
    pub(crate) peak_memory: u64,
}

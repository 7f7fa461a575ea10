//! The results of a conversion, and the estimates before it.

use std::time::Duration;

use super::part::Part;
use crate::options::method::Method;
use crate::reader::checksums::Verified;
use crate::types::dtype::Dtype;

/// The result of a conversion.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The part of the tensor that the array holds.
    pub part: Part,
    /// The dtype of the array's elements. The header may be less precise: `V2` can be any type of two bytes.
    pub dtype: Dtype,
    /// The tensor's dtype.
    pub source_dtype: Dtype,
    /// NumPy's descriptor of elements that TensorFlow has no dtype for; `dtype` is then that of their bytes: see
    /// [`TensorInfo::item`](crate::TensorInfo::item).
    pub item: Option<String>,
    /// The descriptor in the header.
    pub descr: String,
    /// Whether the array is in Fortran order.
    pub fortran_order: bool,
    /// The array's shape.
    pub shape: Vec<u64>,
    /// Bytes of elements.
    pub nbytes: u64,
    /// Time until the array was complete: from the call for one tensor, from its own start for one of several.
    pub elapsed: Duration,
    /// How the output was written.
    pub method: Method,
    /// How much of the data was verified by stored checksums.
    pub verified: Verified,
    /// Peak memory by the plan's account: process, source, buffers, output pages not on disk yet.
    pub peak_memory: u64,
    /// What was lost from the source, one sentence each: see [`RecordOptions::salvage`](crate::RecordOptions::salvage).
    pub lost: Vec<String>,
}

/// The reads, writes and memory that a conversion would need.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Estimate {
    /// The part of the tensor that the array holds.
    pub part: Part,
    /// The dtype of the output's elements.
    pub dtype: Dtype,
    /// NumPy's descriptor of elements that TensorFlow has no dtype for.
    pub item: Option<String>,
    /// The descriptor in the output's header.
    pub descr: String,
    /// The output's shape; unknown lengths are 0.
    pub shape: Vec<u64>,
    /// The output's shape, with `None` for lengths that are only known after reading everything.
    pub axes: Vec<Option<u64>>,
    /// Whether the number of axes is known.
    pub has_rank: bool,
    /// Whether everything is known: otherwise [`nbytes`](Self::nbytes) and [`write_bytes`](Self::write_bytes) cover the known
    /// part.
    pub is_counted: bool,
    /// Bytes of the output's elements.
    pub nbytes: u64,
    /// Bytes to read from the source, without its holes and without shared data that is not verified.
    pub read_bytes: u64,
    /// Bytes of elements to write.
    pub write_bytes: u64,
    /// The number of slices.
    pub slices: usize,
    /// Bytes of the longest slice.
    pub slice_bytes: u64,
    /// Number of worker threads.
    pub threads: usize,
    /// The most memory in use.
    pub memory_bytes: u64,
    /// How the output would be written.
    pub method: Method,
}

/// The result of filling a file.
pub(crate) struct Outcome {
    pub(crate) method: Method,
    pub(crate) verified: Verified,
    pub(crate) peak_memory: u64,
}

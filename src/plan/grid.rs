//! Chunked storage of a tensor.

use std::ops::Range;

/// The smallest unit that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A single element.
    Element,
    /// A whole chunk.
    Chunk,
    /// All elements, in order.
    Stream,
}

/// How a range of rows is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkGrid {
    /// Rows of axis 0.
    pub rows: Range<u64>,
    /// The size of a chunk on each axis. Chunks start at multiples of it; on axis 0 these count from the start of `rows`.
    pub chunk: Vec<u64>,
    /// The smallest unit that can be read.
    pub unit: Unit,
}

//! How a tensor is stored in chunks.

use std::ops::Range;

/// What has to be read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Any element by itself.
    Element,
    /// All of a chunk, to read any of it.
    Chunk,
    /// All elements in their order.
    Stream,
}

/// How some rows of a tensor are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkGrid {
    /// Rows of axis 0.
    pub rows: Range<u64>,
    /// The lengths of a chunk, one for each axis. Chunks start at multiples of them, on axis 0 counted from the first of `rows`.
    pub chunk: Vec<u64>,
    /// What has to be read at a time.
    pub unit: Unit,
}

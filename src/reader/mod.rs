//! Readers of the elements of one tensor, and what many formats share to make one.
//!
//! A source of one's own implements [`TensorReader`]; [`MemoryTensor`] reads elements that are in memory already.

pub(crate) mod checksums;
pub(crate) mod enclosing;
pub(crate) mod inflated;
pub(crate) mod memory;
pub(crate) mod pieces;
pub(crate) mod proto_index;
pub(crate) mod stored;
pub(crate) mod strings;
pub(crate) mod tensor_reader;
pub(crate) mod transposed;
pub(crate) mod values;

pub use crate::format::crc::Checksum;
pub use crate::plan::grid::{ChunkGrid, Unit};
pub use checksums::Region;
pub use memory::MemoryTensor;
pub use tensor_reader::{ReadContext, StoredRun, TensorReader};

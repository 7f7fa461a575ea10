//! How the elements of one tensor are read: the [`TensorReader`] trait, and readers and checksums that several formats share.
//!
//! Which container an element comes from, where the bytes are stored and how rows are planned belong to other modules. Start with
//! [`TensorReader`], which custom sources implement; [`MemoryTensor`] reads elements that are already in memory.

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

//! Parsers and writers of byte layouts: `&[u8]` to structs and back.
//!
//! This room knows no files: it does no I/O, and errors carry byte offsets, to which callers add paths. Start with `proto.rs`
//! (the protobuf walker that most parsers use) and `table.rs` with `bundle.rs` (a checkpoint's index); HDF5 has its own room in
//! `hdf5/`.

pub(crate) mod bundle;
pub(crate) mod checkpoint_state;
pub(crate) mod crc;
pub(crate) mod example;
pub(crate) mod graph_def;
pub(crate) mod hdf5;
pub(crate) mod meta_graph;
pub(crate) mod npy;
pub(crate) mod object_graph;
pub(crate) mod ordered_code;
pub(crate) mod proto;
pub(crate) mod safetensors;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod tensor_proto;
pub(crate) mod tfds;
pub(crate) mod tfrecord;
pub(crate) mod varint;

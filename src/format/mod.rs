//! Byte layouts: `&[u8]` to structs and back. Nothing here touches a file; errors carry offsets, not paths.

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

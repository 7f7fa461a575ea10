//! This room owns sources: it finds the format of a path and opens it as named tensors with a reader for each. It knows nothing
//! of outputs. Start at [`Location`](location::Location), then [`Driver`](driver::Driver), [`Container`](container::Container)
//! and `FORMATS`.

pub(crate) mod bundle;
pub(crate) mod cache;
pub(crate) mod container;
pub(crate) mod driver;
pub(crate) mod facts;
pub(crate) mod formats;
pub(crate) mod graph;
pub(crate) mod hdf5;
pub(crate) mod joined;
pub(crate) mod keras;
pub(crate) mod location;
pub(crate) mod merged;
pub(crate) mod nearest;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod opened;
pub(crate) mod origin;
pub(crate) mod raw_stream;
pub(crate) mod read;
pub(crate) mod read_at;
pub(crate) mod records;
pub(crate) mod runtime;
pub(crate) mod safetensors;
pub(crate) mod saved_model;
pub(crate) mod selection;
pub(crate) mod table;
pub(crate) mod tensor_proto;
pub(crate) mod tf_data;
pub(crate) mod tfds;
pub(crate) mod tfrecord;
pub(crate) mod unrecognised;
pub(crate) mod v1;
pub(crate) mod video;

//! The list of all formats.

use super::driver::Driver;
use super::{
    bundle, cache, graph, hdf5, keras, npy, npz, raw_stream, safetensors, saved_model, tensor_proto, tf_data, tfds, tfrecord, v1, video,
};

/// All formats, those with the surest signatures first: records have a checksum, JSON only brackets. A new format adds a line
/// here.
pub(crate) static FORMATS: &[&dyn Driver] = &[
    &saved_model::SavedModelDir,
    &tf_data::TfData,
    &tfds::Tfds,
    &bundle::driver::TensorBundle,
    &cache::TfDataCache,
    &npy::Npy,
    &hdf5::Hdf5,
    &keras::Keras,
    &keras::shards::KerasShards,
    &npz::Npz,
    &v1::V1Checkpoint,
    &raw_stream::RawStream,
    &video::Video,
    &tfrecord::TfRecord,
    &safetensors::SafeTensors,
    &tensor_proto::TensorProto,
    &graph::GraphDef,
];

/// The names of all formats, as [`Source::open_as`](super::opened::Source::open_as) takes them.
pub fn formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|driver| driver.name())
}

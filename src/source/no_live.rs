//! What stands in for a running TensorFlow in a build without the feature `tensorflow`.

use std::path::PathBuf;

use super::Container;
use super::graph::{DatasetGraph, GraphFile};
use super::saved_model::SavedModel;
use crate::error::{Error, Result};
use crate::options::Options;

/// # Errors
/// [`Error::Unsupported`], always; so do the others here.
pub(crate) fn check_loaded() -> Result<()> {
    Err(missing())
}

pub(crate) fn open_graph(_: GraphFile, _: &Options) -> Result<Box<dyn Container>> {
    Err(missing())
}

pub(crate) fn open_dataset(_: &DatasetGraph, _: &Options) -> Result<Box<dyn Container>> {
    Err(missing())
}

pub(crate) fn open_signature(_: SavedModel, _: Vec<PathBuf>, _: &Options) -> Result<Box<dyn Container>> {
    Err(missing())
}

fn missing() -> Error {
    let detail = "this build of mmconvert lacks the feature `tensorflow`".into();
    Error::Unsupported { what: "computing without TensorFlow".into(), detail }
}

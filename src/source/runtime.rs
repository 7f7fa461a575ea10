//! [`Runtime`], a loaded TensorFlow that computes graphs and models. It registers here, so formats do not depend on it.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::container::Container;
use super::graph::file::{DatasetGraph, GraphFile};
use super::saved_model::file::SavedModel;
use crate::error::{Error, Result};
use crate::options::Options;

/// The environment variable with the directory of the TensorFlow library.
pub(crate) const LIBRARY_DIR: &str = "TENSORFLOW_DIR";

/// Opens sources that have to be computed.
pub(crate) trait Runtime: Send + Sync {
    /// The outputs of a frozen graph.
    fn open_graph(&self, file: GraphFile, options: &Options) -> Result<Box<dyn Container>>;
    /// The elements of a tf.data data set.
    fn open_dataset(&self, dataset: &DatasetGraph, options: &Options) -> Result<Box<dyn Container>>;
    /// The outputs of a signature of a SavedModel, which is read from `files`.
    fn open_signature(&self, model: SavedModel, files: Vec<PathBuf>, options: &Options) -> Result<Box<dyn Container>>;
}

static RUNTIME: OnceLock<&'static dyn Runtime> = OnceLock::new();

/// Registers the runtime of this process. Later calls have no effect.
pub(crate) fn register(runtime: &'static dyn Runtime) {
    RUNTIME.get_or_init(|| runtime);
}

/// The runtime of this process.
///
/// # Errors
/// [`Error::Unsupported`] if no library has been loaded, or the build cannot load one.
pub(crate) fn runtime() -> Result<&'static dyn Runtime> {
    RUNTIME.get().copied().ok_or_else(|| {
        if cfg!(feature = "tensorflow") {
            return missing("no TensorFlow library has been loaded");
        }
        unavailable("this build of mmconvert lacks the feature `tensorflow`".into())
    })
}

/// The error for a missing TensorFlow library, with the reason.
pub(crate) fn missing(why: &str) -> Error {
    unavailable(format!("{why}: install it (pip install tensorflow-cpu), or name its place (`tensorflow` PATH, or {LIBRARY_DIR})"))
}

fn unavailable(detail: String) -> Error {
    Error::Unsupported { what: "computing without TensorFlow".into(), detail }
}

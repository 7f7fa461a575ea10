//! Options for computations by TensorFlow.

use std::path::{Path, PathBuf};

use super::used::{Unused, Used};
use crate::types::cancel::CancelToken;

/// What a graph or a model should compute, and from which inputs.
///
/// Used only for sources that a running TensorFlow computes: frozen graphs, and SavedModels with a named signature.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    pub(crate) tag_set: Option<Vec<String>>,
    pub(crate) tag_set_used: Used,
    pub(crate) signature: Option<String>,
    pub(crate) feeds: Vec<(String, PathBuf)>,
    pub(crate) outputs: Vec<String>,
    pub(crate) batch: Option<u64>,
    pub(crate) op_libraries: Vec<PathBuf>,
    pub(crate) scratch: Option<PathBuf>,
    /// The token of the enclosing options.
    pub(crate) cancel: CancelToken,
    pub(crate) used: Used,
}

impl ModelOptions {
    /// Without a signature or inputs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects the graph of a SavedModel with exactly these tags. The default is the graph tagged `serve`, or the only one.
    #[must_use]
    pub fn tag_set(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.tag_set = Some(tags.into_iter().collect());
        self
    }

    /// Uses the outputs of this signature as the tensors of a SavedModel, instead of its variables.
    #[must_use]
    pub fn signature(mut self, name: impl Into<String>) -> Self {
        self.signature = Some(name.into());
        self
    }

    /// Feeds the input `name` with the array in the `.npy` file at `path`. A signature names its inputs; inputs of a graph are
    /// named by their tensors: `x:0`.
    #[must_use]
    pub fn feed(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.feeds.push((name.into(), path.as_ref().to_owned()));
        self
    }

    /// Computes this output, named by the signature or by its tensor (`logits:0`); in a graph any tensor will do. The default is
    /// all outputs of a signature, or the outputs of a graph's nodes that no other node uses.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.outputs.push(name.into());
        self
    }

    /// Splits inputs along axis 0 and feeds this many rows at a time; outputs are concatenated along axis 0. Inputs without axes
    /// are fed every time. The default feeds everything at once.
    #[must_use]
    pub fn batch(mut self, rows: u64) -> Self {
        self.batch = Some(rows);
        self
    }

    /// Loads operations that TensorFlow lacks from this library, such as `_normalize_ops.so` of TensorFlow Text. It is loaded
    /// before the graph and runs inside this process.
    #[must_use]
    pub fn op_library(mut self, path: impl AsRef<Path>) -> Self {
        self.op_libraries.push(path.as_ref().to_owned());
        self
    }

    /// A directory for temporary files during the conversion, for values that TensorFlow cannot slice (strings, float8, 4-bit
    /// integers). The default is the system's. A private folder is made in it and removed afterwards.
    #[must_use]
    pub fn scratch(mut self, dir: impl AsRef<Path>) -> Self {
        self.scratch = Some(dir.as_ref().to_owned());
        self
    }

    /// Whether the SavedModel must be run; otherwise only its variables are read.
    pub(crate) fn wants_model(&self) -> bool {
        self.signature.is_some() || !self.feeds.is_empty() || !self.outputs.is_empty() || self.batch.is_some()
    }

    /// Options that were set but not used, as the program spells them.
    pub(crate) fn unused(&self) -> Vec<Unused> {
        let asked = [
            ("`signature`", self.signature.is_some()),
            ("`feed`", !self.feeds.is_empty()),
            ("`output`", !self.outputs.is_empty()),
            ("`batch`", self.batch.is_some()),
            ("`op_library`", !self.op_libraries.is_empty()),
        ];
        let is_unused = |(_, is_asked): &(&str, bool)| *is_asked && !self.used.is_noted();
        let computed = "computations by TensorFlow: graphs, datasets and SavedModels (model.export makes one of a Keras model)";
        let mut unused: Vec<Unused> = asked.into_iter().filter(is_unused).map(|(flag, _)| Unused::new(flag, None, computed)).collect();
        if self.tag_set.is_some() && !self.tag_set_used.is_noted() {
            unused.push(Unused::new("`tag_set`", None, "SavedModels"));
        }
        unused
    }

    /// These options combined with `other`, which takes precedence.
    pub(crate) fn overridden_by(self, other: &Self) -> Self {
        Self {
            tag_set: other.tag_set.clone().or(self.tag_set),
            signature: other.signature.clone().or(self.signature),
            feeds: if other.feeds.is_empty() { self.feeds } else { other.feeds.clone() },
            outputs: if other.outputs.is_empty() { self.outputs } else { other.outputs.clone() },
            batch: other.batch.or(self.batch),
            op_libraries: if other.op_libraries.is_empty() { self.op_libraries } else { other.op_libraries.clone() },
            ..other.clone()
        }
    }
}

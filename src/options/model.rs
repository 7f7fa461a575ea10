//! What is to be computed by a running TensorFlow.

use std::path::{Path, PathBuf};

use super::used::{Unused, Used};
use crate::types::cancel::CancelToken;

/// What a graph or a model is to compute, and of what.
///
/// Only sources that a running TensorFlow computes look at it: frozen graphs, and SavedModels where a signature is named.
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
    /// That of the options that these belong to.
    pub(crate) cancel: CancelToken,
    pub(crate) used: Used,
}

impl ModelOptions {
    /// No signature, no inputs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The graph of a SavedModel that has exactly these tags. Without this it is the one tagged `serve`, or the only one.
    #[must_use]
    pub fn tag_set(mut self, tags: impl IntoIterator<Item = String>) -> Self {
        self.tag_set = Some(tags.into_iter().collect());
        self
    }

    /// The tensors of a SavedModel are the outputs of this signature, not its variables.
    #[must_use]
    pub fn signature(mut self, name: impl Into<String>) -> Self {
        self.signature = Some(name.into());
        self
    }

    /// The input `name` is the array in the `.npy` file at `path`. Inputs of a signature have the names that it gives them, those of
    /// a graph are its tensors: `x:0`.
    #[must_use]
    pub fn feed(mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.feeds.push((name.into(), path.as_ref().to_owned()));
        self
    }

    /// Only these outputs are wanted, by the names that the signature gives them or by their tensors (`logits:0`); of a graph any
    /// tensor is one. Without this, all of a signature are, and of a graph the outputs of nodes that no other node takes.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.outputs.push(name.into());
        self
    }

    /// Inputs are cut along axis 0 and go in so many rows at a time; outputs are put together again along axis 0. Inputs without
    /// axes go in every time. Without it all goes in at once.
    #[must_use]
    pub fn batch(mut self, rows: u64) -> Self {
        self.batch = Some(rows);
        self
    }

    /// Operations that TensorFlow has not by itself are in this library: `_normalize_ops.so` of TensorFlow Text. It is loaded before the
    /// graph, and runs as part of this process.
    #[must_use]
    pub fn op_library(mut self, path: impl AsRef<Path>) -> Self {
        self.op_libraries.push(path.as_ref().to_owned());
        self
    }

    /// Where TensorFlow may write what it cannot cut (strings, float8, 4-bit integers) for the time of the conversion; the
    /// system's directory for temporary files by default. A private folder is made in it and removed again.
    #[must_use]
    pub fn scratch(mut self, dir: impl AsRef<Path>) -> Self {
        self.scratch = Some(dir.as_ref().to_owned());
        self
    }

    /// Whether a SavedModel is to be run, not only read.
    pub(crate) fn wants_model(&self) -> bool {
        self.signature.is_some() || !self.feeds.is_empty() || !self.outputs.is_empty() || self.batch.is_some()
    }

    /// What was asked for if nothing made use of it, as the program spells it.
    pub(crate) fn unused(&self) -> Vec<Unused> {
        let asked = [
            ("`signature`", self.signature.is_some()),
            ("`feed`", !self.feeds.is_empty()),
            ("`output`", !self.outputs.is_empty()),
            ("`batch`", self.batch.is_some()),
            ("`op_library`", !self.op_libraries.is_empty()),
        ];
        let is_unused = |(_, is_asked): &(&str, bool)| *is_asked && !self.used.is_noted();
        let computed = "what TensorFlow computes: graphs, data sets and SavedModels (model.export makes one of a Keras model)";
        let mut unused: Vec<Unused> = asked.into_iter().filter(is_unused).map(|(flag, _)| Unused::new(flag, None, computed)).collect();
        if self.tag_set.is_some() && !self.tag_set_used.is_noted() {
            unused.push(Unused::new("`tag_set`", None, "SavedModels"));
        }
        unused
    }

    /// The same choices, and those of `other`, which win.
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

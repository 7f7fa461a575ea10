//! Loads a SavedModel: its graph, its variables, and its initialisation.
//!
//! The crate's loader would parse all of `saved_model.pb` again, with enums that lack newer dtypes. This does the same steps.
//! Source: `tensorflow/cc/saved_model/loader.cc`.

use std::path::Path;

use ::tensorflow::{Graph, ImportGraphDefOptions, Session, SessionRunArgs, Tensor};

use super::session::{NodeOutput, attempt, options as session_options, text};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::source::saved_model::file::SavedModel;

/// A graph, and a session in which it is ready.
pub(crate) struct Loaded {
    pub(crate) graph: Graph,
    pub(crate) session: Session,
}

impl Loaded {
    /// A graph that needs no initialisation.
    ///
    /// # Errors
    /// [`Error::TensorFlow`].
    pub(crate) fn graph(def: &[u8], path: &Path) -> Result<Self> {
        let mut graph = Graph::new();
        let session = attempt(
            || format!("loading {}", path.display()),
            || {
                graph.import_graph_def(def, &ImportGraphDefOptions::new())?;
                Session::new(&session_options()?, &graph)
            },
        )?;
        Ok(Self { graph, session })
    }

    /// A model with its variables restored.
    ///
    /// # Errors
    /// [`Error::TensorFlow`], [`Error::Malformed`] if the graph lacks nodes that the model names, [`Error::Limit`], [`Error::Io`].
    pub(crate) fn model(model: &SavedModel, options: &Options) -> Result<Self> {
        let loaded = Self::graph(&model.read_graph(options)?, &model.dir)?;
        let startup = model.startup()?;
        // Assets are files beside the graph. Their paths are fed to it.
        let mut paths = Vec::new();
        for (tensor, name) in &startup.assets {
            paths.push((loaded.node(model, tensor)?, path_text(&model.dir.join("assets").join(name))?));
        }
        if let (Some(saver), Some(prefix)) = (&startup.saver, model.variables()?) {
            let prefix = (loaded.node(model, &saver.filename)?, path_text(&prefix)?);
            let restore = loaded.node(model, &saver.restore)?;
            loaded.run(model, "restoring the variables of", &restore, paths.iter().chain([&prefix]))?;
        }
        if let Some(init) = &startup.init {
            let init = loaded.node(model, init)?;
            loaded.run(model, "initialising", &init, paths.iter())?;
        }
        Ok(loaded)
    }

    /// The output or node of this name.
    fn node(&self, model: &SavedModel, name: &str) -> Result<NodeOutput> {
        let node = name.split(':').next().unwrap_or_default();
        // Nodes that are only run may have no outputs.
        let found = match NodeOutput::find(&self.graph, name)? {
            Some(target) => Some(target),
            None => NodeOutput::of_node(&self.graph, node)?,
        };
        found.ok_or_else(|| Error::malformed(&model.pb, "SavedModel message", format!("its graph has no {name:?}")))
    }

    fn run<'a>(
        &self,
        model: &SavedModel,
        what: &str,
        node: &NodeOutput,
        paths: impl Iterator<Item = &'a (NodeOutput, Tensor<String>)>,
    ) -> Result<()> {
        let mut args = SessionRunArgs::new();
        for (target, path) in paths {
            args.add_feed(&target.operation, target.index, path);
        }
        args.add_target(&node.operation);
        attempt(|| format!("{what} {}", model.dir.display()), || self.session.run(&mut args))
    }
}

fn path_text(path: &Path) -> Result<Tensor<String>> {
    path.to_str().map(text).ok_or_else(|| BadRequest::PathNotUtf8 { path: path.to_owned() }.into())
}

//! Graphs and models that are computed in our own session.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::tensorflow::{Graph, Operation, Session};

use super::feed::FileFeed;
use super::loading::Loaded;
use super::session::{Builder, NodeOutput, attempt};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::{Argument, Signature};
use crate::options::Options;
use crate::options::model::ModelOptions;
use crate::storage::glob::{Glob, is_pattern};
use crate::types::dtype::Dtype;

/// Loads a graph or a model.
type Load = Box<dyn Fn() -> Result<Loaded> + Send + Sync>;

/// A graph in memory, and a session for it.
pub(crate) struct Model {
    graph: Mutex<Graph>,
    pub(crate) session: Arc<Session>,
    /// Loads both again, so that a second computation starts with the original variables.
    pub(crate) load: Load,
    pub(crate) format: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) signature: Signature,
    /// The signature's other outputs. They are computed, too, as Python does: without them TensorFlow could fuse the remaining
    /// nodes, which changes roundings.
    others: Vec<Argument>,
    pub(crate) options: Options,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("format", &self.format).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Model {
    pub(crate) fn new(
        format: &'static str,
        path: PathBuf,
        files: Vec<PathBuf>,
        signature: Signature,
        Loaded { graph, session }: Loaded,
        load: Load,
        options: &Options,
    ) -> Self {
        let (graph, session) = (Mutex::new(graph), Arc::new(session));
        Self { graph, session, load, format, path, files, signature, others: Vec::new(), options: options.clone() }
    }

    /// Keeps the requested outputs. If one of them does not exist, keeps all, so that the error can list them.
    pub(crate) fn choose_outputs(&mut self) -> Result<()> {
        let mut chosen: Vec<Argument> = Vec::new();
        for name in &self.options.model.outputs {
            if is_pattern(name.as_bytes()) && Argument::find(&self.signature.outputs, name).is_none() {
                let glob = Glob::new(name.as_bytes())?;
                let matches = |output: &&Argument| glob.matches(output.name.as_bytes());
                let matching = self.signature.outputs.iter().filter(matches).filter(|output| !chosen.contains(output));
                let matching: Vec<Argument> = matching.cloned().collect();
                chosen.extend(matching);
                continue;
            }
            let listed = Argument::find(&self.signature.outputs, name).map(|at| self.signature.outputs[at].clone());
            let output = if let Some(output) = listed {
                output
            } else {
                let graph = self.graph.get_mut().unwrap_or_else(PoisonError::into_inner);
                let Some(target) = NodeOutput::find(graph, name)?.filter(|_| self.signature.name.is_empty()) else { return Ok(()) };
                target.known(graph)?
            };
            if !chosen.contains(&output) {
                chosen.push(output);
            }
        }
        if !chosen.is_empty() {
            let all = std::mem::replace(&mut self.signature.outputs, chosen);
            if !self.signature.name.is_empty() {
                self.others = all.into_iter().filter(|output| !self.signature.outputs.contains(output)).collect();
            }
        }
        Ok(())
    }

    /// Adds nodes to `graph` that compute the other outputs. `graph` may have been loaded again.
    pub(crate) fn other_nodes(&self, graph: &mut Graph) -> Result<Vec<Operation>> {
        let mut nodes = Vec::new();
        for other in &self.others {
            if let Some(target) = NodeOutput::find(graph, &other.tensor)? {
                let action = || format!("preparing to compute {}", target.name);
                nodes.push(attempt(action, || Builder::new(graph).of("Identity", &[target.output()]))?);
            }
        }
        Ok(nodes)
    }

    pub(crate) fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wanted(&self) -> &ModelOptions {
        &self.options.model
    }

    /// The inputs to feed, by their names in the signature.
    pub(crate) fn feeds(&self) -> Result<Vec<FileFeed>> {
        let mut feeds = Vec::new();
        for (name, path) in &self.wanted().feeds {
            let inputs = &self.signature.inputs;
            let of_input = Argument::find(inputs, name).map(|at| &inputs[at]);
            let tensor = of_input.map_or(name, |input| &input.tensor);
            let mut graph = self.graph();
            let Some(target) = NodeOutput::find(&graph, tensor)? else {
                let known = inputs.iter().map(|input| input.name.clone()).collect();
                return Err(BadRequest::NoSuchInput { path: self.path.clone(), name: name.clone(), known }.into());
            };
            let input = of_input.map_or_else(|| target.known(&mut graph), |input| Ok(input.clone()))?;
            if feeds.iter().any(|feed: &FileFeed| feed.is_for(&target)) {
                return Err(BadRequest::FedTwice { name: name.clone() }.into());
            }
            feeds.push(FileFeed::open(path, target, &input, self.wanted().batch, &self.options)?);
        }
        // All inputs of a signature are required unless they have a default value.
        for input in self.signature.inputs.iter().filter(|_| !self.signature.name.is_empty()) {
            let Some(target) = NodeOutput::find(&self.graph(), &input.tensor)? else { continue };
            let is_required = attempt(|| format!("looking at {}", input.tensor), || Ok(target.operation.op_type()?))? == "Placeholder";
            if is_required && !feeds.iter().any(|feed| feed.is_for(&target)) {
                let (dtype, name) = (input.dtype.map_or("?", Dtype::name), input.name.clone());
                return Err(BadRequest::InputMissing { name, dtype }.into());
            }
        }
        Ok(feeds)
    }

    /// Refuses input above a quarter of the memory: it is held twice while it is fed, and the outputs come on top.
    pub(crate) fn check_input(&self, nbytes: u64, hint: &str) -> Result<()> {
        let allowed = self.options.budget().as_bytes() / 4;
        if nbytes > allowed {
            let what = format!("memory for the input of {}{hint}", self.path.display());
            return Err(Error::Limit { what, asked: nbytes, allowed: Some(allowed) });
        }
        Ok(())
    }
}

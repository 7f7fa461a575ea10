//! Opens graphs and signatures of models as sources.

use std::path::PathBuf;
use std::sync::Arc;

use super::computed::Computed;
use super::loading::Loaded;
use super::model::Model;
use super::operations::load_operations;
use super::session::NodeOutput;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::format::meta_graph::Signature;
use crate::options::Options;
use crate::source::container::Container;
use crate::source::graph::file::GraphFile;
use crate::source::saved_model::file::SavedModel;

/// The outputs of a frozen graph.
///
/// # Errors
/// Those of TensorFlow, and of arrays that are fed.
pub(crate) fn open_graph(file: GraphFile, options: &Options) -> Result<Box<dyn Container>> {
    load_operations(&options.model.op_libraries)?;
    if options.model.signature.is_some() {
        return Err(BadRequest::SignatureOfGraph { path: file.path().to_owned() }.into());
    }
    let file = Arc::new(file);
    let (again, own) = (Arc::clone(&file), options.clone());
    let load = move || Loaded::graph(&again.read(&own)?, again.path());
    let Loaded { mut graph, session } = load()?;
    let mut outputs = Vec::new();
    for name in file.outputs() {
        let Some(target) = NodeOutput::find(&graph, name)? else { continue };
        for index in 0..target.operation.num_outputs() {
            outputs.extend(NodeOutput::find(&graph, &format!("{name}:{index}"))?.map(|target| target.known(&mut graph)).transpose()?);
        }
    }
    let signature = Signature::of_graph(file.inputs().to_vec(), outputs);
    let path = file.path().to_owned();
    let files = vec![path.clone()];
    Model::new("graph-def", path, files, signature, Loaded { graph, session }, Box::new(load), options).open()
}

/// The outputs of a signature of a SavedModel.
///
/// # Errors
/// Those of TensorFlow, and of arrays that are fed.
pub(crate) fn open_signature(model: SavedModel, files: Vec<PathBuf>, options: &Options) -> Result<Box<dyn Container>> {
    load_operations(&options.model.op_libraries)?;
    let signature = model.signature(options.model.signature.as_deref())?.clone();
    let own = options.clone();
    let path = model.dir.clone();
    let load = move || Loaded::model(&model, &own);
    let loaded = load()?;
    Model::new("saved-model", path, files, signature, loaded, Box::new(load), options).open()
}

impl Model {
    fn open(mut self) -> Result<Box<dyn Container>> {
        self.choose_outputs()?;
        let feeds = self.feeds()?;
        Ok(match self.options.model.batch {
            Some(batch) => Box::new(self.batches(feeds, batch)?),
            None => Box::new(Computed::new(self, feeds)),
        })
    }
}

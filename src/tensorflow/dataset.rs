//! The elements of a tf.data data set, iterated in a session.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ::tensorflow::{Graph, ImportGraphDefOptions, Operation, Session, SessionRunArgs};

use super::elements::{Cardinality, ComponentSource, Fetches, Step, container};
use super::operations::load_operations;
use super::session::{Builder, NodeOutput, attempt, options as session_options};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::source::container::Container;
use crate::source::graph::file::{Batches, DatasetGraph};

/// Opens a data set whose graph `DatasetToGraphV2` wrote. Its components are numbered, since the graph does not name them.
///
/// # Errors
/// [`Error::Malformed`] if the graph does not make a data set, [`Error::TensorFlow`].
pub(crate) fn open_dataset(dataset: &DatasetGraph, options: &Options) -> Result<Box<dyn Container>> {
    load_operations(&options.model.op_libraries)?;
    if options.model.signature.is_some() || !options.model.feeds.is_empty() || options.model.batch.is_some() {
        return Err(BadRequest::InputOfDataSet { path: dataset.path().to_owned() }.into());
    }
    let path = dataset.path().to_owned();
    let def = dataset.read(options)?;
    let mut graph = Graph::new();
    attempt(|| format!("loading the graph {}", path.display()), || graph.import_graph_def(&def, &ImportGraphDefOptions::new()))?;
    drop(def);
    let Iterator { make, next } = Iterator::new(&mut graph, dataset)?;
    let parts = parts(dataset, &next)?;
    let cardinality = cardinality(&mut graph, dataset);
    let graph = Mutex::new(graph);
    let (own, name, model) = (parts.clone(), path.clone(), options.model.clone());
    let start = move |_: &_| -> Result<Step> {
        let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        let fetches = Fetches::new(&mut Builder::new(&mut graph), &own, &model)?;
        let session = iterate(&graph, &make, &name)?;
        let (name, next) = (name.clone(), next.clone());
        let mut element = 0u64;
        Ok(Box::new(move || {
            let mut args = SessionRunArgs::new();
            args.add_target(&next);
            let found = fetches.run(&session, args, true, || format!("computing element {element} of {}", name.display()));
            element += 1;
            found
        }))
    };
    Ok(Box::new(container("tf-data-graph", &path, &parts, start, cardinality, options)))
}

/// The nodes that iterate.
struct Iterator {
    /// Starts the iteration.
    make: Operation,
    /// Returns the next element.
    next: Operation,
}

impl Iterator {
    fn new(graph: &mut Graph, dataset: &DatasetGraph) -> Result<Self> {
        let Some(source) = NodeOutput::find(graph, dataset.output())? else {
            return Err(Error::malformed(dataset.path(), "data set", format!("its graph has no {}", dataset.output())));
        };
        let (types, shapes) = dataset.element();
        let mut builder = Builder::new(graph);
        attempt(
            || format!("preparing to iterate {}", dataset.path().display()),
            || {
                let iterator = builder.node("IteratorV2", |node| {
                    node.set_attr_string("shared_name", "")?;
                    node.set_attr_string("container", "")?;
                    node.set_attr_value_proto("output_types", types)?;
                    node.set_attr_value_proto("output_shapes", shapes)
                })?;
                let make = builder.of("MakeIterator", &[source.output(), iterator.clone().into()])?;
                let next = builder.node("IteratorGetNext", |node| {
                    node.add_input(iterator);
                    node.set_attr_value_proto("output_types", types)?;
                    node.set_attr_value_proto("output_shapes", shapes)
                })?;
                Ok(Self { make, next })
            },
        )
    }
}

/// The number of elements, if TensorFlow or the graph knows it.
fn cardinality(graph: &mut Graph, dataset: &DatasetGraph) -> Cardinality {
    const INFINITE: i64 = -1;
    let mut ask = || -> Result<i64> {
        let Some(source) = NodeOutput::find(graph, dataset.output())? else { return Ok(i64::MIN) };
        attempt(
            || format!("asking how long {} is", dataset.path().display()),
            || {
                let count = Builder::new(graph).of("DatasetCardinality", &[source.output()])?;
                let session = Session::new(&session_options()?, graph)?;
                let mut args = SessionRunArgs::new();
                let token = args.request_fetch(&count, 0);
                session.run(&mut args)?;
                Ok(args.fetch::<i64>(token)?.first().copied().unwrap_or(i64::MIN))
            },
        )
    };
    // Versions without the operation report no number.
    match ask().unwrap_or(i64::MIN) {
        INFINITE => Cardinality::Endless,
        count => match u64::try_from(count) {
            Ok(count) => Cardinality::Elements(count),
            Err(_) if dataset.repeats_forever() => Cardinality::Endless,
            Err(_) => Cardinality::Unknown,
        },
    }
}

/// A session in which the iteration has started.
fn iterate(graph: &Graph, make: &Operation, path: &Path) -> Result<Session> {
    attempt(
        || format!("beginning to iterate {}", path.display()),
        || {
            let session = Session::new(&session_options()?, graph)?;
            let mut args = SessionRunArgs::new();
            args.add_target(make);
            session.run(&mut args)?;
            Ok(session)
        },
    )
}

/// The components of an element.
fn parts(dataset: &DatasetGraph, next: &Operation) -> Result<Vec<ComponentSource>> {
    let mut parts = Vec::new();
    for (index, output) in (0..).zip(dataset.components()?) {
        // Batches are concatenated: those of unknown length, and those of the length in the graph.
        let is_joined = match (dataset.batches(), output.shape.as_deref()) {
            (Batches::OfLength(_) | Batches::OfAnyLength, Some([None, ..])) => true,
            (Batches::OfLength(size), Some([Some(rows), ..])) => size == *rows,
            _ => false,
        };
        let target = NodeOutput { name: format!("component {index}"), operation: next.clone(), index };
        parts.push(ComponentSource { output, target: Some(target), is_joined });
    }
    if parts.len() != next.num_outputs() {
        let detail = format!("{} components, its iterator has {}", parts.len(), next.num_outputs());
        return Err(Error::malformed(dataset.path(), "data set", detail));
    }
    Ok(parts)
}

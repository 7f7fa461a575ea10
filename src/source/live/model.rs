//! Graphs and models that a session of our own computes.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::tensorflow::{Graph, ImportGraphDefOptions, Operation, SavedModelBundle, Session, SessionRunArgs};
use serde_json::{Map, Value as Json, json};

use super::elements::{Elements, Fetch, Step};
use super::feed::ArrayFeed;
use super::held::{Value, compute};
use super::library::check_loaded;
use super::session::{Builder, Feed, Target, attempt, options as session_options};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::graph_def::{Argument, Signature, attr_shapes, attr_types};
use crate::model_options::ModelOptions;
use crate::options::Options;
use crate::source::graph::{DatasetGraph, GraphFile};
use crate::source::records::{Declared, Encoding, Feature, Framing, Inputs, Key, RecordContainer, RecordSet};
use crate::source::saved_model::SavedModel;
use crate::source::strings::StoredStrings;
use crate::source::{Container, Name, TensorInfo, TensorReader};
use crate::spec::TensorSpec;

/// A graph in memory, and a session for it.
struct Model {
    graph: Mutex<Graph>,
    session: Arc<Session>,
    format: &'static str,
    path: PathBuf,
    files: Vec<PathBuf>,
    signature: Signature,
    /// The outputs of the signature that are not wanted. They are computed with the others, as Python does: what is left out of a
    /// graph lets TensorFlow fuse what is left, with other roundings.
    others: Vec<Argument>,
    options: Options,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("format", &self.format).field("path", &self.path).finish_non_exhaustive()
    }
}

/// A frozen graph, as what it computes.
///
/// # Errors
/// Those of TensorFlow, and of arrays that are to be fed.
pub(crate) fn open_graph(file: &GraphFile, options: &Options) -> Result<Box<dyn Container>> {
    check_loaded()?;
    let mut graph = Graph::new();
    let def = file.read(options)?;
    let session = attempt(
        || format!("loading the graph {}", file.path().display()),
        || {
            graph.import_graph_def(&def, &ImportGraphDefOptions::new())?;
            Session::new(&session_options()?, &graph)
        },
    )?;
    drop(def);
    let mut outputs = Vec::new();
    for name in file.outputs() {
        let Some(target) = Target::find(&graph, name)? else { continue };
        outputs.extend((0..target.operation.num_outputs()).map(|index| Argument::of_graph(format!("{name}:{index}"), None, None)));
    }
    let mut signature = Signature::of_graph(file.inputs().to_vec(), outputs);
    for output in &mut signature.outputs {
        (output.dtype, output.shape) = known(&mut graph, &output.tensor)?;
    }
    let files = vec![file.path().to_owned()];
    let path = file.path().to_owned();
    Model { graph: Mutex::new(graph), session: Arc::new(session), format: "graph-def", path, files, signature, others: Vec::new(), options: options.clone() }.open()
}

/// The outputs of a signature of a SavedModel.
///
/// # Errors
/// Those of TensorFlow, and of arrays that are to be fed.
pub(crate) fn open_signature(model: &SavedModel, signature: &Signature, files: Vec<PathBuf>, options: &Options) -> Result<Box<dyn Container>> {
    check_loaded()?;
    let mut graph = Graph::new();
    let loaded = attempt(
        || format!("loading {}", model.dir.display()),
        || SavedModelBundle::load(&session_options()?, model.tags(), &mut graph, &model.dir),
    )?;
    let session = Arc::new(loaded.session);
    let (signature, path) = (signature.clone(), model.dir.clone());
    Model { graph: Mutex::new(graph), session, format: "saved-model", path, files, signature, others: Vec::new(), options: options.clone() }.open()
}

/// The dtype and the shape of an output, as far as TensorFlow knows them before it computes.
fn known(graph: &mut Graph, name: &str) -> Result<(Option<Dtype>, Option<Vec<Option<u64>>>)> {
    let Some(target) = Target::find(graph, name)? else { return Ok((None, None)) };
    let shape = target.shape(graph)?;
    let dtype = attempt(|| format!("asking for the dtype of {name}"), || Builder::new(graph).dtype(target.output()))?;
    Ok((dtype, shape))
}

impl Model {
    fn open(mut self) -> Result<Box<dyn Container>> {
        self.choose_outputs()?;
        let feeds = self.feeds()?;
        match self.options.model.batch {
            Some(batch) => self.batches(feeds, batch),
            None => {
                let computed = Computed { values: OnceLock::new(), feeds, model: self };
                Ok(Box::new(computed))
            }
        }
    }

    /// Leaves the outputs that are wanted. If one of them does not exist all are left, so that whoever looks for it can be told what
    /// there is.
    fn choose_outputs(&mut self) -> Result<()> {
        let mut chosen: Vec<Argument> = Vec::new();
        for name in &self.options.model.outputs {
            let listed = self.signature.outputs.iter().find(|output| output.is_called(name)).cloned();
            let output = match listed {
                Some(output) => output,
                None => {
                    let graph = self.graph.get_mut().unwrap_or_else(PoisonError::into_inner);
                    let Some(target) = Target::find(graph, name)?.filter(|_| self.signature.name.is_empty()) else { return Ok(()) };
                    let (dtype, shape) = known(graph, &target.name)?;
                    Argument::of_graph(target.name, dtype, shape)
                }
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

    /// Nodes that compute the outputs that are not wanted.
    fn other_nodes(&self, graph: &mut Graph) -> Result<Vec<Operation>> {
        let mut nodes = Vec::new();
        for other in &self.others {
            if let Some(target) = Target::find(graph, &other.tensor)? {
                let action = || format!("preparing to compute {}", target.name);
                nodes.push(attempt(action, || Builder::new(graph).of("Identity", &[target.output()]))?);
            }
        }
        Ok(nodes)
    }

    fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> &ModelOptions {
        &self.options.model
    }

    /// What is to be fed, by the names that the signature gives.
    fn feeds(&self) -> Result<Vec<ArrayFeed>> {
        let mut feeds = Vec::new();
        for (name, path) in &self.wanted().feeds {
            let inputs = &self.signature.inputs;
            let of_input = inputs.iter().find(|input| input.is_called(name));
            let tensor = of_input.map_or(name, |input| &input.tensor);
            let mut graph = self.graph();
            let Some(target) = Target::find(&graph, tensor)? else {
                let names: Vec<&str> = inputs.iter().map(|input| &input.name[..]).collect();
                return Err(Error::bad_request(format!("{} has no input {name:?}; it has {}", self.path.display(), names.join(", "))));
            };
            let (dtype, shape) = match of_input {
                Some(input) => (input.dtype, input.shape.clone()),
                None => known(&mut graph, tensor)?,
            };
            feeds.push(ArrayFeed::open(path, target, dtype, shape.as_deref(), self.wanted().batch, self.options.calls())?);
        }
        Ok(feeds)
    }

    /// Refuses input that is more than a quarter of the memory at a time: it is held twice on its way, and outputs come on top.
    fn check_input(&self, nbytes: u64, hint: &str) -> Result<()> {
        let allowed = self.options.budget().as_bytes() / 4;
        if nbytes > allowed {
            let what = format!("memory for the input of {}{hint}", self.path.display());
            return Err(Error::Limit { what, asked: nbytes, allowed: Some(allowed) });
        }
        Ok(())
    }

    /// Outputs that are put together of those of batches of the input.
    fn batches(self, feeds: Vec<ArrayFeed>, batch: u64) -> Result<Box<dyn Container>> {
        let mut rows: Option<(u64, &ArrayFeed)> = None;
        for feed in &feeds {
            match (feed.rows(), rows) {
                (Some(own), Some((other, first))) if own != other => {
                    let (own_path, first) = (feed.path().display(), first.path().display());
                    return Err(Error::bad_request(format!("{own_path} has {own} rows, {first} {other}: inputs are cut alike")));
                }
                (Some(own), None) => rows = Some((own, feed)),
                _ => {}
            }
        }
        let Some((rows, _)) = rows else {
            return Err(Error::bad_request("there is no input with an axis to cut into batches: --feed NAME=ARRAY.npy"));
        };
        if batch == 0 {
            return Err(Error::bad_request("a batch has at least one row"));
        }
        let nbytes = feeds.iter().fold(0u64, |sum, feed| sum.saturating_add(feed.nbytes(batch.min(rows))));
        self.check_input(nbytes, &format!(", {batch} rows at a time"))?;
        let mut graph = self.graph();
        let (mut features, mut fetches) = (Vec::new(), Vec::new());
        for output in &self.signature.outputs {
            let (dtype, shape) = known(&mut graph, &output.tensor)?;
            let target = Target::find(&graph, &output.tensor)?;
            // A scalar of every batch is a row; everything else is put together along its first axis.
            let is_scalar = shape.as_ref().is_some_and(Vec::is_empty);
            let shape = if is_scalar { shape } else { shape.map(|shape| shape[1..].to_vec()) };
            features.push(feature(features.len(), output, dtype.filter(|_| target.is_some()), shape, !is_scalar));
            fetches.push(target.zip(dtype.filter(|&dtype| can_be_fetched(dtype))));
        }
        drop(graph);
        let (format, path, files, options) = (self.format, self.path.clone(), self.files.clone(), self.options.clone());
        let model = Arc::new(self);
        let feeds = Arc::new(feeds);
        let start = move |cancel: &crate::cancel::CancelToken| -> Result<Box<dyn std::io::Read + Send>> {
            let step = Arc::clone(&model).infer(Arc::clone(&feeds), &fetches, rows, batch)?;
            Ok(Box::new(Elements::new(step, cancel)))
        };
        let records = RecordSet {
            group: features.len(),
            features,
            discovers: false,
            framing: Framing::Length,
            first_look: 1,
            ..RecordSet::undescribed(Inputs::Program(path.clone(), Box::new(start)))
        };
        let facts = Map::from_iter([("rows of the input".to_owned(), json!(rows)), ("rows at a time".to_owned(), json!(batch))]);
        Ok(Box::new(RecordContainer::new(format, &path, vec![records], &options).with_facts(facts, Vec::new()).with_files(files)))
    }

    /// Runs the batches one after the other.
    fn infer(self: Arc<Self>, feeds: Arc<Vec<ArrayFeed>>, targets: &[Option<(Target, Dtype)>], rows: u64, batch: u64) -> Result<Step> {
        let mut fetches = Vec::new();
        let others;
        {
            let mut graph = self.graph();
            others = self.other_nodes(&mut graph)?;
            let mut builder = Builder::new(&mut graph);
            for (target, dtype) in targets.iter().flatten() {
                fetches.push(Fetch::new(&mut builder, target, *dtype, self.wanted())?);
            }
        }
        let present: Vec<bool> = targets.iter().map(Option::is_some).collect();
        let mut at = 0;
        Ok(Box::new(move || {
            if at == rows {
                return Ok(None);
            }
            let range = at..(at + batch).min(rows);
            let fed = feeds.iter().map(|feed| feed.rows_of(&range)).collect::<Result<Vec<Box<dyn Feed + '_>>>>()?;
            let mut args = SessionRunArgs::new();
            fed.iter().for_each(|feed| feed.add(&mut args));
            others.iter().for_each(|other| args.add_target(other));
            let tokens: Vec<_> = fetches.iter().map(|fetch| fetch.request(&mut args)).collect();
            let action = || format!("computing rows {} to {} of {}", range.start, range.end, self.path.display());
            attempt(action, || self.session.run(&mut args))?;
            let mut found = fetches.iter().zip(tokens).map(|(fetch, token)| fetch.take(&mut args, token));
            let components = present.iter().map(|&is_there| if is_there { found.next().transpose() } else { Ok(None) });
            let components = components.map(|component| Ok(component?.unwrap_or_default())).collect::<Result<Vec<_>>>()?;
            at = range.end;
            Ok(Some(components))
        }))
    }
}

/// Whether TensorFlow gives us elements of a dtype.
fn can_be_fetched(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::Resource | Dtype::Variant)
}

/// What an output is called beside its name: a signature's by its tensor, a graph's by its node.
fn alias(output: &Argument) -> Option<String> {
    match output.tensor.strip_suffix(":0") {
        Some(node) if output.tensor == output.name => Some(node.to_owned()),
        _ => Some(output.tensor.clone()).filter(|tensor| *tensor != output.name && !tensor.is_empty()),
    }
}

/// An output as a feature of records.
fn feature(part: usize, output: &Argument, dtype: Option<Dtype>, shape: Option<Vec<Option<u64>>>, flat: bool) -> Feature {
    let unsupported = match dtype {
        Some(dtype) if can_be_fetched(dtype) => None,
        Some(dtype) => Some(format!("it is a {dtype}: ragged, sparse and other composite tensors have no plain values")),
        None => Some("it is no plain tensor".to_owned()),
    };
    let declared = Declared { flat, ..Declared::new(dtype.unwrap_or(Dtype::Variant), shape.unwrap_or_default(), Encoding::Tensor) };
    Feature { name: output.name.clone().into_bytes(), alias: alias(output), key: Key::Part(part), declared: Some(declared), unsupported }
}

/// What a model computes of all of its input at once.
struct Computed {
    /// What was computed, with the number of the output.
    values: OnceLock<Vec<(usize, Value<Arc<Session>>)>>,
    feeds: Vec<ArrayFeed>,
    model: Model,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Computed {
    fn outputs(&self) -> &[Argument] {
        &self.model.signature.outputs
    }

    /// The value of an output. All there are computed together, once.
    fn value(&self, index: usize) -> Result<&Value<Arc<Session>>> {
        if self.values.get().is_none() {
            let values = self.compute()?;
            // Somebody else may have been faster; theirs is as good.
            let _ = self.values.set(values);
        }
        let value = self.values.get().into_iter().flatten().find(|(own, _)| *own == index);
        let missing = || Error::Unsupported { what: self.outputs()[index].name.clone(), detail: "it cannot be computed".into() };
        value.map(|(_, value)| value).ok_or_else(missing)
    }

    fn compute(&self) -> Result<Vec<(usize, Value<Arc<Session>>)>> {
        let nbytes = self.feeds.iter().fold(0u64, |sum, feed| sum.saturating_add(feed.nbytes(feed.rows().unwrap_or(1))));
        self.model.check_input(nbytes, " at once; --batch ROWS takes it in parts")?;
        let mut graph = self.model.graph();
        let (mut indices, mut targets) = (Vec::new(), Vec::new());
        for (index, output) in self.outputs().iter().enumerate() {
            if output.dtype.is_some_and(can_be_fetched)
                && let Some(target) = Target::find(&graph, &output.tensor)?
            {
                indices.push(index);
                targets.push(target);
            }
        }
        let fed = self.feeds.iter().map(|feed| feed.rows_of(&(0..feed.rows().unwrap_or(1)))).collect::<Result<Vec<_>>>()?;
        let others = self.model.other_nodes(&mut graph)?;
        let values = compute(&self.model.session, &mut graph, &targets, &others, &fed, self.model.wanted())?;
        Ok(indices.into_iter().zip(values).collect())
    }
}

impl Container for Computed {
    fn format(&self) -> &'static str {
        self.model.format
    }

    fn len(&self) -> Result<usize> {
        Ok(self.outputs().len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let output = &self.outputs()[index];
        let alias = alias(output);
        let computed = self.values.get().into_iter().flatten().find(|(own, _)| *own == index);
        let spec = match computed {
            Some((_, Value::Held(held))) => Some(held.spec().clone()),
            Some((_, Value::Spilled(spill))) => Some(spill.container().info(0)?.spec),
            None => None,
        };
        if let Some(spec) = spec {
            return Ok(TensorInfo { name: Name::new(output.name.as_bytes()), alias, spec, unsupported: None, unknown_axes: Vec::new(), has_rank: true, feature: None });
        }
        let dtype = output.dtype.unwrap_or(Dtype::Variant);
        let unsupported = (!can_be_fetched(dtype)).then(|| format!("it is a {dtype}, which has no plain values"));
        let axes = output.shape.clone().unwrap_or_default();
        let spec = TensorSpec::new(dtype, axes.iter().map(|axis| axis.unwrap_or(0)).collect())
            .map_err(|detail| Error::malformed(&self.model.path, format!("shape of {}", output.name), detail))?;
        let unknown_axes = (0..axes.len()).filter(|&axis| axes[axis].is_none()).collect();
        Ok(TensorInfo { name: Name::new(output.name.as_bytes()), alias, spec, unsupported, unknown_axes, has_rank: output.shape.is_some(), feature: None })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        Ok(self.outputs().iter().position(|output| output.is_called(name)))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        match self.value(index)? {
            Value::Held(held) => Ok(Box::new(held)),
            Value::Spilled(spill) => spill.container().reader(0),
        }
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        match self.value(index)? {
            Value::Spilled(spill) => spill.container().strings(0),
            Value::Held(held) => {
                let detail = format!("it turned out to be {}", held.spec());
                Err(Error::Unsupported { what: format!("strings of {}", self.outputs()[index].name), detail })
            }
        }
    }

    fn heap_bytes(&self) -> u64 {
        const OUTPUT_BYTES: u64 = 256;
        self.outputs().len() as u64 * OUTPUT_BYTES
    }

    fn files(&self) -> Vec<PathBuf> {
        let feeds = self.feeds.iter().map(|feed| feed.path().to_owned());
        self.model.files.iter().cloned().chain(feeds).collect()
    }

    fn facts(&self) -> Map<String, Json> {
        Map::from_iter([("computed by".to_owned(), json!(version()))])
    }

    fn tensor_facts(&self, _: usize) -> Result<Map<String, Json>> {
        Ok(Map::new())
    }

    fn signatures(&self) -> &[Signature] {
        std::slice::from_ref(&self.model.signature)
    }
}

/// The TensorFlow that is loaded.
fn version() -> String {
    let version = attempt(String::new, || Ok(::tensorflow::version()?));
    version.map_or_else(|_| "TensorFlow".to_owned(), |version| format!("TensorFlow {version}"))
}

/// The elements of a data set whose graph was written by `DatasetToGraphV2`.
///
/// # Errors
/// Those of TensorFlow.
pub(crate) fn open_dataset(dataset: &DatasetGraph, options: &Options) -> Result<Box<dyn Container>> {
    check_loaded()?;
    let path = dataset.path().to_owned();
    let def = dataset.read(options)?;
    let mut graph = Graph::new();
    attempt(|| format!("loading the graph {}", path.display()), || graph.import_graph_def(&def, &ImportGraphDefOptions::new()))?;
    drop(def);
    let (types, shapes) = dataset.element();
    let in_file = |error: crate::error::ParseError| error.in_file(&path);
    let codes = attr_types(types).map_err(in_file)?;
    let shapes_known = attr_shapes(shapes).map_err(in_file)?;
    if codes.len() != shapes_known.len() || codes.is_empty() {
        let detail = format!("{} dtypes and {} shapes of components", codes.len(), shapes_known.len());
        return Err(Error::malformed(&path, "data set", detail));
    }
    let action = || format!("preparing to iterate {}", path.display());
    let Some(source) = Target::find(&graph, dataset.output())? else {
        return Err(Error::malformed(&path, "data set", format!("its graph has no {}", dataset.output())));
    };
    let (make, next) = attempt(action, || {
        let mut builder = Builder::new(&mut graph);
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
        Ok((make, next))
    })?;
    let mut features = Vec::new();
    let mut components: Vec<Option<(Target, Dtype)>> = Vec::new();
    for (part, (&code, shape)) in codes.iter().zip(shapes_known).enumerate() {
        let dtype = Dtype::from_code(code);
        // Elements that are batches, of which the last may be shorter, are put together along their first axis.
        let flat = matches!(shape.as_deref(), Some([None, ..]));
        let shape = if flat { shape.map(|shape| shape[1..].to_vec()) } else { shape };
        let name = part.to_string();
        features.push(feature(part, &Argument::of_graph(name.clone(), dtype, None), dtype, shape, flat));
        let index = i32::try_from(part).map_err(|_| Error::malformed(&path, "data set", "too many components"))?;
        let target = Target { name: format!("component {name}"), operation: next.clone(), index };
        components.push(dtype.filter(|&dtype| can_be_fetched(dtype)).map(|dtype| (target, dtype)));
    }
    let graph = Arc::new(Mutex::new(graph));
    let name = path.clone();
    let scratch = options.model.clone();
    let start = move |cancel: &crate::cancel::CancelToken| -> Result<Box<dyn std::io::Read + Send>> {
        let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = Builder::new(&mut graph);
        let fetches = components.iter().map(|component| match component {
            Some((target, dtype)) => Fetch::new(&mut builder, target, *dtype, &scratch).map(Some),
            None => Ok(None),
        });
        let fetches = fetches.collect::<Result<Vec<_>>>()?;
        let session = attempt(
            || format!("iterating {}", name.display()),
            || {
                let session = Session::new(&session_options()?, &graph)?;
                let mut args = SessionRunArgs::new();
                args.add_target(&make);
                session.run(&mut args)?;
                Ok(session)
            },
        )?;
        let (name, next) = (name.clone(), next.clone());
        let mut element = 0u64;
        let step: Step = Box::new(move || {
            let mut args = SessionRunArgs::new();
            args.add_target(&next);
            let tokens: Vec<_> = fetches.iter().map(|fetch| fetch.as_ref().and_then(|fetch| fetch.request(&mut args))).collect();
            let action = || format!("computing element {element} of {}", name.display());
            let is_there = attempt(action, || match session.run(&mut args) {
                Err(status) if status.code() == ::tensorflow::Code::OutOfRange && status.to_string().contains("End of sequence") => Ok(false),
                done => done.map(|()| true),
            })?;
            if !is_there {
                return Ok(None);
            }
            element += 1;
            let taken = fetches.iter().zip(tokens).map(|(fetch, token)| fetch.as_ref().map_or(Ok(Default::default()), |fetch| fetch.take(&mut args, token)));
            taken.collect::<Result<Vec<_>>>().map(Some)
        });
        Ok(Box::new(Elements::new(step, cancel)))
    };
    let records = RecordSet {
        group: features.len(),
        features,
        discovers: false,
        framing: Framing::Length,
        first_look: 1,
        ..RecordSet::undescribed(Inputs::Program(path.clone(), Box::new(start)))
    };
    Ok(Box::new(RecordContainer::new("tf-data-graph", &path, vec![records], options)))
}

//! Graphs: a file with a `GraphDef`, frozen or of a tf.data data set. Its constants are its tensors; computing it takes a running
//! TensorFlow.

pub(crate) mod constants;
pub(crate) mod proto_index;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use crate::error::{Error, ParseError, Result};
use crate::format::graph_def::{self, Node};
use crate::format::meta_graph::{Argument, Signature};
use crate::format::tensor_proto::TensorProto as Message;
use crate::format::varint;
use crate::options::Options;
use crate::os::Calls;
use crate::reader::strings::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::source::runtime::runtime;
use crate::storage::paths::{Stamp, is_file, open_file};
use crate::types::dtype::Dtype;
use crate::types::spec::memory_len;

use constants::{Constants, RETURN, Survey, WHAT};
use proto_index::{OuterValue, Outline, read_range};

/// What is looked at to tell a graph.
const FRONT: u64 = 4096;

/// A `GraphDef` in a file.
pub(crate) struct GraphDef;

impl Driver for GraphDef {
    fn name(&self) -> &'static str {
        "graph-def"
    }

    fn resolve(&self, path: &Path, calls: &Calls) -> Result<Option<PathBuf>> {
        Ok((is_file(path)? && looks_like_one(path, calls)?).then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn needs_tensorflow(&self, path: &Path, options: &Options) -> bool {
        // What is wrong with it is said when it is opened.
        options.model.wants_model() || survey(path, options).is_ok_and(|survey| survey.is_dataset())
    }

    fn are_outputs(&self, path: &Path, names: &[&[u8]]) -> bool {
        !names.is_empty() && survey(path, &Options::default()).is_ok_and(|survey| !survey.has_all(names))
    }

    fn open(&self, path: &Path, options: &Options) -> Result<Box<dyn Container>> {
        if !options.model.wants_model() {
            let mut survey = survey(path, options)?;
            if !survey.is_dataset() {
                let signature = survey.signature();
                if survey.has_constants() {
                    return Ok(Box::new(Constants::new(self.name(), path, survey, vec![signature], &options.calls())?));
                }
                return Ok(Box::new(Listing::without_constants(path, signature)));
            }
        }
        options.model.used.note();
        match Graph::open(path, options)? {
            Graph::Frozen(file) => open_frozen(file, options),
            Graph::Dataset(file) => match runtime() {
                Ok(runtime) => runtime.open_dataset(&file, options),
                Err(why) => Ok(Box::new(Listing::of_dataset(&file, &why)?)),
            },
        }
    }
}

/// What is in the graph of a file.
fn survey(path: &Path, options: &Options) -> Result<Survey> {
    Survey::of_file(&open_file(path, &options.calls()).map_err(Error::io("open", path))?, path)
}

/// Without a library it is told what stands in the file.
fn open_frozen(file: GraphFile, options: &Options) -> Result<Box<dyn Container>> {
    match runtime() {
        Ok(runtime) => runtime.open_graph(file, options),
        Err(why) => Ok(Box::new(Listing::of_graph(file, &why))),
    }
}

/// Whether a file starts with the name and the operation of a node.
fn looks_like_one(path: &Path, calls: &Calls) -> Result<bool> {
    let file = open_file(path, calls).map_err(Error::io("open", path))?;
    let mut outline = Outline::of_file(&file, path, WHAT)?;
    // Versions and functions may come first.
    for _ in 0..4 {
        let Ok(Some(field)) = outline.next_field() else { return Ok(false) };
        let OuterValue::Bytes(range) = field.value else {
            if field.number == 3 {
                continue;
            }
            return Ok(false);
        };
        match field.number {
            1 => {
                let mut front = vec![0; memory_len((range.end - range.start).min(FRONT))];
                file.read_exact_at(&mut front, range.start).map_err(Error::io("read", path))?;
                return Ok(is_node(&front));
            }
            2 | 4 => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether bytes start with field 1, a name, and field 2, the name of an operation.
fn is_node(front: &[u8]) -> bool {
    let text = |tag: u8, bytes: &[u8], is_part: fn(char) -> bool| -> Option<usize> {
        let (len, read) = varint::read_u64(bytes.strip_prefix(&[tag])?, 0, WHAT).ok()?;
        let start = 1 + read;
        let text = std::str::from_utf8(bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)?).ok()?;
        (!text.is_empty() && text.chars().all(is_part)).then_some(start + text.len())
    };
    let Some(name) = text(0x0a, front, |c| !c.is_control() && !c.is_whitespace()) else { return false };
    text(0x12, &front[name..], |c| c.is_ascii_alphanumeric() || "_>.".contains(c)).is_some()
}

/// Checks the nodes and functions of a graph one by one and hands out its nodes. `claimed` grows by the bytes that its constants say
/// they have, which together may be no more than `most`: a few bytes stand for any number of repeated elements.
///
/// # Errors
/// [`Error::Malformed`] for what TensorFlow is not to be given, [`Error::Limit`], [`Error::Io`].
pub(crate) fn check_graph(
    outline: &mut Outline<'_>,
    most: u64,
    claimed: &mut u64,
    mut each: impl FnMut(&Node<'_>, Range<u64>),
) -> Result<()> {
    while let Some(field) = outline.next_field()? {
        let OuterValue::Bytes(range) = &field.value else { continue };
        let base = memory_len(range.start);
        let path = outline.path();
        let in_file = |error: ParseError| error.in_file(path);
        match field.number {
            1 => {
                let bytes = outline.read(range, most)?;
                let node = Node::parse(&bytes, base).map_err(in_file)?;
                *claimed = claimed.saturating_add(node.check().map_err(in_file)?);
                each(&node, field.offset..range.end);
            }
            2 => {
                let bytes = outline.read(range, most)?;
                *claimed = claimed.saturating_add(graph_def::check_library(&bytes, base).map_err(in_file)?);
            }
            _ => {}
        }
        if *claimed > most {
            let what = format!("memory for the constants of {}", path.display());
            return Err(Error::Limit { what, asked: *claimed, allowed: Some(most) });
        }
    }
    Ok(())
}

/// A tensor of one number is no longer.
const MOST_COUNT: usize = 64;

/// A graph that has been looked through.
enum Graph {
    Frozen(GraphFile),
    Dataset(DatasetGraph),
}

/// A frozen graph.
#[derive(Debug)]
pub(crate) struct GraphFile {
    path: PathBuf,
    inputs: Vec<Argument>,
    /// The nodes whose outputs no other node takes.
    outputs: Vec<String>,
    stamp: Stamp,
}

/// The graph of a data set, as `tf.raw_ops.DatasetToGraphV2` writes it.
#[derive(Debug)]
pub(crate) struct DatasetGraph {
    path: PathBuf,
    /// The output that is the data set.
    output: String,
    /// The attributes of its node that say what elements are like, as `AttrValue`s.
    types: Vec<u8>,
    shapes: Vec<u8>,
    /// The nodes that a graph of ours cannot have.
    returns: Vec<Range<u64>>,
    /// What is known of the way that elements come.
    way: Way,
    stamp: Stamp,
}

impl Graph {
    fn open(path: &Path, options: &Options) -> Result<Self> {
        let file = open_file(path, &options.calls()).map_err(Error::io("open", path))?;
        let stamp = Stamp::of(&file).map_err(Error::io("look at", path))?;
        let most = options.budget().as_bytes();
        let (mut inputs, mut names, mut taken, mut returns) = (Vec::new(), Vec::new(), HashSet::new(), Vec::new());
        let mut returned = None;
        // Nodes that may be data sets: their operations, what they take first, and what they say of elements.
        let mut datasets: HashMap<String, DatasetNode> = HashMap::new();
        // Constants that may be lengths of batches, and how often something is repeated.
        let mut counts: HashMap<String, i64> = HashMap::new();
        check_graph(&mut Outline::of_file(&file, path, WHAT)?, most, &mut 0, |node, range| {
            // Only what it takes that nobody has taken before costs anything.
            for input in node.inputs.iter().filter(|input| !input.starts_with('^')) {
                let input = input.split(':').next().unwrap_or_default();
                if !taken.contains(input) {
                    taken.insert(input.to_owned());
                }
            }
            if node.op == RETURN {
                returns.push(range);
                let is_dataset = node.attr("T").and_then(graph_def::attr_type) == Some(Dtype::Variant.code());
                returned = returned.take().or_else(|| node.inputs.first().filter(|_| is_dataset).map(|input| (*input).to_owned()));
            } else if node.is_placeholder() {
                let (dtype, shape) = node.placeholder();
                inputs.push(Argument::of_graph(format!("{}:0", node.name), dtype, shape));
            } else {
                names.push(node.name.to_owned());
            }
            if let Some(value) = node.attr("value").filter(|value| node.op == "Const" && value.len() < MOST_COUNT) {
                counts.extend(count(value).map(|count| (node.name.to_owned(), count)));
            }
            let types = node.attr("output_types").or_else(|| node.attr("Toutput_types"));
            if let (Some(types), Some(shapes)) = (types, node.attr("output_shapes")) {
                let input = |at: usize| node.inputs.get(at).map_or("", |input| input.split(':').next().unwrap_or_default()).to_owned();
                let (op, input, count) = (node.op.to_owned(), input(0), input(1));
                datasets.insert(node.name.to_owned(), DatasetNode { op, input, count, types: types.to_vec(), shapes: shapes.to_vec() });
            }
        })?;
        let Some(output) = returned else {
            names.retain(|name| !taken.contains(name));
            return Ok(Self::Frozen(GraphFile { path: path.to_owned(), stamp, inputs, outputs: names }));
        };
        let name = output.split(':').next().unwrap_or_default();
        let way = Way::of(&datasets, &counts, name);
        let Some(DatasetNode { types, shapes, .. }) = datasets.remove(name) else {
            let detail = format!("its node {name:?} does not say what elements are like (output_types, output_shapes)");
            return Err(Error::malformed(path, "data set", detail));
        };
        Ok(Self::Dataset(DatasetGraph { path: path.to_owned(), stamp, output, types, shapes, way, returns }))
    }
}

/// A node that may be a data set.
struct DatasetNode {
    op: String,
    input: String,
    /// The second input, which many take a number by.
    count: String,
    types: Vec<u8>,
    shapes: Vec<u8>,
}

/// Whether elements are batches of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Batches {
    #[default]
    None,
    OfLength(u64),
    /// Nobody says how long they are.
    OfAnyLength,
}

/// What is known of the way that elements of a data set come: from where they come, each node's first input.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Whether they are batches, and how long these are if that is known: something makes batches before anything takes elements apart.
    batches: Batches,
    /// Whether something repeats without end, before anything ends that.
    repeats_forever: bool,
}

impl Way {
    fn of(nodes: &HashMap<String, DatasetNode>, counts: &HashMap<String, i64>, name: &str) -> Self {
        const TAKE_APART: &[&str] = &["Unbatch", "FlatMap", "Interleave", "Window", "GroupBy"];
        const END: &[&str] = &["Take", "Zip", "AssertCardinality", "Generator"];
        let has = |node: &DatasetNode, ops: &[&str]| ops.iter().any(|other| node.op.contains(other));
        let (mut way, mut name, mut is_apart, mut is_ended) = (Self::default(), name, false, false);
        for _ in 0..nodes.len() {
            let Some(node) = nodes.get(name) else { break };
            let count = counts.get(&node.count).copied();
            is_apart |= has(node, TAKE_APART);
            is_ended |= has(node, END);
            if !is_apart && way.batches == Batches::None && node.op.to_ascii_lowercase().contains("batch") {
                // Of `MapAndBatch` the second input is something else.
                let size = count
                    .filter(|_| node.op.starts_with("Batch") || node.op.starts_with("PaddedBatch") || node.op.starts_with("ParallelBatch"));
                way.batches = size.and_then(|size| u64::try_from(size).ok()).map_or(Batches::OfAnyLength, Batches::OfLength);
            }
            way.repeats_forever |= !is_ended && node.op.starts_with("Repeat") && count.is_some_and(|count| count < 0);
            name = &node.input;
        }
        way
    }
}

/// The integer of a constant, if it is one.
fn count(value: &[u8]) -> Option<i64> {
    let tensor = graph_def::attr_tensor(value)?;
    let proto = Message::parse(tensor, 0).ok().filter(|proto| proto.spec.dtype() == Dtype::Int64 && proto.spec.elements() == 1)?;
    let mut bytes = [0; 8];
    proto.fill(&mut bytes).ok()?;
    Some(i64::from_le_bytes(bytes))
}

impl GraphFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn inputs(&self) -> &[Argument] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// All of the file.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Io`].
    pub(crate) fn read(&self, options: &Options) -> Result<Vec<u8>> {
        read_file(&self.path, &self.stamp, options)
    }
}

/// Reads what has been looked through, and nothing else.
fn read_file(path: &Path, stamp: &Stamp, options: &Options) -> Result<Vec<u8>> {
    let file = open_file(path, &options.calls()).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    let bytes = read_range(&file, path, &(0..len), options.budget().as_bytes())?;
    stamp.check(&file, path)?;
    Ok(bytes)
}

impl DatasetGraph {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The output that is the data set.
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    /// The components of an element, by their numbers.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(crate) fn components(&self) -> Result<Vec<Argument>> {
        let in_file = |error: ParseError| error.in_file(&self.path);
        let types = graph_def::attr_types(&self.types).map_err(in_file)?;
        let shapes = graph_def::attr_shapes(&self.shapes).map_err(in_file)?;
        if types.len() != shapes.len() || types.is_empty() {
            let detail = format!("{} dtypes and {} shapes of components", types.len(), shapes.len());
            return Err(Error::malformed(&self.path, "data set", detail));
        }
        let component = |(index, (code, shape)): (usize, (u64, _))| Argument::of_graph(index.to_string(), Dtype::from_code(code), shape);
        Ok(types.into_iter().zip(shapes).enumerate().map(component).collect())
    }

    /// Dtypes and shapes of the components of an element: an `AttrValue` each.
    pub(crate) fn element(&self) -> (&[u8], &[u8]) {
        (&self.types, &self.shapes)
    }

    /// Whether elements are batches of others, the last of which may be shorter, and how long the others are if that is known.
    pub(crate) fn batches(&self) -> Batches {
        self.way.batches
    }

    /// Whether its elements come again and again.
    pub(crate) fn repeats_forever(&self) -> bool {
        self.way.repeats_forever
    }

    /// The graph without the nodes that return something, which only functions have.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Io`].
    pub(crate) fn read(&self, options: &Options) -> Result<Vec<u8>> {
        let bytes = read_file(&self.path, &self.stamp, options)?;
        let mut kept = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for range in &self.returns {
            kept.extend_from_slice(bytes.get(at..memory_len(range.start)).unwrap_or_default());
            at = memory_len(range.end);
        }
        kept.extend_from_slice(bytes.get(at..).unwrap_or_default());
        Ok(kept)
    }
}

/// What can be told of a graph or a model without TensorFlow, where it has no tensors of its own.
#[derive(Debug)]
pub(crate) struct Listing {
    format: &'static str,
    path: PathBuf,
    signatures: Vec<Signature>,
    /// Why it has no tensors.
    why: String,
}

impl Listing {
    fn of_graph(file: GraphFile, why: &Error) -> Self {
        let outputs = file.outputs.iter().map(|name| Argument::of_graph(format!("{name}:0"), None, None)).collect();
        let signatures = vec![Signature::of_graph(file.inputs, outputs)];
        Self { format: GraphDef.name(), path: file.path, signatures, why: why.to_string() }
    }

    /// A graph that is not to be computed, and holds nothing.
    fn without_constants(path: &Path, signature: Signature) -> Self {
        let why = "it has no constants; --output computes what it can".to_owned();
        Self { format: GraphDef.name(), path: path.to_owned(), signatures: vec![signature], why }
    }

    fn of_dataset(file: &DatasetGraph, why: &Error) -> Result<Self> {
        let signatures = vec![Signature::of_graph(Vec::new(), file.components()?)];
        Ok(Self { format: GraphDef.name(), path: file.path.clone(), signatures, why: why.to_string() })
    }
}

impl Container for Listing {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        Ok(0)
    }

    fn info(&self, _: usize) -> Result<TensorInfo> {
        Err(self.nothing())
    }

    fn find(&self, _: &[u8]) -> Result<Option<usize>> {
        Err(self.nothing())
    }

    fn reader(&self, _: usize) -> Result<Box<dyn TensorReader + '_>> {
        Err(self.nothing())
    }

    fn strings(&self, _: usize) -> Result<StoredStrings<'_>> {
        Err(self.nothing())
    }

    fn heap_bytes(&self) -> u64 {
        0
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }

    fn tensor_facts(&self, _: usize) -> Result<Map<String, Value>> {
        Err(self.nothing())
    }

    fn nothing(&self) -> Error {
        Error::Unsupported { what: format!("converting {}", self.path.display()), detail: self.why.clone() }
    }

    fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

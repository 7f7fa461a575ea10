//! Reads graph files.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::constants::{NodeSurvey, RETURN, WHAT};
use crate::error::{Error, ParseError, Result};
use crate::format::graph_def::{self, Node};
use crate::format::meta_graph::Argument;
use crate::format::tensor_proto::TensorProto as Message;
use crate::options::Options;
use crate::reader::proto_index::{FieldValue, FieldWalker};
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

/// Scans the graph in a file.
pub(crate) fn survey(place: &Probe) -> Result<NodeSurvey> {
    NodeSurvey::of_file(&*place.open()?)
}

/// Checks the nodes and functions of a graph one by one and yields its nodes. Adds to `claimed` the sizes that constants declare,
/// whose sum may be at most `most`: a few bytes can declare any number of repeated elements.
///
/// # Errors
/// [`Error::Malformed`] for anything that must not reach TensorFlow, [`Error::Limit`], [`Error::Io`].
pub(crate) fn check_graph(
    outline: &mut FieldWalker<'_>,
    most: u64,
    claimed: &mut u64,
    mut each: impl FnMut(&Node<'_>, Range<u64>),
) -> Result<()> {
    while let Some(field) = outline.next_field()? {
        let FieldValue::Bytes(range) = &field.value else { continue };
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

/// A graph that has been scanned.
pub(crate) enum Graph {
    Frozen(GraphFile),
    Dataset(DatasetGraph),
}

/// A frozen graph.
#[derive(Debug)]
pub(crate) struct GraphFile {
    file: Arc<dyn Blob>,
    pub(crate) inputs: Vec<Argument>,
    /// The nodes whose outputs no other node takes.
    pub(crate) outputs: Vec<String>,
}

/// The graph of a data set, as `tf.raw_ops.DatasetToGraphV2` writes it.
#[derive(Debug)]
pub(crate) struct DatasetGraph {
    file: Arc<dyn Blob>,
    /// The output that is the data set.
    output: String,
    /// The attributes of its node that describe elements, as `AttrValue`s.
    types: Vec<u8>,
    shapes: Vec<u8>,
    /// Nodes that return something, which only functions may have.
    returns: Vec<Range<u64>>,
    /// How elements reach the output.
    way: Way,
}

impl Graph {
    pub(crate) fn open(place: &Probe, options: &Options) -> Result<Self> {
        let (path, file) = (place.path(), place.open()?);
        let most = options.budget().as_bytes();
        let (mut inputs, mut names, mut taken, mut returns) = (Vec::new(), Vec::new(), HashSet::new(), Vec::new());
        let mut returned = None;
        // Nodes that may be data sets: operation, first input, and description of elements.
        let mut datasets: HashMap<String, DatasetNode> = HashMap::new();
        // Constants that may be batch lengths or repetition counts.
        let mut counts: HashMap<String, i64> = HashMap::new();
        check_graph(&mut FieldWalker::of_file(&*file, WHAT), most, &mut 0, |node, range| {
            // Only names that are new to the set cost memory.
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
            return Ok(Self::Frozen(GraphFile { file, inputs, outputs: names }));
        };
        let name = output.split(':').next().unwrap_or_default();
        let way = Way::of(&datasets, &counts, name);
        let Some(DatasetNode { types, shapes, .. }) = datasets.remove(name) else {
            let detail = format!("its node {name:?} does not describe elements (output_types, output_shapes)");
            return Err(Error::malformed(path, "data set", detail));
        };
        Ok(Self::Dataset(DatasetGraph { file, output, types, shapes, returns, way }))
    }
}

/// A node that may be a data set.
pub(crate) struct DatasetNode {
    op: String,
    input: String,
    /// The second input, which holds a number for many operations.
    count: String,
    types: Vec<u8>,
    shapes: Vec<u8>,
}

/// Whether elements are batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Batches {
    #[default]
    None,
    OfLength(u64),
    /// Batches of unknown length.
    OfAnyLength,
}

/// How elements reach the output of a data set, found by following each node's first input.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way {
    /// Whether they are batches, and of which length if known. Only a batch operation after the last one that takes elements
    /// apart counts.
    batches: Batches,
    /// Whether an operation repeats endlessly and no later one ends that.
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
                // The second input of `MapAndBatch` has another meaning.
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

/// The integer that a constant holds, if any.
pub(crate) fn count(value: &[u8]) -> Option<i64> {
    let tensor = graph_def::attr_tensor(value)?;
    let proto = Message::parse(tensor, 0).ok().filter(|proto| proto.spec.dtype() == Dtype::Int64 && proto.spec.elements() == 1)?;
    let mut bytes = [0; 8];
    proto.fill(&mut bytes).ok()?;
    Some(i64::from_le_bytes(bytes))
}

impl GraphFile {
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn inputs(&self) -> &[Argument] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Io`].
    pub(crate) fn read(&self, options: &Options) -> Result<Vec<u8>> {
        read_file(&*self.file, options)
    }
}

/// Reads the file that was scanned, and fails if it has changed.
pub(crate) fn read_file(file: &dyn Blob, options: &Options) -> Result<Vec<u8>> {
    let bytes = file.read_range(&(0..file.len()), options.budget().as_bytes())?;
    file.check_unchanged()?;
    Ok(bytes)
}

impl DatasetGraph {
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The output that is the data set.
    pub(crate) fn output(&self) -> &str {
        &self.output
    }

    /// The components of an element, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub(crate) fn components(&self) -> Result<Vec<Argument>> {
        let in_file = |error: ParseError| error.in_file(self.file.path());
        let types = graph_def::attr_types(&self.types).map_err(in_file)?;
        let shapes = graph_def::attr_shapes(&self.shapes).map_err(in_file)?;
        if types.len() != shapes.len() || types.is_empty() {
            let detail = format!("{} dtypes and {} shapes of components", types.len(), shapes.len());
            return Err(Error::malformed(self.file.path(), "data set", detail));
        }
        let component = |(index, (code, shape)): (usize, (u64, _))| Argument::of_graph(index.to_string(), Dtype::from_code(code), shape);
        Ok(types.into_iter().zip(shapes).enumerate().map(component).collect())
    }

    /// Dtypes and shapes of an element's components, as one `AttrValue` each.
    pub(crate) fn element(&self) -> (&[u8], &[u8]) {
        (&self.types, &self.shapes)
    }

    /// Whether elements are batches, the last of which may be shorter, and their length if known.
    pub(crate) fn batches(&self) -> Batches {
        self.way.batches
    }

    /// Whether elements repeat endlessly.
    pub(crate) fn repeats_forever(&self) -> bool {
        self.way.repeats_forever
    }

    /// The graph without the nodes that return something, which only functions have.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::Io`].
    pub(crate) fn read(&self, options: &Options) -> Result<Vec<u8>> {
        let bytes = read_file(&*self.file, options)?;
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

/// Longest `AttrValue` of a tensor with one number.
pub(crate) const MOST_COUNT: usize = 64;

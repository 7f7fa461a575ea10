//! Constants: nodes that hold a tensor, in a graph and in its functions.
//!
//! The nodes are scanned in the file. Of each constant only name, dtype, shape and place are kept.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::format::graph_def::{PLACEHOLDERS, attr_function, attr_shape, attr_type};
use crate::format::meta_graph::{Argument, Signature};
use crate::options::budget::Limits;
use crate::reader::proto_index::{FieldValue, FieldWalker};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::reader::values::{Proto, Rule};
use crate::source::container::{Container, TensorInfo};
use crate::source::tensor_proto::{proto_facts, unsupported};
use crate::storage::blob::Blob;
use crate::storage::glob::{Glob, is_pattern};
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// The word for a graph in messages.
pub(crate) const WHAT: &str = "graph";
/// The group of constants among a source's tensors.
const GROUP: &str = "constants";
/// The operation at the end of a graph by `DatasetToGraphV2`.
pub(crate) const RETURN: &str = "_Retval";
/// Longest name; names are paths.
const MOST_NAME: u64 = 64 << 10;
/// Longest dtype or shape.
const MOST_ATTR: u64 = 64 << 10;

/// One constant.
#[derive(Debug)]
struct Constant {
    name: Name,
    spec: TensorSpec,
    /// Where its `TensorProto` is; `None` if its value is outside the graph.
    tensor: Option<Range<u64>>,
    /// Whether it only serves to save and restore.
    bookkeeping: bool,
}

/// The result of one walk over the nodes of a graph.
#[derive(Debug, Default)]
pub(crate) struct NodeSurvey {
    constants: Vec<Constant>,
    /// Heap bytes of the result.
    held: u64,
    nodes: u64,
    functions: u64,
    inputs: Vec<Argument>,
    /// Nodes of the graph that are not inputs, and those whose outputs other nodes take.
    names: Vec<String>,
    taken: HashSet<String>,
    /// Nodes whose outputs go to nodes that save and restore.
    saved: HashSet<String>,
    is_dataset: bool,
    /// Number of the graph's nodes that are variables.
    variables: u64,
}

/// Operations that make variables, in TensorFlow 2 and 1.
const VARIABLES: [&[u8]; 3] = [b"VarHandleOp", b"VariableV2", b"Variable"];

/// Attributes to read.
const ATTRS: [&[u8]; 5] = [b"value", b"dtype", b"shape", b"T", b"f"];
/// Name prefixes of functions that TensorFlow adds to a SavedModel to save and restore it: `MultiDeviceSaver` in
/// `tensorflow/python/checkpoint/functional_saver.py`, traced.
const SAVERS: [&[u8]; 2] = [b"__inference__traced_save_", b"__inference__traced_restore_"];

fn is_saver(function: &[u8]) -> bool {
    SAVERS.iter().any(|saver| function.starts_with(saver))
}

impl NodeSurvey {
    /// Scans a file that is a `GraphDef`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where nodes or constants are broken, [`Error::Limit`] for too many of them, [`Error::Io`].
    pub(crate) fn of_file(file: &dyn Blob) -> Result<Self> {
        let mut survey = Self::default();
        survey.graph(&mut FieldWalker::of_file(file, WHAT))?;
        Ok(survey)
    }

    /// Also scans the `GraphDef` that starts at `outline`.
    ///
    /// # Errors
    /// Those of [`of_file`](Self::of_file).
    pub(crate) fn graph(&mut self, outline: &mut FieldWalker<'_>) -> Result<()> {
        while let Some(field) = outline.next_field()? {
            match (field.number, &field.value) {
                (1, FieldValue::Bytes(node)) => outline.within(node, |node| self.node(node, None))?,
                (2, FieldValue::Bytes(library)) => outline.within(library, |library| self.library(library))?,
                _ => {}
            }
        }
        for constant in &mut self.constants {
            let is_saved =
                std::str::from_utf8(constant.name.as_bytes()).is_ok_and(|name| self.saved.contains(name) && !self.taken.contains(name));
            constant.bookkeeping |= is_saved;
        }
        Ok(())
    }

    fn library(&mut self, outline: &mut FieldWalker<'_>) -> Result<()> {
        while let Some(field) = outline.next_field()? {
            if let (1, FieldValue::Bytes(function)) = (field.number, &field.value) {
                self.functions += 1;
                outline.within(function, |function| {
                    let whole = function.rest();
                    let name = function.within(&whole, function_name)?;
                    while let Some(part) = function.next_field()? {
                        if let (3, FieldValue::Bytes(node)) = (part.number, &part.value) {
                            function.within(node, |node| self.node(node, Some(&name)))?;
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Scans a `NodeDef` of the graph or of a function.
    fn node(&mut self, outline: &mut FieldWalker<'_>, function: Option<&[u8]>) -> Result<()> {
        let start = outline.rest().start;
        self.nodes += u64::from(function.is_none());
        let (mut name, mut op, mut attrs) = (Vec::new(), Vec::new(), [const { None }; ATTRS.len()]);
        let mut inputs = Vec::new();
        while let Some(field) = outline.next_field()? {
            match (field.number, &field.value) {
                (1, FieldValue::Bytes(at)) => name = outline.read(at, MOST_NAME)?,
                (2, FieldValue::Bytes(at)) => op = outline.read(at, MOST_NAME)?,
                (3, FieldValue::Bytes(at)) if function.is_none() => inputs.push(outline.read(at, MOST_NAME)?),
                (5, FieldValue::Bytes(at)) => {
                    if let Some((attr, value)) = outline.within(at, attribute)? {
                        attrs[attr] = Some(value);
                    }
                }
                (1 | 2 | 3 | 5, FieldValue::Varint(_) | FieldValue::Fixed(_)) => {
                    return Err(outline.malformed(field.offset, format!("field {} of a node has another wire type", field.number)));
                }
                _ => {}
            }
        }
        let [value, dtype, shape, of, called] = attrs;
        let called = if op.ends_with(b"PartitionedCall") { attr_bytes(outline, called.as_ref())? } else { None };
        let saves = called.as_ref().and_then(|attr| attr_function(attr)).is_some_and(is_saver);
        for input in &inputs {
            self.take(input, saves);
        }
        match &op[..] {
            b"Const" | b"HostConst" => {
                let dtype = attr_bytes(outline, dtype.as_ref())?.and_then(|attr| attr_type(&attr));
                let (spec, tensor) = constant(outline, value.as_ref(), dtype).map_err(|error| error_in(error, &name))?;
                self.add(&name, function, spec, Some(tensor));
            }
            b"ImmutableConst" => {
                let dtype = attr_bytes(outline, dtype.as_ref())?.and_then(|attr| attr_type(&attr)).and_then(Dtype::from_code);
                let axes = attr_bytes(outline, shape.as_ref())?.and_then(|attr| attr_shape(&attr)).unwrap_or_default();
                let shape = axes.into_iter().map(|axis| axis.unwrap_or(0)).collect();
                let spec = TensorSpec::new(dtype.unwrap_or(Dtype::Variant), shape)
                    .map_err(|request| outline.malformed(start, request.to_string()))?;
                self.add(&name, function, spec, None);
            }
            _ => {}
        }
        if function.is_none() {
            self.variables += u64::from(VARIABLES.contains(&&op[..]));
            let (name, op) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&op));
            if op == RETURN {
                self.is_dataset |= attr_bytes(outline, of.as_ref())?.and_then(|attr| attr_type(&attr)) == Some(Dtype::Variant.code());
            } else if PLACEHOLDERS.contains(&&*op) {
                let dtype = attr_bytes(outline, dtype.as_ref())?.and_then(|attr| attr_type(&attr)).and_then(Dtype::from_code);
                let shape = attr_bytes(outline, shape.as_ref())?.and_then(|attr| attr_shape(&attr));
                self.inputs.push(Argument::of_graph(format!("{name}:0"), dtype, shape));
            } else {
                self.held += (name.len() + size_of::<String>()) as u64;
                self.names.push(name.into_owned());
            }
        }
        let most = Limits::default().index_bytes;
        if self.held > most {
            let what = format!("memory for the nodes of {}", outline.path().display());
            return Err(Error::Limit { what, asked: self.held, allowed: Some(most) });
        }
        Ok(())
    }

    /// Records that a node takes `input`; `saves` tells whether that node saves or restores.
    fn take(&mut self, input: &[u8], saves: bool) {
        let input = String::from_utf8_lossy(input);
        let node = input.split(':').next().unwrap_or_default();
        // Only names that are new to the set cost memory.
        let taken = if saves { &mut self.saved } else { &mut self.taken };
        if !node.starts_with('^') && !taken.contains(node) {
            self.held += (node.len() + 2 * size_of::<String>()) as u64;
            taken.insert(node.to_owned());
        }
    }

    fn add(&mut self, name: &[u8], function: Option<&[u8]>, spec: TensorSpec, tensor: Option<Range<u64>>) {
        let bookkeeping = function.is_some_and(is_saver);
        let name = match function {
            Some(function) => [function, b"/", name].concat(),
            None => name.to_vec(),
        };
        self.held += (name.len() + size_of_val(spec.shape()) + size_of::<Constant>()) as u64;
        self.constants.push(Constant { name: Name::new(name), spec, tensor, bookkeeping });
    }

    /// Number of variables in the graph.
    pub(crate) fn variables(&self) -> u64 {
        self.variables
    }

    /// Whether the graph makes a data set.
    pub(crate) fn is_dataset(&self) -> bool {
        self.is_dataset
    }

    /// The graph's signature: its placeholders, and the nodes whose outputs no other node takes.
    pub(crate) fn signature(&mut self) -> Signature {
        let mut taken = std::mem::take(&mut self.taken);
        taken.extend(std::mem::take(&mut self.saved));
        let names = std::mem::take(&mut self.names).into_iter().filter(|name| !taken.contains(name));
        let outputs = names.map(|name| Argument::of_graph(format!("{name}:0"), None, None)).collect();
        Signature::of_graph(std::mem::take(&mut self.inputs), outputs)
    }

    /// Whether every one of `names` is the name of a constant, or a pattern that matches some.
    pub(crate) fn has_all(&self, names: &[&[u8]]) -> bool {
        // An invalid pattern matches nothing.
        let glob = |name: &&[u8]| if is_pattern(name) { Glob::new(name).ok() } else { None };
        let mut missing: Vec<(&[u8], Option<Glob>)> = names.iter().map(|name| (*name, glob(name))).collect();
        for constant in &self.constants {
            if missing.is_empty() {
                break;
            }
            let own = constant.name.as_bytes();
            let shown = constant.name.to_string();
            let is_meant = |name: &[u8], glob: &Option<Glob>| {
                name == own || name == shown.as_bytes() || glob.as_ref().is_some_and(|glob| glob.matches(own))
            };
            missing.retain(|(name, glob)| !is_meant(name, glob));
        }
        missing.is_empty()
    }

    /// Adds constants of another graph of the same file, with `prefix` before their names, unless this graph has the `same`
    /// constant.
    ///
    /// # Errors
    /// Those of `same`.
    pub(crate) fn add_others(
        &mut self,
        others: Self,
        prefix: &[u8],
        same: impl Fn(&Range<u64>, &Range<u64>) -> Result<bool>,
    ) -> Result<()> {
        let known: HashMap<Name, Option<Range<u64>>> =
            self.constants.iter().map(|constant| (constant.name.clone(), constant.tensor.clone())).collect();
        for other in others.constants {
            let is_known = match (known.get(&other.name), &other.tensor) {
                (None, _) => false,
                (Some(Some(one)), Some(other)) => same(one, other)?,
                (Some(one), other) => one == other,
            };
            if !is_known {
                let name = [prefix, b"/", other.name.as_bytes()].concat();
                self.constants.push(Constant { name: Name::new(name), ..other });
            }
        }
        self.held = self.held.saturating_add(others.held);
        Ok(())
    }

    /// Leaves out constants with these names.
    pub(crate) fn leave_out(&mut self, is_known: impl Fn(&[u8]) -> bool) {
        self.constants.retain(|constant| !is_known(constant.name.as_bytes()));
    }

    pub(crate) fn has_constants(&self) -> bool {
        !self.constants.is_empty()
    }
}

/// Adds the name of the constant to an error about it.
fn error_in(error: Error, name: &[u8]) -> Error {
    match error {
        Error::Malformed { path, what, offset, detail } => {
            Error::Malformed { path, what: format!("{what} of the constant {:?}", Name::new(name).to_string()), offset, detail }
        }
        error => error,
    }
}

/// The name in the signature of a `FunctionDef`.
fn function_name(outline: &mut FieldWalker<'_>) -> Result<Vec<u8>> {
    while let Some(field) = outline.next_field()? {
        let (1, FieldValue::Bytes(signature)) = (field.number, &field.value) else { continue };
        return outline.within(signature, |signature| {
            while let Some(part) = signature.next_field()? {
                if let (1, FieldValue::Bytes(name)) = (part.number, &part.value) {
                    return signature.read(name, MOST_NAME);
                }
            }
            Ok(Vec::new())
        });
    }
    Ok(Vec::new())
}

/// The index in [`ATTRS`] of an entry of the attribute map, and the place of its value.
fn attribute(outline: &mut FieldWalker<'_>) -> Result<Option<(usize, Range<u64>)>> {
    let (mut key, mut value) = (None, None);
    while let Some(part) = outline.next_field()? {
        match (part.number, &part.value) {
            (1, FieldValue::Bytes(at)) => {
                let name = outline.read(at, MOST_NAME)?;
                key = ATTRS.iter().position(|attr| *attr == name);
            }
            (2, FieldValue::Bytes(_)) if value.is_some() => {
                return Err(outline.malformed(part.offset, "an entry of a map has two values"));
            }
            (2, FieldValue::Bytes(at)) => value = Some(at.clone()),
            _ => {}
        }
    }
    Ok(key.zip(value))
}

/// The bytes of an attribute's value.
fn attr_bytes(outline: &mut FieldWalker<'_>, at: Option<&Range<u64>>) -> Result<Option<Vec<u8>>> {
    at.map(|at| outline.read(at, MOST_ATTR)).transpose()
}

/// Spec and place of the tensor in an attribute; `dtype` is the one that the node declares.
fn constant(outline: &mut FieldWalker<'_>, value: Option<&Range<u64>>, dtype: Option<u64>) -> Result<(TensorSpec, Range<u64>)> {
    let missing = |outline: &FieldWalker<'_>| outline.malformed(outline.rest().start, "its attribute `value` has no tensor");
    let value = value.ok_or_else(|| missing(outline))?;
    let tensor = outline.within(value, |attr| {
        let mut tensor = None;
        while let Some(field) = attr.next_field()? {
            match (field.number, &field.value) {
                (8, FieldValue::Bytes(_)) if tensor.is_some() => return Err(attr.malformed(field.offset, "it has two tensors")),
                (8, FieldValue::Bytes(at)) => tensor = Some(at.clone()),
                _ => {}
            }
        }
        Ok(tensor)
    })?;
    let tensor = tensor.ok_or_else(|| missing(outline))?;
    let spec = outline.within(&tensor, |tensor| Proto::look(tensor, None))?.spec;
    match dtype {
        Some(dtype) if dtype != spec.dtype().code() => {
            Err(outline.malformed(tensor.start, format!("the tensor is {}, the node says dtype {dtype}", spec.dtype())))
        }
        _ => Ok((spec, tensor)),
    }
}

/// The constants of a file.
#[derive(Debug)]
pub(crate) struct Constants {
    format: &'static str,
    file: Arc<dyn Blob>,
    list: Vec<Constant>,
    /// Indices of constants, sorted by name.
    by_name: Vec<usize>,
    held: u64,
    nodes: u64,
    functions: u64,
    signatures: Vec<Signature>,
    warnings: Vec<String>,
}

impl Constants {
    /// The constants that `survey` found in `file`. Of several with the same name only the first is listed.
    pub(crate) fn new(format: &'static str, file: Arc<dyn Blob>, survey: NodeSurvey, signatures: Vec<Signature>) -> Self {
        let mut list = survey.constants;
        let mut by_name: Vec<usize> = (0..list.len()).collect();
        by_name.sort_by(|&a, &b| list[a].name.cmp(&list[b].name).then(a.cmp(&b)));
        let mut again: Vec<usize> =
            by_name.windows(2).filter(|pair| list[pair[0]].name == list[pair[1]].name).map(|pair| pair[1]).collect();
        let mut warnings = Vec::new();
        if let Some(&first) = again.first() {
            let (count, name) = (again.len(), &list[first].name);
            warnings
                .push(format!("{count} constants share a name with another one, such as {name}; only the first of each name is listed"));
            again.sort_unstable();
            let mut number = 0;
            list.retain(|_| {
                number += 1;
                again.binary_search(&(number - 1)).is_err()
            });
            by_name = (0..list.len()).collect();
            by_name.sort_by(|&a, &b| list[a].name.cmp(&list[b].name));
        }
        list.shrink_to_fit();
        let held = survey.held + (by_name.len() * size_of::<usize>()) as u64;
        Self { format, file, list, by_name, held, nodes: survey.nodes, functions: survey.functions, signatures, warnings }
    }

    fn proto(&self, index: usize) -> Result<Proto> {
        let constant = &self.list[index];
        if let Some(range) = &constant.tensor {
            return Proto::look_at(&*self.file, range, None).map_err(|error| error_in(error, constant.name.as_bytes()));
        }
        let what = format!("tensor {} of {}", constant.name, self.file.path().display());
        Err(Error::Unsupported { what, detail: ELSEWHERE.into() })
    }
}

/// Why some constants have no value.
const ELSEWHERE: &str = "it is an ImmutableConst, whose value is in a separate file";

impl Container for Constants {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        Ok(self.list.len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let Constant { name, spec, tensor, bookkeeping } = &self.list[index];
        let unsupported = if tensor.is_none() { Some(ELSEWHERE.to_owned()) } else { unsupported(spec) };
        Ok(TensorInfo { bookkeeping: *bookkeeping, group: Some(GROUP), unsupported, ..TensorInfo::new(name.clone(), spec.clone()) })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        let at = self.by_name.binary_search_by(|&index| self.list[index].name.as_bytes().cmp(name));
        Ok(at.ok().map(|at| self.by_name[at]))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let name = self.list[index].name.as_bytes();
        self.proto(index)?.reader(&self.file, Rule::Repeat).map_err(|error| error_in(error, name))
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let name = &self.list[index].name;
        self.proto(index)?.strings(&self.file, name, Rule::Repeat).map_err(|error| error_in(error, name.as_bytes()))
    }

    fn heap_bytes(&self) -> u64 {
        self.held
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_path_buf()]
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("nodes".into(), json!(self.nodes));
        facts.insert("functions".into(), json!(self.functions));
        facts.insert("constants".into(), json!(self.list.len()));
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        if self.list[index].tensor.is_none() {
            return Ok(Map::new());
        }
        Ok(proto_facts(&self.proto(index)?))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

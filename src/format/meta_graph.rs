//! Parser for the parts of a `MetaGraphDef` that describe its graph: signatures, tags, and how to initialise it.
//!
//! Source: `tensorflow/core/protobuf/meta_graph.proto`, `saver.proto`.

use super::bundle::parse_shape_with_unknown;
use super::graph_def::{entry, referred, text};
use super::proto::{Field, Fields};
use crate::error::ParseError;
use crate::types::dtype::Dtype;

const SIGNATURE: &str = "signature";

/// An input or output tensor of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Argument {
    /// Its name in the signature, or in the graph.
    pub name: String,
    /// The tensor in the graph: `StatefulPartitionedCall:0`. Empty unless it is a plain tensor.
    pub tensor: String,
    /// The dtype, if it is known without TensorFlow.
    pub dtype: Option<Dtype>,
    /// The shape, with `None` for unknown lengths; `None` if the number of axes is unknown.
    pub shape: Option<Vec<Option<u64>>>,
    /// The name in the signature of the ragged or sparse tensor that this is a part of.
    pub part_of: Option<String>,
}

/// A computation: a signature of a SavedModel, or a whole graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// The name; empty for a graph, since graphs have none.
    pub name: String,
    /// The inputs, by name.
    pub inputs: Vec<Argument>,
    /// The outputs, by name.
    pub outputs: Vec<Argument>,
}

impl Signature {
    /// The signature of a whole graph: its placeholders, and the outputs that no other node uses.
    pub(crate) fn of_graph(inputs: Vec<Argument>, outputs: Vec<Argument>) -> Self {
        Self { name: String::new(), inputs, outputs }
    }

    /// Parses an entry of the map of signatures of a `MetaGraphDef`.
    ///
    /// # Errors
    /// Returns what is wrong with the message.
    pub(crate) fn parse(bytes: &[u8], base: usize) -> Result<Self, ParseError> {
        let mut signature = Self::of_graph(Vec::new(), Vec::new());
        for field in Fields::new(bytes, base, SIGNATURE) {
            let field = field?;
            match field.number {
                1 => text(&field, SIGNATURE)?.clone_into(&mut signature.name),
                2 => {
                    for part in field.message(SIGNATURE)? {
                        let part = part?;
                        match part.number {
                            1 => signature.inputs.append(&mut Argument::parse(&part)?),
                            2 => signature.outputs.append(&mut Argument::parse(&part)?),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        signature.inputs.sort_by(|a, b| a.name.cmp(&b.name));
        signature.outputs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(signature)
    }
}

impl Argument {
    /// A tensor of a graph, which is named after itself.
    pub(crate) fn of_graph(tensor: String, dtype: Option<Dtype>, shape: Option<Vec<Option<u64>>>) -> Self {
        Self { name: tensor.clone(), tensor, dtype, shape, part_of: None }
    }

    /// A second name: the tensor for a signature, the node for a graph.
    pub(crate) fn alias(&self) -> Option<String> {
        match self.tensor.strip_suffix(":0") {
            Some(node) if self.tensor == self.name => Some(node.to_owned()),
            _ => Some(self.tensor.clone()).filter(|tensor| *tensor != self.name && !tensor.is_empty()),
        }
    }

    /// Finds an argument by name, else by tensor, else by node, which means the node's first tensor.
    pub(crate) fn find(arguments: &[Self], name: &str) -> Option<usize> {
        let named = arguments.iter().position(|argument| argument.name == name);
        let is_tensor = |argument: &Self| argument.tensor == name || argument.tensor.strip_suffix(":0") == Some(name);
        named.or_else(|| arguments.iter().position(is_tensor))
    }

    /// Parses a map entry of a name and a `TensorInfo`. A ragged or sparse tensor has several parts, each a tensor.
    fn parse(field: &Field<'_>) -> Result<Vec<Self>, ParseError> {
        let (name, value) = entry(field, SIGNATURE)?;
        let mut argument = Self { name: name.to_owned(), tensor: String::new(), dtype: None, shape: Some(Vec::new()), part_of: None };
        let Some((value, at)) = value else { return Ok(vec![argument]) };
        let mut parts = Vec::new();
        for part in Fields::new(value, at, SIGNATURE) {
            let part = part?;
            match part.number {
                1 => text(&part, SIGNATURE)?.clone_into(&mut argument.tensor),
                2 => argument.dtype = Dtype::from_code(referred(part.varint(SIGNATURE)?)),
                3 => argument.shape = parse_shape_with_unknown(part.message(SIGNATURE)?)?,
                4 => parts = sparse(&part)?,
                5 => parts = composite(&part)?,
                _ => {}
            }
        }
        if parts.is_empty() {
            return Ok(vec![argument]);
        }
        let rank = argument.shape.as_ref().map(|shape| shape.len() as u64);
        for (suffix, part) in &mut parts {
            part.name = format!("{name}/{suffix}");
            part.part_of = Some(name.to_owned());
            // Dtype and shapes of the parts follow from those of the sparse tensor.
            match &suffix[..] {
                "values" if part.dtype.is_none() => part.dtype = argument.dtype,
                "indices" => part.shape = Some(vec![None, rank]),
                "dense_shape" => part.shape = Some(vec![rank]),
                _ => {}
            }
        }
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }
}

/// The suffix for the name, and the part of a composite tensor.
type NamedArgument = (String, Argument);

/// Parses the tensors of a `TensorInfo.CooSparse`.
fn sparse(field: &Field<'_>) -> Result<Vec<NamedArgument>, ParseError> {
    let mut parts = Vec::new();
    for part in field.message(SIGNATURE)? {
        let part = part?;
        let (suffix, dtype) = match part.number {
            1 => ("values", None),
            2 => ("indices", Some(Dtype::Int64)),
            3 => ("dense_shape", Some(Dtype::Int64)),
            _ => continue,
        };
        parts.push((suffix.to_owned(), Argument::of_graph(text(&part, SIGNATURE)?.to_owned(), dtype, Some(vec![None]))));
    }
    Ok(parts)
}

/// Parses the tensors of a `TensorInfo.CompositeTensor`. A ragged one has its values first, then the row splits of each level
/// (`RaggedTensorSpec._to_components`).
fn composite(field: &Field<'_>) -> Result<Vec<NamedArgument>, ParseError> {
    const RAGGED: u64 = 3;
    let (mut class, mut parts) = (0, Vec::new());
    for part in field.message(SIGNATURE)? {
        let part = part?;
        match part.number {
            1 => {
                for spec in part.message(SIGNATURE)? {
                    let spec = spec?;
                    if spec.number == 1 {
                        class = spec.varint(SIGNATURE)?;
                    }
                }
            }
            2 => {
                let mut argument = Argument::of_graph(String::new(), None, Some(Vec::new()));
                for info in part.message(SIGNATURE)? {
                    let info = info?;
                    match info.number {
                        1 => text(&info, SIGNATURE)?.clone_into(&mut argument.tensor),
                        2 => argument.dtype = Dtype::from_code(referred(info.varint(SIGNATURE)?)),
                        3 => argument.shape = parse_shape_with_unknown(info.message(SIGNATURE)?)?,
                        _ => {}
                    }
                }
                parts.push(argument);
            }
            _ => {}
        }
    }
    let count = parts.len();
    let suffix = |at: usize| match (class, at) {
        (RAGGED, 0) => "flat_values".to_owned(),
        (RAGGED, _) if count == 2 => "row_splits".to_owned(),
        (RAGGED, at) => format!("row_splits_{}", at - 1),
        (_, at) => at.to_string(),
    };
    Ok(parts.into_iter().enumerate().map(|(at, part)| (suffix(at), part)).collect())
}

/// Parses the tags of a `MetaInfoDef`.
///
/// # Errors
/// Returns what is wrong with the message.
pub(crate) fn tags(bytes: &[u8], base: usize) -> Result<Vec<String>, ParseError> {
    const WHAT: &str = "description of a graph";
    let mut tags = Vec::new();
    for field in Fields::new(bytes, base, WHAT) {
        let field = field?;
        if field.number == 4 {
            tags.push(text(&field, WHAT)?.to_owned());
        }
    }
    Ok(tags)
}

/// The node and the tensor that restore variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saver {
    /// The tensor that takes the path prefix of the variables' files.
    pub(crate) filename: String,
    /// The node that restores.
    pub(crate) restore: String,
}

/// Parses a `SaverDef` (`tensorflow/core/protobuf/saver.proto`); `None` if it restores nothing.
///
/// # Errors
/// Returns what is wrong with the message.
pub(crate) fn saver(bytes: &[u8], base: usize) -> Result<Option<Saver>, ParseError> {
    const WHAT: &str = "saver";
    let mut saver = Saver { filename: String::new(), restore: String::new() };
    for field in Fields::new(bytes, base, WHAT) {
        let field = field?;
        match field.number {
            1 => text(&field, WHAT)?.clone_into(&mut saver.filename),
            3 => text(&field, WHAT)?.clone_into(&mut saver.restore),
            _ => {}
        }
    }
    Ok(Some(saver).filter(|saver| !saver.filename.is_empty() && !saver.restore.is_empty()))
}

/// Parses a map entry of the collections of a `MetaGraphDef`: its name, and its nodes if it lists nodes.
///
/// # Errors
/// Returns what is wrong with the message.
pub(crate) fn collection(bytes: &[u8], base: usize) -> Result<(String, Vec<String>), ParseError> {
    const WHAT: &str = "collection";
    let (mut name, mut nodes) = (String::new(), Vec::new());
    for field in Fields::new(bytes, base, WHAT) {
        let field = field?;
        match field.number {
            1 => text(&field, WHAT)?.clone_into(&mut name),
            2 => {
                for list in field.message(WHAT)?.filter(|list| list.as_ref().map_or(true, |list| list.number == 1)) {
                    for value in list?.message(WHAT)? {
                        let value = value?;
                        if value.number == 1 {
                            nodes.push(text(&value, WHAT)?.to_owned());
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok((name, nodes))
}

/// Parses an `AssetFileDef`: the tensor that takes the path, and the file name.
///
/// # Errors
/// Returns what is wrong with the message.
pub(crate) fn asset(bytes: &[u8], base: usize) -> Result<(String, String), ParseError> {
    const WHAT: &str = "asset";
    let (mut tensor, mut name) = (String::new(), String::new());
    for field in Fields::new(bytes, base, WHAT) {
        let field = field?;
        match field.number {
            1 => {
                for part in field.message(WHAT)? {
                    let part = part?;
                    if part.number == 1 {
                        text(&part, WHAT)?.clone_into(&mut tensor);
                    }
                }
            }
            2 => text(&field, WHAT)?.clone_into(&mut name),
            _ => {}
        }
    }
    // The name must stay inside the folder of assets.
    let is_inside = std::path::Path::new(&name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !is_inside || name.contains('\0') {
        return Err(ParseError::new(base, WHAT, format!("{name:?} is not a file in the folder of assets")));
    }
    Ok((tensor, name))
}

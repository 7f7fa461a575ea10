//! Graphs: a file with a `GraphDef`, frozen or of a tf.data data set. Its constants are its tensors. Computing its outputs needs
//! a running TensorFlow. Start at [`GraphDef`].

pub(crate) mod constants;
pub(crate) mod file;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::runtime::runtime;
use crate::error::{Error, Result};
use crate::format::meta_graph::{Argument, Signature};
use crate::format::varint;
use crate::options::Options;
use crate::reader::proto_index::{FieldValue, FieldWalker};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::size::memory_len;

use constants::{Constants, WHAT};
use file::{DatasetGraph, Graph, GraphFile, survey};

/// Bytes read to recognise a graph.
const FRONT: u64 = 4096;

/// A `GraphDef` in a file.
pub(crate) struct GraphDef;

impl Driver for GraphDef {
    fn name(&self) -> &'static str {
        "graph-def"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        Ok((probe.is_file()? && looks_like_one(&*probe.open()?)?).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn needs_tensorflow(&self, place: &Probe, options: &Options) -> bool {
        // Errors are reported when the file is opened.
        options.model.wants_model() || survey(place).is_ok_and(|survey| survey.is_dataset())
    }

    fn are_outputs(&self, place: &Probe, names: &[&[u8]]) -> bool {
        !names.is_empty() && survey(place).is_ok_and(|survey| !survey.has_all(names))
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        if !options.model.wants_model() {
            let mut survey = survey(place)?;
            if !survey.is_dataset() {
                let signature = survey.signature();
                if survey.has_constants() {
                    return Ok(Box::new(Constants::new(self.name(), place.open()?, survey, vec![signature])));
                }
                return Ok(Box::new(Listing::without_constants(path, signature)));
            }
        }
        options.model.used.note();
        match Graph::open(place, options)? {
            Graph::Frozen(file) => open_frozen(file, options),
            Graph::Dataset(file) => match runtime() {
                Ok(runtime) => runtime.open_dataset(&file, options),
                Err(why) => Ok(Box::new(Listing::of_dataset(&file, &why)?)),
            },
        }
    }
}

/// Without a TensorFlow library, only lists what is in the file.
fn open_frozen(file: GraphFile, options: &Options) -> Result<Box<dyn Container>> {
    match runtime() {
        Ok(runtime) => runtime.open_graph(file, options),
        Err(why) => Ok(Box::new(Listing::of_graph(&file, &why))),
    }
}

/// Whether a file has a node with a name and an operation near its start.
fn looks_like_one(file: &dyn Blob) -> Result<bool> {
    let mut outline = FieldWalker::of_file(file, WHAT);
    // Versions and functions may come first.
    for _ in 0..4 {
        let Ok(Some(field)) = outline.next_field() else { return Ok(false) };
        let FieldValue::Bytes(range) = field.value else {
            if field.number == 3 {
                continue;
            }
            return Ok(false);
        };
        match field.number {
            1 => {
                let mut front = vec![0; memory_len((range.end - range.start).min(FRONT))];
                file.read(range.start, &mut front, file.calls())?;
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

/// Lists a graph or a model without TensorFlow, if it has no tensors of its own.
#[derive(Debug)]
pub(crate) struct Listing {
    format: &'static str,
    path: PathBuf,
    signatures: Vec<Signature>,
    /// Why it has no tensors.
    why: String,
}

impl Listing {
    fn of_graph(file: &GraphFile, why: &Error) -> Self {
        let outputs = file.outputs.iter().map(|name| Argument::of_graph(format!("{name}:0"), None, None)).collect();
        let signatures = vec![Signature::of_graph(file.inputs().to_vec(), outputs)];
        Self { format: GraphDef.name(), path: file.path().to_owned(), signatures, why: why.to_string() }
    }

    /// A graph without constants, whose outputs were not requested.
    fn without_constants(path: &Path, signature: Signature) -> Self {
        let why = "it has no constants; name an `output` to compute it".to_owned();
        Self { format: GraphDef.name(), path: path.to_owned(), signatures: vec![signature], why }
    }

    fn of_dataset(file: &DatasetGraph, why: &Error) -> Result<Self> {
        let signatures = vec![Signature::of_graph(Vec::new(), file.components()?)];
        Ok(Self { format: GraphDef.name(), path: file.path().to_owned(), signatures, why: why.to_string() })
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

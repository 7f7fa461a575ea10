//! Tensors that a model computes from all of its input at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ::tensorflow::Session;
use serde_json::{Map, Value as Json, json};

use super::elements::no_plain_tensor;
use super::feed::FileFeed;
use super::model::Model;
use super::session::{NodeOutput, attempt, can_be_fetched};
use super::session_tensor::{Value, compute};
use crate::error::{Error, Result};
use crate::format::meta_graph::{Argument, Signature};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::source::container::{Container, TensorInfo};
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// Values, each with the index of its output.
type ComputedValues = Vec<(usize, Value<Arc<Session>>)>;

/// The outputs that a model computes from all of its input at once.
pub(crate) struct Computed {
    /// The computed values, or the error.
    values: OnceLock<Result<ComputedValues>>,
    feeds: Vec<FileFeed>,
    model: Model,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Computed {
    pub(crate) fn new(model: Model, feeds: Vec<FileFeed>) -> Self {
        Self { values: OnceLock::new(), feeds, model }
    }

    fn lost(&self) -> Vec<String> {
        self.feeds.iter().flat_map(FileFeed::lost).cloned().collect()
    }

    fn outputs(&self) -> &[Argument] {
        &self.model.signature.outputs
    }

    /// The value of an output. All outputs are computed together, once, even if that fails.
    fn value(&self, index: usize) -> Result<&Value<Arc<Session>>> {
        let values = self.values.get_or_init(|| self.compute()).as_ref().map_err(again)?;
        let value = values.iter().find(|(own, _)| *own == index);
        let missing = || Error::Unsupported { what: self.outputs()[index].name.clone(), detail: "it cannot be computed".into() };
        value.map(|(_, value)| value).ok_or_else(missing)
    }

    /// The value of an output, if it has been computed.
    fn computed(&self, index: usize) -> Option<&Value<Arc<Session>>> {
        self.values.get()?.as_ref().ok()?.iter().find(|(own, _)| *own == index).map(|(_, value)| value)
    }

    fn compute(&self) -> Result<ComputedValues> {
        let nbytes = self.feeds.iter().fold(0u64, |sum, feed| sum.saturating_add(feed.held_bytes(feed.rows().unwrap_or(1))));
        self.model.check_input(nbytes, " at once; `batch` ROWS feeds it in parts")?;
        let mut graph = self.model.graph();
        let (mut indices, mut targets) = (Vec::new(), Vec::new());
        for (index, output) in self.outputs().iter().enumerate() {
            if output.dtype.is_some_and(can_be_fetched)
                && let Some(target) = NodeOutput::find(&graph, &output.tensor)?
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
        let alias = output.alias();
        let spec = match self.computed(index) {
            Some(Value::Held(held)) => Some(held.spec().clone()),
            Some(Value::Spilled(spill)) => Some(spill.container().info(0)?.spec),
            None => None,
        };
        if let Some(spec) = spec {
            let part_of = output.part_of.clone();
            return Ok(TensorInfo { alias, part_of, lost: self.lost(), ..TensorInfo::new(Name::new(output.name.as_bytes()), spec) });
        }
        let dtype = output.dtype.unwrap_or(Dtype::Variant);
        let unsupported = (!can_be_fetched(dtype)).then(|| no_plain_tensor(dtype));
        let axes = output.shape.clone().unwrap_or_default();
        let spec = TensorSpec::new(dtype, axes.iter().map(|axis| axis.unwrap_or(0)).collect())
            .map_err(|request| Error::malformed(&self.model.path, format!("shape of {}", output.name), request.to_string()))?;
        let unknown_axes = (0..axes.len()).filter(|&axis| axes[axis].is_none()).collect();
        let has_rank = output.shape.is_some();
        let info = TensorInfo::new(Name::new(output.name.as_bytes()), spec);
        let part_of = output.part_of.clone();
        Ok(TensorInfo { alias, unsupported, unknown_axes, has_rank, part_of, lost: self.lost(), ..info })
    }

    fn is_made(&self, _index: usize) -> bool {
        true
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        Ok(Argument::find(self.outputs(), name))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        match self.value(index)? {
            Value::Held(held) => Ok(Box::new(held.as_ref())),
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
        let feeds = self.feeds.iter().flat_map(FileFeed::paths);
        self.model.files.iter().cloned().chain(feeds).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.feeds.iter().filter_map(FileFeed::note).collect()
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

/// Repeats the error for another output of the same run.
fn again(error: &Error) -> Error {
    match error {
        Error::Unsupported { what, detail } => Error::Unsupported { what: what.clone(), detail: detail.clone() },
        Error::Limit { what, asked, allowed } => Error::Limit { what: what.clone(), asked: *asked, allowed: *allowed },
        Error::BadRequest(request) => Error::BadRequest(request.clone()),
        Error::Malformed { path, what, offset, detail } => {
            Error::Malformed { path: path.clone(), what: what.clone(), offset: *offset, detail: detail.clone() }
        }
        Error::TensorFlow { action, detail } => Error::TensorFlow { action: action.clone(), detail: detail.clone() },
        other => Error::TensorFlow { action: "computing the outputs".into(), detail: other.to_string() },
    }
}

/// The loaded TensorFlow and its version.
fn version() -> String {
    let version = attempt(String::new, || Ok(::tensorflow::version()?));
    version.map_or_else(|_| "TensorFlow".to_owned(), |version| format!("TensorFlow {version}"))
}

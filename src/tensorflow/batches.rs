//! Inference in batches: feeds rows of the input, and concatenates the outputs along axis 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::tensorflow::{Graph, Session, SessionRunArgs};
use serde_json::{Map, json};

use super::elements::{Cardinality, ComponentSource, Fetches, Step, container};
use super::feed::FileFeed;
use super::loading::Loaded;
use super::model::Model;
use super::session::{Builder, NodeOutput};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Argument;
use crate::records::container::RecordContainer;
use crate::types::dtype::Dtype;

impl Model {
    /// Outputs that are concatenated from those of batches of the input.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for inputs that differ in their rows, [`Error::Limit`] for batches that are too large.
    pub(crate) fn batches(self, feeds: Vec<FileFeed>, batch: u64) -> Result<RecordContainer> {
        let rows = rows_of(&feeds)?;
        if self.signature.outputs.is_empty() {
            return Err(Error::Unsupported { what: format!("computing {}", self.path.display()), detail: "it has no outputs".into() });
        }
        if batch == 0 {
            return Err(BadRequest::EmptyBatch.into());
        }
        let nbytes = feeds.iter().fold(0u64, |sum, feed| sum.saturating_add(feed.held_bytes(batch.min(rows))));
        self.check_input(nbytes, &format!(", {batch} rows at a time"))?;
        let mut parts = Vec::new();
        for output in &self.signature.outputs {
            let mut graph = self.graph();
            let mut output = output.clone();
            let target = NodeOutput::find(&graph, &output.tensor)?;
            if let Some(target) = &target {
                // The graph knows more than the signature.
                let known = target.known(&mut graph)?;
                (output.dtype, output.shape) = (known.dtype, known.shape);
            }
            // A scalar of each batch becomes a row.
            let is_joined = output.shape.as_ref().is_none_or(|shape| !shape.is_empty());
            parts.push(ComponentSource { output, target, is_joined });
        }
        let (format, path, options) = (self.format, self.path.clone(), self.options.clone());
        let mut notes: Vec<String> = feeds.iter().filter_map(FileFeed::note).collect();
        notes.extend(parts.iter().filter_map(|part| not_of_rows(part, batch, rows.div_ceil(batch).max(1))));
        notes.extend(self.signature.inputs.iter().filter_map(|input| maybe_splits(input, &self.signature.inputs)));
        let lost = feeds.iter().flat_map(FileFeed::lost).cloned().collect();
        let files = self.files.iter().cloned().chain(feeds.iter().flat_map(FileFeed::paths)).collect();
        let facts = Map::from_iter([("rows of the input".to_owned(), json!(rows)), ("rows at a time".to_owned(), json!(batch))]);
        let (model, feeds) = (Arc::new(self), Arc::new(feeds));
        let (own, is_used) = (parts.clone(), AtomicBool::new(false));
        let start = move |_: &_| -> Result<Step> {
            // A run may have changed variables: load the model again.
            if is_used.swap(true, Ordering::Relaxed) {
                let Loaded { mut graph, session } = (model.load)()?;
                return model.infer(&mut graph, Arc::new(session), Arc::clone(&feeds), &own, rows, batch);
            }
            model.infer(&mut model.graph(), Arc::clone(&model.session), Arc::clone(&feeds), &own, rows, batch)
        };
        let cardinality = Cardinality::Elements(rows.div_ceil(batch).max(1));
        Ok(container(format, &path, &parts, start, cardinality, &options)
            .with_facts(facts, lost)
            .with_files(files, nbytes)
            .with_notes(notes))
    }

    /// Runs the batches in order, or an empty one if the input has no rows.
    fn infer(
        &self,
        graph: &mut Graph,
        session: Arc<Session>,
        feeds: Arc<Vec<FileFeed>>,
        parts: &[ComponentSource],
        rows: u64,
        batch: u64,
    ) -> Result<Step> {
        let others = self.other_nodes(graph)?;
        let mut parts = parts.to_vec();
        for part in &mut parts {
            part.target = NodeOutput::find(graph, &part.output.tensor)?;
        }
        let fetches = Fetches::new(&mut Builder::new(graph), &parts, self.wanted())?;
        let path = self.path.clone();
        let mut next = Some(0u64);
        Ok(Box::new(move || {
            let Some(at) = next else { return Ok(None) };
            let range = at..rows.min(at.saturating_add(batch));
            next = Some(range.end).filter(|&end| end < rows);
            let fed = feeds.iter().map(|feed| feed.rows_of(&range)).collect::<Result<Vec<_>>>()?;
            let mut args = SessionRunArgs::new();
            for feed in &fed {
                feed.add(&mut args);
            }
            for other in &others {
                args.add_target(other);
            }
            let action = || format!("computing rows {} to {} of {}", range.start, range.end, path.display());
            fetches.run(&session, args, false, action)
        }))
    }
}

/// A warning about an output that does not have a row for each row of the input.
fn not_of_rows(part: &ComponentSource, batch: u64, batches: u64) -> Option<String> {
    let name = &part.output.name;
    if !part.is_joined {
        return Some(format!("{name} is one scalar per batch: the array has one for each of the {batches} batches"));
    }
    let length = part.output.shape.as_ref()?.first().copied().flatten().filter(|&length| length != batch)?;
    Some(format!("{name} has {length} rows for any batch: the array concatenates those of the {batches} batches"))
}

/// A warning about an input that may hold the row splits of a ragged one. Signatures do not tell: `tf.function` flattens an input
/// `x` into parts called `x`, `x_1` and so on.
fn maybe_splits(input: &Argument, inputs: &[Argument]) -> Option<String> {
    let (whole, number) = input.name.rsplit_once('_')?;
    let is_numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let has_whole = inputs.iter().any(|other| other.name == whole);
    let is_list = matches!(input.dtype, Some(Dtype::Int32 | Dtype::Int64)) && input.shape.as_ref().is_some_and(|shape| shape.len() == 1);
    (is_numbered && has_whole && is_list).then(|| {
        format!(
            "{} may hold the row splits of a ragged {whole} (the signature does not tell): both are cut into batches alike. If it does, \
             convert without `batch`",
            input.name
        )
    })
}

/// The number of rows, equal for all inputs with axes.
fn rows_of(feeds: &[FileFeed]) -> Result<u64> {
    let mut with_rows = feeds.iter().filter_map(|feed| Some((feed.rows()?, feed)));
    let Some((rows, first)) = with_rows.next() else {
        return Err(BadRequest::NothingToBatch.into());
    };
    match with_rows.find(|(other, _)| *other != rows) {
        Some((other, feed)) => {
            let path = |feed: &FileFeed| feed.paths().into_iter().next().unwrap_or_default();
            Err(BadRequest::UnequalInputs { path: path(feed), rows: other, other: path(first), other_rows: rows }.into())
        }
        None => Ok(rows),
    }
}

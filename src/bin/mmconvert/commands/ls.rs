//! `mmconvert ls`.

use std::collections::BTreeSet;

use mmconvert::{Error, Location, Result, Tensor};
use serde_json::{Value, json};

use super::choices::{bytes, for_listing, model, with_names};
use super::sources::{How, open};
use crate::Outcome;
use crate::args::{Common, Ls};
use crate::render::{self, Notes, Stdout};

/// `mmconvert ls`.
pub(crate) fn ls(args: &Ls, common: &Common) -> Result<Outcome> {
    let options = for_listing(&args.streams).model(model(&args.model, None));
    let locations = Location::find(&args.source.path, args.source.format.as_deref(), &options)?;
    let options = with_names(options, &locations[0], &args.names);
    let how = How { concat: false, is_listed: true, model: &args.model, common };
    let mut notes = Notes::new(common);
    let source = open(&locations, how, &options, &mut notes)?;
    // Searches for tensors that are not known in advance.
    let is_empty = source.is_empty()?;
    // Tensors are listed one by one, so that a million of them need no memory beyond the index.
    let selected = if args.names.is_empty() { None } else { Some(source.select(&bytes(&args.names))?) };
    options.check_applied()?;
    let tensors = || -> Box<dyn Iterator<Item = Result<Tensor>> + '_> {
        match &selected {
            Some(chosen) => Box::new(chosen.iter().cloned().map(Ok)),
            None => Box::new(source.tensors()),
        }
    };
    if is_empty && source.signatures().is_empty() {
        match source.nothing() {
            Error::Unsupported { detail, .. } => notes.tell(&format!("warning: {}: {detail}", source.path().display())),
            other => return Err(other),
        }
    }
    // Reading records may have produced more warnings.
    for warning in source.warnings() {
        notes.tell(&format!("warning: {warning}"));
    }
    let mut out = Stdout::new();
    if args.json {
        let path = render::path_json(source.path());
        out.write(format_args!("{{\"source\": {}, \"format\": {}, \"tensors\": [", path, json!(source.format())))?;
        for (i, tensor) in tensors().enumerate() {
            out.write(if i == 0 { "\n" } else { ",\n" })?;
            out.write(render::tensor_json(tensor?.info()))?;
        }
        let signatures: Vec<Value> = source.signatures().iter().map(render::signature_json).collect();
        out.write("]")?;
        if !signatures.is_empty() {
            out.write(format_args!(",\n\"signatures\": {}", Value::from(signatures)))?;
        }
        if !source.tag_sets().is_empty() {
            out.write(format_args!(",\n\"tag_sets\": {}", json!(source.tag_sets())))?;
        }
        out.line("}")?;
    } else {
        const MEASURED: usize = 1000;
        const WIDEST: usize = 64;
        let mut width = 0;
        let groups = tensors().map(|tensor| Ok(tensor?.info().group)).collect::<Result<BTreeSet<_>>>()?;
        let has_groups = groups.len() > 1;
        for tensor in tensors().take(MEASURED) {
            width = width.max(tensor?.info().name.to_string().chars().count()).min(WIDEST);
        }
        let mut group = None;
        for tensor in tensors() {
            let tensor = tensor?;
            if tensor.info().group != group && has_groups {
                group = tensor.info().group;
                out.line(render::group_line(group))?;
            }
            out.line(render::tensor_line(tensor.info(), width))?;
        }
        if args.names.is_empty() {
            for signature in source.signatures() {
                out.write(render::signature_lines(signature))?;
            }
            // The tag set `serve` alone is not shown, because every model has it.
            if !matches!(source.tag_sets(), [] | [_]) || source.tag_sets().iter().any(|tags| *tags != ["serve"]) {
                out.line(render::tag_sets_line(source.tag_sets()))?;
            }
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

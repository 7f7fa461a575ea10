//! `mmconvert info`.

use mmconvert::{Converter, Dtype, Error, Estimate, Location, Options, Result, Source, Tensor};
use serde_json::{Map, Value, json};

use super::choices::{model, options, with_names};
use super::sources::{How, open};
use crate::Outcome;
use crate::args::{Common, Info};
use crate::render::{self, Notes, Stdout};

/// `mmconvert info`.
pub(crate) fn info(args: &Info, common: &Common) -> Result<Outcome> {
    let options = options(&args.resources, &args.records).model(model(&args.model, None));
    let locations = Location::find(&args.source.path, args.source.format.as_deref(), &options)?;
    let options = with_names(options, &locations[0], args.name.as_slice());
    let how = How { concat: false, is_listed: args.name.is_none(), model: &args.model, common };
    let mut notes = Notes::new(common);
    let source = open(&locations, how, &options, &mut notes)?;
    let mut facts = render::source_facts(&source);
    match &args.name {
        Some(name) => tensor_info(&source.tensor(std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()))?, &options, &mut facts)?,
        None => source_info(&source, &options, &mut facts)?,
    }
    options.check_applied()?;
    for warning in source.warnings() {
        notes.tell(&format!("warning: {warning}"));
    }
    if args.json {
        render::json_object(&Value::Object(facts))?;
    } else {
        let mut out = Stdout::new();
        render::facts(&mut out, &facts, 0)?;
        out.finish()?;
    }
    Ok(Outcome::Done)
}

/// Adds the number and size of the tensors that can be converted.
fn source_info(source: &Source, options: &Options, facts: &mut Map<String, Value>) -> Result<()> {
    let (mut convertible, mut bytes, mut unknown) = (0u64, 0u64, 0u64);
    for tensor in source.tensors() {
        let tensor = tensor?;
        if tensor.info().unsupported.is_some() {
            continue;
        }
        convertible += 1;
        match size(&tensor, options)? {
            Some(size) => bytes = bytes.saturating_add(size),
            None => unknown += 1,
        }
    }
    facts.insert("tensors".into(), json!(source.len()?));
    facts.insert("convertible".into(), json!(convertible));
    facts.insert("convertible_bytes".into(), if convertible > 0 && unknown == convertible { Value::Null } else { json!(bytes) });
    if unknown > 0 {
        facts.insert("of_unknown_size".into(), json!(unknown));
    }
    facts.extend(render::object(&source.facts()));
    if !source.tag_sets().is_empty() {
        facts.insert("tag_sets".into(), json!(source.tag_sets()));
    }
    Ok(())
}

/// The size in bytes of a tensor's array; `None` if that needs computing or decoding all of it.
fn size(tensor: &Tensor, options: &Options) -> Result<Option<u64>> {
    let info = tensor.info();
    if info.unknown_axes.is_empty() && info.has_rank && info.spec.dtype() != Dtype::String {
        return Ok(Some(info.spec.nbytes()));
    }
    match Converter::new(tensor)?.options(options.clone()).estimate(tensor.source().path()) {
        Ok(estimates) if estimates.iter().all(|estimate| estimate.is_counted) => {
            Ok(Some(estimates.iter().map(|estimate| estimate.nbytes).sum()))
        }
        // Missing shards are reported among the facts.
        Ok(_) | Err(Error::Unsupported { .. } | Error::Lossy { .. } | Error::BadRequest(..) | Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tensor_info(tensor: &Tensor, options: &Options, facts: &mut Map<String, Value>) -> Result<()> {
    facts.extend(render::object(&tensor.facts()?));
    let tensor = &tensor.source().tensor(tensor.info().name.as_bytes())?;
    if let Value::Object(listed) = render::tensor_json(tensor.info()) {
        facts.extend(listed);
    }
    if tensor.info().unsupported.is_none() {
        match Converter::new(tensor)?.options(options.clone()).estimate(tensor.source().path()) {
            // An impossible conversion, or one that needs more options, is a fact too.
            Err(error @ (Error::Unsupported { .. } | Error::Lossy { .. } | Error::TensorFlow { .. })) => {
                facts.insert("conversion".into(), json!(error.to_string()));
            }
            estimates => {
                for estimate in estimates? {
                    facts.insert("conversion".into(), estimate_json(&estimate));
                }
                if tensor.info().spec.dtype() != Dtype::String && !tensor.is_of_records() && !tensor.is_made() {
                    let in_place = tensor.in_place().map_or_else(|error| format!("no: {error}"), |_| "yes".to_owned());
                    facts.insert("view_in_place".into(), json!(in_place));
                }
            }
        }
    }
    Ok(())
}

/// The estimates for an array; unknown sizes are `null`.
pub(super) fn estimate_json(estimate: &Estimate) -> Value {
    let counted = |value: u64| estimate.is_counted.then_some(value);
    json!({
        "descr": estimate.descr,
        "nbytes": counted(estimate.nbytes),
        "method": estimate.method.name(),
        "read_bytes": estimate.read_bytes,
        "write_bytes": counted(estimate.write_bytes),
        "slices": estimate.slices,
        "slice_bytes": estimate.slice_bytes,
        "threads": estimate.threads,
        "memory_bytes": estimate.memory_bytes,
    })
}

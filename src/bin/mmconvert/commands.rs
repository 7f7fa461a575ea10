//! One function a command.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::CommandFactory;
use mmconvert::source::{expand, is_source};
use mmconvert::{
    CancelToken, Comparison, Converter, Dtype, Error, Estimate, HumanBytes, ModelOptions, Name, Options, Part, RecordOptions, Report,
    Result, Rows, ShapeText, Skipped, Source, Tensor, compare, compare_packed, export, pack,
};
use serde_json::{Map, Value, json};

use crate::args::{Args, Common, Convert, Form, Info, Ls, Model, Records, Resources, Verify};
use crate::render::{self, Stdout, note};
use crate::{Outcome, progress, signals};

/// The format of one file for many tensors, and its extension.
const SAFETENSORS: &str = "safetensors";

/// Opens a source. One that TensorFlow computes gets it; where it `is_listed` only, it is told as far as that goes without.
fn open(source: (&Path, Option<&str>), options: &Options, model: &Model, common: &Common, is_listed: bool) -> Result<Source> {
    let (path, format) = source;
    let is_needed = Source::needs_tensorflow(path, format, options)?;
    let missing = if is_needed { load_tensorflow(model.tensorflow.as_deref(), common).err() } else { None };
    let source = match (Source::open_with(path, format, options), missing) {
        // What is wrong with the source is said first.
        (Err(Error::Unsupported { .. }) | Ok(_), Some(missing)) if !is_listed => return Err(missing),
        (source, missing) => {
            if let Some(missing) = missing.filter(|_| common.verbose) {
                note(&missing.to_string());
            }
            source?
        }
    };
    if common.verbose {
        note(&format!("{}: {}", source.path().display(), source.format()));
    }
    Ok(source)
}

/// Opens sources as one.
fn open_all(paths: &[PathBuf], how: &Several<'_>, options: &Options, model: &Model, common: &Common) -> Result<Source> {
    let parts = paths.iter().map(|path| open((path, how.format), options, model, common, how.is_listed)).collect::<Result<_>>()?;
    as_one(parts, how)
}

/// Several sources as one: joined, or side by side.
fn as_one(mut parts: Vec<Source>, how: &Several<'_>) -> Result<Source> {
    match parts.pop() {
        Some(only) if parts.is_empty() && !how.concat => Ok(only),
        last => {
            parts.extend(last);
            if how.concat { Source::concat(parts) } else { Source::together(parts) }
        }
    }
}

/// How several sources are opened.
#[derive(Clone, Copy)]
struct Several<'a> {
    format: Option<&'a str>,
    concat: bool,
    is_listed: bool,
}

/// Takes what follows the first source apart: more sources come first, then names. What is the name of a tensor of the first source is one.
fn sources(args: &Convert, options: &Options, common: &Common) -> Result<(Vec<PathBuf>, Vec<OsString>)> {
    let format = args.source.format.as_deref();
    let mut paths = expand(&args.source.path, format)?;
    let mut names = &args.names[..];
    let mut first = None;
    while let [next, rest @ ..] = names {
        // What cannot be a source is a name, and nothing has to be opened for it.
        let path = Path::new(next);
        let more = match expand(path, format) {
            Err(Error::NotFound { .. }) => break,
            more => more?,
        };
        if more == [path] && !is_source(path, format)? {
            break;
        }
        if first.is_none() {
            first = Some(open((&paths[0], format), options, &args.model, &Common { verbose: false, ..common.clone() }, true)?);
        }
        let is_name = |first: &Source| match first.tensor(next.as_bytes()) {
            // A second name of a tensor is not worth as much as a file that is there.
            Ok(tensor) => tensor.info().name.as_bytes() == next.as_bytes(),
            Err(_) => first.select(&[next.as_bytes()]).is_ok(),
        };
        if first.as_ref().is_some_and(is_name) {
            break;
        }
        paths.extend(more);
        names = rest;
    }
    Ok((paths, names.to_vec()))
}

#[cfg(feature = "tensorflow")]
#[expect(unsafe_code, reason = "the environment is changed where no other thread looks at it")]
fn load_tensorflow(library: Option<&Path>, common: &Common) -> Result<()> {
    // SAFETY: no source is open yet and no worker has been started; the thread that waits for signals does nothing else.
    let path = unsafe { mmconvert::live::load(library, common.verbose) }?;
    if common.verbose {
        note(&format!("TensorFlow: {}", path.display()));
    }
    signals::end_while_computing();
    Ok(())
}

#[cfg(not(feature = "tensorflow"))]
#[expect(clippy::unnecessary_wraps, reason = "as in other builds")]
fn load_tensorflow(_: Option<&Path>, _: &Common) -> Result<()> {
    Ok(())
}

/// The choices for what TensorFlow computes, of which `names` are wanted. What it cannot cut it writes to `scratch`.
fn model(args: &Model, source: (&Path, Option<&str>), names: &[OsString], scratch: Option<&Path>) -> Result<ModelOptions> {
    let mut model = ModelOptions::new();
    for feed in &args.feed {
        model = model.feed(&feed.input, &feed.path);
    }
    if let Some(batch) = args.batch {
        model = model.batch(batch);
    }
    if let Some(signature) = &args.signature {
        model = model.signature(signature);
    }
    if let Some(scratch) = scratch {
        model = model.scratch(scratch);
    }
    let with = |model: ModelOptions, names: &[OsString]| names.iter().fold(model, |model, name| model.output(name.to_string_lossy()));
    model = with(model, &args.outputs);
    // Names alone make nobody run anything, as long as they are those of variables or constants.
    let is_computed = Source::needs_tensorflow(source.0, source.1, &Options::new().model(model.clone()))?
        || Source::are_outputs(source.0, source.1, &bytes(names))?;
    Ok(if is_computed { with(model, names) } else { model })
}

/// The directory that an output will be in, or the nearest one above it that is there.
fn nearest_directory(out: &Path) -> Option<&Path> {
    out.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path }).find(|path| path.is_dir())
}

/// Refuses choices for features that are not converted.
fn check_names(args: &Records, tensors: &[Tensor<'_>]) -> Result<()> {
    let shapes = args.shape.iter().map(|choice| &choice.feature);
    let raw = args.raw.iter().map(|choice| &choice.feature);
    let read_as = args.read_as.iter().map(|choice| &choice.feature);
    let named = shapes.chain(raw).chain(read_as).chain(args.ragged.iter().map(|choice| &choice.feature));
    let named = named.chain(args.missing.iter().map(|choice| &choice.feature)).flatten();
    // Names may have the split in front.
    let is_there = |name: &str| tensors.iter().any(|tensor| format!("/{}", tensor.info().name.to_json()).ends_with(&format!("/{name}")));
    for name in named {
        if !is_there(name) {
            return Err(Error::BadRequest { detail: format!("there is a choice for {name:?}, which is not converted") });
        }
    }
    Ok(())
}

/// The choices for records.
fn records(args: &Records) -> RecordOptions {
    let mut records = RecordOptions::new().flatten(args.flatten).salvage(args.salvage).jpeg(args.jpeg);
    for shape in &args.shape {
        records = records.shape(shape.feature.as_deref(), &shape.value.0);
    }
    for raw in &args.raw {
        records = records.raw(raw.feature.as_deref(), raw.value);
    }
    for read_as in &args.read_as {
        records = records.read_as(read_as.feature.as_deref(), read_as.value);
    }
    if let Some(channels) = args.channels {
        records = records.channels(channels);
    }
    for ragged in &args.ragged {
        records = records.ragged(ragged.feature.as_deref(), ragged.value.clone());
    }
    for missing in &args.missing {
        records = records.missing(missing.feature.as_deref(), missing.value.clone());
    }
    records
}

fn warn(source: &Source, common: &Common) {
    if !common.quiet {
        for warning in source.warnings() {
            note(&format!("warning: {warning}"));
        }
    }
}

fn bytes(names: &[OsString]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_bytes()).collect()
}

fn options(resources: &Resources, wanted: &Records) -> Options {
    let mut options = Options::new().records(records(wanted)).memory(resources.memory.unwrap_or_default());
    if let Some(method) = resources.method {
        options = options.method(method);
    }
    if let Some(slices) = resources.in_flight {
        options = options.in_flight(slices.into());
    }
    if let Some(threads) = resources.threads {
        options = options.threads(threads.into());
    }
    options
}

/// The choices of `options` with those for what arrays are to be like.
fn with_form(options: Options, form: &Form) -> Options {
    let options = options.strict(form.strict).byte_order(form.byte_order).layout(form.layout).strings(form.strings);
    match form.dtype {
        Some(dtype) => options.cast(dtype),
        None => options,
    }
}

/// `mmconvert ls`.
pub(crate) fn ls(args: &Ls, common: &Common) -> Result<Outcome> {
    let options = Options::new().records(records(&args.records)).model(model(&args.model, args.source.named(), &args.names, None)?);
    let source = open(args.source.named(), &options, &args.model, common, true)?;
    // What is not known before is looked for first.
    let is_empty = source.is_empty()?;
    // All tensors are listed one by one, so that a million of them take no memory beyond the index.
    let selected = if args.names.is_empty() { None } else { Some(source.select(&bytes(&args.names))?) };
    let tensors = || -> Box<dyn Iterator<Item = Result<Tensor<'_>>> + '_> {
        match &selected {
            Some(chosen) => Box::new(chosen.iter().cloned().map(Ok)),
            None => Box::new(source.tensors()),
        }
    };
    if is_empty && source.signatures().is_empty() && !common.quiet {
        note(&format!("{} holds no tensors", source.path().display()));
    }
    warn(&source, common);
    let mut out = Stdout::new();
    if args.json {
        let path = source.path().to_string_lossy();
        out.write(format_args!("{{\"source\": {}, \"format\": {}, \"tensors\": [", json!(path), json!(source.format())))?;
        for (i, tensor) in tensors().enumerate() {
            out.write(if i == 0 { "\n" } else { ",\n" })?;
            out.write(render::tensor_json(tensor?.info()))?;
        }
        let signatures: Vec<Value> = source.signatures().iter().map(render::signature_json).collect();
        if signatures.is_empty() {
            out.line("]}")?;
        } else {
            out.line(format_args!("],\n\"signatures\": {}}}", Value::from(signatures)))?;
        }
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
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// `mmconvert info`.
pub(crate) fn info(args: &Info, common: &Common) -> Result<Outcome> {
    let options = options(&args.resources, &args.records).model(model(&args.model, args.source.named(), args.name.as_slice(), None)?);
    let source = open(args.source.named(), &options, &args.model, common, args.name.is_none())?;
    let mut facts = render::source_facts(&source);
    if let Some(name) = &args.name {
        tensor_info(&source.tensor(name.as_bytes())?, &options, &mut facts)?;
    } else {
        let (mut convertible, mut bytes) = (0u64, 0u64);
        for tensor in source.tensors() {
            let tensor = tensor?;
            if tensor.info().unsupported.is_none() {
                convertible += 1;
                bytes = bytes.saturating_add(tensor.info().spec.nbytes());
            }
        }
        facts.insert("tensors".into(), json!(source.len()?));
        facts.insert("convertible".into(), json!(convertible));
        facts.insert("convertible_bytes".into(), json!(bytes));
        facts.extend(source.facts());
    }
    warn(&source, common);
    if args.json {
        render::json_object(&Value::Object(facts))?;
    } else {
        let mut out = Stdout::new();
        render::facts(&mut out, &facts, 0)?;
        out.finish()?;
    }
    Ok(Outcome::Done)
}

fn tensor_info(tensor: &Tensor<'_>, options: &Options, facts: &mut Map<String, Value>) -> Result<()> {
    facts.extend(tensor.facts()?);
    let tensor = &tensor.source().tensor(tensor.info().name.as_bytes())?;
    if let Value::Object(listed) = render::tensor_json(tensor.info()) {
        facts.extend(listed);
    }
    if tensor.info().unsupported.is_none() {
        match Converter::new(tensor)?.options(options.clone()).estimate(tensor.source().path()) {
            // What a conversion needs to be told, or cannot do, is a fact too.
            Err(error @ (Error::Unsupported { .. } | Error::Lossy { .. } | Error::TensorFlow { .. })) => {
                facts.insert("conversion".into(), json!(error.to_string()));
            }
            estimates => {
                for estimate in estimates? {
                    facts.insert("conversion".into(), estimate_json(&estimate));
                }
                if tensor.info().spec.dtype() != Dtype::String && !tensor.source().is_of_records() {
                    let in_place = tensor.in_place().map_or_else(|error| format!("no: {error}"), |_| "yes".to_owned());
                    facts.insert("view_in_place".into(), json!(in_place));
                }
            }
        }
    }
    Ok(())
}

fn estimate_json(estimate: &Estimate) -> Value {
    json!({
        "descr": estimate.descr,
        "nbytes": estimate.nbytes,
        "method": estimate.method.name(),
        "read_bytes": estimate.read_bytes,
        "write_bytes": estimate.write_bytes,
        "slices": estimate.slices,
        "slice_bytes": estimate.slice_bytes,
        "threads": estimate.threads,
        "memory_bytes": estimate.memory_bytes,
    })
}

/// `mmconvert convert`.
pub(crate) fn convert(args: &Convert, common: &Common) -> Result<Outcome> {
    let started = Instant::now();
    let cancel = CancelToken::new();
    signals::cancel_on_signals(&cancel)?;
    let options = with_form(options(&args.resources, &args.records), &args.form);
    let options = options.verify(!args.no_verify).overwrite(args.force).cancel(cancel.clone());
    let (paths, names) = sources(args, &options, common)?;
    let format = args.source.format.as_deref();
    let options = options.model(model(&args.model, (&paths[0], format), &names, nearest_directory(&args.out))?);
    let how = Several { format, concat: args.concat, is_listed: false };
    // Records are gone through source by source, each into a directory of its own.
    let parts = paths.iter().map(|path| open((path, format), &options, &args.model, common, false)).collect::<Result<Vec<_>>>()?;
    let apart = parts.len() > 1 && !args.concat && parts.iter().any(Source::is_of_records);
    let each: Vec<(Source, PathBuf)> = if apart {
        let stem = |source: &Source| args.out.join(source.path().file_stem().unwrap_or(source.path().as_os_str()));
        parts.into_iter().map(|source| (stem(&source), source)).map(|(out, source)| (source, out)).collect()
    } else {
        vec![(as_one(parts, &how)?, args.out.clone())]
    };
    if apart && is_packed(&args.out) {
        return Err(Error::BadRequest {
            detail: "of several sources with records each becomes a directory: convert them one by one".into(),
        });
    }
    if apart && !args.dry_run {
        let failed = |source| Error::Io { action: "create", path: args.out.clone(), source };
        std::fs::create_dir_all(&args.out).map_err(failed)?;
    }
    let wanted: Vec<&[u8]> = [bytes(&names), bytes(&args.model.outputs)].concat();
    let (options, bar) = if args.dry_run { (options, None) } else { progress::attach(options, common) };
    let mut all = Done::default();
    for (source, out) in &each {
        let tensors = source.select(&wanted)?;
        warn(source, common);
        check_names(&args.records, &tensors)?;
        if tensors.is_empty() {
            return Err(Error::Unsupported {
                what: format!("converting {}", source.path().display()),
                detail: "it holds no tensors".into(),
            });
        }
        let single = match tensors.as_slice() {
            [one] if !apart && !is_packed(out) && !out.is_dir() && !out.as_os_str().as_bytes().ends_with(b"/") => Some(one),
            _ => None,
        };
        if args.dry_run {
            all.is_incomplete |= matches!(dry_run(args, &tensors, single.is_some(), &options)?, Outcome::Skipped);
            continue;
        }
        let done = convert_one(source, &tensors, single, out, args.rows, &options);
        bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
        let done = done?;
        tell_lost(done.outputs.first().map(|(_, _, report)| report), common);
        if !args.json && !common.quiet {
            match single {
                Some(tensor) => done.outputs.iter().for_each(|(_, path, report)| render::converted(tensor, path, report)),
                None => render::exported(out, &done.outputs, &done.skipped, started.elapsed().as_secs_f64()),
            }
        }
        all.is_incomplete |= !done.skipped.is_empty();
        all.outputs.extend(done.outputs);
        all.skipped.extend(done.skipped);
    }
    if args.json && !args.dry_run {
        let outputs: Vec<Value> = all.outputs.iter().map(|(name, path, report)| render::output_json(name, path, report)).collect();
        let written = all.outputs.iter().map(|(_, _, report)| report.nbytes).sum();
        let peak = all.outputs.iter().map(|(_, _, report)| report.peak_memory).max().unwrap_or(0);
        let lost: Vec<String> = all.outputs.first().map_or(Vec::new(), |(_, _, report)| report.lost.clone());
        render::json_object(&render::outputs_json(&outputs, &all.skipped, started.elapsed().as_secs_f64(), written, peak, &lost))?;
    }
    Ok(if all.is_incomplete && !args.skip_unsupported { Outcome::Skipped } else { Outcome::Done })
}

/// What was converted, and what was not.
#[derive(Default)]
struct Done {
    outputs: Vec<(Name, PathBuf, Report)>,
    skipped: Vec<Skipped>,
    is_incomplete: bool,
}

/// Converts tensors of one source: a `single` one into a file of its own, others into a directory or a file for all.
fn convert_one(
    source: &Source,
    tensors: &[Tensor<'_>],
    single: Option<&Tensor<'_>>,
    out: &Path,
    rows: Option<Rows>,
    options: &Options,
) -> Result<Done> {
    if let Some(tensor) = single {
        let mut converter = Converter::new(tensor)?.options(options.clone());
        if let Some(rows) = rows {
            converter = converter.rows(rows);
        }
        let name = &tensor.info().name;
        let outputs = converter.write_parts(out)?.into_iter().map(|(path, report)| (name.clone(), path, report)).collect();
        return Ok(Done { outputs, ..Done::default() });
    }
    let done = if is_packed(out) { pack(source, tensors, rows, out, options)? } else { export(source, tensors, rows, out, options)? };
    let outputs = done.outputs.into_iter().map(|output| (output.name, output.path, output.report)).collect();
    Ok(Done { outputs, skipped: done.skipped, is_incomplete: false })
}

/// Says what of the source was given up.
fn tell_lost(report: Option<&Report>, common: &Common) {
    if !common.quiet {
        for lost in report.iter().flat_map(|report| &report.lost) {
            note(&format!("warning: {lost}"));
        }
    }
}

fn dry_run(args: &Convert, tensors: &[Tensor<'_>], single: bool, options: &Options) -> Result<Outcome> {
    let mut outputs = Vec::new();
    let mut skipped = Vec::new();
    let (mut read, mut written, mut memory) = (0u64, 0u64, 0u64);
    for tensor in tensors {
        let info = tensor.info();
        if let Some(reason) = &info.unsupported {
            skipped.push((info.name.clone(), reason.clone()));
            continue;
        }
        let mut converter = Converter::new(tensor)?.options(options.clone());
        if let Some(rows) = args.rows {
            converter = converter.rows(rows);
        }
        let target = if single { args.out.clone() } else { args.out.join("array.npy") };
        let estimates = match converter.estimate(target) {
            // What an export would skip.
            Err(error @ (Error::Unsupported { .. } | Error::Lossy { .. })) if !single => {
                skipped.push((info.name.clone(), error.to_string()));
                continue;
            }
            estimates => estimates?,
        };
        for estimate in estimates {
            read = read.saturating_add(estimate.read_bytes);
            written = written.saturating_add(estimate.write_bytes);
            memory = memory.max(estimate.memory_bytes);
            outputs.push((info, estimate));
        }
    }
    if args.json {
        let outputs: Vec<Value> = outputs
            .iter()
            .map(|(info, estimate)| {
                let mut output = estimate_json(estimate);
                output["name"] = json!(info.name.to_json());
                output["part"] = json!(estimate.part);
                output["dtype"] = json!(estimate.dtype.name());
                output["source_dtype"] = json!(info.spec.dtype().name());
                output["shape"] = json!(estimate.shape);
                output
            })
            .collect();
        let skipped: Vec<Value> = skipped.iter().map(|(name, reason)| json!({"name": name.to_json(), "reason": reason})).collect();
        render::json_object(
            &json!({"dry_run": true, "outputs": outputs, "skipped": skipped, "read_bytes": read, "write_bytes": written, "memory_bytes": memory}),
        )?;
    } else {
        let mut out = Stdout::new();
        for (info, estimate) in &outputs {
            out.line(format_args!(
                "{}: {} {} -> {}, {} in {} slices of at most {}, {} threads, method {}",
                info.name,
                info.spec.dtype(),
                ShapeText(&estimate.shape),
                estimate.descr,
                HumanBytes(estimate.nbytes),
                estimate.slices,
                HumanBytes(estimate.slice_bytes),
                estimate.threads,
                estimate.method,
            ))?;
        }
        for (name, reason) in &skipped {
            out.line(format_args!("{name}: skipped, {reason}"))?;
        }
        out.line(format_args!(
            "would read {} and write {} into {}, using at most {} of memory",
            HumanBytes(read),
            HumanBytes(written),
            args.out.display(),
            HumanBytes(memory)
        ))?;
        out.finish()?;
    }
    Ok(if skipped.is_empty() || args.skip_unsupported { Outcome::Done } else { Outcome::Skipped })
}

/// `mmconvert verify`.
pub(crate) fn verify(args: &Verify, common: &Common) -> Result<Outcome> {
    let cancel = CancelToken::new();
    signals::cancel_on_signals(&cancel)?;
    let mut wanted = records(&args.records);
    if args.out.is_dir() {
        // They were made in one pass.
        wanted = wanted.skipped_with(mmconvert::manifest_files(&args.out)?.into_iter().map(|entry| entry.name));
    }
    let options = options(&args.resources, &args.records).records(wanted).strings(args.strings).cancel(cancel);
    let format = args.format.as_deref();
    let mut against = Vec::new();
    for path in &args.against {
        against.extend(expand(path, format)?);
    }
    let options = options.model(model(&args.model, (&against[0], format), args.name.as_slice(), None)?);
    let how = Several { format, concat: args.concat, is_listed: false };
    let source = open_all(&against, &how, &options, &args.model, common)?;
    warn(&source, common);
    let mut results = Vec::new();
    let mut different = false;
    let packed = if is_packed(&args.out) { Some(Source::open_as(&args.out, Some(SAFETENSORS))?) } else { None };
    for (array, tensor, cast) in pairs(args, &source, packed.as_ref())? {
        let options = cast.or(args.dtype).map_or_else(|| options.clone(), |dtype| options.clone().cast(dtype));
        let (path, comparison) = match array {
            Made::File(path) => {
                let comparison = compare(&path, &tensor, args.rows, &options)?;
                (path, comparison)
            }
            Made::Packed(packed) => (args.out.clone(), compare_packed(&packed, &tensor, args.rows, &options)?),
        };
        let name = &tensor.info().name;
        let (equal, text) = match &comparison {
            Comparison::Equal(verified) => (true, format!("equal; source: {}", render::verified(*verified))),
            Comparison::Different(difference) => (false, difference.to_string()),
        };
        different |= !equal;
        if !equal || !common.quiet {
            note(&format!("{} against {name}: {text}", path.display()));
        }
        results
            .push(json!({"path": path.to_string_lossy(), "name": name.to_json(), "equal": equal, "difference": (!equal).then_some(text)}));
    }
    if args.json {
        render::json_object(&json!({"equal": !different, "outputs": results}))?;
    }
    Ok(if different { Outcome::Different } else { Outcome::Done })
}

/// What `convert` made of a tensor.
enum Made<'a> {
    File(PathBuf),
    /// A tensor of a safetensors file.
    Packed(Box<Tensor<'a>>),
}

/// Whether a path is that of a safetensors file.
fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SAFETENSORS)
}

/// The arrays to check, each with its tensor and the dtype it was cast to.
fn pairs<'a>(args: &Verify, source: &'a Source, packed: Option<&'a Source>) -> Result<Vec<(Made<'a>, Tensor<'a>, Option<Dtype>)>> {
    if let Some(packed) = packed {
        let wanted = args.name.as_deref().map(|name| source.tensor(name.as_bytes())).transpose()?;
        let mut pairs = Vec::new();
        for own in packed.tensors() {
            let own = own?;
            let tensor = source.tensor(own.info().name.as_bytes())?;
            if wanted.as_ref().is_none_or(|wanted| wanted.info().name == tensor.info().name) {
                let cast = Some(own.info().spec.dtype()).filter(|dtype| *dtype != tensor.info().spec.dtype());
                pairs.push((Made::Packed(Box::new(own)), tensor, cast));
            }
        }
        return Ok(pairs);
    }
    if args.out.is_dir() {
        let wanted = args.name.as_deref().map(|name| source.tensor(name.as_bytes())).transpose()?;
        let wanted = wanted.map(|tensor| tensor.info().name.clone());
        let files = mmconvert::manifest_files(&args.out)?;
        let mut pairs = Vec::new();
        for entry in files {
            let tensor = source.tensor(entry.name.as_bytes())?;
            if wanted.as_ref().is_none_or(|wanted| *wanted == tensor.info().name) {
                pairs.push((Made::File(args.out.join(entry.file)), tensor, entry.cast));
            }
        }
        return Ok(pairs);
    }
    let tensor = match &args.name {
        Some(name) => source.tensor(name.as_bytes())?,
        None => only_tensor(source, &args.out)?,
    };
    // Strings as offsets are two files beside the name that they were converted to.
    let parts = [Part::Values, Part::Offsets].map(|part| part.path(&args.out));
    if !args.out.exists() && parts.iter().all(|path| path.exists()) {
        return Ok(parts.map(|path| (Made::File(path), tensor.clone(), None)).into());
    }
    Ok(vec![(Made::File(args.out.clone()), tensor, None)])
}

/// The only tensor of a source that can be converted.
fn only_tensor<'a>(source: &'a Source, output: &Path) -> Result<Tensor<'a>> {
    let mut found = None;
    for tensor in source.select::<&[u8]>(&[])? {
        if tensor.info().unsupported.is_none() && found.replace(tensor).is_some() {
            let detail = format!(
                "{} holds {} tensors: name the one that {} was made from",
                source.path().display(),
                source.len()?,
                output.display()
            );
            return Err(Error::BadRequest { detail });
        }
    }
    found.ok_or_else(|| Error::BadRequest { detail: format!("{} holds no tensor that can be converted", source.path().display()) })
}

/// `mmconvert completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "mmconvert", &mut script);
    let mut out = Stdout::new();
    out.write(String::from_utf8_lossy(&script))?;
    out.finish()?;
    Ok(Outcome::Done)
}

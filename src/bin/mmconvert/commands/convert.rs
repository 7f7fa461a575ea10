//! `mmconvert convert`.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use mmconvert::dry_run::{Estimated, check_export, check_pack, check_packed, check_write, packing_room};
use mmconvert::{
    CancelToken, Converter, Error, Estimate, HumanBytes, Name, Options, Report, Result, Selection, Skipped, Source, Tensor, TensorInfo,
    export, pack,
};
use serde_json::{Value, json};

use super::choices::{bytes, model, options, with_form, with_names};
use super::info::estimate_json;
use super::sources::{How, open, parse};
use super::stdout::PatientStdout;
use super::target::Target;
use super::usage;
use crate::args::{Common, Convert};
use crate::flags::spelled;
use crate::render::{self, Notes, Stdout};
use crate::{Outcome, progress, signals};

/// `mmconvert convert`.
pub(crate) fn convert(args: &Convert, common: &Common) -> Result<Outcome> {
    let cancel = CancelToken::new();
    signals::cancel_on_signals(&cancel)?;
    run(args, common, &cancel).map_err(|error| cancel.unless_cancelled(error))
}

fn run(args: &Convert, common: &Common, cancel: &CancelToken) -> Result<Outcome> {
    let started = Instant::now();
    // An impossible output name is reported before any file is opened.
    check_stdout(args, &Target::of(&args.out, None)?)?;
    let options = with_form(options(&args.resources, &args.records), &args.form);
    let options = options.verify(!args.no_verify).overwrite(args.force).cancel(cancel.clone());
    let options = options.model(model(&args.model, nearest_directory(&args.out)));
    let (locations, names) = parse((&args.source.path, &args.names), (args.source.format.as_deref(), args.concat), &options)?;
    let options = with_names(options, &locations[0], &names);
    let how = How { concat: args.concat, is_listed: false, model: &args.model, common };
    let mut notes = Notes::new(common);
    let source = open(&locations, how, &options, &mut notes)?;
    let wanted: Vec<&[u8]> = [bytes(&names), bytes(&args.model.outputs)].concat();
    let tensors = selected(&source, &wanted, args.all);
    // Selecting tensors may have produced more warnings.
    for warning in source.warnings() {
        notes.tell(&format!("warning: {warning}"));
    }
    let tensors = tensors?;
    if tensors.is_empty() {
        return Err(nothing_selected(&source)?);
    }
    let target = Target::of(&args.out, Some(tensors.len()))?;
    if args.dry_run {
        return dry_run(args, &tensors, &target, &options);
    }
    let (options, bar) = progress::attach(options, common);
    let done = convert_into(&tensors, &target, args, (&options, cancel));
    bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
    let done = done?;
    for lost in done.outputs.iter().flat_map(|(_, _, report)| &report.lost) {
        notes.tell(&format!("warning: {lost}"));
    }
    if !args.json && !common.quiet {
        match (&target, &tensors[..]) {
            (Target::File(_) | Target::Stdout, [tensor]) => {
                done.outputs.iter().for_each(|(_, path, report)| render::converted(&tensor.info().name, path, report));
            }
            _ => render::exported(&args.out, &done.outputs, &done.skipped, started.elapsed().as_secs_f64()),
        }
    }
    // The reason for the exit code is printed even with `--quiet`.
    if common.quiet && !args.json && !args.skip_unsupported {
        render::skipped(&done.skipped);
    }
    if !args.all
        && let Some(left_out) = left_out(&tensors, &wanted)?
    {
        notes.tell(&left_out);
    }
    if args.json {
        let outputs: Vec<Value> = done.outputs.iter().map(|(name, path, report)| render::output_json(name, path, report)).collect();
        let written = done.outputs.iter().map(|(_, _, report)| report.nbytes).sum();
        let peak = done.outputs.iter().map(|(_, _, report)| report.peak_memory).max().unwrap_or(0);
        let missing = source.lost();
        let mut lost: Vec<&String> = missing.iter().chain(done.outputs.iter().flat_map(|(_, _, report)| &report.lost)).collect();
        lost.sort();
        lost.dedup();
        render::json_object(&render::outputs_json(&outputs, &done.skipped, started.elapsed().as_secs_f64(), written, peak, &lost))?;
    }
    Ok(if !done.skipped.is_empty() && !args.skip_unsupported { Outcome::Skipped } else { Outcome::Done })
}

/// Refuses standard output if it is a terminal or in use for something else.
fn check_stdout(args: &Convert, target: &Target) -> Result<()> {
    if *target != Target::Stdout {
        return Ok(());
    }
    let detail = if args.json && !args.dry_run {
        "both the array and --json would go to standard output: write the array to a file, or omit --json"
    } else if !args.dry_run && io::stdout().is_terminal() {
        "an array cannot be written to a terminal: use -o FILE.npy, or | another program"
    } else if args.resources.method.is_some() || args.resources.in_flight.is_some() || args.force {
        "--method, --in-flight and --force apply to files only: they have no effect on standard output"
    } else {
        return Ok(());
    };
    Err(usage(detail))
}

/// The directory that will contain an output, or its nearest existing parent.
fn nearest_directory(out: &Path) -> Option<&Path> {
    out.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path }).find(|path| path.is_dir())
}

fn nothing_selected(source: &Source) -> Result<Error> {
    let what = format!("converting {}", source.path().display());
    let detail = match source.len()? {
        0 => return Ok(source.nothing()),
        bookkeeping => format!("it only holds TensorFlow's bookkeeping ({bookkeeping} tensors): name one, or use --all"),
    };
    Ok(Error::Unsupported { what, detail })
}

/// The tensors to convert.
fn selected(source: &Source, wanted: &[&[u8]], all: bool) -> Result<Selection> {
    if !all {
        return source.select(wanted);
    }
    let tensors = source.select_all(wanted)?;
    if !wanted.is_empty() && tensors.len() == source.select(wanted)?.len() {
        let detail = "--all has no effect on the selection: it adds tensors that are not named, and bookkeeping that a pattern matches";
        return Err(usage(detail));
    }
    Ok(tensors)
}

/// The note about tensors that were left out because they are not named.
fn left_out(tensors: &Selection, wanted: &[&[u8]]) -> Result<Option<String>> {
    let source = tensors.source();
    if !wanted.is_empty() {
        let left_out = source.select_all(wanted)?.len().saturating_sub(tensors.len());
        let note = format!("note: left out despite a matching pattern: {left_out} bookkeeping; --all converts them, too");
        return Ok((left_out > 0).then_some(note));
    }
    if source.len()? == tensors.len() {
        return Ok(None);
    }
    let chosen: HashSet<&Name> = tensors.iter().map(|tensor| &tensor.info().name).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in source.tensors() {
        let info = tensor?.info().clone();
        if !chosen.contains(&info.name) {
            *counts.entry(if info.bookkeeping { "bookkeeping" } else { info.group.unwrap_or("others") }).or_default() += 1;
        }
    }
    let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Ok(Some(format!("note: not named, and left out: {}; --all converts them, too", counts.join(", "))))
}

/// The converted and the skipped tensors.
#[derive(Default)]
struct Done {
    outputs: Vec<(Name, PathBuf, Report)>,
    skipped: Vec<Skipped>,
}

fn converter<'a>(tensor: &Tensor, args: &Convert, options: &Options) -> Result<Converter<'a>> {
    let converter = Converter::new(tensor)?.options(options.clone());
    Ok(match args.rows {
        Some(rows) => converter.rows(rows),
        None => converter,
    })
}

fn convert_into(tensors: &Selection, target: &Target, args: &Convert, (options, cancel): (&Options, &CancelToken)) -> Result<Done> {
    let done = match (target, &tensors[..]) {
        (Target::File(out), [tensor]) => {
            let name = &tensor.info().name;
            let outputs = converter(tensor, args, options)?
                .write_parts(out)?
                .into_iter()
                .map(|(path, report)| (name.clone(), path, report))
                .collect();
            return Ok(Done { outputs, ..Done::default() });
        }
        (Target::Stdout, [tensor]) => {
            let report = converter(tensor, args, options)?.stream(&mut PatientStdout::new(cancel.clone())?)?;
            return Ok(Done { outputs: vec![(tensor.info().name.clone(), "standard output".into(), report)], ..Done::default() });
        }
        (Target::Packed(out), _) => pack(tensors, args.rows, out, options)?,
        (Target::File(out) | Target::Directory(out), _) => export(tensors, args.rows, out, options)?,
        (Target::Stdout, _) => return Err(usage("standard output takes one tensor")),
    };
    let outputs = done.outputs.into_iter().map(|output| (output.name, output.path, output.report)).collect();
    Ok(Done { outputs, skipped: done.skipped })
}

/// The JSON of one array for `--dry-run --json`.
fn planned_json(info: &TensorInfo, estimate: &Estimate) -> Value {
    let mut output = estimate_json(estimate);
    output["name"] = json!(info.name.to_json());
    output["part"] = json!(estimate.part);
    output["dtype"] = json!(estimate.item.as_deref().unwrap_or(estimate.dtype.name()));
    output["source_dtype"] = json!(info.item.as_deref().unwrap_or(info.spec.dtype().name()));
    output["shape"] = json!(estimate.has_rank.then_some(&estimate.axes));
    output
}

fn dry_run(args: &Convert, tensors: &[Tensor], target: &Target, options: &Options) -> Result<Outcome> {
    let single = matches!(target, Target::File(_) | Target::Stdout);
    let path = match target {
        Target::File(out) | Target::Packed(out) => out.clone(),
        Target::Directory(out) => out.join("array.npy"),
        Target::Stdout => PathBuf::from("."),
    };
    let mut outputs: Vec<Estimated<'_>> = Vec::new();
    let mut skipped = Vec::new();
    let (mut read, mut written, mut memory) = (0u64, 0u64, 0u64);
    let mut is_counted = true;
    for tensor in tensors {
        let info = tensor.info();
        if let Some(reason) = &info.unsupported {
            skipped.push((info.name.clone(), spelled(reason)));
            continue;
        }
        let converter = converter(tensor, args, options)?;
        let can_be_held = match target {
            Target::Packed(_) => check_packed(tensor, options),
            Target::Stdout => converter.check_stream(),
            Target::File(_) | Target::Directory(_) => Ok(()),
        };
        let estimates = match can_be_held.and_then(|()| converter.estimate(&path)) {
            // An export would skip it.
            Err(error @ (Error::Unsupported { .. } | Error::Lossy { .. })) if !single => {
                skipped.push((info.name.clone(), spelled(&error.to_string())));
                continue;
            }
            estimates => estimates?,
        };
        for estimate in &estimates {
            is_counted &= estimate.is_counted;
            read = read.saturating_add(estimate.read_bytes);
            written = written.saturating_add(estimate.write_bytes);
            memory = memory.max(estimate.memory_bytes);
        }
        outputs.push((tensor, estimates));
    }
    options.check_applied()?;
    let beside = if let Target::Packed(_) = target { packing_room(&outputs) } else { 0 };
    let room = match (target, &outputs[..]) {
        (Target::File(out), [only]) => check_write(only, out, options)?,
        (Target::File(out) | Target::Directory(out), _) => check_export(&outputs, out, options)?,
        (Target::Packed(out), _) => check_pack(&outputs, out, options)?,
        (Target::Stdout, _) => written,
    };
    let outputs: Vec<(&TensorInfo, &Estimate)> =
        outputs.iter().flat_map(|(tensor, estimates)| estimates.iter().map(|estimate| (tensor.info(), estimate))).collect();
    if args.json {
        let outputs: Vec<Value> = outputs.iter().map(|(info, estimate)| planned_json(info, estimate)).collect();
        let skipped: Vec<Value> = skipped.iter().map(|(name, reason)| json!({"name": name.to_json(), "reason": reason})).collect();
        let room = is_counted.then_some(room);
        let written = is_counted.then_some(written);
        render::json_object(&json!({
            "dry_run": true,
            "outputs": outputs,
            "skipped": skipped,
            "read_bytes": read,
            "write_bytes": written,
            "room_bytes": room,
            "memory_bytes": memory,
        }))?;
    } else {
        let mut out = Stdout::new();
        for (info, estimate) in &outputs {
            let kind = info.item.as_deref().unwrap_or(info.spec.dtype().name());
            let shape = render::estimated_shape(estimate);
            let size = if estimate.is_counted { HumanBytes(estimate.nbytes).to_string() } else { "of unknown size".to_owned() };
            // Computed tensors have no slices.
            let slices = match estimate.slices {
                0 => String::new(),
                count => format!(" in {count} slices of at most {}", HumanBytes(estimate.slice_bytes)),
            };
            out.line(format_args!(
                "{}: {kind} {shape} -> {}, {size}{slices}, {} threads, method {}",
                info.name, estimate.descr, estimate.threads, estimate.method,
            ))?;
        }
        for (name, reason) in &skipped {
            out.line(format_args!("{name}: skipped, {reason}"))?;
        }
        let size =
            if is_counted { HumanBytes(written).to_string() } else { format!("{} plus arrays of unknown size", HumanBytes(written)) };
        out.line(format_args!(
            "would read {} and write {size} into {}, using at most {} of memory",
            HumanBytes(read),
            args.out.display(),
            HumanBytes(memory)
        ))?;
        if beside > 0 {
            let room = HumanBytes(room);
            out.line(format_args!("would need {room} of disk space: the arrays are written next to the file, and then moved into it"))?;
        }
        out.finish()?;
    }
    Ok(if skipped.is_empty() || args.skip_unsupported { Outcome::Done } else { Outcome::Skipped })
}

//! Text and JSON output. Data goes to stdout, everything else to stderr.

use std::error::Error as _;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mmconvert::{
    Argument, Dtype, Error, Estimate, Facts, HumanBytes, Name, Notice, Report, Result, ShapeText, Signature, Skipped, Source, TensorInfo,
    Verified,
};
use serde_json::{Map, Value, json};

use crate::args::{ColorMode, Common};
use crate::flags::spelled;

/// Prints an error with all its causes.
pub(crate) fn error(error: &Error, color: ColorMode) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    let coloured = match color {
        ColorMode::Always => true,
        ColorMode::Never => false,
        ColorMode::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    };
    let label = if coloured { "\x1b[1;31merror\x1b[0m" } else { "error" };
    let _ = writeln!(io::stderr(), "{label}: {}", harmless(&spelled(&text)));
}

/// Prints a line on stderr; a failure to write is ignored, because there is nowhere to report it.
///
/// Paths, names and messages may come from a hostile file, so control characters are escaped.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(&spelled(line)));
}

/// Prints each distinct line once on stderr.
pub(crate) struct Notes {
    told: std::collections::HashSet<String>,
    is_quiet: bool,
}

impl Notes {
    pub(crate) fn new(common: &Common) -> Self {
        Self { told: std::collections::HashSet::new(), is_quiet: common.quiet }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        if !self.is_quiet && self.told.insert(line.to_owned()) {
            note(line);
        }
    }
}

/// Prints warnings about outputs that are correct. Leftover files are reported even with `--quiet`; limits of the file system
/// only with `--verbose`.
pub(crate) fn notices(common: &Common) {
    for notice in mmconvert::take_notices() {
        match notice {
            Notice::NotSynced { .. } if !common.verbose => {}
            notice => note(&format!("warning: {notice}")),
        }
    }
}

/// Escapes control characters.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Buffered standard output. If writing fails, the command fails.
pub(crate) struct Stdout(io::BufWriter<io::StdoutLock<'static>>);

impl Stdout {
    pub(crate) fn new() -> Self {
        Self(io::BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    pub(crate) fn write(&mut self, text: impl std::fmt::Display) -> Result<()> {
        write!(self.0, "{text}").map_err(stdout_error)
    }

    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.0, "{text}").map_err(stdout_error)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(stdout_error)
    }
}

fn stdout_error(source: io::Error) -> Error {
    Error::Io { action: "write to", path: "standard output".into(), source }
}

/// Prints a whole JSON object on stdout.
pub(crate) fn json_object(value: &Value) -> Result<()> {
    let mut out = Stdout::new();
    out.line(value)?;
    out.finish()
}

/// The library's facts as a JSON object.
pub(crate) fn object(facts: &Facts) -> Map<String, Value> {
    match serde_json::to_value(facts) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// A path as text, or as bytes if it is not UTF-8.
pub(crate) fn path_json(path: &Path) -> Value {
    path.to_str().map_or_else(|| json!({"bytes": path.as_os_str().as_bytes()}), |text| json!(text))
}

/// The JSON of a tensor for `ls --json`.
pub(crate) fn tensor_json(info: &TensorInfo) -> Value {
    let spec = &info.spec;
    let is_known = info.has_rank && info.unknown_axes.is_empty();
    let mut listed = json!({
        "name": info.name.to_json(),
        "alias": info.alias,
        "dtype": info.item.as_deref().unwrap_or(spec.dtype().name()),
        "shape": info.has_rank.then(|| info.axes()),
        "nbytes": spec.dtype().itemsize().filter(|_| is_known).map(|_| spec.nbytes()),
        "descr": info.item.as_deref().or(spec.dtype().descr()),
        "convertible": info.unsupported.is_none(),
        "reason": info.unsupported.as_deref().map(spelled),
    });
    if let Some(group) = info.group {
        listed["group"] = json!(group);
    }
    if info.bookkeeping {
        listed["bookkeeping"] = json!(true);
    }
    if let Some(feature) = &info.feature {
        listed["kind"] = json!(feature.kind);
        listed["lengths"] = json!(feature.lengths);
        listed["encoding"] = json!(feature.encoding);
        listed["missing"] = json!(feature.missing);
    }
    listed
}

/// Describes a feature in words.
fn feature_text(info: &TensorInfo) -> String {
    let Some(feature) = &info.feature else { return String::new() };
    let lengths = match feature.lengths {
        (least, most) if least == most => format!("{most}"),
        (least, most) => format!("{least} to {most}"),
    };
    let mut text = format!("  {} of {lengths}", feature.kind);
    if let Some(encoding) = &feature.encoding {
        text += &format!(", {encoding}");
    }
    if feature.missing > 0 {
        text += &format!(", missing in {}", feature.missing);
    }
    text
}

/// A shape with possibly unknown lengths.
fn axes_text(axes: &[Option<u64>]) -> String {
    let axes: Vec<String> = axes.iter().map(|axis| axis.map_or_else(|| "?".to_owned(), |axis| axis.to_string())).collect();
    format!("[{}]", axes.join(", "))
}

/// The shape of a planned array; unknown lengths are shown as `?`.
pub(crate) fn estimated_shape(estimate: &Estimate) -> String {
    if estimate.has_rank { axes_text(&estimate.axes) } else { "[…]".to_owned() }
}

/// The tag sets of a SavedModel, for people.
pub(crate) fn tag_sets_line(tag_sets: &[Vec<String>]) -> String {
    let sets: Vec<String> = tag_sets.iter().map(|tags| format!("{:?}", tags.join(","))).collect();
    harmless(&format!("tag sets: {}", sets.join(", ")))
}

fn shape_text(info: &TensorInfo) -> String {
    match info.has_rank {
        false => "[…]".to_owned(),
        true if info.unknown_axes.is_empty() => ShapeText(info.shape()).to_string(),
        true => axes_text(&info.axes()),
    }
}

/// The heading of a group in `ls`. Unlike the line of a tensor it is a single word.
pub(crate) fn group_line(group: Option<&str>) -> String {
    format!("{}:", group.unwrap_or("others"))
}

/// One line of `ls`.
pub(crate) fn tensor_line(info: &TensorInfo, name_width: usize) -> String {
    let size = if info.spec.dtype().itemsize().is_some() && info.unknown_axes.is_empty() {
        HumanBytes(info.spec.nbytes()).to_string()
    } else {
        "-".into()
    };
    let alias = info.alias.as_ref().map(|alias| format!("  ({})", Name::new(alias.as_bytes()))).unwrap_or_default();
    let dtype = match (&info.item, info.spec.dtype().descr()) {
        (Some(item), _) => item.clone(),
        (None, Some(descr)) => format!("{} {descr}", info.spec.dtype()),
        (None, None) => info.spec.dtype().to_string(),
    };
    let alias = if info.bookkeeping { format!("{alias}  bookkeeping") } else { alias };
    let mut feature = feature_text(info);
    if let Some(reason) = &info.unsupported {
        feature += &harmless(&format!("  not converted: {}", spelled(reason)));
    }
    format!("{:<name_width$}  {dtype:<13}  {:<16}  {size:>10}{alias}{feature}", info.name.to_string(), shape_text(info))
}

/// The lines of `ls` for a signature, one for each input and output.
pub(crate) fn signature_lines(signature: &Signature) -> String {
    let title = if signature.name.is_empty() { "graph".to_owned() } else { format!("signature {}", signature.name) };
    let mut text = format!("{title}\n");
    let both = [("input", &signature.inputs), ("output", &signature.outputs)];
    let width = both.iter().flat_map(|(_, arguments)| arguments.iter()).map(|argument| argument.name.chars().count()).max().unwrap_or(0);
    for (kind, arguments) in both {
        for argument in arguments {
            let dtype = argument.dtype.map_or("?", Dtype::name);
            let shape = match &argument.shape {
                None => "[…]".to_owned(),
                Some(axes) => axes_text(axes),
            };
            let tensor = if argument.tensor == argument.name { String::new() } else { format!("  {}", argument.tensor) };
            text += format!("  {kind:<6}  {:<width$}  {dtype:<9}  {shape:<16}{tensor}", argument.name).trim_end();
            text.push('\n');
        }
    }
    harmless_lines(&text)
}

/// Escapes control characters except line ends.
fn harmless_lines(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.strip_suffix('\n').map_or_else(|| harmless(line), |line| harmless(line) + "\n")).collect()
}

/// The same as JSON.
pub(crate) fn signature_json(signature: &Signature) -> Value {
    let listed = |arguments: &[Argument]| -> Vec<Value> {
        let one = |argument: &Argument| json!({"name": argument.name, "tensor": argument.tensor, "dtype": argument.dtype.map(Dtype::name), "shape": argument.shape});
        arguments.iter().map(one).collect()
    };
    json!({"name": signature.name, "inputs": listed(&signature.inputs), "outputs": listed(&signature.outputs)})
}

/// `key: value` lines for nested facts.
pub(crate) fn facts(out: &mut Stdout, facts: &Map<String, Value>, indent: usize) -> Result<()> {
    const MOST_ITEMS: usize = 20;
    for (key, value) in facts {
        let key = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                out.line(format_args!("{:indent$}{key}:", ""))?;
                self::facts(out, inner, indent + 2)?;
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                out.line(format_args!("{:indent$}{key}:", ""))?;
                for item in items.iter().take(MOST_ITEMS) {
                    let parts = item.as_object().into_iter().flatten().map(|(k, v)| format!("{} {}", k.replace('_', " "), plain(v)));
                    out.line(format_args!("{:indent$}  - {}", "", parts.collect::<Vec<_>>().join(", ")))?;
                }
                if items.len() > MOST_ITEMS {
                    out.line(format_args!("{:indent$}  … {} in total; --json lists them", "", items.len()))?;
                }
            }
            _ => {
                let human = value.as_u64().filter(|n| key.contains("bytes") && *n >= 1024).map(|n| format!(" ({})", HumanBytes(n)));
                out.line(format_args!("{:indent$}{key}: {}{}", "", plain(value), human.unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => Name::new(text.as_bytes()).to_string(),
        Value::Null => "missing".into(),
        other => other.to_string(),
    }
}

/// Facts that every format has about a source or a tensor.
pub(crate) fn source_facts(source: &Source) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("source".into(), path_json(source.path()));
    facts.insert("format".into(), json!(source.format()));
    facts
}

/// The JSON of one output for `convert --json`.
pub(crate) fn output_json(name: &Name, path: &Path, report: &Report) -> Value {
    json!({
        "name": name.to_json(),
        "part": report.part,
        "path": path_json(path),
        "dtype": report.item.as_deref().unwrap_or(report.dtype.name()),
        "source_dtype": report.item.as_deref().unwrap_or(report.source_dtype.name()),
        "descr": report.descr,
        "fortran_order": report.fortran_order,
        "shape": report.shape,
        "nbytes": report.nbytes,
        "seconds": report.elapsed.as_secs_f64(),
        "verified": report.verified == Verified::Full,
        "method": report.method.name(),
    })
}

/// The JSON of a whole conversion for `convert --json`.
pub(crate) fn outputs_json(
    outputs: &[Value],
    skipped: &[Skipped],
    seconds: f64,
    bytes_written: u64,
    peak_memory: u64,
    lost: &[&String],
) -> Value {
    json!({
        "outputs": outputs,
        "skipped": skipped.iter().map(|s| json!({"name": s.name.to_json(), "reason": spelled(&s.reason)})).collect::<Vec<_>>(),
        "seconds": seconds,
        "bytes_written": bytes_written,
        "peak_memory": peak_memory,
        "lost": lost.iter().map(|lost| spelled(lost)).collect::<Vec<_>>(),
    })
}

/// Prints the line for one finished array.
pub(crate) fn converted(name: &Name, path: &Path, report: &Report) {
    note(&format!(
        "{name} -> {}: {} {}, {} in {:.2} s ({}), {}",
        path.display(),
        kind(report),
        ShapeText(&report.shape),
        HumanBytes(report.nbytes),
        report.elapsed.as_secs_f64(),
        report.method,
        verified(report.verified),
    ));
    lost_dtype(report);
}

/// The dtype of the elements, and the source dtype if it differs.
fn kind(report: &Report) -> String {
    let is_of_numpy = report.dtype == Dtype::String || report.item.is_some();
    let now = if is_of_numpy { report.descr.clone() } else { report.dtype.to_string() };
    let cast = if report.dtype == report.source_dtype { String::new() } else { format!(" (from {})", report.source_dtype) };
    format!("{now}{cast}")
}

fn lost_dtype(report: &Report) {
    let Report { dtype, descr, item, .. } = report;
    if item.is_none() && descr.contains('V') {
        note(&format!("note: NumPy has no {dtype}; the file has its bytes as {descr}; read them with .view(ml_dtypes.{dtype})"));
    }
}

/// Prints the line for a finished directory.
pub(crate) fn exported(out: &Path, outputs: &[(Name, PathBuf, Report)], skipped: &[Skipped], seconds: f64) {
    let bytes: u64 = outputs.iter().map(|(_, _, report)| report.nbytes).sum();
    let checked = outputs.iter().filter(|(_, _, report)| report.verified == Verified::Full).count();
    note(&format!(
        "{} arrays -> {}: {} in {seconds:.2} s, {checked} with all checksums verified",
        outputs.len(),
        out.display(),
        HumanBytes(bytes),
    ));
    self::skipped(skipped);
}

/// Prints a line for each skipped tensor.
pub(crate) fn skipped(skipped: &[Skipped]) {
    for skipped in skipped {
        note(&format!("skipped {}: {}", skipped.name, skipped.reason));
    }
}

pub(crate) fn verified(verified: Verified) -> &'static str {
    match verified {
        Verified::Full => "checksums verified",
        Verified::Partial => "checksums verified in part: the other bytes have none, or one that also covers bytes outside the selection",
        Verified::Not => "checksums not verified",
    }
}

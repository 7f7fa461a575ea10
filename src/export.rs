//! Many tensors into a directory: a `.npy` each, and a manifest that maps names to files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::array::{Array, Part};
use crate::batch::Batch;
use crate::convert::Report;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::file_name;
use crate::format::npy::DATA_ALIGN;
use crate::job::{Failure, Job, Pass};
use crate::options::{Options, Progress};
use crate::paths::is_file;
use crate::rows::Rows;
use crate::source::records::{Feature, RecordContainer};
use crate::source::{Name, Source, Tensor};
use crate::staging::StagedDir;

/// The file that maps names to files.
const MANIFEST: &str = "manifest.json";

/// What is kept of each tensor until the end: two names, a path, a shape, a report.
const OUTPUT_HEAP_BYTES: usize = 512;

/// What was written into a directory, and what was not.
#[derive(Debug)]
#[non_exhaustive]
pub struct Export {
    /// The arrays, in the order of the source.
    pub outputs: Vec<Exported>,
    /// The tensors that cannot be converted.
    pub skipped: Vec<Skipped>,
}

/// One array in the directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported {
    /// The tensor's name.
    pub name: Name,
    /// The array's file.
    pub path: PathBuf,
    /// What was done.
    pub report: Report,
}

/// One tensor that was not converted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Skipped {
    /// The tensor's name.
    pub name: Name,
    /// Why not.
    pub reason: String,
}

/// Converts `tensors` of `source`, or `rows` of each, into the directory `dir`.
///
/// A directory that does not exist appears complete or not at all. One that exists must be empty, or
/// [`Options::overwrite`] chosen: when everything is complete, files get their names in it one by one, `manifest.json` last,
/// and whatever else is in it is left alone. Tensors that an array cannot hold as it was asked for are skipped and listed:
/// handles, casts and byte orders that do not exist, strings that would lose something. A value that a cast would change is an
/// error, where values must not ([`Options::strict`]).
///
/// # Errors
/// As [`Converter::run`](crate::Converter::run); [`Error::Unsupported`] when there is nothing to convert.
pub fn export(source: &Source, tensors: &[Tensor<'_>], rows: Option<Rows>, dir: impl AsRef<Path>, options: &Options) -> Result<Export> {
    let dir = dir.as_ref();
    let options = &options.settled();
    if let Some(records) = source.records() {
        return export_records(source, records, tensors, rows, dir, options);
    }
    let staged = StagedDir::create(dir, options.existing(), options.calls())?;
    let heap_bytes = source.heap_bytes().saturating_add((tensors.len() * OUTPUT_HEAP_BYTES) as u64);
    // The small ones together, then each of the others with all workers on it.
    let batch = Batch::new(&staged, dir, rows, heap_bytes, options)?;
    let Planned { outputs: planned, mut skipped, total_bytes } = plan_all(source, tensors, &batch, &staged, options)?;

    let small: Vec<usize> = (0..planned.len()).filter(|&i| batch.takes(planned[i].nbytes, planned[i].is_turned)).collect();
    let mut reports: Vec<Option<Result<Report, String>>> = planned.iter().map(|_| None).collect();
    let mut done_bytes = 0;
    let together: Vec<&Output<'_>> = small.iter().map(|&i| &planned[i]).collect();
    for (&i, report) in small.iter().zip(batch.convert(&together, &with_offset(options, 0, total_bytes))?) {
        done_bytes += planned[i].nbytes;
        reports[i] = Some(report);
    }
    let mut outputs = Vec::with_capacity(planned.len());
    for (output, report) in planned.iter().zip(reports) {
        let path = dir.join(&output.file);
        let report = if let Some(report) = report {
            report
        } else {
            let options = &with_offset(options, done_bytes, total_bytes);
            output.or_left_out(convert_one(output, &path, &batch, &staged, options))?
        };
        done_bytes += output.nbytes;
        match report {
            Ok(report) => outputs.push(Exported { name: output.name().clone(), path, report }),
            Err(reason) => skipped.push(Skipped { name: output.name().clone(), reason }),
        }
    }
    if outputs.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    write_manifest(source, &outputs, &skipped, dir, &staged)?;
    batch.sync()?;
    options.cancel.check()?;
    staged.publish()?;
    Ok(Export { outputs, skipped })
}

/// The same for features of records: one pass over each set of them, for all features that are wanted.
fn export_records(
    source: &Source,
    records: &RecordContainer,
    tensors: &[Tensor<'_>],
    rows: Option<Rows>,
    dir: &Path,
    options: &Options,
) -> Result<Export> {
    let staged = StagedDir::create(dir, options.existing(), options.calls())?;
    let mut sets: BTreeMap<usize, Vec<(&Name, Feature)>> = BTreeMap::new();
    for tensor in tensors {
        let (set, feature) = records.feature(tensor.index());
        sets.entry(set).or_default().push((&tensor.info().name, feature));
    }
    let (mut outputs, mut skipped) = (Vec::new(), Vec::new());
    for (set, mut features) in sets {
        // A feature that turns out to be no array is left out, and the others are made without it.
        while !features.is_empty() {
            match export_pass(source, records, set, &features, rows, dir, &staged, options) {
                Ok(done) => {
                    outputs.extend(done);
                    break;
                }
                Err(Failure { column: Some(column), error: error @ (Error::Unsupported { .. } | Error::Lossy { .. }) })
                    if !options.strict =>
                {
                    let (name, _) = features.remove(column);
                    skipped.push(Skipped { name: name.clone(), reason: error.to_string() });
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }
    if outputs.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    write_manifest(source, &outputs, &skipped, dir, &staged)?;
    options.cancel.check()?;
    staged.publish()?;
    Ok(Export { outputs, skipped })
}

#[expect(clippy::too_many_arguments, reason = "what is exported, from where, and to where")]
fn export_pass(
    source: &Source,
    records: &RecordContainer,
    set: usize,
    features: &[(&Name, Feature)],
    rows: Option<Rows>,
    dir: &Path,
    staged: &StagedDir,
    options: &Options,
) -> Result<Vec<Exported>, Failure> {
    let started = Instant::now();
    let wanted: Vec<Feature> = features.iter().map(|(_, feature)| feature.clone()).collect();
    let pass = Pass::plan(records, set, &wanted, rows, source.heap_bytes(), options)?;
    let mut named = Vec::with_capacity(pass.arrays.len());
    let mut files = HashSet::new();
    for array in &pass.arrays {
        let name = features[array.column].0;
        let file = array.part.path(Path::new(&file_name::encode(name.as_bytes()))).to_string_lossy().into_owned();
        if !files.insert(file.clone()) {
            return Err(Error::bad_request(format!("two arrays would become {file}: convert them into two directories")).into());
        }
        let path = dir.join(&file);
        if staged.is_there() {
            staged.check_replaceable(&file)?;
            source.check_not_own(&path)?;
        }
        named.push((name, file, path));
    }
    let made = || -> Result<Vec<Exported>, Failure> {
        let files: Vec<_> =
            named.iter().map(|(_, file, path)| Ok((Arc::new(staged.create_file(file)?), path.as_path()))).collect::<Result<_>>()?;
        let outputs = pass.outputs(&files, options)?;
        let filled = pass.run(&outputs, options)?;
        let outcomes = pass.finish(outputs, &filled, options)?;
        let exported = |(at, outcome): (usize, &_)| {
            let report = pass.report(at, &filled, outcome, started, options)?;
            Ok(Exported { name: named[at].0.clone(), path: named[at].2.clone(), report })
        };
        Ok(outcomes.iter().enumerate().map(exported).collect::<Result<_>>()?)
    };
    made().inspect_err(|_| {
        for (_, file, _) in &named {
            // What was not made has no file.
            let _ = staged.remove_file(file);
        }
    })
}

/// One file of an export.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    tensor: &'a Tensor<'a>,
    part: Part,
    pub(crate) file: String,
    /// Bytes of its elements.
    nbytes: u64,
    /// Whether it is in Fortran order.
    is_turned: bool,
}

impl<'a> Output<'a> {
    /// The source, for messages.
    pub(crate) fn source_path(&self) -> &Path {
        self.tensor.source().path()
    }

    fn name(&self) -> &Name {
        &self.tensor.info().name
    }

    /// The array that goes into the file.
    pub(crate) fn array(&self, rows: Option<Rows>, options: &Options) -> Result<Array<'a>> {
        let arrays = Array::of_tensor(self.tensor, rows, options)?;
        let array = arrays.into_iter().find(|array| array.part == self.part);
        array.ok_or_else(|| Error::bad_request(format!("tensor {} has no {}", self.name(), self.part)))
    }

    /// Takes a result apart: what was done, or why the tensor is left out, or what ends the whole export.
    pub(crate) fn or_left_out(&self, result: Result<Report>) -> Result<Result<Report, String>> {
        match result {
            Ok(report) => Ok(Ok(report)),
            Err(error) if is_lossy(self.tensor, &error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Whether `tensor` has strings that the array cannot hold as they are.
fn is_lossy(tensor: &Tensor<'_>, error: &Error) -> bool {
    matches!(error, Error::Lossy { .. }) && tensor.info().spec.dtype() == Dtype::String
}

/// Converts one that is not small.
fn convert_one(output: &Output<'_>, path: &Path, batch: &Batch<'_>, staged: &StagedDir, options: &Options) -> Result<Report> {
    let started = Instant::now();
    let array = output.array(batch.rows, options)?;
    let job = Job::new(&array, batch.rows, batch.heap_bytes, options)?;
    let file = Arc::new(staged.create_file(&output.file)?);
    let outcome = job.fill(&file, path, options);
    drop(file);
    if outcome.as_ref().is_err_and(|error| is_lossy(output.tensor, error)) {
        staged.remove_file(&output.file)?;
    }
    Ok(job.report(&outcome?, started))
}

pub(crate) fn nothing_to_convert(source: &Source, skipped: &[Skipped]) -> Error {
    let detail = match skipped.first() {
        Some(first) => format!("none of {} tensors can be converted: {}: {}", skipped.len(), first.name, first.reason),
        None => "there are no tensors".to_owned(),
    };
    Error::Unsupported { what: format!("converting {}", source.path().display()), detail }
}

/// What an export will write.
struct Planned<'a> {
    outputs: Vec<Output<'a>>,
    skipped: Vec<Skipped>,
    /// Bytes of all elements.
    total_bytes: u64,
}

/// Refuses all that can be refused before the first byte is written.
fn plan_all<'a>(
    source: &Source,
    tensors: &'a [Tensor<'a>],
    batch: &Batch<'_>,
    staged: &StagedDir,
    options: &Options,
) -> Result<Planned<'a>> {
    let Batch { dir, rows, heap_bytes, .. } = *batch;
    let mut planned = Planned { outputs: Vec::new(), skipped: Vec::new(), total_bytes: 0 };
    let mut needed = 0u64;
    let trial = staged.unnamed_file().ok();
    for tensor in tensors {
        options.cancel.check()?;
        let name = &tensor.info().name;
        let before = planned.outputs.len();
        let result = Array::of_tensor(tensor, rows, options).and_then(|arrays| {
            for array in arrays {
                let job = Job::new(&array, rows, heap_bytes, options)?;
                job.check_memory(options)?;
                let (nbytes, is_turned) = (job.spec.nbytes(), job.is_turned());
                let copied = match &trial {
                    // A batch writes them whole.
                    _ if batch.takes(nbytes, is_turned) => nbytes,
                    Some(file) if job.can_share(file, options)? => 0,
                    _ => job.data_bytes(options)?,
                };
                needed = needed.saturating_add(copied).saturating_add(DATA_ALIGN as u64);
                let file = array.part.path(Path::new(&file_name::encode(name.as_bytes()))).to_string_lossy().into_owned();
                planned.outputs.push(Output { tensor, part: array.part, file, nbytes, is_turned });
            }
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(Error::BadRequest { detail }) => return Err(Error::bad_request(format!("tensor {name}: {detail}"))),
            Err(error) => {
                if !matches!(error, Error::Unsupported { .. }) && !is_lossy(tensor, &error) {
                    return Err(error);
                }
                planned.outputs.truncate(before);
                let reason = tensor.info().unsupported.clone().unwrap_or_else(|| error.to_string());
                planned.skipped.push(Skipped { name: name.clone(), reason });
            }
        }
        for output in &planned.outputs[before..] {
            planned.total_bytes = planned.total_bytes.saturating_add(output.nbytes);
            if staged.is_there() {
                staged.check_replaceable(&output.file)?;
                source.check_not_own(&dir.join(&output.file))?;
            }
        }
    }
    if planned.outputs.is_empty() {
        return Err(nothing_to_convert(source, &planned.skipped));
    }
    check_distinct(&planned.outputs)?;
    if staged.is_there() {
        staged.check_replaceable(MANIFEST)?;
    }
    match staged.free_bytes() {
        Some(free) if free < needed => {
            let what = format!("disk space for {}, which {} becomes", dir.display(), source.path().display());
            Err(Error::Limit { what, asked: needed, allowed: Some(free) })
        }
        _ => Ok(planned),
    }
}

/// Refuses two files of one name: names of tensors have one each, but those of parts may be another tensor's.
fn check_distinct(outputs: &[Output<'_>]) -> Result<()> {
    let parts: HashMap<&str, &Output<'_>> =
        outputs.iter().filter(|output| output.part != Part::Whole).map(|output| (output.file.as_str(), output)).collect();
    let both = outputs
        .iter()
        .find_map(|output| parts.get(output.file.as_str()).filter(|other| other.part != output.part).map(|other| (output, other)));
    match both {
        Some((one, other)) => Err(Error::bad_request(format!(
            "tensor {} and the {} of {} would both become {}: convert them into two directories",
            one.name(),
            other.part,
            other.name(),
            one.file
        ))),
        None => Ok(()),
    }
}

/// The caller's progress, counted over all tensors.
pub(crate) fn with_offset(options: &Options, done: u64, total_bytes: u64) -> Options {
    let Some(report) = options.progress.clone() else {
        return options.clone();
    };
    options.clone().progress(move |p| report(&Progress { done_bytes: done + p.done_bytes, total_bytes, ..*p }))
}

/// The outputs as the manifest lists them, made one by one.
struct Listed<'a>(&'a [Exported]);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|output| {
            json!({
                "name": output.name.to_json(),
                "file": output.path.file_name().map(|file| file.to_string_lossy()),
                "part": output.report.part,
                "dtype": output.report.dtype.name(),
                "source_dtype": output.report.source_dtype.name(),
                "descr": output.report.descr,
                "fortran_order": output.report.fortran_order,
                "shape": output.report.shape,
                "nbytes": output.report.nbytes,
            })
        }))
    }
}

#[derive(Serialize)]
struct WrittenManifest<'a> {
    source: &'a str,
    format: &'a str,
    tensors: Listed<'a>,
    skipped: Vec<Value>,
}

fn write_manifest(source: &Source, outputs: &[Exported], skipped: &[Skipped], dir: &Path, staged: &StagedDir) -> Result<()> {
    let manifest = WrittenManifest {
        source: &source.path().to_string_lossy(),
        format: source.format(),
        tensors: Listed(outputs),
        skipped: skipped.iter().map(|s| json!({"name": s.name.to_json(), "reason": s.reason})).collect(),
    };
    let file = staged.create_file(MANIFEST)?;
    let mut out = BufWriter::new(file.file());
    let written = serde_json::to_writer_pretty(&mut out, &manifest).map_err(std::io::Error::from);
    let written = written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).and_then(|()| file.file().sync_all());
    written.map_err(Error::io("write", &dir.join(MANIFEST)))
}

/// One array that a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestFile {
    /// The tensor's name.
    pub name: String,
    /// The array's file in the directory.
    pub file: String,
    /// The dtype of the array's elements, where that is not the tensor's because of a cast.
    pub cast: Option<Dtype>,
}

/// The arrays that the manifest in `dir` lists.
///
/// # Errors
/// [`Error::NotFound`] when there is no manifest, [`Error::Malformed`] when it is not one that [`export`] wrote.
pub fn manifest_files(dir: impl AsRef<Path>) -> Result<Vec<ManifestFile>> {
    let path = dir.as_ref().join(MANIFEST);
    if !is_file(&path)? {
        let detail = format!("{} has none, so it is no directory that an export made", dir.as_ref().display());
        return Err(Error::NotFound { what: MANIFEST, detail });
    }
    let file = fs::File::open(&path).map_err(Error::io("open", &path))?;
    let manifest: Manifest =
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(|e| Error::malformed(&path, "manifest", e.to_string()))?;
    let checked = |entry: ManifestEntry| {
        let ManifestEntry { name, file, dtype, source_dtype } = entry;
        if file.contains('/') || !file.ends_with(file_name::EXTENSION) {
            return Err(Error::malformed(&path, "manifest", format!("{file:?} is not the name of an array in the directory")));
        }
        let is_cast = source_dtype.is_some_and(|source| source != dtype && source != Dtype::String.name());
        let cast = if is_cast {
            let known = Dtype::from_name(&dtype).ok_or_else(|| Error::malformed(&path, "manifest", format!("there is no dtype {dtype:?}")));
            Some(known?)
        } else {
            None
        };
        Ok(ManifestFile { name, file, cast })
    };
    manifest.tensors.into_iter().map(checked).collect()
}

#[derive(serde::Deserialize)]
struct Manifest {
    tensors: Vec<ManifestEntry>,
}

#[derive(serde::Deserialize)]
struct ManifestEntry {
    name: String,
    file: String,
    #[serde(default)]
    dtype: String,
    source_dtype: Option<String>,
}

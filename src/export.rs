//! Many tensors into a directory: a `.npy` each, and a manifest that maps names to files.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::batch::Batch;
use crate::convert::Report;
use crate::error::{Error, Result};
use crate::file_name;
use crate::format::npy::DATA_ALIGN;
use crate::job::Job;
use crate::options::{Options, Progress};
use crate::paths::is_file;
use crate::plan::Memory;
use crate::rows::Rows;
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
/// and whatever else is in it is left alone. Tensors without fixed-size elements are skipped and listed.
///
/// # Errors
/// As [`Converter::run`](crate::Converter::run); [`Error::Unsupported`] when there is nothing to convert.
pub fn export(source: &Source, tensors: &[Tensor<'_>], rows: Option<Rows>, dir: impl AsRef<Path>, options: &Options) -> Result<Export> {
    let dir = dir.as_ref();
    let options = &options.settled();
    let (chosen, skipped): (Vec<&Tensor<'_>>, Vec<&Tensor<'_>>) = tensors.iter().partition(|tensor| tensor.info().unsupported.is_none());
    let skipped: Vec<Skipped> = skipped
        .into_iter()
        .map(|tensor| Skipped { name: tensor.info().name.clone(), reason: tensor.info().unsupported.clone().unwrap_or_default() })
        .collect();
    if chosen.is_empty() {
        let detail = match skipped.first() {
            Some(first) => format!("none of {} tensors can be converted: {}: {}", skipped.len(), first.name, first.reason),
            None => "there are no tensors".to_owned(),
        };
        return Err(Error::Unsupported { what: format!("converting {}", source.path().display()), detail });
    }
    let staged = StagedDir::create(dir, options.existing(), options.calls())?;
    let heap_bytes = source.heap_bytes().saturating_add((chosen.len() * OUTPUT_HEAP_BYTES) as u64);
    // The small ones together, then each of the others with all workers on it.
    let batch = Batch::new(&staged, dir, rows, heap_bytes, options)?;
    let total_bytes = check_all(source, &chosen, &batch, &staged, options)?;

    let small: Vec<usize> = (0..chosen.len()).filter(|&i| batch.takes(chosen[i])).collect();
    let mut reports: Vec<Option<Report>> = chosen.iter().map(|_| None).collect();
    let mut done_bytes = 0;
    let tensors: Vec<&Tensor<'_>> = small.iter().map(|&i| chosen[i]).collect();
    for (&i, report) in small.iter().zip(batch.convert(&tensors, &with_offset(options, 0, total_bytes))?) {
        done_bytes += report.nbytes;
        reports[i] = Some(report);
    }
    let mut outputs = Vec::with_capacity(chosen.len());
    for (tensor, report) in chosen.into_iter().zip(reports) {
        let name = &tensor.info().name;
        let file = file_name::encode(name.as_bytes());
        let path = dir.join(&file);
        let report = if let Some(report) = report {
            report
        } else {
            let started = Instant::now();
            let reader = tensor.reader()?;
            let job = Job::new(reader.as_ref(), rows, heap_bytes)?;
            let outcome = job.fill(&Arc::new(staged.create_file(&file)?), &path, &with_offset(options, done_bytes, total_bytes))?;
            done_bytes += job.spec.nbytes();
            job.report(&outcome, started)
        };
        outputs.push(Exported { name: name.clone(), path, report });
    }
    write_manifest(source, &outputs, &skipped, dir, &staged)?;
    batch.sync()?;
    options.cancel.check()?;
    staged.publish()?;
    Ok(Export { outputs, skipped })
}

/// Refuses all that can be refused before the first byte is written; returns the bytes of all elements.
fn check_all(source: &Source, chosen: &[&Tensor<'_>], batch: &Batch<'_>, staged: &StagedDir, options: &Options) -> Result<u64> {
    let Batch { dir, rows, heap_bytes, .. } = *batch;
    let (mut data, mut needed) = (0u64, 0u64);
    let trial = staged.unnamed_file().ok();
    for tensor in chosen {
        options.cancel.check()?;
        let name = &tensor.info().name;
        let reader = tensor.reader()?;
        let job = Job::new(reader.as_ref(), rows, heap_bytes).map_err(|error| match error {
            Error::BadRequest { detail } => Error::bad_request(format!("tensor {name}: {detail}")),
            error => error,
        })?;
        job.plan(Memory::Buffers, options)?;
        data = data.saturating_add(job.spec.nbytes());
        let copied = match &trial {
            // A batch writes them whole.
            _ if batch.takes(tensor) => job.spec.nbytes(),
            Some(file) if job.can_share(file, options)? => 0,
            _ => job.data_bytes(options)?,
        };
        needed = needed.saturating_add(copied).saturating_add(DATA_ALIGN as u64);
        if staged.is_there() {
            let file = file_name::encode(name.as_bytes());
            staged.check_replaceable(&file)?;
            source.check_not_own(&dir.join(file))?;
        }
    }
    if staged.is_there() {
        staged.check_replaceable(MANIFEST)?;
    }
    match staged.free_bytes() {
        Some(free) if free < needed => {
            Err(Error::Limit { what: format!("disk space for {}", dir.display()), asked: needed, allowed: Some(free) })
        }
        _ => Ok(data),
    }
}

/// The caller's progress, counted over all tensors.
fn with_offset(options: &Options, done: u64, total_bytes: u64) -> Options {
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
                "dtype": output.report.dtype.name(),
                "descr": output.report.dtype.descr(),
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

/// The arrays that the manifest in `dir` lists, as names of tensors and of files.
///
/// # Errors
/// [`Error::NotFound`] when there is no manifest, [`Error::Malformed`] when it is not one that [`export`] wrote.
pub fn manifest_files(dir: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = dir.as_ref().join(MANIFEST);
    if !is_file(&path)? {
        let detail = format!("{} has none, so it is no directory that an export made", dir.as_ref().display());
        return Err(Error::NotFound { what: MANIFEST, detail });
    }
    let file = fs::File::open(&path).map_err(Error::io("open", &path))?;
    let manifest: Manifest =
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(|e| Error::malformed(&path, "manifest", e.to_string()))?;
    let files = manifest.tensors.into_iter().map(|entry| (entry.name, entry.file)).collect::<Vec<_>>();
    match files.iter().find(|(_, file)| file.contains('/') || !file.ends_with(file_name::EXTENSION)) {
        Some((_, file)) => Err(Error::malformed(&path, "manifest", format!("{file:?} is not the name of an array in the directory"))),
        None => Ok(files),
    }
}

#[derive(serde::Deserialize)]
struct Manifest {
    tensors: Vec<ManifestEntry>,
}

#[derive(serde::Deserialize)]
struct ManifestEntry {
    name: String,
    file: String,
}

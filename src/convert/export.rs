//! Exports many tensors into a directory: one `.npy` each, and a manifest that maps names to files.

use std::collections::HashMap;
use std::path::Path;

use super::batch::Batch;
use super::columns::{Attempt, Columns};
use super::destination::Directory;
use super::exported::{Export, Exported, Skipped, nbytes_of, nothing_to_convert, vouch};
use super::manifest::{self, MANIFEST};
use super::many::make;
use super::planned::{PlannedArray, plan};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::Options;
use crate::output::file_name;
use crate::output::part::Part;
use crate::output::staging::dir::StagedDir;
use crate::source::opened::{Source, Tensor};
use crate::source::selection::Selection;
use crate::types::name::Name;
use crate::types::rows::Rows;

/// Heap kept per tensor until the end: two names, a path, a shape, a report.
const OUTPUT_HEAP_BYTES: usize = 512;

/// Converts `tensors`, or `rows` of each, into the directory `dir`.
///
/// A new directory appears complete or not at all. An existing one must be empty, or [`Options::overwrite`] set: when everything
/// is complete, files get their names in it one by one, `manifest.json` last, and its other files are left alone. Tensors that no
/// array can hold as requested are skipped and listed: handles, casts and byte orders that do not exist, strings that would lose
/// something. A value that a cast would change is an error under [`Options::strict`]. Columns of records are made in one pass
/// over each set of records.
///
/// # Errors
/// Those of [`Converter::write`](crate::Converter::write); [`Error::Unsupported`] when there is nothing to convert.
pub fn export(tensors: &Selection, rows: Option<Rows>, dir: impl AsRef<Path>, options: &Options) -> Result<Export> {
    let (source, dir) = (tensors.source(), dir.as_ref());
    let (columns, others): (Vec<&Tensor>, Vec<&Tensor>) = tensors.iter().partition(|tensor| tensor.is_of_records());
    let heap_bytes = source.heap_bytes().saturating_add((tensors.len() * OUTPUT_HEAP_BYTES) as u64);
    let request = &options.request(rows, heap_bytes).for_columns(columns.len() == 1);
    let run = &request.run;
    let staged = StagedDir::create(dir, run.existing, &run.calls)?;
    let mut directory = Directory { staged: &staged, path: dir, files: Vec::new() };
    let batch = Batch::new(&directory, request)?;
    let mut skipped = Vec::new();
    let planned = plan_arrays(source, &others, &batch, &directory, &mut skipped)?;
    directory.files = planned.iter().map(|array| file_of(&array.name, array.part)).collect();
    let passes = Columns::plan_all(&columns, request, &mut skipped)?;
    let columns: Vec<(Name, Part)> = passes.iter().flat_map(Columns::arrays).collect();
    columns.iter().try_for_each(|(name, part)| check_file(source, &directory, &file_of(name, *part)))?;
    check_distinct(planned.iter().map(|array| (&array.name, array.part)).chain(columns.iter().map(|(name, part)| (name, *part))))?;
    if planned.is_empty() && passes.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    check_manifest(&staged)?;
    options.check_applied()?;

    let total_bytes = passes.is_empty().then(|| planned.iter().map(|array| array.nbytes).fold(0, u64::saturating_add));
    let is_one_pass = planned.is_empty() && passes.len() == 1;
    let mut outputs = make(&planned, &batch, &directory, (0, total_bytes), &mut skipped)?;
    for columns in passes {
        // With several passes, the total size is unknown.
        if !is_one_pass {
            run.progress.count_from(nbytes_of(&outputs), None);
        }
        outputs.extend(make_columns(columns, &directory, &mut skipped)?);
    }
    if outputs.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    vouch(source, &mut outputs, request);
    manifest::write(source, &outputs, &skipped, (rows, options), dir, &staged)?;
    batch.sync(&directory)?;
    run.cancel.check()?;
    staged.publish()?;
    Ok(Export { outputs, skipped })
}

/// Plans the arrays of tensors, and makes every check that can be made before the first byte is written.
fn plan_arrays<'a>(
    source: &Source,
    tensors: &[&'a Tensor],
    batch: &Batch<'_>,
    directory: &Directory<'_>,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<PlannedArray<'a>>> {
    let mut needed = 0u64;
    let trial = directory.staged.trial_file();
    let planned = plan(
        tensors.iter().copied(),
        batch.request,
        skipped,
        |_| Ok(()),
        |array, job| {
            let copied = match &trial {
                // A batch writes its arrays whole.
                _ if batch.takes(array) => array.nbytes,
                Some(file) if job.can_share(file)? => 0,
                _ => job.data_bytes()?,
            };
            needed = needed.saturating_add(copied).saturating_add(DATA_ALIGN as u64);
            Ok(())
        },
    )?;
    let files: Vec<(String, u64)> = planned.iter().map(|array| (file_of(&array.name, array.part), array.nbytes)).collect();
    check_files(source, directory, &files, needed)?;
    Ok(planned)
}

/// Makes the columns of a set of records. Those that turn out not to be arrays are left out, and the pass is repeated only if that
/// changes the others.
fn make_columns(columns: Columns<'_>, directory: &Directory<'_>, skipped: &mut Vec<Skipped>) -> Result<Vec<Exported>> {
    let mut left = Some(columns);
    while let Some(columns) = left.take() {
        let arrays = columns.arrays();
        let files: Vec<String> = arrays.iter().map(|(name, part)| file_of(name, *part)).collect();
        let places = files.iter().map(|file| directory.create(file)).collect::<Result<Vec<_>>>()?;
        let reports = match columns.make(&places, skipped)? {
            Attempt::Once(reports, _) => reports,
            Attempt::Again(others) => {
                left = others;
                Vec::new()
            }
        };
        drop(places);
        let mut outputs = Vec::new();
        let reports = reports.into_iter().chain(std::iter::repeat_with(|| None));
        for (((name, _), file), report) in arrays.into_iter().zip(&files).zip(reports) {
            match report {
                Some(report) => outputs.push(Exported { name, path: directory.path.join(file), report }),
                None => directory.staged.remove_file(file)?,
            }
        }
        if !outputs.is_empty() {
            return Ok(outputs);
        }
    }
    Ok(Vec::new())
}

/// The name of an array's file in the directory.
pub(crate) fn file_of(name: &Name, part: Part) -> String {
    part.path(Path::new(&file_name::encode(name.as_bytes()))).to_string_lossy().into_owned()
}

pub(crate) fn check_manifest(staged: &StagedDir) -> Result<()> {
    if staged.is_there() { staged.check_replaceable(MANIFEST) } else { Ok(()) }
}

/// Refuses arrays that would get the same file name. Tensors have distinct ones, but a part of one may have that of another.
pub(crate) fn check_distinct<'a>(arrays: impl Iterator<Item = (&'a Name, Part)>) -> Result<()> {
    let mut known: HashMap<String, (&Name, Part)> = HashMap::new();
    for (name, part) in arrays {
        let file = file_of(name, part);
        if let Some((other, other_part)) = known.insert(file.clone(), (name, part)) {
            let arrays = [(other, other_part), (name, part)].map(|(name, part)| (name.to_string(), part.to_string())).to_vec();
            return Err(BadRequest::SameFile { arrays, file }.into());
        }
    }
    Ok(())
}

/// Refuses files of these sizes whose names the directory cannot take, or for which it has no room.
pub(crate) fn check_files(source: &Source, directory: &Directory<'_>, files: &[(String, u64)], needed: u64) -> Result<()> {
    let Directory { staged, path: dir, .. } = directory;
    files.iter().try_for_each(|(file, _)| check_file(source, directory, file))?;
    if let Some(free) = staged.free_bytes().filter(|&free| free < needed) {
        let what = format!("disk space for {}, which {} becomes", dir.display(), source.path().display());
        return Err(Error::Limit { what, asked: needed, allowed: Some(free) });
    }
    let longest = files.iter().rev().max_by_key(|(_, nbytes)| nbytes);
    longest.map_or(Ok(()), |(file, nbytes)| staged.check_length(file, nbytes.saturating_add(DATA_ALIGN as u64)))
}

/// Refuses a name in an existing directory that the file cannot get.
fn check_file(source: &Source, directory: &Directory<'_>, file: &str) -> Result<()> {
    if directory.staged.is_there() {
        directory.staged.check_replaceable(file)?;
        source.check_not_own(&directory.path.join(file))?;
    }
    Ok(())
}

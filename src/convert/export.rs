//! Exports many tensors into a directory: one `.npy` each, and a manifest that maps names to files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::array::Array;
use super::batch::Batch;
use super::exported::{Exported, Skipped};
use super::job::Job;
use super::manifest::{self, MANIFEST};
use super::output::{TensorOutputs, is_lossy};
use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::{Options, Progress};
use crate::output::file_name;
use crate::output::part::Part;
use crate::output::report::{Estimate, Report};
use crate::output::staging::dir::StagedDir;
use crate::output::staging::file::StagedFile;
use crate::reader::checksums::Verified;
use crate::records::container::RecordContainer;
use crate::records::feature::Feature;
use crate::records::pass::dropped_columns::Dropout;
use crate::records::pass::plan::Pass;
use crate::records::pass::run::Misfits;
use crate::source::opened::{RecordColumn, Source, Tensor};
use crate::source::selection::Selection;
use crate::types::name::Name;
use crate::types::rows::Rows;

/// Heap kept per tensor until the end: two names, a path, a shape, a report.
const OUTPUT_HEAP_BYTES: usize = 512;

/// The result of an export: what was written, and what was skipped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Export {
    /// The arrays, in the order of the source.
    pub outputs: Vec<Exported>,
    /// The tensors that cannot be converted.
    pub skipped: Vec<Skipped>,
}

/// A tensor with the estimates of a dry run for its arrays.
pub type Estimated<'a> = (&'a Tensor, Vec<Estimate>);

/// Checks that the arrays of a tensor could get their names at `path`, and that there is room for them, as
/// [`Converter::write_parts`](crate::Converter::write_parts) does before it reads anything. To try it, hidden files are made for
/// a moment, and leftovers of killed runs are removed. Returns the bytes of room that are needed.
///
/// # Errors
/// [`Error::OutputExists`] where `options` do not allow to replace what is there, or it is never replaced; [`Error::BadRequest`]
/// for a file of the source; [`Error::Limit`]; [`Error::Io`] where the parent directory is missing, cannot be written to, or does
/// not let its files be replaced.
pub fn check_write((tensor, estimates): &Estimated<'_>, path: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let path = path.as_ref();
    let paths: Vec<PathBuf> = estimates.iter().map(|estimate| estimate.part.path(path)).collect();
    paths.iter().try_for_each(|path| tensor.source().check_not_own(path))?;
    let staged = StagedFile::create_all(&paths, options.existing(), &options.calls())?;
    let needed = estimates.iter().map(room_of).fold(0, u64::saturating_add);
    for (file, estimate) in staged.iter().zip(estimates) {
        file.check_room(needed)?;
        file.check_length(estimate.nbytes.saturating_add(DATA_ALIGN as u64))?;
    }
    Ok(needed)
}

/// As [`check_write`], for an [`export`] of arrays into the directory `dir`.
///
/// # Errors
/// Those of [`check_write`].
pub fn check_export(arrays: &[Estimated<'_>], dir: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let dir = dir.as_ref();
    let staged = StagedDir::create(dir, options.existing(), &options.calls())?;
    let each = || arrays.iter().flat_map(|(tensor, estimates)| estimates.iter().map(move |estimate| (*tensor, estimate)));
    let needed = each().map(|(_, estimate)| room_of(estimate)).fold(0, u64::saturating_add);
    let Some((first, _)) = arrays.first() else { return Ok(0) };
    let files: Vec<(String, u64)> =
        each().map(|(tensor, estimate)| (file_of(&tensor.info().name, estimate.part), estimate.nbytes)).collect();
    let mut names = HashSet::new();
    if let Some((twice, _)) = files.iter().find(|(file, _)| !names.insert(file)) {
        return Err(becomes_twice(twice));
    }
    check_files(first.source(), (dir, &staged), files.iter().map(|(file, nbytes)| (file.as_str(), *nbytes)), needed)?;
    check_manifest(&staged)?;
    Ok(needed)
}

fn check_manifest(staged: &StagedDir) -> Result<()> {
    if staged.is_there() { staged.check_replaceable(MANIFEST) } else { Ok(()) }
}

/// The room that an array takes.
fn room_of(estimate: &Estimate) -> u64 {
    estimate.write_bytes.saturating_add(DATA_ALIGN as u64)
}

fn becomes_twice(file: &str) -> Error {
    Error::bad_request(format!("two arrays would become {file}: convert them into two directories"))
}

/// Refuses files of these sizes whose names the directory cannot take, or for which it has no room.
fn check_files<'a>(source: &Source, (dir, staged): Place<'_>, files: impl Iterator<Item = (&'a str, u64)>, needed: u64) -> Result<()> {
    let mut longest: Option<(&str, u64)> = None;
    for (file, nbytes) in files {
        if staged.is_there() {
            staged.check_replaceable(file)?;
            source.check_not_own(&dir.join(file))?;
        }
        longest = longest.filter(|(_, most)| *most >= nbytes).or(Some((file, nbytes)));
    }
    if let Some(free) = staged.free_bytes().filter(|&free| free < needed) {
        let what = format!("disk space for {}, which {} becomes", dir.display(), source.path().display());
        return Err(Error::Limit { what, asked: needed, allowed: Some(free) });
    }
    longest.map_or(Ok(()), |(file, nbytes)| staged.check_length(file, nbytes.saturating_add(DATA_ALIGN as u64)))
}

/// The name of an array's file in the directory.
fn file_of(name: &Name, part: Part) -> String {
    part.path(Path::new(&file_name::encode(name.as_bytes()))).to_string_lossy().into_owned()
}

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
    let options = &options.resolved();
    let staged = StagedDir::create(dir, options.existing(), &options.calls())?;
    let (columns, others): (Vec<&Tensor>, Vec<&Tensor>) = tensors.iter().partition(|tensor| tensor.is_of_records());
    let options = &options.clone().records(options.records.for_one(columns.len() == 1));
    let heap_bytes = source.heap_bytes().saturating_add((tensors.len() * OUTPUT_HEAP_BYTES) as u64);
    // Small tensors are converted together, the others one after the other with all workers.
    let batch = Batch::new(&staged, dir, rows, heap_bytes, options)?;
    let Planned { outputs: planned, mut skipped, total_bytes } = plan_all(source, &others, &batch, &staged, options)?;
    let mut files: HashSet<String> = planned.iter().map(|output| output.file.clone()).collect();
    let mut passes = Vec::new();
    for set in Set::of(&columns) {
        passes.extend(RecordPass::plan(source, set, (rows, heap_bytes), (dir, &staged), &mut files, &mut skipped, options)?);
    }
    if planned.is_empty() && passes.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    check_manifest(&staged)?;
    options.check_applied()?;

    let total_bytes = passes.is_empty().then_some(total_bytes);
    let is_one_pass = planned.is_empty() && passes.len() == 1;
    let mut outputs = convert_planned(&planned, &batch, (dir, &staged), total_bytes, &mut skipped, options)?;
    for pass in passes {
        // With several passes, the total size is unknown.
        let done = outputs.iter().map(|output| output.report.nbytes).sum();
        let options = if is_one_pass { options } else { &with_offset(options, done, None) };
        outputs.extend(pass.convert(heap_bytes, &staged, &mut skipped, options)?);
    }
    if outputs.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    vouch(source, &mut outputs, options);
    manifest::write(source, &outputs, &skipped, (rows, options), dir, &staged)?;
    batch.sync()?;
    options.cancel.check()?;
    staged.publish()?;
    Ok(Export { outputs, skipped })
}

/// Reports tensors as verified that a checksum over several tensors covers; it is compared when the last of them has been read.
pub(crate) fn vouch(source: &Source, outputs: &mut [Exported], options: &Options) {
    for output in outputs.iter_mut().filter(|output| options.verify && output.report.verified != Verified::Full) {
        if source.vouches_for(&output.name) {
            output.report.verified = Verified::Full;
        }
    }
}

/// Makes the arrays of all tensors but columns of records.
fn convert_planned(
    planned: &[TensorOutputs<'_>],
    batch: &Batch<'_>,
    (dir, staged): (&Path, &StagedDir),
    total_bytes: Option<u64>,
    skipped: &mut Vec<Skipped>,
    options: &Options,
) -> Result<Vec<Exported>> {
    let small: Vec<usize> = (0..planned.len()).filter(|&i| batch.has_room_for(planned[i].nbytes, planned[i].changes_order)).collect();
    let mut reports: Vec<Option<Result<Report, String>>> = planned.iter().map(|_| None).collect();
    let mut done_bytes = 0;
    let together: Vec<&TensorOutputs<'_>> = small.iter().map(|&i| &planned[i]).collect();
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
            output.or_left_out(convert_one(output, &path, batch, staged, options))?
        };
        done_bytes += output.nbytes;
        match report {
            Ok(report) => outputs.push(Exported { name: output.name().clone(), path, report }),
            Err(reason) => skipped.push(Skipped { name: output.name().clone(), reason }),
        }
    }
    Ok(outputs)
}

/// The requested columns of one set of records.
pub(crate) struct Set<'a> {
    records: &'a RecordContainer,
    number: usize,
    pub(crate) features: Vec<(Name, Feature)>,
}

impl<'a> Set<'a> {
    /// Groups columns by their set of records, in order.
    pub(crate) fn of(tensors: &[&'a Tensor]) -> Vec<Self> {
        let mut sets: Vec<Self> = Vec::new();
        for tensor in tensors {
            let Some(RecordColumn { records, set: number, feature }) = tensor.column() else { continue };
            let column = (tensor.info().name.clone(), feature);
            match sets.iter_mut().find(|set| std::ptr::eq(set.records, records) && set.number == number) {
                Some(set) => set.features.push(column),
                None => sets.push(Self { records, number, features: vec![column] }),
            }
        }
        sets
    }
}

/// A pass over a set of records, and the files it makes.
struct RecordPass<'a> {
    set: Set<'a>,
    pass: Pass<'a>,
    /// Tensor name, file name and path of each array.
    named: Vec<(Name, String, PathBuf)>,
}

/// The requested rows, and the heap bytes that others hold.
pub(crate) type Wanted = (Option<Rows>, u64);
/// The output directory, and its staging directory.
type Place<'b> = (&'b Path, &'b StagedDir);

impl<'a> RecordPass<'a> {
    /// Plans a pass for the columns of a set. Leaves out those that cannot be arrays; `None` if no column remains.
    fn plan(
        source: &Source,
        mut set: Set<'a>,
        wanted: Wanted,
        (dir, staged): Place<'_>,
        files: &mut HashSet<String>,
        skipped: &mut Vec<Skipped>,
        options: &Options,
    ) -> Result<Option<Self>> {
        let Some(pass) = set.plan(wanted, skipped, options)? else { return Ok(None) };
        let mut named = Vec::with_capacity(pass.arrays.len());
        for array in &pass.arrays {
            let name = set.features[array.column].0.clone();
            let file = file_of(&name, array.part);
            if !files.insert(file.clone()) {
                return Err(becomes_twice(&file));
            }
            let path = dir.join(&file);
            if staged.is_there() {
                staged.check_replaceable(&file)?;
                source.check_not_own(&path)?;
            }
            named.push((name, file, path));
        }
        Ok(Some(Self { set, pass, named }))
    }

    /// Makes the arrays. Columns that turn out not to be arrays are left out, and the pass is repeated only if that changes the
    /// others.
    fn convert(mut self, heap_bytes: u64, staged: &StagedDir, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Vec<Exported>> {
        while self.pass.has_columns() {
            let started = Instant::now();
            let (pass, named) = (&self.pass, &self.named);
            let files: Vec<_> =
                named.iter().map(|(_, file, path)| Ok((Arc::new(staged.create_file(file)?), path.as_path()))).collect::<Result<_>>()?;
            let outputs = pass.outputs(&files, options)?;
            let mut done = pass.run(&outputs, Misfits::of(options), options).map_err(|failure| failure.error)?;
            drop(files);
            if let Some(reason) = done.repeat.take() {
                drop(outputs);
                named.iter().try_for_each(|(_, file, _)| staged.remove_file(file))?;
                self = self.without(reason, done.dropouts, heap_bytes, skipped, options)?;
                continue;
            }
            let outcomes = pass.finish(outputs, &done, options)?;
            let exported = |(at, outcome): &(usize, _)| {
                let (name, _, path) = &named[*at];
                Ok(Exported { name: name.clone(), path: path.clone(), report: pass.report(*at, &done, outcome, started, options)? })
            };
            let exported = outcomes.iter().map(exported).collect::<Result<_>>()?;
            for (array, (_, file, _)) in pass.arrays.iter().zip(named) {
                if done.lacks(array.column) {
                    staged.remove_file(file)?;
                }
            }
            self.set.leave_out(done.dropouts, skipped);
            return Ok(exported);
        }
        Ok(Vec::new())
    }

    /// The same pass without the columns that failed.
    fn without(
        mut self,
        reason: Error,
        dropouts: Vec<Dropout>,
        heap_bytes: u64,
        skipped: &mut Vec<Skipped>,
        options: &Options,
    ) -> Result<Self> {
        if !self.pass.can_be_repeated() {
            return Err(reason);
        }
        let gone: Vec<usize> = dropouts.iter().map(|dropout| dropout.column).collect();
        let mut arrays = self.pass.arrays.iter();
        self.named.retain(|_| arrays.next().is_some_and(|array| !gone.contains(&array.column)));
        self.pass = self.pass.without(&gone, heap_bytes, options)?;
        self.set.leave_out(dropouts, skipped);
        Ok(self)
    }
}

impl<'a> Set<'a> {
    /// Plans a pass for the columns. Leaves out those that cannot be arrays; `None` if no column remains.
    pub(crate) fn plan(&mut self, wanted: Wanted, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Option<Pass<'a>>> {
        let features: Vec<Feature> = self.features.iter().map(|(_, feature)| feature.clone()).collect();
        let mut gone = Vec::new();
        let mut leave_out = |at: usize, error: Error| match error {
            Error::Unsupported { .. } | Error::Lossy { .. } if !options.strict => {
                let (name, feature) = &self.features[at];
                skipped.push(Skipped { name: name.clone(), reason: feature.unsupported.clone().unwrap_or_else(|| error.to_string()) });
                gone.push(at);
                Ok(())
            }
            error => Err(error),
        };
        let pass = Pass::plan_with(self.records, self.number, &features, wanted, options, &mut leave_out)?;
        gone.iter().rev().for_each(|&at| drop(self.features.remove(at)));
        Ok(Some(pass).filter(Pass::has_columns))
    }

    /// Leaves out the columns that failed in a pass.
    pub(crate) fn leave_out(&mut self, dropouts: Vec<Dropout>, skipped: &mut Vec<Skipped>) {
        let mut gone: Vec<usize> = dropouts.iter().map(|dropout| dropout.column).collect();
        for Dropout { column, error, .. } in dropouts {
            skipped.push(Skipped { name: self.features[column].0.clone(), reason: error.to_string() });
        }
        gone.sort_unstable();
        gone.iter().rev().for_each(|&at| drop(self.features.remove(at)));
    }

    /// Whether the records are in files, so that a second pass is cheap.
    pub(crate) fn is_stored(&self) -> bool {
        let set = self.records.set(self.number);
        set.can_be_read_again() && !set.is_made()
    }
}

/// Converts one large tensor.
fn convert_one(output: &TensorOutputs<'_>, path: &Path, batch: &Batch<'_>, staged: &StagedDir, options: &Options) -> Result<Report> {
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
        Some(first) if skipped.len() == 1 => format!("{}: {}", first.name, first.reason),
        Some(first) => format!("none of {} tensors can be converted: {}: {}", skipped.len(), first.name, first.reason),
        None => "there are no tensors".to_owned(),
    };
    Error::Unsupported { what: format!("converting {}", source.path().display()), detail }
}

/// The plan of an export.
struct Planned<'a> {
    outputs: Vec<TensorOutputs<'a>>,
    skipped: Vec<Skipped>,
    /// Bytes of all elements.
    total_bytes: u64,
}

/// Makes every check that can be made before the first byte is written.
fn plan_all<'a>(source: &Source, tensors: &[&'a Tensor], batch: &Batch<'_>, staged: &StagedDir, options: &Options) -> Result<Planned<'a>> {
    let Batch { dir, rows, heap_bytes, .. } = *batch;
    let mut planned = Planned { outputs: Vec::new(), skipped: Vec::new(), total_bytes: 0 };
    let mut needed = 0u64;
    let trial = staged.trial_file();
    for &tensor in tensors {
        options.cancel.check()?;
        let name = &tensor.info().name;
        let before = planned.outputs.len();
        let result = Array::of_tensor(tensor, rows, options).and_then(|arrays| {
            for array in arrays {
                let job = Job::new(&array, rows, heap_bytes, options)?;
                job.check_memory(options)?;
                let (nbytes, changes_order) = (job.spec.nbytes(), job.changes_order());
                let copied = match &trial {
                    // A batch writes its arrays whole, holes included.
                    _ if batch.has_room_for(nbytes, changes_order) => nbytes,
                    Some(file) if job.can_share(file, options)? => 0,
                    _ => job.data_bytes(options)?,
                };
                needed = needed.saturating_add(copied).saturating_add(DATA_ALIGN as u64);
                let file = file_of(name, array.part);
                planned.outputs.push(TensorOutputs { tensor, part: array.part, file, nbytes, changes_order });
            }
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(Error::BadRequest(request)) => return Err(request.of_tensor(name).into()),
            Err(error) => {
                if !matches!(error, Error::Unsupported { .. }) && !is_lossy(tensor, &error) {
                    return Err(error);
                }
                planned.outputs.truncate(before);
                options.note_skipped(tensor.info().spec.dtype());
                let reason = tensor.info().unsupported.clone().unwrap_or_else(|| error.to_string());
                planned.skipped.push(Skipped { name: name.clone(), reason });
            }
        }
        let new = planned.outputs[before..].iter().map(|output| output.nbytes);
        planned.total_bytes = new.fold(planned.total_bytes, u64::saturating_add);
    }
    check_distinct(&planned.outputs)?;
    let files = planned.outputs.iter().map(|output| (output.file.as_str(), output.nbytes));
    check_files(source, (dir, staged), files, needed)?;
    Ok(planned)
}

/// Refuses equal file names. Tensors have distinct ones, but a part of one may have the file name of another tensor.
fn check_distinct(outputs: &[TensorOutputs<'_>]) -> Result<()> {
    let parts: HashMap<&str, &TensorOutputs<'_>> =
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

/// The caller's progress, counted over all tensors, with their total size if it is known.
pub(crate) fn with_offset(options: &Options, done: u64, total_bytes: Option<u64>) -> Options {
    let Some(report) = options.progress.clone() else {
        return options.clone();
    };
    options.clone().progress(move |p| report(&Progress { done_bytes: done + p.done_bytes, total_bytes, ..*p }))
}

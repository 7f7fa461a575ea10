//! What a conversion checks before it makes anything, alone.

use std::path::{Path, PathBuf};

use super::destination::Directory;
use super::export::{check_distinct, check_files, check_manifest, file_of};
use super::pack::{check, check_form, is_stored, not_laid_out, title};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::npy::DATA_ALIGN;
use crate::format::safetensors::FileLayout;
use crate::options::Options;
use crate::options::strings::Strings;
use crate::output::report::Estimate;
use crate::output::staging::dir::StagedDir;
use crate::output::staging::file::StagedFile;
use crate::source::opened::Tensor;
use crate::types::dtype::Dtype;
use crate::types::spec::TensorSpec;

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
    let needed = room_of(estimates.iter());
    for (file, estimate) in staged.iter().zip(estimates) {
        file.check_room(needed)?;
        file.check_length(estimate.nbytes.saturating_add(DATA_ALIGN as u64))?;
    }
    Ok(needed)
}

/// As [`check_write`], for an [`export`](crate::export()) of arrays into the directory `dir`.
///
/// # Errors
/// Those of [`check_write`].
pub fn check_export(arrays: &[Estimated<'_>], dir: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let dir = dir.as_ref();
    let staged = StagedDir::create(dir, options.existing(), &options.calls())?;
    let Some((first, _)) = arrays.first() else { return Ok(0) };
    let needed = room_of(each(arrays).map(|(_, estimate)| estimate));
    let files: Vec<(String, u64)> =
        each(arrays).map(|(tensor, estimate)| (file_of(&tensor.info().name, estimate.part), estimate.nbytes)).collect();
    check_distinct(each(arrays).map(|(tensor, estimate)| (&tensor.info().name, estimate.part)))?;
    check_files(first.source(), &Directory { staged: &staged, path: dir, files: Vec::new() }, &files, needed)?;
    check_manifest(&staged)?;
    Ok(needed)
}

/// Checks that the format can hold what `options` make of a tensor, as far as that is known before reading it.
///
/// # Errors
/// [`Error::BadRequest`] for a layout or a byte order that the format lacks, [`Error::Unsupported`] for a dtype.
pub fn check_packed(tensor: &Tensor, options: &Options) -> Result<()> {
    check_form(&options.form)?;
    // Strings of records are split into arrays first.
    let is_split = tensor.is_of_records() && options.form.strings.peek() == Some(Strings::Offsets);
    if is_split && tensor.info().spec.dtype() == Dtype::String { tensor.check_supported() } else { check(tensor, &options.form) }
}

/// Checks, as [`pack`](crate::pack()) does before it reads elements, that the file could get its name at `path`, and that there is
/// room for it. Returns the bytes of room that are needed, [those beside the file](packing_room) included.
///
/// # Errors
/// Those of [`check_write`]; [`Error::Unsupported`] where the file cannot be laid out.
pub fn check_pack(arrays: &[Estimated<'_>], path: impl AsRef<Path>, options: &Options) -> Result<u64> {
    let path = path.as_ref();
    let Some((first, _)) = arrays.first() else { return Ok(0) };
    first.source().check_not_own(path)?;
    let staged = StagedFile::create(path, options.existing(), &options.calls())?;
    let entry = |(tensor, estimate): (&Tensor, &Estimate)| {
        let spec = TensorSpec::new(estimate.dtype, estimate.shape.clone())?;
        Ok((title(&tensor.info().name, estimate.part), spec))
    };
    let entries = each(arrays).map(entry).collect::<Result<Vec<_>>>()?;
    let entries: Vec<_> = entries.iter().map(|(title, spec)| (title.as_str(), spec.clone())).collect();
    let plan = FileLayout::new(&entries, &[]).map_err(|detail| not_laid_out(path, detail))?;
    let needed = plan.len.saturating_add(packing_room(arrays));
    staged.check_room(needed)?;
    staged.check_length(plan.len)?;
    Ok(needed)
}

/// Bytes of room that [`pack`](crate::pack()) temporarily needs beside the file, at most. Only arrays that a program or TensorFlow
/// computes need any, and only if there are several.
#[must_use]
pub fn packing_room(arrays: &[Estimated<'_>]) -> u64 {
    let is_alone = each(arrays).count() == 1;
    let made = each(arrays).filter(|(tensor, _)| !is_alone && tensor.is_of_records() && !is_stored(tensor));
    made.map(|(_, estimate)| estimate.nbytes).max().unwrap_or(0)
}

fn each<'b>(arrays: &'b [Estimated<'b>]) -> impl Iterator<Item = (&'b Tensor, &'b Estimate)> {
    arrays.iter().flat_map(|(tensor, estimates)| estimates.iter().map(move |estimate| (*tensor, estimate)))
}

/// The room that arrays take.
fn room_of<'b>(estimates: impl Iterator<Item = &'b Estimate>) -> u64 {
    estimates.map(|estimate| estimate.write_bytes.saturating_add(DATA_ALIGN as u64)).fold(0, u64::saturating_add)
}

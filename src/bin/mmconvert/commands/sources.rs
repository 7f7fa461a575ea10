//! Opens sources: tells paths from names, and decides which files belong together.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mmconvert::{Error, Location, Options, Result, Source};

use super::usage;
use crate::args::{Common, Model};
use crate::render::{Notes, note};
#[cfg(feature = "tensorflow")]
use crate::signals;

/// Splits arguments into locations and names; sources come first. A tensor name of the first source counts as a name, even if a
/// file has that name. A source that TensorFlow computes is not opened to check, so there a file counts as a source.
pub(super) fn parse(
    (first, others): (&Path, &[OsString]),
    (format, concat): (Option<&str>, bool),
    options: &Options,
) -> Result<(Vec<Location>, Vec<OsString>)> {
    let mut locations = Location::find(first, format, options)?;
    let mut names = others;
    let is_computed = locations[0].needs_tensorflow(options);
    let mut opened: Option<Source> = None;
    while let [next, rest @ ..] = names {
        let more = match Location::find(Path::new(next), format, options) {
            // It cannot be a source, so it is a name, and nothing has to be opened.
            Err(Error::NotFound { .. }) => break,
            more => more,
        };
        if opened.is_none() && !is_computed {
            opened = Some(locations[0].open(options)?);
        }
        let is_name = |source: &Source| match source.tensor(next.as_bytes()) {
            // An alias of a tensor does not take precedence over an existing file.
            Ok(tensor) => tensor.info().name.as_bytes() == next.as_bytes(),
            Err(_) => source.select(&[next.as_bytes()]).is_ok(),
        };
        if opened.as_ref().is_some_and(is_name) {
            break;
        }
        locations.extend(more?);
        names = rest;
    }
    Ok((settle(locations, concat, options)?, names.to_vec()))
}

/// Groups locations that were found one by one into sources, joined or not.
pub(super) fn settle(locations: Vec<Location>, concat: bool, options: &Options) -> Result<Vec<Location>> {
    if concat { Location::apart(locations, options) } else { Location::group(locations, options) }
}

/// How to open locations.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) concat: bool,
    /// Whether they are only listed, as far as that is possible without TensorFlow.
    pub(super) is_listed: bool,
    pub(super) model: &'a Model,
    pub(super) common: &'a Common,
}

/// Opens locations as one source, joined or side by side.
pub(super) fn open(locations: &[Location], how: How<'_>, options: &Options, notes: &mut Notes) -> Result<Source> {
    let parts = locations.iter().map(|location| open_one(location, how, options)).collect::<Result<Vec<_>>>()?;
    // Checked before anyone looks for tensors that are outputs of a computation.
    options.check_model_applied()?;
    if how.model.tensorflow.is_some() && !how.is_listed && !locations.iter().any(|location| location.needs_tensorflow(options)) {
        let detail = "--tensorflow has no effect on the selection: nothing of it is computed, and files are read without TensorFlow";
        return Err(usage(detail));
    }
    let source = if how.concat { Source::concat(parts)? } else { one_of(parts)? };
    for warning in source.warnings() {
        notes.tell(&format!("warning: {warning}"));
    }
    for converted in source.notes() {
        notes.tell(&format!("note: {converted}"));
    }
    Ok(source)
}

fn one_of(mut parts: Vec<Source>) -> Result<Source> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        last => {
            parts.extend(last);
            Source::together(parts)
        }
    }
}

/// Opens a location. Loads TensorFlow if it computes the location; a listing does without as far as possible.
fn open_one(location: &Location, how: How<'_>, options: &Options) -> Result<Source> {
    let common = how.common;
    let is_needed = location.needs_tensorflow(options);
    let missing = if is_needed { load_tensorflow(how.model.tensorflow.as_deref(), common).err() } else { None };
    let source = match (location.open(options), missing) {
        // Errors in the source are reported first.
        (Err(Error::Unsupported { .. }) | Ok(_), Some(missing)) if !how.is_listed => return Err(missing),
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

#[cfg(feature = "tensorflow")]
#[expect(unsafe_code, reason = "the environment is changed where no other thread looks at it")]
fn load_tensorflow(library: Option<&Path>, common: &Common) -> Result<()> {
    // SAFETY: no source is open and no worker thread is running; the thread that waits for signals does nothing else.
    let path = unsafe { mmconvert::tensorflow::load(library, common.verbose) }?;
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

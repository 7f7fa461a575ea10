//! `mmconvert verify`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mmconvert::{CancelToken, Comparison, Dtype, Error, Location, Manifest, Part, Result, Source, Tensor, compare, compare_packed};
use serde_json::json;

use super::choices::{model, options, with_names};
use super::sources::{How, open, settle};
use super::target::{SAFETENSORS, Target};
use super::usage;
use crate::args::{Common, Verify};
use crate::render::{self, Notes, note};
use crate::{Outcome, signals};

/// `mmconvert verify`.
pub(crate) fn verify(args: &Verify, common: &Common) -> Result<Outcome> {
    let cancel = CancelToken::new();
    signals::cancel_on_signals(&cancel)?;
    run(args, common, &cancel).map_err(|error| cancel.unless_cancelled(error))
}

fn run(args: &Verify, common: &Common, cancel: &CancelToken) -> Result<Outcome> {
    let mut given = options(&args.resources, &args.records).cancel(cancel.clone()).model(model(&args.model, None));
    if let Some(strings) = args.strings {
        given = given.strings(strings);
    }
    if let Some(order) = args.byte_order {
        given = given.byte_order(order);
    }
    // Videos are decoded to some dtypes, which is not a cast.
    if let Some(dtype) = args.dtype {
        given = given.cast(dtype);
    }
    if args.unchecked {
        given = given.verify(false);
    }
    let format = args.format.as_deref();
    if !args.out.exists() && !Part::Values.path(&args.out).exists() {
        return Err(Error::NotFound { what: "array", detail: format!("{} does not exist", args.out.display()) });
    }
    let manifest = if args.out.is_dir() { Some(Manifest::read(&args.out, &given)?) } else { None };
    if let (Some(format), true, Some(_)) = (format, args.against.is_empty(), &manifest) {
        let detail = format!("--format {format} applies to --against SRC only: the manifest of {} names its sources", args.out.display());
        return Err(usage(detail));
    }
    let made = manifest.as_ref().map_or_else(|| Ok(given.clone()), |manifest| manifest.apply(&given))?;
    let mut locations = Vec::new();
    for path in &args.against {
        locations.extend(Location::find(path, format, &made)?);
    }
    let is_joined = manifest.as_ref().is_some_and(Manifest::is_joined);
    let concat = args.concat || is_joined && (args.against.is_empty() || locations.len() > 1);
    let locations = match &manifest {
        _ if !args.against.is_empty() => settle(locations, concat, &made)?,
        Some(manifest) => manifest.locations(&made)?,
        None => {
            let detail = format!("{} does not record its source: name it with --against SRC", args.out.display());
            return Err(usage(detail));
        }
    };
    let made = with_names(made, &locations[0], args.name.as_slice());
    let how = How { concat, is_listed: false, model: &args.model, common };
    let mut notes = Notes::new(common);
    let source = open(&locations, how, &made, &mut notes)?;
    let rows = match (args.rows, &manifest) {
        (None, Some(manifest)) => manifest.rows()?,
        (rows, _) => rows,
    };
    let (mut results, mut different) = (Vec::new(), false);
    let packed = Target::is_packed(&args.out).then(|| Source::open_with(&args.out, Some(SAFETENSORS), &given)).transpose()?;
    let pairs = pairs(args, &source, manifest.as_ref(), packed.as_ref())?;
    if let (Some(name), true) = (&args.name, pairs.is_empty()) {
        let detail = format!("{} has no array of {}", args.out.display(), name.display());
        return Err(usage(detail));
    }
    for (array, tensor, cast) in pairs {
        let options = cast.map_or_else(|| made.clone(), |dtype| made.clone().cast(dtype));
        let (path, comparison) = match array {
            Made::File(path) => {
                let comparison = compare(&path, &tensor, rows, &options);
                (path, comparison)
            }
            Made::Packed(packed) => (args.out.clone(), compare_packed(&packed, &tensor, rows, &options)),
        };
        let name = &tensor.info().name;
        let (equal, text) = match comparison {
            Ok(Comparison::Equal(verified)) => (true, format!("equal; source: {}", render::verified(verified))),
            Ok(Comparison::Different(difference)) => (false, difference.to_string()),
            // A missing array is different, but the others may be equal.
            Err(gone @ Error::NotFound { .. }) if manifest.is_some() => (false, gone.to_string()),
            Err(error) => return Err(error),
        };
        different |= !equal;
        if !equal || !common.quiet {
            note(&format!("{} against {name}: {text}", path.display()));
        }
        results.push(
            json!({"path": render::path_json(&path), "name": name.to_json(), "equal": equal, "difference": (!equal).then_some(text)}),
        );
    }
    let mut warnings = source.warnings();
    if let Some(manifest) = manifest.as_ref().filter(|_| args.name.is_none()) {
        let others = manifest.other_arrays()?;
        warnings.extend(others.iter().map(|path| format!("{} is not in the manifest, so it was not verified", path.display())));
    }
    for warning in warnings {
        notes.tell(&format!("warning: {warning}"));
    }
    given.check_applied()?;
    if args.json {
        render::json_object(&json!({"equal": !different, "outputs": results}))?;
    }
    Ok(if different { Outcome::Different } else { Outcome::Done })
}

/// An output of `convert`.
enum Made {
    File(PathBuf),
    /// A tensor of a safetensors file.
    Packed(Box<Tensor>),
}

/// An array, its source tensor, and the dtype it was cast to.
type Pair = (Made, Tensor, Option<Dtype>);

/// The arrays to check.
fn pairs(args: &Verify, source: &Source, manifest: Option<&Manifest>, packed: Option<&Source>) -> Result<Vec<Pair>> {
    let wanted = args.name.as_deref().map(|name| source.tensor(name.as_bytes())).transpose()?;
    let is_wanted = |tensor: &Tensor| wanted.as_ref().is_none_or(|wanted| wanted.info().name == tensor.info().name);
    let mut pairs = Vec::new();
    if let Some(packed) = packed {
        for own in packed.tensors() {
            let own = own?;
            let tensor = packed_from(source, &own)?;
            if is_wanted(&tensor) {
                pairs.push((Made::Packed(Box::new(own)), tensor, None));
            }
        }
        return Ok(pairs);
    }
    if let Some(manifest) = manifest {
        for entry in manifest.files() {
            let tensor = source.tensor(entry.name.as_bytes())?;
            if is_wanted(&tensor) {
                let made = entry.cast.unwrap_or(tensor.info().spec.dtype());
                if let Some(dtype) = args.dtype.filter(|dtype| *dtype != made) {
                    let detail = format!("--dtype {dtype}: the manifest says that {} was written as {made}; omit --dtype", entry.file);
                    return Err(usage(detail));
                }
                pairs.push((Made::File(args.out.join(&entry.file)), tensor, entry.cast));
            }
        }
        return Ok(pairs);
    }
    let tensor = match wanted {
        Some(tensor) => tensor,
        None => only_tensor(source, &args.out)?,
    };
    // Strings as offsets are two files next to the requested name.
    let parts = [Part::Values, Part::Offsets].map(|part| part.path(&args.out));
    if !args.out.exists() && parts.iter().all(|path| path.exists()) {
        return Ok(parts.map(|path| (Made::File(path), tensor.clone(), None)).into());
    }
    Ok(vec![(Made::File(args.out.clone()), tensor, None)])
}

/// The source tensor of an array in a safetensors file: the one with its name, or with its name minus the suffix of a part.
fn packed_from(source: &Source, packed: &Tensor) -> Result<Tensor> {
    let name = packed.info().name.as_bytes();
    let found = source.tensor(name);
    let whole = |part: Part| source.tensor(name.strip_suffix(format!(".{part}").as_bytes())?).ok();
    match found {
        Err(Error::NoSuchTensor { .. }) => [Part::Values, Part::Offsets].into_iter().find_map(whole).map_or(found, Ok),
        found => found,
    }
}

/// The only tensor of a source that can be converted.
fn only_tensor(source: &Source, output: &Path) -> Result<Tensor> {
    let mut found = None;
    for tensor in source.select::<&[u8]>(&[])? {
        if tensor.info().unsupported.is_none() && found.replace(tensor).is_some() {
            let detail = format!(
                "{} holds {} tensors: name the one that {} was made from",
                source.path().display(),
                source.len()?,
                output.display()
            );
            return Err(usage(detail));
        }
    }
    found.ok_or_else(|| usage(format!("{} holds no tensor that can be converted", source.path().display())))
}

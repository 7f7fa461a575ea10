//! How a path leads to a format, and what is said where it leads to none.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::checkpoint::{instead, names_in, shard_prefix, to_path};
use super::records::FileSet;
use super::{Container, FORMATS, bundle};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::paths::{Found, is_file, list, look_at, parent_of};

/// One format: what it is called, whether a path is one, how it is opened.
pub(crate) trait Driver: Sync {
    fn name(&self) -> &'static str;
    /// What to hand to [`open`](Self::open) if `path` is of this format, judged by what lies there.
    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>>;
    /// Whether a pattern of files is one source of this format; elsewhere each file is one.
    fn reads_patterns(&self) -> bool {
        false
    }
    /// Whether a file that does not look like it can be opened, to say why it is none.
    fn takes_any_file(&self) -> bool {
        false
    }
    /// The same for what no format recognises, where the choices say what it is.
    fn resolve_unrecognised(&self, _path: &Path, _options: &Options) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// Whether opening with these choices takes a running TensorFlow.
    fn needs_tensorflow(&self, _resolved: &Path, _options: &Options) -> bool {
        false
    }
    /// Whether `names` are not those of its tensors, but of what it takes a running TensorFlow to compute.
    fn are_outputs(&self, _resolved: &Path, _names: &[&[u8]]) -> bool {
        false
    }
    fn open(&self, resolved: &Path, options: &Options) -> Result<Box<dyn Container>>;
}

/// The names of all formats, as [`Source::open_as`](super::Source::open_as) takes them.
pub fn formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|driver| driver.name())
}

/// The formats that may be meant: the one with this name, or all.
fn candidates(format: Option<&str>) -> impl Iterator<Item = &'static dyn Driver> {
    FORMATS.iter().copied().filter(move |driver| format.is_none_or(|name| name == driver.name()))
}

/// Whether something that can be opened lies at `path`, judged by its content.
///
/// # Errors
/// [`Error::Io`].
pub fn is_source(path: &Path, format: Option<&str>) -> Result<bool> {
    for driver in candidates(format) {
        match driver.resolve(path) {
            // What is no path, or leads nowhere, is none.
            Err(Error::BadRequest { .. } | Error::NotFound { .. }) | Ok(None) => {}
            found => return found.map(|found| found.is_some()),
        }
    }
    Ok(false)
}

/// The sources that `path` stands for: itself, or the files that it is a pattern of, where these are sources each. They come in the order of
/// the numbers in their names.
///
/// # Errors
/// [`Error::NotFound`] for a pattern that matches nothing, [`Error::Io`].
pub fn expand(path: &Path, format: Option<&str>) -> Result<Vec<PathBuf>> {
    let alone = || Ok(vec![path.to_owned()]);
    let is_pattern = path.to_string_lossy().contains(['*', '?', '[']);
    if !is_pattern || look_at(path)? != Found::Nothing {
        return alone();
    }
    let mut set = match FileSet::expand(path) {
        // What is no pattern may still be a name.
        Err(Error::BadRequest { .. }) | Ok(None) => return alone(),
        set => set?.unwrap_or_default(),
    };
    let Some(first) = set.files.first() else { return alone() };
    for driver in candidates(format) {
        if driver.resolve(first)?.is_some() {
            if driver.reads_patterns() {
                break;
            }
            set.files.sort_by_cached_key(|file| natural_key(file));
            return Ok(set.files);
        }
    }
    alone()
}

/// Orders names with the numbers in them as numbers.
fn natural_key(path: &Path) -> Vec<(Vec<u8>, u128)> {
    let mut rest = path.as_os_str().as_bytes();
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (text, others) = rest.split_at(rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len()));
        let (digits, others) = others.split_at(others.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(others.len()));
        let number = digits.iter().fold(0u128, |number, digit| number.saturating_mul(10).saturating_add(u128::from(digit - b'0')));
        key.push((text.to_vec(), number));
        rest = others;
    }
    key
}

/// Whether opening `path` takes a running TensorFlow.
pub(crate) fn needs_tensorflow(path: &Path, format: Option<&str>, options: &Options) -> Result<bool> {
    for driver in candidates(format) {
        if let Some(resolved) = driver.resolve(path)? {
            return Ok(driver.needs_tensorflow(&resolved, options));
        }
    }
    Ok(false)
}

/// Whether `names` are of what is to be computed.
pub(crate) fn are_outputs(path: &Path, format: Option<&str>, names: &[&[u8]]) -> Result<bool> {
    for driver in candidates(format) {
        if let Some(resolved) = driver.resolve(path)? {
            return Ok(driver.are_outputs(&resolved, names));
        }
    }
    Ok(false)
}

/// Opens `path` as `format`, or as the first format that recognises it.
pub(crate) fn open(path: &Path, format: Option<&str>, options: &Options) -> Result<Box<dyn Container>> {
    let candidates: Vec<&dyn Driver> = candidates(format).collect();
    if candidates.is_empty() {
        let known: Vec<_> = formats().collect();
        return Err(Error::bad_request(format!("there is no format {:?}, only {}", format.unwrap_or_default(), known.join(", "))));
    }
    for driver in &candidates {
        if let Some(resolved) = driver.resolve(path)? {
            return driver.open(&resolved, options);
        }
    }
    for driver in &candidates {
        if let Some(resolved) = driver.resolve_unrecognised(path, options)? {
            return driver.open(&resolved, options);
        }
    }
    // Who names a format of plain files is told what is wrong with the file.
    if let (Some(_), [driver]) = (format, &candidates[..])
        && driver.takes_any_file()
        && is_file(path)?
    {
        return driver.open(path, options);
    }
    Err(unrecognised(path)?)
}

/// Whether the file at a path starts with these bytes.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn starts_with(path: &Path, magic: &[u8]) -> Result<bool> {
    let mut front = vec![0; magic.len()];
    let file = File::open(path).map_err(Error::io("open", path))?;
    match file.read_exact_at(&mut front, 0) {
        Ok(()) => Ok(front == magic),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Says of a path that no format takes what is missing and what was found.
fn unrecognised(path: &Path) -> Result<Error> {
    let not_found = |detail| Ok(Error::NotFound { what: "source", detail });
    match look_at(path)? {
        Found::Directory => {
            list(path)?;
            return not_found(format!("{} is a directory without {}", path.display(), missing_in(path)));
        }
        Found::File => {
            let detail = format!("{} is {}; readable are {}", path.display(), guess(path), formats().collect::<Vec<_>>().join(", "));
            return Ok(Error::Unsupported { what: "this file".into(), detail });
        }
        Found::Other => return not_found(format!("{} is neither a file nor a directory", path.display())),
        Found::Nothing => {}
    }
    let dir = parent_of(path);
    if look_at(dir)? != Found::Directory {
        return not_found(format!("{}: there is no directory {}", path.display(), dir.display()));
    }
    let stem = path.file_name().unwrap_or_default().as_bytes();
    let stem = stem.strip_suffix(b".index").unwrap_or(stem);
    let index = bundle::index_path(&dir.join(to_path(stem)));
    let shard = names_in(dir).into_iter().find(|name| shard_prefix(name.as_bytes()) == Some(stem));
    match shard {
        Some(shard) => not_found(format!("{} is missing, although {} is there", index.display(), shard.to_string_lossy())),
        None => not_found(format!("neither {} nor {} exists{}", path.display(), index.display(), instead(dir))),
    }
}

/// What a directory lacks to be a source, and what is in it.
fn missing_in(dir: &Path) -> String {
    const SHOWN: usize = 5;
    let names = names_in(dir);
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| name.to_string_lossy()).collect();
    let found = match names.len() {
        0 => "it is empty".to_owned(),
        count => format!("found {count} entries: {}{}", shown.join(", "), if count > SHOWN { ", …" } else { "" }),
    };
    format!(
        "a checkpoint state file, a saved_model.pb, a single .index, a dataset_info.json or a snapshot.metadata; {found}{} (files of records in it are named by a pattern: {}/*)",
        instead(dir),
        dir.display()
    )
}

/// What a file seems to be.
fn guess(path: &Path) -> &'static str {
    let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    let mut front = [0; 16];
    let read = File::open(path).and_then(|file| file.read_at(&mut front, 0));
    match read {
        Err(_) => "not readable as a file",
        Ok(0) => "an empty file",
        Ok(_) if front.starts_with(b"\x93NUMPY") => "a .npy array already",
        Ok(_) if front.starts_with(b"\x89HDF\r\n\x1a\n") => "an HDF5 file",
        Ok(_) if front.starts_with(b"PK\x03\x04") => "a zip archive (.npz or .keras)",
        Ok(_) if front.starts_with(&[0x1f, 0x8b]) => "a gzip file",
        Ok(_) if front.starts_with(b"node {") || has_extension("pbtxt") => "a graph in text form (.pbtxt), which is not read",
        Ok(_) if has_extension("cpb") => "a message in chunks (.cpb), which is not read",
        Ok(_) => "in no format known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = ["part-10.npy", "part-9.npy", "part-1.npy", "a2-3", "a2-20", "a10-1"];
        names.sort_by_cached_key(|name| natural_key(Path::new(name)));
        assert_eq!(names, ["a2-3", "a2-20", "a10-1", "part-1.npy", "part-9.npy", "part-10.npy"]);
    }
}

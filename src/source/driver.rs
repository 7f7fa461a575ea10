//! The formats there are, and how a path leads to one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Container;
use super::bundle::{self, Bundle};
use super::cache::Cache;
use super::graph::{GraphDef, Listing};
use super::live;
use super::raw_stream::RawStream;
use super::saved_model;
use super::tf_data::TfData;
use super::tfds::Tfds;
use super::tfrecord::TfRecord;
use super::video::Video;
use crate::budget::Limits;
use crate::error::{Error, Result};
use crate::format::checkpoint_state;
use crate::format::table::FOOTER_LEN;
use crate::options::Options;
use crate::paths::{Found, is_file, list, look_at, parent_of, read_small};

/// One format: what it is called, whether a path is one, how it is opened.
pub(crate) trait Driver: Sync {
    fn name(&self) -> &'static str;
    /// What to hand to [`open`](Self::open) if `path` is of this format, judged by what lies there.
    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>>;
    /// Whether a file that does not look like it can be opened, to say why it is none.
    fn takes_any_file(&self) -> bool {
        false
    }
    /// The same for what no format recognises, where the choices say what it is.
    fn resolve_unrecognised(&self, _path: &Path, _options: &Options) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// Whether opening with these choices takes a running TensorFlow.
    fn needs_tensorflow(&self, _options: &Options) -> bool {
        false
    }
    fn open(&self, resolved: &Path, options: &Options) -> Result<Box<dyn Container>>;
}

/// Every format, the more specific first.
static DRIVERS: &[&dyn Driver] = &[&SavedModel, &TfData, &Tfds, &TensorBundle, &TfDataCache, &RawStream, &Video, &TfRecord, &GraphDef];

/// The names of all formats, as [`Source::open_as`](super::Source::open_as) takes them.
pub fn formats() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().map(|driver| driver.name())
}

/// Whether opening `path` takes a running TensorFlow.
pub(crate) fn needs_tensorflow(path: &Path, format: Option<&str>, options: &Options) -> Result<bool> {
    for driver in DRIVERS.iter().filter(|driver| format.is_none_or(|name| name == driver.name())) {
        if driver.resolve(path)?.is_some() {
            return Ok(driver.needs_tensorflow(options));
        }
    }
    Ok(false)
}

/// Opens `path` as `format`, or as the first format that recognises it.
pub(crate) fn open(path: &Path, format: Option<&str>, options: &Options) -> Result<Box<dyn Container>> {
    let candidates: Vec<&&dyn Driver> = DRIVERS.iter().filter(|driver| format.is_none_or(|name| name == driver.name())).collect();
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

/// A SavedModel directory, or the `saved_model.pb` in it.
struct SavedModel;

impl Driver for SavedModel {
    fn name(&self) -> &'static str {
        "saved-model"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        if path.file_name().is_some_and(|name| name == saved_model::PB) && is_file(path)? {
            return Ok(Some(parent_of(path).to_owned()));
        }
        for name in [saved_model::PB].iter().chain(saved_model::OTHER_FORMS.iter().map(|(name, _)| name)) {
            if is_file(&path.join(name))? {
                return Ok(Some(path.to_owned()));
            }
        }
        Ok(None)
    }

    fn needs_tensorflow(&self, options: &Options) -> bool {
        options.model.wants_model()
    }

    fn open(&self, dir: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let model = saved_model::SavedModel::open(dir)?;
        let variables = model.variables().map(|prefix| Bundle::open(&prefix, self.name(), &Limits::default())).transpose()?;
        if options.model.wants_model() {
            return open_signature(model, variables.as_ref(), options);
        }
        Ok(match variables {
            Some(bundle) => Box::new(bundle.with_signatures(model.signatures())),
            None => Box::new(Listing::of_model(self.name(), &model)?),
        })
    }
}

/// The outputs of a signature of a model, of which TensorFlow is given nothing that is not as it should be.
fn open_signature(model: saved_model::SavedModel, variables: Option<&Bundle>, options: &Options) -> Result<Box<dyn Container>> {
    model.signature(options.model.signature.as_deref())?;
    model.check_graph(options.budget().as_bytes())?;
    variables.map(Bundle::check_all).transpose()?;
    let files = model.files(variables);
    live::open_signature(model, files, options)
}

/// A V2 checkpoint: its prefix, its `.index`, one of its shards, or a directory that holds it.
struct TensorBundle;

impl Driver for TensorBundle {
    fn name(&self) -> &'static str {
        "tensor-bundle"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        if is_file(&bundle::index_path(path))? {
            return Ok(Some(path.to_owned()));
        }
        let bytes = path.as_os_str().as_bytes();
        match look_at(path)? {
            Found::File => match (bytes.strip_suffix(b".index"), shard_prefix(bytes)) {
                (Some(prefix), _) => Ok(Some(to_path(prefix))),
                (None, Some(prefix)) => Ok(Some(to_path(prefix)).filter(|prefix| bundle::index_path(prefix).is_file())),
                (None, None) => Ok(None),
            },
            Found::Directory => resolve_directory(path),
            Found::Nothing | Found::Other => Ok(None),
        }
    }

    fn open(&self, prefix: &Path, _: &Options) -> Result<Box<dyn Container>> {
        let bundle = Bundle::open(prefix, self.name(), &Limits::default())?;
        Ok(match Cache::components(&bundle) {
            Some(components) => Box::new(Cache::new(bundle, components, false)?),
            None => Box::new(bundle),
        })
    }
}

/// The components of what `Dataset.cache` wrote, which is a bundle. Only on request: its keys can be asked for as well.
struct TfDataCache;

impl Driver for TfDataCache {
    fn name(&self) -> &'static str {
        "tf-data-cache"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        TensorBundle.resolve(path)
    }

    fn open(&self, prefix: &Path, _: &Options) -> Result<Box<dyn Container>> {
        let bundle = Bundle::open(prefix, TensorBundle.name(), &Limits::default())?;
        let Some(components) = Cache::components(&bundle) else {
            let detail = format!("the keys of {} are not numbers of elements and components", bundle::index_path(prefix).display());
            return Err(Error::Unsupported { what: "a bundle as a tf.data cache".into(), detail });
        };
        Ok(Box::new(Cache::new(bundle, components, true)?))
    }
}

fn to_path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

/// `P` of `P.data-00001-of-00004`.
fn shard_prefix(bytes: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b".data-";
    let at = bytes.windows(MARK.len()).rposition(|window| window == MARK)?;
    let numbers = &bytes[at + MARK.len()..];
    (numbers.windows(4).any(|w| w == b"-of-") && numbers.iter().all(|b| b.is_ascii_digit() || b"-of".contains(b))).then(|| &bytes[..at])
}

/// The checkpoint that a directory stands for: the newest of its state file, else the only one there.
fn resolve_directory(dir: &Path) -> Result<Option<PathBuf>> {
    let state = dir.join("checkpoint");
    if is_file(&state)? {
        return newest(dir, &state).map(Some);
    }
    let mut prefixes = prefixes_in(dir);
    Ok(if prefixes.len() == 1 { prefixes.pop() } else { None })
}

/// The prefix that the state file names last.
fn newest(dir: &Path, state: &Path) -> Result<PathBuf> {
    let text = read_small(state)?;
    let latest = to_path(&checkpoint_state::parse_latest(&text).map_err(|e| e.in_file(state))?);
    // A relative path counts from the directory; an absolute one is where it was written, often somewhere else.
    let named = dir.join(&latest);
    let beside = latest.file_name().map(|name| dir.join(name));
    let mut tried = vec![named];
    tried.extend(beside.filter(|path| *path != tried[0]));
    if let Some(found) = tried.iter().find(|prefix| bundle::index_path(prefix).is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<String> = tried.iter().map(|path| bundle::index_path(path).display().to_string()).collect();
    let detail = format!("{} names {}, but there is no {}{}", state.display(), latest.display(), tried.join(" and no "), instead(dir));
    Err(Error::NotFound { what: "checkpoint", detail })
}

/// Every `P` with a `P.index` in `dir`, sorted.
fn prefixes_in(dir: &Path) -> Vec<PathBuf> {
    names_in(dir).iter().filter_map(|name| Some(dir.join(to_path(name.as_bytes().strip_suffix(b".index")?)))).collect()
}

/// What could have been meant instead of something in `dir`.
fn instead(dir: &Path) -> String {
    const SHOWN: usize = 5;
    let mut prefixes: Vec<String> = prefixes_in(dir).iter().map(|path| path.display().to_string()).collect();
    let more = if prefixes.len() > SHOWN { ", …" } else { "" };
    prefixes.truncate(SHOWN);
    if prefixes.is_empty() { String::new() } else { format!("; checkpoints there: {}{more}", prefixes.join(", ")) }
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

/// The names in a directory, sorted; none if it cannot be listed.
fn names_in(dir: &Path) -> Vec<OsString> {
    list(dir).unwrap_or_default().iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect()
}

/// What a file seems to be.
fn guess(path: &Path) -> &'static str {
    const TABLE_MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
    let mut front = [0; 16];
    let read = File::open(path).and_then(|file| {
        let len = file.metadata()?.len();
        let n = file.read_at(&mut front, 0)?;
        let mut tail = [0; 8];
        let has_tail = len >= FOOTER_LEN as u64 && file.read_exact_at(&mut tail, len - 8).is_ok();
        Ok((n, has_tail && tail == TABLE_MAGIC))
    });
    match read {
        Err(_) => "not readable as a file",
        Ok((0, _)) => "an empty file",
        Ok((_, true)) => "a table, perhaps a TensorFlow V1 checkpoint",
        Ok(_) if front.starts_with(b"\x93NUMPY") => "a .npy array already",
        Ok(_) if front.starts_with(b"\x89HDF\r\n\x1a\n") => "an HDF5 file",
        Ok(_) if front.starts_with(b"PK\x03\x04") => "a zip archive (.npz or .keras)",
        Ok(_) if front.starts_with(&[0x1f, 0x8b]) => "a gzip file",
        Ok(_) => "in no format known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_lead_back_to_their_prefix() {
        assert_eq!(shard_prefix(b"d/model.ckpt-10.data-00000-of-00001"), Some(&b"d/model.ckpt-10"[..]));
        assert_eq!(shard_prefix(b"a.data-1.data-00002-of-00003"), Some(&b"a.data-1"[..]));
        assert_eq!(shard_prefix(b"a.data-x-of-y"), None);
        assert_eq!(shard_prefix(b"a.index"), None);
    }
}

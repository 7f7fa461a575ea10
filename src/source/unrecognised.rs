//! Explains a path that no format recognises: what it seems to be, and what to do next.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;

use super::bundle;
use super::bundle::names::{names_in, other_checkpoints, shard_prefix, to_path};
use super::formats::formats;
use super::video::picture_hint;
use crate::error::{Error, Result};
use crate::image::FileKind;
use crate::records::stream::bytes::FileBytes;
use crate::storage::archive;
use crate::storage::blob::Storage;
use crate::storage::glob::{Glob, is_pattern};
use crate::storage::paths::{Found, parent_of};
use crate::storage::probe::Probe;
use crate::types::name::Name;

/// Most names that are listed in a message.
const SHOWN: usize = 5;
/// Bytes that are read to guess a file's type: the magic of a tar archive is at 257.
const FRONT: usize = 512;

/// The error for a path that no format recognises: what is missing, and what was found.
///
/// # Errors
/// [`Error::Io`] if the path cannot be examined.
pub(crate) fn unrecognised(probe: &Probe) -> Result<Error> {
    let (path, storage) = (probe.path(), probe.storage());
    let not_found = |detail| Ok(Error::NotFound { what: "source", detail });
    match probe.found()? {
        Found::Directory => {
            storage.list(path)?;
            return not_found(format!("{} is a directory {}", path.display(), missing_in(path, storage)));
        }
        Found::File => {
            let detail = match guess(probe) {
                Some(guess) => format!("{} is {guess}", path.display()),
                None => format!(
                    "{} is in no known format; the known ones are {}. Numbers without any format are read with `raw`",
                    path.display(),
                    formats().collect::<Vec<_>>().join(", ")
                ),
            };
            return Ok(Error::Unsupported { what: "this file".into(), detail });
        }
        Found::Other => {
            let hint = "data from a pipe or a device are read with `raw` and `shape`";
            return not_found(format!("{} is neither a file nor a directory: {hint}", path.display()));
        }
        Found::Nothing => {}
    }
    let dir = parent_of(path);
    if is_pattern(path.as_os_str().as_bytes()) {
        return not_found(format!(
            "there is no {}, and nothing matches it as a pattern{}",
            path.display(),
            other_checkpoints(dir, storage)
        ));
    }
    if storage.look_at(dir)? != Found::Directory {
        return not_found(format!("{}: there is no directory {}", path.display(), dir.display()));
    }
    let name = path.file_name().unwrap_or_default();
    let stem = name.as_bytes();
    let stem = stem.strip_suffix(b".index").unwrap_or(stem);
    let index = bundle::index_path(&dir.join(to_path(stem)));
    let names = names_in(dir, storage);
    if let Some(lock) = unfinished_cache(&names, Some(name)) {
        return not_found(format!("{} is not a finished tf.data cache yet: {}", path.display(), unfinished(dir, lock)));
    }
    match names.iter().find(|name| shard_prefix(name.as_bytes()) == Some(stem)) {
        Some(shard) => not_found(format!("{} is missing, although {} is there", index.display(), shard.to_string_lossy())),
        None => not_found(format!("neither {} nor {} exists{}", path.display(), index.display(), other_checkpoints(dir, storage))),
    }
}

/// The lock file of an unfinished tf.data cache with this name, or with any name.
///
/// Its name is that of the cache, a number, `.lockfile`. Source: `FileCacheDataset` in
/// `tensorflow/core/kernels/data/cache_dataset_ops.cc`.
fn unfinished_cache<'a>(names: &'a [OsString], wanted: Option<&OsStr>) -> Option<&'a OsStr> {
    let cache = |name: &'a OsStr| {
        let (cache, number) = name.to_str()?.strip_suffix(".lockfile")?.rsplit_once('_')?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then_some(cache)
    };
    let is_it = |name: &&'a OsString| cache(name).is_some_and(|cache| wanted.is_none_or(|wanted| wanted == cache));
    names.iter().find(is_it).map(OsString::as_os_str)
}

fn unfinished(dir: &Path, lock: &OsStr) -> String {
    format!(
        "{} shows that it is being written, or that its writer was stopped. A cache is complete when the data set has been gone through once; \
         of a writer that is gone, remove the lock and what lies beside it, and go through the data set again",
        dir.join(lock).display()
    )
}

/// What a directory lacks to be a source, and what it contains.
fn missing_in(dir: &Path, storage: &Arc<dyn Storage>) -> String {
    let names = names_in(dir, storage);
    if let Some(lock) = unfinished_cache(&names, None) {
        return format!("with a tf.data cache that is not finished: {}", unfinished(dir, lock));
    }
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has("config.json") && has("model.weights.h5") {
        return format!("with an unpacked .keras archive: its weights are {}", dir.join("model.weights.h5").display());
    }
    let below = sources_below(dir, storage);
    if !below.is_empty() {
        let shown: Vec<String> = below.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        let more = if below.len() > SHOWN { ", …" } else { "" };
        let count = if below.len() == 1 { "a source below it".to_owned() } else { format!("{} sources below it", below.len()) };
        return format!("with {count}: {}{more}: name that, or one of them", shown.join(", "));
    }
    format!(
        "without a checkpoint state file, a saved_model.pb, a single .index, a dataset_info.json or a snapshot.metadata; {}{}{}",
        found(&names),
        other_checkpoints(dir, storage),
        pattern_in(dir, &names, storage)
    )
}

/// A pattern for the files in a directory, if most of those with a known format are of one kind.
fn pattern_in(dir: &Path, names: &[OsString], storage: &Arc<dyn Storage>) -> String {
    const KINDS: [&str; 5] = ["*.safetensors", "*.npy", "*.npz", "*.h5", "*tfrecord*"];
    let count = |kind: &str| {
        let glob = Glob::new(kind.as_bytes());
        names.iter().filter(|name| glob.as_ref().is_ok_and(|glob| glob.matches(name.as_bytes()))).count()
    };
    let most = KINDS.iter().map(|kind| (count(kind), *kind)).max_by_key(|(count, _)| *count);
    match most {
        Some((1.., kind)) => format!(" (those files are named by a pattern: {}/{kind})", dir.display()),
        _ if names.iter().any(|name| storage.is_file(&dir.join(name)).unwrap_or(false)) => {
            format!(" (files of records in it are named by a pattern: {}/*)", dir.display())
        }
        _ => String::new(),
    }
}

/// Sources in subfolders up to two levels below: configurations and versions of a dataset, versions of a model, runs.
fn sources_below(dir: &Path, storage: &Arc<dyn Storage>) -> Vec<PathBuf> {
    const MOST_LOOKED_AT: usize = 1000;
    const MOST_DEPTH: usize = 3;
    const MARKS: [&str; 4] = ["dataset_info.json", "saved_model.pb", "snapshot.metadata", "checkpoint"];
    let (mut found, mut open, mut looked_at) = (Vec::new(), vec![(dir.to_owned(), 0)], 0);
    while let Some((dir, depth)) = open.pop() {
        for inner in storage.list(&dir).unwrap_or_default().into_iter().rev() {
            let is_hidden = inner.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
            if is_hidden || !storage.look_at(&inner).is_ok_and(|found| found == Found::Directory) {
                continue;
            }
            looked_at += 1;
            if looked_at > MOST_LOOKED_AT {
                return found;
            }
            if MARKS.iter().any(|mark| storage.is_file(&inner.join(mark)).unwrap_or(false)) {
                found.push(inner);
            } else if depth + 1 < MOST_DEPTH {
                open.push((inner, depth + 1));
            }
        }
    }
    found.sort();
    found
}

/// The names in a directory, shortened if there are many.
fn found(names: &[OsString]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| name.to_string_lossy()).collect();
    match names.len() {
        0 => "it is empty".to_owned(),
        count => format!("found {count} entries: {}{}", shown.join(", "), if count > SHOWN { ", …" } else { "" }),
    }
}

/// What a file seems to be, and what to do with it; `None` if that is unknown.
fn guess(probe: &Probe) -> Option<String> {
    let path = probe.path();
    let front = match probe.front() {
        Ok(front) => front,
        Err(error) => return Some(format!("not readable: {error}")),
    };
    if front.is_empty() {
        return Some("an empty file: `format` tfrecord reads it as a file of 0 records".into());
    }
    if let Some(kind) = FileKind::sniff(front) {
        return Some(format!("a {kind} image, which is not a source by itself: {}", picture_hint(Some(kind))));
    }
    let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    let text = match front {
        [b'P', b'K', 3, 4, ..] => return Some(zipped(probe)),
        [0x1f, 0x8b, ..] => return Some(gzipped(probe)),
        _ if is_tar(front) => "a tar archive: unpack it (tar -xf) and name its content",
        // `file_identifier` of tensorflow/lite/schema/schema.fbs.
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => {
            "a TensorFlow Lite model, whose weights are changed for the device: convert the SavedModel or checkpoint that it was made from"
        }
        [b'P', b'A', b'R', b'1', ..] => {
            "a Parquet file, which is not read: pyarrow.parquet reads it; of TFDS, tfds convert_format --out_file_format=tfrecord makes records that are read"
        }
        // The signature of Riegeli, in which ArrayRecord files are.
        [0x83, 0xaf, 0x70, 0xd1, 0x0d, 0x88, 0x4a, 0x3f, ..] => {
            "an ArrayRecord (Riegeli) file, which is not read: tfds convert_format --out_file_format=tfrecord makes records that are read"
        }
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "an Arrow file, which is not read: pyarrow.ipc reads it",
        [b'M', b'A', b'T', b'L', b'A', b'B', b' ', ..] => {
            "a MATLAB file, which is not read: scipy.io.loadmat reads it, numpy.save keeps it"
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] | [b'f', b'L', b'a', b'C', ..] | [b'I', b'D', b'3', ..] => {
            "a sound file: ffmpeg -i FILE -f f32le - | mmconvert convert - --raw float32 --shape CHANNELS -o OUT.npy makes samples of it"
        }
        [0x80, 2..=5, ..] => "a pickle of Python objects, which is never loaded: load it in Python and save its arrays with numpy.save",
        _ if front.starts_with(b"node {") || has_extension("pbtxt") => {
            "a graph or a model in text form, which is not read: save it in binary form"
        }
        _ if front.starts_with(b"model_checkpoint_path") => {
            return Some(format!(
                "the state file of checkpoints: name the directory, {}, for the latest of them, or one of them",
                parent_of(path).display()
            ));
        }
        _ if path.to_string_lossy().ends_with(".safetensors.index.json") => {
            return Some(format!("a list of shards: name them by a pattern, {}", parent_of(path).join("*.safetensors").display()));
        }
        _ if ["h264", "264", "h265", "hevc", "m4v", "mpg", "mpeg", "vob", "dv", "ts", "m2ts", "mts", "y4m", "wmv", "ogv"]
            .iter()
            .any(|own| has_extension(own)) =>
        {
            "a video judging only by its name: `format` video lets ffmpeg try it"
        }
        _ if has_extension("cpb") => "a message in chunks (.cpb), which is not read",
        _ if has_extension("meta") && probe.storage().is_file(&path.with_extension("index")).unwrap_or(false) => {
            return Some(format!("the graph of a checkpoint; its values are in {}", path.with_extension("").display()));
        }
        _ => return None,
    };
    Some(text.into())
}

fn is_tar(front: &[u8]) -> bool {
    front.get(257..262) == Some(b"ustar")
}

/// What a ZIP archive seems to be.
fn zipped(probe: &Probe) -> String {
    let Ok(members) = probe.open().and_then(|file| archive::members(&file)) else {
        return "a ZIP archive that cannot be read: its directory is missing or damaged".into();
    };
    let ends_in = |wanted: &[u8]| members.iter().any(|member| member.name.ends_with(wanted));
    if ends_in(b"saved_model.pb") {
        return "a ZIP archive with a SavedModel: unpack it (unzip) and name its directory".into();
    }
    if ends_in(b"data.pkl") {
        return "a PyTorch file, whose pickles are never loaded: save its tensors as safetensors (safetensors.torch.save_file), which are read".into();
    }
    let names: Vec<String> = members.iter().take(SHOWN).map(|member| Name::new(member.name.clone()).to_string()).collect();
    let more = if members.len() > SHOWN { ", …" } else { "" };
    format!(
        "a ZIP archive without arrays or weights: {} members ({}{more}); unpack it (unzip) and name its content",
        members.len(),
        names.join(", ")
    )
}

/// What a gzip file contains.
fn gzipped(probe: &Probe) -> String {
    let mut front = Vec::new();
    let read = probe.open().map_err(std::io::Error::other).and_then(|file| {
        let bytes = FileBytes::new(&file, 0);
        GzDecoder::new(bytes).take(FRONT as u64).read_to_end(&mut front)
    });
    match read {
        Ok(_) if is_tar(&front) => "a packed tar archive: unpack it (tar -xzf) and name its content".into(),
        Ok(0) => "packed with gzip, but empty".into(),
        Ok(_) => "packed with gzip, but its content is not records: unpack it (gunzip -k) and name the result".into(),
        Err(error) => format!("packed with gzip, but cannot be unpacked: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_cache_tells_its_name() {
        let names: Vec<OsString> =
            ["c_0.data-00000-of-00001.tempstate12", "c_0.lockfile", "x.lockfile", "d_e_12.lockfile"].map(OsString::from).into();
        assert_eq!(unfinished_cache(&names, Some(OsStr::new("c"))), Some(OsStr::new("c_0.lockfile")));
        assert_eq!(unfinished_cache(&names, Some(OsStr::new("d_e"))), Some(OsStr::new("d_e_12.lockfile")));
        assert_eq!(unfinished_cache(&names, Some(OsStr::new("x"))), None);
        assert_eq!(unfinished_cache(&names, None), Some(OsStr::new("c_0.lockfile")));
    }
}

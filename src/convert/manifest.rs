//! `manifest.json` records what an export wrote, from which sources and with which options, so that `verify` needs no arguments.

use std::ffi::OsString;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::exported::{Exported, Skipped};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::model::ModelOptions;
use crate::options::records::RecordOptions;
use crate::output::file_name;
use crate::output::staging::dir::StagedDir;
use crate::source::location::Location;
use crate::source::opened::Source;
use crate::storage::input::open_file;
use crate::storage::paths::{is_file, list, parent_of};
use crate::types::dtype::Dtype;
use crate::types::rows::Rows;

/// The manifest's file name.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The outputs as the manifest lists them, serialised one at a time.
struct ListedArrays<'a>(&'a [Exported]);

impl Serialize for ListedArrays<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|output| {
            json!({
                "name": output.name.to_json(),
                "file": output.path.file_name().map(|file| file.to_string_lossy()),
                "part": output.report.part,
                "dtype": output.report.item.as_deref().unwrap_or(output.report.dtype.name()),
                "source_dtype": output.report.item.as_deref().unwrap_or(output.report.source_dtype.name()),
                "descr": output.report.descr,
                "fortran_order": output.report.fortran_order,
                "shape": output.report.shape,
                "nbytes": output.report.nbytes,
            })
        }))
    }
}

#[derive(Serialize)]
struct Written<'a> {
    source: &'a str,
    format: &'a str,
    sources: Vec<Value>,
    joined: bool,
    choices: Map<String, Value>,
    tensors: ListedArrays<'a>,
    skipped: Vec<Value>,
    lost: Vec<String>,
}

/// Writes the manifest of an export.
pub(crate) fn write(
    source: &Source,
    outputs: &[Exported],
    skipped: &[Skipped],
    (rows, options): (Option<Rows>, &Options),
    dir: &Path,
    staged: &StagedDir,
) -> Result<()> {
    let origin = source.origin();
    let part = |part: &crate::source::origin::GivenPart| json!({"paths": part.paths.iter().map(|path| path_json(path)).collect::<Vec<_>>(), "format": part.format});
    let mut lost: Vec<String> = source.lost();
    lost.extend(outputs.iter().flat_map(|output| output.report.lost.clone()));
    lost.dedup();
    let written = Written {
        source: &source.path().to_string_lossy(),
        format: source.format(),
        sources: origin.parts.iter().map(part).collect(),
        joined: origin.is_joined,
        choices: choices(rows, options),
        tensors: ListedArrays(outputs),
        skipped: skipped.iter().map(|s| json!({"name": s.name.to_json(), "reason": s.reason})).collect(),
        lost,
    };
    let file = staged.create_file(MANIFEST)?;
    let mut out = BufWriter::new(&file);
    let done = serde_json::to_writer_pretty(&mut out, &written).map_err(std::io::Error::from);
    let done = done.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).and_then(|()| file.sync_all());
    done.map_err(Error::io("write", &dir.join(MANIFEST)))
}

/// An absolute path that means the same wherever it is read: text, or bytes where it is not UTF-8.
fn path_json(path: &Path) -> Value {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match whole.to_str() {
        _ if path == Path::new("-") => json!("-"),
        Some(text) => json!(text),
        None => json!({"bytes": whole.as_os_str().as_bytes()}),
    }
}

/// A path written by [`path_json`].
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum StoredPath {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl StoredPath {
    fn to_path(&self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes { bytes } => OsString::from_vec(bytes.clone()).into(),
        }
    }
}

/// All options that affect the content of the arrays.
fn choices(rows: Option<Rows>, options: &Options) -> Map<String, Value> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Option<Value>| all.extend(value.map(|value| (key.to_owned(), value)));
    put("rows", rows.map(|rows| json!(rows.to_string())));
    put("dtype", options.form.cast.map(|dtype| json!(dtype.name())));
    put("no_verify", (!options.verify).then_some(json!(true)));
    put("strings", options.form.strings.peek().map(|strings| json!(strings.to_string())));
    let records = &options.records;
    let listed = |choices: Vec<Value>| (!choices.is_empty()).then_some(Value::from(choices));
    put("shape", listed(records.shapes.iter().map(|c| json!({"feature": c.feature, "shape": c.value})).collect()));
    let raw = |c: &crate::options::records::For<crate::options::records::Raw>| {
        let order = c.value.order.unwrap_or_else(|| options.form.order());
        json!({"feature": c.feature, "dtype": c.value.dtype.name(), "byte_order": order.to_string()})
    };
    put("raw", listed(records.raw.iter().map(raw).collect()));
    put("as", listed(records.read_as.iter().map(|c| json!({"feature": c.feature, "kind": c.value.to_string()})).collect()));
    put("ragged", listed(records.ragged.iter().map(|c| json!({"feature": c.feature, "how": c.value.to_string()})).collect()));
    put("missing", listed(records.missing.iter().map(|c| json!({"feature": c.feature, "how": c.value.to_string()})).collect()));
    put("channels", records.channels.peek().map(|channels| json!(channels)));
    put("jpeg", records.jpeg.peek().map(|jpeg| json!(jpeg.to_string())));
    put("flatten", records.flatten.peek().map(|flatten| json!(flatten)));
    put("salvage", records.salvage.peek().map(|salvage| json!(salvage)));
    put("offset", records.offset.peek().map(|offset| json!(offset)));
    put("stream", records.stream.peek().map(|stream| json!(stream)));
    let model = &options.model;
    put("tag_set", model.tag_set.as_ref().map(|tags| json!(tags)));
    put("signature", model.signature.as_ref().map(|name| json!(name)));
    put("feeds", listed(model.feeds.iter().map(|(input, path)| json!({"input": input, "path": path_json(path)})).collect()));
    put("outputs", listed(model.outputs.iter().map(|name| json!(name)).collect()));
    put("batch", model.batch.map(|rows| json!(rows)));
    put("op_libraries", listed(model.op_libraries.iter().map(|path| path_json(path)).collect()));
    all
}

/// A manifest that was read.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    stored: StoredManifest,
    files: Vec<ManifestFile>,
}

/// One array listed in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestFile {
    /// The tensor's name.
    pub name: String,
    /// The array's file name in the directory.
    pub file: String,
    /// The dtype of the array's elements, if a cast changed it.
    pub cast: Option<Dtype>,
}

impl Manifest {
    /// Reads the manifest in `dir`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::Malformed`] when it was not written by [`export`](crate::export).
    pub fn read(dir: impl AsRef<Path>, options: &Options) -> Result<Self> {
        let path = dir.as_ref().join(MANIFEST);
        if !is_file(&path)? {
            let detail = format!("{} has none, so no export made this directory", dir.as_ref().display());
            return Err(Error::NotFound { what: MANIFEST, detail });
        }
        let file = open_file(&path, &options.calls()).map_err(Error::io("open", &path))?;
        let stored: StoredManifest =
            serde_json::from_reader(BufReader::new(file)).map_err(|e| Error::malformed(&path, "manifest", e.to_string()))?;
        let files = stored.tensors.iter().map(|entry| entry.checked(&path)).collect::<Result<_>>()?;
        Ok(Self { path, stored, files })
    }

    /// The arrays that the manifest lists.
    #[must_use]
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// The rows that were selected, if any were.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn rows(&self) -> Result<Option<Rows>> {
        self.stored.choices.rows.as_ref().map(|rows| self.parsed("rows", rows)).transpose()
    }

    /// Whether the sources were joined along axis 0.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.stored.joined
    }

    /// Finds the sources of the arrays again.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where the manifest names no source or standard input; those of [`Location::find`].
    pub fn locations(&self, options: &Options) -> Result<Vec<Location>> {
        let mut found = Vec::new();
        for part in &self.stored.sources {
            for path in &part.paths {
                let path = path.to_path();
                if path == Path::new("-") {
                    return Err(BadRequest::ReadOnce { path, manifest: Some(self.path.clone()) }.into());
                }
                found.extend(Location::find(path, part.format.as_deref(), options).map_err(|error| self.moved(error))?);
            }
        }
        if found.is_empty() {
            return Err(BadRequest::UnnamedSource { manifest: self.path.clone() }.into());
        }
        if self.is_joined() { Location::apart(found, options) } else { Location::group(found, options) }
    }

    /// The error for a source that has moved.
    fn moved(&self, error: Error) -> Error {
        match error {
            Error::NotFound { what, detail } => {
                let detail = format!("{detail}; {} names it: give its new place with `against`", self.path.display());
                Error::NotFound { what, detail }
            }
            other => other,
        }
    }

    /// Arrays in the directory that the manifest does not list.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn other_arrays(&self) -> Result<Vec<PathBuf>> {
        let is_array = |path: &PathBuf| path.as_os_str().as_bytes().ends_with(file_name::EXTENSION.as_bytes());
        let is_known = |path: &PathBuf| self.files.iter().any(|entry| path.file_name().is_some_and(|name| name == entry.file.as_str()));
        let all = list(parent_of(&self.path))?;
        Ok(all.into_iter().filter(|path| is_array(path) && !is_known(path)).collect())
    }

    /// `options` completed with the options that made the arrays; what `options` set takes precedence.
    ///
    /// # Errors
    /// [`Error::Malformed`] for options that do not exist.
    pub fn apply(&self, options: &Options) -> Result<Options> {
        let own = &self.stored.choices;
        let mut all = options.clone();
        if let (None, Some(strings)) = (options.form.strings.peek(), &own.strings) {
            all = all.strings(self.parsed("strings", strings)?);
        }
        if let (None, Some(dtype)) = (options.form.cast, &own.dtype) {
            all = all.cast(self.dtype(dtype)?);
        }
        if own.no_verify {
            all = all.verify(false);
        }
        let mut records = RecordOptions::new();
        for choice in &own.shape {
            records = records.shape(choice.feature.as_deref(), &choice.shape);
        }
        for choice in &own.raw {
            records = records.raw_in(choice.feature.as_deref(), self.dtype(&choice.dtype)?, self.parsed("byte_order", &choice.byte_order)?);
        }
        for choice in &own.read_as {
            records = records.read_as(choice.feature.as_deref(), self.parsed("as", &choice.kind)?);
        }
        for choice in &own.ragged {
            records = records.ragged(choice.feature.as_deref(), self.parsed("ragged", &choice.how)?);
        }
        for choice in &own.missing {
            records = records.missing(choice.feature.as_deref(), self.parsed("missing", &choice.how)?);
        }
        if let Some(jpeg) = &own.jpeg {
            records = records.jpeg(self.parsed("jpeg", jpeg)?);
        }
        if let Some(channels) = own.channels {
            records = records.channels(channels);
        }
        if let Some(offset) = own.offset {
            records = records.offset(offset);
        }
        if let Some(stream) = own.stream {
            records = records.stream(stream);
        }
        records = records.flatten(own.flatten).salvage(own.salvage);
        // All columns were made in one pass, so each of them decides which records were skipped.
        records = records.skipped_with(self.files.iter().map(|entry| entry.name.clone()));
        let mut model = ModelOptions::new();
        model.tag_set.clone_from(&own.tag_set);
        model.signature.clone_from(&own.signature);
        model.feeds = own.feeds.iter().map(|feed| (feed.input.clone(), feed.path.to_path())).collect();
        model.outputs.clone_from(&own.outputs);
        model.batch = own.batch;
        model.op_libraries = own.op_libraries.iter().map(StoredPath::to_path).collect();
        all.records = records.overridden_by(&options.records);
        all.model = model.overridden_by(&options.model);
        Ok(all)
    }

    fn parsed<T: std::str::FromStr<Err = String>>(&self, key: &str, text: &str) -> Result<T> {
        text.parse().map_err(|why| Error::malformed(&self.path, "manifest", format!("{key}: {why}")))
    }

    fn dtype(&self, name: &str) -> Result<Dtype> {
        Dtype::from_name(name).ok_or_else(|| Error::malformed(&self.path, "manifest", format!("there is no dtype {name:?}")))
    }
}

#[derive(Debug, Deserialize)]
struct StoredManifest {
    tensors: Vec<Entry>,
    #[serde(default)]
    sources: Vec<StoredSource>,
    #[serde(default)]
    joined: bool,
    #[serde(default)]
    choices: StoredChoices,
}

#[derive(Debug, Deserialize)]
struct StoredSource {
    paths: Vec<StoredPath>,
    format: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    file: String,
    #[serde(default)]
    dtype: String,
    source_dtype: Option<String>,
}

impl Entry {
    fn checked(&self, path: &Path) -> Result<ManifestFile> {
        let Self { name, file, dtype, source_dtype } = self;
        if file.contains('/') || !file.ends_with(file_name::EXTENSION) {
            return Err(Error::malformed(path, "manifest", format!("{file:?} is not the name of an array in the directory")));
        }
        let is_cast = source_dtype.as_ref().is_some_and(|source| source != dtype && source != Dtype::String.name());
        let cast = if is_cast {
            let known = Dtype::from_name(dtype).ok_or_else(|| Error::malformed(path, "manifest", format!("there is no dtype {dtype:?}")));
            Some(known?)
        } else {
            None
        };
        Ok(ManifestFile { name: name.clone(), file: file.clone(), cast })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StoredChoices {
    rows: Option<String>,
    dtype: Option<String>,
    no_verify: bool,
    strings: Option<String>,
    shape: Vec<StoredShape>,
    raw: Vec<StoredRaw>,
    #[serde(rename = "as")]
    read_as: Vec<StoredKind>,
    ragged: Vec<StoredHow>,
    missing: Vec<StoredHow>,
    channels: Option<u8>,
    jpeg: Option<String>,
    flatten: bool,
    salvage: bool,
    offset: Option<u64>,
    stream: Option<usize>,
    tag_set: Option<Vec<String>>,
    signature: Option<String>,
    feeds: Vec<StoredFeed>,
    outputs: Vec<String>,
    batch: Option<u64>,
    op_libraries: Vec<StoredPath>,
}

#[derive(Debug, Deserialize)]
struct StoredShape {
    feature: Option<String>,
    shape: Vec<i64>,
}

#[derive(Debug, Deserialize)]
struct StoredRaw {
    feature: Option<String>,
    dtype: String,
    byte_order: String,
}

#[derive(Debug, Deserialize)]
struct StoredKind {
    feature: Option<String>,
    kind: String,
}

#[derive(Debug, Deserialize)]
struct StoredHow {
    feature: Option<String>,
    how: String,
}

#[derive(Debug, Deserialize)]
struct StoredFeed {
    input: String,
    path: StoredPath,
}

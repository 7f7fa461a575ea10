//! Feeds runs from files: arrays in `.npy` files, strings in two of them, records. They are read as needed.

pub(crate) mod array;
pub(crate) mod fed;
pub(crate) mod strings;

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tensorflow::{DataType, SessionRunArgs, Tensor, TensorType};

use super::session::{Feed, NodeOutput, attempt};
use super::wire;
use crate::convert::Converter;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Argument;
use crate::options::Options;
use crate::options::request::Form;
use crate::options::strings::Strings;
use crate::output::part::Part;
use crate::output::staging::hidden::ScratchDir;
use crate::records::feature::RECORDS;
use crate::records::stream::files::FileSet;
use crate::source::location::Location;
use crate::source::npy;
use crate::source::opened::Source;
use crate::storage::glob::alternatives_of_path;
use crate::storage::paths::{Found, look_at};
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;

use array::ArrayFeed;
use fed::constant;
use strings::{MadeFrom, StringsFeed};

/// The source of an input of a graph.
#[derive(Debug)]
pub(crate) enum FileFeed {
    Array(ArrayFeed),
    Strings(StringsFeed),
}

impl FileFeed {
    /// The file at `path` for the input `target`, described by `input`; `batch` rows are fed at a time. An array is a `.npy`.
    /// Strings are either the values and offsets that they were converted to (`NAME.values.npy` and `NAME.offsets.npy`, given as
    /// `NAME.npy`), or records of one string each.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if it does not fit the input, [`Error::Unsupported`] for sources that cannot be fed, [`Error::NotFound`],
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn open(path: &Path, target: NodeOutput, input: &Argument, batch: Option<u64>, options: &Options) -> Result<Self> {
        if let Some([values, offsets]) = parts(path)? {
            return StringsFeed::open([&values, &offsets], None, target, input, batch, &options.calls()).map(Self::Strings);
        }
        let storage = options.storage(path);
        let is_source = match storage.look_at(path)? {
            Found::File => !Probe::new(&storage, path).starts_with(npy::MAGIC)?,
            Found::Directory => true,
            Found::Nothing => alternatives_of_path(path, &*storage)?.len() > 1 || FileSet::expand(path, &*storage)?.is_some(),
            Found::Other => false,
        };
        if is_source {
            return of_records(path, target, input, batch, options);
        }
        ArrayFeed::open(path, target, input, batch, &options.calls()).map(Self::Array)
    }

    pub(crate) fn is_for(&self, target: &NodeOutput) -> bool {
        match self {
            Self::Array(array) => array.is_for(target),
            Self::Strings(strings) => strings.is_for(target),
        }
    }

    /// The files that are read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Array(array) => vec![array.path().to_owned()],
            Self::Strings(strings) => strings.paths(),
        }
    }

    /// A warning about what the input may have lost.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Array(array) => array.note(),
            Self::Strings(_) => None,
        }
    }

    /// Damage that was tolerated in the records.
    pub(crate) fn lost(&self) -> &[String] {
        match self {
            Self::Array(_) => &[],
            Self::Strings(strings) => strings.lost(),
        }
    }

    /// Rows of axis 0; `None` if it has no axes.
    pub(crate) fn rows(&self) -> Option<u64> {
        match self {
            Self::Array(array) => array.rows(),
            Self::Strings(strings) => strings.rows(),
        }
    }

    /// Memory for feeding that many rows.
    pub(crate) fn held_bytes(&self, rows: u64) -> u64 {
        match self {
            Self::Array(array) => array.held_bytes(rows),
            Self::Strings(strings) => strings.held_bytes(rows),
        }
    }

    /// These rows to be fed, or the whole input if it has no axes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TensorFlow`], [`Error::Malformed`].
    pub(crate) fn rows_of(&self, rows: &Range<u64>) -> Result<Box<dyn Feed + '_>> {
        match self {
            Self::Array(array) => array.rows_of(rows),
            Self::Strings(strings) => strings.rows_of(rows),
        }
    }
}

/// The values and offsets that a path stands for; `None` if it does not.
fn parts(path: &Path) -> Result<Option<[PathBuf; 2]>> {
    let name = path.to_string_lossy();
    let whole = match name.strip_suffix(".values.npy").or_else(|| name.strip_suffix(".offsets.npy")) {
        Some(stem) => PathBuf::from(format!("{stem}.npy")),
        None if look_at(path)? == Found::Nothing => path.to_owned(),
        None => return Ok(None),
    };
    let parts = [Part::Values, Part::Offsets].map(|part| part.path(&whole));
    let are_there = look_at(&parts[0])? == Found::File && look_at(&parts[1])? == Found::File;
    Ok(are_there.then_some(parts))
}

/// Records as strings: they are first converted to values and offsets in a private folder, which is removed later.
fn of_records(path: &Path, target: NodeOutput, input: &Argument, batch: Option<u64>, options: &Options) -> Result<FileFeed> {
    let records = crate::options::records::RecordOptions::new().salvage(options.records.salvage.is_set());
    let form = Form { cast: None, strict: false, ..options.form.clone() };
    let own = Options { records, model: crate::options::model::ModelOptions::new(), form, ..options.clone() };
    let own = own.strings(Strings::Offsets);
    let locations = Location::find(path, None, &own)?;
    let [location] = &locations[..] else {
        return Err(BadRequest::SeveralSources { path: path.to_owned(), sources: locations.len() }.into());
    };
    let refused = |what: &str| {
        let detail = format!("it is {what}: an input takes a .npy, values and offsets of strings, or a file of records");
        Err(Error::Unsupported { what: format!("{} as {}", path.display(), target.name), detail })
    };
    if location.format() != "tfrecord" {
        return refused(&format!("a source ({})", location.format()));
    }
    if input.dtype != Some(Dtype::String) {
        return refused("of records, which are strings, but the input takes numbers");
    }
    let dir = ScratchDir::create_in(&options.model.scratch.clone().unwrap_or_else(std::env::temp_dir), &options.cancel)?;
    let whole = dir.path().join("records.npy");
    let source: Source = location.open(&own)?;
    let written = Converter::new(&source.tensor(RECORDS)?)?.options(own).write_parts(&whole)?;
    let mut lost: Vec<String> = written.into_iter().flat_map(|(_, report)| report.lost).collect();
    lost.dedup();
    let parts = [Part::Values, Part::Offsets].map(|part| part.path(&whole));
    let made = MadeFrom { given: source.container().files(), lost, _dir: dir };
    StringsFeed::open([&parts[0], &parts[1]], Some(made), target, input, batch, &options.calls()).map(FileFeed::Strings)
}

/// An empty string tensor, which the crate cannot feed by itself.
struct NoStrings {
    target: NodeOutput,
    tensor: Tensor<String>,
}

impl NoStrings {
    /// # Errors
    /// [`Error::TensorFlow`].
    fn new(target: NodeOutput, shape: &[u64]) -> Result<Self> {
        let tensor = attempt(|| format!("making a tensor for {}", target.name), || constant(&wire::tensor(Dtype::String, shape)))?;
        Ok(Self { target, tensor })
    }
}

impl Feed for NoStrings {
    fn add<'l>(&'l self, args: &mut SessionRunArgs<'l>) {
        args.add_feed(&self.target.operation, self.target.index, &self.tensor);
    }
}

/// Feeds a tensor of the caller.
///
/// # Errors
/// [`Error::TensorFlow`].
pub(crate) fn lend<'a, T: TensorType>(target: NodeOutput, tensor: &'a Tensor<T>) -> Result<Box<dyn Feed + 'a>> {
    if T::data_type() == DataType::String && tensor.dims().contains(&0) {
        return Ok(Box::new(NoStrings::new(target, tensor.dims())?));
    }
    Ok(Box::new(Borrowed { target, tensor }))
}

/// A borrowed tensor and its input.
struct Borrowed<'a, T: TensorType> {
    target: NodeOutput,
    tensor: &'a Tensor<T>,
}

impl<T: TensorType> Feed for Borrowed<'_, T> {
    fn add<'l>(&'l self, args: &mut SessionRunArgs<'l>) {
        args.add_feed(&self.target.operation, self.target.index, self.tensor);
    }
}

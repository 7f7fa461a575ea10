//! Opened sources and their tensors.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mmconvert::{CancelToken, Dtype, Error, Location, Manifest, Options, RecordOptions, Result};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::arguments;
use crate::errors::{raised, spelled};
use crate::memory::{bytes_of, bytes_of_mut};
use crate::running::{run, run_with};

/// Shorter reads are made in the caller's thread: a thread would take longer to start.
const SHORT_BYTES: usize = 1 << 20;

/// The names of all formats, as `open` takes them.
#[pyfunction]
pub(crate) fn formats() -> Vec<&'static str> {
    mmconvert::formats().collect()
}

/// A name as Python has it: `str`, or `bytes` where it is not UTF-8.
pub(crate) fn name_of(py: Python<'_>, name: &[u8]) -> Py<PyAny> {
    match std::str::from_utf8(name) {
        Ok(text) => PyString::new(py, text).into_any().unbind(),
        Err(_) => PyBytes::new(py, name).into_any().unbind(),
    }
}

/// A name as the library has it.
pub(crate) fn name_bytes(name: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(text) = name.cast::<PyString>() {
        return Ok(text.to_str()?.as_bytes().to_vec());
    }
    match name.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => Err(PyTypeError::new_err("a name is a str or bytes")),
    }
}

/// An opened source.
#[pyclass(frozen, module = "mmconvert._core")]
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) opened: mmconvert::Source,
    /// What it was opened with.
    pub(crate) records: RecordOptions,
    /// Stops what the source itself does: finding the features of records. It cannot be used again after that.
    cancel: CancelToken,
    /// Whether its tensors are known, so that finding one takes no time.
    is_listed: AtomicBool,
}

#[pymethods]
impl Source {
    /// Opens the sources at `paths`, joined along axis 0 or side by side.
    #[staticmethod]
    fn open(py: Python<'_>, paths: Vec<PathBuf>, format: Option<String>, concat: bool, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let records = arguments::records(arguments)?;
        let options = Options::new().must_apply(true).records(records.clone());
        let cancel = CancelToken::new();
        let source = run_with(py, &cancel, options, None, |options| open(&paths, format.as_deref(), concat, options))?;
        Ok(Self { opened: source, records, cancel, is_listed: AtomicBool::new(false) })
    }

    /// Opens the source that the manifest of the directory `path` names, or the one at `paths`, as the manifest says.
    #[staticmethod]
    fn of_manifest(py: Python<'_>, path: PathBuf, paths: Vec<PathBuf>, concat: bool, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let records = arguments::records(arguments)?;
        let options = Options::new().records(records.clone());
        let cancel = CancelToken::new();
        let source = run_with(py, &cancel, options, None, |options| {
            let manifest = Manifest::read(&path, options)?;
            let made = manifest.apply(options)?;
            if paths.is_empty() {
                return joined(&manifest.locations(&made)?, manifest.is_joined(), &made);
            }
            open(&paths, None, concat || manifest.is_joined() && paths.len() > 1, &made)
        })?;
        Ok(Self { opened: source, records, cancel, is_listed: AtomicBool::new(false) })
    }

    #[getter]
    fn path(&self) -> &Path {
        self.opened.path()
    }

    #[getter]
    fn format(&self) -> &'static str {
        self.opened.format()
    }

    /// The files of the source that exist.
    fn files(&self) -> Vec<PathBuf> {
        self.opened.files()
    }

    /// All tensors. Finding the features of records reads all of them.
    fn tensors(&self, py: Python<'_>) -> PyResult<Vec<Tensor>> {
        let tensors = self.look(py, || self.opened.tensors().collect::<Result<Vec<_>>>())?;
        Ok(tensors.into_iter().map(|tensor| self.own(tensor)).collect())
    }

    /// The tensors that names and patterns select; without any, those that are converted by default.
    fn select(&self, py: Python<'_>, patterns: Vec<Bound<'_, PyAny>>, all: bool) -> PyResult<Vec<Tensor>> {
        let patterns = patterns.iter().map(name_bytes).collect::<PyResult<Vec<_>>>()?;
        let chosen = self.look(py, || if all { self.opened.select_all(&patterns) } else { self.opened.select(&patterns) })?;
        Ok(chosen.into_iter().map(|tensor| self.own(tensor)).collect())
    }

    /// The tensor with this name or alias.
    fn tensor(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        let name = name_bytes(name)?;
        let found = if self.is_listed.load(Ordering::Relaxed) {
            self.opened.tensor(&name).map_err(|error| raised(py, &error))?
        } else {
            self.look(py, || self.opened.tensor(&name))?
        };
        Ok(self.own(found))
    }

    /// Why there are no tensors.
    fn nothing(&self) -> String {
        spelled(&self.opened.nothing().to_string())
    }

    fn warnings(&self) -> Vec<String> {
        self.opened.warnings().iter().map(|warning| spelled(warning)).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.opened.notes()
    }

    /// What is known of the files beyond the tensors, as JSON.
    fn facts(&self) -> String {
        self.opened.facts().to_json()
    }

    fn tag_sets(&self) -> Vec<Vec<String>> {
        self.opened.tag_sets().to_vec()
    }

    /// The signatures that TensorFlow could compute: name, inputs and outputs, each with name, tensor, dtype and shape.
    fn signatures<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let listed = |arguments: &[mmconvert::Argument]| -> PyResult<Vec<Bound<'py, PyDict>>> {
            let one = |argument: &mmconvert::Argument| {
                let listed = PyDict::new(py);
                listed.set_item("name", &argument.name)?;
                listed.set_item("tensor", &argument.tensor)?;
                listed.set_item("dtype", argument.dtype.map(Dtype::name))?;
                listed.set_item("shape", argument.shape.clone())?;
                Ok(listed)
            };
            arguments.iter().map(one).collect()
        };
        let signature = |signature: &mmconvert::Signature| {
            let made = PyDict::new(py);
            made.set_item("name", &signature.name)?;
            made.set_item("inputs", listed(&signature.inputs)?)?;
            made.set_item("outputs", listed(&signature.outputs)?)?;
            Ok(made)
        };
        self.opened.signatures().iter().map(signature).collect()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, || self.opened.len())
    }

    /// Whether looking at its tensors was interrupted: it has to be opened again.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Source {
    /// Looks at its tensors. The first look at records reads all of them.
    fn look<T: Send>(&self, py: Python<'_>, look: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let seen = run_with(py, &self.cancel, Options::new(), None, |_| look())?;
        self.is_listed.store(true, Ordering::Relaxed);
        Ok(seen)
    }

    fn own(&self, tensor: mmconvert::Tensor) -> Tensor {
        Tensor { tensor, records: self.records.clone() }
    }
}

/// Finds and opens sources; files that belong together become one.
fn open(paths: &[PathBuf], format: Option<&str>, concat: bool, options: &Options) -> Result<mmconvert::Source> {
    let mut locations = Vec::new();
    for path in paths {
        locations.extend(Location::find(path, format, options)?);
    }
    let locations = if concat { Location::apart(locations, options)? } else { Location::group(locations, options)? };
    joined(&locations, concat, options)
}

/// Opens locations, joined along axis 0 or side by side.
fn joined(locations: &[Location], concat: bool, options: &Options) -> Result<mmconvert::Source> {
    let mut parts = locations.iter().map(|location| location.open(options)).collect::<Result<Vec<_>>>()?;
    if concat {
        return mmconvert::Source::concat(parts);
    }
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        last => {
            parts.extend(last);
            mmconvert::Source::together(parts)
        }
    }
}

/// What is known of a feature of records: kind, fewest and most values in a record, encoding, records without it.
type Feature = (&'static str, (u64, u64), Option<String>, u64);

/// One tensor of a source.
#[pyclass(frozen, module = "mmconvert._core")]
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) tensor: mmconvert::Tensor,
    pub(crate) records: RecordOptions,
}

#[pymethods]
impl Tensor {
    #[getter]
    fn name(&self, py: Python<'_>) -> Py<PyAny> {
        name_of(py, self.tensor.name().as_bytes())
    }

    /// The name with odd characters escaped, for people.
    #[getter]
    fn shown_name(&self) -> String {
        self.tensor.name().to_string()
    }

    #[getter]
    fn alias(&self) -> Option<&str> {
        self.tensor.info().alias.as_deref()
    }

    /// TensorFlow's name of the element type.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.tensor.dtype().name()
    }

    /// NumPy's descriptor of elements that TensorFlow has no dtype for. The last axis of the shape are then their bytes.
    #[getter]
    fn item(&self) -> Option<&str> {
        self.tensor.info().item.as_deref()
    }

    /// NumPy's descriptor of the elements, if they have a fixed size.
    #[getter]
    fn descr(&self) -> Option<&'static str> {
        self.tensor.dtype().descr()
    }

    /// The length of every axis, `None` where it is not known before reading; `None` if their number is not known.
    #[getter]
    fn shape(&self) -> Option<Vec<Option<u64>>> {
        let info = self.tensor.info();
        info.has_rank.then(|| info.axes())
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.tensor.nbytes()
    }

    #[getter]
    fn group(&self) -> Option<&'static str> {
        self.tensor.info().group
    }

    #[getter]
    fn bookkeeping(&self) -> bool {
        self.tensor.info().bookkeeping
    }

    /// Why it cannot be converted, if it cannot.
    #[getter]
    fn unsupported(&self) -> Option<String> {
        self.tensor.info().unsupported.as_deref().map(spelled)
    }

    #[getter]
    fn is_of_records(&self) -> bool {
        self.tensor.is_of_records()
    }

    #[getter]
    fn is_made(&self) -> bool {
        self.tensor.is_made()
    }

    /// Of a feature of records: kind, fewest and most values in a record, encoding, records without it.
    #[getter]
    fn feature(&self) -> Option<Feature> {
        let feature = self.tensor.info().feature.clone()?;
        Some((feature.kind, feature.lengths, feature.encoding, feature.missing))
    }

    /// Whether it has elements that no array holds as they are: strings.
    #[getter]
    fn is_text(&self) -> bool {
        self.tensor.dtype() == Dtype::String
    }

    /// The shape of the chunks that it is stored in, if reading a part of a chunk takes decoding all of it.
    #[getter]
    fn chunks(&self) -> Option<Vec<u64>> {
        self.tensor.reader().ok()?.chunks().map(<[u64]>::to_vec)
    }

    /// What is known of its place, as JSON.
    fn facts(&self, py: Python<'_>) -> PyResult<String> {
        self.tensor.facts().map(|facts| facts.to_json()).map_err(|error| raised(py, &error))
    }

    /// Fills `out` with the rows `start` to `stop`; both `None` for all elements, also of a scalar.
    fn read(&self, py: Python<'_>, ends: Option<(u64, u64)>, out: PyBuffer<u8>, threads: Option<usize>, verify: bool) -> PyResult<()> {
        let bytes = bytes_of_mut(&out)?;
        let mut options = Options::new().verify(verify);
        if let Some(threads) = threads {
            options = options.threads(threads);
        }
        let mut read = move |options: &Options| match ends {
            Some((start, stop)) => self.tensor.read_rows_with(start..stop, bytes, options),
            None => self.tensor.read_rows_with(.., bytes, options),
        };
        if out.len_bytes() <= SHORT_BYTES && self.tensor.reader().is_ok_and(|reader| reader.chunks().is_none()) {
            return py.detach(|| read(&options)).map_err(|error| raised(py, &error));
        }
        run(py, options, None, read)
    }

    /// Fills `out` with rows by their numbers, which `rows` holds as native `uint64`.
    fn read_at(&self, py: Python<'_>, rows: PyBuffer<u8>, out: PyBuffer<u8>, threads: Option<usize>) -> PyResult<()> {
        let numbers: Vec<u64> = bytes_of(&rows)?.as_chunks::<8>().0.iter().map(|bytes| number(*bytes)).collect();
        let bytes = bytes_of_mut(&out)?;
        let options = threads.map_or_else(Options::new, |threads| Options::new().threads(threads));
        run(py, options, None, |options| self.tensor.read_at(&numbers, bytes, options))
    }

    /// The place of the tensor in its file: path, offset in bytes, whether it is in Fortran order.
    fn in_place(&self, py: Python<'_>) -> PyResult<(PathBuf, u64, bool)> {
        let place = self.tensor.in_place().and_then(|run| {
            let is_fortran = self.tensor.reader()?.layout() == mmconvert::Layout::F;
            Ok((run.path.to_path_buf(), run.offset, is_fortran))
        });
        place.map_err(|error| raised(py, &error))
    }

    /// The estimates for a conversion to `path`: one dictionary for each array.
    fn estimate<'py>(&self, py: Python<'py>, path: PathBuf, arguments: &Bound<'py, PyDict>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let options = arguments::options(arguments, &self.records)?;
        let estimates =
            run(py, options, None, |options| mmconvert::Converter::new(&self.tensor)?.options(options.clone()).estimate(&path))?;
        let listed = |estimate: &mmconvert::Estimate| {
            let counted = |value: u64| estimate.is_counted.then_some(value);
            let made = PyDict::new(py);
            made.set_item("descr", &estimate.descr)?;
            made.set_item("shape", estimate.has_rank.then(|| estimate.axes.clone()))?;
            made.set_item("nbytes", counted(estimate.nbytes))?;
            made.set_item("method", estimate.method.name())?;
            made.set_item("read_bytes", estimate.read_bytes)?;
            made.set_item("write_bytes", counted(estimate.write_bytes))?;
            made.set_item("threads", estimate.threads)?;
            made.set_item("memory_bytes", estimate.memory_bytes)?;
            Ok(made)
        };
        estimates.iter().map(listed).collect()
    }

    /// Fails with the reason if it cannot be read.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        match &self.tensor.info().unsupported {
            None => Ok(()),
            Some(reason) => {
                let what = format!("tensor {} of {}", self.tensor.name(), self.tensor.source().path().display());
                Err(raised(py, &Error::Unsupported { what, detail: reason.clone() }))
            }
        }
    }
}

#[expect(clippy::host_endian_bytes, reason = "numbers from NumPy are in this machine's byte order")]
fn number(bytes: [u8; 8]) -> u64 {
    u64::from_ne_bytes(bytes)
}

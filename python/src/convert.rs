//! Conversions and comparisons.

use std::path::{Path, PathBuf};

use mmconvert::{
    ByteOrder, Comparison, Converter, Dtype, Exported, Layout, Manifest, Name, Options, Part, RecordOptions, Report, Selection, Skipped,
    TensorSpec, Verified,
};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{self, Ends, named};
use crate::errors::spelled;
use crate::memory::{BufferTensor, bytes_of};
use crate::running::run;
use crate::source::{Source, Tensor, name_bytes, name_of};

/// The reports of arrays, and names and reasons of what was skipped.
type Done<'py> = (Vec<Bound<'py, PyDict>>, Vec<(Py<PyAny>, String)>);

/// Writes one tensor to `path`; strings and lists can become two arrays beside it.
#[pyfunction]
pub(crate) fn convert<'py>(
    py: Python<'py>,
    tensor: &Tensor,
    path: PathBuf,
    rows: Option<Ends>,
    arguments: &Bound<'py, PyDict>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let options = arguments::options(arguments, &tensor.records)?;
    let name = tensor.tensor.name();
    let done = run(py, options, progress, |options| {
        let converter = Converter::new(&tensor.tensor)?.options(options.clone());
        match rows {
            Some(rows) => converter.rows(arguments::rows(rows)).write_parts(&path),
            None => converter.write_parts(&path),
        }
    })?;
    done.iter().map(|(path, report)| listed(py, name, path, report)).collect()
}

/// Writes the elements in `buffer` to `path`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "an array is its buffer, dtype, shape, byte order and layout")]
pub(crate) fn convert_array<'py>(
    py: Python<'py>,
    buffer: PyBuffer<u8>,
    dtype: &str,
    shape: Vec<u64>,
    is_big_endian: bool,
    is_fortran: bool,
    path: PathBuf,
    rows: Option<Ends>,
    arguments: &Bound<'py, PyDict>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = arguments::options(arguments, &RecordOptions::new())?;
    let spec = TensorSpec::new(named::<Dtype>("dtype", dtype)?, shape).map_err(|request| crate::errors::raised(py, &request.into()))?;
    let order = if is_big_endian { ByteOrder::Big } else { ByteOrder::Little };
    let layout = if is_fortran { Layout::F } else { Layout::C };
    let reader = BufferTensor::new(spec, bytes_of(&buffer)?, order, layout)?;
    let report = run(py, options, progress, |options| {
        let converter = Converter::from_reader(Box::new(&reader)).options(options.clone());
        match rows {
            Some(rows) => converter.rows(arguments::rows(rows)).write(&path),
            None => converter.write(&path),
        }
    })?;
    listed(py, &Name::new(Vec::new()), &path, &report)
}

/// Writes many tensors into a directory. Without names, those that are converted by default.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are what is converted, where to, and how")]
pub(crate) fn export<'py>(
    py: Python<'py>,
    source: &Source,
    names: Vec<Bound<'py, PyAny>>,
    all: bool,
    path: PathBuf,
    rows: Option<Ends>,
    arguments: &Bound<'py, PyDict>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Done<'py>> {
    many(py, (source, &names, all), arguments, progress, |tensors, options| {
        mmconvert::export(tensors, rows.map(arguments::rows), &path, options)
    })
}

/// Writes many tensors into one safetensors file.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are what is converted, where to, and how")]
pub(crate) fn pack<'py>(
    py: Python<'py>,
    source: &Source,
    names: Vec<Bound<'py, PyAny>>,
    all: bool,
    path: PathBuf,
    rows: Option<Ends>,
    arguments: &Bound<'py, PyDict>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Done<'py>> {
    many(py, (source, &names, all), arguments, progress, |tensors, options| {
        mmconvert::pack(tensors, rows.map(arguments::rows), &path, options)
    })
}

fn many<'py>(
    py: Python<'py>,
    (source, names, all): (&Source, &[Bound<'py, PyAny>], bool),
    arguments: &Bound<'py, PyDict>,
    progress: Option<&Bound<'py, PyAny>>,
    make: impl FnOnce(&Selection, &Options) -> mmconvert::Result<mmconvert::Export> + Send,
) -> PyResult<Done<'py>> {
    let options = arguments::options(arguments, &source.records)?;
    let names = names.iter().map(name_bytes).collect::<PyResult<Vec<_>>>()?;
    let done = run(py, options, progress, |options| {
        let source = &source.opened;
        let tensors = if all { source.select_all(&names)? } else { source.select(&names)? };
        if tensors.is_empty() {
            return Err(source.nothing());
        }
        make(&tensors, options)
    })?;
    let report = |Exported { name, path, report, .. }: &Exported| listed(py, name, path, report);
    let outputs = done.outputs.iter().map(report).collect::<PyResult<Vec<_>>>()?;
    let skipped = |Skipped { name, reason, .. }: &Skipped| (name_of(py, name.as_bytes()), spelled(reason));
    Ok((outputs, done.skipped.iter().map(skipped).collect()))
}

fn listed<'py>(py: Python<'py>, name: &Name, path: &Path, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let listed = PyDict::new(py);
    listed.set_item("name", name_of(py, name.as_bytes()))?;
    listed.set_item("part", (report.part != Part::Whole).then(|| report.part.to_string()))?;
    listed.set_item("path", path.as_os_str())?;
    listed.set_item("dtype", report.item.as_deref().unwrap_or(report.dtype.name()))?;
    listed.set_item("source_dtype", report.item.as_deref().unwrap_or(report.source_dtype.name()))?;
    listed.set_item("descr", &report.descr)?;
    listed.set_item("fortran_order", report.fortran_order)?;
    listed.set_item("shape", &report.shape)?;
    listed.set_item("nbytes", report.nbytes)?;
    listed.set_item("seconds", report.elapsed.as_secs_f64())?;
    listed.set_item("verified", verified(report.verified))?;
    listed.set_item("method", report.method.name())?;
    listed.set_item("peak_memory", report.peak_memory)?;
    listed.set_item("lost", report.lost.iter().map(|lost| spelled(lost)).collect::<Vec<_>>())?;
    Ok(listed)
}

fn verified(verified: Verified) -> &'static str {
    match verified {
        Verified::Full => "full",
        Verified::Partial => "partial",
        Verified::Not => "not",
    }
}

/// Compares the array at `path`, or the tensor `packed` of a safetensors file, with `tensor`. `manifest` is the directory whose
/// manifest says how the array was made. Returns how much of the source its checksums cover, or `None` and the difference.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are both sides, and how the array was made")]
pub(crate) fn compare(
    py: Python<'_>,
    path: PathBuf,
    packed: Option<&Tensor>,
    tensor: &Tensor,
    rows: Option<Ends>,
    manifest: Option<PathBuf>,
    arguments: &Bound<'_, PyDict>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Option<&'static str>, Option<String>)> {
    let options = arguments::options(arguments, &tensor.records)?.must_apply(false);
    let rows = rows.map(arguments::rows);
    let comparison = run(py, options, progress, |options| {
        let made = match &manifest {
            Some(dir) => Manifest::read(dir, options)?.apply(options)?,
            None => options.clone(),
        };
        match packed {
            Some(packed) => mmconvert::compare_packed(&packed.tensor, &tensor.tensor, rows, &made),
            None => mmconvert::compare(&path, &tensor.tensor, rows, &made),
        }
    })?;
    Ok(match comparison {
        Comparison::Equal(how) => (Some(verified(how)), None),
        Comparison::Different(difference) => (None, Some(difference.to_string())),
    })
}

/// The manifest of a directory of arrays: names and files with the dtype they were cast to, the rows, the paths of the source and
/// whether they were joined, and arrays that it does not list.
#[pyfunction]
pub(crate) fn manifest_of(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let (manifest, rows, others) = run(py, Options::new(), None, |options| {
        let manifest = Manifest::read(&path, options)?;
        let (rows, others) = (manifest.rows()?, manifest.other_arrays()?);
        Ok((manifest, rows, others))
    })?;
    let made = PyDict::new(py);
    let file = |file: &mmconvert::ManifestFile| (name_of(py, file.name.as_bytes()), file.file.clone(), file.cast.map(Dtype::name));
    made.set_item("files", manifest.files().iter().map(file).collect::<Vec<_>>())?;
    made.set_item("rows", rows.map(|rows| (rows.start, rows.end)))?;
    made.set_item("joined", manifest.is_joined())?;
    made.set_item("others", others)?;
    Ok(made)
}

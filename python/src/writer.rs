//! Arrays of rows that Python makes, and directories of them.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use mmconvert::{ArrayWriter, Cast, Dtype, Error, Options, OutputDirectory, RecordOptions};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments::{budget, named, options};
use crate::errors::raised;
use crate::memory::bytes_of;
use crate::running::run;

/// Bytes that are cast at a time.
const CAST_BYTES: usize = 1 << 20;

/// Writes an array row by row. In a process that was forked from the one that made it, it does nothing, and leaves the files alone.
#[pyclass(frozen, module = "mmconvert._core")]
#[derive(Debug)]
pub(crate) struct Writer {
    open: RwLock<Option<Open>>,
    dtype: Dtype,
    process: u32,
}

#[derive(Debug)]
struct Open {
    writer: ArrayWriter,
    /// Rows appended so far, where rows have no bytes that could be counted.
    empty_rows: u64,
}

#[pymethods]
impl Writer {
    /// An array of `dtype`, whose rows have the shape `row_shape`; `rows` of them, or an unknown number.
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        dtype: &str,
        row_shape: Vec<u64>,
        rows: Option<u64>,
        memory: Option<&Bound<'_, PyAny>>,
        overwrite: bool,
    ) -> PyResult<Self> {
        let dtype: Dtype = named("dtype", dtype)?;
        let mut builder = ArrayWriter::new(dtype, &row_shape).overwrite(overwrite);
        if let Some(rows) = rows {
            builder = builder.rows(rows);
        }
        if let Some(memory) = memory {
            builder = builder.memory(budget(memory)?);
        }
        let writer = py.detach(|| builder.create(&path)).map_err(|error| raised(py, &error))?;
        Ok(Self { open: RwLock::new(Some(Open { writer, empty_rows: 0 })), dtype, process: std::process::id() })
    }

    /// Appends elements of dtype `of`, which are cast if that is not the array's; `rows` of them if rows have no bytes.
    fn append(&self, py: Python<'_>, elements: PyBuffer<u8>, of: &str, strict: bool, rows: u64) -> PyResult<()> {
        let (of, bytes) = (named::<Dtype>("dtype", of)?, bytes_of(&elements)?);
        py.detach(|| {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            let Some(Open { writer, empty_rows }) = open.as_mut() else { return Ok(Err(())) };
            if writer.row_bytes() == 0 {
                writer.write_bytes(*empty_rows..*empty_rows + rows, bytes)?;
                *empty_rows += rows;
                return Ok(Ok(()));
            }
            for_cast((of, self.dtype), strict, bytes, |bytes, _| writer.append_bytes(bytes)).map(Ok)
        })
        .map_err(|error: Error| raised(py, &error))?
        .map_err(|()| closed())
    }

    /// Writes the rows `start` to `stop`. Several threads may do so at once.
    fn write(&self, py: Python<'_>, start: u64, stop: u64, elements: PyBuffer<u8>, of: &str, strict: bool) -> PyResult<()> {
        let (of, bytes) = (named::<Dtype>("dtype", of)?, bytes_of(&elements)?);
        py.detach(|| {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let Some(Open { writer, .. }) = open.as_ref() else { return Ok(Err(())) };
            if of == self.dtype {
                return writer.write_bytes(start..stop, bytes).map(Ok);
            }
            // A range is written as a whole, so that a failure leaves none of its rows.
            let mut cast = vec![0; bytes.len() / item_len(of) * item_len(self.dtype)];
            run_cast(&Cast::new(of, self.dtype)?, strict, bytes, &mut cast, 0)?;
            writer.write_bytes(start..stop, &cast).map(Ok)
        })
        .map_err(|error: Error| raised(py, &error))?
        .map_err(|()| closed())
    }

    /// Completes the array and gives it its name. Returns its shape.
    fn finish(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        let open = py.detach(|| self.open.write().unwrap_or_else(PoisonError::into_inner).take()).ok_or_else(closed)?;
        if self.is_elsewhere() {
            std::mem::forget(open);
            return Err(PyRuntimeError::new_err("the array is written by the process that this one was forked from"));
        }
        let spec = run(py, Options::new(), None, |_| open.writer.finish())?;
        Ok(spec.shape().to_vec())
    }

    /// Gives up: nothing is left behind.
    fn discard(&self, py: Python<'_>) {
        py.detach(|| self.close());
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Writer {
    fn is_elsewhere(&self) -> bool {
        self.process != std::process::id()
    }

    fn close(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if self.is_elsewhere() {
            // Dropping it would remove files of the process that makes the array.
            std::mem::forget(open);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("the array is closed")
}

fn item_len(dtype: Dtype) -> usize {
    dtype.itemsize().and_then(|len| usize::try_from(len).ok()).unwrap_or(1)
}

/// Passes `bytes` on, cast block by block.
fn for_cast(
    (from, to): (Dtype, Dtype),
    strict: bool,
    bytes: &[u8],
    mut put: impl FnMut(&[u8], usize) -> mmconvert::Result<()>,
) -> mmconvert::Result<()> {
    if from == to {
        return put(bytes, 0);
    }
    let cast = Cast::new(from, to)?;
    let elements = CAST_BYTES / item_len(from).max(item_len(to));
    let mut block = vec![0; elements * item_len(to)];
    for (number, part) in bytes.chunks(elements * item_len(from)).enumerate() {
        let cast_bytes = &mut block[..part.len() / item_len(from) * item_len(to)];
        run_cast(&cast, strict, part, cast_bytes, number * elements)?;
        put(cast_bytes, number)?;
    }
    Ok(())
}

/// Casts elements, the first of which is number `first` of the block that the caller gave.
fn run_cast(cast: &Cast, strict: bool, from: &[u8], to: &mut [u8], first: usize) -> mmconvert::Result<()> {
    if !strict {
        return cast.run(from, to);
    }
    cast.run_strict(from, to).map_err(|error| match error {
        Error::Lossy { what, index, detail } => {
            let index = index.iter().map(|at| at + first as u64).collect();
            Error::Lossy { what: format!("{what} of this block"), index, detail }
        }
        other => other,
    })
}

/// Arrays that appear together in a directory.
#[pyclass(frozen, module = "mmconvert._core")]
#[derive(Debug)]
pub(crate) struct Directory {
    open: RwLock<Option<OutputDirectory>>,
    process: u32,
}

#[pymethods]
impl Directory {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = options(arguments, &RecordOptions::new())?;
        let directory = py.detach(|| OutputDirectory::create(&path, &options)).map_err(|error| raised(py, &error))?;
        Ok(Self { open: RwLock::new(Some(directory)), process: std::process::id() })
    }

    /// The hidden directory to write into.
    #[getter]
    fn path(&self) -> PyResult<PathBuf> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|directory| directory.path().to_owned()).ok_or_else(closed)
    }

    /// The name of the file for an array.
    #[staticmethod]
    fn file_name(name: &str) -> String {
        OutputDirectory::file_name(name)
    }

    /// Gives everything its final name.
    fn publish(&self, py: Python<'_>, files: Vec<String>) -> PyResult<()> {
        let directory = self.open.write().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(closed)?;
        py.detach(|| directory.publish(&files)).map_err(|error| raised(py, &error))
    }

    /// Gives up: nothing is left behind.
    fn discard(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if self.process != std::process::id() {
            std::mem::forget(open);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.discard();
    }
}

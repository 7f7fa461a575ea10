//! The library's errors as Python's exceptions, which `mmconvert/errors.py` defines.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;

use mmconvert::Error;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

/// `ENOENT` and `EEXIST`, which are the same on every Unix.
const NOT_FOUND: i32 = 2;
const EXISTS: i32 = 17;

static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// The exception for an error: an `OSError` where the system or a path is at fault, else a class of `mmconvert.errors`.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let text = text(error);
    match error {
        // Python shows the path itself.
        Error::Io { action, path, source } => os_error(number_of(source), format!("cannot {action}: {source}"), path),
        Error::OutputExists { path, hint } => os_error(Some(EXISTS), spelled(&format!("it exists and was left as it is: {hint}")), path),
        Error::NotFound { .. } => PyOSError::new_err((NOT_FOUND, text)),
        Error::NoSuchTensor { name, nearest, .. } => of_class(py, "NoSuchTensorError", text, error, |details| {
            details.set_item("name", name)?;
            details.set_item("nearest", nearest)
        }),
        Error::Malformed { path, offset, .. } => of_class(py, "CorruptError", text, error, |details| {
            details.set_item("path", path)?;
            details.set_item("offset", offset)
        }),
        Error::Lossy { index, .. } => of_class(py, "LossyError", text, error, |details| details.set_item("index", index)),
        Error::Limit { asked, allowed, .. } => of_class(py, "LimitError", text, error, |details| {
            details.set_item("asked", asked)?;
            details.set_item("allowed", allowed)
        }),
        Error::Unsupported { .. } => of_class(py, "UnsupportedError", text, error, |_| Ok(())),
        Error::BadRequest(_) | Error::WrongDtype { .. } => of_class(py, "RequestError", text, error, |_| Ok(())),
        _ => of_class(py, "Error", text, error, |_| Ok(())),
    }
}

/// The exception for a keyword argument with a value that it cannot have.
pub(crate) fn wrong_value(name: &str, detail: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: {detail}"))
}

fn os_error(number: Option<i32>, text: String, path: &Path) -> PyErr {
    match number {
        // Python makes the subclass for the number: FileExistsError, PermissionError.
        Some(number) => PyOSError::new_err((number, text, path.as_os_str().to_owned())),
        None => PyOSError::new_err(format!("{}: {text}", path.display())),
    }
}

/// The system's number of an error, also where the library has words of its own for it.
fn number_of(error: &std::io::Error) -> Option<i32> {
    error.raw_os_error().or(match error.kind() {
        ErrorKind::NotFound => Some(NOT_FOUND),
        ErrorKind::AlreadyExists => Some(EXISTS),
        _ => None,
    })
}

fn of_class(py: Python<'_>, class: &str, text: String, error: &Error, describe: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>) -> PyErr {
    let make = || {
        let classes = CLASSES.get_or_try_init(py, || PyModule::import(py, "mmconvert.errors").map(Bound::unbind))?;
        let details = PyDict::new(py);
        details.set_item("code", error.code())?;
        describe(&details)?;
        classes.bind(py).getattr(class)?.call((text,), Some(&details))
    };
    make().map_or_else(|failure| failure, PyErr::from_value)
}

/// An error with its causes, in Python's words.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    harmless(&spelled(&text))
}

/// What the library's options and functions are called in Python, where the names differ.
const NAMES: &[(&str, &str)] = &[
    ("cast", "dtype"),
    ("overwrite", "overwrite=True"),
    ("salvage", "salvage=True"),
    ("flatten", "flatten=True"),
    ("Source::tensors", "mmconvert.ls"),
    ("Source::open", "mmconvert.open"),
];

/// Options that messages name with a value, and those values: `ragged` pad.
const VALUES: &[(&str, &[&str])] = &[
    ("ragged", &["pad", "offsets"]),
    ("strings", &["pad", "offsets", "utf8"]),
    ("missing", &["skip"]),
    ("read_as", &["string", "image", "tensor"]),
    ("rows", &["A:B"]),
    ("raw", &["uint8"]),
    ("cast", &["uint8"]),
];

/// Replaces names in backquotes by Python's, and spells options with a value as arguments.
pub(crate) fn spelled(message: &str) -> String {
    let mut text = message.replace("`against` SRC", "`against=`");
    for (name, values) in VALUES {
        let python = NAMES.iter().find(|(known, _)| known == name).map_or(*name, |(_, python)| python);
        for value in *values {
            text = text.replace(&format!("`{name}` {value}"), &format!("`{python}=\"{value}\"`"));
        }
    }
    NAMES.iter().fold(text, |text, (name, python)| text.replace(&format!("`{name}`"), &format!("`{python}`")))
}

/// Escapes control characters: names and messages may come from a hostile file.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

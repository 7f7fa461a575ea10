//! Keyword arguments to the library's options.

use std::fmt::Display;
use std::str::FromStr;

use mmconvert::records::{Missing, Ragged, ReadAs};
use mmconvert::{Budget, ByteOrder, Dtype, Options, RecordOptions, Rows};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use crate::errors::wrong_value;

/// Rows as `(start, stop)`, each perhaps `None`.
pub(crate) type Ends = (Option<i64>, Option<i64>);

pub(crate) fn rows((start, end): Ends) -> Rows {
    Rows { start, end }
}

/// Reads a value that has a name: `layout="F"`.
pub(crate) fn named<T: FromStr>(name: &str, value: &str) -> PyResult<T>
where
    T::Err: Display,
{
    value.parse().map_err(|detail: T::Err| wrong_value(name, &detail.to_string()))
}

/// The options that `arguments` choose. Those for records are added to `records`, which the source was opened with.
///
/// Every option has to apply to something, as in the program.
pub(crate) fn options(arguments: &Bound<'_, PyDict>, records: &RecordOptions) -> PyResult<Options> {
    let mut options = Options::new().must_apply(true);
    let mut records = records.clone();
    for (key, value) in arguments {
        let key: String = key.extract()?;
        if value.is_none() {
            continue;
        }
        options = match key.as_str() {
            "memory" => options.memory(budget(&value)?),
            "threads" => options.threads(positive(&key, &value)?),
            "in_flight" => options.in_flight(positive(&key, &value)?),
            "verify" => options.verify(value.extract()?),
            "overwrite" => options.overwrite(value.extract()?),
            "strict" => options.strict(value.extract()?),
            "dtype" => options.cast(text(&key, &value)?),
            "byte_order" => options.byte_order(text(&key, &value)?),
            "layout" => options.layout(text(&key, &value)?),
            "strings" => options.strings(text(&key, &value)?),
            "method" => options.method(text(&key, &value)?),
            _ => {
                records = of_records(records, &key, &value)?;
                options
            }
        };
    }
    Ok(options.records(records))
}

/// The options for opening a source.
pub(crate) fn records(arguments: &Bound<'_, PyDict>) -> PyResult<RecordOptions> {
    arguments
        .iter()
        .filter(|(_, value)| !value.is_none())
        .try_fold(RecordOptions::new(), |records, (key, value)| of_records(records, &key.extract::<String>()?, &value))
}

fn of_records(records: RecordOptions, key: &str, value: &Bound<'_, PyAny>) -> PyResult<RecordOptions> {
    Ok(match key {
        "salvage" => records.salvage(value.extract()?),
        "flatten" => records.flatten(value.extract()?),
        "offset" => records.offset(value.extract()?),
        "stream" => records.stream(value.extract()?),
        "channels" => records.channels(value.extract()?),
        "jpeg" => records.jpeg(text(key, value)?),
        "shape" => for_features(records, value, |records, feature, shape| {
            let shape: Vec<i64> = if shape.is_instance_of::<PyInt>() { vec![shape.extract()?] } else { shape.extract()? };
            if shape.iter().any(|&axis| axis < -1) || shape.iter().filter(|&&axis| axis == -1).count() > 1 {
                return Err(wrong_value(key, "at most one axis may be -1, and the others must have lengths"));
            }
            Ok(records.shape(feature, &shape))
        })?,
        "raw" => for_features(records, value, |records, feature, dtype| {
            let dtype: String = dtype.extract()?;
            let (order, name) = match dtype.split_at_checked(1) {
                Some(("<", name)) => (Some(ByteOrder::Little), name),
                Some((">", name)) => (Some(ByteOrder::Big), name),
                _ => (None, dtype.as_str()),
            };
            let dtype: Dtype = named(key, name)?;
            Ok(match order {
                Some(order) => records.raw_in(feature, dtype, order),
                None => records.raw(feature, dtype),
            })
        })?,
        "read_as" => for_features(records, value, |records, feature, how| Ok(records.read_as(feature, text::<ReadAs>(key, how)?)))?,
        "ragged" => for_features(records, value, |records, feature, how| Ok(records.ragged(feature, text::<Ragged>(key, how)?)))?,
        "missing" => for_features(records, value, |records, feature, how| Ok(records.missing(feature, text::<Missing>(key, how)?)))?,
        _ => return Err(PyTypeError::new_err(format!("there is no option {key:?}"))),
    })
}

/// An option for every compatible feature, or a dictionary of options for one feature each.
fn for_features(
    records: RecordOptions,
    value: &Bound<'_, PyAny>,
    set: impl Fn(RecordOptions, Option<&str>, &Bound<'_, PyAny>) -> PyResult<RecordOptions>,
) -> PyResult<RecordOptions> {
    let Ok(features) = value.cast::<PyDict>() else { return set(records, None, value) };
    features.iter().try_fold(records, |records, (feature, value)| set(records, Some(&feature.extract::<String>()?), &value))
}

fn text<T: FromStr>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T>
where
    T::Err: Display,
{
    let text = value.cast::<PyString>().map_err(|_| PyTypeError::new_err(format!("{name} is a str, not {}", type_name(value))))?;
    named(name, text.to_str()?)
}

fn positive(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    match value.extract::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(wrong_value(name, "expected a number greater than 0")),
    }
}

/// A number of bytes, given as such or as text with a unit; the default for `None`.
#[pyfunction]
pub(crate) fn memory_bytes(memory: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
    memory.map_or_else(|| Ok(Budget::detect()), budget).map(Budget::as_bytes)
}

/// Memory in bytes, or as text with a unit.
pub(crate) fn budget(value: &Bound<'_, PyAny>) -> PyResult<Budget> {
    if value.is_instance_of::<PyInt>() {
        let bytes = value.extract().map_err(|_| wrong_value("memory", "expected a number of bytes"))?;
        return Ok(Budget::bytes(bytes));
    }
    text("memory", value)
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "this object".to_owned(), |name| name.to_string())
}

//! An array on disk against its source, element by element.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::npy::{Header, MAX_TEXT_LEN};
use crate::job::Job;
use crate::options::Options;
use crate::os::{self, Cold};
use crate::paths::{Found, look_at};
use crate::rows::Rows;
use crate::source::{Tensor, Verified};
use crate::spec::{ShapeText, TensorSpec, memory_len};
use crate::view::same_bytes;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Dtype, shape and every byte agree; how much of the source its own checksums vouch for.
    Equal(Verified),
    /// The first thing that differs.
    Different(Difference),
}

/// The first thing in which an array differs from its source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The element types.
    Dtype {
        /// Of the source.
        expected: Dtype,
        /// In the header of the array.
        found: String,
    },
    /// The shapes.
    Shape {
        /// Of the source.
        expected: Vec<u64>,
        /// Of the array.
        found: Vec<u64>,
    },
    /// The length of the array's data, in bytes.
    Length {
        /// As the shape says.
        expected: u64,
        /// Behind the header.
        found: u64,
    },
    /// An element, the first in C order.
    Element {
        /// Its index in the array.
        index: Vec<u64>,
        /// Its bytes as the source has them, little-endian.
        expected: Vec<u8>,
        /// Its bytes in the array.
        found: Vec<u8>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dtype { expected, found } => {
                write!(f, "the source is {expected} ({}), the array {found}", expected.descr().unwrap_or("-"))
            }
            Self::Shape { expected, found } => write!(f, "the source has shape {}, the array {}", ShapeText(expected), ShapeText(found)),
            Self::Length { expected, found } => write!(f, "the array has {found} bytes of data, its shape needs {expected}"),
            Self::Element { index, expected, found } => {
                write!(f, "element {} is {found:02x?}, the source has {expected:02x?} (bytes, little-endian)", ShapeText(index))
            }
        }
    }
}

/// Compares the `.npy` at `path` with `rows` of `tensor`, streaming both within the memory of `options`.
///
/// # Errors
/// [`Error::Malformed`] when either side is broken or the source does not match its checksums,
/// [`Error::Unsupported`] for a Fortran-ordered array, [`Error::Limit`], [`Error::Cancelled`], [`Error::Io`].
pub fn compare(path: impl AsRef<Path>, tensor: &Tensor<'_>, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    let path = path.as_ref();
    let reader = tensor.reader()?;
    let job = Job::new(reader.as_ref(), rows, tensor.source().heap_bytes())?;
    let array = ArrayFile::open(path)?;
    if let Some(difference) = array.differs_from(&job.spec)? {
        return Ok(Comparison::Different(difference));
    }
    let itemsize = memory_len(job.spec.itemsize());
    let first: Mutex<Option<FirstDifference>> = Mutex::new(None);
    let verified = job.for_each_decoded((&array.file, array.data_offset), options, |bytes, expected, found| {
        os::read_exact_at(&array.file, found, array.data_offset + bytes.start, options.calls(), &array.cold)
            .map_err(Error::io("read", path))?;
        if let Some(byte) = expected.iter().zip(found.iter()).position(|(a, b)| a != b) {
            let start = byte / itemsize * itemsize;
            let position = bytes.start + start as u64;
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|known| position < known.position) {
                let element = start..start + itemsize;
                *first = Some(FirstDifference { position, expected: expected[element.clone()].to_vec(), found: found[element].to_vec() });
            }
        }
        Ok(())
    })?;
    Ok(match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Comparison::Equal(verified),
        Some(FirstDifference { position, expected, found }) => {
            let index = unravel(position / job.spec.itemsize(), job.spec.shape());
            Comparison::Different(Difference::Element { index, expected, found })
        }
    })
}

/// An element that differs, by its byte position in the array.
struct FirstDifference {
    position: u64,
    expected: Vec<u8>,
    found: Vec<u8>,
}

/// The index along every axis of flat position `element`.
fn unravel(mut element: u64, shape: &[u64]) -> Vec<u64> {
    let mut index = vec![0; shape.len()];
    for (place, &dim) in index.iter_mut().zip(shape).rev() {
        *place = element % dim;
        element /= dim;
    }
    index
}

/// A `.npy` that is read, not mapped: it may be anybody's.
struct ArrayFile<'a> {
    path: &'a Path,
    file: File,
    header: Header,
    data_offset: u64,
    data_len: u64,
    cold: Cold,
}

impl<'a> ArrayFile<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        match look_at(path)? {
            Found::File => {}
            Found::Nothing => return Err(Error::NotFound { what: "array", detail: format!("there is no {}", path.display()) }),
            Found::Directory | Found::Other => return Err(Error::bad_request(format!("{} is not a regular file", path.display()))),
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let mut front = vec![0; memory_len(metadata.len().min(MAX_TEXT_LEN as u64 + 12))];
        file.read_exact_at(&mut front, 0).map_err(Error::io("read", path))?;
        let (header, data_offset) = Header::parse(&front).map_err(|e| e.in_file(path))?;
        Ok(Self { path, file, header, data_offset, data_len: metadata.len() - data_offset, cold: Cold::default() })
    }

    fn differs_from(&self, spec: &TensorSpec) -> Result<Option<Difference>> {
        if !same_bytes(&self.header.descr, spec.dtype()) {
            return Ok(Some(Difference::Dtype { expected: spec.dtype(), found: self.header.descr.clone() }));
        }
        if self.header.shape != spec.shape() {
            return Ok(Some(Difference::Shape { expected: spec.shape().to_vec(), found: self.header.shape.clone() }));
        }
        if self.header.fortran_order && spec.shape().len() > 1 {
            let detail = "it is in Fortran order; C order is compared".to_owned();
            return Err(Error::Unsupported { what: format!("comparing {}", self.path.display()), detail });
        }
        if self.data_len != spec.nbytes() {
            return Ok(Some(Difference::Length { expected: spec.nbytes(), found: self.data_len }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_positions_become_indices() {
        assert_eq!(unravel(0, &[]), [0u64; 0]);
        assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(unravel(4, &[2, 3, 4]), [0, 1, 0]);
    }
}

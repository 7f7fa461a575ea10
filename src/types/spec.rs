//! Dtype and shape of a tensor, known before any data is read. All sizes are computed here with overflow checks.

use std::fmt;
use std::ops::Range;

use super::dtype::Dtype;
use super::rows::Rows;
use crate::error::Error;
use crate::error::request::BadRequest;
use crate::error::texts::ShapeText;

/// Maximum number of dimensions of a NumPy 2 array (`NPY_MAXDIMS`).
pub(crate) const MAX_NDIM: usize = 64;

/// Dtype and shape of a tensor.
///
/// A `TensorSpec` always describes an array that NumPy could hold in principle: with zero dimensions counted as one, the byte
/// count is below 2⁶³.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    dtype: Dtype,
    shape: Vec<u64>,
}

impl TensorSpec {
    /// A spec of dtype `dtype` and shape `shape`.
    ///
    /// # Errors
    /// Returns [`BadRequest::ShapeTooLarge`] if the byte count exceeds 2⁶³ - 1. Zero dimensions count as one, because NumPy also
    /// refuses `(0, 2**62)` with eight-byte elements.
    pub fn new(dtype: Dtype, shape: Vec<u64>) -> Result<Self, BadRequest> {
        let itemsize = dtype.itemsize().unwrap_or(1);
        let nbytes = shape.iter().try_fold(itemsize, |bytes, &dim| bytes.checked_mul(dim.max(1)));
        match nbytes.filter(|&bytes| i64::try_from(bytes).is_ok()) {
            Some(_) => Ok(Self { dtype, shape }),
            None => Err(BadRequest::ShapeTooLarge { shape, itemsize }),
        }
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The length of every axis; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes per element; 0 for a dtype without a fixed size.
    #[must_use]
    pub fn itemsize(&self) -> u64 {
        self.dtype.itemsize().unwrap_or(0)
    }

    /// Total bytes of the tensor; 0 for a dtype without a fixed size.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.elements() * self.itemsize()
    }

    /// The length of axis 0; a scalar has one row.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The number of elements in one row.
    #[must_use]
    pub fn row_elements(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    /// The bytes of one row; 0 for a dtype without a fixed size.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        self.row_elements() * self.itemsize()
    }

    /// The same shape with another dtype.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new).
    pub(crate) fn with_dtype(&self, dtype: Dtype) -> Result<Self, BadRequest> {
        Self::new(dtype, self.shape.clone())
    }

    /// The error for a buffer of `given` bytes for this tensor.
    pub(crate) fn length_differs(&self, given: u64) -> BadRequest {
        BadRequest::BufferLength { dtype: self.dtype.name(), shape: self.shape.clone(), needed: self.nbytes(), given }
    }

    /// Resolves `rows` on axis 0; `None` selects all rows.
    ///
    /// # Errors
    /// Returns [`BadRequest::RowsOfScalar`].
    pub(crate) fn select(&self, rows: Option<Rows>) -> Result<Range<u64>, Error> {
        match rows {
            Some(_) if self.shape.is_empty() => Err(BadRequest::RowsOfScalar.into()),
            Some(rows) => Ok(rows.resolve(self.rows())),
            None => Ok(0..self.rows()),
        }
    }

    /// The same tensor with only `rows` of axis 0; `rows` must lie inside it. A scalar is unchanged.
    #[must_use]
    pub fn with_rows(&self, rows: &Range<u64>) -> Self {
        let mut shape = self.shape.clone();
        if let Some(axis) = shape.first_mut() {
            *axis = (rows.end - rows.start).min(*axis);
        }
        Self { dtype: self.dtype, shape }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, ShapeText(&self.shape))
    }
}

/// Converts the flat position `element` to an index along every axis.
pub(crate) fn unravel(mut element: u64, shape: &[u64]) -> Vec<u64> {
    let mut index = vec![0; shape.len()];
    for (place, &dim) in index.iter_mut().zip(shape).rev() {
        *place = element % dim;
        element /= dim;
    }
    index
}

/// Splits `len` into equal parts of at most `most` and returns the length of a part. A short last part would not be worth its
/// system call, and the kernel would take it as a reason to read ahead.
#[must_use]
pub(crate) fn even_part(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most.max(1)).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_numpy_could_not_hold_are_refused() {
        for (dtype, shape) in [
            (Dtype::Float32, vec![u64::MAX]),
            (Dtype::Float32, vec![1 << 62]),
            (Dtype::UInt8, vec![1 << 32, 1 << 32]),
            (Dtype::UInt8, vec![0, 1 << 32, 1 << 32]),
            (Dtype::Complex128, vec![1 << 59]),
        ] {
            assert!(TensorSpec::new(dtype, shape.clone()).is_err(), "{shape:?}");
        }
        assert_eq!(TensorSpec::new(Dtype::UInt8, vec![1 << 40]).unwrap().nbytes(), 1 << 40);
    }

    #[test]
    fn flat_positions_become_indices() {
        assert_eq!(unravel(0, &[]), [0u64; 0]);
        assert_eq!(unravel(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(unravel(4, &[2, 3, 4]), [0, 1, 0]);
    }

    #[test]
    fn a_scalar_is_one_row_of_one_element() {
        let spec = TensorSpec::new(Dtype::Float64, vec![]).unwrap();
        assert_eq!((spec.rows(), spec.row_elements(), spec.nbytes()), (1, 1, 8));
        assert_eq!(spec.with_rows(&(0..1)), spec);
    }

    #[test]
    fn rows_times_row_bytes_is_all_bytes() {
        for shape in [vec![], vec![0], vec![5], vec![0, 3], vec![3, 0], vec![2, 3, 4]] {
            let spec = TensorSpec::new(Dtype::Int16, shape).unwrap();
            assert_eq!(spec.rows() * spec.row_bytes(), spec.nbytes());
        }
    }
}

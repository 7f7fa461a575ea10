//! Arrays in memory: bytes of Python objects, and a reader over them.

use std::ops::Range;

use mmconvert::reader::{ReadContext, TensorReader};
use mmconvert::{ByteOrder, Error, Layout, Result, TensorSpec};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

/// The bytes of a contiguous object with the buffer protocol, which must live and keep its length as long as `buffer`.
#[expect(unsafe_code, reason = "the memory is another object's")]
pub(crate) fn bytes_of(buffer: &PyBuffer<u8>) -> PyResult<&[u8]> {
    check(buffer)?;
    if buffer.len_bytes() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer is contiguous and has this many bytes, which the exporter keeps in place until the `PyBuffer` is released.
    // Other Python threads may write to them while the GIL is released, as they may during `ndarray.tofile`; every bit pattern is a
    // valid byte, and the bytes are only copied. The functions of the package say that the array must not be changed meanwhile.
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) })
}

/// The same for writing.
#[expect(unsafe_code, reason = "the memory is another object's")]
#[expect(clippy::mut_from_ref, reason = "a buffer is a handle to memory elsewhere")]
pub(crate) fn bytes_of_mut(buffer: &PyBuffer<u8>) -> PyResult<&mut [u8]> {
    check(buffer)?;
    if buffer.readonly() {
        return Err(PyBufferError::new_err("the buffer is read-only"));
    }
    if buffer.len_bytes() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as in `bytes_of`. The package passes arrays that it has just made and that nobody else has a reference to.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) })
}

fn check(buffer: &PyBuffer<u8>) -> PyResult<()> {
    if buffer.is_c_contiguous() { Ok(()) } else { Err(PyBufferError::new_err("the buffer is not contiguous")) }
}

/// A tensor whose elements are in the memory of a Python object.
#[derive(Debug)]
pub(crate) struct BufferTensor<'a> {
    spec: TensorSpec,
    bytes: &'a [u8],
    order: ByteOrder,
    layout: Layout,
}

impl<'a> BufferTensor<'a> {
    pub(crate) fn new(spec: TensorSpec, bytes: &'a [u8], order: ByteOrder, layout: Layout) -> PyResult<Self> {
        if bytes.len() as u64 != spec.nbytes() {
            return Err(PyValueError::new_err(format!("{spec} has {} bytes, the buffer has {}", spec.nbytes(), bytes.len())));
        }
        Ok(Self { spec, bytes, order, layout })
    }
}

impl TensorReader for BufferTensor<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    // As `numpy.save` does.
    fn keeps_bool_bytes(&self) -> bool {
        true
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        let place = |element: u64| usize::try_from(element * self.spec.itemsize()).ok();
        let part = place(elements.start).zip(place(elements.end)).and_then(|(start, end)| self.bytes.get(start..end));
        let part = part.filter(|part| part.len() == out.len()).ok_or_else(|| Error::Unsupported {
            what: format!("elements {elements:?} of {}", self.spec),
            detail: "they are outside of the array".into(),
        })?;
        out.copy_from_slice(part);
        Ok(())
    }
}

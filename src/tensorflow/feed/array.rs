//! Arrays that are fed to a run: `.npy` files, read as needed.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tensorflow::{BFloat16, QInt8, QInt16, QInt32, QUInt8, QUInt16, Tensor, TensorType};
use bytemuck::{Pod, cast_slice_mut};
use half::f16;
use num_complex::Complex;

use super::fed::{Fed, check_shape, constant};
use crate::error::request::BadRequest;
use crate::error::texts::ShapeText;
use crate::error::{Error, Result};
use crate::format::meta_graph::Argument;
use crate::format::npy::{Descr, Elements, Header, MAX_TEXT_LEN};
use crate::os::SystemCalls;
use crate::os::residency::Residency;
use crate::storage::input::{InputFile, open_file};
use crate::tensorflow::session::{Feed, NodeOutput, attempt};
use crate::tensorflow::wire;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::MAX_NDIM;

/// An array in a file for an input of a graph.
#[derive(Debug)]
pub(crate) struct ArrayFeed {
    target: NodeOutput,
    path: PathBuf,
    file: InputFile,
    residency: Residency,
    dtype: Dtype,
    descr: Descr,
    data_start: u64,
    shape: Vec<u64>,
    /// Whether any of its strings is shorter than the array's width.
    is_padded: bool,
}

impl ArrayFeed {
    /// The array at `path` for the input `target`, described by `input`. `batch` rows are fed at a time.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if it does not fit the input, [`Error::Unsupported`] for an order that cannot be fed,
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn open(path: &Path, target: NodeOutput, input: &Argument, batch: Option<u64>, calls: &SystemCalls) -> Result<Self> {
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("read", path))?.len();
        let residency = Residency::default();
        let mut front = vec![0; memory_len(len).min(MAX_TEXT_LEN + 12)];
        residency.read_exact_at(&file, &mut front, 0, calls).map_err(Error::io("read", path))?;
        let (header, data_start) = Header::parse(&front).map_err(|error| error.in_file(path))?;
        let refused = |request: BadRequest| Error::from(request.of_input(path, &target.name));
        let found = || header.descr.clone();
        let dtype = input.dtype.ok_or_else(|| refused(BadRequest::InputDtype { found: found(), dtype: None, descr: None }))?;
        let descr = Descr::parse(&header.descr);
        let fits = |descr: &Descr| if dtype == Dtype::String { descr.is_text() } else { descr.can_be(dtype) };
        let Some(descr) = descr.filter(fits) else {
            if Elements::of(&header.descr) == Some(Elements::Objects) {
                return Err(refused(BadRequest::InputPickled { takes_strings: dtype == Dtype::String }));
            }
            return Err(refused(BadRequest::InputDtype { found: found(), dtype: Some(dtype.name()), descr: dtype.descr() }));
        };
        if descr.order != ByteOrder::NATIVE && dtype.component_size() > 1 {
            return Err(refused(BadRequest::InputByteOrder { found: found() }));
        }
        if header.fortran_order {
            return Err(refused(BadRequest::InputFortranOrder));
        }
        if header.shape.len() > MAX_NDIM {
            return Err(refused(BadRequest::TooManyDimensions { dimensions: header.shape.len(), most: MAX_NDIM }));
        }
        let mut array =
            Self { target, path: path.to_owned(), file, residency, dtype, descr, data_start, shape: header.shape, is_padded: false };
        let (elements, nbytes) = array.bytes_of(&array.shape)?;
        if len - data_start < nbytes {
            let detail = format!("{} bytes of data, {elements} elements have {nbytes}", len - data_start);
            return Err(Error::malformed_at(path, ".npy data", data_start, detail));
        }
        if len - data_start > nbytes {
            let detail = format!("{} bytes follow the array: a file to be fed must hold one array", len - data_start - nbytes);
            return Err(Error::malformed_at(path, ".npy data", data_start + nbytes, detail));
        }
        check_shape(path, &array.target, &array.shape, input, batch)?;
        if dtype == Dtype::String {
            array.check_widths()?;
        }
        Ok(array)
    }

    pub(crate) fn is_for(&self, target: &NodeOutput) -> bool {
        self.target.name == target.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rows of axis 0; `None` for an array without axes.
    pub(crate) fn rows(&self) -> Option<u64> {
        self.shape.first().copied()
    }

    /// Bytes of that many rows in the file.
    pub(crate) fn nbytes(&self, rows: u64) -> u64 {
        let mut shape = self.shape.clone();
        shape.iter_mut().take(1).for_each(|axis| *axis = rows);
        self.bytes_of(&shape).map_or(u64::MAX, |(_, nbytes)| nbytes)
    }

    /// Memory for feeding that many rows. Strings exist twice: as messages, then as tensors of `tstring`s.
    pub(crate) fn held_bytes(&self, rows: u64) -> u64 {
        const STRING_BYTES: u64 = 24 + 2 * 6;
        let stored = self.nbytes(rows);
        if self.dtype != Dtype::String {
            return stored;
        }
        let elements = self.shape.iter().skip(1).fold(rows, |product, &axis| product.saturating_mul(axis));
        elements.saturating_mul(STRING_BYTES).saturating_add(stored.saturating_mul(4))
    }

    fn itemsize(&self) -> u64 {
        self.descr.size.saturating_mul(if self.descr.kind == 'U' { 4 } else { 1 })
    }

    fn bytes_of(&self, shape: &[u64]) -> Result<(u64, u64)> {
        let elements = shape.iter().try_fold(1u64, |product, &axis| product.checked_mul(axis));
        let sized = elements.and_then(|elements| Some((elements, elements.checked_mul(self.itemsize())?)));
        sized.ok_or_else(|| Error::malformed(&self.path, ".npy header", format!("shape {} has more than 2^64 bytes", ShapeText(shape))))
    }

    /// These rows of the array to be fed, or the whole array if it has no axes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TensorFlow`].
    pub(crate) fn rows_of(&self, rows: &Range<u64>) -> Result<Box<dyn Feed + '_>> {
        let mut shape = self.shape.clone();
        shape.iter_mut().take(1).for_each(|axis| *axis = rows.end - rows.start);
        let start = if shape.is_empty() { 0 } else { self.nbytes(rows.start) };
        match self.dtype {
            Dtype::String => self.strings(&shape, start),
            Dtype::Float32 => self.plain::<f32>(&shape, start),
            Dtype::Float64 => self.plain::<f64>(&shape, start),
            Dtype::Float16 => self.plain::<f16>(&shape, start),
            Dtype::Int8 => self.plain::<i8>(&shape, start),
            Dtype::Int16 => self.plain::<i16>(&shape, start),
            Dtype::Int32 => self.plain::<i32>(&shape, start),
            Dtype::Int64 => self.plain::<i64>(&shape, start),
            Dtype::UInt8 => self.plain::<u8>(&shape, start),
            Dtype::UInt16 => self.plain::<u16>(&shape, start),
            Dtype::UInt32 => self.plain::<u32>(&shape, start),
            Dtype::UInt64 => self.plain::<u64>(&shape, start),
            Dtype::Complex64 => self.plain::<Complex<f32>>(&shape, start),
            Dtype::Complex128 => self.plain::<Complex<f64>>(&shape, start),
            Dtype::Bool => self.made(&shape, start, |byte: u8| byte != 0),
            // The crate's type is made from the upper half of a single.
            Dtype::BFloat16 => self.made(&shape, start, |bits: u16| BFloat16::from(f32::from_bits(u32::from(bits) << 16))),
            Dtype::QInt8 => self.made(&shape, start, |bits: i8| QInt8::from(bits)),
            Dtype::QUInt8 => self.made(&shape, start, |bits: u8| QUInt8::from(bits)),
            Dtype::QInt16 => self.made(&shape, start, |bits: i16| QInt16::from(bits)),
            Dtype::QUInt16 => self.made(&shape, start, |bits: u16| QUInt16::from(bits)),
            Dtype::QInt32 => self.made(&shape, start, |bits: i32| QInt32::from(bits)),
            dtype => {
                let detail = format!("inputs of {dtype} cannot be created");
                Err(Error::Unsupported { what: format!("{} as {}", self.path.display(), self.target.name), detail })
            }
        }
    }

    fn read(&self, buf: &mut [u8], start: u64) -> Result<()> {
        self.residency.read_exact_at(&self.file, buf, self.data_start + start, self.file.calls()).map_err(Error::io("read", &self.path))
    }

    fn fed<T: TensorType>(&self, tensor: Tensor<T>) -> Box<dyn Feed + '_> {
        Box::new(Fed { operation: &self.target.operation, index: self.target.index, tensor })
    }

    /// Elements that are equal in memory and in the file.
    fn plain<T: TensorType + Pod>(&self, shape: &[u64], start: u64) -> Result<Box<dyn Feed + '_>> {
        let mut tensor = self.empty::<T>(shape)?;
        if !shape.contains(&0) {
            self.read(cast_slice_mut(&mut tensor), start)?;
        }
        Ok(self.fed(tensor))
    }

    /// Elements that are made from those in the file.
    fn made<S: Pod, T: TensorType>(&self, shape: &[u64], start: u64, make: impl Fn(S) -> T) -> Result<Box<dyn Feed + '_>> {
        let mut tensor = self.empty::<T>(shape)?;
        if !shape.contains(&0) {
            let mut stored = vec![S::zeroed(); tensor.len()];
            self.read(cast_slice_mut(&mut stored), start)?;
            tensor.iter_mut().zip(stored).for_each(|(place, value)| *place = make(value));
        }
        Ok(self.fed(tensor))
    }

    fn empty<T: TensorType>(&self, shape: &[u64]) -> Result<Tensor<T>> {
        attempt(|| format!("making room for {}", self.path.display()), || Ok(Tensor::new(shape)))
    }

    /// Checks the widths of strings. A padded string may have lost trailing NULs. If no element fills the width, the longest one
    /// ended in NUL, since NumPy makes an array as wide as its longest string, and then the array is refused.
    ///
    /// # Errors
    /// [`Error::BadRequest`], [`Error::Io`].
    fn check_widths(&mut self) -> Result<()> {
        const CHUNK: u64 = 1 << 20;
        let (elements, nbytes) = self.bytes_of(&self.shape)?;
        let item = self.itemsize();
        if elements == 0 || self.descr.size <= 1 {
            return Ok(());
        }
        let last = memory_len(item) - memory_len(item / self.descr.size);
        let step = item.max(CHUNK / item * item);
        let mut chunk = vec![0; memory_len(step.min(nbytes))];
        let mut has_long = false;
        for at in (0..nbytes).step_by(memory_len(step)) {
            let chunk = &mut chunk[..memory_len(step.min(nbytes - at))];
            self.read(chunk, at)?;
            for element in chunk.chunks_exact(memory_len(item)) {
                let is_padded = element[last..].iter().all(|&byte| byte == 0);
                has_long |= !is_padded;
                self.is_padded |= is_padded;
            }
            if has_long && self.is_padded {
                return Ok(());
            }
        }
        if has_long {
            return Ok(());
        }
        let request = BadRequest::InputPadded { kind: self.descr.kind, size: self.descr.size };
        Err(request.of_input(&self.path, &self.target.name).into())
    }

    /// A warning about what its strings may have lost.
    pub(crate) fn note(&self) -> Option<String> {
        self.is_padded.then(|| {
            format!(
                "{}: strings shorter than {}{} end before their trailing NULs, as in NumPy; strings that ended in NUL have lost it there, \
                 values and offsets or records would keep it",
                self.path.display(),
                self.descr.kind,
                self.descr.size
            )
        })
    }

    /// Strings: `|S<n>` ends before trailing zeros, as in NumPy; `<U<n>` becomes UTF-8.
    fn strings(&self, shape: &[u64], start: u64) -> Result<Box<dyn Feed + '_>> {
        let (elements, nbytes) = self.bytes_of(shape)?;
        let mut bytes = vec![0; memory_len(nbytes)];
        self.read(&mut bytes, start)?;
        let item = memory_len(self.itemsize());
        let mut proto = wire::tensor(Dtype::String, shape);
        let mut encoded = String::new();
        for element in 0..memory_len(elements) {
            let element = &bytes[element * item..(element + 1) * item];
            if self.descr.kind == 'U' {
                encoded.clear();
                let points = element.chunks_exact(4).map(bytemuck::pod_read_unaligned::<u32>);
                let len = element.len() / 4 - points.clone().rev().take_while(|&point| point == 0).count();
                for point in points.take(len) {
                    let point = char::from_u32(point)
                        .ok_or_else(|| Error::malformed(&self.path, ".npy data", format!("{point:#x} is not a Unicode code point")))?;
                    encoded.push(point);
                }
                wire::put_string(&mut proto, encoded.as_bytes());
            } else {
                let len = element.len() - element.iter().rev().take_while(|&&byte| byte == 0).count();
                wire::put_string(&mut proto, &element[..len]);
            }
        }
        let strings = attempt(|| format!("making strings of {}", self.path.display()), || constant(&proto))?;
        Ok(self.fed(strings))
    }
}

//! Reads rows of a tensor into the caller's memory.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytemuck::Zeroable;
use ndarray::{ArrayD, IxDyn};

use super::opened::{RecordColumn, Tensor};
use crate::cast::decoder::Decoder;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::workers::Workers;
use crate::plan::Memory;
use crate::plan::grid::Unit;
use crate::reader::checksums::RegionChecksums;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::records::pass::array::RecordArray;
use crate::records::pass::output::ArrayOutput;
use crate::records::pass::plan::Pass;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::element::Element;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Bytes that one worker reads at a time.
const PIECE_BYTES: u64 = 2 << 20;
/// Shorter reads are not worth a second thread.
const ALONE_BYTES: u64 = 1 << 20;
/// Bytes that a worker decodes at a time, so that they stay in the cache.
const DECODED_BYTES: usize = 128 << 10;

impl Tensor {
    /// Reads rows of axis 0 as an array in memory: `tensor.read::<f32>(0..10)`, or `..` for all of them. `0..10` of four rows are these
    /// four. A scalar has no axis 0: it takes `..`.
    ///
    /// Workers read in parallel. Each needs a few MiB beside the array, whatever the size of the tensor. Checksums are verified
    /// whose bytes are read completely.
    ///
    /// ```no_run
    /// let source = mmconvert::Source::open("model.ckpt-1000")?;
    /// let rows = source.tensor("embedding")?.read::<f32>(0..10)?;
    /// println!("{:?} {}", rows.shape(), rows[[0, 0]]);
    /// # Ok::<(), mmconvert::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongDtype`] when `T` is not the tensor's type, [`Error::BadRequest`] for rows of a scalar, [`Error::Unsupported`] for
    /// strings, and those of [`read_rows`](Self::read_rows).
    pub fn read<T: Element>(&self, rows: impl Into<Rows>) -> Result<ArrayD<T>> {
        self.read_with(rows, &Options::new())
    }

    /// As [`read`](Self::read), taking from `options` the threads, the cancel token and whether to verify checksums.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), and [`Error::Cancelled`].
    pub fn read_with<T: Element>(&self, rows: impl Into<Rows>, options: &Options) -> Result<ArrayD<T>> {
        let input = Input::of(self, rows.into(), options)?;
        let dtype = input.dtype();
        if !T::DTYPES.contains(&dtype) {
            return Err(Error::WrongDtype { actual: dtype.name(), asked: T::NAME });
        }
        let (bits, shape) = match input {
            Input::Elements(elements) => {
                let mut bits = vec![T::Bits::zeroed(); memory_len(elements.spec.elements())];
                elements.read(bytemuck::cast_slice_mut(&mut bits), options)?;
                (bits, elements.spec.shape().to_vec())
            }
            Input::Column(column) => {
                // The number of rows is known only after the pass.
                let bits = Mutex::new(Vec::<T::Bits>::new());
                let rows = column.read(&|at, bytes| {
                    let mut bits = bits.lock().unwrap_or_else(PoisonError::into_inner);
                    let (start, end) = (memory_len(at), memory_len(at.saturating_add(bytes.len() as u64)));
                    let len = end.div_ceil(size_of::<T::Bits>());
                    if bits.len() < len {
                        bits.resize(len, T::Bits::zeroed());
                    }
                    bytemuck::cast_slice_mut(&mut bits)[start..end].copy_from_slice(bytes);
                    Ok(())
                })?;
                let shape = std::iter::once(rows).chain(column.array().row.shape().iter().copied()).collect();
                (bits.into_inner().unwrap_or_else(PoisonError::into_inner), shape)
            }
        };
        let shape: Vec<usize> = shape.into_iter().map(memory_len).collect();
        let elements = T::of_bits(bits).map_err(|at| {
            let detail = format!("element {at} is not a valid {}", T::NAME);
            Error::malformed(self.source().path(), format!("tensor {}", self.info().name), detail)
        })?;
        ArrayD::from_shape_vec(IxDyn(&shape), elements).map_err(|error| BadRequest::impossible(error.to_string()).into())
    }

    /// Fills `out` with rows of axis 0: elements in C order and in this machine's byte order. Bytes of a `bool` are 0 or 1,
    /// except that a NumPy array keeps its other values.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when the length of `out` is not that of these rows, and for rows of a scalar; [`Error::Unsupported`] for
    /// strings; [`Error::Malformed`] when the source is damaged or was written to since it was opened; [`Error::Io`].
    pub fn read_rows(&self, rows: impl Into<Rows>, out: &mut [u8]) -> Result<()> {
        self.read_rows_with(rows, out, &Options::new())
    }

    /// As [`read_rows`](Self::read_rows), taking from `options` the threads, the cancel token and whether to verify checksums.
    ///
    /// # Errors
    /// Those of [`read_rows`](Self::read_rows), and [`Error::Cancelled`].
    pub fn read_rows_with(&self, rows: impl Into<Rows>, out: &mut [u8], options: &Options) -> Result<()> {
        let len = out.len() as u64;
        let name = &self.info().name;
        let wrong = |spec: TensorSpec| Err(spec.length_differs(len).of_tensor(name).into());
        match Input::of(self, rows.into(), options)? {
            Input::Elements(elements) => {
                let spec = &elements.spec;
                if spec.nbytes() != len {
                    return wrong(spec.clone());
                }
                elements.read(out, options)
            }
            Input::Column(column) => {
                let row = column.array().written_row();
                let buffer = Mutex::new(&mut *out);
                let rows = column.read(&|at, bytes| {
                    let end = at.saturating_add(bytes.len() as u64);
                    if end > len {
                        return Err(BadRequest::BufferTooShort { given: len }.of_tensor(name).into());
                    }
                    let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                    buffer[memory_len(at)..memory_len(end)].copy_from_slice(bytes);
                    Ok(())
                })?;
                if rows.checked_mul(row) == Some(len) {
                    return Ok(());
                }
                let shape = [&[rows], column.array().row.shape()].concat();
                wrong(TensorSpec::new(column.array().written, shape)?)
            }
        }
    }
}

/// The rows to read.
enum Input<'a> {
    Elements(Elements<'a>),
    Column(Box<Column<'a>>),
}

/// Rows from a reader.
struct Elements<'a> {
    reader: Box<dyn TensorReader + 'a>,
    rows: Range<u64>,
    spec: TensorSpec,
}

/// Rows of a column of records, made by one pass over them.
struct Column<'a> {
    pass: Pass<'a>,
}

impl<'a> Input<'a> {
    fn of(tensor: &'a Tensor, rows: Rows, options: &Options) -> Result<Self> {
        let rows = (rows != Rows::ALL).then_some(rows);
        let refused =
            |detail: &str| Err(Error::Unsupported { what: format!("reading {} into memory", tensor.info().name), detail: detail.into() });
        if tensor.info().spec.dtype() == Dtype::String {
            return refused("strings have no fixed size: a Converter writes them to a file");
        }
        if let Some(RecordColumn { records, set, feature }) = tensor.column() {
            tensor.check_supported()?;
            let options = options.clone().byte_order(ByteOrder::NATIVE).layout(Layout::C);
            let pass = Pass::plan(records, set, &[feature], &options.request(rows, tensor.source().heap_bytes()))?;
            if pass.arrays.len() != 1 {
                return refused("its rows become values and offsets, which a Converter writes to files");
            }
            return Ok(Self::Column(Box::new(Column { pass })));
        }
        let reader = tensor.reader()?;
        if rows.is_some() && tensor.info().is_scalar() {
            return Err(BadRequest::RowsOfScalar.into());
        }
        let rows = reader.spec().select(rows)?;
        let spec = reader.spec().with_rows(&rows);
        Ok(Self::Elements(Elements { reader, rows, spec }))
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::Elements(elements) => elements.spec.dtype(),
            Self::Column(column) => column.array().written,
        }
    }
}

impl Column<'_> {
    fn array(&self) -> &RecordArray {
        &self.pass.arrays[0]
    }

    /// Passes runs of rows to `put`, each with its byte offset. Returns the number of rows.
    fn read(&self, put: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync)) -> Result<u64> {
        let done = self.pass.make(&[ArrayOutput::Check(put)])?;
        Ok(done.rows.first().copied().unwrap_or(0))
    }
}

impl Elements<'_> {
    fn read(&self, out: &mut [u8], options: &Options) -> Result<()> {
        read_elements(&*self.reader, &self.rows, &self.spec, out, options)
    }
}

/// Reads rows with the shape `spec` from `reader`, in parallel.
fn read_elements(reader: &dyn TensorReader, rows: &Range<u64>, spec: &TensorSpec, out: &mut [u8], options: &Options) -> Result<()> {
    let checksums = options.verify.then(|| RegionChecksums::new(reader.regions()));
    let native = Native::of(reader)?;
    let row_bytes = spec.row_elements() * spec.itemsize();
    let is_fortran = reader.layout() == Layout::F && spec.shape().len() > 1;
    let pieces = pieces(reader, rows, row_bytes, is_fortran);
    let threads = if out.len() as u64 <= ALONE_BYTES || pieces.len() < 2 { 1 } else { Memory::Scan.threads(options.threads) };
    let mut parts = Vec::with_capacity(pieces.len());
    let mut rest = out;
    for elements in pieces {
        let len = memory_len((elements.end - elements.start) * spec.itemsize());
        let (part, later) = rest.split_at_mut(len);
        parts.push((elements, part));
        rest = later;
    }
    let mut parts = parts.into_iter();
    let is_boxed = is_fortran || reader.chunk_grids().iter().any(|grid| grid.unit == Unit::Chunk);
    Workers::new(threads.min(parts.len().max(1))).run(
        &options.cancel,
        || Ok(parts.next()),
        || (ReadContext::new(memory_len(PIECE_BYTES), checksums.as_ref(), &options.calls()), Vec::new()),
        |(elements, part): (Range<u64>, &mut [u8]), (context, scratch)| {
            if is_boxed {
                let per_row = spec.row_elements().max(1);
                read_band(reader, elements.start / per_row..elements.end / per_row, part, context, scratch)?;
            } else {
                reader.read(elements, part, context)?;
            }
            native.convert(part, scratch);
            Ok(())
        },
    )?;
    reader.check_unchanged()?;
    checksums.as_ref().map_or(Ok(()), |checksums| checksums.verify().map(drop))
}

/// Converts what a reader delivers to this machine's byte order, and bytes of a `bool` to 0 and 1 unless they are kept.
pub(super) struct Native {
    decoder: Decoder,
    itemsize: usize,
}

impl Native {
    pub(super) fn of(reader: &dyn TensorReader) -> Result<Self> {
        let dtype = reader.spec().dtype();
        let as_is = dtype == Dtype::Bool && reader.keeps_bool_bytes();
        let stored = if as_is { Dtype::UInt8 } else { dtype };
        let decoder = Decoder::new((stored, reader.byte_order()), (stored, ByteOrder::NATIVE), false)?;
        Ok(Self { decoder, itemsize: memory_len(reader.spec().itemsize()).max(1) })
    }

    /// Converts whole elements in place.
    pub(super) fn convert(&self, elements: &mut [u8], scratch: &mut Vec<u8>) {
        if self.decoder.is_copy() {
            return;
        }
        for part in elements.chunks_mut(DECODED_BYTES / self.itemsize * self.itemsize) {
            scratch.clear();
            scratch.extend_from_slice(part);
            let kept = self.decoder.decode(scratch, part);
            debug_assert!(kept.is_ok(), "nothing is cast");
        }
    }
}

/// The elements that one worker reads at a time, in C order: whole rows of chunks, or runs of elements.
fn pieces(reader: &dyn TensorReader, rows: &Range<u64>, row_bytes: u64, is_fortran: bool) -> Vec<Range<u64>> {
    let row_elements = reader.spec().row_elements();
    let of_rows = |rows: Range<u64>| rows.start * row_elements..rows.end * row_elements;
    let grids = reader.chunk_grids();
    if grids.iter().any(|grid| grid.unit == Unit::Stream) {
        // A sequential reader gets a single piece.
        return vec![of_rows(rows.clone())];
    }
    let rows_of_piece = (PIECE_BYTES / row_bytes.max(1)).max(1);
    let mut pieces = Vec::new();
    if grids.iter().any(|grid| grid.unit == Unit::Chunk) {
        let mut at = rows.start;
        while at < rows.end {
            // Up to the end of this row's chunks, or of several short chunks.
            let grid = grids.iter().find(|grid| grid.rows.contains(&at));
            let (first, step) = grid.map_or((at, rows_of_piece), |grid| (grid.rows.start, grid.chunk.first().copied().unwrap_or(1).max(1)));
            let step = step * (rows_of_piece / step).max(1);
            let last = grid.map_or(rows.end, |grid| grid.rows.end);
            let end = (first + ((at - first) / step + 1) * step).min(last).min(rows.end);
            pieces.push(of_rows(at..end));
            at = end;
        }
        return pieces;
    }
    if is_fortran || row_bytes == 0 {
        let mut at = rows.start;
        while at < rows.end {
            let end = at.saturating_add(rows_of_piece).min(rows.end);
            pieces.push(of_rows(at..end));
            at = end;
        }
        return pieces;
    }
    let all = of_rows(rows.clone());
    let step = (PIECE_BYTES / reader.spec().itemsize().max(1)).max(1);
    let mut at = all.start;
    while at < all.end {
        let end = at.saturating_add(step).min(all.end);
        pieces.push(at..end);
        at = end;
    }
    pieces
}

/// Reads whole rows as one box, and transposes them if the reader is in Fortran order.
pub(super) fn read_band(
    reader: &dyn TensorReader,
    rows: Range<u64>,
    out: &mut [u8],
    context: &mut ReadContext<'_>,
    scratch: &mut Vec<u8>,
) -> Result<()> {
    let spec = reader.spec();
    let mut start = vec![0; spec.shape().len()];
    let mut shape = spec.shape().to_vec();
    if let (Some(first), Some(len)) = (start.first_mut(), shape.first_mut()) {
        (*first, *len) = (rows.start, rows.end - rows.start);
    }
    if reader.layout() == Layout::C || shape.len() < 2 || out.is_empty() {
        return reader.read_box(&start, &shape, out, context);
    }
    scratch.clear();
    scratch.resize(out.len(), 0);
    reader.read_box(&start, &shape, scratch, context)?;
    let item = memory_len(spec.itemsize());
    let (height, row) = (memory_len(shape[0]), memory_len(spec.row_elements()));
    // The columns of the box follow each other, axis 1 varying fastest; `place` is the position of a column in a row.
    let strides: Vec<usize> = (1..shape.len()).map(|axis| memory_len(shape[axis + 1..].iter().product())).collect();
    let (mut index, mut place) = (vec![0; strides.len()], 0);
    for column in scratch.chunks_exact(height * item) {
        for (at, element) in column.chunks_exact(item).enumerate() {
            let to = (at * row + place) * item;
            out[to..to + item].copy_from_slice(element);
        }
        for (axis, stride) in strides.iter().enumerate() {
            index[axis] += 1;
            place += stride;
            if index[axis] < memory_len(shape[axis + 1]) {
                break;
            }
            place -= stride * index[axis];
            index[axis] = 0;
        }
    }
    Ok(())
}

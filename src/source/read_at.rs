//! Reads rows of a tensor by their numbers: embeddings of ids, frames of a sample.

use super::opened::Tensor;
use super::read::{Native, read_band};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::workers::Workers;
use crate::plan::Memory;
use crate::plan::grid::{ChunkGrid, Unit};
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::types::layout::Layout;
use crate::types::size::memory_len;

/// Rows that follow each other closer than this are read together, with the bytes between them.
const GAP_BYTES: u64 = 4 << 10;
/// Bytes that are read together at most, unless a row has more.
const BAND_BYTES: u64 = 1 << 20;
/// Rows that a worker takes at a time.
const ROWS_AT_A_TIME: usize = 256;
/// Fewer rows are not worth a second thread, if they are short.
const ALONE_ROWS: usize = 64;

/// A row to read: its number, and its place in the result.
type Wanted<'o> = (u64, &'o mut [u8]);

impl Tensor {
    /// Fills `out` with the rows `rows` of axis 0, in this order, repeats included: elements in C order and in this machine's byte
    /// order. Rows are read in the order of the source, by several workers; rows that are close to each other are read together.
    ///
    /// Stored checksums cover more than single rows, so they are not compared, except those of compressed blocks.
    ///
    /// ```
    /// let source = mmconvert::Source::open("tests/data/generated/six_shards")?;
    /// let tensor = source.tensor("pv/rows")?; // float32 [101, 7]
    /// let mut out = [0; 3 * 7 * 4];
    /// tensor.read_at(&[100, 3, 3], &mut out, &mmconvert::Options::new())?;
    /// assert_eq!(out[28..56], out[56..]);
    /// # Ok::<(), mmconvert::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a row that the tensor does not have, for a scalar, and when the length of `out` is not that of these
    /// rows; [`Error::Unsupported`] for strings and for columns of records, whose rows have no places to go to;
    /// [`Error::Malformed`] when the source is damaged or was written to since it was opened; [`Error::Io`]; [`Error::Cancelled`].
    pub fn read_at(&self, rows: &[u64], out: &mut [u8], options: &Options) -> Result<()> {
        if self.is_of_records() {
            let what = format!("reading rows of {} by number", self.info().name);
            let detail = "records are read from front to back: read a range of rows";
            return Err(Error::Unsupported { what, detail: detail.into() });
        }
        let reader = self.reader()?;
        let spec = reader.spec();
        if self.info().is_scalar() {
            return Err(BadRequest::RowsOfScalar.of_tensor(&self.info().name).into());
        }
        let row_bytes = spec.row_bytes();
        if let Some(&row) = rows.iter().find(|row| **row >= spec.rows()) {
            let (rows, of, shape) = (row..row.saturating_add(1), Some(spec.rows()), spec.shape()[1..].to_vec());
            return Err(BadRequest::NoSuchRows { rows, of, shape }.of_tensor(&self.info().name).into());
        }
        if (rows.len() as u64).checked_mul(row_bytes) != Some(out.len() as u64) {
            let shape = [&[rows.len() as u64], &spec.shape()[1..]].concat();
            let needed = (rows.len() as u64).saturating_mul(row_bytes);
            let dtype = spec.dtype().name();
            return Err(BadRequest::BufferLength { dtype, shape, needed, given: out.len() as u64 }.of_tensor(&self.info().name).into());
        }
        if out.is_empty() {
            return Ok(());
        }
        let mut wanted: Vec<Wanted<'_>> = rows.iter().copied().zip(out.chunks_exact_mut(memory_len(row_bytes))).collect();
        wanted.sort_by_key(|(row, _)| *row);
        read_wanted(&*reader, &mut wanted, options)
    }
}

/// Reads rows that are sorted by their numbers.
fn read_wanted(reader: &dyn TensorReader, wanted: &mut [Wanted<'_>], options: &Options) -> Result<()> {
    let spec = reader.spec();
    let native = Native::of(reader)?;
    let row_bytes = spec.row_bytes();
    let grids = reader.chunk_grids();
    let is_stream = grids.iter().any(|grid| grid.unit == Unit::Stream);
    let is_boxed = grids.iter().any(|grid| grid.unit == Unit::Chunk) || reader.layout() == Layout::F && spec.shape().len() > 1;
    let is_short = wanted.len() <= ALONE_ROWS && wanted.len() as u64 * row_bytes <= BAND_BYTES;
    let threads = if is_stream || is_short && !is_boxed { 1 } else { Memory::Scan.threads(options.threads) };
    let (total, mut rest) = (wanted.len(), wanted);
    let next = || {
        if rest.is_empty() {
            return Ok(None);
        }
        // All rows of a chunk go to one worker.
        let mut count = rest.len().min(ROWS_AT_A_TIME);
        count +=
            rest[count..].iter().take_while(|(row, _)| is_boxed && chunk_of(&grids, *row) == chunk_of(&grids, rest[count - 1].0)).count();
        let (now, later) = std::mem::take(&mut rest).split_at_mut(count);
        rest = later;
        Ok(Some(now))
    };
    Workers::new(threads.min(total)).run(
        &options.cancel,
        next,
        || (ReadContext::new(memory_len(BAND_BYTES), None, &options.calls()), Vec::new(), Vec::new()),
        |mut wanted: &mut [Wanted<'_>], (context, band, scratch)| {
            while !wanted.is_empty() {
                let (now, later) = wanted.split_at_mut(together(wanted, row_bytes, &grids));
                wanted = later;
                let (first, last) = (now[0].0, now[now.len() - 1].0);
                let (elements, is_one) = (first * spec.row_elements()..(last + 1) * spec.row_elements(), first == last);
                band.clear();
                let place = if is_one {
                    &mut *now[0].1
                } else {
                    band.resize(memory_len((last + 1 - first) * row_bytes), 0);
                    &mut band[..]
                };
                if is_boxed {
                    read_band(reader, first..last + 1, place, context, scratch)?;
                } else {
                    reader.read(elements, place, context)?;
                }
                native.convert(place, scratch);
                if is_one {
                    let (one, same) = now.split_at_mut(1);
                    for (_, place) in same {
                        place.copy_from_slice(one[0].1);
                    }
                    continue;
                }
                for (row, place) in now {
                    let start = memory_len((*row - first) * row_bytes);
                    place.copy_from_slice(&band[start..start + place.len()]);
                }
            }
            Ok(())
        },
    )?;
    reader.check_unchanged()
}

/// The number of the first rows of `wanted` that are read together.
fn together(wanted: &[Wanted<'_>], row_bytes: u64, grids: &[ChunkGrid]) -> usize {
    let first = wanted[0].0;
    let chunk = chunk_of(grids, first);
    let fits = |pair: &[Wanted<'_>]| {
        let (before, row) = (pair[0].0, pair[1].0);
        let gap = (row - before).saturating_sub(1).saturating_mul(row_bytes);
        let is_near = gap <= GAP_BYTES || chunk.is_some() && chunk_of(grids, row) == chunk;
        row == before || is_near && (row - first + 1).saturating_mul(row_bytes) <= BAND_BYTES
    };
    1 + wanted.windows(2).take_while(|pair| fits(pair)).count()
}

/// The first row of the chunk that `row` is stored in, if rows are stored in chunks.
fn chunk_of(grids: &[ChunkGrid], row: u64) -> Option<u64> {
    let grid = grids.iter().find(|grid| grid.rows.contains(&row) && grid.unit == Unit::Chunk)?;
    let len = grid.chunk.first().copied().unwrap_or(1).max(1);
    Some(row - (row - grid.rows.start) % len)
}

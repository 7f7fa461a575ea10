//! Strings as values and offsets: all bytes, and the start of each string. They lose nothing.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fed::{Fed, check_shape, constant};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Argument;
use crate::format::npy::Header;
use crate::os::SystemCalls;
use crate::output::staging::hidden::ScratchDir;
use crate::source::npy::MOST_HEADER;
use crate::storage::blob::Blob;
use crate::storage::local::LocalFile;
use crate::tensorflow::session::{Feed, NodeOutput, attempt};
use crate::tensorflow::wire;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

/// Bytes per offset.
const OFFSET: u64 = 8;
/// Offsets read at once.
const CHUNK: u64 = 1 << 17;

/// Strings in two files for an input of a graph.
#[derive(Debug)]
pub(crate) struct StringsFeed {
    target: NodeOutput,
    values: NpyColumn,
    offsets: NpyColumn,
    shape: Vec<u64>,
    calls: SystemCalls,
    /// Most string bytes that are fed at a time.
    most_bytes: u64,
    made: Option<MadeFrom>,
}

/// The source that strings were made from.
#[derive(Debug)]
pub(crate) struct MadeFrom {
    pub(crate) given: Vec<PathBuf>,
    /// Damage that was tolerated in it.
    pub(crate) lost: Vec<String>,
    /// The folder with the converted files, removed on drop.
    pub(crate) _dir: ScratchDir,
}

/// A `.npy` with one axis.
#[derive(Debug)]
struct NpyColumn {
    file: Arc<dyn Blob>,
    start: u64,
    len: u64,
}

impl NpyColumn {
    /// # Errors
    /// [`Error::BadRequest`] if it is not an array of `descr`, [`Error::Malformed`], [`Error::Io`].
    fn open(path: &Path, descr: &str, size: u64, calls: &SystemCalls) -> Result<Self> {
        let file = LocalFile::open(path, calls)?;
        let mut front = vec![0; memory_len(file.len().min(MOST_HEADER))];
        file.read(0, &mut front, calls)?;
        let (header, start) = Header::parse(&front).map_err(|error| error.in_file(path))?;
        let [len] = header.shape[..] else {
            return Err(BadRequest::InputAxes { path: path.to_owned(), axes: header.shape.len() }.into());
        };
        if header.descr != descr {
            return Err(BadRequest::NotOfDtype { path: path.to_owned(), found: header.descr, wanted: descr.to_owned() }.into());
        }
        if len.checked_mul(size).and_then(|nbytes| nbytes.checked_add(start)) != Some(file.len()) {
            let detail = format!("{} bytes, expected {len} elements of {descr}", file.len() - start);
            return Err(Error::malformed_at(path, ".npy data", start, detail));
        }
        Ok(Self { file, start, len })
    }

    fn read(&self, elements: &Range<u64>, size: u64, calls: &SystemCalls) -> Result<Vec<u8>> {
        let mut bytes = vec![0; memory_len((elements.end - elements.start) * size)];
        self.file.read(self.start + elements.start * size, &mut bytes, calls)?;
        Ok(bytes)
    }

    /// These elements as numbers of bytes.
    fn numbers(&self, elements: &Range<u64>, calls: &SystemCalls) -> Result<Vec<u64>> {
        let bytes = self.read(elements, OFFSET, calls)?;
        let number = |(at, bytes): (usize, &[u8])| {
            let number = bytemuck::pod_read_unaligned::<i64>(bytes);
            let place = || self.start + (elements.start + at as u64) * OFFSET;
            u64::try_from(number)
                .map_err(|_| Error::malformed_at(self.file.path(), "offsets", place(), format!("{number} is not an offset")))
        };
        bytes.chunks_exact(8).enumerate().map(number).collect()
    }
}

impl StringsFeed {
    /// The strings in `values` and `offsets` for the input `target`: one per row, or as many as a row of the input's shape has.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if they do not fit the input, [`Error::Malformed`] if they do not fit together, [`Error::Io`].
    pub(crate) fn open(
        [values, offsets]: [&Path; 2],
        made: Option<MadeFrom>,
        target: NodeOutput,
        input: &Argument,
        batch: Option<u64>,
        calls: &SystemCalls,
    ) -> Result<Self> {
        let path = values;
        if input.dtype.is_none_or(|dtype| dtype != Dtype::String) {
            return Err(BadRequest::InputNotStrings { dtype: input.dtype.map(Dtype::name) }.of_input(path, &target.name).into());
        }
        let values = NpyColumn::open(values, "|u1", 1, calls)?;
        let offsets = NpyColumn::open(offsets, "<i8", OFFSET, calls)?;
        let Some(count) = offsets.len.checked_sub(1) else {
            return Err(Error::malformed(offsets.file.path(), "offsets", "there are none; even no strings have one, the end"));
        };
        let shape = shape_of(count, input);
        let fitted = made.as_ref().and_then(|made| made.given.first().cloned()).unwrap_or_else(|| path.to_owned());
        check_shape(&fitted, &target, &shape, input, batch)?;
        let mut feed = Self { target, values, offsets, shape, calls: calls.clone(), most_bytes: 0, made };
        feed.most_bytes = feed.check(batch)?;
        Ok(feed)
    }

    /// Checks that the offsets rise from 0 to the end of the values. Returns the most string bytes that are fed at a time.
    fn check(&self, batch: Option<u64>) -> Result<u64> {
        let path = self.offsets.file.path();
        let per_batch = batch.map_or(u64::MAX, |batch| batch.saturating_mul(self.per_row()));
        let (mut last, mut most, mut batch_start) = (0, 0, 0);
        for first in (0..self.offsets.len).step_by(memory_len(CHUNK)) {
            let numbers = self.offsets.numbers(&(first..self.offsets.len.min(first + CHUNK)), &self.calls)?;
            for (at, number) in (first..).zip(numbers) {
                if number < last || at == 0 && number != 0 || number > self.values.len {
                    let detail = format!("{number} follows {last}, with {} bytes of values", self.values.len);
                    return Err(Error::malformed_at(path, "offsets", self.offsets.start + at * OFFSET, detail));
                }
                last = number;
                most = most.max(number - batch_start);
                if at.is_multiple_of(per_batch) {
                    batch_start = number;
                }
            }
        }
        if last != self.values.len {
            let detail = format!("the last is {last}, but there are {} bytes of values", self.values.len);
            return Err(Error::malformed(path, "offsets", detail));
        }
        Ok(most)
    }

    /// Strings per row.
    fn per_row(&self) -> u64 {
        self.shape.iter().skip(1).product()
    }

    pub(crate) fn is_for(&self, target: &NodeOutput) -> bool {
        self.target.name == target.name
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        match &self.made {
            Some(made) => made.given.clone(),
            None => [&self.values, &self.offsets].map(|stored| stored.file.path().to_path_buf()).into(),
        }
    }

    pub(crate) fn lost(&self) -> &[String] {
        self.made.as_ref().map_or(&[], |made| &made.lost)
    }

    pub(crate) fn rows(&self) -> Option<u64> {
        self.shape.first().copied()
    }

    /// Strings exist twice: as messages, then as tensors of `tstring`s.
    pub(crate) fn held_bytes(&self, rows: u64) -> u64 {
        const STRING_BYTES: u64 = 24 + 2 * 6 + OFFSET;
        rows.saturating_mul(self.per_row()).saturating_mul(STRING_BYTES).saturating_add(self.most_bytes.saturating_mul(4))
    }

    /// # Errors
    /// [`Error::Io`], [`Error::TensorFlow`], [`Error::Malformed`] if the files were written to meanwhile.
    pub(crate) fn rows_of(&self, rows: &Range<u64>) -> Result<Box<dyn Feed + '_>> {
        let mut shape = self.shape.clone();
        shape.iter_mut().take(1).for_each(|axis| *axis = rows.end - rows.start);
        let count: u64 = shape.iter().product();
        let first = if shape.is_empty() { 0 } else { rows.start * self.per_row() };
        let offsets = self.offsets.numbers(&(first..first + count + 1), &self.calls)?;
        let (start, end) = (offsets[0], offsets[offsets.len() - 1]);
        let changed = || Error::malformed(self.offsets.file.path(), "offsets", "they were written to while they were being read");
        if start > end || end > self.values.len {
            return Err(changed());
        }
        let bytes = self.values.read(&(start..end), 1, &self.calls)?;
        let mut proto = wire::tensor(Dtype::String, &shape);
        for pair in offsets.windows(2) {
            let place = pair[0].checked_sub(start).map(memory_len).zip(pair[1].checked_sub(start).map(memory_len));
            let string = place.and_then(|(from, to)| bytes.get(from..to)).ok_or_else(changed)?;
            wire::put_string(&mut proto, string);
        }
        let tensor = attempt(|| format!("making strings of {}", self.values.file.path().display()), || constant(&proto))?;
        Ok(Box::new(Fed { operation: &self.target.operation, index: self.target.index, tensor }))
    }
}

/// The shape of `count` strings for an input: one axis, or the input's axes if `count` is a multiple of a row.
fn shape_of(count: u64, input: &Argument) -> Vec<u64> {
    match input.shape.as_deref() {
        Some([]) if count == 1 => Vec::new(),
        Some([_, rest @ ..]) => {
            let rest: Option<Vec<u64>> = rest.iter().copied().collect();
            let per_row = rest.as_ref().and_then(|rest| rest.iter().try_fold(1u64, |product, &axis| product.checked_mul(axis)));
            match (rest, per_row) {
                (Some(rest), Some(per_row)) if per_row > 0 && count.is_multiple_of(per_row) => [vec![count / per_row], rest].concat(),
                _ => vec![count],
            }
        }
        _ => vec![count],
    }
}

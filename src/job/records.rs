//! Records joined to arrays: one pass over them, for any number of columns.
//!
//! Batches are taken in order and worked on in parallel. Where every record is a row, its number says where the row goes. Where
//! records have any number of rows, each batch counts its own first and waits for those before it to have counted theirs.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::{Meter, Outcome};
use crate::array::Part;
use crate::columns::{Arrange, Column, Problem, Resolver, needs_survey, unsupported};
use crate::convert::{Estimate, Report};
use crate::decode::Decoder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::npy::Header;
use crate::method::Method;
use crate::options::{Layout, Options};
use crate::plan::{MAX_BEHIND_BUFFERS, Memory, Resources, Shares};
use crate::rows::Rows;
use crate::sink::{NpySink, PrivateFile};
use crate::source::Verified;
use crate::source::records::{
    Batch, Encoding, Feature, Key, Locator, Pool, Reading, RecordContainer, RecordSet, Span, Survey, are_examples, look_at_batch,
};
use crate::spec::{MAX_NDIM, TensorSpec, memory_len, unravel};

/// Batches, and what is put together of them, are about as long as this, where the memory allows it.
const MAX_UNIT: u64 = 2 << 20;
const MIN_UNIT: u64 = 64 << 10;
/// Places of features in records, of one batch.
const MOST_SPANS: usize = 128 << 10;
/// Rows this long are written from where they lie.
const LONG_ROW: u64 = 128 << 10;
/// What is looked at to tell what records are.
const FIRST_RECORDS: u64 = 1000;
const FIRST_BYTES: usize = 1 << 20;
/// A decoder of images takes so many times the image beside it, at most.
const DECODER_SHARE: u64 = 2;

/// What is to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) rows: Range<u64>,
    /// All of these records, not only the first.
    pub(crate) complete: bool,
    /// Records as they are, not what is in them.
    pub(crate) whole: bool,
}

/// Looks at records of a set.
pub(crate) fn scan(set: &RecordSet, wanted: &Scan, options: &Options) -> Result<Survey> {
    let Scan { rows, complete, whole } = wanted.clone();
    let memory_bytes = options.budget().as_bytes() / 4;
    let reading = Reading {
        batch_bytes: FIRST_BYTES.min(memory_len(memory_bytes / 8)),
        most_records: memory_len(FIRST_RECORDS),
        memory_bytes,
        rows: if complete { rows } else { rows.start..rows.end.min(rows.start.saturating_add(FIRST_RECORDS)) },
        verify: options.verify,
        salvage: options.records.salvage,
        calls: options.calls(),
    };
    let mut batches = set.open(reading, &Pool::new(memory_bytes))?;
    let is_compressed = |feature: &&Feature| feature.declared.as_ref().is_some_and(|declared| declared.encoding == Encoding::Zlib);
    let compressed = Arc::new(set.features.iter().filter(is_compressed).map(|feature| feature.key.clone()).collect());
    let mut survey = Survey { is_complete: true, compressed: Arc::clone(&compressed), ..Survey::default() };
    let Some(mut first) = batches.next_batch()? else {
        survey.lost = batches.lost().to_vec();
        return Ok(survey);
    };
    first.load()?;
    let is_named = set.features.iter().any(|feature| !matches!(feature.key, Key::Part(_)));
    let as_examples = !whole && (is_named || set.discovers && are_examples(&first));
    if !complete {
        look_at_batch(set, &first, as_examples, &mut survey)?;
        survey.is_complete = false;
        return Ok(survey);
    }
    let merged = Mutex::new(survey);
    let mut waiting = Some(first);
    crate::pool::run(
        options.thread_count(Memory::Scan),
        &options.cancel,
        || match waiting.take() {
            Some(first) => Ok(Some(first)),
            None => batches.next_batch(),
        },
        || (),
        |mut batch, ()| {
            batch.load()?;
            let mut seen = Survey { compressed: Arc::clone(&compressed), ..Survey::default() };
            look_at_batch(set, &batch, as_examples, &mut seen)?;
            merged.lock().unwrap_or_else(PoisonError::into_inner).merge(seen);
            Ok(())
        },
    )?;
    let mut survey = merged.into_inner().unwrap_or_else(PoisonError::into_inner);
    survey.lost = batches.lost().to_vec();
    Ok(survey)
}

/// One array that a pass makes.
#[derive(Debug, Clone)]
pub(crate) struct RecordArray {
    /// Which of the columns.
    pub(crate) column: usize,
    pub(crate) part: Part,
    /// The dtypes that are reported.
    pub(crate) dtype: Dtype,
    source_dtype: Dtype,
    /// A row as it is put together.
    row: TensorSpec,
    /// Elements as they are written.
    written: Dtype,
    decoder: Decoder,
    is_text: bool,
    /// Rows beyond those that records have: the end of the last one among offsets.
    extra: u64,
    order: char,
}

impl RecordArray {
    /// The arrays of a column.
    fn of_column(index: usize, column: &Column, options: &Options) -> Result<Vec<Self>> {
        let source = column.spec.dtype();
        let written = options.cast.unwrap_or(source);
        let make = |part, dtype, source_dtype, row: TensorSpec, written, is_text, extra| {
            let decoder = Decoder::new((row.dtype(), crate::decode::ByteOrder::Little), (written, options.byte_order), options.strict)?;
            let descr = written.descr_in(options.byte_order)?;
            let order = if is_text && row.dtype() == Dtype::UInt8 { '|' } else { descr.chars().next().unwrap_or('|') };
            Ok(Self { column: index, part, dtype, source_dtype, row, written, decoder, is_text, extra, order })
        };
        let row = TensorSpec::new(source, column.row_shape()).map_err(Error::bad_request)?;
        if row.shape().len() + usize::from(!column.is_text) > MAX_NDIM {
            return Err(unsupported(&column.name, format!("it has more than the {MAX_NDIM} dimensions of NumPy arrays")));
        }
        let dtype = if column.is_text || column.dtype == Dtype::String { column.dtype } else { written };
        if !matches!(column.arrange, Arrange::Offsets(_)) {
            return Ok(vec![make(Part::Whole, dtype, column.dtype, row, written, column.is_text, 0)?]);
        }
        let offset = TensorSpec::new(Dtype::Int64, Vec::new()).map_err(Error::bad_request)?;
        if column.only_offsets {
            return Ok(vec![make(Part::Whole, written, Dtype::Int64, offset, written, false, 1)?]);
        }
        let values = if column.dtype == Dtype::String && !column.is_text { Dtype::UInt8 } else { dtype };
        Ok(vec![
            make(Part::Values, values, column.dtype, row, written, column.is_text, 0)?,
            make(
                Part::Offsets,
                Dtype::Int64,
                if column.dtype == Dtype::String { column.dtype } else { Dtype::Int64 },
                offset,
                Dtype::Int64,
                false,
                1,
            )?,
        ])
    }

    /// Bytes of a row as it is written.
    pub(crate) fn written_row(&self) -> u64 {
        self.row.elements().saturating_mul(self.written.itemsize().unwrap_or(1))
    }

    /// The dtype of the array's elements as they lie in the file.
    pub(crate) fn element(&self) -> Dtype {
        self.written
    }

    /// The header of an array of so many rows.
    pub(crate) fn header(&self, rows: u64, options: &Options) -> Result<Header> {
        let shape: Vec<u64> = [rows].into_iter().chain(self.row.shape().iter().copied()).collect();
        Ok(match shape.split_last() {
            Some((width, shape)) if self.is_text => {
                let kind = if self.row.dtype() == Dtype::UInt8 { 'S' } else { 'U' };
                Header::new(&format!("{}{kind}{width}", self.order), shape)
            }
            _ => Header::new(&self.written.descr_in(options.byte_order)?, &shape),
        })
    }
}

/// Everything that a pass over records needs, before there is an output.
pub(crate) struct Pass<'a> {
    set: &'a RecordSet,
    columns: Vec<Column>,
    locator: Locator,
    pub(crate) arrays: Vec<RecordArray>,
    rows: Range<u64>,
    /// The source, for messages.
    path: PathBuf,
    /// How many records there are, if somebody says so.
    expected: Option<u64>,
    shares: Shares,
    unit: u64,
    stage: u64,
    batch_memory: u64,
    /// What a record may have for a column, decoded.
    most_output: u64,
    /// Where in the arrays those of each column start.
    starts: Vec<usize>,
}

/// Why a pass failed, and over which column if it is because of one.
pub(crate) struct Failure {
    pub(crate) column: Option<usize>,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { column: None, error }
    }
}

impl<'a> Pass<'a> {
    /// Plans the columns of `features`, which are all in set number `set`.
    ///
    /// # Errors
    /// [`Failure`] with the feature that cannot be a column; those of the records that have to be looked at.
    pub(crate) fn plan(
        container: &'a RecordContainer,
        set: usize,
        features: &[Feature],
        rows: Option<Rows>,
        heap_bytes: u64,
        options: &Options,
    ) -> Result<Self, Failure> {
        if options.layout == Layout::F {
            let detail = "records are written in the order in which they come, which is C order";
            return Err(Error::Unsupported { what: "Fortran order for records".into(), detail: detail.into() }.into());
        }
        let records = container.set(set);
        let (rows, expected) = Self::select(container, set, rows)?;
        let is_looked_at = records.can_be_read_again() && !records.is_known();
        let look = |complete| -> Result<Arc<Survey>> {
            let whole = records.discovers && features.iter().any(|feature| matches!(feature.key, Key::Part(_)));
            let wanted = Scan { rows: rows.clone(), complete, whole: false };
            let survey = if rows == (0..u64::MAX) { container.survey(set, complete)? } else { Arc::new(scan(records, &wanted, options)?) };
            if !whole {
                return Ok(survey);
            }
            let mut both = scan(records, &Scan { whole, ..wanted }, options)?;
            both.features.extend(
                survey.features.iter().filter(|(key, _)| !matches!(key, Key::Part(_))).map(|(key, stats)| (key.clone(), stats.clone())),
            );
            Ok(Arc::new(both))
        };
        let mut survey = if is_looked_at { look(false)? } else { Arc::default() };
        // What no record is wanted of is told from others.
        if is_looked_at && survey.records == 0 && rows.is_empty() {
            survey = container.survey(set, false)?;
        }
        if is_looked_at && !survey.is_complete && features.iter().any(|feature| needs_survey(feature, &survey, options)) {
            survey = look(true)?;
        }
        let resolver = Resolver { options, survey: &survey, path: container.path() };
        let mut keys: Vec<Key> = Vec::new();
        let mut columns = Vec::new();
        for (at, feature) in features.iter().enumerate() {
            keys.push(feature.key.clone());
            columns.push(resolver.column(feature, at).map_err(|error| Failure { column: Some(at), error })?);
        }
        for (feature, column) in features.iter().zip(&mut columns) {
            if let Some((key, shape)) = resolver.shape_beside(feature) {
                column.shape_is = Some((keys.len(), shape));
                keys.push(key);
            }
        }
        let (mut arrays, mut starts) = (Vec::new(), vec![0]);
        for (at, column) in columns.iter().enumerate() {
            arrays.extend(RecordArray::of_column(at, column, options).map_err(|error| Failure { column: Some(at), error })?);
            starts.push(arrays.len());
        }
        let mut pass = Self {
            set: records,
            columns,
            locator: Locator::new(keys),
            arrays,
            rows,
            path: container.path().to_owned(),
            expected,
            shares: Shares::default(),
            unit: 0,
            stage: 0,
            batch_memory: 0,
            most_output: 0,
            starts,
        };
        pass.share_memory(heap_bytes, options)?;
        Ok(pass)
    }

    /// The records that are wanted, and how many there are if somebody says so. Rows that are counted from the end make it necessary to
    /// count all of them.
    fn select(container: &RecordContainer, set: usize, rows: Option<Rows>) -> Result<(Range<u64>, Option<u64>)> {
        let records = container.set(set);
        let is_negative = |end: Option<i64>| end.is_some_and(i64::is_negative);
        let is_counted = rows.is_some_and(|rows| is_negative(rows.start) || is_negative(rows.end));
        let expected = match records.expected() {
            None if is_counted => Some(container.count(set)?),
            expected => expected,
        };
        let rows = rows.map_or(0..u64::MAX, |rows| rows.resolve(expected.unwrap_or(i64::MAX.unsigned_abs())));
        Ok((rows, expected))
    }

    /// Who gets how much of the memory: a quarter is for output that is not on the disk yet, half at most for workers, the rest for batches.
    fn share_memory(&mut self, heap_bytes: u64, options: &Options) -> Result<()> {
        let resources = Resources {
            budget: options.budget(),
            threads: options.thread_count(Memory::Buffers),
            heap_bytes,
            needs_scratch: false,
            raw_itemsize: None,
            in_flight: options.in_flight,
        };
        let (fixed, left) = resources.fixed_and_left();
        let longest = self.columns.iter().map(Column::row_bytes).max().unwrap_or(0);
        let most_images = self.columns.iter().filter(|column| column.needs_decoder()).map(Column::row_bytes).max().unwrap_or(0);
        let casts = self.arrays.iter().any(|array| !array.decoder.is_copy());
        let direct = !casts && self.columns.iter().all(|column| column.row_bytes() >= LONG_ROW && column.is_stored());
        let unit_for = |threads: u64| (left / (threads * 8)).clamp(MIN_UNIT, MAX_UNIT);
        let stage_for = |threads: u64| if direct { unit_for(threads) } else { unit_for(threads).max(longest) };
        let per_thread = |threads: u64| {
            let written = if casts { 2 * stage_for(threads) } else { 0 };
            stage_for(threads)
                .saturating_add(written)
                .saturating_add(unit_for(threads))
                .saturating_add(most_images.saturating_mul(DECODER_SHARE))
        };
        let mut threads = resources.threads.max(1) as u64;
        while threads > 1 && per_thread(threads).saturating_mul(threads) > left / 2 {
            threads -= 1;
        }
        let (unit, workers) = (unit_for(threads), per_thread(threads).saturating_mul(threads));
        if workers > left / 2 || left / 4 < unit {
            let asked = fixed.saturating_add(workers.max(unit).saturating_mul(4));
            return Err(Error::Limit { what: "memory in the budget".into(), asked, allowed: Some(options.budget().as_bytes()) });
        }
        let window = Resources::window_in(left / 4).min(MAX_BEHIND_BUFFERS);
        self.unit = unit;
        self.stage = stage_for(threads);
        // Half of what is left over is for records whose rows are not known beforehand.
        let over = left / 2 - workers;
        let is_open = self.columns.iter().any(|column| !column.is_row_per_record());
        let shared = if is_open { over / 2 } else { 0 };
        self.most_output = self.stage + shared / threads;
        let workers = workers + shared;
        self.batch_memory = left - left / 4 - workers;
        self.shares = Shares {
            threads: memory_len(threads),
            chunk_bytes: 0,
            raw_bytes: 0,
            window_bytes: window,
            fixed_bytes: fixed + workers + self.batch_memory.min((threads + 2) * unit),
            total_bytes: 0,
            budget: options.budget(),
        };
        Ok(())
    }

    /// What the pass would read, write and use, as far as that is known.
    pub(crate) fn estimate(&self, options: &Options) -> Result<Vec<Estimate>> {
        let records = self.expected.map(|records| self.rows.end.min(records) - self.rows.start.min(records));
        let read_bytes = self.set.stored_bytes();
        self.arrays
            .iter()
            .map(|array| {
                let rows = records.filter(|_| self.columns[array.column].is_row_per_record()).unwrap_or(0) + array.extra;
                let header = array.header(rows, options)?;
                let nbytes = rows.saturating_mul(array.written_row());
                Ok(Estimate {
                    part: array.part,
                    dtype: array.dtype,
                    descr: header.descr,
                    shape: header.shape,
                    nbytes,
                    read_bytes,
                    write_bytes: nbytes,
                    slices: memory_len(read_bytes.div_ceil(self.unit)),
                    slice_bytes: self.unit,
                    threads: self.shares.threads,
                    memory_bytes: self.shares.fixed_bytes + self.shares.window_bytes,
                    method: options.method.unwrap_or(Method::Portable),
                })
            })
            .collect()
    }

    /// Reads the records and hands rows to the outputs, one for each of [`arrays`](Self::arrays).
    pub(crate) fn run(&self, outputs: &[Output<'_>], options: &Options) -> Result<Done, Failure> {
        let reading = Reading {
            batch_bytes: memory_len(self.unit),
            most_records: (MOST_SPANS / self.locator.len().max(1)).max(1),
            memory_bytes: self.batch_memory,
            rows: self.rows.clone(),
            verify: options.verify,
            salvage: options.records.salvage,
            calls: options.calls(),
        };
        let mut batches = self.set.open(reading, &Pool::new(self.batch_memory))?;
        let known = batches.known().filter(|_| !Self::skips(options));
        let mut shares = self.shares.clone();
        for (array, output) in self.arrays.iter().zip(outputs) {
            if let (Some(records), true) =
                (known, self.columns[array.column].is_row_per_record() || array.extra > 0 && array.is_record_offsets(&self.columns))
            {
                let nbytes = (records + array.extra)
                    .checked_mul(array.written_row())
                    .ok_or_else(|| Error::bad_request("an array has less than 2^63 bytes"))?;
                shares.total_bytes = shares.total_bytes.saturating_add(nbytes);
                output.reserve(nbytes)?;
            }
        }
        let meter = Meter::new(&shares, options);
        let sequencer = Sequencer::new(self.totals());
        let records = AtomicU64::new(0);
        let failed_column = Mutex::new(None);
        let result = crate::pool::run(
            self.shares.threads,
            &options.cancel,
            || batches.next_batch(),
            Lent::default,
            |mut batch, lent| {
                let turn = Turn { sequencer: &sequencer, number: batch.number, taken: false };
                batch.load()?;
                records.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.work(&batch, turn, outputs, options, lent, &meter).map_err(|failure| {
                    let mut failed = failed_column.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.is_none_or(|(number, _)| batch.number < number) {
                        *failed = failure.column.map(|column| (batch.number, column));
                    }
                    failure.error
                })
            },
        );
        let column = failed_column.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, column)| column);
        result.map_err(|error| Failure { column, error })?;
        let totals = sequencer.totals();
        let records = records.into_inner();
        if let Some(expected) = self.set.total.filter(|&total| total != records && self.rows == (0..u64::MAX) && !options.records.salvage) {
            let detail = format!("its files have {records} elements, {expected} expected");
            return Err(Error::malformed(&self.path, "source", detail).into());
        }
        let rows = (0..self.arrays.len()).map(|array| self.rows_of(array, &totals, records, options)).collect::<Vec<_>>();
        for (at, (array, output)) in self.arrays.iter().zip(outputs).enumerate() {
            if array.extra > 0 {
                let items = totals[1 + 2 * array.column + 1];
                output.put(array, (rows[at] - 1) * 8, &items.to_le_bytes(), &mut Vec::new(), 0).map_err(Failure::from)?;
            }
        }
        Ok(Done { rows, lost: batches.lost().to_vec() })
    }

    fn skips(options: &Options) -> bool {
        options.records.missing == crate::columns::Missing::Skip
    }

    /// What batches add up: records that are kept, then units and items of each column.
    fn totals(&self) -> usize {
        1 + 2 * self.columns.len()
    }

    fn rows_of(&self, array: usize, totals: &[u64], records: u64, options: &Options) -> u64 {
        let array = &self.arrays[array];
        let (units, items) = (totals[1 + 2 * array.column], totals[2 + 2 * array.column]);
        match self.columns[array.column].arrange {
            Arrange::Offsets(_) if array.extra > 0 => units + array.extra,
            Arrange::Flat | Arrange::Offsets(_) => items,
            _ if Self::skips(options) => totals[0],
            _ => records,
        }
    }

    /// Everything that is done to a batch.
    fn work(
        &self,
        batch: &Batch,
        mut turn: Turn<'_>,
        outputs: &[Output<'_>],
        options: &Options,
        lent: &mut Lent,
        meter: &Meter<'_>,
    ) -> Result<(), Failure> {
        let keys = self.locator.len();
        lent.spans.clear();
        lent.spans.resize(batch.len() * keys, Span::MISSING);
        for record in 0..batch.len() {
            self.locator.locate(batch, record, &mut lent.spans[record * keys..][..keys])?;
        }
        let Lent { spans, kept, stage, units, cast } = lent;
        let spans = &*spans;
        let stored = |record: usize, column: &Column| self.locator.stored(batch, record, column.index, spans[record * keys + column.index]);
        let failed = |record: usize, at: usize| {
            move |problem| Failure { column: Some(at), error: self.explain(batch, record, &self.columns[at], problem) }
        };

        kept.clear();
        if Self::skips(options) {
            for record in 0..batch.len() {
                let mut is_whole = true;
                for (at, column) in self.columns.iter().enumerate() {
                    is_whole &= column.is_present(&stored(record, column)).map_err(Problem::Broken).map_err(failed(record, at))?;
                }
                if is_whole {
                    kept.push(record);
                }
            }
        } else {
            kept.extend(0..batch.len());
        }
        let needs_place = Self::skips(options) || !self.columns.iter().all(Column::is_row_per_record);
        let mut before = vec![0; self.totals()];
        if needs_place {
            let mut counts = vec![0; self.totals()];
            counts[0] = kept.len() as u64;
            for (at, column) in self.columns.iter().enumerate().filter(|(_, column)| !column.is_row_per_record()) {
                for &record in &*kept {
                    let (units, items) = column.count(&stored(record, column)).map_err(failed(record, at))?;
                    self.check_output(batch, record, column, items)?;
                    counts[1 + 2 * at] += units;
                    counts[2 + 2 * at] += items;
                }
            }
            before = turn.take(&counts)?;
        }
        let first = if Self::skips(options) { before[0] } else { batch.first };
        for (at, column) in self.columns.iter().enumerate() {
            let own = self.starts[at]..self.starts[at + 1];
            let mut mine = self.arrays[own.clone()].iter().zip(&outputs[own]);
            let Some((values, output)) = mine.next() else { continue };
            stage.clear();
            units.clear();
            if column.only_offsets {
                for &record in &*kept {
                    units.push(column.count(&stored(record, column)).map_err(failed(record, at))?.1);
                }
                put_offsets(units, &before[1 + 2 * at..], stage, |place, bytes| output.put(values, place, bytes, cast, self.stage))?;
                continue;
            }
            let row_bytes = values.row.nbytes();
            let mut place = row_bytes * if column.is_row_per_record() { first } else { before[2 + 2 * at] };
            let mut flush = |stage: &mut Vec<u8>, place: &mut u64| -> Result<()> {
                output.put(values, *place, stage, cast, self.stage)?;
                meter.add(stage.len() as u64, output.held());
                *place += stage.len() as u64;
                stage.clear();
                Ok(())
            };
            let is_direct = row_bytes >= LONG_ROW && values.decoder.is_copy();
            for &record in &*kept {
                let found = stored(record, column);
                if let Some((index, expected)) = &column.shape_is {
                    self.check_shape(batch, record, spans[record * keys + index], *index, expected).map_err(failed(record, at))?;
                }
                if let Some(row) = column.stored_row(&found).filter(|_| is_direct) {
                    flush(stage, &mut place)?;
                    output.put(values, place, row, &mut Vec::new(), 0)?;
                    meter.add(row_bytes, output.held());
                    place += row_bytes;
                    continue;
                }
                if stage.len() as u64 + row_bytes > self.stage && !stage.is_empty() {
                    flush(stage, &mut place)?;
                }
                column.decode(&found, stage, units).map_err(failed(record, at))?;
            }
            flush(stage, &mut place)?;
            if let Some((offsets, output)) = mine.next() {
                put_offsets(units, &before[1 + 2 * at..], stage, |place, bytes| output.put(offsets, place, bytes, cast, self.stage))?;
                meter.add(stage.len() as u64, output.held());
            }
        }
        Ok(())
    }

    /// Refuses a record that has more than a worker can hold at once.
    fn check_output(&self, batch: &Batch, record: usize, column: &Column, items: u64) -> Result<()> {
        let asked = items.saturating_mul(column.spec.nbytes());
        if asked <= self.most_output || column.only_offsets {
            return Ok(());
        }
        let what = format!("memory for feature {:?} of {}", column.name, batch.describe(record));
        Err(Error::Limit { what, asked, allowed: Some(self.most_output) })
    }

    fn check_shape(&self, batch: &Batch, record: usize, span: Span, index: usize, expected: &[i64]) -> Result<(), Problem> {
        let found = self.locator.stored(batch, record, index, span).ints()?;
        if found == expected {
            return Ok(());
        }
        Err(Problem::Odd(format!("has a tensor of shape {found:?}, {expected:?} expected as in the first")))
    }

    /// What is wrong with a record, in words.
    fn explain(&self, batch: &Batch, record: usize, column: &Column, problem: Problem) -> Error {
        let place = batch.describe(record);
        match problem {
            Problem::Broken(error) => batch.error(record, self.locator.part(column.index), &error),
            Problem::Missing => {
                unsupported(&column.name, format!("{place} lacks it: --missing fill:VALUE or --missing skip says what becomes of it"))
            }
            Problem::Odd(detail) => unsupported(&column.name, format!("{place} {detail}")),
            Problem::Lossy(detail) => Error::Lossy {
                what: format!("feature {:?}", column.name),
                index: vec![batch.first + record as u64],
                detail: format!("({place}) {detail}"),
            },
            Problem::Bad(detail) => {
                let error = crate::error::ParseError::new(0, "value", format!("feature {:?}: {detail}", column.name));
                batch.error(record, self.locator.part(column.index), &error)
            }
        }
    }

    pub(crate) fn report(&self, array: usize, done: &Done, outcome: &Outcome, started: Instant, options: &Options) -> Result<Report> {
        let (array, rows) = (&self.arrays[array], done.rows[array]);
        let header = array.header(rows, options)?;
        Ok(Report {
            part: array.part,
            dtype: array.dtype,
            source_dtype: array.source_dtype,
            descr: header.descr,
            fortran_order: false,
            shape: header.shape,
            nbytes: rows * array.written_row(),
            elapsed: started.elapsed(),
            method: outcome.method,
            verified: outcome.verified,
            peak_memory: outcome.peak_memory,
            lost: done.lost.clone(),
        })
    }

    /// How much of what is written checksums vouch for.
    pub(crate) fn verified(&self, options: &Options) -> Verified {
        if options.verify && self.set.framing.has_checksum() { Verified::Full } else { Verified::Not }
    }

    /// Files to be filled, one for each array.
    pub(crate) fn outputs(&self, files: &[(Arc<PrivateFile>, &Path)], options: &Options) -> Result<Vec<Output<'static>>> {
        let window = self.shares.window_bytes / files.len().max(1) as u64;
        let made = files.iter().map(|(file, path)| {
            if options.method == Some(Method::Clone) {
                let detail = "rows are put together from records; there are no blocks to share".into();
                return Err(Error::Unsupported { what: "method clone for records".into(), detail });
            }
            let method = Method::to_copy(file, options.method)?;
            Ok(Output::File { sink: Arc::new(NpySink::new(Arc::clone(file), path, method, window)), method })
        });
        made.collect()
    }

    /// Finishes the files: headers, lengths, all of it on the disk.
    pub(crate) fn finish(&self, outputs: Vec<Output<'_>>, done: &Done, options: &Options) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(outputs.len());
        for ((output, array), &rows) in outputs.into_iter().zip(&self.arrays).zip(&done.rows) {
            let Output::File { sink, method } = output else { continue };
            let nbytes = rows.checked_mul(array.written_row()).ok_or_else(|| Error::bad_request("an array has less than 2^63 bytes"))?;
            let behind = sink.finish(&array.header(rows, options)?, nbytes)?;
            let peak_memory = self.shares.fixed_bytes + behind.held_and_peak().1;
            outcomes.push(Outcome { method, verified: self.verified(options), peak_memory });
        }
        Ok(outcomes)
    }
}

impl RecordArray {
    /// Whether it has one offset for each record.
    fn is_record_offsets(&self, columns: &[Column]) -> bool {
        columns[self.column].arrange == Arrange::Offsets(crate::columns::Units::Records)
    }
}

/// Writes where units start, given the units and items `before` them and their lengths.
fn put_offsets(units: &[u64], before: &[u64], stage: &mut Vec<u8>, put: impl FnOnce(u64, &[u8]) -> Result<()>) -> Result<()> {
    let mut start = before[1];
    for unit in units {
        stage.extend_from_slice(&start.to_le_bytes());
        start += unit;
    }
    put(before[0] * 8, stage)
}

/// What a pass gave.
pub(crate) struct Done {
    /// Rows of each array.
    pub(crate) rows: Vec<u64>,
    /// What had to be given up.
    pub(crate) lost: Vec<String>,
}

/// What a worker has to itself.
#[derive(Default)]
struct Lent {
    spans: Vec<Span>,
    kept: Vec<usize>,
    stage: Vec<u8>,
    units: Vec<u64>,
    cast: Vec<u8>,
}

/// Where rows go.
pub(crate) enum Output<'a> {
    File {
        sink: Arc<NpySink>,
        method: Method,
    },
    /// To somebody who looks at them: bytes as they would be written, and where.
    Check(&'a (dyn Fn(u64, &[u8]) -> Result<()> + Sync)),
}

impl Output<'_> {
    fn reserve(&self, nbytes: u64) -> Result<()> {
        match self {
            Self::File { sink, .. } => sink.reserve(nbytes),
            Self::Check(_) => Ok(()),
        }
    }

    /// Bytes on their way to the disk.
    fn held(&self) -> u64 {
        match self {
            Self::File { sink, .. } => sink.behind().held_and_peak().0,
            Self::Check(_) => 0,
        }
    }

    /// Takes elements that start at byte `at` of the array as it is put together.
    fn put(&self, array: &RecordArray, at: u64, bytes: &[u8], cast: &mut Vec<u8>, most: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if array.decoder.is_copy() {
            return self.place(at, bytes);
        }
        let (stored, written) = (array.row.dtype().item_len(), array.written.item_len());
        let step = memory_len(most.max(MIN_UNIT)) / stored;
        for (index, part) in bytes.chunks(step * stored).enumerate() {
            let first = at / stored as u64 + (index * step) as u64;
            cast.resize(part.len() / stored * written, 0);
            array.decoder.decode(part, cast).map_err(|odd| {
                let element = first + odd as u64;
                let row = array.row.elements().max(1);
                let index = [vec![element / row], unravel(element % row, array.row.shape())].concat();
                let detail = array.decoder.explain(&part[odd * stored..][..stored], &cast[odd * written..][..written]);
                Error::Lossy { what: "the array".into(), index, detail }
            })?;
            self.place(first * written as u64, cast)?;
        }
        Ok(())
    }

    fn place(&self, at: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File { sink, .. } => sink.place(at..at + bytes.len() as u64, bytes),
            Self::Check(check) => check(at, bytes),
        }
    }
}

/// Adds up what batches have, in their order.
struct Sequencer {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The batch whose turn it is.
    next: u64,
    totals: Vec<u64>,
    /// The first batch that will never take its turn.
    broken: Option<u64>,
}

impl Sequencer {
    fn new(totals: usize) -> Self {
        Self { state: Mutex::new(State { next: 0, totals: vec![0; totals], broken: None }), changed: Condvar::new() }
    }

    fn totals(&self) -> Vec<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).totals.clone()
    }
}

/// The turn of a batch. Given up without having been taken, it ends the work of all that wait for it.
struct Turn<'a> {
    sequencer: &'a Sequencer,
    number: u64,
    taken: bool,
}

impl Turn<'_> {
    /// Waits for those before, adds `counts`, and returns what all before added up to.
    fn take(&mut self, counts: &[u64]) -> Result<Vec<u64>> {
        let mut state = self.sequencer.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next != self.number && state.broken.is_none_or(|broken| broken > self.number) {
            state = self.sequencer.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.next != self.number {
            // The batch that failed says why.
            return Err(Error::Cancelled);
        }
        self.taken = true;
        state.next += 1;
        let before = state.totals.clone();
        state.totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        self.sequencer.changed.notify_all();
        Ok(before)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.taken {
            let mut state = self.sequencer.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.broken = Some(state.broken.map_or(self.number, |broken| broken.min(self.number)));
            drop(state);
            self.sequencer.changed.notify_all();
        }
    }
}

//! One pass over records: batch by batch, in parallel, to the outputs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Done, Failure, LONG_ROW, Output, Pass, Sequencer, Turn};
use crate::columns::{Arrange, Column, Problem, unsupported};
use crate::error::{Error, Result};
use crate::job::Meter;
use crate::options::Options;
use crate::source::records::{Batch, Pool, Reading, Span, Stored};
use crate::spec::memory_len;

/// Starts of so many units are written together.
const MOST_UNITS: usize = 16 << 10;
/// Places of features in records, of one batch.
const MOST_SPANS: usize = 128 << 10;

impl Pass<'_> {
    /// Reads the records and hands rows to the outputs, one for each of [`arrays`](Self::arrays).
    pub(crate) fn run(&self, outputs: &[Output<'_>], options: &Options) -> Result<Done, Failure> {
        let reading = Reading {
            most_records: (MOST_SPANS / self.locator.len().max(1)).max(1),
            rows: self.rows.clone(),
            joined_rows: self.window.as_ref().map_or(u64::MAX, |window| window.end),
            ..Reading::new(memory_len(self.unit), self.batch_memory, options)
        };
        let mut batches = self.set.open(reading, &Pool::new(self.batch_memory))?;
        let known = batches.known().filter(|_| !self.skips());
        let mut total = Some(0u64);
        for (array, output) in self.arrays.iter().zip(outputs) {
            if let (Some(records), true) =
                (known, self.columns[array.column].is_row_per_record() || array.extra > 0 && array.is_record_offsets(&self.columns))
            {
                let nbytes = array.nbytes(records.saturating_add(array.extra))?;
                total = total.map(|total| total.saturating_add(nbytes));
                output.reserve(nbytes)?;
            } else {
                total = None;
            }
        }
        let meter = Meter::new(&self.shares, options).of(total);
        let sequencer = Sequencer::new(self.totals());
        let records = AtomicU64::new(0);
        let failed_column: Mutex<Option<(u64, Option<usize>)>> = Mutex::new(None);
        let result = crate::pool::run(
            self.shares.threads,
            &options.cancel,
            || {
                // Given up with its batch, wherever that happens, so that nobody waits for it.
                let turn = |batch: &Batch| Turn { sequencer: &sequencer, number: batch.number, taken: false };
                Ok(batches.next_batch()?.map(|batch| (turn(&batch), batch)))
            },
            Lent::default,
            |(turn, mut batch), lent| {
                batch.load()?;
                records.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.work(&batch, turn, outputs, lent, &meter).map_err(|failure| {
                    let mut failed = failed_column.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.is_none_or(|(number, _)| batch.number < number) {
                        *failed = Some((batch.number, failure.column));
                    }
                    failure.error
                })
            },
        );
        let column = failed_column.into_inner().unwrap_or_else(PoisonError::into_inner).and_then(|(_, column)| column);
        result.map_err(|error| Failure { column, error })?;
        let totals = sequencer.totals();
        let records = records.into_inner();
        if let Some(expected) =
            self.set.total.filter(|&total| total != records && self.rows == (0..u64::MAX) && options.records.salvage.peek().is_none())
        {
            let detail = format!("its files have {records} elements, {expected} expected");
            return Err(Error::malformed(self.container.path(), "source", detail).into());
        }
        let rows = (0..self.arrays.len()).map(|array| self.rows_of(array, &totals, records)).collect::<Vec<_>>();
        for (at, (array, output)) in self.arrays.iter().zip(outputs).enumerate() {
            if array.extra > 0 {
                let items = totals[1 + 2 * array.column + 1];
                output.put(array, (rows[at] - 1) * 8, &items.to_le_bytes(), &mut Vec::new(), 0).map_err(Failure::from)?;
            }
        }
        let mut lost = batches.lost().to_vec();
        let left_out = if self.skips() { records.saturating_sub(totals[0]) } else { 0 };
        if left_out > 0 {
            let names: Vec<&str> = self.columns.iter().filter(|column| column.skips()).map(|column| &column.name[..]).collect();
            let path = self.container.path().display();
            lost.push(format!("{path}: {left_out} of {records} records lack {} and are left out (--missing skip)", names.join(" or ")));
        }
        Ok(Done { rows, lost })
    }

    /// Whether records may be left out.
    pub(super) fn skips(&self) -> bool {
        self.columns.iter().any(Column::skips)
    }

    /// What batches add up: records that are kept, then units and items of each column.
    fn totals(&self) -> usize {
        1 + 2 * self.columns.len()
    }

    fn rows_of(&self, array: usize, totals: &[u64], records: u64) -> u64 {
        let array = &self.arrays[array];
        let (units, items) = (totals[1 + 2 * array.column], totals[2 + 2 * array.column]);
        match self.columns[array.column].arrange {
            Arrange::Offsets(_) if array.extra > 0 => units + array.extra,
            Arrange::Flat => self.window.as_ref().map_or(items, |window| items.min(window.end).saturating_sub(window.start)),
            Arrange::Offsets(_) => items,
            _ if self.skips() => totals[0],
            _ => records,
        }
    }

    /// Everything that is done to a batch.
    fn work(&self, batch: &Batch, mut turn: Turn<'_>, outputs: &[Output<'_>], lent: &mut Lent, meter: &Meter<'_>) -> Result<(), Failure> {
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
        if self.skips() {
            for record in 0..batch.len() {
                let mut is_whole = true;
                for (at, column) in self.columns.iter().enumerate().filter(|(_, column)| column.skips()) {
                    is_whole &= column.is_present(&stored(record, column)).map_err(Problem::Broken).map_err(failed(record, at))?;
                }
                if is_whole {
                    kept.push(record);
                }
            }
        } else {
            kept.extend(0..batch.len());
        }
        let needs_place = self.skips() || !self.columns.iter().all(Column::is_row_per_record);
        let (mut before, mut is_large) = (vec![0; self.totals()], false);
        if needs_place {
            let counts = self.count(batch, kept, stored)?;
            is_large = counts.largest > self.stage;
            before = turn.take(&counts.totals)?;
        }
        // What is larger than a worker's own share takes that of all, one after the other.
        let _alone = is_large.then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        let first = if self.skips() { before[0] } else { batch.first };
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
                let mut starts = Starts { units: before[1 + 2 * at], items: before[2 + 2 * at] };
                starts.put(units, |place, bytes| output.put(values, place, bytes, cast, self.stage))?;
                continue;
            }
            let offsets = mine.next();
            let mut starts = Starts { units: before[1 + 2 * at], items: before[2 + 2 * at] };
            let mut put_starts = |units: &mut Vec<u64>| match offsets {
                Some((offsets, output)) => starts.put(units, |place, bytes| output.put(offsets, place, bytes, &mut Vec::new(), self.stage)),
                None => Ok(()),
            };
            let row_bytes = values.row.nbytes();
            let mut place = row_bytes * if column.is_row_per_record() { first } else { before[2 + 2 * at] };
            let mut flush = |stage: &mut Vec<u8>, place: &mut u64| -> Result<()> {
                let (wanted, at) = self.wanted_part(*place, stage, row_bytes);
                if !wanted.is_empty() {
                    output.put(values, at, wanted, cast, self.stage)?;
                    meter.add(values.written_bytes(wanted.len() as u64), output.held());
                }
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
                if units.len() >= MOST_UNITS {
                    put_starts(units)?;
                }
            }
            flush(stage, &mut place)?;
            put_starts(units)?;
        }
        if is_large {
            stage.shrink_to(memory_len(self.stage));
            units.shrink_to(memory_len(self.stage / 8));
        }
        Ok(())
    }

    /// What is wanted of rows that start at byte `place` of all, and where it belongs among what is wanted.
    fn wanted_part<'s>(&self, place: u64, rows: &'s [u8], row_bytes: u64) -> (&'s [u8], u64) {
        let Some(window) = &self.window else { return (rows, place) };
        let ends = [window.start, window.end].map(|row| row.saturating_mul(row_bytes).saturating_sub(place).min(rows.len() as u64));
        let start = window.start.saturating_mul(row_bytes);
        (&rows[memory_len(ends[0])..memory_len(ends[1].max(ends[0]))], place.max(start) - start)
    }

    /// What the records that are kept add to arrays of unknown length.
    fn count<'b>(&self, batch: &Batch, kept: &[usize], stored: impl Fn(usize, &Column) -> Stored<'b>) -> Result<Counts, Failure> {
        let mut counts = Counts { totals: vec![0; self.totals()], largest: 0 };
        counts.totals[0] = kept.len() as u64;
        for (at, column) in self.columns.iter().enumerate().filter(|(_, column)| !column.is_row_per_record()) {
            for &record in kept {
                let (units, items) = column
                    .count(&stored(record, column))
                    .map_err(|problem| Failure { column: Some(at), error: self.explain(batch, record, column, problem) })?;
                counts.largest = counts.largest.max(self.check_output(batch, record, column, units, items)?);
                counts.totals[1 + 2 * at] += units;
                counts.totals[2 + 2 * at] += items;
            }
        }
        Ok(counts)
    }

    /// What a record takes when it is decoded. Refuses one that has more than a worker can hold at once.
    fn check_output(&self, batch: &Batch, record: usize, column: &Column, units: u64, items: u64) -> Result<u64> {
        // A unit is a length and an offset.
        let values = if column.only_offsets { 0 } else { items.saturating_mul(column.spec.nbytes()) };
        let asked = values.saturating_add(units.saturating_mul(16));
        if asked <= self.most_output {
            return Ok(asked);
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
                let lists = if matches!(column.arrange, Arrange::Fixed(_)) { ", and --ragged takes it as an empty list" } else { "" };
                let detail = format!("{place} lacks it: --missing fill:VALUE or --missing skip says what becomes of it{lists}");
                unsupported(&column.name, detail)
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
}

/// What a batch has, and the most that one of its records takes.
struct Counts {
    totals: Vec<u64>,
    largest: u64,
}

/// How many units and items there are before those that come next.
struct Starts {
    units: u64,
    items: u64,
}

impl Starts {
    /// Writes where units of these lengths start, and forgets them.
    fn put(&mut self, units: &mut Vec<u64>, mut put: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut bytes = Vec::with_capacity(units.len().min(MOST_UNITS) * size_of::<i64>());
        for part in units.chunks(MOST_UNITS) {
            bytes.clear();
            let place = self.units * size_of::<i64>() as u64;
            for unit in part {
                bytes.extend_from_slice(&self.items.to_le_bytes());
                self.items += unit;
            }
            self.units += part.len() as u64;
            put(place, &bytes)?;
        }
        units.clear();
        Ok(())
    }
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

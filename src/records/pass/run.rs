//! Runs one pass over records: batch by batch, in parallel, to the outputs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::done::Done;
use super::dropped_columns::Dropout;
use super::failure::Failure;
use super::output::ArrayOutput;
use super::plan::{LONG_ROW, Pass};
use super::{Dropouts, Sequencer, Turn};
use crate::error::{Error, Result};
use crate::output::meter::Meter;
use crate::records::columns::problem::Problem;
use crate::records::columns::{Arrange, Column, unsupported};
use crate::records::locate::{FeatureBytes, Span};
use crate::records::stream::ahead::Errand;
use crate::records::stream::batch::Batch;
use crate::records::stream::batches::ReadSettings;
use crate::records::stream::memory_pool::Pool;
use crate::types::size::memory_len;

/// Number of offsets written together.
const MOST_UNITS: usize = 16 << 10;
/// Limit for feature locations in one batch.
const MOST_SPANS: usize = 128 << 10;

/// What a pass does with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// It counts rows without decoding.
    Count,
    /// It writes all rows.
    Make,
}

/// Where a pass failed first.
#[derive(Default)]
struct Ended {
    /// The batch number, and the column if one is to blame.
    batch: Option<(u64, Option<usize>)>,
    /// Whether the source failed to give the next batch.
    at_source: bool,
}

/// What a worker gets to do next.
enum Piece<'a> {
    /// To read bytes of batches that are yet to be found.
    Read(Errand),
    Batch(Turn<'a>, Batch),
}

impl<'a> Piece<'a> {
    /// Reads what is to be read, or gives the batch.
    fn into_batch(self) -> Option<(Turn<'a>, Batch)> {
        match self {
            Self::Read(errand) => {
                errand.run();
                None
            }
            Self::Batch(turn, batch) => Some((turn, batch)),
        }
    }
}

impl Pass<'_> {
    /// Reads the records and passes rows to the outputs, one for each of [`arrays`](Self::arrays).
    pub(crate) fn make(&self, outputs: &[ArrayOutput<'_>]) -> Result<Done> {
        self.go(outputs, Depth::Make).map_err(|failure| failure.error)
    }

    pub(crate) fn go(&self, outputs: &[ArrayOutput<'_>], depth: Depth) -> Result<Done, Failure> {
        let reading = ReadSettings {
            most_records: (MOST_SPANS / self.locator.len().max(1)).max(1),
            rows: self.rows.clone(),
            joined_rows: self.window.as_ref().map_or(u64::MAX, |window| window.end),
            // A single worker would only wait for itself.
            ahead_bytes: if self.shares.threads > 1 { self.most_batches(self.shares.threads as u64) } else { 0 },
            ..ReadSettings::new(memory_len(self.unit), self.batch_memory, &self.run)
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
        let meter = Meter::new(&self.shares, &self.run).of(total);
        let work = PassState {
            pass: self,
            outputs,
            sequencer: Sequencer::new(self.totals()),
            dropouts: Dropouts::new(self.columns.len(), self.may_drop),
            depth,
            meter,
        };
        let records = AtomicU64::new(0);
        let ended: Mutex<Ended> = Mutex::default();
        let lock = || ended.lock().unwrap_or_else(PoisonError::into_inner);
        let result = crate::os::workers::run(
            self.shares.threads,
            &self.run.cancel,
            || {
                if work.dropouts.are_all() {
                    return Ok(None);
                }
                if let Some(errand) = batches.errand() {
                    return Ok(Some(Piece::Read(errand)));
                }
                let batch = batches.next_batch().inspect_err(|_| lock().at_source = true)?;
                // Dropped with its batch, wherever that happens, so that no other batch waits for it.
                let turn = |batch: &Batch| Turn { sequencer: &work.sequencer, number: batch.number, taken: false };
                Ok(batch.map(|batch| Piece::Batch(turn(&batch), batch)))
            },
            WorkerState::default,
            |piece, lent| {
                let Some((turn, mut batch)) = piece.into_batch() else { return Ok(()) };
                let number = batch.number;
                let done = batch.load().map_err(Failure::from).and_then(|()| {
                    records.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    work.on_batch(&batch, turn, lent)
                });
                done.map_err(|failure| {
                    let mut ended = lock();
                    if ended.batch.is_none_or(|(first, _)| number < first) {
                        ended.batch = Some((number, failure.column));
                    }
                    failure.error
                })
            },
        );
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        let PassState { sequencer, dropouts, .. } = work;
        if let Err(error) = result {
            return self.repeated(error, &ended, dropouts);
        }
        let totals = sequencer.totals();
        let records = records.into_inner();
        let repeat = self.decided_rows(&dropouts);
        let is_left = |column: usize| !dropouts.has(column);
        let mut done = Done { rows: vec![0; self.arrays.len()], lost: batches.lost().to_vec(), dropouts: Vec::new(), repeat };
        if done.repeat.is_some() || dropouts.are_all() {
            return Ok(Done { dropouts: self.dropped(dropouts), ..done });
        }
        if let Some(expected) =
            self.set.total.filter(|&total| total != records && self.rows == (0..u64::MAX) && self.run.salvage.peek().is_none())
        {
            let detail = format!("its files have {records} elements, {expected} expected");
            return Err(Error::malformed(self.container.path(), "source", detail).into());
        }
        for (at, array) in self.arrays.iter().enumerate().filter(|(_, array)| is_left(array.column)) {
            done.rows[at] = self.rows_of(at, &totals, records);
            if array.extra > 0 {
                let items = totals[1 + 2 * array.column + 1];
                outputs[at].put(array, (done.rows[at] - 1) * 8, &items.to_le_bytes(), &mut Vec::new(), 0)?;
            }
        }
        let left_out = if self.skips() { records.saturating_sub(totals[0]) } else { 0 };
        if left_out > 0 {
            let skipping = self.columns.iter().enumerate().filter(|(at, column)| column.skips() && is_left(*at));
            let names: Vec<&str> = skipping.map(|(_, column)| &column.name[..]).collect();
            let path = self.container.path().display();
            done.lost
                .push(format!("{path}: {left_out} of {records} records lack {} and are left out (`missing` skip)", names.join(" or ")));
        }
        Ok(Done { dropouts: self.dropped(dropouts), ..done })
    }

    /// The valid dropouts. Those after one that decided which records have rows are dropped: the pass must find them again.
    fn dropped(&self, dropouts: Dropouts) -> Vec<Dropout> {
        let mut list = dropouts.into_list();
        let decisive = list.iter().position(|dropout| self.columns[dropout.column].skips() && dropout.has_lacked);
        list.truncate(decisive.map_or(list.len(), |at| at + 1));
        list
    }

    /// The result of a pass that ended with `error`. If the column had already dropped out in an earlier batch, which this worker
    /// did not know yet, the error is void: the pass is repeated without the column.
    fn repeated(&self, error: Error, ended: &Ended, dropouts: Dropouts) -> Result<Done, Failure> {
        let column = ended.batch.and_then(|(_, column)| column);
        let is_void =
            |column: usize, batch: u64| dropouts.is_before(column, batch) && !ended.at_source && !matches!(error, Error::Cancelled);
        match ended.batch {
            Some((batch, Some(column))) if is_void(column, batch) => {
                let mut dropouts = self.dropped(dropouts);
                dropouts.retain(|dropout| dropout.batch < batch);
                Ok(Done { rows: Vec::new(), lost: Vec::new(), dropouts, repeat: Some(error) })
            }
            _ => Err(Failure { column, record: 0, error }),
        }
    }

    /// The error if a column dropped out after records were skipped because they lack it: the other arrays then have the wrong
    /// rows.
    fn decided_rows(&self, dropouts: &Dropouts) -> Option<Error> {
        let is_decisive = |at: &usize| self.columns[*at].skips() && dropouts.has(*at) && dropouts.has_lacked(*at);
        let column = &self.columns[(0..self.columns.len()).find(is_decisive)?];
        let detail = format!(
            "{}: records without it had already been left out (`missing` skip); convert the others without it",
            self.container.path().display()
        );
        Some(unsupported(&column.name, detail))
    }

    /// Whether records may be skipped.
    pub(crate) fn skips(&self) -> bool {
        self.columns.iter().any(Column::skips)
    }

    /// Number of totals over batches: records kept, then units and items of each column.
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

    /// The selected part of rows that start at byte `place` of all rows, and its place in the output.
    fn wanted_part<'s>(&self, place: u64, rows: &'s [u8], row_bytes: u64) -> (&'s [u8], u64) {
        let Some(window) = &self.window else { return (rows, place) };
        let ends = [window.start, window.end].map(|row| row.saturating_mul(row_bytes).saturating_sub(place).min(rows.len() as u64));
        let start = window.start.saturating_mul(row_bytes);
        (&rows[memory_len(ends[0])..memory_len(ends[1].max(ends[0]))], place.max(start) - start)
    }

    /// The memory for decoding a record. Refuses a record that exceeds what a worker can hold.
    fn check_output(&self, batch: &Batch, record: usize, column: &Column, units: u64, items: u64) -> Result<u64> {
        // A unit takes a length and an offset.
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

    /// The error for a problem with a record.
    fn explain(&self, batch: &Batch, record: usize, column: &Column, problem: Problem) -> Error {
        let place = batch.describe(record);
        match problem {
            Problem::Broken(error) => batch.error(record, self.locator.part(column.index), &error),
            Problem::Missing => {
                let lists = if matches!(column.arrange, Arrange::Fixed(_)) { ", and `ragged` takes it as an empty list" } else { "" };
                let detail = format!("{place} lacks it: `missing` fill:VALUE or `missing` skip accepts it{lists}");
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

/// State that the workers of a pass share.
struct PassState<'a> {
    pass: &'a Pass<'a>,
    outputs: &'a [ArrayOutput<'a>],
    sequencer: Sequencer,
    dropouts: Dropouts,
    depth: Depth,
    meter: Meter<'a>,
}

/// A batch, and the places of the features in its records.
struct LocatedFeatures<'a> {
    pass: &'a Pass<'a>,
    batch: &'a Batch,
    spans: &'a [Span],
}

impl<'a> LocatedFeatures<'a> {
    fn span(&self, record: usize, key: usize) -> Span {
        self.spans[record * self.pass.locator.len() + key]
    }

    fn stored(&self, record: usize, column: &Column) -> FeatureBytes<'a> {
        self.pass.locator.stored(self.batch, record, column.index, self.span(record, column.index))
    }

    /// The failure of column number `at` for a problem with a record.
    fn failed(&self, record: usize, at: usize) -> impl FnOnce(Problem) -> Failure {
        move |problem| self.failure(record, at, self.pass.explain(self.batch, record, &self.pass.columns[at], problem))
    }

    fn failure(&self, record: usize, at: usize, error: Error) -> Failure {
        Failure { column: Some(at), record: self.batch.first + record as u64, error }
    }
}

impl PassState<'_> {
    /// Processes a batch.
    fn on_batch(&self, batch: &Batch, mut turn: Turn<'_>, lent: &mut WorkerState) -> Result<(), Failure> {
        let pass = self.pass;
        let keys = pass.locator.len();
        lent.spans.clear();
        lent.spans.resize(batch.len() * keys, Span::MISSING);
        for record in 0..batch.len() {
            pass.locator.locate(batch, record, &mut lent.spans[record * keys..][..keys])?;
        }
        let WorkerState { spans, kept, buffers } = lent;
        let located = LocatedFeatures { pass, batch, spans };
        self.keep(&located, kept)?;
        let needs_place = pass.skips() || !pass.columns.iter().all(Column::is_row_per_record);
        let mut before = vec![0; pass.totals()];
        let mut counts = Counts { totals: Vec::new(), largest: 0, failed: Vec::new() };
        if needs_place {
            counts = self.count(&located, kept);
            before = turn.take(&counts.totals)?;
        }
        if self.depth == Depth::Count {
            return counts.failed.into_iter().try_for_each(|failure| self.drop_out(failure, batch));
        }
        let is_large = counts.largest > pass.stage;
        // Work beyond a worker's own share of memory uses the common share, one batch at a time.
        let _alone = is_large.then(|| pass.large.lock().unwrap_or_else(PoisonError::into_inner));
        let first = if pass.skips() { before[0] } else { batch.first };
        for at in 0..pass.columns.len() {
            let place = RowPlace { first, units: before[1 + 2 * at], items: before[2 + 2 * at] };
            // If a column cannot be counted at a record, earlier records are still processed: they may have an earlier problem.
            let uncounted =
                counts.failed.iter().position(|failed| failed.column == Some(at)).map(|failed| counts.failed.swap_remove(failed));
            let end = uncounted.as_ref().map_or(u64::MAX, |failed| failed.record);
            let rows = kept.partition_point(|&record| (batch.first + record as u64) < end);
            let mut told = 0;
            if !self.dropouts.is_before(at, batch.number) {
                let done = self.column(at, &located, &kept[..rows], place, (buffers, &mut told));
                if let Err(failure) = done.and(uncounted.map_or(Ok(()), Err)) {
                    self.drop_out(failure, batch)?;
                }
            }
            self.tell_rest(at, kept.len() as u64, told);
        }
        if is_large {
            buffers.stage.shrink_to(memory_len(pass.stage));
            buffers.units.shrink_to(memory_len(pass.stage / 8));
        }
        Ok(())
    }

    fn drop_out(&self, failure: Failure, batch: &Batch) -> Result<(), Failure> {
        let own = failure.column.map_or(0..0, |at| self.pass.starts[at]..self.pass.starts[at + 1]);
        self.dropouts.add(failure, batch.number, || self.outputs[own].iter().for_each(ArrayOutput::give_up))
    }

    /// Reports rows as done that a dropped column with a row per record will not write.
    fn tell_rest(&self, at: usize, rows: u64, told: u64) {
        let array = &self.pass.arrays[self.pass.starts[at]];
        if self.dropouts.has(at) && self.pass.columns[at].is_row_per_record() {
            self.meter.add(rows.saturating_mul(array.written_row()).saturating_sub(told), 0);
        }
    }

    /// Collects the records that have a row: those that lack no column that skips.
    fn keep(&self, located: &LocatedFeatures<'_>, kept: &mut Vec<usize>) -> Result<(), Failure> {
        kept.clear();
        let columns = self.pass.columns.iter().enumerate();
        let needed = || columns.clone().filter(|(at, column)| column.skips() && !self.dropouts.is_before(*at, located.batch.number));
        for record in 0..located.batch.len() {
            let mut is_whole = true;
            for (at, column) in needed() {
                let is_present = column.is_present(&located.stored(record, column)).map_err(Problem::Broken);
                if !is_present.map_err(located.failed(record, at))? {
                    self.dropouts.note_lacking(at);
                    is_whole = false;
                }
            }
            if is_whole {
                kept.push(record);
            }
        }
        Ok(())
    }

    /// What the kept records add to arrays of unknown length. The totals of a failed column are not used.
    fn count(&self, located: &LocatedFeatures<'_>, kept: &[usize]) -> Counts {
        let pass = self.pass;
        let mut counts = Counts { totals: vec![0; pass.totals()], largest: 0, failed: Vec::new() };
        counts.totals[0] = kept.len() as u64;
        for (at, column) in pass.columns.iter().enumerate().filter(|(_, column)| !column.is_row_per_record()) {
            if self.dropouts.is_before(at, located.batch.number) {
                continue;
            }
            for &record in kept {
                let counted = column.count(&located.stored(record, column)).map_err(located.failed(record, at));
                let counted = counted.and_then(|(units, items)| {
                    let asked = pass.check_output(located.batch, record, column, units, items);
                    Ok((units, items, asked.map_err(|error| located.failure(record, at, error))?))
                });
                match counted {
                    Ok((units, items, asked)) => {
                        counts.largest = counts.largest.max(asked);
                        counts.totals[1 + 2 * at] += units;
                        counts.totals[2 + 2 * at] += items;
                    }
                    Err(failure) => {
                        counts.failed.push(failure);
                        break;
                    }
                }
            }
        }
        counts
    }

    /// Writes the rows of `kept` for column number `at`, and adds the reported bytes to `told`.
    fn column(
        &self,
        at: usize,
        located: &LocatedFeatures<'_>,
        kept: &[usize],
        before: RowPlace,
        (buffers, told): (&mut Buffers, &mut u64),
    ) -> Result<(), Failure> {
        let (pass, column) = (self.pass, &self.pass.columns[at]);
        let own = pass.starts[at]..pass.starts[at + 1];
        let mut mine = pass.arrays[own.clone()].iter().zip(&self.outputs[own]);
        let Some((values, output)) = mine.next() else { return Ok(()) };
        let Buffers { stage, units, cast } = buffers;
        stage.clear();
        units.clear();
        let mut starts = Starts { units: before.units, items: before.items };
        if column.only_offsets {
            for &record in kept {
                units.push(column.count(&located.stored(record, column)).map_err(located.failed(record, at))?.1);
            }
            starts.put(units, |place, bytes| self.dropouts.put(at, || output.put(values, place, bytes, cast, pass.stage)))?;
            return Ok(());
        }
        let offsets = mine.next();
        let put_offsets = |place: u64, bytes: &[u8]| match offsets {
            Some((offsets, output)) => self.dropouts.put(at, || output.put(offsets, place, bytes, &mut Vec::new(), pass.stage)),
            None => Ok(()),
        };
        let mut put_starts = |units: &mut Vec<u64>| if offsets.is_some() { starts.put(units, put_offsets) } else { Ok(()) };
        let row_bytes = values.row.nbytes();
        let mut place = row_bytes * if column.is_row_per_record() { before.first } else { before.items };
        let mut flush = |stage: &mut Vec<u8>, place: &mut u64, told: &mut u64| -> Result<()> {
            let (wanted, start) = pass.wanted_part(*place, stage, row_bytes);
            if !wanted.is_empty() {
                self.dropouts.put(at, || output.put(values, start, wanted, cast, pass.stage))?;
                let written = values.written_bytes(wanted.len() as u64);
                self.meter.add(written, output.held());
                *told += written;
            }
            *place += stage.len() as u64;
            stage.clear();
            Ok(())
        };
        let is_direct = row_bytes >= LONG_ROW && values.decoder.is_copy();
        for &record in kept {
            let found = located.stored(record, column);
            if let Some((index, expected)) = &column.shape_is {
                let checked = pass.check_shape(located.batch, record, located.span(record, *index), *index, expected);
                checked.map_err(located.failed(record, at))?;
            }
            if let Some(row) = column.stored_row(&found).filter(|_| is_direct) {
                flush(stage, &mut place, told)?;
                self.dropouts.put(at, || output.put(values, place, row, &mut Vec::new(), 0))?;
                self.meter.add(row_bytes, output.held());
                *told += row_bytes;
                place += row_bytes;
                continue;
            }
            if stage.len() as u64 + row_bytes > pass.stage && !stage.is_empty() {
                flush(stage, &mut place, told)?;
            }
            column.decode(&found, stage, units).map_err(located.failed(record, at))?;
            if units.len() >= MOST_UNITS {
                put_starts(units)?;
            }
        }
        flush(stage, &mut place, told)?;
        put_starts(units)?;
        Ok(())
    }
}

/// The counts of a batch, and the most that one of its records takes.
struct Counts {
    totals: Vec<u64>,
    largest: u64,
    /// The failures of columns that could not be counted, at most one each.
    failed: Vec<Failure>,
}

/// Destination of the rows of a batch.
#[derive(Clone, Copy)]
struct RowPlace {
    /// The row of the first kept record, for columns with one row per record.
    first: u64,
    /// Units and items of earlier batches.
    units: u64,
    items: u64,
}

/// Units and items written so far.
struct Starts {
    units: u64,
    items: u64,
}

impl Starts {
    /// Writes the starts of units of these lengths, and clears the list.
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

/// State of one worker.
#[derive(Default)]
struct WorkerState {
    spans: Vec<Span>,
    kept: Vec<usize>,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    stage: Vec<u8>,
    units: Vec<u64>,
    cast: Vec<u8>,
}

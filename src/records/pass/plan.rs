//! Plans a pass over records: its columns and arrays, and how it divides its memory.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::array::RecordArray;
use super::done::Done;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::options::request::{Request, Run};
use crate::output::report::{Estimate, Outcome, Report};
use crate::output::staging::file::TrialFile;
use crate::plan::{MAX_BEHIND_BUFFERS, Memory, MemoryShares, Resources};
use crate::reader::checksums::Verified;
use crate::records::columns::resolve::{Resolver, needs_survey};
use crate::records::columns::{Arrange, Column};
use crate::records::container::RecordContainer;
use crate::records::feature::{Feature, Key};
use crate::records::locate::Locator;
use crate::records::scan::{Scan, scan};
use crate::records::set::RecordSet;
use crate::records::stream::framing::Framing;
use crate::records::survey::Survey;
use crate::types::layout::Layout;
use crate::types::rows::{NO_END, Rows};
use crate::types::size::memory_len;

/// Largest size of a batch and of a staging buffer.
pub(crate) const MAX_UNIT: u64 = 2 << 20;

pub(crate) const MIN_UNIT: u64 = 64 << 10;

/// Rows at least this long are written directly from the batch.
pub(crate) const LONG_ROW: u64 = 128 << 10;

/// The most memory that an image decoder takes beside the image, in multiples of the image.
pub(crate) const DECODER_SHARE: u64 = 2;

/// Everything that a pass over records needs before there is an output.
pub(crate) struct Pass<'a> {
    pub(crate) container: &'a RecordContainer,
    /// Index of the set in the container.
    pub(crate) index: usize,
    pub(crate) set: &'a RecordSet,
    pub(crate) columns: Vec<Column>,
    pub(crate) locator: Locator,
    pub(crate) arrays: Vec<RecordArray>,
    pub(crate) rows: Range<u64>,
    /// The selected rows, for columns that concatenate batches.
    pub(crate) window: Option<Range<u64>>,
    /// Number of records, as stated by metadata.
    pub(crate) expected: Option<u64>,
    pub(crate) shares: MemoryShares,
    pub(crate) unit: u64,
    pub(crate) stage: u64,
    pub(crate) batch_memory: u64,
    /// Limit for one record's decoded bytes in a column.
    pub(crate) most_output: u64,
    /// Held while decoding a record that exceeds the worker's own share.
    pub(crate) large: Mutex<()>,
    /// Index of each column's first array.
    pub(crate) starts: Vec<usize>,
    /// Whether a column that turns out not to be an array drops out; otherwise it ends the pass.
    pub(crate) may_drop: bool,
    pub(crate) run: Run,
}

/// The selected rows of features that concatenate batches.
///
/// # Errors
/// Returns [`Error::BadRequest`] for rows counted from an unknown end, and if other features are selected as well.
pub(crate) fn window(features: &[Feature], rows: Rows) -> Result<Range<u64>> {
    let is_joined = |feature: &&Feature| feature.declared.as_ref().is_some_and(|declared| declared.flat);
    if let Some(other) = features.iter().find(|feature| !is_joined(feature)) {
        return Err(BadRequest::RowsOfBatches { name: String::from_utf8_lossy(&other.name).into_owned() }.into());
    }
    let is_negative = |end: Option<i64>| end.is_some_and(i64::is_negative);
    if is_negative(rows.start) || is_negative(rows.end) {
        return Err(BadRequest::UnknownEnd { path: None }.into());
    }
    Ok(rows.resolve(NO_END))
}

impl<'a> Pass<'a> {
    /// Plans the columns of `features`, which are all in set number `set`.
    ///
    /// # Errors
    /// Returns the error of the first feature that cannot be a column, and errors of scanned records.
    pub(crate) fn plan(container: &'a RecordContainer, set: usize, features: &[Feature], request: &Request) -> Result<Self> {
        let plan = Self::plan_with(container, set, features, request, &mut |_, error| Err(error));
        plan.map(|pass| Self { may_drop: false, ..pass })
    }

    /// The same, leaving out features that cannot be columns if `leave_out` allows it: called with the index of each and its
    /// error. All columns may be left out. Columns that turn out not to be arrays drop out, unless changed values are an error.
    ///
    /// # Errors
    /// Returns errors of `leave_out`, and of scanned records.
    pub(crate) fn plan_with(
        container: &'a RecordContainer,
        set: usize,
        features: &[Feature],
        request: &Request,
        leave_out: &mut dyn FnMut(usize, Error) -> Result<()>,
    ) -> Result<Self> {
        let Request { rows, form, run, .. } = request;
        if form.layout == Layout::F {
            let detail = "records are written in reading order, which is C order";
            return Err(Error::Unsupported { what: "Fortran order for records".into(), detail: detail.into() });
        }
        let records = container.set(set);
        let is_joined = |feature: &Feature| feature.declared.as_ref().is_some_and(|declared| declared.flat);
        // `rows` then counts rows within batches, not batches.
        let window = match *rows {
            Some(rows) if records.framing == Framing::Length && features.iter().any(is_joined) => Some(window(features, rows)?),
            _ => None,
        };
        let (rows, expected) = Self::select(container, set, rows.filter(|_| window.is_none()))?;
        let joined_rows = window.as_ref().map_or(u64::MAX, |window| window.end);
        if rows.end >= NO_END && joined_rows >= NO_END {
            container.check_ends(set)?;
        }
        let is_looked_at = records.can_be_read_again() && !records.is_known();
        let look = |complete| -> Result<Arc<Survey>> {
            let whole = records.discovers && features.iter().any(|feature| matches!(feature.key, Key::Part(_)));
            let wanted = Scan { rows: rows.clone(), joined_rows, complete, whole: false };
            let survey = if rows == (0..u64::MAX) && joined_rows == u64::MAX {
                container.survey(set, complete)?
            } else {
                Arc::new(scan(records, &wanted, run)?)
            };
            if !whole {
                return Ok(survey);
            }
            let mut both = scan(records, &Scan { whole, ..wanted }, run)?;
            both.features.extend(
                survey.features.iter().filter(|(key, _)| !matches!(key, Key::Part(_))).map(|(key, stats)| (key.clone(), stats.clone())),
            );
            Ok(Arc::new(both))
        };
        let mut survey = if is_looked_at { look(false)? } else { Arc::default() };
        if is_looked_at && !survey.is_complete && features.iter().any(|feature| needs_survey(feature, &survey, request)) {
            survey = look(true)?;
        }
        // The kind of a feature does not depend on the selected records: if these have no value, others decide.
        if is_looked_at && rows != (0..u64::MAX) && !records.is_made() && features.iter().any(|feature| survey.lacks(&feature.key)) {
            let all = container.survey(set, true)?;
            survey = Arc::new(survey.told_by(&all, features.iter().map(|feature| &feature.key)));
        }
        let resolver = Resolver { request, survey: &survey, path: container.path() };
        let (mut keys, mut columns, mut arrays, mut starts) = (Vec::new(), Vec::new(), Vec::new(), vec![0]);
        let mut planned = Vec::new();
        for (at, feature) in features.iter().enumerate() {
            let column = resolver.column(feature, columns.len());
            match column.and_then(|column| Ok((RecordArray::of_column(columns.len(), &column, form)?, column))) {
                Ok((own, column)) => {
                    keys.push(feature.key.clone());
                    planned.push(feature);
                    columns.push(column);
                    arrays.extend(own);
                    starts.push(arrays.len());
                }
                Err(error) => leave_out(at, error)?,
            }
        }
        if let (Some(_), Some(at)) = (&window, columns.iter().position(|column: &Column| column.arrange != Arrange::Flat)) {
            return Err(BadRequest::RowsOfTwoArrays { name: columns[at].name.clone() }.into());
        }
        for (feature, column) in planned.iter().zip(&mut columns) {
            if let Some((key, shape)) = resolver.shape_beside(feature) {
                column.shape_is = Some((keys.len(), shape));
                keys.push(key);
            }
        }
        let mut pass = Self {
            container,
            index: set,
            set: records,
            columns,
            locator: Locator::new(keys),
            arrays,
            rows,
            window,
            expected,
            shares: MemoryShares::default(),
            unit: 0,
            stage: 0,
            batch_memory: 0,
            most_output: 0,
            large: Mutex::default(),
            starts,
            may_drop: !form.strict,
            run: run.clone(),
        };
        if !pass.columns.is_empty() {
            pass.share_memory()?;
        }
        Ok(pass)
    }

    /// The same without the columns in `gone`.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if the memory does not suffice.
    pub(crate) fn without(mut self, gone: &[usize]) -> Result<Self> {
        let (mut columns, mut arrays, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for (at, column) in std::mem::take(&mut self.columns).into_iter().enumerate().filter(|(at, _)| !gone.contains(at)) {
            let own = &self.arrays[self.starts[at]..self.starts[at + 1]];
            arrays.extend(own.iter().map(|array| RecordArray { column: columns.len(), ..array.clone() }));
            starts.push(arrays.len());
            columns.push(column);
        }
        let mut pass = Self { columns, arrays, starts, ..self };
        if !pass.columns.is_empty() {
            pass.share_memory()?;
        }
        Ok(pass)
    }

    /// Whether any column is left.
    pub(crate) fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether the pass can run any number of times.
    pub(crate) fn can_be_repeated(&self) -> bool {
        self.set.can_be_read_again()
    }

    /// The source's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.container.path()
    }

    /// Refuses rows counted from the end, for a feature that concatenates batches.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub(crate) fn check_rows(feature: &Feature, rows: Rows) -> Result<()> {
        let is_joined = feature.declared.as_ref().is_some_and(|declared| declared.flat);
        if is_joined { window(std::slice::from_ref(feature), rows).map(drop) } else { Ok(()) }
    }

    /// The selected records, and the total number if known. Rows counted from the end require counting all records.
    fn select(container: &RecordContainer, set: usize, rows: Option<Rows>) -> Result<(Range<u64>, Option<u64>)> {
        let records = container.set(set);
        let is_negative = |end: Option<i64>| end.is_some_and(i64::is_negative);
        let is_counted = rows.is_some_and(|rows| is_negative(rows.start) || is_negative(rows.end));
        let expected = match records.expected() {
            None if is_counted => Some(container.count(set)?),
            expected => expected,
        };
        let rows = rows.map_or(0..u64::MAX, |rows| rows.resolve(expected.unwrap_or(NO_END)));
        Ok((rows, expected))
    }

    /// Divides the memory: a quarter for output not on disk yet, at most half for workers, the rest for batches.
    fn share_memory(&mut self) -> Result<()> {
        let resources = Resources::of(&self.run, Memory::Buffers.threads(self.run.threads));
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
            return Err(Error::Limit {
                what: "memory in the budget (`memory` allows more)".into(),
                asked,
                allowed: Some(resources.budget.as_bytes()),
            });
        }
        let window = Resources::window_in(left / 4).min(MAX_BEHIND_BUFFERS);
        self.unit = unit;
        self.stage = stage_for(threads);
        // Half of the remainder is for records with an unknown number of rows.
        let over = left / 2 - workers;
        let is_open = self.columns.iter().any(|column| !column.is_row_per_record());
        let shared = if is_open { over / 2 } else { 0 };
        self.most_output = self.stage + shared;
        let workers = workers + shared;
        self.batch_memory = left - left / 4 - workers;
        self.shares = MemoryShares {
            threads: memory_len(threads),
            chunk_bytes: 0,
            raw_bytes: 0,
            window_bytes: window,
            fixed_bytes: fixed + workers + self.most_batches(threads),
            total_bytes: 0,
            budget: resources.budget,
        };
        Ok(())
    }

    /// The memory of all batches as long as no record is longer than a batch.
    pub(crate) fn most_batches(&self, threads: u64) -> u64 {
        self.batch_memory.min((threads + 2) * self.unit)
    }

    /// The most bytes that an array can have; `None` where that is unknown.
    pub(crate) fn most_bytes(&self, array: &RecordArray) -> Option<u64> {
        if !self.columns[array.column].is_row_per_record() {
            return None;
        }
        let end = self.rows.end.min(self.expected.unwrap_or(u64::MAX));
        (end - self.rows.start.min(end)).checked_mul(array.written_row())
    }

    /// The reads, writes and memory that the pass would need, as far as known.
    pub(crate) fn estimate(&self, output: &Path) -> Result<Vec<Estimate>> {
        let trial = TrialFile::near(output, &self.run.calls);
        let counted = if self.set.can_be_read_again() { Some(self.container.count(self.index)?) } else { None };
        let records = self.expected.or(counted).map(|records| self.rows.end.min(records) - self.rows.start.min(records));
        let read_bytes = self.set.stored_bytes(&*self.container.storage);
        self.arrays
            .iter()
            .map(|array| {
                let rows = records.filter(|_| self.columns[array.column].is_row_per_record()).unwrap_or(0) + array.extra;
                let header = array.header(rows);
                let nbytes = rows.saturating_mul(array.written_row());
                let is_counted = records.is_some() && self.columns[array.column].is_row_per_record() && !self.skips();
                let mut axes: Vec<Option<u64>> = header.shape.iter().copied().map(Some).collect();
                axes.iter_mut().take(usize::from(!is_counted)).for_each(|axis| *axis = None);
                Ok(Estimate {
                    part: array.part,
                    dtype: array.dtype,
                    item: None,
                    descr: header.descr,
                    shape: header.shape,
                    axes,
                    has_rank: true,
                    is_counted,
                    nbytes,
                    read_bytes,
                    write_bytes: nbytes,
                    slices: memory_len(read_bytes.div_ceil(self.unit)),
                    slice_bytes: self.unit,
                    threads: self.shares.threads,
                    memory_bytes: self.shares.fixed_bytes + self.shares.window_bytes,
                    method: Method::as_tried(trial.as_deref(), self.run.method, self.most_bytes(array))?,
                })
            })
            .collect()
    }

    pub(crate) fn report(&self, array: usize, done: &Done, outcome: &Outcome, started: Instant) -> Report {
        let (array, rows) = (&self.arrays[array], done.rows[array]);
        let header = array.header(rows);
        Report {
            part: array.part,
            dtype: array.dtype,
            source_dtype: array.source_dtype,
            item: None,
            descr: header.descr,
            fortran_order: false,
            shape: header.shape,
            nbytes: rows * array.written_row(),
            elapsed: started.elapsed(),
            method: outcome.method,
            verified: outcome.verified,
            peak_memory: outcome.peak_memory,
            lost: done.lost.clone(),
        }
    }

    /// How much of the output is verified by checksums.
    pub(crate) fn verified(&self) -> Verified {
        if self.run.verify && self.set.framing.has_checksum() { Verified::Full } else { Verified::Not }
    }
}

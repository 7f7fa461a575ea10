//! Columns of records in a safetensors file. Their rows are counted first, so that they can be written straight to their places.

use std::time::Instant;

use super::file::{File, refused};
use crate::convert::export::{Set, Wanted};
use crate::convert::exported::Skipped;
use crate::error::{Error, Result};
use crate::format::safetensors::name_of;
use crate::options::Options;
use crate::output::report::Report;
use crate::records::pass::array::RecordArray;
use crate::records::pass::done::Done;
use crate::records::pass::plan::Pass;
use crate::records::pass::run::Misfits;
use crate::source::opened::Tensor;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// Whether `tensor` is a column of records in files. A second pass over these is cheap, so the first one can count them.
pub(crate) fn is_stored(tensor: &Tensor) -> bool {
    Set::of(&[tensor]).first().is_some_and(Set::is_stored)
}

/// The requested columns of one set of records.
pub(crate) struct Columns<'a> {
    set: Set<'a>,
    pass: Pass<'a>,
    heap_bytes: u64,
    /// Number of rows of each array.
    rows: Vec<u64>,
}

/// An array as the file lists it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) title: String,
    pub(crate) spec: TensorSpec,
}

/// The result of a pass into the file.
pub(crate) enum Filled<'a> {
    /// A report for each array.
    Made(Columns<'a>, Vec<Report>),
    /// Some columns are not arrays, and their places would be holes. These are the others, if any are left.
    Fewer(Option<Columns<'a>>),
}

impl<'a> Columns<'a> {
    /// Plans the columns of a set and counts their rows. Leaves out those that the format cannot hold; `None` if no column
    /// remains.
    pub(crate) fn plan(set: Set<'a>, wanted: Wanted, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Option<Self>> {
        let Some(columns) = Self::plan_uncounted(set, wanted, skipped, options)? else { return Ok(None) };
        columns.counted(skipped, options)
    }

    /// As `plan`, without counting.
    pub(crate) fn plan_uncounted(mut set: Set<'a>, wanted: Wanted, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Option<Self>> {
        let Some(mut pass) = set.plan(wanted, skipped, options)? else { return Ok(None) };
        let mut gone: Vec<usize> = Vec::new();
        for RecordArray { column, dtype, .. } in &pass.arrays {
            if *dtype == Dtype::String || name_of(*dtype).is_none() {
                skipped.push(Skipped { name: set.features[*column].0.clone(), reason: refused(dtype).to_string() });
                gone.push(*column);
            }
        }
        gone.dedup();
        pass = pass.without(&gone, wanted.1, options)?;
        gone.iter().rev().for_each(|&at| drop(set.features.remove(at)));
        Ok(pass.has_columns().then_some(Self { set, pass, heap_bytes: wanted.1, rows: Vec::new() }))
    }

    /// Counts the rows of each array.
    fn counted(mut self, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Option<Self>> {
        loop {
            let done = self.pass.count(Misfits::of(options), options).map_err(|failure| failure.error)?;
            let is_final = done.repeat.is_none();
            let left = self.pass.arrays.iter().zip(&done.rows).filter(|(array, _)| !done.lacks(array.column));
            self.rows = left.map(|(_, &rows)| rows).collect();
            self = match self.without(done, skipped, options)? {
                Some(fewer) if is_final => return Ok(Some(fewer)),
                Some(fewer) => fewer,
                None => return Ok(None),
            };
        }
    }

    /// The same columns without those that failed; `None` if no column remains.
    fn without(mut self, done: Done, skipped: &mut Vec<Skipped>, options: &Options) -> Result<Option<Self>> {
        let gone: Vec<usize> = done.dropouts.iter().map(|dropout| dropout.column).collect();
        self.set.leave_out(done.dropouts, skipped);
        self.pass = self.pass.without(&gone, self.heap_bytes, options)?;
        Ok(Some(self).filter(|columns| columns.pass.has_columns()))
    }

    /// The number of arrays.
    pub(crate) fn len(&self) -> usize {
        self.pass.arrays.len()
    }

    /// The arrays, with these numbers of rows.
    fn entries_of(&self, rows: &[u64], options: &Options) -> Result<Vec<Entry>> {
        let entry = |(array, &rows): (&RecordArray, &u64)| {
            let name = self.set.features[array.column].0.clone();
            let title = format!("{}{}", name.to_json(), array.part.suffix());
            let spec = TensorSpec::new(array.dtype, array.header(rows, options)?.shape).map_err(Error::bad_request)?;
            Ok(Entry { name, title, spec })
        };
        self.pass.arrays.iter().zip(rows).map(entry).collect()
    }

    pub(crate) fn entries(&self, options: &Options) -> Result<Vec<Entry>> {
        self.entries_of(&self.rows, options)
    }

    /// Writes the arrays to their places in the file.
    pub(crate) fn fill(self, file: &File<'_>, starts: &[u64], skipped: &mut Vec<Skipped>, options: &Options) -> Result<Filled<'a>> {
        let started = Instant::now();
        let outputs = self.pass.parts((file.staged.file(), file.staged.target()), file.method, starts, Some(&self.rows))?;
        let done = self.pass.run(&outputs, Misfits::of(options), options).map_err(|failure| failure.error)?;
        if done.repeat.is_some() {
            drop(outputs);
            let fewer = self.without(done, skipped, options)?;
            return fewer.map_or(Ok(None), |fewer| fewer.counted(skipped, options)).map(Filled::Fewer);
        }
        if !done.dropouts.is_empty() {
            drop(outputs);
            let left = self.pass.arrays.iter().zip(&self.rows).filter(|(array, _)| !done.lacks(array.column));
            let rows = left.map(|(_, &rows)| rows).collect();
            let fewer = self.without(done, skipped, options)?;
            return Ok(Filled::Fewer(fewer.map(|fewer| Self { rows, ..fewer })));
        }
        if let Some((found, counted)) = done.rows.iter().zip(&self.rows).find(|(found, counted)| found != counted) {
            let detail = format!("{found} rows were read, but {counted} were counted before: the source was written to meanwhile");
            return Err(Error::malformed(self.pass.path(), "source", detail));
        }
        let outcomes = self.pass.finish(outputs, &done, options)?;
        let reports = outcomes.iter().map(|(at, outcome)| self.pass.report(*at, &done, outcome, started, options));
        let reports = reports.collect::<Result<_>>()?;
        Ok(Filled::Made(self, reports))
    }

    /// Writes the only array, whose number of rows is unknown, to the file from `start` on. `None` if it turns out not to be an
    /// array.
    pub(crate) fn fill_end(
        self,
        file: &File<'_>,
        start: u64,
        skipped: &mut Vec<Skipped>,
        options: &Options,
    ) -> Result<Option<(Entry, Report)>> {
        let started = Instant::now();
        let outputs = self.pass.parts((file.staged.file(), file.staged.target()), file.method, &[start], None)?;
        let done = self.pass.run(&outputs, Misfits::of(options), options).map_err(|failure| failure.error)?;
        if !done.dropouts.is_empty() {
            drop(outputs);
            return self.without(done, skipped, options).map(|_| None);
        }
        let outcomes = self.pass.finish(outputs, &done, options)?;
        let reports = outcomes.iter().map(|(at, outcome)| self.pass.report(*at, &done, outcome, started, options));
        let reports: Vec<Report> = reports.collect::<Result<_>>()?;
        Ok(self.entries_of(&done.rows, options)?.into_iter().zip(reports).next())
    }

    /// The arrays with the most rows that any can have, for the longest possible header.
    pub(crate) fn longest(&self, options: &Options) -> Result<Vec<Entry>> {
        let rows: Vec<u64> = self.pass.arrays.iter().map(|array| i64::MAX.unsigned_abs() / array.written_row().max(1)).collect();
        self.entries_of(&rows, options)
    }
}

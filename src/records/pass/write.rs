//! Writes the arrays of a pass to files, parts of files, or a stream.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::array::RecordArray;
use super::done::{Done, Filled};
use super::output::ArrayOutput;
use super::plan::Pass;
use super::run::Depth;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::output::place::ArrayPlace;
use crate::output::report::{Outcome, Report};
use crate::output::stream;
use crate::records::columns::Column;

impl Pass<'_> {
    /// The only array, if its number of rows is known in advance.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] if it is not, and for two arrays.
    pub(crate) fn check_stream(&self) -> Result<&RecordArray> {
        let ([array], [column]) = (&self.arrays[..], &self.columns[..]) else {
            return Err(BadRequest::TwoArrays { taker: "a stream", instead: "write them to files" }.into());
        };
        if !column.is_row_per_record() || column.skips() || !self.set.can_be_read_again() || self.run.salvage.peek().is_some() {
            return Err(BadRequest::StreamLength.into());
        }
        Ok(array)
    }

    /// Writes the only array to `out`, header first. Counts the records first if their number is unknown.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] if the number of rows cannot be known in advance, and for two arrays.
    pub(crate) fn stream(&self, out: &mut (dyn Write + Send), started: Instant) -> Result<Report> {
        let array = self.check_stream()?;
        let records = match self.expected {
            Some(expected) => expected,
            None => self.container.count(self.index)?,
        };
        let rows = self.rows.end.min(records) - self.rows.start.min(records);
        stream::write_header(&array.header(rows), out)?;
        let writer = Mutex::new((0u64, out));
        let put = |at: u64, bytes: &[u8]| {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            if writer.0 != at {
                return Err(BadRequest::impossible(format!("byte {at} of an array came after byte {}", writer.0)).into());
            }
            writer.0 += bytes.len() as u64;
            writer.1.write_all(bytes).map_err(stream::write_error)
        };
        let done = self.make(&[ArrayOutput::Check(&put)])?;
        if done.rows[0] != rows {
            let detail = format!("{} records were read, {rows} counted before: it was written to while it was being read", done.rows[0]);
            return Err(Error::malformed(self.container.path(), "source", detail));
        }
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.1.flush().map_err(stream::write_error)?;
        let outcome = Outcome { method: Method::Portable, verified: self.verified(), peak_memory: self.shares.fixed_bytes };
        Ok(self.report(0, &done, &outcome, started))
    }

    /// Makes the arrays in these places, one for each array. A column that drops out leaves its place in an unknown state.
    ///
    /// # Errors
    /// Those of [`make`](Self::make); [`Error::Unsupported`] for a method that is not available; [`Error::Malformed`] where the number
    /// of rows is not the one that a region has room for.
    pub(crate) fn fill(&self, places: &[ArrayPlace], started: Instant) -> Result<Filled> {
        let outputs = places.iter().enumerate().map(|(at, place)| self.output(at, place)).collect::<Result<Vec<_>>>()?;
        let done = self.make(&outputs)?;
        let mut filled = Filled { reports: Vec::new(), dropouts: Vec::new(), repeat: None };
        if done.repeat.is_none() {
            for (at, (output, place)) in outputs.into_iter().zip(places).enumerate() {
                let is_left = !done.lacks(self.arrays[at].column);
                let outcome = if is_left { self.finish(at, output, place, &done)? } else { None };
                filled.reports.push(outcome.map(|outcome| self.report(at, &done, &outcome, started)));
            }
        }
        Ok(Filled { dropouts: done.dropouts, repeat: done.repeat, ..filled })
    }

    fn output(&self, at: usize, place: &ArrayPlace) -> Result<ArrayOutput<'static>> {
        if place.region.is_none() && self.run.method == Some(Method::Clone) {
            let detail = "rows are assembled from records, so there are no blocks to share".into();
            return Err(Error::Unsupported { what: "method clone for records".into(), detail });
        }
        let method = place.method(self.run.method, self.most_bytes(&self.arrays[at]))?;
        let sink = place.sink(method, self.shares.window_bytes / self.arrays.len().max(1) as u64);
        let sink = Arc::new(sink.growing_beside(self.arrays.len()));
        let mut counted = None;
        if let Some(rows) = place.region.and_then(|region| region.rows) {
            let nbytes = self.arrays[at].nbytes(rows)?;
            sink.reserve(nbytes)?;
            counted = Some((nbytes, self.container.path().to_owned()));
        }
        let whole = place.region.is_none().then(|| Arc::clone(&place.file));
        Ok(ArrayOutput::File { sink, whole, counted, method })
    }

    /// Finishes an array: header, length, sync.
    fn finish(&self, at: usize, output: ArrayOutput<'_>, place: &ArrayPlace, done: &Done) -> Result<Option<Outcome>> {
        let (array, rows) = (&self.arrays[at], done.rows[at]);
        let ArrayOutput::File { sink, method, .. } = output else { return Ok(None) };
        if let Some(counted) = place.region.and_then(|region| region.rows).filter(|&counted| counted != rows) {
            let detail = format!("{rows} rows were read, but {counted} were counted before: the source was written to meanwhile");
            return Err(Error::malformed(self.path(), "source", detail));
        }
        let behind = sink.finish(&array.header(rows), array.nbytes(rows)?)?;
        let peak_memory = self.shares.fixed_bytes + behind.held_and_peak().1;
        Ok(Some(Outcome { method, verified: self.verified(), peak_memory }))
    }

    /// The number of rows of each array; reads records if needed, without decoding them.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub(crate) fn count(&self) -> Result<Done> {
        let is_even = self.columns.iter().all(Column::is_row_per_record) && !self.skips();
        if !is_even || self.run.salvage.peek().is_some() {
            let ignore = |_: u64, _: &[u8]| Ok(());
            let outputs: Vec<ArrayOutput<'_>> = self.arrays.iter().map(|_| ArrayOutput::Check(&ignore)).collect();
            return self.go(&outputs, Depth::Count).map_err(|failure| failure.error);
        }
        let records = self.expected.map_or_else(|| self.container.count_frames(self.index, &self.run), Ok)?;
        let rows = self.rows.end.min(records) - self.rows.start.min(records);
        Ok(Done { rows: vec![rows; self.arrays.len()], lost: Vec::new(), dropouts: Vec::new(), repeat: None })
    }
}

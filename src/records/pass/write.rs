//! Writes the arrays of a pass to files, parts of files, or a stream.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::array::RecordArray;
use super::done::Done;
use super::failure::Failure;
use super::output::ArrayOutput;
use super::plan::Pass;
use super::run::{Depth, Misfits};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::method::Method;
use crate::output::private_file::PrivateFile;
use crate::output::report::{Outcome, Report};
use crate::output::sink::NpySink;
use crate::output::stream;
use crate::records::columns::Column;

impl Pass<'_> {
    /// The only array, if its number of rows is known in advance.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] if it is not, and for two arrays.
    pub(crate) fn check_stream(&self, options: &Options) -> Result<&RecordArray> {
        let refused =
            |what: &str| Err(Error::bad_request(format!("{what}, and a stream starts with the number of its rows: write a file")));
        let ([array], [column]) = (&self.arrays[..], &self.columns[..]) else {
            return refused("values and offsets are two arrays");
        };
        if !column.is_row_per_record() || column.skips() || !self.set.can_be_read_again() || options.records.salvage.peek().is_some() {
            return refused("its number of rows is only known after reading everything");
        }
        Ok(array)
    }

    /// Writes the only array to `out`, header first. Counts the records first if their number is unknown.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] if the number of rows cannot be known in advance, and for two arrays.
    pub(crate) fn stream(&self, out: &mut (dyn Write + Send), started: Instant, options: &Options) -> Result<Report> {
        let array = self.check_stream(options)?;
        let records = match self.expected {
            Some(expected) => expected,
            None => self.container.count(self.index)?,
        };
        let rows = self.rows.end.min(records) - self.rows.start.min(records);
        stream::write_header(&array.header(rows, options)?, out)?;
        let writer = Mutex::new((0u64, out));
        let put = |at: u64, bytes: &[u8]| {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            if writer.0 != at {
                return Err(Error::bad_request(format!("byte {at} of an array came after byte {}", writer.0)));
            }
            writer.0 += bytes.len() as u64;
            writer.1.write_all(bytes).map_err(stream::write_error)
        };
        let done = self.run(&[ArrayOutput::Check(&put)], Misfits::Refused, options).map_err(|failure| failure.error)?;
        if done.rows[0] != rows {
            let detail = format!("{} records were read, {rows} counted before: it was written to while it was being read", done.rows[0]);
            return Err(Error::malformed(self.container.path(), "source", detail));
        }
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.1.flush().map_err(stream::write_error)?;
        let outcome = Outcome { method: Method::Portable, verified: self.verified(options), peak_memory: self.shares.fixed_bytes };
        self.report(0, &done, &outcome, started, options)
    }

    /// Outputs for new files, one for each array.
    pub(crate) fn outputs(&self, files: &[(Arc<PrivateFile>, &Path)], options: &Options) -> Result<Vec<ArrayOutput<'static>>> {
        let window = self.shares.window_bytes / files.len().max(1) as u64;
        let made = files.iter().map(|(file, path)| {
            if options.method == Some(Method::Clone) {
                let detail = "rows are assembled from records, so there are no blocks to share".into();
                return Err(Error::Unsupported { what: "method clone for records".into(), detail });
            }
            let method = Method::to_copy(file, options.method)?;
            let sink = Arc::new(NpySink::new(Arc::clone(file), path, method, window));
            Ok(ArrayOutput::File { sink, whole: Some(Arc::clone(file)), counted: None, method })
        });
        made.collect()
    }

    /// Outputs for parts of one file that start at `starts`. With `rows`, the number of rows of each array, space is reserved;
    /// without, there is one array, the last of the file.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] when the disk is full.
    pub(crate) fn parts(
        &self,
        (file, target): (&Arc<PrivateFile>, &Path),
        method: Method,
        starts: &[u64],
        rows: Option<&[u64]>,
    ) -> Result<Vec<ArrayOutput<'static>>> {
        let window = self.shares.window_bytes / starts.len().max(1) as u64;
        let part = |(at, start): (usize, &u64)| {
            let sink = Arc::new(NpySink::new(Arc::clone(file), target, method, window).part(*start));
            let nbytes = rows.map(|rows| self.arrays[at].nbytes(rows[at])).transpose()?;
            nbytes.map_or(Ok(()), |nbytes| sink.reserve(nbytes))?;
            let counted = nbytes.map(|nbytes| (nbytes, self.container.path().to_owned()));
            Ok(ArrayOutput::File { sink, whole: None, counted, method })
        };
        starts.iter().enumerate().map(part).collect()
    }

    /// The number of rows of each array; reads records if needed, without decoding them.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn count(&self, misfits: Misfits, options: &Options) -> Result<Done, Failure> {
        let is_even = self.columns.iter().all(Column::is_row_per_record) && !self.skips();
        if !is_even || options.records.salvage.peek().is_some() {
            let ignore = |_: u64, _: &[u8]| Ok(());
            let outputs: Vec<ArrayOutput<'_>> = self.arrays.iter().map(|_| ArrayOutput::Check(&ignore)).collect();
            return self.go(&outputs, (misfits, Depth::Count), options);
        }
        let records = self.expected.map_or_else(|| self.container.count_frames(self.index, options), Ok)?;
        let rows = self.rows.end.min(records) - self.rows.start.min(records);
        Ok(Done { rows: vec![rows; self.arrays.len()], lost: Vec::new(), dropouts: Vec::new(), repeat: None })
    }

    /// Finishes the files: headers, lengths, sync. Returns the outcome of each array with its index; arrays of dropped columns are
    /// left as they are.
    pub(crate) fn finish(&self, outputs: Vec<ArrayOutput<'_>>, done: &Done, options: &Options) -> Result<Vec<(usize, Outcome)>> {
        let mut outcomes = Vec::with_capacity(outputs.len());
        for (at, (output, array)) in outputs.into_iter().zip(&self.arrays).enumerate() {
            let ArrayOutput::File { sink, method, .. } = output else { continue };
            if done.lacks(array.column) {
                continue;
            }
            let behind = sink.finish(&array.header(done.rows[at], options)?, array.nbytes(done.rows[at])?)?;
            let peak_memory = self.shares.fixed_bytes + behind.held_and_peak().1;
            outcomes.push((at, Outcome { method, verified: self.verified(options), peak_memory }));
        }
        Ok(outcomes)
    }
}

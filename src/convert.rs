//! The library call: one tensor into one `.npy`, with its choices and its report.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::cancel::CancelToken;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::method::Method;
use crate::mmap;
use crate::options::{Options, Progress};
use crate::plan::Memory;
use crate::rows::Rows;
use crate::source::{Source, Tensor, TensorReader, Verified};
use crate::staging::StagedFile;
use crate::view::MmapArray;

/// What a conversion did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The tensor's dtype, which the `.npy` may have lost.
    pub dtype: Dtype,
    /// The array's shape.
    pub shape: Vec<u64>,
    /// Bytes of elements.
    pub nbytes: u64,
    /// From opening the output to its name being on disk.
    pub elapsed: Duration,
    /// How the output was written.
    pub method: Method,
    /// How much of the data stored checksums vouch for.
    pub verified: Verified,
    /// The most memory in use, by the plan's account: process, source, buffers, output pages not on disk yet.
    pub peak_memory: u64,
}

/// The finished array and what it took.
#[derive(Debug)]
#[non_exhaustive]
pub struct Converted {
    /// The array, mapped.
    pub array: MmapArray,
    /// What was done.
    pub report: Report,
}

/// Converts one tensor into one `.npy` file.
///
/// ```no_run
/// use mmconvert::{Budget, Converter, Source};
///
/// let source = Source::open("model.ckpt-1000")?;
/// let tensor = source.tensor("embedding")?;
/// let converted = Converter::new(&tensor)?.memory(Budget::mib(256)).run("embedding.npy")?;
/// let view = converted.array.view::<f32>()?;
/// println!("{:?}, checksums: {:?}", view.shape(), converted.report.verified);
/// # Ok::<(), mmconvert::Error>(())
/// ```
#[derive(Debug)]
pub struct Converter<'a> {
    reader: Box<dyn TensorReader + 'a>,
    source: Option<&'a Source>,
    rows: Option<Rows>,
    options: Options,
}

impl<'a> Converter<'a> {
    /// A conversion of all of `tensor` with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a dtype without a fixed size, and what [`Tensor::reader`] says of the files.
    pub fn new(tensor: &Tensor<'a>) -> Result<Self> {
        Ok(Self { source: Some(tensor.source()), ..Self::from_reader(tensor.reader()?) })
    }

    /// A conversion of what `reader` reads.
    #[must_use]
    pub fn from_reader(reader: Box<dyn TensorReader + 'a>) -> Self {
        Self { reader, source: None, rows: None, options: Options::default() }
    }

    /// Converts only these rows of axis 0: `10..20`, or [`Rows`] with Python's rules for negative ends.
    #[must_use]
    pub fn rows(mut self, rows: impl Into<Rows>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// All choices at once.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// See [`Options::memory`].
    #[must_use]
    pub fn memory(mut self, budget: Budget) -> Self {
        self.options = self.options.memory(budget);
        self
    }

    /// See [`Options::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options = self.options.threads(threads);
        self
    }

    /// See [`Options::verify`].
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.options = self.options.verify(verify);
        self
    }

    /// See [`Options::overwrite`].
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options = self.options.overwrite(overwrite);
        self
    }

    /// See [`Options::cancel`].
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.options = self.options.cancel(token);
        self
    }

    /// See [`Options::progress`].
    #[must_use]
    pub fn progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.options = self.options.progress(report);
        self
    }

    /// See [`Options::method`].
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.options = self.options.method(method);
        self
    }

    /// See [`Options::in_flight`].
    #[must_use]
    pub fn in_flight(mut self, slices: usize) -> Self {
        self.options = self.options.in_flight(slices);
        self
    }

    /// What a run with this output would read, write and use. No data are read or written for it: what the file system
    /// can do is tried with a byte of a file that never has a name.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar, [`Error::Limit`] when the memory does not suffice,
    /// [`Error::Unsupported`] when the method that was asked for cannot be had.
    pub fn estimate(&self, output: impl AsRef<Path>) -> Result<Estimate> {
        self.job()?.estimate(output.as_ref(), &self.options.settled())
    }

    fn job(&self) -> Result<Job<'_>> {
        Job::new(self.reader.as_ref(), self.rows, self.source.map_or(0, Source::heap_bytes))
    }

    /// Writes the array to `path`, where it appears complete, verified and synced, or not at all; then maps it.
    ///
    /// # Errors
    /// [`Error::OutputExists`] unless overwriting was chosen; [`Error::Malformed`] when a checksum does not match;
    /// [`Error::Limit`] when memory or disk space do not suffice; [`Error::BadRequest`] when `path` is a file of the source;
    /// [`Error::Cancelled`]; [`Error::Io`].
    pub fn run(self, path: impl AsRef<Path>) -> Result<Converted> {
        let (array, report) = self.execute(path.as_ref(), |staged, dtype| {
            let map = mmap::map_finished(staged.file()).map_err(Error::io("map", staged.target()))?;
            MmapArray::new(map, staged.target(), Some(dtype))
        })?;
        Ok(Converted { array, report })
    }

    /// As [`run`](Self::run), for callers that only want the file.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn write(self, path: impl AsRef<Path>) -> Result<Report> {
        self.execute(path.as_ref(), |_, _| Ok(())).map(|((), report)| report)
    }

    /// What can still fail once the file is complete happens in `view`, before it gets its name.
    fn execute<V>(self, path: &Path, view: impl FnOnce(&StagedFile, Dtype) -> Result<V>) -> Result<(V, Report)> {
        let started = Instant::now();
        let (job, options) = (self.job()?, self.options.settled());
        // What the memory does not allow is refused before there is an output.
        job.plan(Memory::Buffers, &options)?;
        let staged = StagedFile::create(path, options.existing(), options.calls())?;
        if let Some(source) = self.source {
            source.check_not_own(staged.target())?;
        }
        let outcome = job.fill(staged.file(), staged.target(), &options)?;
        let view = view(&staged, job.spec.dtype())?;
        options.cancel.check()?;
        staged.publish()?;
        Ok((view, job.report(&outcome, started)))
    }
}

/// What a conversion would read, write and use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Estimate {
    /// The output's shape.
    pub shape: Vec<u64>,
    /// Bytes of the output's elements.
    pub nbytes: u64,
    /// Bytes to read from the source: its holes, and what is shared and not verified, need not be.
    pub read_bytes: u64,
    /// Bytes of elements to write.
    pub write_bytes: u64,
    /// The number of slices.
    pub slices: usize,
    /// Bytes of the longest slice.
    pub slice_bytes: u64,
    /// Workers.
    pub threads: usize,
    /// The most memory in use.
    pub memory_bytes: u64,
    /// How the output would be written.
    pub method: Method,
}

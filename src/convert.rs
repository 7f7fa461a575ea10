//! Source, plan, decode and sink joined: one tensor into one `.npy`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::cancel::CancelToken;
use crate::decode::Decoder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::mmap::PrivateFile;
use crate::options::{Options, Progress};
use crate::plan::Plan;
use crate::rows::Rows;
use crate::sink::{Filler, NpySink};
use crate::source::{Ledger, ReadContext, Source, Tensor, TensorReader, Verified};
use crate::spec::{MAX_NDIM, TensorSpec, memory_len};
use crate::staging::StagedFile;
use crate::view::MmapArray;

/// How outputs are written in this version: read straight into mapped windows.
const METHOD: &str = "map";

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
    /// How the output was written: `map` reads straight into mapped windows.
    pub method: &'static str,
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

    /// What a run would read, write and use; nothing is read or written for it.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar, [`Error::Limit`] when the memory does not suffice.
    pub fn estimate(&self) -> Result<Estimate> {
        let job = self.job()?;
        Ok(Estimate {
            shape: job.spec.shape().to_vec(),
            read_bytes: job.plan.total_bytes(),
            write_bytes: job.plan.total_bytes(),
            slices: job.plan.slices(),
            slice_bytes: job.plan.slice_bytes().min(job.plan.total_bytes()),
            threads: job.plan.threads,
            memory_bytes: job.plan.memory_bytes(),
            method: METHOD,
        })
    }

    fn job(&self) -> Result<Job<'_>> {
        let heap_bytes = self.source.map_or(0, Source::heap_bytes);
        Job::new(self.reader.as_ref(), self.rows, heap_bytes, &self.options)
    }

    /// Writes the array to `path`, where it appears complete, verified and synced, or not at all; then maps it.
    ///
    /// # Errors
    /// [`Error::OutputExists`] unless overwriting was chosen; [`Error::Malformed`] when a checksum does not match;
    /// [`Error::Limit`] when memory or disk space do not suffice; [`Error::BadRequest`] when `path` is a file of the source;
    /// [`Error::Cancelled`]; [`Error::Io`].
    pub fn run(self, path: impl AsRef<Path>) -> Result<Converted> {
        let (array, report) = self.execute(path.as_ref(), |staged, dtype| {
            let map = staged.file().map().map_err(Error::io("map", staged.target()))?;
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
        let job = self.job()?;
        let staged = StagedFile::create(path, self.options.existing())?;
        if let Some(source) = self.source {
            source.check_not_own(staged.target())?;
        }
        let outcome = job.fill(staged.file(), staged.target(), &self.options)?;
        let view = view(&staged, job.spec.dtype())?;
        self.options.cancel.check()?;
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
    /// Bytes to read from the source.
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
    pub method: &'static str,
}

/// One tensor, ready to be converted: everything that can be refused has been.
pub(crate) struct Job<'a> {
    reader: &'a dyn TensorReader,
    /// The output's spec: the selected rows.
    pub(crate) spec: TensorSpec,
    plan: Plan,
    decoder: Decoder,
    descr: &'static str,
}

/// What filling a file gave.
pub(crate) struct Outcome {
    verified: Verified,
    peak_memory: u64,
}

impl<'a> Job<'a> {
    pub(crate) fn new(reader: &'a dyn TensorReader, rows: Option<Rows>, heap_bytes: u64, options: &Options) -> Result<Self> {
        let source = reader.spec();
        let descr = source.dtype().descr().ok_or_else(|| Error::Unsupported {
            what: format!("dtype {}", source.dtype()),
            detail: "it has no fixed-size elements".into(),
        })?;
        if source.shape().len() > MAX_NDIM {
            let what = format!("a tensor of {} dimensions", source.shape().len());
            return Err(Error::Unsupported { what, detail: format!("NumPy arrays have at most {MAX_NDIM}") });
        }
        let rows = match rows {
            Some(_) if source.shape().is_empty() => return Err(Error::bad_request("a scalar has no rows to choose from")),
            Some(rows) => rows.resolve(source.rows()),
            None => 0..source.rows(),
        };
        let heap = heap_bytes.saturating_add(reader.heap_bytes());
        let plan = Plan::new(source, &rows, options.budget(), options.thread_count(), heap)?;
        let decoder = Decoder::resolve(source.dtype(), reader.byte_order());
        Ok(Self { reader, spec: source.with_rows(&rows), plan, decoder, descr })
    }

    /// Fills `file` with header and elements, verifies the checksums, syncs it. Messages call it `target`.
    pub(crate) fn fill(&self, file: &Arc<PrivateFile>, target: &Path, options: &Options) -> Result<Outcome> {
        let sink = Arc::new(NpySink::new(Arc::clone(file), target, self.descr, self.plan.window_bytes));
        sink.reserve(self.spec.nbytes())?;
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let filler = if self.reader.fills_by_system_calls() { Filler::Kernel } else { Filler::Stores };
        let done = AtomicU64::new(0);
        crate::pool::for_each_slice(
            &self.plan,
            &options.cancel,
            || self.context(ledger.as_ref(), options),
            |slice, context| {
                let len = slice.bytes.end - slice.bytes.start;
                let mut window = sink.window(slice.bytes.clone(), filler)?;
                self.reader.read(slice.elements.clone(), &mut window, context).map_err(|e| sink.explain(e, len))?;
                self.decoder.apply(&mut window);
                window.commit()?;
                let done_bytes = done.fetch_add(len, Ordering::Relaxed) + len;
                if let Some(report) = &options.progress {
                    report(&Progress {
                        done_bytes,
                        total_bytes: self.plan.total_bytes(),
                        memory_bytes: self.plan.fixed_bytes + sink.behind().held_and_peak().0,
                        memory_limit: self.plan.budget.as_bytes(),
                    });
                }
                Ok(())
            },
        )?;
        let verified = ledger.map_or(Ok(Verified::Not), |ledger| ledger.verify())?;
        let behind = sink.finish(self.spec.shape(), self.spec.nbytes())?;
        Ok(Outcome { verified, peak_memory: self.plan.fixed_bytes + behind.held_and_peak().1 })
    }

    /// Calls `check` with every slice's place in the output, its decoded elements, and memory of the same length, in
    /// parallel and in any order.
    pub(crate) fn for_each_decoded(
        &self,
        options: &Options,
        check: impl Fn(Range<u64>, &[u8], &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let buffer = || vec![0; memory_len(self.plan.slice_bytes())];
        let context = || (self.context(ledger.as_ref(), options), buffer(), buffer());
        crate::pool::for_each_slice(&self.plan, &options.cancel, context, |slice, (context, decoded, other)| {
            let len = memory_len(slice.bytes.end - slice.bytes.start);
            let decoded = &mut decoded[..len];
            self.reader.read(slice.elements.clone(), decoded, context)?;
            self.decoder.apply(decoded);
            check(slice.bytes.clone(), decoded, &mut other[..len])
        })?;
        ledger.map_or(Ok(Verified::Not), |ledger| ledger.verify())
    }

    fn context<'b>(&self, ledger: Option<&'b Ledger<'b>>, options: &'b Options) -> ReadContext<'b> {
        ReadContext::new(self.plan.chunk_bytes, ledger, &options.cancel)
    }

    pub(crate) fn report(&self, outcome: &Outcome, started: Instant) -> Report {
        Report {
            dtype: self.spec.dtype(),
            shape: self.spec.shape().to_vec(),
            nbytes: self.spec.nbytes(),
            elapsed: started.elapsed(),
            method: METHOD,
            verified: outcome.verified,
            peak_memory: outcome.peak_memory,
        }
    }
}

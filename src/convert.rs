//! Source, plan, decode and sink joined: one tensor into one `.npy`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::budget::Budget;
use crate::cancel::CancelToken;
use crate::decode::Decoder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::method::Method;
use crate::mmap;
use crate::options::{Options, Progress};
use crate::os;
use crate::plan::{Memory, Plan, Resources, Slice};
use crate::rows::Rows;
use crate::runs::{Array, DataRuns, Part};
use crate::sink::{Filler, NpySink, PrivateFile, Sharing};
use crate::source::{Ledger, ReadContext, Source, StoredRun, Tensor, TensorReader, Verified};
use crate::spec::{MAX_NDIM, TensorSpec, memory_len};
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

/// One tensor, ready to be converted: everything that can be refused without an output has been.
pub(crate) struct Job<'a> {
    reader: &'a dyn TensorReader,
    /// The output's spec: the selected rows.
    pub(crate) spec: TensorSpec,
    rows: Range<u64>,
    heap_bytes: u64,
    decoder: Decoder,
    descr: &'static str,
}

/// What filling a file gave.
pub(crate) struct Outcome {
    pub(crate) method: Method,
    pub(crate) verified: Verified,
    pub(crate) peak_memory: u64,
}

impl<'a> Job<'a> {
    pub(crate) fn new(reader: &'a dyn TensorReader, rows: Option<Rows>, heap_bytes: u64) -> Result<Self> {
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
        let decoder = Decoder::resolve(source.dtype(), reader.byte_order());
        let heap_bytes = heap_bytes.saturating_add(reader.heap_bytes());
        Ok(Self { reader, spec: source.with_rows(&rows), rows, heap_bytes, decoder, descr })
    }

    /// # Errors
    /// [`Error::Limit`] when the memory does not suffice.
    pub(crate) fn plan(&self, memory: Memory, options: &Options) -> Result<Plan> {
        let resources = Resources {
            budget: options.budget(),
            threads: options.thread_count(memory),
            heap_bytes: self.heap_bytes,
            needs_scratch: !self.reader.fills_by_system_calls(),
            in_flight: options.in_flight,
        };
        Plan::new(self.reader.spec(), &self.rows, memory, &resources)
    }

    fn estimate(&self, output: &Path, options: &Options) -> Result<Estimate> {
        let method = match nearest_directory(output).map(|dir| PrivateFile::unnamed(dir, options.calls())) {
            Some(Ok(file)) => match self.sharing(&file, options)? {
                Some((run, sharing)) if self.try_sharing(&run, &sharing, &file, true)? => Method::Clone,
                _ => self.copying_method(&file, options)?,
            },
            // Where it cannot be tried: the way that nearly all file systems allow.
            _ => options.method.unwrap_or(Method::Map),
        };
        let plan = self.plan(method.memory(), options)?;
        let data = self.data_bytes(method, options)?;
        let is_shared = method == Method::Clone;
        Ok(Estimate {
            shape: self.spec.shape().to_vec(),
            nbytes: self.spec.nbytes(),
            read_bytes: if is_shared && !options.verify { 0 } else { data },
            write_bytes: if is_shared { 0 } else { data },
            slices: plan.slices(),
            slice_bytes: plan.slice_bytes().min(plan.total_bytes()),
            threads: plan.threads,
            memory_bytes: if is_shared { plan.fixed_bytes } else { plan.memory_bytes() },
            method,
        })
    }

    /// Reads the whole tensor into `out`, which is as long, decoded and verified.
    pub(crate) fn read_whole(&self, out: &mut [u8], chunk_bytes: usize, options: &Options) -> Result<Verified> {
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let mut context = ReadContext::new(chunk_bytes, ledger.as_ref(), &options.cancel, options.calls());
        self.reader.read(self.elements(), out, &mut context)?;
        self.decoder.apply(out);
        ledger.map_or(Ok(Verified::Not), |ledger| ledger.verify())
    }

    /// The header of the output.
    pub(crate) fn header(&self) -> Header {
        Header::new(self.descr, self.spec.shape())
    }

    /// Fills `file` with header and elements, verifies the checksums, syncs it. Messages call it `target`.
    pub(crate) fn fill(&self, file: &Arc<PrivateFile>, target: &Path, options: &Options) -> Result<Outcome> {
        if let Some((run, sharing)) = self.sharing(file, options)? {
            let before = Stamp::of(&run).map_err(Error::io("read", target))?;
            if self.try_sharing(&run, &sharing, file, false)? {
                let sink = NpySink::shared(Arc::clone(file), target, self.descr, sharing.data_start);
                let outcome = self.check_shared(&run, options)?;
                if Stamp::of(&run).map_err(Error::io("read", target))? != before {
                    return Err(Error::malformed(target, "source", "it was changed while it was being converted"));
                }
                Arc::new(sink).finish(self.spec.shape(), self.spec.nbytes())?;
                return Ok(outcome);
            }
        }
        self.copy_into(file, target, self.copying_method(file, options)?, options)
    }

    /// How the output could share the blocks of the source; `None` unless that is wanted and fits.
    fn sharing(&self, file: &PrivateFile, options: &Options) -> Result<Option<(StoredRun, Sharing)>> {
        if options.method.is_some_and(|method| method != Method::Clone) || self.decoder != Decoder::Copy || self.spec.nbytes() == 0 {
            return Ok(None);
        }
        let itemsize = self.spec.itemsize();
        let first = self.elements().start;
        let Some(run) = self.reader.stored_run(first)?.filter(|run| run.elements.end - first >= self.spec.elements()) else {
            return Ok(None);
        };
        let Ok((block, metadata)) = Sharing::block_bytes(file).and_then(|block| Ok((block, run.file.metadata()?))) else {
            return Ok(None);
        };
        let start = run.offset + (first - run.elements.start) * itemsize;
        let sharing = Sharing::fit(start..start + self.spec.nbytes(), metadata.len(), &self.header(), itemsize, block);
        Ok(sharing.map(|sharing| (run, sharing)))
    }

    /// Shares all blocks, or `probe`s with one. If the file systems cannot do that the file is as empty as before.
    fn try_sharing(&self, run: &StoredRun, sharing: &Sharing, file: &PrivateFile, probe: bool) -> Result<bool> {
        let shared = if probe { sharing.probe(&run.file, file) } else { sharing.apply(&run.file, file) };
        let emptied = if shared.is_ok() && !probe { Ok(()) } else { file.file().set_len(0) };
        match shared.and(emptied) {
            Ok(()) => Ok(true),
            Err(error) if os::is_unsupported(&error) => Ok(false),
            Err(error) => Err(Error::Io { action: "share the blocks of the source for", path: "the output".into(), source: error }),
        }
    }

    /// The way to copy into an empty file: the one asked for, or the best that works.
    fn copying_method(&self, file: &PrivateFile, options: &Options) -> Result<Method> {
        match options.method {
            None => Ok(Method::to_copy_into(file)),
            Some(method) if method.works_for(file) => Ok(method),
            Some(method) => {
                let detail = match method {
                    Method::Clone => {
                        "that needs one contiguous run of bytes that are not decoded, at an offset to which a header can be fitted, \
                         and a file system that shares blocks between source and output"
                    }
                    _ => "the file system of the output does not know the calls for it",
                };
                Err(Error::Unsupported { what: format!("method {method} for this output"), detail: detail.into() })
            }
        }
    }

    /// Reads everything that was shared and compares the checksums, if that is wanted and there is one for it.
    fn check_shared(&self, run: &StoredRun, options: &Options) -> Result<Outcome> {
        let plan = self.plan(Memory::Buffers, options)?;
        let outcome = |verified| Outcome { method: Method::Clone, verified, peak_memory: plan.fixed_bytes };
        let is_covered = run.region.is_some_and(|region| self.reader.regions()[region].nbytes == self.spec.nbytes());
        if !options.verify || !is_covered {
            return Ok(outcome(Verified::Not));
        }
        let ledger = Ledger::new(self.reader.regions());
        let meter = Meter::new(&plan, options);
        crate::pool::run(
            plan.threads,
            &options.cancel,
            self.slices(&plan, self.runs(Method::Clone, options), Some(&ledger), &meter),
            || (self.context(&plan, Some(&ledger), options), vec![0; memory_len(plan.slice_bytes())]),
            |slice, (context, buffer)| {
                let len = slice.bytes.end - slice.bytes.start;
                self.reader.read(slice.elements, &mut buffer[..memory_len(len)], context)?;
                meter.add(len, 0);
                Ok(())
            },
        )?;
        Ok(outcome(ledger.verify()?))
    }

    fn copy_into(&self, file: &Arc<PrivateFile>, target: &Path, method: Method, options: &Options) -> Result<Outcome> {
        let plan = self.plan(method.memory(), options)?;
        let sink = Arc::new(NpySink::new(Arc::clone(file), target, self.descr, method, plan.window_bytes));
        self.reserve(&sink, &plan, method, options)?;
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let filler = if self.reader.fills_by_system_calls() { Filler::Kernel } else { Filler::Stores };
        let meter = Meter::new(&plan, options);
        let buffer_bytes = if method.memory() == Memory::Buffers { plan.slice_bytes() } else { 0 };
        let fill = |elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>| {
            self.reader.read(elements, out, context)?;
            self.decoder.apply(out);
            Ok(())
        };
        crate::pool::run(
            plan.threads,
            &options.cancel,
            self.slices(&plan, self.runs(method, options), ledger.as_ref(), &meter),
            || (self.context(&plan, ledger.as_ref(), options), vec![0; memory_len(buffer_bytes)]),
            |slice, (context, buffer)| {
                let len = slice.bytes.end - slice.bytes.start;
                if method.memory() == Memory::Windows {
                    let mut window = sink.window(slice.bytes, filler)?;
                    fill(slice.elements, &mut window, context).map_err(|error| sink.explain(error, len))?;
                    window.commit()?;
                } else {
                    let buffer = &mut buffer[..memory_len(len)];
                    fill(slice.elements, buffer, context)?;
                    sink.write(slice.bytes, buffer)?;
                }
                meter.add(len, sink.behind().held_and_peak().0);
                Ok(())
            },
        )?;
        let verified = ledger.map_or(Ok(Verified::Not), |ledger| ledger.verify())?;
        let behind = sink.finish(self.spec.shape(), self.spec.nbytes())?;
        Ok(Outcome { method, verified, peak_memory: plan.fixed_bytes + behind.held_and_peak().1 })
    }

    /// Bytes of the output that are not holes.
    pub(crate) fn data_bytes(&self, method: Method, options: &Options) -> Result<u64> {
        let elements = self.runs(method, options).data().try_fold(0, |sum, run| run.map(|run| sum + run.end - run.start))?;
        Ok(elements * self.spec.itemsize())
    }

    /// Takes the space for all that will be written.
    fn reserve(&self, sink: &NpySink, plan: &Plan, method: Method, options: &Options) -> Result<()> {
        let data = self.data_bytes(method, options)?;
        if data == self.spec.nbytes() {
            return sink.reserve(data);
        }
        sink.check_space(data + DATA_ALIGN as u64)?;
        sink.reserve_parts(self.spec.nbytes(), self.runs(method, options).data().map(|run| Ok(plan.bytes(&run?))))
    }

    /// The selected elements, as flat positions in the tensor.
    fn elements(&self) -> Range<u64> {
        let first = self.rows.start * self.reader.spec().row_elements();
        first..first + self.spec.elements()
    }

    fn runs<'b>(&'b self, method: Method, options: &'b Options) -> DataRuns<'b> {
        DataRuns::new(self.reader, self.elements(), method != Method::Portable, &options.cancel)
    }

    /// Hands out the slices that hold data, and notes the others as the zeros they are.
    fn slices<'b>(
        &'b self,
        plan: &'b Plan,
        mut runs: DataRuns<'b>,
        ledger: Option<&'b Ledger<'b>>,
        meter: &'b Meter<'b>,
    ) -> impl FnMut() -> Result<Option<Slice>> + Send + 'b {
        let mut data = plan.cut(0..0);
        move || {
            loop {
                if let Some(slice) = data.next() {
                    return Ok(Some(slice));
                }
                match runs.next_part()? {
                    Some(Part::Data(elements)) => data = plan.cut(elements),
                    Some(Part::Hole { region, in_region, .. }) => {
                        let len = in_region.end - in_region.start;
                        meter.add(len, 0);
                        if let (Some(ledger), Some(region)) = (ledger, region) {
                            ledger.record_zeros(region, in_region.start, len);
                        }
                    }
                    None => return Ok(None),
                }
            }
        }
    }

    /// Calls `check` with every slice's place in `array`, its decoded elements, and memory of the same length, in parallel
    /// and in any order. What is a hole on both sides is left out.
    pub(crate) fn for_each_decoded(
        &self,
        array: (&File, u64),
        options: &Options,
        check: impl Fn(Range<u64>, &[u8], &mut [u8]) -> Result<()> + Sync,
    ) -> Result<Verified> {
        let plan = self.plan(Memory::Windows, options)?;
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let meter = Meter::new(&plan, options);
        let buffer = || vec![0; memory_len(plan.slice_bytes())];
        let array = Array { file: array.0, data_offset: array.1, first: self.elements().start };
        let runs = DataRuns::new(self.reader, self.elements(), true, &options.cancel).beside(array);
        crate::pool::run(
            plan.threads,
            &options.cancel,
            self.slices(&plan, runs, ledger.as_ref(), &meter),
            || (self.context(&plan, ledger.as_ref(), options), buffer(), buffer()),
            |slice, (context, decoded, other)| {
                let len = memory_len(slice.bytes.end - slice.bytes.start);
                let decoded = &mut decoded[..len];
                self.reader.read(slice.elements, decoded, context)?;
                self.decoder.apply(decoded);
                check(slice.bytes, decoded, &mut other[..len])?;
                meter.add(len as u64, 0);
                Ok(())
            },
        )?;
        ledger.map_or(Ok(Verified::Not), |ledger| ledger.verify())
    }

    fn context<'b>(&self, plan: &Plan, ledger: Option<&'b Ledger<'b>>, options: &'b Options) -> ReadContext<'b> {
        ReadContext::new(plan.chunk_bytes, ledger, &options.cancel, options.calls())
    }

    pub(crate) fn report(&self, outcome: &Outcome, started: Instant) -> Report {
        Report {
            dtype: self.spec.dtype(),
            shape: self.spec.shape().to_vec(),
            nbytes: self.spec.nbytes(),
            elapsed: started.elapsed(),
            method: outcome.method,
            verified: outcome.verified,
            peak_memory: outcome.peak_memory,
        }
    }
}

/// Tells the caller how far a conversion is.
struct Meter<'a> {
    options: &'a Options,
    done: AtomicU64,
    plan: &'a Plan,
}

impl<'a> Meter<'a> {
    fn new(plan: &'a Plan, options: &'a Options) -> Self {
        Self { options, done: AtomicU64::new(0), plan }
    }

    /// `bytes` more are done; beside the fixed memory `held` bytes are in use.
    fn add(&self, bytes: u64, held: u64) {
        let done_bytes = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(report) = &self.options.progress {
            report(&Progress {
                done_bytes,
                total_bytes: self.plan.total_bytes(),
                memory_bytes: self.plan.fixed_bytes + held,
                memory_limit: self.plan.budget.as_bytes(),
            });
        }
    }
}

/// By what a file shows that it was written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(run: &StoredRun) -> io::Result<Self> {
        let metadata = run.file.metadata()?;
        Ok(Self { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// The directory that an output will lie in, or would if those between it and this one were made.
fn nearest_directory(output: &Path) -> Option<&Path> {
    output.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).find(|dir| dir.is_dir())
}

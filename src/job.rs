//! Source, plan, decode and sink joined: what is done to convert one tensor, by whatever method.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::convert::{Estimate, Report};
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::format::npy::{DATA_ALIGN, Header};
use crate::method::Method;
use crate::options::{Options, Progress};
use crate::os::Calls;
use crate::plan::{Memory, Plan, Resources};
use crate::rows::Rows;
use crate::runs::{Array, DataRuns, slices};
use crate::sink::{self, Filler, NpySink, PrivateFile, Sharing, Stamp};
use crate::source::{Ledger, ReadContext, StoredRun, TensorReader, Verified};
use crate::spec::{MAX_NDIM, TensorSpec, memory_len};

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

    /// What filling a file at `output` would take.
    pub(crate) fn estimate(&self, output: &Path, options: &Options) -> Result<Estimate> {
        let method = match nearest_directory(output).map(|dir| PrivateFile::unnamed(dir, options.calls())) {
            Some(Ok(file)) if self.can_share(&file, options)? => Method::Clone,
            Some(Ok(file)) => Method::to_copy(&file, options.method)?,
            // Where nothing can be tried: what can be done everywhere.
            _ => options.method.unwrap_or(Method::Portable),
        };
        let plan = self.plan(method.memory(), options)?;
        let data = self.data_bytes(options)?;
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
            let stamp = || Stamp::of(&run.file).map_err(Error::io("look at", &run.path));
            let before = stamp()?;
            if sharing.apply(&run.file, file).map_err(sink::write_error(
                file,
                target,
                "share the blocks of the source for",
                DATA_ALIGN as u64,
            ))? {
                let outcome = self.check_shared(&run, options)?;
                // What was checked is the source; what is shared is as it was at that moment.
                let after = stamp()?;
                if after != before {
                    let detail = format!("it was written to while it was being converted: it was {before}, and is {after}");
                    return Err(Error::malformed(&run.path, "source", detail));
                }
                let sink = NpySink::shared(Arc::clone(file), target, self.descr, sharing.data_start);
                Arc::new(sink).finish(self.spec.shape(), self.spec.nbytes())?;
                return Ok(outcome);
            }
        }
        self.copy_into(file, target, Method::to_copy(file, options.method)?, options)
    }

    /// Whether an output in the place of `file`, which is empty and stays so, would share the blocks of the source.
    pub(crate) fn can_share(&self, file: &PrivateFile, options: &Options) -> Result<bool> {
        match self.sharing(file, options)? {
            Some((run, sharing)) => sharing.probe(&run.file, file).map_err(Error::io("try to share blocks of", &run.path)),
            None => Ok(false),
        }
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

    /// Reads everything that was shared and compares the checksums, if that is wanted and there is one for it.
    fn check_shared(&self, run: &StoredRun, options: &Options) -> Result<Outcome> {
        let plan = self.plan(Memory::Scan, options)?;
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
            slices(&plan, self.runs(options), Some(&ledger), |bytes| meter.add(bytes, 0)),
            || (context(&plan, Some(&ledger), options), vec![0; memory_len(plan.slice_bytes())]),
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
        self.reserve(&sink, &plan, options)?;
        let ledger = options.verify.then(|| Ledger::new(self.reader.regions()));
        let filler = if self.reader.fills_by_system_calls() { Filler::Kernel } else { Filler::Stores };
        let meter = Meter::new(&plan, options);
        let buffer_bytes = if method.memory() == Memory::Buffers { plan.slice_bytes() } else { 0 };
        let read = |elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>| {
            self.reader.read(elements, out, context)?;
            self.decoder.apply(out);
            Ok(())
        };
        crate::pool::run(
            plan.threads,
            &options.cancel,
            slices(&plan, self.runs(options), ledger.as_ref(), |bytes| meter.add(bytes, 0)),
            || (context(&plan, ledger.as_ref(), options), vec![0; memory_len(buffer_bytes)]),
            |slice, (context, buffer)| {
                let len = slice.bytes.end - slice.bytes.start;
                if method.memory() == Memory::Windows {
                    let mut window = sink.window(slice.bytes, filler)?;
                    read(slice.elements, &mut window, context).map_err(|error| sink.explain(error, len))?;
                    window.commit()?;
                } else {
                    let buffer = &mut buffer[..memory_len(len)];
                    read(slice.elements, buffer, context)?;
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
    pub(crate) fn data_bytes(&self, options: &Options) -> Result<u64> {
        let elements = self.runs(options).data().try_fold(0, |sum, run| run.map(|run| sum + run.end - run.start))?;
        Ok(elements * self.spec.itemsize())
    }

    /// Takes the space for all that will be written.
    fn reserve(&self, sink: &NpySink, plan: &Plan, options: &Options) -> Result<()> {
        let data = self.data_bytes(options)?;
        if data == self.spec.nbytes() {
            return sink.reserve(data);
        }
        sink.check_space(data + DATA_ALIGN as u64)?;
        sink.reserve_parts(self.spec.nbytes(), self.runs(options).data().map(|run| Ok(plan.bytes(&run?))))
    }

    /// The selected elements, as flat positions in the tensor.
    fn elements(&self) -> Range<u64> {
        let first = self.rows.start * self.reader.spec().row_elements();
        first..first + self.spec.elements()
    }

    fn runs<'b>(&'b self, options: &'b Options) -> DataRuns<'b> {
        DataRuns::new(self.reader, self.elements(), options.calls() == Calls::Native, &options.cancel)
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
            slices(&plan, runs, ledger.as_ref(), |bytes| meter.add(bytes, 0)),
            || (context(&plan, ledger.as_ref(), options), buffer(), buffer()),
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

fn context<'a>(plan: &Plan, ledger: Option<&'a Ledger<'a>>, options: &'a Options) -> ReadContext<'a> {
    ReadContext::new(plan.chunk_bytes, ledger, &options.cancel, options.calls())
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

/// The directory that an output will lie in, or would if those between it and this one were made.
fn nearest_directory(output: &Path) -> Option<&Path> {
    output.ancestors().skip(1).map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).find(|dir| dir.is_dir())
}

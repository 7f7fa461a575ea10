//! Many small tensors into a directory: one worker makes each file in one buffer with one write, and all are synced together.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::job::Job;
use super::output::TensorOutputs;
use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::method::Method;
use crate::options::{Options, Progress};
use crate::os;
use crate::output::private_file::PrivateFile;
use crate::output::report::{Outcome, Report};
use crate::output::sink;
use crate::output::staging::dir::StagedDir;
use crate::plan::{Memory, Plan, Resources};
use crate::types::dtype::Dtype;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Dirty pages that a small file needs beside its own: its inode and its directory entry.
const FILE_RECORDS: u64 = 4096;

/// Most heap that the reader of one small tensor may hold beside what the plan gives it.
const READER_HEAP: usize = 128 << 10;
/// Files synced at the same time: a disk can serve several requests at once.
const MOST_SYNCING: usize = 16;
/// Shorter files are written through the page cache while the memory lasts, since an I/O each would cost more.
const MIN_UNCACHED: usize = 64 << 10;

/// The small tensors of an export.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    staged: &'a StagedDir,
    pub(crate) dir: &'a Path,
    pub(crate) rows: Option<Rows>,
    pub(crate) heap_bytes: u64,
    method: Option<Method>,
    plan: Plan,
    /// Whether a single sync covers all files.
    syncs_as_a_whole: bool,
    /// Bytes written since the last sync.
    dirty: Mutex<u64>,
    /// Bytes of pages left in the page cache.
    cached: AtomicU64,
}

impl<'a> Batch<'a> {
    /// # Errors
    /// [`Error::Limit`] when the memory does not suffice, [`Error::Unsupported`] for a method that is not available.
    pub(crate) fn new(staged: &'a StagedDir, dir: &'a Path, rows: Option<Rows>, heap_bytes: u64, options: &Options) -> Result<Self> {
        let syncs_as_a_whole = staged.syncs_as_a_whole();
        // Where every file needs a sync of its own, workers wait for that.
        let waiting = if syncs_as_a_whole { 0 } else { MOST_SYNCING };
        let threads = Memory::Windows.threads(options.threads).max(options.threads.map_or(waiting, |_| 0));
        let resources = Resources {
            budget: options.budget(),
            threads,
            heap_bytes: heap_bytes.saturating_add((threads * READER_HEAP) as u64),
            needs_scratch: true,
            raw_itemsize: Some(1),
            in_flight: options.in_flight,
        };
        // Plans as if all tensors were one array of unlimited length.
        let all = TensorSpec::new(Dtype::UInt8, vec![i64::MAX.unsigned_abs()]).map_err(Error::bad_request)?;
        let plan = Plan::new(&all, &(0..all.rows()), Memory::Buffers, &resources)?;
        let method = match (options.method, staged.trial_file()) {
            // These methods are for large arrays.
            (Some(Method::Clone | Method::Map), _) => None,
            (wanted, Some(file)) => Some(Method::to_copy(&file, wanted)?),
            (wanted, None) => Some(wanted.unwrap_or(Method::Portable)),
        };
        Ok(Self { staged, dir, rows, heap_bytes, method, plan, syncs_as_a_whole, dirty: Mutex::new(0), cached: AtomicU64::new(0) })
    }

    /// Whether an array counts as small. An array that changes its order takes the buffer twice.
    pub(crate) fn has_room_for(&self, nbytes: u64, changes_order: bool) -> bool {
        let times = if changes_order { 2 } else { 1 };
        self.method.is_some() && nbytes * times <= self.plan.slice_bytes() - DATA_ALIGN as u64
    }

    /// Makes the files of `outputs`; [`sync`](Self::sync) puts them on the disk. Returns for each a report, or why it was left
    /// out.
    pub(crate) fn convert(&self, outputs: &[&TensorOutputs<'_>], options: &Options) -> Result<Vec<Result<Report, String>>> {
        let reports: Vec<Mutex<Option<Result<Report, String>>>> = outputs.iter().map(|_| Mutex::new(None)).collect();
        let done = AtomicU64::new(0);
        let mut indices = 0..outputs.len();
        crate::os::workers::run(
            self.plan.shares.threads.min(outputs.len()),
            &options.cancel,
            || Ok(indices.next()),
            || vec![0; memory_len(self.plan.slice_bytes())],
            |index, buffer| {
                let report = outputs[index].or_left_out(self.convert_one(outputs[index], buffer, options))?;
                if let Ok(report) = &report {
                    let done_bytes = done.fetch_add(report.nbytes, Ordering::Relaxed) + report.nbytes;
                    if let Some(tell) = &options.progress {
                        let memory_limit = self.plan.shares.budget.as_bytes();
                        tell(&Progress { done_bytes, total_bytes: None, memory_bytes: report.peak_memory, memory_limit });
                    }
                }
                *reports[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                Ok(())
            },
        )?;
        Ok(reports.into_iter().filter_map(|report| report.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }

    fn convert_one(&self, output: &TensorOutputs<'_>, buffer: &mut [u8], options: &Options) -> Result<Report> {
        let started = Instant::now();
        let array = output.array(self.rows, options)?;
        let job = Job::new(&array, self.rows, self.heap_bytes, options)?;
        // The buffer has the layout of the file, the header right before the data.
        let end = DATA_ALIGN + memory_len(job.spec.nbytes());
        if end > buffer.len() {
            let detail = "the source was written to during the conversion: a tensor is larger now";
            return Err(Error::malformed(output.source_path(), "source", detail));
        }
        let (front, spare) = buffer.split_at_mut(end);
        let verified = job.read_whole(&mut front[DATA_ALIGN..], spare, &self.plan, options)?;
        let header = job.header.encode(job.header.data_start());
        let start = DATA_ALIGN - header.len();
        buffer[start..DATA_ALIGN].copy_from_slice(&header);
        let method = self.method.unwrap_or(Method::Portable);
        let file = self.staged.create_file(&output.file)?;
        self.write(&file, &buffer[start..end], method).map_err(sink::write_error(
            &file,
            &self.dir.join(&output.file),
            "write",
            (end - start) as u64,
        ))?;
        let peak_memory = self.plan.shares.fixed_bytes + self.count((end - start) as u64)?;
        Ok(job.report(&Outcome { method, verified, peak_memory }, started))
    }

    fn write(&self, file: &PrivateFile, bytes: &[u8], method: Method) -> std::io::Result<()> {
        let past_cache = method == Method::Uncached && !self.may_be_cached(bytes.len());
        match if past_cache { file.write_uncached_at(bytes, 0) } else { file.write_at(bytes, 0) } {
            Err(error) if os::is_unsupported(&error) => file.write_at(bytes, 0)?,
            result => result?,
        }
        if self.syncs_as_a_whole { Ok(()) } else { file.sync_all() }
    }

    /// Whether a file of this size may leave its pages in the page cache. All that do so fit the window together.
    fn may_be_cached(&self, len: usize) -> bool {
        let pages = (len as u64).next_multiple_of(FILE_RECORDS) + FILE_RECORDS;
        len < MIN_UNCACHED && self.cached.fetch_add(pages, Ordering::Relaxed) + pages <= self.plan.shares.window_bytes
    }

    /// Counts a written file, and syncs everything if too much is dirty. Returns the bytes that were dirty.
    fn count(&self, bytes: u64) -> Result<u64> {
        if !self.syncs_as_a_whole {
            return Ok(bytes);
        }
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        *dirty += bytes.next_multiple_of(FILE_RECORDS) + FILE_RECORDS;
        let peak = *dirty;
        // Each of the other workers may write a file meanwhile.
        if *dirty + self.plan.shares.threads as u64 * self.plan.slice_bytes() > self.plan.shares.window_bytes {
            self.staged.sync_files()?;
            *dirty = 0;
        }
        Ok(peak)
    }

    /// Makes all files survive a power cut. They have no final names yet.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if *dirty > 0 {
            self.staged.sync_files()?;
            *dirty = 0;
        }
        Ok(())
    }
}

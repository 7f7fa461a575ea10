//! Many small arrays: one worker makes each in one buffer with one write, and all are synced together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::destination::Destination;
use super::planned::{MadeOrLeftOut, PlannedArray};
use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::method::Method;
use crate::options::progress::Progress;
use crate::options::request::Request;
use crate::os;
use crate::output::private_file::PrivateFile;
use crate::output::report::{Outcome, Report};
use crate::output::sink;
use crate::plan::{Memory, Plan, Resources};
use crate::types::dtype::Dtype;
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

/// Makes small arrays.
pub(crate) struct Batch<'a> {
    pub(crate) request: &'a Request,
    method: Option<Method>,
    plan: Plan,
    /// Whether a single sync covers all arrays.
    syncs_as_a_whole: bool,
    /// Bytes written since the last sync.
    dirty: Mutex<u64>,
    /// Bytes of pages left in the page cache.
    cached: AtomicU64,
}

impl<'a> Batch<'a> {
    /// A batch for places in `destination`, which may still lack them.
    ///
    /// # Errors
    /// [`Error::Limit`] when the memory does not suffice, [`Error::Unsupported`] for a method that is not available.
    pub(crate) fn new(destination: &dyn Destination, request: &'a Request) -> Result<Self> {
        let run = &request.run;
        let syncs_as_a_whole = destination.syncs_as_a_whole();
        // Where every file needs a sync of its own, workers wait for that.
        let waiting = if syncs_as_a_whole { 0 } else { MOST_SYNCING };
        let threads = Memory::Windows.threads(run.threads).max(run.threads.map_or(waiting, |_| 0));
        let resources = Resources {
            heap_bytes: run.heap_bytes.saturating_add((threads * READER_HEAP) as u64),
            needs_scratch: true,
            raw_itemsize: Some(1),
            ..Resources::of(run, threads)
        };
        // Plans as if all arrays were one of unlimited length.
        let all = TensorSpec::new(Dtype::UInt8, vec![i64::MAX.unsigned_abs()])?;
        let plan = Plan::new(&all, &(0..all.rows()), Memory::Buffers, &resources)?;
        let method = destination.small_method(run)?;
        Ok(Self { request, method, plan, syncs_as_a_whole, dirty: Mutex::new(0), cached: AtomicU64::new(0) })
    }

    /// Whether an array counts as small. An array that changes its order takes the buffer twice.
    pub(crate) fn has_room_for(&self, nbytes: u64, changes_order: bool) -> bool {
        let times = if changes_order { 2 } else { 1 };
        self.method.is_some() && nbytes * times <= self.plan.slice_bytes() - DATA_ALIGN as u64
    }

    /// Makes the arrays with these numbers and writes them; [`sync`](Self::sync) puts them on the disk. Returns for each a report, or why it was left out.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub(crate) fn make(
        &self,
        planned: &[PlannedArray<'_>],
        numbers: &[usize],
        destination: &dyn Destination,
    ) -> Result<Vec<MadeOrLeftOut>> {
        let run = &self.request.run;
        let results: Vec<Mutex<Option<MadeOrLeftOut>>> = numbers.iter().map(|_| Mutex::new(None)).collect();
        let done = AtomicU64::new(0);
        let mut indices = 0..numbers.len();
        os::workers::run(
            self.plan.shares.threads.min(numbers.len()),
            &run.cancel,
            || Ok(indices.next()),
            || vec![0; memory_len(self.plan.slice_bytes())],
            |index, buffer| {
                let array = &planned[numbers[index]];
                let result = array.or_left_out(self.make_one(array, numbers[index], buffer, destination))?;
                if let Ok(report) = &result {
                    let done_bytes = done.fetch_add(report.nbytes, Ordering::Relaxed) + report.nbytes;
                    let memory_limit = self.plan.shares.budget.as_bytes();
                    run.progress.tell(&Progress { done_bytes, total_bytes: None, memory_bytes: report.peak_memory, memory_limit });
                }
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                Ok(())
            },
        )?;
        Ok(results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
    }

    fn make_one(&self, array: &PlannedArray<'_>, at: usize, buffer: &mut [u8], destination: &dyn Destination) -> Result<Report> {
        let started = Instant::now();
        let job = array.job(self.request)?;
        // The buffer has the layout of the file, the header right before the data.
        let end = DATA_ALIGN + memory_len(job.spec.nbytes());
        if end > buffer.len() {
            let detail = "the source was written to during the conversion: a tensor is larger now";
            return Err(Error::malformed(array.source_path(), "source", detail));
        }
        let (front, spare) = buffer.split_at_mut(end);
        let verified = job.read_whole(&mut front[DATA_ALIGN..], spare, &self.plan)?;
        let place = destination.open(at)?;
        let (start, offset) = if let Some(region) = place.region {
            (DATA_ALIGN, region.start)
        } else {
            let header = job.header.encode(job.header.data_start());
            let start = DATA_ALIGN - header.len();
            buffer[start..DATA_ALIGN].copy_from_slice(&header);
            (start, 0)
        };
        let (method, len) = (self.method.unwrap_or(Method::Portable), (end - start) as u64);
        let written = self.write(&place.file, &buffer[start..end], offset, method);
        written.map_err(sink::write_error(&place.file, place.path(), "write", len))?;
        let peak_memory = self.plan.shares.fixed_bytes + self.count(len, destination)?;
        Ok(array.completed(job.report(&Outcome { method, verified, peak_memory }, started)))
    }

    fn write(&self, file: &PrivateFile, bytes: &[u8], offset: u64, method: Method) -> std::io::Result<()> {
        let past_cache = method == Method::Uncached && !self.may_be_cached(bytes.len());
        match if past_cache { file.write_uncached_at(bytes, offset) } else { file.write_at(bytes, offset) } {
            Err(error) if os::is_unsupported(&error) => file.write_at(bytes, offset)?,
            result => result?,
        }
        if self.syncs_as_a_whole { Ok(()) } else { file.sync_all() }
    }

    /// Whether a file of this size may leave its pages in the page cache. All that do so fit the window together.
    fn may_be_cached(&self, len: usize) -> bool {
        let pages = (len as u64).next_multiple_of(FILE_RECORDS) + FILE_RECORDS;
        len < MIN_UNCACHED && self.cached.fetch_add(pages, Ordering::Relaxed) + pages <= self.plan.shares.window_bytes
    }

    /// Counts a written array, and syncs everything if too much is dirty. Returns the bytes that were dirty.
    fn count(&self, bytes: u64, destination: &dyn Destination) -> Result<u64> {
        if !self.syncs_as_a_whole {
            return Ok(bytes);
        }
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        *dirty += bytes.next_multiple_of(FILE_RECORDS) + FILE_RECORDS;
        let peak = *dirty;
        // Each of the other workers may write a file meanwhile.
        if *dirty + self.plan.shares.threads as u64 * self.plan.slice_bytes() > self.plan.shares.window_bytes {
            destination.sync()?;
            *dirty = 0;
        }
        Ok(peak)
    }

    /// Makes all arrays survive a power cut. They have no final names yet.
    pub(crate) fn sync(&self, destination: &dyn Destination) -> Result<()> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if *dirty > 0 {
            destination.sync()?;
            *dirty = 0;
        }
        Ok(())
    }
}

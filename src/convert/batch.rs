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
use crate::output::place::ArrayPlace;
use crate::output::report::{Outcome, Report};
use crate::output::sink;
use crate::plan::{Memory, PAGE_BYTES, Plan, Resources};
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Most heap that the reader of one small tensor may hold beside what the plan gives it.
const READER_HEAP: usize = 128 << 10;
/// Files synced at the same time: a disk can serve several requests at once.
const MOST_SYNCING: usize = 16;
/// Shorter files are written through the page cache while the memory lasts, since an I/O each would cost more.
const MIN_UNCACHED: u64 = 64 << 10;
/// The same for regions: past the page cache, the pages that they share would be read again.
const MIN_UNCACHED_REGION: u64 = 256 << 10;

/// Makes small arrays.
pub(crate) struct Batch<'a> {
    pub(crate) request: &'a Request,
    /// How, and with which memory; `None` where the memory or the method allows no batch.
    plan: Option<(Method, Plan)>,
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
    /// [`Error::Unsupported`] for a method that is not available.
    pub(crate) fn new(destination: &dyn Destination, request: &'a Request) -> Result<Self> {
        let run = &request.run;
        let syncs_as_a_whole = destination.syncs_as_a_whole();
        // Where every file needs a sync of its own, workers wait for that.
        let waiting = if syncs_as_a_whole { 0 } else { MOST_SYNCING };
        let threads = Memory::Windows.threads(run.threads).max(run.threads.map_or(waiting, |_| 0)).min(run.in_flight.unwrap_or(usize::MAX));
        // Plans as if all arrays were one of unlimited length.
        let all = TensorSpec::new(Dtype::UInt8, vec![i64::MAX.unsigned_abs()])?;
        let plan = |threads: usize| {
            let heap_bytes = run.heap_bytes.saturating_add((threads * READER_HEAP) as u64);
            let own = Resources { heap_bytes, needs_scratch: true, raw_itemsize: Some(1), in_flight: None, ..Resources::of(run, threads) };
            Plan::new(&all, &(0..all.rows()), Memory::Buffers, &own).ok()
        };
        let plan = destination.small_method(run)?.and_then(|method| Some((method, (1..=threads.max(1)).rev().find_map(plan)?)));
        Ok(Self { request, plan, syncs_as_a_whole, dirty: Mutex::new(0), cached: AtomicU64::new(0) })
    }

    /// Whether an array is small. One that changes its order takes the buffer twice. Holes would be written, so long ones are left to
    /// jobs.
    pub(crate) fn takes(&self, array: &PlannedArray<'_>) -> bool {
        let times = if array.changes_order { 2 } else { 1 };
        let has_room = |(_, plan): &(Method, Plan)| array.nbytes.saturating_mul(times) <= plan.slice_bytes() - DATA_ALIGN as u64;
        !array.is_sparse && self.plan.as_ref().is_some_and(has_room)
    }

    /// Makes the arrays with these numbers and writes them; [`sync`](Self::sync) puts them on the disk. Returns for each a report, or
    /// why it was left out.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub(crate) fn make(
        &self,
        planned: &[PlannedArray<'_>],
        numbers: &[usize],
        destination: &dyn Destination,
    ) -> Result<Vec<MadeOrLeftOut>> {
        let Some((method, plan)) = &self.plan else { return Ok(Vec::new()) };
        let run = &self.request.run;
        let threads = plan.shares.threads.min(numbers.len());
        let longest = numbers.iter().map(|&at| planned[at].nbytes).max().unwrap_or(0);
        // Each of the workers may write an array before the next sync.
        let most_dirty = plan.shares.window_bytes.saturating_sub(threads as u64 * pages_of(longest));
        let writer = SmallWriter { batch: self, method: *method, plan, most_dirty, destination };
        let results: Vec<Mutex<Option<MadeOrLeftOut>>> = numbers.iter().map(|_| Mutex::new(None)).collect();
        let done = AtomicU64::new(0);
        let mut indices = 0..numbers.len();
        os::workers::run(
            threads,
            &run.cancel,
            || Ok(indices.next()),
            || vec![0; memory_len(plan.slice_bytes())],
            |index, buffer| {
                let array = &planned[numbers[index]];
                let result = array.or_left_out(writer.make(array, numbers[index], buffer))?;
                if let Ok(report) = &result {
                    let done_bytes = done.fetch_add(report.nbytes, Ordering::Relaxed) + report.nbytes;
                    let memory_limit = plan.shares.budget.as_bytes();
                    run.progress.tell(&Progress { done_bytes, total_bytes: None, memory_bytes: report.peak_memory, memory_limit });
                }
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                Ok(())
            },
        )?;
        Ok(results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
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

/// Makes and writes one array after the other.
struct SmallWriter<'b> {
    batch: &'b Batch<'b>,
    method: Method,
    plan: &'b Plan,
    /// Most dirty bytes before the next sync.
    most_dirty: u64,
    destination: &'b dyn Destination,
}

impl SmallWriter<'_> {
    fn make(&self, array: &PlannedArray<'_>, at: usize, buffer: &mut [u8]) -> Result<Report> {
        let started = Instant::now();
        let job = array.job(self.batch.request)?;
        // The buffer has the layout of the file, the header right before the data.
        let end = DATA_ALIGN + memory_len(job.spec.nbytes());
        if end > buffer.len() {
            let detail = "the source was written to during the conversion: a tensor is larger now";
            return Err(Error::malformed(array.source_path(), "source", detail));
        }
        let (front, spare) = buffer.split_at_mut(end);
        let verified = job.read_whole(&mut front[DATA_ALIGN..], spare, self.plan)?;
        let place = self.destination.open(at)?;
        let start = if place.region.is_some() {
            DATA_ALIGN
        } else {
            let header = job.header.encode(job.header.data_start());
            buffer[DATA_ALIGN - header.len()..DATA_ALIGN].copy_from_slice(&header);
            DATA_ALIGN - header.len()
        };
        let len = (end - start) as u64;
        let written = self.write(&place, &buffer[start..end]);
        written.map_err(sink::write_error(&place.file, &place.path, "write", len))?;
        let peak_memory = self.plan.shares.fixed_bytes + self.count(&place, len)?;
        Ok(array.completed(job.report(&Outcome { method: self.method, verified, peak_memory }, started)))
    }

    fn write(&self, place: &ArrayPlace, bytes: &[u8]) -> std::io::Result<()> {
        let file = &place.file;
        let offset = place.region.map_or(0, |region| region.start);
        let past_cache = self.method == Method::Uncached && !self.may_be_cached(place, bytes.len() as u64);
        match (past_cache, place.region) {
            (false, _) => file.write_at(bytes, offset)?,
            (true, Some(_)) => file.write_pages_uncached(bytes, offset)?,
            (true, None) => match file.write_uncached_at(bytes, offset) {
                Err(error) if os::is_unsupported(&error) => file.write_at(bytes, offset)?,
                result => result?,
            },
        }
        if self.batch.syncs_as_a_whole { Ok(()) } else { file.sync_all() }
    }

    /// Whether an array is short enough for the page cache. Files leave their pages there, so all that do must fit the window
    /// together. Regions share pages with their neighbours; theirs are dropped after a sync.
    fn may_be_cached(&self, place: &ArrayPlace, len: u64) -> bool {
        let pages = pages_of(len);
        let cached = |pages| self.batch.cached.fetch_add(pages, Ordering::Relaxed) + pages;
        match place.region {
            Some(_) if len < MIN_UNCACHED_REGION => cached(pages) > 0,
            Some(_) => false,
            None => len < MIN_UNCACHED && cached(pages) <= self.plan.shares.window_bytes,
        }
    }

    /// Counts a written array, and syncs everything if too much is dirty. Returns the bytes that were dirty.
    fn count(&self, place: &ArrayPlace, bytes: u64) -> Result<u64> {
        if !self.batch.syncs_as_a_whole {
            return Ok(bytes);
        }
        let mut dirty = self.batch.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        *dirty += pages_of(bytes);
        let peak = *dirty;
        if *dirty > self.most_dirty {
            self.destination.sync()?;
            *dirty = 0;
            if place.region.is_some() && self.batch.cached.load(Ordering::Relaxed) > self.plan.shares.window_bytes / 2 {
                self.destination.drop_pages();
                self.batch.cached.store(0, Ordering::Relaxed);
            }
        }
        Ok(peak)
    }
}

/// Dirty pages of an array of so many bytes: its own, and one more for a file's inode and directory entry, or for a region that
/// starts within a page.
fn pages_of(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES
}

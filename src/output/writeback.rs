//! Keeps dirty output pages under a limit by writing slices to the disk as they are finished.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::private_file::PrivateFile;

/// Counts the output pages that are mapped or not on disk yet.
///
/// A slice counts from before it is mapped until it is on the disk and its pages are freed. A writer that would exceed the limit
/// waits for the oldest finished slice. Write-back of that slice started when it was finished, so in the steady state the wait is
/// only for the disk.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    limit: u64,
    /// Bytes of the limit that other memory takes.
    aside: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    /// Bytes of `held` in a window that stays open between calls: nobody may be about to finish it.
    idle: u64,
    peak: u64,
    finished: VecDeque<Finished>,
    /// Whether a thread syncs the whole file.
    is_syncing: bool,
}

#[derive(Debug)]
struct Finished {
    range: Range<u64>,
    /// The bytes that count, which may be fewer than the range.
    bytes: u64,
    /// Whether the kernel frees the pages itself once they are on the disk.
    uncached: bool,
}

impl WriteBehind {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, aside: AtomicU64::new(0), state: Mutex::default(), changed: Condvar::new() }
    }

    /// The most bytes that may be counted at once.
    pub(crate) fn limit(&self) -> u64 {
        self.limit - self.aside.load(Ordering::Relaxed)
    }

    /// Takes `bytes` from the limit for other memory, unless they are more than half of what is left. Returns whether it did.
    pub(crate) fn set_aside(&self, bytes: u64) -> bool {
        let more = |aside: u64| aside.checked_add(bytes).filter(|&aside| aside.checked_add(bytes).is_some_and(|used| used <= self.limit));
        self.aside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `bytes` more once there is room. `bytes` beyond the limit are admitted alone, or beside a window that stays open. Without `wait`, a thread that others
    /// may be waiting for is admitted at once.
    pub(crate) fn acquire(&self, file: &PrivateFile, bytes: u64, wait: bool) -> io::Result<()> {
        let mut state = self.lock();
        if !file.syncs_ranges() {
            state = self.sync_half(state, file)?;
        }
        while state.held > state.idle && state.held + bytes > self.limit() {
            if let Some(oldest) = state.finished.pop_front() {
                // If a wait covers the whole file, it covers all finished slices.
                let others = if file.syncs_ranges() { VecDeque::new() } else { std::mem::take(&mut state.finished) };
                drop(state);
                self.wait_for(file, others.iter().chain([&oldest]))?;
                state = self.lock();
            } else if !wait {
                break;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.held += bytes;
        state.peak = state.peak.max(state.held);
        Ok(())
    }

    /// Syncs what is finished once it is half of the limit, unless another thread does: the others fill the other half meanwhile. For files
    /// whose ranges cannot be synced one by one; nobody starts to write them before that.
    fn sync_half<'a>(&'a self, mut state: MutexGuard<'a, State>, file: &PrivateFile) -> io::Result<MutexGuard<'a, State>> {
        if state.is_syncing || state.finished.iter().map(|finished| finished.bytes).sum::<u64>() < self.limit() / 2 {
            return Ok(state);
        }
        state.is_syncing = true;
        let finished = std::mem::take(&mut state.finished);
        drop(state);
        let result = self.wait_for(file, finished.iter());
        let mut state = self.lock();
        state.is_syncing = false;
        result.map(|()| state)
    }

    /// Waits until these are on the disk, and frees their pages.
    fn wait_for<'f>(&self, file: &PrivateFile, finished: impl Iterator<Item = &'f Finished> + Clone) -> io::Result<()> {
        let span = finished.clone().map(|finished| finished.range.clone()).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let result = file.finish_writeback(&span.unwrap_or_default());
        let mut bytes = 0;
        for finished in finished {
            if !finished.uncached {
                file.drop_pages(&finished.range);
            }
            bytes += finished.bytes;
        }
        self.release(bytes);
        result
    }

    /// Releases the count of pages that are no longer dirty.
    pub(crate) fn release(&self, bytes: u64) {
        self.lock().held -= bytes;
        self.changed.notify_all();
    }

    /// Sets how many of the counted bytes are in a window that stays open.
    pub(crate) fn set_idle(&self, bytes: u64) {
        self.lock().idle = bytes;
        self.changed.notify_all();
    }

    /// Takes over an acquired range that is no longer mapped, and starts writing it.
    pub(crate) fn submit(&self, file: &PrivateFile, range: Range<u64>) -> io::Result<()> {
        let result = file.start_writeback(&range);
        let bytes = range.end - range.start;
        self.push(Finished { range, bytes, uncached: false });
        result
    }

    /// Takes over pages of `bytes` scattered over a range. They are only written when needed.
    pub(crate) fn submit_scattered(&self, range: Range<u64>, bytes: u64) {
        self.push(Finished { range, bytes, uncached: false });
    }

    /// As [`submit`](Self::submit), for a range that was written uncached and is already on its way.
    pub(crate) fn submit_uncached(&self, range: Range<u64>) {
        let bytes = range.end - range.start;
        self.push(Finished { range, bytes, uncached: true });
    }

    fn push(&self, finished: Finished) {
        self.lock().finished.push_back(finished);
        self.changed.notify_all();
    }

    /// Bytes counted now, and the most there ever were; those set aside are among both.
    pub(crate) fn held_and_peak(&self) -> (u64, u64) {
        let (state, aside) = (self.lock(), self.aside.load(Ordering::Relaxed));
        (state.held + aside, state.peak + aside)
    }
}

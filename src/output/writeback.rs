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
    peak: u64,
    finished: VecDeque<Finished>,
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

    /// Counts `bytes` more once there is room. `bytes` beyond the limit are admitted alone. Without `wait`, a thread that others
    /// may be waiting for is admitted at once.
    pub(crate) fn acquire(&self, file: &PrivateFile, bytes: u64, wait: bool) -> io::Result<()> {
        let mut state = self.lock();
        while state.held > 0 && state.held + bytes > self.limit() {
            if let Some(oldest) = state.finished.pop_front() {
                // If a wait covers the whole file, it covers all finished slices.
                let others = if file.syncs_ranges() { VecDeque::new() } else { std::mem::take(&mut state.finished) };
                drop(state);
                let result = file.finish_writeback(&oldest.range);
                if !oldest.uncached {
                    file.drop_pages(&oldest.range);
                }
                let written = others.iter().chain([&oldest]).map(|finished| finished.bytes);
                self.release(written.sum());
                result?;
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

    /// Releases the count of pages that are no longer dirty.
    pub(crate) fn release(&self, bytes: u64) {
        self.lock().held -= bytes;
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

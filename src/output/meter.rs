//! Reports the progress of a conversion to the caller.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::options::progress::Progress;
use crate::options::request::Run;
use crate::plan::MemoryShares;

/// Reports the progress of a conversion to the caller.
pub(crate) struct Meter<'a> {
    run: &'a Run,
    done: AtomicU64,
    shares: &'a MemoryShares,
    /// Total bytes of the output, if known.
    total_bytes: Option<u64>,
    /// Number of passes over all bytes.
    steps: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(shares: &'a MemoryShares, run: &'a Run) -> Self {
        Self { run, done: AtomicU64::new(0), shares, total_bytes: Some(shares.total_bytes), steps: 1 }
    }

    /// The same for a conversion that passes over all bytes `steps` times, of which `done` passes are complete.
    pub(crate) fn step(self, done: u64, steps: u64) -> Self {
        Self { done: AtomicU64::new(done.saturating_mul(self.shares.total_bytes)), steps, ..self }
    }

    /// The same with another total, or with an unknown one.
    pub(crate) fn of(self, total_bytes: Option<u64>) -> Self {
        Self { total_bytes, ..self }
    }

    /// Adds `bytes` of progress; `held` bytes are in use beside the fixed memory.
    pub(crate) fn add(&self, bytes: u64, held: u64) {
        let done_bytes = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.run.progress.tell(&Progress {
            done_bytes: done_bytes / self.steps,
            total_bytes: self.total_bytes,
            memory_bytes: self.shares.fixed_bytes + held,
            memory_limit: self.shares.budget.as_bytes(),
        });
    }
}

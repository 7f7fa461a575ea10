//! Tells the caller how far a conversion is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::options::{Options, Progress};
use crate::plan::MemoryShares;

/// Tells the caller how far a conversion is.
pub(crate) struct Meter<'a> {
    options: &'a Options,
    done: AtomicU64,
    shares: &'a MemoryShares,
    /// All bytes there will be, if that is known.
    total_bytes: Option<u64>,
    /// How many times all bytes are gone through.
    steps: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(shares: &'a MemoryShares, options: &'a Options) -> Self {
        Self { options, done: AtomicU64::new(0), shares, total_bytes: Some(shares.total_bytes), steps: 1 }
    }

    /// The same where all bytes are gone through in `steps`, of which so many are done.
    pub(crate) fn step(self, done: u64, steps: u64) -> Self {
        Self { done: AtomicU64::new(done.saturating_mul(self.shares.total_bytes)), steps, ..self }
    }

    /// The same for what will have so many bytes, or nobody knows how many.
    pub(crate) fn of(self, total_bytes: Option<u64>) -> Self {
        Self { total_bytes, ..self }
    }

    /// `bytes` more are done; beside the fixed memory `held` bytes are in use.
    pub(crate) fn add(&self, bytes: u64, held: u64) {
        let done_bytes = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(report) = &self.options.progress {
            report(&Progress {
                done_bytes: done_bytes / self.steps,
                total_bytes: self.total_bytes,
                memory_bytes: self.shares.fixed_bytes + held,
                memory_limit: self.shares.budget.as_bytes(),
            });
        }
    }
}

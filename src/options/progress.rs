//! Progress reports to the caller.

use std::sync::{Arc, Mutex, PoisonError};

/// The progress of a conversion.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress {
    /// Filled bytes of the output. If the source is first copied to a temporary file, that is half of the work.
    pub done_bytes: u64,
    /// Total bytes of the output; `None` if unknown until the source has been read.
    pub total_bytes: Option<u64>,
    /// Memory in use according to the plan: buffers, and output pages not yet on disk.
    pub memory_bytes: u64,
    /// The budget.
    pub memory_limit: u64,
}

pub(crate) type ProgressFn = dyn Fn(&Progress) + Send + Sync;

/// The caller's progress report, counted over all arrays of a conversion.
#[derive(Clone)]
pub(crate) struct Tally {
    report: Option<Arc<ProgressFn>>,
    before: Arc<Mutex<Option<Before>>>,
}

/// What was done before the array that is being made.
#[derive(Clone, Copy)]
struct Before {
    done_bytes: u64,
    /// The total of all arrays, if it is known.
    total_bytes: Option<u64>,
}

impl Tally {
    pub(crate) fn new(report: Option<&Arc<ProgressFn>>) -> Self {
        Self { report: report.cloned(), before: Arc::default() }
    }

    /// Counts what follows from `done_bytes` on, of a total that may be unknown.
    pub(crate) fn count_from(&self, done_bytes: u64, total_bytes: Option<u64>) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Before { done_bytes, total_bytes });
    }

    /// Tells the caller the progress of one array.
    pub(crate) fn tell(&self, progress: &Progress) {
        let Some(report) = &self.report else { return };
        let before = *self.before.lock().unwrap_or_else(PoisonError::into_inner);
        match before {
            Some(Before { done_bytes, total_bytes }) => {
                report(&Progress { done_bytes: done_bytes + progress.done_bytes, total_bytes, ..*progress });
            }
            None => report(progress),
        }
    }
}

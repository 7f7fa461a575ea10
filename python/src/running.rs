//! Runs work of the library without the GIL, and looks at signals and reports progress meanwhile.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mmconvert::{CancelToken, Options, Progress, Result};
use pyo3::prelude::*;

use crate::errors::raised;

/// Time between two looks at signals and progress.
const LOOK: Duration = Duration::from_millis(50);

/// As [`run_with`], with a token that nothing else uses.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Options) -> Result<T> + Send,
) -> PyResult<T> {
    run_with(py, &CancelToken::new(), options, progress, work)
}

/// Runs `work` with `options` in a thread of its own. A signal such as Ctrl-C, or an exception in `progress`, cancels it; the exception
/// is raised once the work has ended and left nothing behind.
///
/// `progress` is called in the caller's thread, with the bytes done and the total if it is known.
pub(crate) fn run_with<T: Send>(
    py: Python<'_>,
    cancel: &CancelToken,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Options) -> Result<T> + Send,
) -> PyResult<T> {
    let now: Arc<Mutex<Option<Progress>>> = Arc::default();
    let seen = Arc::clone(&now);
    let options = options.cancel(cancel.clone()).progress(move |progress| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Several workers report in any order.
        if seen.is_none_or(|before| before.done_bytes < progress.done_bytes) {
            *seen = Some(*progress);
        }
    });
    let report = |py: Python<'_>| {
        py.check_signals()?;
        let latest = now.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (latest, progress) {
            (Some(latest), Some(call)) => call.call1((latest.done_bytes, latest.total_bytes)).map(drop),
            _ => Ok(()),
        }
    };
    let mut raised_meanwhile = None;
    let result = std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let worker = scope.spawn(move || {
            let result = work(&options);
            // The receiver lives until the end of this scope.
            let _ = done.send(());
            result
        });
        let is_done = Mutex::new(is_done);
        loop {
            let waited = py.detach(|| is_done.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK));
            if waited != Err(RecvTimeoutError::Timeout) {
                break;
            }
            if raised_meanwhile.is_none()
                && let Err(exception) = report(py)
            {
                cancel.cancel();
                raised_meanwhile = Some(exception);
            }
        }
        py.detach(|| worker.join())
    });
    let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match (raised_meanwhile, result) {
        // Work that was complete before the signal is complete, but the signal is not lost.
        (Some(exception), _) => Err(exception),
        (None, Err(error)) => Err(raised(py, &error)),
        (None, Ok(value)) => {
            report(py)?;
            Ok(value)
        }
    }
}

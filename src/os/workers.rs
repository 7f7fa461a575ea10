//! Worker threads that process pieces of work in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::types::cancel::CancelToken;

/// Threads that are reused for several rounds of work; `None` if the caller's own thread is enough.
#[derive(Debug)]
pub(crate) struct Workers(Option<rayon::ThreadPool>);

/// Tells the other workers to stop if it is dropped during a panic.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `work` on everything that `next` returns, with new workers; see [`Workers::run`].
pub(crate) fn run<T, C>(
    threads: usize,
    cancel: &CancelToken,
    next: impl FnMut() -> Result<Option<T>> + Send,
    context: impl Fn() -> C + Sync,
    work: impl Fn(T, &mut C) -> Result<()> + Sync,
) -> Result<()> {
    Workers::new(threads).run(cancel, next, context, work)
}

impl Workers {
    /// Starts as many threads as the system allows, at most `threads`.
    pub(crate) fn new(mut threads: usize) -> Self {
        while threads > 1 {
            match rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("mmconvert-{i}")).build() {
                Ok(pool) => return Self(Some(pool)),
                Err(_) => threads /= 2,
            }
        }
        Self(None)
    }

    /// Runs `work` in parallel on everything that `next` returns. Every worker makes one `context` and keeps it.
    ///
    /// The error returned is that of the first failed piece in the order of `next`; the other workers stop at their next piece.
    /// They also stop after a panic, which is resumed in the caller once all have stopped.
    pub(crate) fn run<T, C>(
        &self,
        cancel: &CancelToken,
        next: impl FnMut() -> Result<Option<T>> + Send,
        context: impl Fn() -> C + Sync,
        work: impl Fn(T, &mut C) -> Result<()> + Sync,
    ) -> Result<()> {
        let queue = Mutex::new((0, next));
        let stop = AtomicBool::new(false);
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let take = || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            // Dropped before the lock, so that `next` is not called again after it panicked.
            let _stopper = StopOnPanic(&stop);
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            queue.0 += 1;
            Some((queue.0, (queue.1)()))
        };
        let worker = || {
            let _stopper = StopOnPanic(&stop);
            let mut context = context();
            while let Some((index, taken)) = take() {
                let result = match taken {
                    Ok(None) => break,
                    _ if cancel.is_cancelled() => Err(Error::Cancelled),
                    Ok(Some(piece)) => work(piece, &mut context),
                    Err(error) => Err(error),
                };
                if let Err(error) = result {
                    stop.store(true, Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                        *failure = Some((index, error));
                    }
                }
            }
        };
        match &self.0 {
            Some(pool) => {
                pool.broadcast(|_| worker());
            }
            None => worker(),
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU64;

    /// Panics without printing a message.
    fn panic_quietly() -> ! {
        std::panic::resume_unwind(Box::new("odd"))
    }

    #[test]
    fn a_panic_of_a_worker_stops_the_others_and_goes_on() {
        for threads in [1, 4] {
            for in_next in [false, true] {
                let calls = AtomicU64::new(0);
                let run = || {
                    // Never ends, so it returns only if all workers stop.
                    let next = || match calls.fetch_add(1, Ordering::Relaxed) {
                        10 if in_next => panic_quietly(),
                        piece => Ok(Some(piece)),
                    };
                    let work = |piece, (): &mut ()| if piece == 10 { panic_quietly() } else { Ok(()) };
                    super::run(threads, &CancelToken::new(), next, || (), work)
                };
                let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
                assert_eq!(payload.downcast_ref(), Some(&"odd"), "{threads} {in_next}");
                if in_next {
                    assert_eq!(calls.into_inner(), 11, "nobody asks again");
                }
            }
        }
    }

    #[test]
    fn a_context_that_panics_stops_the_others_too() {
        let made = AtomicU64::new(0);
        let context = || {
            if made.fetch_add(1, Ordering::Relaxed) == 1 {
                panic_quietly()
            }
        };
        let run = || super::run(4, &CancelToken::new(), || Ok(Some(())), context, |(), ()| Ok(()));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}

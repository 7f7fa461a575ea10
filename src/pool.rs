//! Workers that take pieces of work in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};

/// Threads that stay for several rounds of work; none when the caller's own thread is as good.
#[derive(Debug)]
pub(crate) struct Workers(Option<rayon::ThreadPool>);

/// Runs `work` on everything that `next` hands out, with workers of its own; see [`Workers::run`].
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
    /// As many threads as the system lets us have, at most `threads`.
    pub(crate) fn new(mut threads: usize) -> Self {
        while threads > 1 {
            match rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("mmconvert-{i}")).build() {
                Ok(pool) => return Self(Some(pool)),
                Err(_) => threads /= 2,
            }
        }
        Self(None)
    }

    /// Runs `work` on everything that `next` hands out, in parallel; every worker makes one `context` for itself and keeps it.
    ///
    /// The first piece in the order of `next` that fails decides the error; the others stop at their next one.
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
            queue.0 += 1;
            (queue.0, (queue.1)())
        };
        let worker = || {
            let mut context = context();
            while !stop.load(Ordering::Relaxed) {
                let (index, taken) = take();
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

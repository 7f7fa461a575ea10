//! Workers that take slices in the order of the file.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};
use crate::plan::{Plan, Slice};

/// Runs `work` on every slice of a plan, in parallel; every worker makes one `context` for itself and keeps it.
///
/// The first slice in file order that fails decides the error; the others stop at their next slice.
pub(crate) fn for_each_slice<C>(
    plan: &Plan,
    cancel: &CancelToken,
    context: impl Fn() -> C + Sync,
    work: impl Fn(&Slice, &mut C) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let worker = || {
        let mut context = context();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= plan.slices() {
                break;
            }
            let result = if cancel.is_cancelled() { Err(Error::Cancelled) } else { work(&plan.slice(index), &mut context) };
            if let Err(error) = result {
                stop.store(true, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                    *failure = Some((index, error));
                }
            }
        }
    };
    match pool(plan.threads) {
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

/// A pool of as many threads as the system lets us have; none when the caller's own thread is as good.
fn pool(mut threads: usize) -> Option<rayon::ThreadPool> {
    while threads > 1 {
        match rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("mmconvert-{i}")).build() {
            Ok(pool) => return Some(pool),
            Err(_) => threads /= 2,
        }
    }
    None
}

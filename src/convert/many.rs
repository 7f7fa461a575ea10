//! Makes planned arrays in their places: small ones together, large ones one after the other.

use std::time::Instant;

use super::batch::Batch;
use super::destination::Destination;
use super::exported::{Exported, Skipped};
use super::planned::{ArrayOrigin, MadeOrLeftOut, PlannedArray};
use crate::error::{Error, Result};
use crate::options::request::Request;
use crate::output::report::Report;

/// Makes all planned arrays in their places: those that were made before first, since that frees their space, then the small ones
/// together, then each large one with all workers. Progress counts from `done_bytes` on.
pub(crate) fn make(
    planned: &[PlannedArray<'_>],
    batch: &Batch<'_>,
    destination: &dyn Destination,
    (mut done_bytes, total_bytes): (u64, Option<u64>),
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<Exported>> {
    let run = &batch.request.run;
    let is_made = |at: usize| matches!(planned[at].origin, ArrayOrigin::Made(..));
    let is_small = |at: usize| batch.takes(&planned[at]);
    let mut order: Vec<usize> = (0..planned.len()).collect();
    order.sort_by_key(|&at| (!is_made(at), !is_small(at), destination.position(at)));
    let mut results: Vec<Option<MadeOrLeftOut>> = planned.iter().map(|_| None).collect();
    let mut rest = &order[..];
    while let Some((&at, others)) = rest.split_first() {
        run.progress.count_from(done_bytes, total_bytes);
        if !is_made(at) && is_small(at) {
            let (small, large) = rest.split_at(rest.partition_point(|&at| is_small(at)));
            for (&at, result) in small.iter().zip(batch.make(planned, small, destination)?) {
                done_bytes += planned[at].nbytes;
                results[at] = Some(result);
            }
            rest = large;
            continue;
        }
        let result = planned[at].or_left_out(make_one(&planned[at], at, batch.request, destination))?;
        if let ArrayOrigin::Made(path, _) = &planned[at].origin {
            std::fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        done_bytes += planned[at].nbytes;
        results[at] = Some(result);
        rest = others;
    }
    let mut outputs = Vec::with_capacity(planned.len());
    for (at, (array, result)) in planned.iter().zip(results).enumerate() {
        match result {
            Some(Ok(report)) => outputs.push(Exported { name: array.name.clone(), path: destination.path(at), report }),
            Some(Err(reason)) => skipped.push(Skipped { name: array.name.clone(), reason }),
            None => {}
        }
    }
    Ok(outputs)
}

/// Makes one array with all workers.
fn make_one(array: &PlannedArray<'_>, at: usize, request: &Request, destination: &dyn Destination) -> Result<Report> {
    let started = Instant::now();
    let job = array.job(request)?;
    let outcome = job.fill(&destination.open(at)?);
    if outcome.as_ref().is_err_and(|error| array.is_lossy(error)) {
        destination.give_up(at)?;
    }
    Ok(array.completed(job.report(&outcome?, started)))
}

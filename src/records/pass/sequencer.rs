//! Gives batches their turns, for rows whose place depends on earlier batches.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Adds up the counts of batches in order.
pub(crate) struct Sequencer {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The batch whose turn it is.
    next: u64,
    totals: Vec<u64>,
    /// The first batch that will never take its turn.
    broken: Option<u64>,
}

impl Sequencer {
    pub(crate) fn new(totals: usize) -> Self {
        Self { state: Mutex::new(State { next: 0, totals: vec![0; totals], broken: None }), changed: Condvar::new() }
    }

    pub(crate) fn totals(&self) -> Vec<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).totals.clone()
    }
}

/// The turn of a batch. Dropping it unused ends all batches that wait for it.
pub(crate) struct Turn<'a> {
    pub(crate) sequencer: &'a Sequencer,
    pub(crate) number: u64,
    pub(crate) taken: bool,
}

impl Turn<'_> {
    /// Waits for earlier batches, adds `counts`, and returns the totals before this batch.
    pub(crate) fn take(&mut self, counts: &[u64]) -> Result<Vec<u64>> {
        let mut state = self.sequencer.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.next != self.number && state.broken.is_none_or(|broken| broken > self.number) {
            state = self.sequencer.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.next != self.number {
            // The failed batch reports the cause.
            return Err(Error::Cancelled);
        }
        self.taken = true;
        state.next += 1;
        let before = state.totals.clone();
        state.totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        self.sequencer.changed.notify_all();
        Ok(before)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.taken {
            let mut state = self.sequencer.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.broken = Some(state.broken.map_or(self.number, |broken| broken.min(self.number)));
            drop(state);
            self.sequencer.changed.notify_all();
        }
    }
}

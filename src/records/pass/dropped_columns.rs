//! Columns that turn out not to fit an array during a pass: they drop out, and the other columns continue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use super::failure::Failure;
use crate::error::{Error, Result};

/// Marks a column that has not dropped out.
const NEVER: u64 = u64::MAX;

/// A column that dropped out of a pass.
#[derive(Debug)]
pub(crate) struct Dropout {
    pub(crate) column: usize,
    /// The first record that reveals it, counted among the selected records.
    pub(crate) record: u64,
    /// The number of that record's batch.
    pub(crate) batch: u64,
    /// Whether records were skipped because they lack the feature.
    pub(crate) has_lacked: bool,
    pub(crate) error: Error,
}

/// The columns that have dropped out so far. Each keeps the error of its first record, whichever worker reports first.
pub(crate) struct Dropouts {
    columns: Vec<Fate>,
    /// Whether columns may drop out: otherwise the first failure ends the pass.
    allowed: bool,
}

struct Fate {
    /// The first batch in which the column failed.
    batch: AtomicU64,
    dropout: Mutex<Option<Dropout>>,
    /// Whether its output has been given up. Writers to the output hold this for reading.
    is_out: RwLock<bool>,
    /// Whether records were skipped because they lack the feature.
    lacked: AtomicBool,
}

impl Dropouts {
    pub(crate) fn new(columns: usize, allowed: bool) -> Self {
        let fate =
            || Fate { batch: AtomicU64::new(NEVER), dropout: Mutex::default(), is_out: RwLock::default(), lacked: AtomicBool::new(false) };
        Self { columns: std::iter::repeat_with(fate).take(columns).collect(), allowed }
    }

    /// Whether `column` failed in a batch before number `batch`, so that no work is left for it.
    pub(crate) fn is_before(&self, column: usize, batch: u64) -> bool {
        self.columns[column].batch.load(Ordering::Relaxed) < batch
    }

    pub(crate) fn has(&self, column: usize) -> bool {
        self.is_before(column, NEVER)
    }

    /// Whether no column is left.
    pub(crate) fn are_all(&self) -> bool {
        (0..self.columns.len()).all(|column| self.has(column))
    }

    /// Notes that a record was skipped because it lacks `column`.
    pub(crate) fn note_lacking(&self, column: usize) {
        self.columns[column].lacked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_lacked(&self, column: usize) -> bool {
        self.columns[column].lacked.load(Ordering::Relaxed)
    }

    /// Lets the column of `failure` drop out, if it does not fit an array and columns may drop out. Calls `give_up` once, when no
    /// thread writes to the column's output any more.
    ///
    /// # Errors
    /// Returns the failure itself if it ends the pass.
    pub(crate) fn add(&self, failure: Failure, batch: u64, give_up: impl FnOnce()) -> Result<(), Failure> {
        let (Some(column), true, Error::Unsupported { .. } | Error::Lossy { .. }) = (failure.column, self.allowed, &failure.error) else {
            return Err(failure);
        };
        let (fate, record) = (&self.columns[column], failure.record);
        let mut dropout = fate.dropout.lock().unwrap_or_else(PoisonError::into_inner);
        if dropout.as_ref().is_none_or(|other| record < other.record) {
            *dropout = Some(Dropout { column, record, batch, has_lacked: false, error: failure.error });
        }
        fate.batch.fetch_min(batch, Ordering::Relaxed);
        drop(dropout);
        let mut is_out = fate.is_out.write().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut is_out, true) {
            give_up();
        }
        Ok(())
    }

    /// Writes to the output of `column`, unless it has been given up.
    pub(crate) fn put(&self, column: usize, put: impl FnOnce() -> Result<()>) -> Result<()> {
        let is_out = self.columns[column].is_out.read().unwrap_or_else(PoisonError::into_inner);
        if *is_out { Ok(()) } else { put() }
    }

    /// All dropouts, ordered by the record that revealed them.
    pub(crate) fn into_list(self) -> Vec<Dropout> {
        let dropout = |fate: Fate| {
            let dropout = fate.dropout.into_inner().unwrap_or_else(PoisonError::into_inner)?;
            Some(Dropout { has_lacked: fate.lacked.into_inner(), ..dropout })
        };
        let mut list: Vec<Dropout> = self.columns.into_iter().filter_map(dropout).collect();
        list.sort_by_key(|dropout| (dropout.record, dropout.column));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(column: usize, record: u64) -> Failure {
        Failure { column: Some(column), record, error: Error::Unsupported { what: "it".into(), detail: String::new() } }
    }

    #[test]
    fn the_first_record_decides_whoever_comes_first() {
        let dropouts = Dropouts::new(3, true);
        let mut given_up = 0;
        for (column, batch, record) in [(1, 7, 70), (1, 3, 31), (1, 5, 50), (0, 3, 30)] {
            assert!(dropouts.add(failure(column, record), batch, || given_up += 1).is_ok());
        }
        assert_eq!(given_up, 2, "once each");
        assert!(dropouts.is_before(1, 4) && !dropouts.is_before(1, 3) && dropouts.has(1) && !dropouts.has(2) && !dropouts.are_all());
        let mut written = Vec::new();
        for column in 0..3 {
            let put = dropouts.put(column, || {
                written.push(column);
                Ok(())
            });
            put.unwrap();
        }
        assert_eq!(written, [2]);
        let list: Vec<(usize, u64)> = dropouts.into_list().iter().map(|dropout| (dropout.column, dropout.record)).collect();
        assert_eq!(list, [(0, 30), (1, 31)]);
    }

    #[test]
    fn what_ends_a_pass_ends_it() {
        assert!(Dropouts::new(1, false).add(failure(0, 1), 0, || ()).is_err());
        let dropouts = Dropouts::new(1, true);
        assert!(dropouts.add(Failure { error: Error::Cancelled, ..failure(0, 1) }, 0, || ()).is_err());
        assert!(dropouts.add(Failure { column: None, ..failure(0, 1) }, 0, || ()).is_err());
        assert!(!dropouts.has(0));
    }
}

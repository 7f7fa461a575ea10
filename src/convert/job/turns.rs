//! Sources that must be read front to back: workers read in the order in which their work was handed out.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::types::cancel::CancelToken;

/// How often a waiting worker looks whether the run was cancelled: a cancelled worker never takes its turn.
const PATIENCE: Duration = Duration::from_millis(50);

/// The order in which workers read.
#[derive(Debug, Default)]
pub(crate) struct ReadOrder {
    next: Mutex<u64>,
    moved: Condvar,
}

/// The turn for one piece of work. Dropping it ends the turn.
#[derive(Debug)]
pub(crate) struct ReadTurn<'a> {
    /// `None` if workers may read at any time.
    turns: Option<&'a ReadOrder>,
    number: u64,
}

impl ReadOrder {
    /// Numbers the pieces that `next` hands out.
    pub(crate) fn numbered<T>(mut next: impl FnMut() -> Result<Option<T>> + Send) -> impl FnMut() -> Result<Option<(u64, T)>> + Send {
        let mut numbers = 0..;
        move || Ok(next()?.and_then(|piece| Some((numbers.next()?, piece))))
    }

    /// The turn for the piece with this number; its worker must drop it. Nobody waits unless turns are `needed`.
    pub(crate) fn of(&self, number: u64, needed: bool) -> ReadTurn<'_> {
        ReadTurn { turns: needed.then_some(self), number }
    }
}

impl ReadTurn<'_> {
    /// Waits until all turns with lower numbers are over.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub(crate) fn wait(&self, cancel: &CancelToken) -> Result<()> {
        let Some(turns) = self.turns else { return Ok(()) };
        let mut next = turns.next.lock().unwrap_or_else(PoisonError::into_inner);
        while *next < self.number {
            cancel.check()?;
            next = turns.moved.wait_timeout(next, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Drop for ReadTurn<'_> {
    fn drop(&mut self) {
        let Some(turns) = self.turns else { return };
        let mut next = turns.next.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that fails before its turn ends the whole run, so earlier turns no longer matter.
        *next = (*next).max(self.number + 1);
        drop(next);
        turns.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_read_in_the_order_of_their_work() {
        let (turns, cancel, read) = (ReadOrder::default(), CancelToken::new(), Mutex::new(Vec::new()));
        let mut numbers = 0..200;
        crate::os::workers::run(
            7,
            &cancel,
            ReadOrder::numbered(|| Ok(numbers.next())),
            || (),
            |(number, piece), ()| {
                let turn = turns.of(number, true);
                turn.wait(&cancel)?;
                read.lock().unwrap().push(piece);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(read.into_inner().unwrap(), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_waits_for_one_that_failed_or_was_cancelled() {
        let (turns, cancel) = (ReadOrder::default(), CancelToken::new());
        let mut numbers = 0..200;
        let failed = crate::os::workers::run(
            4,
            &cancel,
            ReadOrder::numbered(|| Ok(numbers.next())),
            || (),
            |(number, piece), ()| {
                let turn = turns.of(number, true);
                // Before its turn, and during it.
                if piece == 6 {
                    return Err(crate::BadRequest::Custom { detail: "six".into() }.into());
                }
                turn.wait(&cancel)?;
                if piece == 5 { Err(crate::BadRequest::Custom { detail: "five".into() }.into()) } else { Ok(()) }
            },
        );
        assert!(matches!(failed, Err(crate::Error::BadRequest(crate::BadRequest::Custom { .. }))));
        let turns = ReadOrder::default();
        cancel.cancel();
        assert!(turns.of(1, true).wait(&cancel).is_err());
        assert!(turns.of(1, false).wait(&cancel).is_ok());
    }
}

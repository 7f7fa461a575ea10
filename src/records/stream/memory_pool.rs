//! Memory for batches, up to a limit.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Memory for batches, up to a limit.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) limit: u64,
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct PoolState {
    held: u64,
    /// Returned buffers, for reuse.
    pub(crate) free: Vec<Vec<u8>>,
}

/// A share of a pool, returned when dropped.
#[derive(Debug)]
pub(crate) struct PoolShare {
    pub(crate) pool: Arc<Pool>,
    bytes: u64,
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.pool.lock().held -= self.bytes;
        self.pool.changed.notify_all();
    }
}

impl Pool {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), changed: Condvar::new() })
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` are free.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> PoolShare {
        let mut state = self.lock();
        while state.held > 0 && state.held + bytes > self.limit {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held += bytes;
        PoolShare { pool: Arc::clone(self), bytes }
    }

    /// Takes `bytes` if no more than `most` are then in use.
    pub(crate) fn hold_at_once(self: &Arc<Self>, bytes: u64, most: u64) -> Option<PoolShare> {
        let mut state = self.lock();
        if state.held + bytes > most.min(self.limit) {
            return None;
        }
        state.held += bytes;
        Some(PoolShare { pool: Arc::clone(self), bytes })
    }

    /// An empty buffer.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.lock().free.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }
}

//! Cancellation of running work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Lets a caller stop running work; cheap to clone and to share.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that has not been cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all work that holds this token to stop. It stops between two reads and leaves no files behind.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether both are clones of the same token.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The flag itself, for a signal handler.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Turns an error into [`Error::Cancelled`] if the caller has cancelled and the error is about the input: a library may
    /// report an interrupted read in its own words. Errors about outputs are returned unchanged.
    #[must_use]
    pub fn unless_cancelled(&self, error: Error) -> Error {
        match error {
            error @ (Error::Io { .. } | Error::NotUndone { .. } | Error::OutputExists { .. } | Error::Limit { .. }) => error,
            _ if self.is_cancelled() => Error::Cancelled,
            error => error,
        }
    }

    /// Fails if the token was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

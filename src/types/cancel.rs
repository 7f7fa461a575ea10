//! Stopping what is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Lets a caller stop what is running; cheap to clone and to share.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that has not been used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that holds this token to stop. It does so between two reads, and leaves nothing behind.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether both are clones of one token.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The flag itself, for a signal handler.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// What to tell of an error: that the caller has cancelled, if so and the error is about what was read. A library between a read that
    /// was stopped and here may have other words for that. What happens to outputs is told as it is.
    #[must_use]
    pub fn unless_cancelled(&self, error: Error) -> Error {
        match error {
            error @ (Error::Io { .. } | Error::NotUndone { .. } | Error::OutputExists { .. } | Error::Limit { .. }) => error,
            _ if self.is_cancelled() => Error::Cancelled,
            error => error,
        }
    }

    /// Fails once the token was used.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

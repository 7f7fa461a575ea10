//! Signals ask the work to stop and clean up. It does so within a read or a sync; SIGKILL and SIGQUIT end it at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mmconvert::{CancelToken, Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Lets signals cancel `token`.
pub(crate) fn cancel_on_signals(token: &CancelToken) -> Result<()> {
    let received = RECEIVED.get_or_init(Arc::default);
    let register = || {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_usize(signal, Arc::clone(received), signal.unsigned_abs() as usize)?;
            flag::register(signal, token.flag())?;
        }
        // Handled by doing nothing, a file that grows too long for its limit is an error value, not the end.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
    };
    register().map_err(|source| Error::Io { action: "handle signals for", path: "mmconvert".into(), source })
}

/// The number of the signal that came.
pub(crate) fn received() -> Option<u8> {
    RECEIVED.get().and_then(|signal| u8::try_from(signal.load(Ordering::Relaxed)).ok()).filter(|&signal| signal > 0)
}

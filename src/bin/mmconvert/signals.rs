//! Signals ask the work to stop and clean up, which takes at most one read or sync. A second signal, SIGKILL and SIGQUIT end it
//! at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(feature = "tensorflow")]
use std::time::{Duration, Instant};

use mmconvert::{CancelToken, Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

#[cfg(feature = "tensorflow")]
use crate::{args::ColorMode, render};

static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
/// The token of the running command.
static TOKEN: OnceLock<CancelToken> = OnceLock::new();

/// Lets signals cancel `token`. A second signal ends the program at once with exit code 128 plus its number. Hidden files left
/// behind are then removed by the next run for the same output.
pub(crate) fn cancel_on_signals(token: &CancelToken) -> Result<()> {
    TOKEN.get_or_init(|| token.clone());
    let received = RECEIVED.get_or_init(Arc::default);
    let register = || {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Registered first, so that only a second signal finds the flag that the first one sets.
            flag::register_conditional_shutdown(signal, 128 + signal, token.flag())?;
            flag::register_usize(signal, Arc::clone(received), signal.unsigned_abs() as usize)?;
            flag::register(signal, token.flag())?;
        }
        // With a handler that does nothing, exceeding the file size limit is an error value and does not end the program.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
    };
    register().map_err(|source| Error::Io { action: "handle signals for", path: "mmconvert".into(), source })
}

/// Ends the program if a signal came while TensorFlow is computing, which cannot be interrupted.
#[cfg(feature = "tensorflow")]
#[expect(unsafe_code, reason = "ends the process without destructors, because TensorFlow is still running")]
pub(crate) fn end_while_computing() {
    const PATIENCE: Duration = Duration::from_secs(2);
    const LOOK_UP: Duration = Duration::from_millis(100);
    std::thread::spawn(|| {
        let mut began: Option<Instant> = None;
        loop {
            std::thread::sleep(LOOK_UP);
            match received().filter(|_| mmconvert::tensorflow::is_computing()) {
                None => began = None,
                Some(signal) if began.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                    TOKEN.get().cloned().unwrap_or_default().abandon();
                    render::error(&Error::Cancelled, ColorMode::Never);
                    // SAFETY: none of our code runs any more, and partial outputs have been removed from the file system.
                    unsafe { libc::_exit(128 + i32::from(signal)) };
                }
                Some(_) => {}
            }
        }
    });
}

/// The number of the received signal.
pub(crate) fn received() -> Option<u8> {
    RECEIVED.get().and_then(|signal| u8::try_from(signal.load(Ordering::Relaxed)).ok()).filter(|&signal| signal > 0)
}

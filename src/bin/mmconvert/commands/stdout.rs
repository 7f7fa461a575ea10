//! Standard output for an array. Its reader may be slow.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use mmconvert::{CancelToken, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Writes to standard output as it accepts bytes. Cancelling does not have to wait for the reader.
pub(super) struct PatientStdout {
    out: File,
    /// How many bytes may be written without blocking once the pipe is ready.
    most: usize,
    cancel: CancelToken,
}

impl PatientStdout {
    /// # Errors
    /// Returns [`Error::Io`].
    pub(super) fn new(cancel: CancelToken) -> Result<Self> {
        let failed = |source| Error::Io { action: "open", path: "standard output".into(), source };
        let own = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
        let kind = own.metadata().map_err(failed)?.file_type();
        if !kind.is_fifo() && !kind.is_socket() {
            return Ok(Self { out: own, most: usize::MAX, cancel });
        }
        // Reopened so that writes do not block, without affecting other processes that share the pipe.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        Ok(match OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/1") {
            Ok(out) => Self { out, most: usize::MAX, cancel },
            // A pipe that is ready accepts a page.
            Err(_) => Self { out: own, most: 4096, cancel },
        })
    }
}

impl Write for PatientStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        while !self.cancel.is_cancelled() {
            let mut waiting = [PollFd::new(&self.out, PollFlags::OUT)];
            match rustix::event::poll(&mut waiting, Some(&LOOK_UP)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => match self.out.write(&bytes[..bytes.len().min(self.most)]) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    written => return written,
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(ErrorKind::ConnectionAborted.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

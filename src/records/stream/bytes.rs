//! Byte streams that are read from front to back: files and pipes.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::Error;
use crate::storage::blob::Blob;
use crate::types::cancel::CancelToken;
use crate::types::size::memory_len;

/// Reads the bytes of a file without decoding.
#[derive(Debug)]
pub(crate) struct FileBytes {
    file: Arc<dyn Blob>,
    at: u64,
}

impl FileBytes {
    /// The bytes from `start` on.
    pub(crate) fn new(file: &Arc<dyn Blob>, start: u64) -> Self {
        Self { file: Arc::clone(file), at: start.min(file.len()) }
    }

    /// Offset of the next byte in the file.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Number of bytes up to the end of the file.
    pub(super) fn left(&self) -> u64 {
        self.file.len() - self.at
    }
}

impl Read for FileBytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = memory_len(self.left()).min(buf.len());
        self.file.read(self.at, &mut buf[..len], self.file.calls()).map_err(io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}

/// Reads a pipe, and stops waiting when cancelled.
///
/// A named pipe opened without waiting has no end before a writer has opened it: until then it is not ready, so it is not read.
#[derive(Debug)]
pub(crate) struct InterruptiblePipe<R> {
    pipe: R,
    cancel: CancelToken,
}

impl<R: Read + AsFd> InterruptiblePipe<R> {
    pub(crate) fn new(pipe: R, cancel: &CancelToken) -> Self {
        Self { pipe, cancel: cancel.clone() }
    }
}

impl<R: Read + AsFd> Read for InterruptiblePipe<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        while !self.cancel.is_cancelled() {
            let mut waiting = [PollFd::new(&self.pipe, PollFlags::IN)];
            match rustix::event::poll(&mut waiting, Some(&LOOK_UP)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => match self.pipe.read(buf) {
                    // Another reader of the pipe was faster, or a signal came.
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    read => return read,
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(Error::Cancelled))
    }
}

/// Fills `buf` as far as there are bytes; returns how many, and the error that stopped reading, if any.
pub(crate) fn read_full(bytes: &mut (impl Read + ?Sized), buf: &mut [u8]) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while filled < buf.len() {
        match bytes.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

/// The error for a failed read: blames the file's content or the storage.
pub(crate) fn read_error(path: &Path, at: u64, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            Error::malformed_at(path, "contents", at, error.to_string())
        }
        _ => Error::io("read", path)(error),
    }
}

//! Files opened for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::os::SystemCalls;

/// A regular file opened for reading. Reads interrupted by a signal are retried until the caller cancels.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    file: Arc<File>,
    calls: SystemCalls,
}

impl InputFile {
    /// Which system calls are allowed.
    pub(crate) fn calls(&self) -> &SystemCalls {
        &self.calls
    }

    /// The file handle.
    pub(crate) fn shared(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Returns the errors of [`SystemCalls::read_exact_at`].
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.calls.read_exact_at(&self.file, buf, offset)
    }
}

#[cfg(test)]
impl From<File> for InputFile {
    fn from(file: File) -> Self {
        Self { file: Arc::new(file), calls: SystemCalls::default() }
    }
}

impl Deref for InputFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Read for InputFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.calls.repeat(|| (&*self.file).read(buf))
    }
}

/// Opens a regular file for reading. Never blocks: a named pipe or device at the path is refused.
///
/// # Errors
/// Returns the system's errors, and `InvalidInput` for anything but a regular file.
pub(crate) fn open_file(path: &Path, calls: &SystemCalls) -> io::Result<InputFile> {
    let file = match open_at_once(path) {
        // Another process has a lease on the file and has been told to release it, so wait.
        Err(error) if error.kind() == ErrorKind::WouldBlock && fs::metadata(path)?.is_file() => File::open(path)?,
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // Clears `O_NONBLOCK`: with it, reads of a file on tape or on another machine would fail instead of waiting.
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    Ok(InputFile { file: Arc::new(file), calls: calls.clone() })
}

/// Opens a path for reading without waiting for a writer. Reads of a pipe do not wait either.
///
/// # Errors
/// Returns the system's errors.
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open_file(dir.path(), &SystemCalls::default()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(open_file(Path::new("/dev/null"), &SystemCalls::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open_file(&dir.path().join("none"), &SystemCalls::default()).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(dir.path().join("a"), "one").unwrap();
        let file = open_file(&dir.path().join("a"), &SystemCalls::default()).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&*file).unwrap().contains(OFlags::NONBLOCK));
    }
}

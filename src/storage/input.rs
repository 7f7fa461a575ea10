//! Files that are open for reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, Range};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::os::Calls;
use crate::types::size::memory_len;

/// Reads a range of a file that may be at most `most` bytes long.
///
/// # Errors
/// [`Error::Limit`], [`Error::Io`].
pub(crate) fn read_range(file: &InputFile, path: &Path, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
    check_most(path, range, most)?;
    let mut bytes = vec![0; memory_len(range.end - range.start)];
    file.read_exact_at(&mut bytes, range.start).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// A regular file that is open for reading. Its reads are made again where signals interrupt them, until the caller cancels.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    file: Arc<File>,
    calls: Calls,
}

impl InputFile {
    /// Which calls may be made for it.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The file itself.
    pub(crate) fn shared(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Those of [`Calls::read_exact_at`].
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.calls.read_exact_at(&self.file, buf, offset)
    }
}

#[cfg(test)]
impl From<File> for InputFile {
    fn from(file: File) -> Self {
        Self { file: Arc::new(file), calls: Calls::default() }
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

/// Opens a regular file for reading. It waits for nobody: a named pipe or a device that lies at the path is refused.
///
/// # Errors
/// Those of the system, and invalid input for what is no regular file.
pub(crate) fn open_file(path: &Path, calls: &Calls) -> io::Result<InputFile> {
    let file = match open_at_once(path) {
        // Somebody has a lease on the file, and has been told to give it up.
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
    // Of a file that lies on a tape, or on another machine, reads would fail instead of waiting.
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    Ok(InputFile { file: Arc::new(file), calls: calls.clone() })
}

/// Opens what lies at a path for reading, without waiting for somebody who writes to it. Reads of a pipe do not wait either.
///
/// # Errors
/// Those of the system.
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Reads a file of metadata, whole. Those of the largest datasets have some hundred kilobytes.
///
/// # Errors
/// [`Error::Limit`] for one that is larger than such files are, [`Error::Io`].
pub(crate) fn read_small(path: &Path, calls: &Calls) -> Result<Vec<u8>> {
    const MOST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    open_file(path, calls).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MOST {
        let asked = fs::metadata(path).map_or(MOST + 1, |metadata| metadata.len());
        return Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(MOST) });
    }
    Ok(bytes)
}

pub(crate) fn check_most(path: &Path, range: &Range<u64>, most: u64) -> Result<()> {
    let asked = range.end - range.start;
    if asked > most {
        return Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(most) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open_file(dir.path(), &Calls::default()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(open_file(Path::new("/dev/null"), &Calls::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open_file(&dir.path().join("none"), &Calls::default()).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(dir.path().join("a"), "one").unwrap();
        let file = open_file(&dir.path().join("a"), &Calls::default()).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&*file).unwrap().contains(OFlags::NONBLOCK));
    }
}

//! Questions about paths and files that more than one module asks.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// The directory a path lies in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What lies at a path, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File,
    Directory,
    /// A pipe, a device, a socket.
    Other,
}

/// Looks at a path. Only what certainly is not there counts as nothing; a directory that may not be searched does not.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn look_at(path: &Path) -> Result<Found> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Found::File),
        Ok(metadata) if metadata.is_dir() => Ok(Found::Directory),
        Ok(_) => Ok(Found::Other),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename) => {
            Ok(Found::Nothing)
        }
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

/// Whether a regular file lies at a path.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    Ok(look_at(path)? == Found::File)
}

/// Opens a regular file for reading. It waits for nobody: a named pipe or a device that lies at the path is refused.
///
/// # Errors
/// Those of the system, and invalid input for what is no regular file.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
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
    Ok(file)
}

/// Opens what lies at a path for reading, without waiting for somebody who writes to it. Reads of a pipe do not wait either.
///
/// # Errors
/// Those of the system.
pub(crate) fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// What lies in a directory, sorted by name.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(Error::io("list", dir))?;
    entries.sort();
    Ok(entries)
}

/// Reads a file of metadata, whole. Those of the largest datasets have some hundred kilobytes.
///
/// # Errors
/// [`Error::Limit`] for one that is larger than such files are, [`Error::Io`].
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>> {
    const MOST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    open_file(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MOST {
        let asked = fs::metadata(path).map_or(MOST + 1, |metadata| metadata.len());
        return Err(Error::Limit { what: format!("memory for {}", path.display()), asked, allowed: Some(MOST) });
    }
    Ok(bytes)
}

/// By what a file shows that it was written to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl Stamp {
    /// Fails if the file at `path` does not show this any more.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let now = Self::of(file).map_err(Error::io("look at", path))?;
        if now == *self {
            return Ok(());
        }
        let detail = format!("it was written to while it was being converted: it was {self}, and is {now}");
        Err(Error::malformed(path, "source", detail))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64());
        write!(f, "{} bytes, modified {seconds:.3} s after 1970", self.len)
    }
}

//! Questions about paths and files that more than one module asks.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::os::{self, Calls};

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

/// By what a file shows that it is another one, or that it was written to.
///
/// The time of the last change (ctime) is the only one that nobody can set, so a write whose time of modification was put back is told by
/// it. A new name, owner or mode changes it too: what of these it was cannot be told, so all of them count. Nothing that is done to a
/// source here changes it, sharing its blocks (`FICLONERANGE`) included. The time of the last access does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Nothing where the file system gives a file other numbers when it is opened again.
    identity: Option<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds after 1970.
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let identity = os::keeps_inodes(file).then(|| Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
        Ok(Self { len: metadata.len(), modified: metadata.modified().ok(), identity })
    }

    /// Fails if the file at `path` does not show this any more.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let now = Self::of(file).map_err(Error::io("look at", path))?;
        match self.difference(&now) {
            None => Ok(()),
            Some(detail) => Err(Error::malformed(path, "source", detail)),
        }
    }

    /// What happened to a file that shows something else now.
    fn difference(&self, now: &Self) -> Option<String> {
        let number = |stamp: &Self| stamp.identity.map(|identity| (identity.device, identity.inode));
        if now == self {
            None
        } else if number(self) != number(now) {
            Some(format!("it was replaced by another file while it was being converted: it was {self}, and is {now}"))
        } else if (self.len, self.modified) != (now.len, now.modified) {
            Some(format!("it was written to while it was being converted: it was {self}, and is {now}"))
        } else {
            let detail = "it was written to while it was being converted and its time of modification put back, or it got another name, \
                          owner or mode: its time of change (ctime) is another one. Convert it again";
            Some(detail.into())
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64());
        write!(f, "{} bytes, modified {seconds:.3} s after 1970", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_known_again_whatever_its_times_say() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let write = |path: &Path, bytes: &str| {
            fs::write(path, bytes).unwrap();
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        };
        let check = |stamp: &Stamp| stamp.check(&File::open(&path).unwrap(), &path).map_err(|error| error.to_string());
        // Times of change have the grain of the system's clock.
        let later = || std::thread::sleep(std::time::Duration::from_millis(20));
        write(&path, "one");
        let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap();
        later();
        fs::read(&path).unwrap();
        assert_eq!(check(&stamp), Ok(()), "it was only read");
        write(&other, "two");
        fs::rename(&other, &path).unwrap();
        assert!(check(&stamp).unwrap_err().contains("replaced by another file"));
        let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap();
        later();
        write(&path, "six");
        assert!(check(&stamp).unwrap_err().contains("time of modification put back"));
        let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap();
        later();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(check(&stamp).unwrap_err().contains("owner or mode"));
        let stamp = Stamp::of(&File::open(&path).unwrap()).unwrap();
        write(&path, "seven");
        assert!(check(&stamp).unwrap_err().contains("5 bytes"));
    }

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

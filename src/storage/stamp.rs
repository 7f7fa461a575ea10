//! Detects that a file was replaced or modified while it was read.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;
use std::{fmt, io};

use crate::error::{Error, Result};
use crate::os;

/// The properties of a file that show that it was replaced or modified.
///
/// Only the time of the last change (ctime) cannot be set, so it reveals a write after which the modification time was put back.
/// A new name, owner or mode also changes it and cannot be told apart, so all of them count. Nothing we do to a source changes
/// it, including sharing its blocks (`FICLONERANGE`). The access time does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// `None` where the file system gives a file a new inode number each time it is opened.
    identity: Option<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
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

    /// Fails if the file at `path` has changed.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] or [`Error::Io`].
    pub(crate) fn check(&self, file: &File, path: &Path) -> Result<()> {
        let now = Self::of(file).map_err(Error::io("look at", path))?;
        match self.difference(&now) {
            None => Ok(()),
            Some(detail) => Err(Error::malformed(path, "source", detail)),
        }
    }

    /// Describes what happened to the file, if anything.
    fn difference(&self, now: &Self) -> Option<String> {
        let number = |stamp: &Self| stamp.identity.map(|identity| (identity.device, identity.inode));
        if now == self {
            None
        } else if number(self) != number(now) {
            Some(format!("it was replaced by another file during the conversion: it was {self}, now it is {now}"))
        } else if (self.len, self.modified) != (now.len, now.modified) {
            Some(format!("it was written to during the conversion: it was {self}, now it is {now}"))
        } else {
            let detail = "it was written to during the conversion and its time of modification put back, or it got another name, \
                          owner or mode: its time of change (ctime) differs. Convert it again";
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
    use std::fs;
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
        // Change times have the granularity of the system clock.
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
}

//! Final names: which paths may become outputs, and which may not be replaced.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::request::Existing;
use crate::os;
use crate::storage::paths::{Found, look_at, parent_of};

/// Hint for a name taken by a dangling link.
pub(crate) const DANGLING: &str = "it is a symbolic link whose target does not exist: remove it, or create the target";
/// The number of links that Linux follows.
const MOST_LINKS: usize = 40;

/// Resolves links; refuses anything that must not or cannot be replaced.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::Io`].
pub(crate) fn check_target(target: &Path, existing: Existing) -> Result<PathBuf> {
    if target.file_name().is_none() {
        return Err(BadRequest::NotAFileName { path: target.to_owned() }.into());
    }
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target.to_owned()),
        Err(error) => Err(Error::io("look at", target)(error)),
        Ok(_) if existing == Existing::Keep => {
            let hint = match look_at(target)? {
                Found::Nothing => DANGLING,
                Found::File => "`overwrite` replaces it",
                Found::Directory => "it is a directory",
                Found::Other => "it is not a regular file; standard output is -",
            };
            Err(Error::OutputExists { path: target.to_owned(), hint })
        }
        Ok(metadata) if metadata.is_symlink() => {
            if let Some(link) = foreign_link(target)? {
                // Its owner may have chosen its target, so the link itself is replaced.
                check_rights(&link)?;
                return Ok(link);
            }
            if look_at(target)? == Found::Nothing {
                return Err(Error::OutputExists { path: target.to_owned(), hint: DANGLING });
            }
            let resolved = fs::canonicalize(target).map_err(Error::io("follow the link", target))?;
            check_replaceable(&resolved)?;
            Ok(resolved)
        }
        Ok(_) => {
            check_replaceable(target)?;
            Ok(target.to_owned())
        }
    }
}

pub(crate) fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// The first link from `target` on that an `open` with `O_CREAT` would refuse to follow: another user's link in a directory where
/// everybody may make files.
///
/// Source: `may_follow_link` of Linux (`fs.protected_symlinks` in `proc_sys_fs(5)`), whether that is switched on or not.
fn foreign_link(target: &Path) -> Result<Option<PathBuf>> {
    let mut at = target.to_owned();
    for _ in 0..MOST_LINKS {
        let metadata = match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_symlink() => metadata,
            _ => return Ok(None),
        };
        let dir = fs::metadata(parent_of(&at)).map_err(Error::io("look at", parent_of(&at)))?;
        let is_shared = is_sticky(&dir) && dir.mode() & 0o002 != 0;
        if is_shared && metadata.uid() != rustix::process::geteuid().as_raw() && metadata.uid() != dir.uid() {
            return Ok(Some(at));
        }
        let to = fs::read_link(&at).map_err(Error::io("follow the link", &at))?;
        at = parent_of(&at).join(to);
    }
    Ok(None)
}

fn is_sticky(dir: &Metadata) -> bool {
    dir.mode() & 0o1000 != 0
}

/// Refuses anything but a regular file, and files that the system would refuse to replace once everything is written.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn check_replaceable(target: &Path) -> Result<()> {
    match look_at(target)? {
        Found::Nothing if is_link(target) => Err(Error::OutputExists { path: target.to_owned(), hint: DANGLING }),
        Found::Nothing => Ok(()),
        Found::File => check_rights(target),
        Found::Directory | Found::Other => Err(refused(target, "it is not a regular file; standard output is -")),
    }
}

fn refused(target: &Path, why: impl Into<String>) -> Error {
    Error::Io { action: "replace", path: target.to_owned(), source: io::Error::new(io::ErrorKind::PermissionDenied, why.into()) }
}

/// Refuses files that a rename may not replace: see `rename(2)`, EBUSY and EPERM.
fn check_rights(target: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(target) else { return Ok(()) };
    let dir_path = parent_of(target);
    let dir = fs::metadata(dir_path).map_err(Error::io("look at", dir_path))?;
    let user = rustix::process::geteuid();
    if is_sticky(&dir) && !user.is_root() && metadata.uid() != user.as_raw() && dir.uid() != user.as_raw() {
        return Err(refused(target, "it belongs to another user, in a directory where only its owner may replace it (sticky)"));
    }
    let attributes = os::attributes(target);
    if attributes.is_fixed {
        return Err(refused(target, "it is immutable or append-only: chattr -i -a makes it replaceable"));
    }
    if attributes.is_mount_point {
        return Err(refused(target, "something is mounted on it"));
    }
    if os::attributes(dir_path).is_fixed {
        let what = "is immutable or append-only, so its files cannot be replaced: chattr -i -a lifts that";
        return Err(refused(target, format!("its directory {} {what}", dir_path.display())));
    }
    Ok(())
}

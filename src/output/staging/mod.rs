//! Unfinished files and directories, and how they get their final names.
//!
//! A file is made without a name (`O_TMPFILE`) if the file system can do that: whatever happens to the process, the kernel removes
//! it. Elsewhere it has a hidden name beside its final one; directories always do. What a killed process left under a hidden name
//! is removed by the next run for the same output.
//!
//! - `target`: which paths may become outputs, and which may not be replaced.
//! - `hidden`: hidden names, their locks, and the sweep.
//! - `file`, `dir`: an unfinished file and an unfinished directory.
//! - `moves`: gives names, one or several together, and undoes that.
//! - `notices`: problems that leave the outputs correct.

pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod hidden;
pub(crate) mod moves;
pub(crate) mod notices;
pub(crate) mod target;

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::os;

use notices::Notice;

/// An open directory, to be synced later.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io_in("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Makes the names in it outlive a power cut; adds a notice if the file system cannot do that.
    fn sync(&self) -> Result<()> {
        Self::sync_open(&self.file, &self.path, "sync the directory of the output, which is in its place,")
    }

    fn sync_open(file: &File, path: &Path, action: &'static str) -> Result<()> {
        match os::sync_all(file) {
            Err(error) if cannot_sync(&error) => {
                notices::tell(Notice::NotSynced { path: path.to_owned(), detail: error.to_string() });
                Ok(())
            }
            result => result.map_err(Error::io(action, path)),
        }
    }
}

/// Whether a file system reports that directories cannot be synced: see `fsync(2)`, EINVAL and EBADF.
fn cannot_sync(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) || Errno::from_io_error(error) == Some(Errno::BADF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::request::Existing;
    use crate::os::SystemCalls;
    use crate::output::staging::dir::StagedDir;
    use crate::output::staging::file::StagedFile;
    use crate::output::staging::target::check_target;
    use crate::types::cancel::CancelToken;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Ways of making and naming a file: unnamed at first, hidden at first, and with portable calls only.
    const WAYS: usize = 3;

    fn staged(way: usize, target: &Path, existing: Existing) -> StagedFile {
        match way {
            0 => StagedFile::create(target, existing, &SystemCalls::default()).unwrap(),
            1 => StagedFile::create_named(check_target(target, existing).unwrap(), existing, &SystemCalls::default()).unwrap(),
            _ => StagedFile::create(target, existing, &SystemCalls::standard(&CancelToken::new())).unwrap(),
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for way in 0..WAYS {
            let staged = staged(way, &dir.path().join("out.npy"), Existing::Keep);
            staged.file().file().write_all(b"half").unwrap();
            drop(staged);
            assert!(names(dir.path()).is_empty());
        }
    }

    #[test]
    fn a_published_file_has_its_name_and_no_other() {
        for way in 0..WAYS {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            for (content, existing) in [("one", Existing::Keep), ("two", Existing::Replace)] {
                let staged = staged(way, &target, existing);
                staged.file().file().write_all(content.as_bytes()).unwrap();
                staged.publish().unwrap();
                assert_eq!(fs::read_to_string(&target).unwrap(), content);
                assert_eq!(names(dir.path()), ["out.npy"]);
            }
        }
    }

    #[test]
    fn a_name_taken_meanwhile_is_kept() {
        for way in 0..WAYS {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out.npy");
            let staged = staged(way, &target, Existing::Keep);
            fs::write(&target, "theirs").unwrap();
            assert!(matches!(staged.publish(), Err(Error::OutputExists { .. })));
            assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
            assert_eq!(names(dir.path()), ["out.npy"]);
        }
    }

    #[test]
    fn only_regular_files_are_replaced_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.npy");
        let alias = dir.path().join("alias.npy");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("real.npy", &alias).unwrap();
        assert!(matches!(StagedFile::create(&alias, Existing::Keep, &SystemCalls::default()), Err(Error::OutputExists { .. })));
        let staged = StagedFile::create(&alias, Existing::Replace, &SystemCalls::default()).unwrap();
        staged.file().file().write_all(b"new").unwrap();
        staged.publish().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600, "a private file stays private");
        assert!(fs::symlink_metadata(&alias).unwrap().is_symlink());
        for bad in [dir.path(), Path::new("/dev/null")] {
            assert!(matches!(StagedFile::create(bad, Existing::Replace, &SystemCalls::default()), Err(Error::Io { .. })));
        }
        assert!(matches!(
            StagedFile::create(&dir.path().join("no/out.npy"), Existing::Keep, &SystemCalls::default()),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn a_new_directory_appears_whole_or_not_at_all() {
        for calls in [SystemCalls::default(), SystemCalls::standard(&CancelToken::new())] {
            check_a_new_directory(&calls);
        }
    }

    fn check_a_new_directory(calls: &SystemCalls) {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let stage = |existing| {
            let staged = StagedDir::create(&target, existing, calls)?;
            staged.create_file("a.npy")?.file().write_all(b"a").unwrap();
            Ok::<_, Error>(staged)
        };
        drop(stage(Existing::Keep).unwrap());
        assert!(names(dir.path()).is_empty());
        let (first, second) = (stage(Existing::Keep).unwrap(), stage(Existing::Keep).unwrap());
        assert!(!target.exists());
        first.publish().unwrap();
        assert!(matches!(second.publish(), Err(Error::OutputExists { .. })));
        assert_eq!((names(dir.path()), names(&target)), (vec!["out".to_owned()], vec!["a.npy".to_owned()]));
        assert!(matches!(stage(Existing::Keep), Err(Error::OutputExists { .. })), "it is not empty");
    }

    #[test]
    fn an_existing_directory_keeps_its_place_and_what_else_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir(&target).unwrap();
        let inode = fs::metadata(&target).unwrap().ino();
        for (existing, content, calls) in [
            (Existing::Keep, "one", SystemCalls::default()),
            (Existing::Replace, "two", SystemCalls::default()),
            (Existing::Replace, "three", SystemCalls::standard(&CancelToken::new())),
        ] {
            let staged = StagedDir::create(&target, existing, &calls).unwrap();
            staged.create_file("a.npy").unwrap().file().write_all(content.as_bytes()).unwrap();
            staged.publish().unwrap();
            assert_eq!(fs::read_to_string(target.join("a.npy")).unwrap(), content);
            fs::write(target.join("mine.txt"), "mine").unwrap();
            let dropped = StagedDir::create(&target, Existing::Replace, &SystemCalls::default()).unwrap();
            dropped.create_file("a.npy").unwrap().file().write_all(b"never").unwrap();
            drop(dropped);
            assert_eq!(names(&target), ["a.npy", "mine.txt"]);
            assert_eq!(fs::read_to_string(target.join("a.npy")).unwrap(), content);
        }
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode);
        fs::create_dir(target.join("d.npy")).unwrap();
        assert!(StagedDir::create(&target, Existing::Replace, &SystemCalls::default()).unwrap().check_replaceable("d.npy").is_err());
    }

    #[test]
    fn what_a_killed_run_left_beside_a_directory_is_swept_when_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let left = dir.path().join(".out.0.mmconvert-tmp");
        for path in [&target, &left] {
            fs::create_dir(path).unwrap();
        }
        File::open(&left).unwrap().set_modified(std::time::SystemTime::now() - std::time::Duration::from_mins(1)).unwrap();
        drop(StagedDir::create(&target, Existing::Replace, &SystemCalls::default()).unwrap());
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_name_that_cannot_be_given_takes_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.npy"), "old").unwrap();
        fs::set_permissions(dir.path().join("a.npy"), fs::Permissions::from_mode(0o4600)).unwrap();
        let staged = StagedDir::create(dir.path(), Existing::Replace, &SystemCalls::default()).unwrap();
        for name in ["a.npy", "b.npy", "c.npy", "d.npy"] {
            staged.create_file(name).unwrap().file().write_all(b"new").unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&staged.hidden_path().join("a.npy")), 0o600);
        fs::create_dir(dir.path().join("c.npy")).unwrap();
        assert!(staged.publish().is_err());
        assert_eq!(names(dir.path()), ["a.npy", "c.npy"]);
        assert_eq!(fs::read_to_string(dir.path().join("a.npy")).unwrap(), "old");
    }
}

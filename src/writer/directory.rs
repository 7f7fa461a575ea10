//! [`OutputDirectory`]: arrays that appear together.

use std::path::Path;

use crate::error::Result;
use crate::options::Options;
use crate::output::file_name;
use crate::output::staging::dir::StagedDir;

/// A directory of arrays that a program makes itself, which appear together: everything that is written into the
/// [`path`](Self::path) of an unfinished directory gets its place when it is [published](Self::publish). A directory that is dropped
/// earlier leaves nothing behind.
///
/// [`export`](crate::export()) does the same for the tensors of a source.
///
/// ```
/// use mmconvert::{ArrayWriter, Dtype, Options, OutputDirectory};
///
/// # let dir = tempfile::tempdir()?;
/// # let target = dir.path().join("arrays");
/// let output = OutputDirectory::create(&target, &Options::new())?;
/// for name in ["x.npy", "y.npy"] {
///     let mut writer = ArrayWriter::new(Dtype::Float32, &[]).create(output.path().join(name))?;
///     writer.append(&[1.0f32, 2.0])?;
///     writer.finish()?;
/// }
/// assert!(!target.exists());
/// output.publish(&["x.npy", "y.npy"])?;
/// assert!(target.join("x.npy").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputDirectory {
    staged: StagedDir,
}

impl OutputDirectory {
    /// Starts what will be the directory `path`, or files in it. A directory that exists must be empty, unless `options` allow
    /// [overwriting](Options::overwrite): its other files then stay.
    ///
    /// # Errors
    /// [`Error::OutputExists`](crate::Error::OutputExists), [`Error::Io`](crate::Error::Io).
    pub fn create(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Ok(Self { staged: StagedDir::create(path.as_ref(), options.existing(), &options.calls())? })
    }

    /// The name of the file for an array called `name`: the one that [`export`](crate::export()) gives it.
    #[must_use]
    pub fn file_name(name: impl AsRef<[u8]>) -> String {
        file_name::encode(name.as_ref())
    }

    /// The hidden directory to write into. Its name changes when it is published.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.staged.hidden_path()
    }

    /// Gives everything its final name: the directory in one step, or, in one that existed, `files` one by one in this order. The files
    /// must be complete and synced.
    ///
    /// # Errors
    /// [`Error::OutputExists`](crate::Error::OutputExists) for a name that is taken, [`Error::NotUndone`](crate::Error::NotUndone) when
    /// some files got their names and that could not be undone, [`Error::Io`](crate::Error::Io). What was there is unchanged, unless
    /// the error says that it is not.
    pub fn publish(self, files: &[impl AsRef<str>]) -> Result<()> {
        for file in files {
            if self.staged.is_there() {
                self.staged.check_replaceable(file.as_ref())?;
            }
            self.staged.adopt(file.as_ref())?;
        }
        self.staged.publish()
    }
}

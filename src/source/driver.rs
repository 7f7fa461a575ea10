//! What each format implements to be found and opened.

use std::path::{Path, PathBuf};

use super::container::Container;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::Calls;
use crate::records::stream::files::FileSet;
use crate::storage::input::open_file;

/// One format: what it is called, whether a path is one, how it is opened.
pub(crate) trait Driver: Sync {
    fn name(&self) -> &'static str;
    /// What to hand to [`open`](Self::open) if `path` is of this format, judged by what lies there. `path` is no pattern.
    fn resolve(&self, path: &Path, calls: &Calls) -> Result<Option<PathBuf>>;
    /// Whether several files are one source of this format; elsewhere each file is one.
    fn joins_files(&self) -> bool {
        false
    }
    /// Whether a file that does not look like it can be opened, to say why it is none.
    fn takes_any_file(&self) -> bool {
        false
    }
    /// The same for what no format recognises, where the choices say what it is.
    fn resolve_unrecognised(&self, _path: &Path, _options: &Options) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// Whether opening with these choices takes a running TensorFlow.
    fn needs_tensorflow(&self, _resolved: &Path, _options: &Options) -> bool {
        false
    }
    /// Whether `names` are not those of its tensors, but of what it takes a running TensorFlow to compute.
    fn are_outputs(&self, _resolved: &Path, _names: &[&[u8]]) -> bool {
        false
    }
    fn open(&self, resolved: &Path, options: &Options) -> Result<Box<dyn Container>>;
    /// Opens several files as one source, which messages call `path`. Only where it [joins files](Self::joins_files).
    fn open_files(&self, path: &Path, _files: FileSet, _options: &Options) -> Result<Box<dyn Container>> {
        Err(Error::bad_request(format!("{}: each file of this format is a source of its own", path.display())))
    }
}

/// Whether the file at a path starts with these bytes.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn starts_with(path: &Path, magic: &[u8], calls: &Calls) -> Result<bool> {
    let mut front = vec![0; magic.len()];
    let file = open_file(path, calls).map_err(Error::io("open", path))?;
    match file.read_exact_at(&mut front, 0) {
        Ok(()) => Ok(front == magic),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

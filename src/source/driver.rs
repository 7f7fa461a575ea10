//! What each format implements to be found and opened.

use std::path::Path;

use super::container::Container;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::records::stream::files::FileSet;
use crate::storage::probe::Probe;

/// One format: what it is called, whether a path is one, how it is opened.
pub(crate) trait Driver: Sync {
    fn name(&self) -> &'static str;
    /// What to hand to [`open`](Self::open) if what lies at a path is of this format. The path is not a pattern.
    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>>;
    /// Whether several files are one source of this format; elsewhere each file is one.
    fn joins_files(&self) -> bool {
        false
    }
    /// Whether a file that does not look like it can be opened, to say why it is none.
    fn takes_any_file(&self) -> bool {
        false
    }
    /// The same for what no format recognises, where the choices say what it is.
    fn resolve_unrecognised(&self, _probe: &Probe, _options: &Options) -> Result<Option<Probe>> {
        Ok(None)
    }
    /// Whether opening with these choices takes a running TensorFlow.
    fn needs_tensorflow(&self, _place: &Probe, _options: &Options) -> bool {
        false
    }
    /// Whether `names` are not those of its tensors, but of what it takes a running TensorFlow to compute.
    fn are_outputs(&self, _place: &Probe, _names: &[&[u8]]) -> bool {
        false
    }
    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>>;
    /// Opens several files as one source, which messages call `path`. Only where it [joins files](Self::joins_files).
    fn open_files(&self, path: &Path, _files: FileSet, _options: &Options) -> Result<Box<dyn Container>> {
        Err(Error::bad_request(format!("{}: each file of this format is a source of its own", path.display())))
    }
}

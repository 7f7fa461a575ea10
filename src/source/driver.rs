//! [`Driver`], which every format implements to be found and opened.

use std::path::Path;

use super::container::Container;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::options::Options;
use crate::records::stream::files::FileSet;
use crate::storage::probe::Probe;

/// One format: its name, how to recognise it, how to open it.
pub(crate) trait Driver: Sync {
    fn name(&self) -> &'static str;
    /// The place to pass to [`open`](Self::open) if `probe` is of this format. The path is not a pattern.
    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>>;
    /// Whether several files make one source of this format. Otherwise each file is a source.
    fn joins_files(&self) -> bool {
        false
    }
    /// Whether `open` may be given a file that does not look like the format, to report what is wrong with it.
    fn takes_any_file(&self) -> bool {
        false
    }
    /// As `resolve`, for a file that no format recognises: the options may say what it is.
    fn resolve_unrecognised(&self, _probe: &Probe, _options: &Options) -> Result<Option<Probe>> {
        Ok(None)
    }
    /// Whether opening with these options needs a running TensorFlow.
    fn needs_tensorflow(&self, _place: &Probe, _options: &Options) -> bool {
        false
    }
    /// Whether `names` name outputs that TensorFlow has to compute, instead of stored tensors.
    fn are_outputs(&self, _place: &Probe, _names: &[&[u8]]) -> bool {
        false
    }
    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>>;
    /// Opens several files as one source, which messages call `path`. Called only if the format [joins files](Self::joins_files).
    fn open_files(&self, path: &Path, _files: FileSet, _options: &Options) -> Result<Box<dyn Container>> {
        Err(BadRequest::SeparateSources { path: path.to_owned() }.into())
    }
}

//! V2 checkpoints as a format.

use super::Bundle;
use super::path::resolve;
use crate::error::Result;
use crate::options::Options;
use crate::options::budget::Limits;
use crate::source::cache::Cache;
use crate::source::container::Container;
use crate::source::driver::Driver;
use crate::storage::probe::Probe;

/// The name of the format.
pub(crate) const NAME: &str = "tensor-bundle";

/// A V2 checkpoint: its prefix, its `.index`, one of its shards, or a directory that holds it.
pub(crate) struct TensorBundle;

impl Driver for TensorBundle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        resolve(probe)
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let prefix = place.path();
        let bundle = Bundle::open(prefix, self.name(), &Limits::default(), place.storage())?;
        Ok(match Cache::components(&bundle) {
            Some(components) => Box::new(Cache::new(bundle, components, false)?),
            None => Box::new(bundle),
        })
    }
}

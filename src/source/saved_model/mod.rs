//! SavedModel directories: the variables are a bundle under `variables/`; graphs with constants and signatures are in
//! `saved_model.pb`.

pub(crate) mod container;
pub(crate) mod file;

use super::bundle::Bundle;
use super::container::Container;
use super::driver::Driver;
use super::runtime::runtime;
use crate::error::Result;
use crate::options::Options;
use crate::options::budget::Limits;
use crate::storage::paths::parent_of;
use crate::storage::probe::Probe;

use container::Model;
use file::{OTHER_FORMS, PB, SavedModel};

/// A SavedModel directory, or the `saved_model.pb` in it.
pub(crate) struct SavedModelDir;

impl Driver for SavedModelDir {
    fn name(&self) -> &'static str {
        "saved-model"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        let path = probe.path();
        if path.file_name().is_some_and(|name| name == PB) && probe.is_file()? {
            return Ok(Some(probe.at(parent_of(path))));
        }
        for name in [PB].iter().chain(OTHER_FORMS.iter().map(|(name, _)| name)) {
            if probe.storage().is_file(&path.join(name))? {
                return Ok(Some(probe.clone()));
            }
        }
        Ok(None)
    }

    fn needs_tensorflow(&self, _: &Probe, options: &Options) -> bool {
        options.model.wants_model()
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let (dir, storage) = (place.path(), place.storage());
        let model = SavedModel::open(dir, options.model.tag_set.as_deref(), storage)?;
        options.model.tag_set_used.note();
        let variables = model.variables()?.map(|prefix| Bundle::open(&prefix, self.name(), &Limits::default(), storage)).transpose()?;
        if options.model.wants_model() {
            options.model.used.note();
            return open_signature(model, variables.as_ref(), options);
        }
        Ok(Box::new(Model::new(self.name(), &model, variables)?))
    }
}

/// The outputs of a model's signature. The graph is checked before TensorFlow gets it.
fn open_signature(model: SavedModel, variables: Option<&Bundle>, options: &Options) -> Result<Box<dyn Container>> {
    model.signature(options.model.signature.as_deref())?;
    model.check_graph(options.budget().as_bytes())?;
    variables.map(Bundle::check_all).transpose()?;
    let files = model.files(variables);
    runtime()?.open_signature(model, files, options)
}

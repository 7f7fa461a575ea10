//! Tensors that TensorFlow cannot cut: it writes them as a checkpoint to a private folder, from which we read them.

use std::path::PathBuf;
use std::sync::Arc;

use ::tensorflow::{Operation, SessionRunArgs, Tensor};

use super::session::{Builder, NodeOutput, attempt, text};
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::options::budget::Limits;
use crate::options::model::ModelOptions;
use crate::os::SystemCalls;
use crate::output::staging::hidden::ScratchDir;
use crate::source::bundle::Bundle;
use crate::source::container::Container;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;

/// The name of the tensor in its checkpoint.
const NAME: &str = "tensor";

/// A tensor to be written.
pub(crate) struct Spilling {
    dir: ScratchDir,
    save: Operation,
}

/// A tensor that was written. Dropping it removes the folder.
#[derive(Debug)]
pub(crate) struct Spill {
    pub(crate) bundle: Bundle,
    pub(crate) dir: ScratchDir,
}

impl Spilling {
    /// Adds a node `SaveV2`, which takes tensors of every dtype.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be created, [`Error::TensorFlow`].
    pub(crate) fn new(builder: &mut Builder<'_>, target: &NodeOutput, options: &ModelOptions) -> Result<Self> {
        let dir = ScratchDir::create_in(&options.scratch.clone().unwrap_or_else(std::env::temp_dir), &options.cancel)?;
        let prefix = Self::prefix(&dir)?;
        let save = attempt(
            || format!("preparing to write {}", target.name),
            || {
                let prefix = builder.constant(text(&prefix))?;
                let list = |text: &str| Tensor::<String>::from(&[text.to_owned()][..]);
                let names = builder.constant(list(NAME))?;
                let slices = builder.constant(list(""))?;
                builder.node("SaveV2", |node| {
                    node.add_input(prefix);
                    node.add_input(names);
                    node.add_input(slices);
                    node.add_input_list(&[target.output()]);
                    Ok(())
                })
            },
        )?;
        Ok(Self { dir, save })
    }

    fn prefix(dir: &ScratchDir) -> Result<String> {
        let prefix: PathBuf = dir.path().join(NAME);
        prefix.into_os_string().into_string().map_err(|prefix| BadRequest::PathNotUtf8 { path: prefix.into() }.into())
    }

    /// Makes a run write the tensor.
    pub(crate) fn add(&self, args: &mut SessionRunArgs<'_>) {
        args.add_target(&self.save);
    }

    /// Opens the checkpoint that a run wrote.
    ///
    /// # Errors
    /// Those of opening a bundle.
    pub(crate) fn open(self) -> Result<Spill> {
        let bundle = self.bundle()?;
        Ok(Spill { bundle, dir: self.dir })
    }

    /// The checkpoint of the last run. The next run overwrites it.
    ///
    /// # Errors
    /// Those of opening a bundle.
    pub(crate) fn bundle(&self) -> Result<Bundle> {
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(SystemCalls::default()));
        Bundle::open(&self.dir.path().join(NAME), "tensor-bundle", &Limits::default(), &storage)
    }
}

impl Spill {
    /// The checkpoint, which holds only this tensor.
    pub(crate) fn container(&self) -> &dyn Container {
        &self.bundle
    }
}

//! Keras weights in several HDF5 files, with a map from each object to the files that hold its variables.
//!
//! Source: `ShardedH5IOStore` in `keras/src/saving/saving_lib.py` of Keras 3.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::source::container::Container;
use crate::source::driver::Driver;
use crate::source::hdf5;
use crate::source::table::TensorTable;
use crate::storage::paths::parent_of;
use crate::storage::probe::Probe;

/// The suffix of a map.
const EXTENSION: &str = ".weights.json";

/// A map of weights, and the files that it names.
pub(crate) struct KerasShards;

impl Driver for KerasShards {
    fn name(&self) -> &'static str {
        "keras-shards"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        let is_named = probe.path().file_name().is_some_and(|name| name.to_string_lossy().ends_with(EXTENSION));
        Ok((is_named && probe.is_file()?).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let malformed = |detail: String| Error::malformed(path, "map of weights", detail);
        let map: WeightMap = serde_json::from_slice(&place.storage().read_small(path)?).map_err(|error| malformed(error.to_string()))?;
        let names: BTreeSet<String> = map.weight_map.into_values().flat_map(Shards::names).collect();
        let (mut files, mut tensors, mut others) = (vec![path.to_owned()], Vec::new(), Vec::new());
        for name in &names {
            // Only files in the map's directory belong to it.
            let mut parts = Path::new(name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(malformed(format!("{name:?} is not the name of a file beside it")));
            }
            let shard = parent_of(path).join(name);
            if !place.storage().is_file(&shard)? {
                return Err(Error::NotFound {
                    what: "shard",
                    detail: format!("{} is missing, although {} names it", shard.display(), path.display()),
                });
            }
            let file = place.storage().open(&shard)?;
            let datasets = hdf5::datasets(&file, 0..file.len())?;
            tensors.extend(datasets.tensors);
            others.extend(datasets.others);
            files.push(shard);
        }
        let mut seen = BTreeSet::new();
        if let Some((twice, _)) = tensors.iter().find(|(info, _)| !seen.insert(info.name.clone())) {
            return Err(malformed(format!("two of its files have {}", twice.name)));
        }
        let facts = Map::from_iter([("shards".to_owned(), json!(names)), ("metadata".to_owned(), Value::Object(map.metadata))]);
        Ok(Box::new(TensorTable::new(self.name(), files, tensors, facts).also_found_by(others)))
    }
}

/// The content of a map.
#[derive(Deserialize)]
struct WeightMap {
    #[serde(default)]
    metadata: Map<String, Value>,
    weight_map: BTreeMap<String, Shards>,
}

/// The files that hold the variables of an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Shards {
    One(String),
    Several(Vec<String>),
}

impl Shards {
    fn names(self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name],
            Self::Several(names) => names,
        }
    }
}

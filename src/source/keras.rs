//! Keras models: a `.keras` archive, whose weights are an HDF5 file that is read inside it, and weights in several files with a map.
//!
//! Source: `keras/src/saving/saving_lib.py` of Keras 3.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::archive::{self, Packing};
use super::driver::{Driver, starts_with};
use super::hdf5;
use super::listed::Listed;
use super::stored::StoredFile;
use super::{Container, Name};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::paths::{is_file, parent_of, read_small};

/// The member of an archive that holds the weights.
const WEIGHTS: &[u8] = b"model.weights.h5";
/// What it is called where they are in NumPy's form.
const OTHER_WEIGHTS: &[u8] = b"model.weights.npz";
/// What the name of a map of weights ends in.
const MAP: &str = ".weights.json";

/// A Keras model, or a map of its weights.
pub(crate) struct Keras;

impl Driver for Keras {
    fn name(&self) -> &'static str {
        "keras"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        if !is_file(path)? {
            return Ok(None);
        }
        if is_map(path) {
            return Ok(Some(path.to_owned()));
        }
        if !starts_with(path, archive::MAGICS[0])? {
            return Ok(None);
        }
        let is_named = path.extension().is_some_and(|extension| extension == self.name());
        let has_weights = || -> Result<bool> {
            let members = archive::members(&StoredFile::open(path)?)?;
            Ok(members.iter().any(|member| member.name == WEIGHTS || member.name == OTHER_WEIGHTS))
        };
        Ok((is_named || has_weights()?).then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, _: &Options) -> Result<Box<dyn Container>> {
        if is_map(path) {
            return open_map(self.name(), path);
        }
        let file = StoredFile::open(path)?;
        let members = archive::members(&file)?;
        let unsupported = |detail: String| Err(Error::Unsupported { what: format!("the weights of {}", path.display()), detail });
        let Some(weights) = members.iter().find(|member| member.name == WEIGHTS) else {
            if members.iter().any(|member| member.name == OTHER_WEIGHTS) {
                return unsupported(format!("they are in {}, which is an .npz: unpack it first", Name::new(OTHER_WEIGHTS)));
            }
            let names: Vec<String> = members.iter().take(8).map(|member| Name::new(&member.name[..]).to_string()).collect();
            let detail = format!("no member {}, only {}", Name::new(WEIGHTS), names.join(", "));
            return Err(Error::malformed(path, "Keras archive", detail));
        };
        match &weights.packing {
            Ok(Packing::Stored) => Ok(Box::new(hdf5::open_range(self.name(), &file, weights.offset..weights.offset + weights.packed)?)),
            Ok(Packing::Deflated) => {
                unsupported(format!("the member {} is deflated, as Keras never writes it: unpack it first", Name::new(WEIGHTS)))
            }
            Err(why) => unsupported(why.clone()),
        }
    }
}

fn is_map(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(MAP))
}

/// `weight_map` of `x.weights.json`: which files have the variables of each object.
#[derive(Deserialize)]
struct WeightMap {
    #[serde(default)]
    metadata: Map<String, Value>,
    weight_map: std::collections::BTreeMap<String, Shards>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Shards {
    One(String),
    Several(Vec<String>),
}

/// The weights of all files that a map names.
fn open_map(format: &'static str, path: &Path) -> Result<Box<dyn Container>> {
    let malformed = |detail: String| Error::malformed(path, "map of weights", detail);
    let map: WeightMap = serde_json::from_slice(&read_small(path)?).map_err(|error| malformed(error.to_string()))?;
    let mut names = BTreeSet::new();
    for shards in map.weight_map.into_values() {
        match shards {
            Shards::One(name) => names.extend([name]),
            Shards::Several(several) => names.extend(several),
        }
    }
    let (mut files, mut tensors, mut others) = (vec![path.to_owned()], Vec::new(), Vec::new());
    for name in &names {
        // Only files beside the map are its.
        if Path::new(name).components().count() != 1
            || !matches!(Path::new(name).components().next(), Some(std::path::Component::Normal(_)))
        {
            return Err(malformed(format!("{name:?} is not the name of a file beside it")));
        }
        let shard = parent_of(path).join(name);
        if !is_file(&shard)? {
            return Err(Error::NotFound { what: "shard", detail: format!("{}, which {} names", shard.display(), path.display()) });
        }
        let file: Arc<StoredFile> = StoredFile::open(&shard)?;
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
    Ok(Box::new(Listed::new(format, files, tensors, facts).also_found_by(others)))
}

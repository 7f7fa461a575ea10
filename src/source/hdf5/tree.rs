//! What an HDF5 file has by which path, once its groups have been visited: datasets, groups, and links that are followed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::dataset::{Found, Located};
use super::storage::Part;
use crate::error::{Error, Result};
use crate::format::hdf5::link::Target;
use crate::source::container::TensorInfo;
use crate::source::table::Links;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// The order of paths: parts that are numbers as numbers.
pub(crate) type PathKey = Vec<(u64, String)>;

pub(crate) fn path_key(path: &str) -> PathKey {
    path.split('/').map(|part| (part.parse().map_or(u64::MAX, |number: u64| number), part.to_owned())).collect()
}

/// What a file has.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) found: BTreeMap<PathKey, Found>,
    /// The paths of groups.
    pub(crate) groups: HashSet<String>,
    /// The paths of links that lead to no object by themselves.
    pub(crate) links: PathLinks,
}

/// Links by their paths.
#[derive(Debug, Default)]
pub(crate) struct PathLinks(pub(crate) BTreeMap<String, Target>);

impl Links for PathLinks {
    fn end_of(&self, path: &str) -> Option<String> {
        self.follow(&plain(path))
    }
}

impl Tree {
    /// Finds datasets by the links to them, too, and lists links that lead nowhere in the file: nobody who uses them gets their data from here.
    pub(crate) fn follow(&mut self, part: &Part) -> Result<()> {
        let mut by_path: HashMap<String, PathKey> = HashMap::new();
        for (key, Found { info, paths, .. }) in &self.found {
            by_path.extend(std::iter::once(info.name.to_json()).chain(paths.iter().cloned()).map(|path| (path, key.clone())));
        }
        for (path, target) in &self.links.0 {
            let reason = match target {
                Target::Object(_) => continue,
                Target::Path(_) => match self.links.follow(path) {
                    Some(end) if self.groups.contains(&end) => continue,
                    Some(end) => match by_path.get(&end).and_then(|key| self.found.get_mut(key)) {
                        Some(found) => {
                            found.paths.push(path.clone());
                            continue;
                        }
                        None => format!("it is a link to {end}, and there is no array"),
                    },
                    None => "it is a link that leads to itself".to_owned(),
                },
                Target::File { file, path } => {
                    format!("it is a link to {path} of the file {file}, and no link is followed out of a file: convert that one")
                }
                Target::Own(kind) => format!("it is a link of kind {kind}, which only the program understands that made it"),
            };
            let spec = TensorSpec::new(Dtype::Variant, Vec::new()).map_err(Error::bad_request)?;
            let info = TensorInfo { unsupported: Some(reason), ..TensorInfo::new(Name::new(path.as_bytes()), spec) };
            self.found.entry(path_key(path)).or_insert(Found { info, located: Located::nowhere(part), paths: Vec::new() });
        }
        Ok(())
    }
}

impl PathLinks {
    /// Where the links that a path goes through end; nothing where they do not.
    fn follow(&self, path: &str) -> Option<String> {
        /// As `H5Pset_nlinks` has it.
        const MOST_LINKS: usize = 16;
        let mut path = path.to_owned();
        for _ in 0..=MOST_LINKS {
            let linked = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]).find_map(|end| {
                let Some(Target::Path(target)) = self.0.get(&path[..end]) else { return None };
                let group = path[..end].rsplit_once('/').map_or("", |(group, _)| group);
                let from = if target.starts_with('/') { "" } else { group };
                Some(format!("{from}/{target}{}", &path[end..]))
            });
            match linked {
                Some(next) => path = plain(&next),
                None => return Some(path),
            }
        }
        None
    }
}

/// A path without parts that mean nothing: there is no `..` in HDF5.
fn plain(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).flat_map(|part| ["/", part]).collect()
}

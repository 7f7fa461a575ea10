//! Everything the walk over the groups of an HDF5 file found, by path: datasets, groups, and links.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::dataset::{Found, LocatedDataset};
use super::storage::FileRange;
use crate::error::Result;
use crate::format::hdf5::link::LinkTarget;
use crate::source::container::TensorInfo;
use crate::source::table::Links;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// Sort key of a path; parts that are numbers are ordered as numbers.
pub(crate) type PathKey = Vec<(u64, String)>;

pub(crate) fn path_key(path: &str) -> PathKey {
    path.split('/').map(|part| (part.parse().map_or(u64::MAX, |number: u64| number), part.to_owned())).collect()
}

/// The content of a file.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) found: BTreeMap<PathKey, Found>,
    /// The paths of groups.
    pub(crate) groups: HashSet<String>,
    /// The paths of links that do not lead to an object directly.
    pub(crate) links: PathLinks,
}

/// Links by their paths.
#[derive(Debug, Default)]
pub(crate) struct PathLinks(pub(crate) BTreeMap<String, LinkTarget>);

impl Links for PathLinks {
    fn end_of(&self, path: &str) -> Option<String> {
        self.follow(&plain(path))
    }
}

impl Tree {
    /// Makes datasets known by the links to them, too. Links that lead nowhere in the file are listed, so that whoever uses them
    /// is told.
    pub(crate) fn follow(&mut self, part: &FileRange) -> Result<()> {
        let mut by_path: HashMap<String, PathKey> = HashMap::new();
        for (key, Found { info, paths, .. }) in &self.found {
            by_path.extend(std::iter::once(info.name.to_json()).chain(paths.iter().cloned()).map(|path| (path, key.clone())));
        }
        for (path, target) in &self.links.0 {
            let reason = match target {
                LinkTarget::Object(_) => continue,
                LinkTarget::Path(_) => match self.links.follow(path) {
                    Some(end) if self.groups.contains(&end) => continue,
                    Some(end) => match by_path.get(&end).and_then(|key| self.found.get_mut(key)) {
                        Some(found) => {
                            found.paths.push(path.clone());
                            continue;
                        }
                        None => format!("it is a link to {end}, where there is no array"),
                    },
                    None => "it is a link that leads to itself".to_owned(),
                },
                LinkTarget::File { file, path } => {
                    format!("it is a link to {path} of the file {file}, and links to other files are not followed: convert that file")
                }
                LinkTarget::Own(kind) => {
                    format!("it is a link of the user-defined kind {kind}, which only the program that made it understands")
                }
            };
            let spec = TensorSpec::new(Dtype::Variant, Vec::new())?;
            let info = TensorInfo { unsupported: Some(reason), ..TensorInfo::new(Name::new(path.as_bytes()), spec) };
            self.found.entry(path_key(path)).or_insert(Found { info, located: LocatedDataset::nowhere(part), paths: Vec::new() });
        }
        Ok(())
    }
}

impl PathLinks {
    /// Follows the links in a path; `None` if they do not lead to an end.
    fn follow(&self, path: &str) -> Option<String> {
        /// The default of `H5Pset_nlinks`.
        const MOST_LINKS: usize = 16;
        let mut path = path.to_owned();
        for _ in 0..=MOST_LINKS {
            let linked = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]).find_map(|end| {
                let Some(LinkTarget::Path(target)) = self.0.get(&path[..end]) else { return None };
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

/// A path without empty and `.` parts. HDF5 has no `..`.
fn plain(path: &str) -> String {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).flat_map(|part| ["/", part]).collect()
}

//! Walks the groups of an HDF5 file and collects their datasets.

use std::collections::HashMap;
use std::sync::Arc;

use super::dataset::{Datasets, Found};
use super::storage::{FileRange, WHAT};
use super::tree::{PathKey, Tree, path_key};
use crate::error::{Error, Result};
use crate::format::hdf5::file::File;
use crate::format::hdf5::link::LinkTarget;
use crate::format::hdf5::object_header::{Kind, ObjectHeader};

/// Deepest nesting of groups.
const MOST_DEPTH: usize = 100;
/// Most objects in a file.
const MOST_OBJECTS: usize = 1_000_000;
/// Most bytes of all paths together.
const MOST_PATHS: usize = 1 << 30;
/// The group that holds the variables of a layer.
const VARS: &str = "vars";

/// A group to be visited.
struct Opened {
    path: String,
    address: u64,
    depth: usize,
}

/// The walk over a file.
pub(crate) struct Walker<'a> {
    part: &'a FileRange,
    opened: &'a Arc<File>,
    tree: Tree,
    /// The first path to each group, by address.
    groups: HashMap<u64, String>,
    /// Datasets by address.
    datasets: HashMap<u64, PathKey>,
    objects: usize,
    path_bytes: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(part: &'a FileRange, opened: &'a Arc<File>) -> Self {
        Self { part, opened, tree: Tree::default(), groups: HashMap::new(), datasets: HashMap::new(), objects: 0, path_bytes: 0 }
    }

    /// Visits every object once, however many links lead to it.
    pub(crate) fn walk(mut self) -> Result<Tree> {
        let mut open = vec![Opened { path: String::new(), address: self.opened.superblock.root, depth: 0 }];
        while let Some(group) = open.pop() {
            if let Some(first) = self.groups.get(&group.address) {
                // A further link to a group that was visited.
                self.tree.links.0.insert(group.path, LinkTarget::Path(format!("/{first}")));
                continue;
            }
            self.groups.insert(group.address, group.path.clone());
            self.tree.groups.insert(group.path.clone());
            let first = open.len();
            self.group(&group, &mut open)?;
            open[first..].sort_by(|a, b| b.path.cmp(&a.path));
        }
        Ok(self.tree)
    }

    /// Adds the datasets of a group, and queues its subgroups.
    fn group(&mut self, group: &Opened, open: &mut Vec<Opened>) -> Result<()> {
        let (path, what) = (&group.path, || format!("HDF5 group {}/", group.path));
        let failed = |failure| self.part.error(what(), failure);
        let header = self.opened.header(group.address).map_err(failed)?;
        if header.kind() != Some(Kind::Group) {
            return Err(Error::malformed_at(
                self.part.file.path(),
                what(),
                self.part.offset(header.at),
                "its header does not describe a group",
            ));
        }
        let mut links = self.opened.links(&header).map_err(failed)?;
        links.sort_by_cached_key(|link| path_key(&link.name));
        // Keras 3 stores the name of a layer with its variables.
        let is_vars = path.rsplit('/').next() == Some(VARS);
        let layer = if is_vars { self.opened.text_attribute(&header, "name").map_err(failed)? } else { None };
        for link in links {
            let path = format!("{path}/{}", link.name);
            self.objects += 1;
            self.path_bytes += path.len();
            if self.objects > MOST_OBJECTS || self.path_bytes > MOST_PATHS {
                let detail =
                    format!("more than {MOST_OBJECTS} objects, or paths of more than {MOST_PATHS} bytes, in {what}", what = what());
                return Err(Error::malformed(self.part.file.path(), WHAT, detail));
            }
            match link.target {
                LinkTarget::Object(address) => self.object(path, address, group.depth + 1, layer.as_deref(), open)?,
                target => {
                    self.tree.links.0.insert(path, target);
                }
            }
        }
        Ok(())
    }

    fn object(&mut self, path: String, address: u64, depth: usize, layer: Option<&str>, open: &mut Vec<Opened>) -> Result<()> {
        // A dataset with several links is listed under the first and found by all.
        if let Some(known) = self.datasets.get(&address) {
            if let Some(found) = self.tree.found.get_mut(known) {
                found.paths.push(path);
            }
            return Ok(());
        }
        if self.groups.contains_key(&address) {
            open.push(Opened { path, address, depth });
            return Ok(());
        }
        let what = || format!("HDF5 object {path}");
        let header = self.opened.header(address).map_err(|failure| self.part.error(what(), failure))?;
        match header.kind() {
            Some(Kind::Group) if depth > MOST_DEPTH => {
                let detail = format!("groups that nest deeper than {MOST_DEPTH} at {path}");
                return Err(Error::malformed(self.part.file.path(), WHAT, detail));
            }
            Some(Kind::Group) => open.push(Opened { path, address, depth }),
            Some(Kind::Dataset) => self.dataset(&path, address, &header, layer)?,
            Some(Kind::Datatype) => {}
            None => {
                let detail = "its header describes no dataset, group or datatype";
                return Err(Error::malformed_at(self.part.file.path(), what(), self.part.offset(header.at), detail));
            }
        }
        Ok(())
    }

    fn dataset(&mut self, path: &str, address: u64, header: &ObjectHeader, layer: Option<&str>) -> Result<()> {
        let datasets = Datasets { part: self.part, opened: self.opened };
        let (info, located) = datasets.dataset(path, header, layer)?;
        let key = path_key(path);
        self.datasets.insert(address, key.clone());
        self.tree.found.insert(key, Found { info, located, paths: Vec::new() });
        Ok(())
    }
}

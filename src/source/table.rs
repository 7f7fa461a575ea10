//! [`TensorTable`]: a fixed list of tensors found on opening, which is all that most formats need.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::container::{Container, TensorInfo};
use crate::error::{Error, Result};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::types::name::Name;

/// The place of a tensor, in the terms of its format.
pub(crate) trait TensorPlace: fmt::Debug + Send + Sync {
    /// A reader of the tensor's elements. Checks where they are, but reads none of them.
    fn reader<'a>(&'a self, info: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>>;

    /// The tensor's strings, if its elements are strings.
    fn strings<'a>(&'a self, info: &TensorInfo) -> Result<StoredStrings<'a>> {
        Err(Error::Unsupported { what: format!("strings of {}", info.name), detail: "the format has none".into() })
    }

    /// Whether a checksum over more than the tensor has been compared and matched.
    fn is_vouched_for(&self) -> bool {
        false
    }

    /// Facts about the place, for `info`.
    fn facts(&self) -> Map<String, Value>;
}

/// Tensors with their places, in the order of the file.
#[derive(Debug)]
pub(crate) struct TensorTable<P> {
    format: &'static str,
    tensors: Vec<(TensorInfo, P)>,
    by_name: HashMap<Vec<u8>, usize>,
    by_alias: HashMap<Vec<u8>, usize>,
    files: Vec<PathBuf>,
    facts: Map<String, Value>,
    warnings: Vec<String>,
    links: Option<Box<dyn Links>>,
}

/// Links between names that are paths. A name may pass through linked groups.
pub(crate) trait Links: std::fmt::Debug + Send + Sync {
    /// The path at the end of the links; `None` if they lead nowhere.
    fn end_of(&self, path: &str) -> Option<String>;
}

impl<P: TensorPlace> TensorTable<P> {
    /// Lists tensors of `files`. Looking up a duplicate name finds the first tensor.
    pub(crate) fn new(format: &'static str, files: Vec<PathBuf>, tensors: Vec<(TensorInfo, P)>, facts: Map<String, Value>) -> Self {
        let (mut by_name, mut by_alias) = (HashMap::with_capacity(tensors.len()), HashMap::new());
        for (index, (info, _)) in tensors.iter().enumerate() {
            by_name.entry(info.name.as_bytes().to_vec()).or_insert(index);
            if let Some(alias) = &info.alias {
                by_alias.entry(alias.as_bytes().to_vec()).or_insert(index);
            }
        }
        Self { format, tensors, by_name, by_alias, files, facts, warnings: Vec::new(), links: None }
    }

    /// Adds hidden aliases.
    pub(crate) fn also_found_by(mut self, others: Vec<(String, Name)>) -> Self {
        for (other, name) in others {
            if let Some(&index) = self.by_name.get(name.as_bytes()) {
                self.by_alias.entry(other.into_bytes()).or_insert(index);
            }
        }
        self
    }

    /// Also resolves names through links.
    pub(crate) fn found_through(self, links: Box<dyn Links>) -> Self {
        Self { links: Some(links), ..self }
    }

    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

impl<P: TensorPlace> Container for TensorTable<P> {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        Ok(self.tensors.len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        Ok(self.tensors[index].0.clone())
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.by_name.get(name).copied())
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        let known = |name: &[u8]| self.by_alias.get(name).copied();
        let linked = || {
            let end = self.links.as_ref()?.end_of(std::str::from_utf8(alias).ok()?)?;
            self.by_name.get(end.as_bytes()).copied().or_else(|| known(end.as_bytes()))
        };
        known(alias).or_else(linked)
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (info, place) = &self.tensors[index];
        place.reader(info)
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let (info, place) = &self.tensors[index];
        place.strings(info)
    }

    fn is_vouched_for(&self, index: usize) -> bool {
        self.tensors[index].1.is_vouched_for()
    }

    fn heap_bytes(&self) -> u64 {
        // Overhead per tensor: its name is in the list and in the map, and its shape takes some bytes.
        const EACH: usize = 128;
        let tensor = |(info, _): &(TensorInfo, P)| {
            size_of::<(TensorInfo, P)>() + EACH + 2 * info.name.as_bytes().len() + 2 * info.alias.as_ref().map_or(0, String::len)
        };
        self.tensors.iter().map(tensor).sum::<usize>() as u64
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn facts(&self) -> Map<String, Value> {
        self.facts.clone()
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        Ok(self.tensors[index].1.facts())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

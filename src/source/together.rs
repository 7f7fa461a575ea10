//! Several sources as one that has the tensors of all.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::strings::StoredStrings;
use super::{Container, Name, Source, TensorInfo, TensorReader};
use crate::error::{Error, Result};

/// All tensors of several sources. A name that more than one source has gets that of its source in front.
#[derive(Debug)]
pub(super) struct Together {
    parts: Vec<Source>,
    /// The part and the number in it.
    tensors: Vec<(Name, usize, usize)>,
    /// How many of them are meant where none is named.
    meant: usize,
    by_name: HashMap<Vec<u8>, usize>,
}

impl Together {
    /// # Errors
    /// [`Error::BadRequest`] for records, and for names that are not told apart by their sources.
    pub(super) fn new(parts: Vec<Source>) -> Result<Self> {
        if let Some(records) = parts.iter().find(|part| part.records().is_some()) {
            return Err(Error::bad_request(format!("{} is of records, which are converted on their own", records.path().display())));
        }
        let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
        // Those that are meant without being named come first.
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for (at, part) in parts.iter().enumerate() {
            let meant = part.container.default_selection()?;
            for tensor in part.tensors() {
                let tensor = tensor?;
                *counts.entry(tensor.info().name.as_bytes().to_vec()).or_default() += 1;
                let place = (tensor.info().name.clone(), at, tensor.index());
                if tensor.index() < meant { found.push(place) } else { others.push(place) }
            }
        }
        let meant = found.len();
        found.append(&mut others);
        let mut by_name = HashMap::with_capacity(found.len());
        let mut tensors = Vec::with_capacity(found.len());
        for (name, at, number) in found {
            let path = parts[at].path();
            let own = if counts[name.as_bytes()] == 1 {
                name
            } else {
                let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
                Name::new([stem.as_bytes(), name.as_bytes()].join(&b'/'))
            };
            if by_name.insert(own.as_bytes().to_vec(), tensors.len()).is_some() {
                return Err(Error::bad_request(format!(
                    "two tensors would be called {own}, the second of {}: convert it on its own",
                    path.display()
                )));
            }
            tensors.push((own, at, number));
        }
        Ok(Self { parts, tensors, meant, by_name })
    }

    fn part(&self, index: usize) -> (&Source, usize) {
        let (_, at, number) = &self.tensors[index];
        (&self.parts[*at], *number)
    }
}

impl Container for Together {
    fn format(&self) -> &'static str {
        let format = self.parts.first().map_or("", Source::format);
        if self.parts.iter().all(|part| part.format() == format) { format } else { "several" }
    }

    fn len(&self) -> Result<usize> {
        Ok(self.tensors.len())
    }

    fn default_selection(&self) -> Result<usize> {
        Ok(self.meant)
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let (part, number) = self.part(index);
        Ok(TensorInfo { name: self.tensors[index].0.clone(), ..part.container.info(number)? })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.by_name.get(name).copied())
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        // The one that its own source knows by this name, if it is the only one.
        let mut found = self.parts.iter().enumerate().filter_map(|(at, part)| {
            let number = part.container.find(alias).ok().flatten().or_else(|| part.container.find_alias(alias))?;
            self.tensors.iter().position(|(_, own, index)| (*own, *index) == (at, number))
        });
        found.next().filter(|_| found.next().is_none())
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (part, number) = self.part(index);
        part.container.reader(number)
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let (part, number) = self.part(index);
        part.container.strings(number)
    }

    fn heap_bytes(&self) -> u64 {
        self.parts.iter().map(Source::heap_bytes).fold(0, u64::saturating_add)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().flat_map(|part| part.container.files()).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        let paths: Vec<_> = self.parts.iter().map(|part| part.path().to_string_lossy()).collect();
        Map::from_iter([("sources".to_owned(), json!(paths))])
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (part, number) = self.part(index);
        part.container.tensor_facts(number)
    }

    fn warnings(&self) -> Vec<String> {
        self.parts.iter().flat_map(Source::warnings).collect()
    }
}

//! Merges several sources into one that has all of their tensors.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::opened::Source;
use super::origin::Origin;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::records::container::RecordContainer;
use crate::types::name::Name;

/// All tensors of several sources. A name that occurs in several sources gets a title before it, which tells its source.
#[derive(Debug)]
pub(crate) struct MergedSources {
    parts: Vec<Source>,
    /// Name, part, and index in the part.
    tensors: Vec<(Name, usize, usize)>,
    by_name: HashMap<Vec<u8>, usize>,
    /// The title of each source.
    titles: Vec<String>,
    /// Warnings about the combination of sources.
    warnings: Vec<String>,
}

impl MergedSources {
    /// # Errors
    /// [`Error::BadRequest`] for names that their sources do not tell apart.
    pub(crate) fn new(parts: Vec<Source>) -> Result<Self> {
        let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut found, mut warnings) = (Vec::new(), Vec::new());
        for (at, part) in parts.iter().enumerate() {
            if part.is_empty()? {
                warnings.push(format!("{} adds nothing to convert: {}", part.path().display(), part.nothing()));
            }
            for tensor in part.tensors() {
                let tensor = tensor?;
                *counts.entry(tensor.info().name.as_bytes().to_vec()).or_default() += 1;
                found.push((tensor.info().name.clone(), at, tensor.index()));
            }
        }
        let titles = titles(&parts);
        let mut by_name = HashMap::with_capacity(found.len());
        let mut tensors = Vec::with_capacity(found.len());
        for (name, at, number) in found {
            let title = titles[at].as_bytes();
            // The only array of a file often has the file's name already.
            let is_title =
                || parts[at].len().is_ok_and(|len| len == 1) && title.rsplit(|&byte| byte == b'/').next() == Some(name.as_bytes());
            let own = match counts[name.as_bytes()] {
                1 => name,
                _ if is_title() => Name::new(title),
                _ => Name::new([title, name.as_bytes()].join(&b'/')),
            };
            if by_name.insert(own.as_bytes().to_vec(), tensors.len()).is_some() {
                return Err(Error::from(BadRequest::SameName { name: own.to_string(), path: parts[at].path().to_owned() }));
            }
            tensors.push((own, at, number));
        }
        Ok(Self { parts, tensors, by_name, titles, warnings })
    }

    fn part(&self, index: usize) -> (&Source, usize) {
        let (_, at, number) = &self.tensors[index];
        (&self.parts[*at], *number)
    }
}

/// The title of each source: its file name, with as many parent directories as are needed to tell the sources apart.
fn titles(parts: &[Source]) -> Vec<String> {
    let components = |source: &Source| -> Vec<String> {
        let path = source.path();
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let dirs = path.parent().into_iter().flat_map(Path::components);
        let mut names: Vec<String> = dirs
            .filter(|component| matches!(component, Component::Normal(_)))
            .map(|component| component.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.push(stem);
        names.reverse();
        names
    };
    let all: Vec<Vec<String>> = parts.iter().map(components).collect();
    let title = |at: usize, len: usize| {
        let own = &all[at][..len.min(all[at].len())];
        own.iter().rev().cloned().collect::<Vec<_>>().join("/")
    };
    let longest = all.iter().map(Vec::len).max().unwrap_or(1);
    let enough = |at: usize| {
        let is_alone = |len: &usize| (0..all.len()).filter(|&other| title(other, *len) == title(at, *len)).count() == 1;
        (1..=longest).find(is_alone).unwrap_or(1)
    };
    let titles: Vec<String> = (0..all.len()).map(|at| title(at, enough(at))).collect();
    // Files that differ only in their extension keep it in the title.
    let is_double = |at: usize| titles.iter().filter(|other| **other == titles[at]).count() > 1;
    let whole = |at: usize| parts[at].path().file_name().unwrap_or(parts[at].path().as_os_str()).to_string_lossy().into_owned();
    (0..titles.len()).map(|at| if is_double(at) { whole(at) } else { titles[at].clone() }).collect()
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl Container for MergedSources {
    fn format(&self) -> &'static str {
        let format = self.parts.first().map_or("", Source::format);
        if self.parts.iter().all(|part| part.format() == format) { format } else { "several" }
    }

    fn len(&self) -> Result<usize> {
        Ok(self.tensors.len())
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        let (part, number) = self.part(index);
        part.container().is_meant(number)
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let (part, number) = self.part(index);
        let (name, at, _) = &self.tensors[index];
        let info = part.container().info(number)?;
        // An alias gets the same title as its name.
        let alias = if info.name == *name { info.alias } else { info.alias.map(|alias| format!("{}/{alias}", self.titles[*at])) };
        Ok(TensorInfo { name: name.clone(), alias, ..info })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.by_name.get(name).copied())
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        // The tensor whose own source knows this alias, if it is the only one.
        let find = |at: usize, name: &[u8]| {
            let container = self.parts[at].container();
            let number = container.find(name).ok().flatten().or_else(|| container.find_alias(name))?;
            self.tensors.iter().position(|(_, own, index)| (*own, *index) == (at, number))
        };
        let mut found = (0..self.parts.len()).filter_map(|at| find(at, alias));
        let only = found.next().filter(|_| found.next().is_none());
        let titled = |(at, title): (usize, &String)| find(at, alias.strip_prefix(title.as_bytes())?.strip_prefix(b"/")?);
        only.or_else(|| self.titles.iter().enumerate().find_map(titled))
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (part, number) = self.part(index);
        part.container().reader(number)
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let (part, number) = self.part(index);
        part.container().strings(number)
    }

    fn records(&self, index: usize) -> Option<(&RecordContainer, usize)> {
        let (part, number) = self.part(index);
        part.container().records(number)
    }

    fn take_records(&mut self) -> Option<RecordContainer> {
        None
    }

    fn nothing(&self) -> Error {
        let detail = "none of them holds a tensor".into();
        self.parts.first().map_or(Error::Unsupported { what: "these sources".into(), detail }, |part| part.container().nothing())
    }

    fn tag_sets(&self) -> &[Vec<String>] {
        &[]
    }

    fn signatures(&self) -> &[Signature] {
        &[]
    }

    fn heap_bytes(&self) -> u64 {
        self.parts.iter().map(Source::heap_bytes).fold(0, u64::saturating_add)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().flat_map(|part| part.container().files()).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        let paths: Vec<_> = self.parts.iter().map(|part| part.path().to_string_lossy()).collect();
        Map::from_iter([("sources".to_owned(), json!(paths))])
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (part, number) = self.part(index);
        part.container().tensor_facts(number)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.iter().cloned().chain(self.parts.iter().flat_map(Source::warnings)).collect()
    }

    fn lost(&self) -> Vec<String> {
        self.parts.iter().flat_map(Source::lost).collect()
    }

    fn is_vouched_for(&self, index: usize) -> bool {
        let (part, number) = self.part(index);
        part.container().is_vouched_for(number)
    }

    fn is_made(&self, index: usize) -> bool {
        let (part, number) = self.part(index);
        part.container().is_made(number)
    }

    fn claimed_rows(&self, index: usize) -> Option<u64> {
        let (part, number) = self.part(index);
        part.container().claimed_rows(number)
    }

    fn notes(&self) -> Vec<String> {
        let of_part = |part: &Source| {
            let path = part.path().display().to_string();
            part.notes().into_iter().map(move |note| format!("{path}: {note}")).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(of_part).collect()
    }
}

impl Source {
    /// Merges several sources into one. A name that occurs in several gets the name of its source before it: `model/bias`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where two tensors would still have the same name.
    pub fn together(parts: Vec<Self>) -> Result<Self> {
        let path = parts.first().map(|part| part.path().to_owned()).unwrap_or_default();
        let origin = Origin::of_all(parts.iter().map(Self::origin), false);
        Ok(Self::new(&path, Box::new(MergedSources::new(parts)?), origin))
    }
}

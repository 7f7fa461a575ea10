//! Lists what a SavedModel holds without being run: variables, constants, and the signatures it can compute.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::file::SavedModel;
use crate::error::{Error, Result};
use crate::format::meta_graph::Signature;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::records::container::RecordContainer;
use crate::source::bundle::{Bundle, index_path};
use crate::source::container::{Container, TensorInfo};
use crate::source::graph::constants::Constants;

/// Variables, if there are any, followed by constants.
#[derive(Debug)]
pub(crate) struct Model {
    format: &'static str,
    pb: PathBuf,
    variables: Option<Bundle>,
    constants: Option<Constants>,
    signatures: Vec<Signature>,
    tag_sets: Vec<Vec<String>>,
    warnings: Vec<String>,
    /// Why it is empty, if it is.
    why: String,
}

/// A tensor in either of them.
type InContainer<'a> = (&'a dyn Container, usize);

impl Model {
    /// # Errors
    /// [`Error::NotFound`] if the model has neither tensors nor signatures: most of it is missing.
    pub(crate) fn new(format: &'static str, model: &SavedModel, variables: Option<Bundle>) -> Result<Self> {
        let mut survey = model.survey()?;
        if let Some(bundle) = &variables {
            survey.leave_out(|name| bundle.find(name).is_ok_and(|found| found.is_some()));
        }
        let lost = match (&variables, survey.variables()) {
            (None, 1..) => Some(format!(
                "{} has a graph with {} variables; their values are lost, because {} is missing",
                model.dir.display(),
                survey.variables(),
                index_path(&model.prefix()).display()
            )),
            _ => None,
        };
        let constants = survey.has_constants().then(|| Constants::new(format, Arc::clone(&model.file), survey, Vec::new()));
        let missing = format!("the SavedModel {} has no {}", model.dir.display(), index_path(&model.prefix()).display());
        let (signatures, ambiguity) = (model.signatures().to_vec(), model.ambiguity().map(|request| request.to_string()));
        if variables.is_none() && constants.is_none() && signatures.is_empty() && ambiguity.is_none() {
            return Err(Error::NotFound { what: "variables", detail: missing });
        }
        Ok(Self {
            format,
            pb: model.pb.clone(),
            variables,
            constants,
            signatures,
            tag_sets: model.tag_sets(),
            warnings: ambiguity.into_iter().chain(lost).collect(),
            why: format!("{missing}; name a `signature` to compute it"),
        })
    }

    /// Whether it has variables other than bookkeeping.
    fn has_meant_variables(&self) -> Result<bool> {
        // More variables than this cannot all be bookkeeping.
        const MOST_BOOKKEEPING: usize = 8;
        let Some(bundle) = &self.variables else { return Ok(false) };
        for index in 0..bundle.len()?.min(MOST_BOOKKEEPING) {
            if bundle.is_meant(index)? {
                return Ok(true);
            }
        }
        Ok(bundle.len()? > MOST_BOOKKEEPING)
    }

    /// Number of leading tensors that are variables.
    fn variables(&self) -> Result<usize> {
        self.variables.as_ref().map_or(Ok(0), Container::len)
    }

    fn parts(&self) -> impl Iterator<Item = &dyn Container> {
        let constants = self.constants.iter().map(|constants| constants as &dyn Container);
        self.variables.iter().map(|variables| variables as &dyn Container).chain(constants)
    }

    fn part(&self, index: usize) -> Result<InContainer<'_>> {
        let variables = self.variables()?;
        match (&self.variables, &self.constants) {
            (Some(bundle), _) if index < variables => Ok((bundle, index)),
            (_, Some(constants)) => Ok((constants, index - variables)),
            _ => Err(self.nothing()),
        }
    }
}

#[deny(clippy::missing_trait_methods, reason = "a wrapper answers every question itself")]
impl Container for Model {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        Ok(self.variables()? + self.constants.as_ref().map_or(Ok(0), Container::len)?)
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        // Constants are selected by default only if there are no variables.
        let (part, at) = self.part(index)?;
        Ok(part.is_meant(at)? && (index < self.variables()? || !self.has_meant_variables()?))
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let (part, at) = self.part(index)?;
        let info = part.info(at)?;
        let group = info.group.or(self.constants.is_some().then_some("variables"));
        Ok(TensorInfo { group, ..info })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        if let Some(index) = self.variables.as_ref().map(|bundle| bundle.find(name)).transpose()?.flatten() {
            return Ok(Some(index));
        }
        let Some(constants) = &self.constants else {
            return if self.variables.is_some() { Ok(None) } else { Err(self.nothing()) };
        };
        let variables = self.variables()?;
        Ok(constants.find(name)?.map(|at| variables + at))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        self.variables.as_ref()?.find_alias(alias)
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (part, at) = self.part(index)?;
        part.reader(at)
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let (part, at) = self.part(index)?;
        part.strings(at)
    }

    fn records(&self, _: usize) -> Option<(&RecordContainer, usize)> {
        None
    }

    fn take_records(&mut self) -> Option<RecordContainer> {
        None
    }

    fn is_vouched_for(&self, index: usize) -> bool {
        self.part(index).is_ok_and(|(part, at)| part.is_vouched_for(at))
    }

    fn is_made(&self, index: usize) -> bool {
        self.part(index).is_ok_and(|(part, at)| part.is_made(at))
    }

    fn claimed_rows(&self, index: usize) -> Option<u64> {
        self.part(index).ok().and_then(|(part, at)| part.claimed_rows(at))
    }

    fn lost(&self) -> Vec<String> {
        self.parts().flat_map(Container::lost).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.parts().flat_map(Container::notes).collect()
    }

    fn heap_bytes(&self) -> u64 {
        self.parts().map(Container::heap_bytes).sum()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::iter::once(self.pb.clone()).chain(self.variables.as_ref().map(Container::files).unwrap_or_default()).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        self.parts().flat_map(Container::facts).collect()
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (part, at) = self.part(index)?;
        part.tensor_facts(at)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.iter().cloned().chain(self.parts().flat_map(Container::warnings)).collect()
    }

    fn nothing(&self) -> Error {
        Error::Unsupported { what: format!("converting {}", self.pb.display()), detail: self.why.clone() }
    }

    fn tag_sets(&self) -> &[Vec<String>] {
        &self.tag_sets
    }

    fn signatures(&self) -> &[Signature] {
        &self.signatures
    }
}

//! A set of records that belong together, and its inputs.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::feature::{Encoding, Feature};
use super::stream::batches::{Batches, ReadSettings, Sequential};
use super::stream::framing::Framing;
use super::stream::inputs::{CheckCount, Claim, Input, Program, RecordFile, Wanted};
use super::stream::interleaved::Interleaved;
use super::stream::memory_pool::Pool;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::storage::blob::Storage;

/// Number of records scanned to find out what all of them are.
pub(crate) const FIRST_LOOK: u64 = 1000;

/// The inputs of a set.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// Inputs one after the other.
    Sequence(Vec<RecordInput>),
    /// Shards, each of any number of files, over which records were distributed; part 0 of each record is its number.
    Interleaved(Vec<Vec<RecordFile>>),
}

/// One input.
pub(crate) enum RecordInput {
    File(RecordFile),
    /// A stream that can be read once, and its name for messages.
    Once(Mutex<Option<Box<dyn Read + Send>>>, PathBuf),
    Program(Program),
}

impl fmt::Debug for RecordInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Once(_, name) => f.debug_tuple("Once").field(name).finish(),
            Self::Program(program) => program.fmt(f),
        }
    }
}

impl Inputs {
    /// Files, one after the other.
    pub(crate) fn files(files: impl IntoIterator<Item = RecordFile>) -> Self {
        Self::Sequence(files.into_iter().map(RecordInput::File).collect())
    }

    /// Bytes that a program makes of `path` each time they are read.
    pub(crate) fn program(
        path: &Path,
        start: impl Fn(&Wanted<'_>) -> Result<Box<dyn Read + Send>> + Send + Sync + 'static,
        (check, claim): (Option<CheckCount>, Option<Claim>),
    ) -> Self {
        let program = Program { path: path.to_owned(), start: Arc::new(start), check, claim, is_endless: false };
        Self::Sequence(vec![RecordInput::Program(program)])
    }

    /// The same, marked as endless or not.
    pub(crate) fn endless(mut self, is_endless: bool) -> Self {
        if let Self::Sequence(inputs) = &mut self {
            for input in inputs {
                if let RecordInput::Program(program) = input {
                    program.is_endless = is_endless;
                }
            }
        }
        self
    }
}

/// Records that belong together: all of a source, or of a split.
#[derive(Debug)]
pub(crate) struct RecordSet {
    /// The split, if there are several.
    pub(crate) split: Option<String>,
    pub(crate) inputs: Inputs,
    pub(crate) framing: Framing,
    /// Number of frames in a record.
    pub(crate) group: usize,
    /// The features known beforehand; those of Examples without metadata are found in the records.
    pub(crate) features: Vec<Feature>,
    /// Whether records may have other features.
    pub(crate) discovers: bool,
    /// Total number of records, as stated by metadata.
    pub(crate) total: Option<u64>,
    /// Number of records scanned at first, if that is enough to find their kind.
    pub(crate) first_look: u64,
}

impl RecordSet {
    /// Records without metadata.
    pub(crate) fn undescribed(inputs: Inputs) -> Self {
        Self {
            split: None,
            inputs,
            framing: Framing::TfRecord,
            group: 1,
            features: Vec::new(),
            discovers: true,
            total: None,
            first_look: FIRST_LOOK,
        }
    }

    /// Starts reading the records.
    ///
    /// # Errors
    /// Returns errors of the first files; [`Error::BadRequest`] for a pipe that has been read.
    pub(crate) fn open(&self, reading: ReadSettings, pool: &Arc<Pool>) -> Result<Box<dyn Batches>> {
        let inputs = match &self.inputs {
            Inputs::Interleaved(shards) => return Ok(Box::new(Interleaved::open(shards, self.framing, self.group, &reading, pool)?)),
            Inputs::Sequence(inputs) => inputs,
        };
        let input = |input: &RecordInput| match input {
            RecordInput::File(file) => Ok(Input::File(file.clone())),
            RecordInput::Program(program) => Ok(Input::Program(program.clone())),
            RecordInput::Once(bytes, name) => {
                let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
                let bytes = bytes.ok_or_else(|| BadRequest::ReadOnce { path: name.clone(), manifest: None })?;
                Ok(Input::Stream(bytes, name.clone()))
            }
        };
        let inputs = inputs.iter().map(input).collect::<Result<_>>()?;
        Ok(Box::new(Sequential::new(inputs, self.framing, self.group, reading, Arc::clone(pool))?))
    }

    /// Whether the records can be read any number of times.
    pub(crate) fn can_be_read_again(&self) -> bool {
        match &self.inputs {
            Inputs::Interleaved(_) => true,
            Inputs::Sequence(inputs) => !inputs.iter().any(|input| matches!(input, RecordInput::Once(..))),
        }
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let path = |input: &RecordInput| match input {
            RecordInput::File(file) => Some(file.path().to_owned()),
            RecordInput::Once(..) => None,
            RecordInput::Program(program) => Some(program.path.clone()),
        };
        match &self.inputs {
            Inputs::Sequence(inputs) => inputs.iter().filter_map(path).collect(),
            Inputs::Interleaved(shards) => shards.iter().flatten().map(|file| file.path().to_owned()).collect(),
        }
    }

    /// Number of records, as stated by metadata.
    pub(crate) fn expected(&self) -> Option<u64> {
        let of_input = |input: &RecordInput| if let RecordInput::File(file) = input { file.expected } else { None };
        match &self.inputs {
            _ if self.total.is_some() => self.total,
            Inputs::Sequence(inputs) if !inputs.is_empty() => inputs.iter().try_fold(0u64, |sum, input| sum.checked_add(of_input(input)?)),
            _ => None,
        }
    }

    /// Whether a program makes any of the records.
    pub(crate) fn is_made(&self) -> bool {
        matches!(&self.inputs, Inputs::Sequence(inputs) if inputs.iter().any(|input| matches!(input, RecordInput::Program(_))))
    }

    /// Whether a program makes endless records.
    pub(crate) fn is_endless(&self) -> bool {
        let is_endless = |input: &RecordInput| matches!(input, RecordInput::Program(program) if program.is_endless);
        matches!(&self.inputs, Inputs::Sequence(inputs) if inputs.iter().any(is_endless))
    }

    /// Number of records that programs promise.
    pub(crate) fn claimed(&self) -> Option<u64> {
        let of_input = |input: &RecordInput| match input {
            RecordInput::Program(program) => program.claim.as_ref()?(),
            RecordInput::File(file) => file.expected,
            RecordInput::Once(..) => None,
        };
        match &self.inputs {
            Inputs::Sequence(inputs) => inputs.iter().try_fold(0u64, |sum, input| sum.checked_add(of_input(input)?)),
            Inputs::Interleaved(_) => None,
        }
    }

    /// Appends the records of `other`.
    ///
    /// # Errors
    /// Returns why they do not fit these.
    pub(crate) fn append(&mut self, other: Self) -> Result<(), String> {
        let same = |one: &Feature, two: &Feature| (&one.name, &one.key, &one.declared) == (&two.name, &two.key, &two.declared);
        if self.framing != other.framing || self.group != other.group || self.discovers != other.discovers {
            return Err("its records are stored in another format".into());
        }
        if let Some((one, two)) = self.features.iter().zip(&other.features).find(|(one, two)| !same(one, two)) {
            let (one, two) = (one.describe(), two.describe());
            return Err(format!("it has {two}, the first has {one}"));
        }
        if self.features.len() != other.features.len() {
            return Err(format!("it has {} features, the first has {}", other.features.len(), self.features.len()));
        }
        match (&mut self.inputs, other.inputs) {
            (Inputs::Sequence(own), Inputs::Sequence(others)) => own.extend(others),
            _ => return Err("its elements are numbered, which gives no order across sources".into()),
        }
        self.total = self.total.zip(other.total).and_then(|(own, other)| own.checked_add(other));
        Ok(())
    }

    /// Whether the features are fully known without scanning records.
    pub(crate) fn is_known(&self) -> bool {
        let is_raw = |feature: &Feature| {
            feature.declared.as_ref().is_some_and(|declared| declared.encoding == Encoding::Raw && !declared.shape.contains(&None))
        };
        !self.discovers && self.features.iter().all(is_raw)
    }

    /// Total bytes of all files.
    pub(crate) fn stored_bytes(&self, storage: &dyn Storage) -> u64 {
        self.files().iter().filter_map(|path| storage.len_of(path)).sum()
    }
}

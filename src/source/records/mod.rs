//! Sources that are records one after the other: TFRecord files, tf.data files, streams of frames.
//!
//! Their tensors are columns: axis 0 is the record. Records are read from front to back, once, for any number of columns.

mod batch;
mod batches;
mod bytes;
mod container;
mod dealt;
mod feature;
mod files;
mod framing;
mod locate;
mod pool;
mod survey;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, Result};

pub(crate) use batch::Batch;
use batches::{Batches, Input, Sequential};
pub(crate) use batches::{Reading, RecordFile};
pub(crate) use bytes::{Compression, Patient, read_error, starts_with_record};
pub(crate) use container::RecordContainer;
use dealt::Dealt;
pub(crate) use feature::{Declared, Encoding, Feature, Items, Key, RECORDS};
pub(crate) use files::FileSet;
pub(crate) use framing::{Framing, ppm_header};
pub(crate) use locate::{Locator, Span, Stored};
pub(crate) use pool::Pool;
pub(crate) use survey::{First, Look, Stats, Survey, Widths, are_examples, look_at_batch};

/// Records that are looked at to tell what all of them are.
const FIRST_LOOK: u64 = 1000;

/// Starts what makes the bytes, until that is cancelled.
pub(crate) type StartProgram = Box<dyn Fn(&CancelToken) -> Result<Box<dyn Read + Send>> + Send + Sync>;

/// Where the bytes of records are.
pub(crate) enum Inputs {
    /// Files, one after the other.
    Files(Vec<RecordFile>),
    /// Shards, of any number of files, between which records were dealt; part 0 of each is its number.
    Dealt(Vec<Vec<RecordFile>>),
    /// What can be read once.
    Once(Mutex<Option<Box<dyn Read + Send>>>, PathBuf),
    /// What a program, or TensorFlow, makes of what lies at a path; started anew for each reading.
    Program(PathBuf, StartProgram),
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
            Self::Dealt(files) => f.debug_tuple("Dealt").field(files).finish(),
            Self::Once(_, name) => f.debug_tuple("Once").field(name).finish(),
            Self::Program(path, _) => f.debug_tuple("Program").field(path).finish(),
        }
    }
}

/// Records that belong together: all those of a source, or of a split.
#[derive(Debug)]
pub(crate) struct RecordSet {
    /// The split, where there are several.
    pub(crate) split: Option<String>,
    pub(crate) inputs: Inputs,
    pub(crate) framing: Framing,
    /// Frames that make a record.
    pub(crate) group: usize,
    /// The features that are known beforehand; those of Examples without metadata are found in the records.
    pub(crate) features: Vec<Feature>,
    /// Whether records may have other features than those.
    pub(crate) discovers: bool,
    /// How many records somebody says there are in all.
    pub(crate) total: Option<u64>,
    /// How many records are looked at to tell what they are, where not all are needed for that.
    pub(crate) first_look: u64,
}

impl RecordSet {
    /// Records that nobody has said anything about.
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

    /// Starts to read the records.
    ///
    /// # Errors
    /// Those of the first files; [`Error::BadRequest`] for a pipe that has been read.
    pub(crate) fn open(&self, reading: Reading, pool: &Arc<Pool>) -> Result<Box<dyn Batches>> {
        let inputs = match &self.inputs {
            Inputs::Files(files) => files.iter().cloned().map(Input::File).collect(),
            Inputs::Dealt(shards) => return Ok(Box::new(Dealt::open(shards, self.framing, self.group, &reading, pool)?)),
            Inputs::Once(bytes, name) => {
                let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
                let bytes = bytes.ok_or_else(|| Error::bad_request(format!("{} can be read once only, and has been", name.display())))?;
                vec![Input::Stream(bytes, name.clone())]
            }
            Inputs::Program(path, start) => vec![Input::Stream(start(&reading.cancel)?, path.clone())],
        };
        Ok(Box::new(Sequential::new(inputs, self.framing, self.group, reading, Arc::clone(pool))?))
    }

    /// Whether the records can be read any number of times.
    pub(crate) fn can_be_read_again(&self) -> bool {
        !matches!(self.inputs, Inputs::Once(..))
    }

    fn files(&self) -> Vec<PathBuf> {
        match &self.inputs {
            Inputs::Files(files) => files.iter().map(|file| file.path.clone()).collect(),
            Inputs::Dealt(shards) => shards.iter().flatten().map(|file| file.path.clone()).collect(),
            Inputs::Once(..) => Vec::new(),
            Inputs::Program(path, _) => vec![path.clone()],
        }
    }

    /// How many records somebody says there are.
    pub(crate) fn expected(&self) -> Option<u64> {
        match &self.inputs {
            _ if self.total.is_some() => self.total,
            Inputs::Files(files) if !files.is_empty() => files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.expected?)),
            _ => None,
        }
    }

    /// Whether all there is to know of the features is known without looking at records.
    pub(crate) fn is_known(&self) -> bool {
        let is_raw = |feature: &Feature| {
            feature.declared.as_ref().is_some_and(|declared| declared.encoding == Encoding::Raw && !declared.shape.contains(&None))
        };
        !self.discovers && self.features.iter().all(is_raw)
    }

    /// Bytes of all files.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.files().iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }
}

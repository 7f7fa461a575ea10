//! The inputs of records: files, pipes and programs.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::cancel::CancelToken;

/// A file of records.
#[derive(Debug, Clone)]
pub(crate) struct RecordFile {
    probe: Probe,
    /// Number of records, as stated by metadata.
    pub(crate) expected: Option<u64>,
    /// Offset of the first record.
    pub(crate) start: u64,
}

impl RecordFile {
    /// A file of records from its start.
    pub(crate) fn new(probe: &Probe, expected: Option<u64>) -> Self {
        Self { probe: probe.clone(), expected, start: 0 }
    }

    pub(crate) fn path(&self) -> &Path {
        self.probe.path()
    }

    /// The file, opened once so that every pass reads the same one.
    ///
    /// # Errors
    /// Returns [`Error::Io`].
    pub(crate) fn open(&self) -> Result<Arc<dyn Blob>> {
        self.probe.open()
    }

    /// The same, with the first record at `start`.
    pub(crate) fn starting_at(self, start: u64) -> Self {
        Self { start, ..self }
    }
}

/// An opened input of records.
pub(crate) enum Input {
    File(RecordFile),
    /// A stream that can be read once, and its name for messages.
    Stream(Box<dyn Read + Send>, PathBuf),
    /// A program, started when its turn comes.
    Program(Program),
}

/// Starts a program that makes the bytes.
pub(crate) type StartProgram = Arc<dyn Fn(&Wanted<'_>) -> Result<Box<dyn Read + Send>> + Send + Sync>;

/// What is requested of a program; it may stop after that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Ends the program early.
    pub(crate) cancel: &'a CancelToken,
    /// At most this many records.
    pub(crate) records: u64,
    /// At most this many rows, for records concatenated along axis 0.
    pub(crate) rows: u64,
}

/// Checks the number of records of a program that ended well; fails if some must be missing.
pub(crate) type CheckCount = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// A program, or TensorFlow, that makes records from a path; started anew for each reading.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) start: StartProgram,
    pub(crate) check: Option<CheckCount>,
    /// Finds out how many records there should be.
    pub(crate) claim: Option<Claim>,
    /// Whether it makes endless records.
    pub(crate) is_endless: bool,
}

/// Finds out how many records there should be.
pub(crate) type Claim = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.path).finish()
    }
}

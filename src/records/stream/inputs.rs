//! Where records come from: files, pipes and programs.

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
    /// How many records somebody says it has.
    pub(crate) expected: Option<u64>,
    /// Where the first of them starts.
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

    /// The file, which is opened once: every pass reads the same.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(&self) -> Result<Arc<dyn Blob>> {
        self.probe.open()
    }

    /// The same, with the first record at `start`.
    pub(crate) fn starting_at(self, start: u64) -> Self {
        Self { start, ..self }
    }
}

/// Where bytes of records come from.
pub(crate) enum Input {
    File(RecordFile),
    /// What can be read once, and its name for messages.
    Stream(Box<dyn Read + Send>, PathBuf),
    /// What is started when its turn has come.
    Program(Program),
}

/// Starts what makes the bytes.
pub(crate) type StartProgram = Arc<dyn Fn(&Wanted<'_>) -> Result<Box<dyn Read + Send>> + Send + Sync>;

/// What is wanted of a program: nothing behind it need be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Ends it early.
    pub(crate) cancel: &'a CancelToken,
    /// At most so many records.
    pub(crate) records: u64,
    /// At most so many rows, of records that are put together along axis 0.
    pub(crate) rows: u64,
}

/// Looks at how many records came out of a program that ended well; fails if some must be missing.
pub(crate) type CheckCount = Arc<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// What a program, or TensorFlow, makes of what lies at a path; started anew for each reading.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) start: StartProgram,
    pub(crate) check: Option<CheckCount>,
    /// How many records there should be, found out where it is asked for.
    pub(crate) claim: Option<Claim>,
    /// Whether it makes records without end.
    pub(crate) is_endless: bool,
}

/// Tells how many records there should be.
pub(crate) type Claim = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.path).finish()
    }
}

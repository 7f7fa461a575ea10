//! The crate's error type, with variants split by who has to act.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All errors, with one variant for each party that has to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment failed: a full disk, a missing permission, a missing file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `create`, `sync`.
        action: &'static str,
        /// The file or directory of the action.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The output exists, and replacing it was not requested. It is left unchanged.
    #[error("{} already exists and was left as it is: {hint}", path.display())]
    OutputExists {
        /// The output's final name.
        path: PathBuf,
        /// What the caller can do.
        hint: &'static str,
    },
    /// Renaming a set of files failed halfway, and not all renames could be undone.
    #[error("files that belong together are not all new and not all old: {}", Partly { new, old, kept })]
    NotUndone {
        /// What went wrong first.
        #[source]
        failure: Box<Error>,
        /// The files that have the new content.
        new: Vec<PathBuf>,
        /// The files that still have the old content.
        old: Vec<PathBuf>,
        /// Where the replaced old files are kept.
        kept: Vec<PathBuf>,
    },
    /// A file breaks its own format, or its bytes do not match their checksum.
    #[error("{}: {what}{}: {detail}", path.display(), At(*offset))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part of the format that is broken.
        what: String,
        /// Where in the file, in bytes, if the damage has one position.
        offset: Option<u64>,
        /// What was found and what was expected.
        detail: String,
    },
    /// The input is valid, but this version cannot convert it.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// What was found in the input.
        what: String,
        /// Why, and what to do instead.
        detail: String,
    },
    /// The output cannot hold a value exactly, and changed values were not allowed.
    #[error("element {index:?} of {what} {detail}")]
    Lossy {
        /// The tensor.
        what: String,
        /// The index of the first such value in the output.
        index: Vec<u64>,
        /// The value, what it would become, and what to do instead.
        detail: String,
    },
    /// More memory or disk space is needed than is available or allowed.
    #[error("not enough {what}: {asked} bytes needed, {}", Available(*allowed))]
    Limit {
        /// Memory, or disk space and where.
        what: String,
        /// Bytes needed.
        asked: u64,
        /// Bytes available, if the system reports them.
        allowed: Option<u64>,
    },
    /// Something that the caller named does not exist.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// The kind of thing: a checkpoint, a shard, a source.
        what: &'static str,
        /// What was looked for and what was found instead.
        detail: String,
    },
    /// No tensor has the requested name.
    #[error("no tensor {name:?} in {}{}", path.display(), DidYouMean(nearest))]
    NoSuchTensor {
        /// The source that was searched.
        path: PathBuf,
        /// The requested name.
        name: String,
        /// The most similar names, best first.
        nearest: Vec<String>,
    },
    /// The requested view has another element type than the array.
    #[error("the array holds {actual}, a view of {asked} was asked for")]
    WrongDtype {
        /// The name of the array's dtype.
        actual: &'static str,
        /// The requested Rust type.
        asked: &'static str,
    },
    /// The request makes no sense.
    #[error("{detail}")]
    BadRequest {
        /// What was requested, and what would be possible.
        detail: String,
    },
    /// TensorFlow reported an error.
    #[error("TensorFlow failed while {action}: {detail}")]
    TensorFlow {
        /// What was being done, with the tensor and the part of it.
        action: String,
        /// TensorFlow's code and message; the message names the operation.
        detail: String,
    },
    /// The caller cancelled; no files were left behind.
    #[error("cancelled; nothing was written")]
    Cancelled,
}

impl Error {
    /// An adapter for `map_err` that adds the action and the path. If one of our own errors came through an interface of the
    /// standard library, it is returned unchanged.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| source.downcast().unwrap_or_else(|source| Self::Io { action, path: path.to_owned(), source })
    }

    /// Like [`io`](Self::io), for an output in the directory `dir`. If `dir` does not exist, the message says what to do.
    pub(crate) fn io_in(action: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let is_missing = source.kind() == io::ErrorKind::NotFound && !dir.exists();
            let hint = || io::Error::new(io::ErrorKind::NotFound, "the directory does not exist: create it first");
            Self::io(action, dir)(if is_missing { hint() } else { source })
        }
    }

    /// A broken file, without a single position to report.
    pub(crate) fn malformed(path: &Path, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), offset: None, detail: detail.into() }
    }

    /// A broken file, with the offset of the damage.
    pub(crate) fn malformed_at(path: &Path, what: impl Into<String>, offset: u64, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), offset: Some(offset), detail: detail.into() }
    }

    /// A request that makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::BadRequest { detail: detail.into() }
    }
}

/// The error of a parser in [`crate::format`], which knows byte offsets but no files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// Byte offset inside the slice that was parsed.
    pub(crate) offset: u64,
    /// The part of the format.
    pub(crate) what: &'static str,
    /// What was found and what was expected.
    pub(crate) detail: String,
}

impl ParseError {
    pub(crate) fn new(offset: usize, what: &'static str, detail: impl Into<String>) -> Self {
        Self { offset: offset as u64, what, detail: detail.into() }
    }

    /// The same error, `base` bytes further into the file.
    pub(crate) fn shifted(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// Adds the path, where it is known.
    pub(crate) fn in_file(self, path: &Path) -> Error {
        Error::malformed_at(path, self.what, self.offset, self.detail)
    }
}

struct Partly<'a> {
    new: &'a [PathBuf],
    old: &'a [PathBuf],
    kept: &'a [PathBuf],
}

impl fmt::Display for Partly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |paths: &[PathBuf]| match paths {
            [] => "none".to_owned(),
            paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        write!(f, "new are {}; old are {}", list(self.new), list(self.old))?;
        if !self.kept.is_empty() {
            write!(f, "; the replaced files are kept: {}", list(self.kept))?;
        }
        Ok(())
    }
}

struct Available(Option<u64>);

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes available"),
            None => f.write_str("more than are available"),
        }
    }
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}

struct DidYouMean<'a>(&'a [String]);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{} {name:?}", if i == 0 { "; did you mean" } else { " or" })?;
        }
        if self.0.is_empty() {
            f.write_str("; `Source::tensors` lists what there is")?;
        }
        Ok(())
    }
}

//! The crate's error, split by who has to act.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, one variant for each party that has to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment failed: a disk, a permission, a file that is not there.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `create`, `sync`.
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The output exists and replacing it was not asked for; it is left as it was.
    #[error("{} already exists and was left as it is: {hint}", path.display())]
    OutputExists {
        /// The output's final name.
        path: PathBuf,
        /// What can be done.
        hint: &'static str,
    },
    /// A failure while files that belong together got their names, after which not all of them could be put back.
    #[error("files that belong together are not all new and not all old: {}", Partly { new, old, kept })]
    NotUndone {
        /// What went wrong first.
        #[source]
        failure: Box<Error>,
        /// The files that are new.
        new: Vec<PathBuf>,
        /// Those that are still the old ones.
        old: Vec<PathBuf>,
        /// Where those lie that the new ones replaced.
        kept: Vec<PathBuf>,
    },
    /// A file breaks its own format, or its bytes do not match their checksum.
    #[error("{}: {what}{}: {detail}", path.display(), At(*offset))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part of the format that is broken.
        what: String,
        /// Where in the file, in bytes, if there is one place.
        offset: Option<u64>,
        /// What was found and what was expected.
        detail: String,
    },
    /// Valid, but not something this version can convert.
    #[error("{what} is not supported: {detail}")]
    Unsupported {
        /// What was met.
        what: String,
        /// Why, and what to do instead.
        detail: String,
    },
    /// A value that the output cannot hold as it is, where that was not to be let pass.
    #[error("element {index:?} of {what} {detail}")]
    Lossy {
        /// The tensor.
        what: String,
        /// Where in the output the first such value would be.
        index: Vec<u64>,
        /// What it is, what it would become, and what to do instead.
        detail: String,
    },
    /// More memory or disk space would be needed than there is or than was allowed.
    #[error("not enough {what}: {asked} bytes needed, {}", Available(*allowed))]
    Limit {
        /// Memory, or disk space and where.
        what: String,
        /// Bytes needed.
        asked: u64,
        /// Bytes there are, where the system says.
        allowed: Option<u64>,
    },
    /// Something that was named is not there.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// The kind of thing: a checkpoint, a shard, a source.
        what: &'static str,
        /// What was looked for and what was found instead.
        detail: String,
    },
    /// No tensor has the name that was asked for.
    #[error("no tensor {name:?} in {}{}", path.display(), DidYouMean(nearest))]
    NoSuchTensor {
        /// The source that was searched.
        path: PathBuf,
        /// The name as it was given.
        name: String,
        /// The names nearest to it, best first.
        nearest: Vec<String>,
    },
    /// A view of another element type than the array holds was asked for.
    #[error("the array holds {actual}, a view of {asked} was asked for")]
    WrongDtype {
        /// The name of the array's dtype.
        actual: &'static str,
        /// The Rust type that was asked for.
        asked: &'static str,
    },
    /// The caller asked for something that makes no sense.
    #[error("{detail}")]
    BadRequest {
        /// What was asked and what would be possible.
        detail: String,
    },
    /// A running TensorFlow refused what it was asked for.
    #[error("TensorFlow failed while {action}: {detail}")]
    TensorFlow {
        /// What was being done, with the tensor and the part of it.
        action: String,
        /// What TensorFlow says: a code and a message, which names the operation.
        detail: String,
    },
    /// The caller cancelled; nothing was left behind.
    #[error("cancelled; nothing was written")]
    Cancelled,
}

impl Error {
    /// An adapter for `map_err` that says what was being done and to which file. One of our own errors, which came through an
    /// interface of the standard library, says that itself.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| source.downcast().unwrap_or_else(|source| Self::Io { action, path: path.to_owned(), source })
    }

    /// A broken file without one place to point at.
    pub(crate) fn malformed(path: &Path, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), offset: None, detail: detail.into() }
    }

    /// A broken file, with the byte at which it is broken.
    pub(crate) fn malformed_at(path: &Path, what: impl Into<String>, offset: u64, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into(), offset: Some(offset), detail: detail.into() }
    }

    /// A request that makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::BadRequest { detail: detail.into() }
    }
}

/// What a parser in [`crate::format`] reports: it knows bytes, not files.
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

    /// Adds the file, once someone who knows it is reached.
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
            write!(f, "; what the new ones replaced is kept: {}", list(self.kept))?;
        }
        Ok(())
    }
}

struct Available(Option<u64>);

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes available"),
            None => f.write_str("more than there are"),
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
            write!(f, "; `mmconvert ls` lists what there is")?;
        }
        Ok(())
    }
}

//! The crate's error type, with variants split by who has to act. Each kind has a code: programs match codes, people read texts.

pub(crate) mod request;
pub(crate) mod texts;

use std::path::{Path, PathBuf};
use std::{fmt, io};

use strum::VariantNames;

use self::request::BadRequest;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// All errors, with one variant for each party that has to act.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
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
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// TensorFlow reported an error.
    #[strum(serialize = "tensorflow")]
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
    /// The code of this kind of error, in lower case with hyphens: `malformed`, or the reason of a [`BadRequest`]. Codes stay the same
    /// between versions; texts may change.
    ///
    /// ```
    /// use mmconvert::{BadRequest, Error};
    ///
    /// assert_eq!(Error::Cancelled.code(), "cancelled");
    /// assert_eq!(Error::from(BadRequest::RowsOfScalar).code(), "rows-of-scalar");
    /// ```
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(request) => request.code(),
            kind => kind.into(),
        }
    }

    /// All codes.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().copied().filter(|code| *code != "bad-request").chain(BadRequest::codes())
    }

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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_kind_has_a_code_of_its_own() {
        let codes: Vec<&str> = Error::codes().collect();
        assert_eq!(codes.len(), codes.iter().collect::<HashSet<_>>().len());
        // Of the kinds of both enums, these are only around a kind.
        let around = Error::VARIANTS.len() + BadRequest::VARIANTS.len() - codes.len();
        assert_eq!(around, ["bad-request", "of-tensor", "of-feature", "of-input"].len());
        for code in codes {
            let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            assert!(code.split('-').all(is_word), "{code}");
        }
    }

    #[test]
    fn a_code_is_that_of_the_reason() {
        let scalar = || BadRequest::RowsOfScalar;
        for request in [scalar(), scalar().of_tensor("x"), scalar().of_feature("x"), scalar().of_input(Path::new("x"), "y").of_tensor("z")]
        {
            assert_eq!(Error::from(request).code(), "rows-of-scalar");
        }
        assert_eq!(Error::TensorFlow { action: String::new(), detail: String::new() }.code(), "tensorflow");
        assert_eq!(scalar().of_feature("x").to_string(), "feature \"x\": a scalar has no rows to choose from");
    }

    #[test]
    fn options_with_the_same_purpose_are_named_together() {
        let options = [("`a`", "lists"), ("`b`", "images"), ("`c`", "lists")].map(|(option, needs)| (option.to_owned(), needs)).to_vec();
        assert_eq!(
            BadRequest::WithoutEffect { options }.to_string(),
            "`a`, `c` have no effect on the selection: they apply to lists; `b` has no effect on the selection: it applies to images"
        );
    }
}

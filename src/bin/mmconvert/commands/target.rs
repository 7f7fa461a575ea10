//! Decides the form of an output from its name and from what exists there.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mmconvert::Result;

use super::usage;

/// The extension of a single file for many tensors.
pub(super) const SAFETENSORS: &str = "safetensors";
const NPY: &str = "npy";
/// The name for standard output.
const STDOUT: &str = "-";

/// The form of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A `.npy` file.
    File(PathBuf),
    /// A directory with a `.npy` for each tensor.
    Directory(PathBuf),
    /// A safetensors file.
    Packed(PathBuf),
    /// Standard output.
    Stdout,
}

impl Target {
    /// The form of `out` for this many tensors; `None` if their number is not known yet.
    ///
    /// # Errors
    /// Returns [`BadRequest::Custom`](mmconvert::BadRequest::Custom) for the name of another format, or of one that cannot hold so many tensors.
    pub(super) fn of(out: &Path, tensors: Option<usize>) -> Result<Self> {
        let refused = |detail: String| Err(usage(detail));
        let several = tensors.filter(|&tensors| tensors > 1);
        if out == Path::new(STDOUT) {
            return match several {
                Some(tensors) => {
                    refused(format!("standard output takes one tensor, but {tensors} are selected: name one, or write them to a directory"))
                }
                None => Ok(Self::Stdout),
            };
        }
        if out.as_os_str().as_bytes().ends_with(b"/") || out.is_dir() {
            return Ok(Self::Directory(out.to_owned()));
        }
        let suffix = out.extension().map(|suffix| suffix.to_string_lossy().into_owned());
        match (suffix.as_deref(), several) {
            (Some(SAFETENSORS), _) => Ok(Self::Packed(out.to_owned())),
            (Some(NPY), Some(tensors)) => refused(format!(
                "{tensors} tensors do not fit into {}, a .npy holds one: name one of them, or write to a directory ({}/) or to one file \
                 ({})",
                out.display(),
                out.with_extension("").display(),
                out.with_extension(SAFETENSORS).display()
            )),
            (None, Some(_)) => Ok(Self::Directory(out.to_owned())),
            (Some(NPY) | None, None) => Ok(Self::File(out.to_owned())),
            (Some(suffix), _) => refused(format!(
                "{}: cannot write .{suffix}, only .npy and .safetensors; for a directory of that name write {}/",
                out.display(),
                out.display()
            )),
        }
    }

    /// Whether a path names a safetensors file.
    pub(super) fn is_packed(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == SAFETENSORS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_becomes_of_tensors() {
        let of = |out: &str, tensors| Target::of(Path::new(out), Some(tensors)).map_err(|error| error.to_string());
        let path = PathBuf::from;
        assert_eq!(of("no/x.npy", 1), Ok(Target::File(path("no/x.npy"))));
        assert_eq!(of("no/x", 1), Ok(Target::File(path("no/x"))));
        assert_eq!(of("no/x", 2), Ok(Target::Directory(path("no/x"))));
        assert_eq!(of("no/x.npy/", 1), Ok(Target::Directory(path("no/x.npy/"))));
        assert_eq!(of("no/x.safetensors", 2), Ok(Target::Packed(path("no/x.safetensors"))));
        assert_eq!(of("-", 1), Ok(Target::Stdout));
        for (out, tensors) in [("no/x.npy", 2), ("-", 2), ("no/x.npz", 1), ("no/x.npz", 2), ("no/x.h5", 2), ("no/x.v1", 1)] {
            assert!(of(out, tensors).is_err(), "{out} {tensors}");
        }
    }
}

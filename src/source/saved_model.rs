//! SavedModel directories: the variables are a bundle under `variables/`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::bundle;
use crate::error::{Error, Result};
use crate::format::varint;
use crate::spec::memory_len;

/// The file that makes a directory a SavedModel.
pub(crate) const PB: &str = "saved_model.pb";
/// Other forms of that file.
pub(crate) const OTHER_FORMS: &[(&str, &str)] =
    &[("saved_model.pbtxt", "a SavedModel in text form"), ("saved_model.cpb", "a chunked SavedModel")];

/// Checks that `dir` is a SavedModel; returns the prefix of its variables.
pub(crate) fn check(dir: &Path) -> Result<PathBuf> {
    let pb = dir.join(PB);
    if !pb.is_file() {
        let what = OTHER_FORMS.iter().find(|(name, _)| dir.join(name).is_file()).map_or("a SavedModel", |(_, what)| what);
        return Err(Error::Unsupported { what: what.into(), detail: format!("{} has no {PB}", dir.display()) });
    }
    check_outline(&pb)?;
    let prefix = dir.join("variables").join("variables");
    let index = bundle::index_path(&prefix);
    if !index.is_file() {
        let detail = format!("the SavedModel {} has no {}", dir.display(), index.display());
        return Err(Error::NotFound { what: "variables", detail });
    }
    Ok(prefix)
}

/// Walks the outermost fields of a `SavedModel` message without reading what is in them.
///
/// Field 1 is the schema version, field 2 a graph (`tensorflow/core/protobuf/saved_model.proto`); a graph of 2 GiB is skipped, not read.
fn check_outline(path: &Path) -> Result<()> {
    const WHAT: &str = "SavedModel message";
    const SCHEMA_VERSION: u64 = 1 << 3;
    const META_GRAPH: u64 = 2 << 3 | 2;
    /// A tag and a length.
    const MOST_HEADER: u64 = 20;
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    let (mut at, mut graphs) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    let mut buffered = 0..0;
    while at < len {
        if at < buffered.start || (at + MOST_HEADER > buffered.end && buffered.end < len) {
            let n = file.read_at(&mut buffer, at).map_err(Error::io("read", path))?;
            if n == 0 {
                return Err(Error::malformed_at(path, WHAT, at, "the file ends here; it was longer before"));
            }
            buffered = at..at + n as u64;
        }
        let front = &buffer[memory_len(at - buffered.start)..memory_len(buffered.end - buffered.start)];
        let malformed = |detail: String| Error::malformed_at(path, WHAT, at, detail);
        let number = |from: usize| varint::read_u64(front.get(from..).unwrap_or_default(), from, WHAT).map_err(|e| malformed(e.detail));
        let (tag, tag_len) = number(0)?;
        let size = match tag & 7 {
            0 => {
                let (value, value_len) = number(tag_len)?;
                if tag == SCHEMA_VERSION && value != 1 {
                    return Err(malformed(format!("schema version is {value}, expected 1")));
                }
                (tag_len + value_len) as u64
            }
            1 => tag_len as u64 + 8,
            2 => {
                let (value, value_len) = number(tag_len)?;
                graphs += u64::from(tag == META_GRAPH);
                ((tag_len + value_len) as u64).saturating_add(value)
            }
            5 => tag_len as u64 + 4,
            wire => return Err(malformed(format!("tag {tag:#x} has wire type {wire}, expected 0, 1, 2 or 5"))),
        };
        at = at
            .checked_add(size)
            .filter(|&end| end <= len)
            .ok_or_else(|| malformed(format!("a field of {size} bytes, {} bytes are left", len - at)))?;
    }
    if graphs == 0 {
        return Err(Error::malformed(path, WHAT, format!("no graph in {len} bytes")));
    }
    Ok(())
}

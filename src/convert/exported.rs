//! The results of an export.

use std::path::PathBuf;

use crate::error::Error;
use crate::options::request::Request;
use crate::output::report::Report;
use crate::reader::checksums::Verified;
use crate::source::opened::Source;
use crate::types::name::Name;

/// The result of an export: what was written, and what was skipped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Export {
    /// The arrays, in the order of the source.
    pub outputs: Vec<Exported>,
    /// The tensors that cannot be converted.
    pub skipped: Vec<Skipped>,
}

/// One array in the directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exported {
    /// The tensor's name.
    pub name: Name,
    /// The array's file.
    pub path: PathBuf,
    /// The report of its conversion.
    pub report: Report,
}

/// One tensor that was not converted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Skipped {
    /// The tensor's name.
    pub name: Name,
    /// The reason.
    pub reason: String,
}

/// Bytes of the elements of arrays.
pub(crate) fn nbytes_of(outputs: &[Exported]) -> u64 {
    outputs.iter().map(|output| output.report.nbytes).fold(0, u64::saturating_add)
}

/// Reports tensors as verified that a checksum over several tensors covers; it is compared when the last of them has been read.
pub(crate) fn vouch(source: &Source, outputs: &mut [Exported], request: &Request) {
    for output in outputs.iter_mut().filter(|output| request.run.verify && output.report.verified != Verified::Full) {
        if source.vouches_for(&output.name) {
            output.report.verified = Verified::Full;
        }
    }
}

pub(crate) fn nothing_to_convert(source: &Source, skipped: &[Skipped]) -> Error {
    let detail = match skipped.first() {
        Some(first) if skipped.len() == 1 => format!("{}: {}", first.name, first.reason),
        Some(first) => format!("none of {} tensors can be converted: {}: {}", skipped.len(), first.name, first.reason),
        None => "there are no tensors".to_owned(),
    };
    Error::Unsupported { what: format!("converting {}", source.path().display()), detail }
}

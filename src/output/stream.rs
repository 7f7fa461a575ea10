//! Writes an array front to back to a pipe or any other writer.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::npy::Header;

/// Name of the destination in error messages.
pub(crate) const TARGET: &str = "the stream";

/// The error for bytes that could not be written.
pub(crate) fn write_error(error: std::io::Error) -> Error {
    // A closed pipe is a failure here: the array is not complete.
    let source = if error.kind() == std::io::ErrorKind::BrokenPipe { std::io::Error::other(error.to_string()) } else { error };
    Error::Io { action: "write the array to", path: Path::new(TARGET).to_owned(), source }
}

/// Writes the header.
pub(crate) fn write_header(header: &Header, out: &mut dyn Write) -> Result<()> {
    out.write_all(&header.encode(header.data_start())).map_err(write_error)
}

//! An array that goes out front to back, to a pipe or whatever else takes bytes.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::npy::Header;

/// What messages call where the bytes go.
pub(crate) const TARGET: &str = "the stream";

/// The error for bytes that nobody takes.
pub(crate) fn write_error(error: std::io::Error) -> Error {
    // That the other side has gone is a failure here: the array is not complete.
    let source = if error.kind() == std::io::ErrorKind::BrokenPipe { std::io::Error::other(error.to_string()) } else { error };
    Error::Io { action: "write the array to", path: Path::new(TARGET).to_owned(), source }
}

/// Writes what stands before the elements.
pub(crate) fn write_header(header: &Header, out: &mut dyn Write) -> Result<()> {
    out.write_all(&header.encode(header.data_start())).map_err(write_error)
}

//! Decompresses zlib values.

use flate2::{Decompress, FlushDecompress, Status};

use super::problem::Problem;
use crate::types::size::memory_len;

/// The decompressed length of `bytes`.
pub(crate) fn inflated_len(bytes: &[u8]) -> Option<u64> {
    let mut len = 0;
    inflate_parts(bytes, |part| len += part.len() as u64).ok()?;
    Some(len)
}

/// Appends the decompressed `bytes`.
pub(crate) fn inflate_all(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    inflate_parts(bytes, |part| out.extend_from_slice(part))
}

/// Calls `each` with parts of the decompressed `bytes`.
pub(crate) fn inflate_parts(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Problem> {
    let mut state = Decompress::new(true);
    let mut part = [0; 16 << 10];
    loop {
        let before = state.total_out();
        let status = state.decompress(&bytes[memory_len(state.total_in())..], &mut part, FlushDecompress::None);
        let status = status.map_err(|error| Problem::Bad(format!("has bytes that are not zlib: {error}")))?;
        let written = memory_len(state.total_out() - before);
        each(&part[..written]);
        match status {
            Status::StreamEnd if memory_len(state.total_in()) == bytes.len() => return Ok(()),
            Status::StreamEnd => return Err(Problem::Bad("has bytes after the end of its zlib stream".into())),
            _ if written == 0 && memory_len(state.total_in()) == bytes.len() => {
                return Err(Problem::Bad("has a zlib stream that is cut".into()));
            }
            _ => {}
        }
    }
}

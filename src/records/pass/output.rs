//! Destinations of rows: a file, or a callback that compares them.

use std::path::PathBuf;
use std::sync::Arc;

use super::array::RecordArray;
use super::plan::MIN_UNIT;
use crate::error::{Error, Result};
use crate::options::method::Method;
use crate::output::private_file::PrivateFile;
use crate::output::sink::NpySink;
use crate::types::size::memory_len;
use crate::types::spec::unravel;

/// Destination of the rows of an array.
pub(crate) enum ArrayOutput<'a> {
    File {
        sink: Arc<NpySink>,
        /// The file, if the array is all of it.
        whole: Option<Arc<PrivateFile>>,
        /// The counted size in bytes, if rows were counted first, and the source's path.
        counted: Option<(u64, PathBuf)>,
        method: Method,
    },
    /// A callback that gets the bytes as they would be written, with their offset.
    Check(&'a (dyn Fn(u64, &[u8]) -> Result<()> + Sync)),
}

impl ArrayOutput<'_> {
    pub(crate) fn reserve(&self, nbytes: u64) -> Result<()> {
        match self {
            Self::File { sink, .. } => {
                self.check_counted(nbytes)?;
                sink.reserve(nbytes)
            }
            Self::Check(_) => Ok(()),
        }
    }

    /// Frees the space of an output that is no longer needed. No thread may be writing.
    pub(crate) fn give_up(&self) {
        if let Self::File { sink, whole: Some(file), .. } = self {
            // What failed belongs to an output that is given up.
            let _ = sink.settle();
            // The file is removed at the end in any case.
            let _ = file.set_len(0);
        }
    }

    /// Bytes not on disk yet.
    pub(crate) fn held(&self) -> u64 {
        match self {
            Self::File { sink, .. } => sink.behind().held_and_peak().0,
            Self::Check(_) => 0,
        }
    }

    /// Casts and writes elements; `at` is their byte offset before the cast.
    pub(crate) fn put(&self, array: &RecordArray, at: u64, bytes: &[u8], cast: &mut Vec<u8>, most: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if array.decoder.is_copy() {
            return self.place(at, bytes);
        }
        let (stored, written) = (array.row.dtype().item_len(), array.written.item_len());
        let step = memory_len(most.max(MIN_UNIT)) / stored;
        for (index, part) in bytes.chunks(step * stored).enumerate() {
            let first = at / stored as u64 + (index * step) as u64;
            cast.resize(part.len() / stored * written, 0);
            array.decoder.decode(part, cast).map_err(|odd| {
                let element = first + odd as u64;
                let row = array.row.elements().max(1);
                let index = [vec![element / row], unravel(element % row, array.row.shape())].concat();
                let detail = array.decoder.explain(&part[odd * stored..][..stored], &cast[odd * written..][..written]);
                Error::Lossy { what: format!("feature {:?}", array.name), index, detail }
            })?;
            self.place(first * written as u64, cast)?;
        }
        Ok(())
    }

    fn place(&self, at: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File { sink, .. } => {
                let end = at + bytes.len() as u64;
                self.check_counted(end)?;
                sink.place(at..end, bytes)
            }
            Self::Check(check) => check(at, bytes),
        }
    }

    /// Refuses more bytes than were counted, which would overwrite the array that follows.
    fn check_counted(&self, end: u64) -> Result<()> {
        match self {
            Self::File { counted: Some((most, source)), .. } if end > *most => {
                let detail = format!("an array had {most} bytes when counted and now has {end}: it was written to while it was being read");
                Err(Error::malformed(source, "source", detail))
            }
            _ => Ok(()),
        }
    }
}

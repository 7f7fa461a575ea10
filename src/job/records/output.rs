//! Where rows go: into a file, or to somebody who compares them.

use std::sync::Arc;

use super::{MIN_UNIT, RecordArray};
use crate::error::{Error, Result};
use crate::method::Method;
use crate::sink::{NpySink, PrivateFile};
use crate::spec::{memory_len, unravel};

/// Where rows go.
pub(crate) enum Output<'a> {
    File {
        sink: Arc<NpySink>,
        file: Arc<PrivateFile>,
        method: Method,
    },
    /// To somebody who looks at them: bytes as they would be written, and where.
    Check(&'a (dyn Fn(u64, &[u8]) -> Result<()> + Sync)),
}

impl Output<'_> {
    pub(super) fn reserve(&self, nbytes: u64) -> Result<()> {
        match self {
            Self::File { sink, .. } => sink.reserve(nbytes),
            Self::Check(_) => Ok(()),
        }
    }

    /// Gives back the space of what nobody wants any more. Nobody may be writing.
    pub(super) fn give_up(&self) {
        if let Self::File { file, .. } = self {
            // It is removed at the end in any case.
            let _ = file.file().set_len(0);
        }
    }

    /// Bytes on their way to the disk.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::File { sink, .. } => sink.behind().held_and_peak().0,
            Self::Check(_) => 0,
        }
    }

    /// Takes elements that start at byte `at` of the array as it is put together.
    pub(super) fn put(&self, array: &RecordArray, at: u64, bytes: &[u8], cast: &mut Vec<u8>, most: u64) -> Result<()> {
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
            Self::File { sink, .. } => sink.place(at..at + bytes.len() as u64, bytes),
            Self::Check(check) => check(at, bytes),
        }
    }
}

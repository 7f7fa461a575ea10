//! Writes to a file that go straight from memory to the disk (`O_DIRECT`).

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::os::direct::Alignment;
use crate::os::{self, SystemCalls};

/// Most files that are open a second time for direct writes. Outputs beyond that (hundreds of columns) are short or written in short pieces,
/// and descriptors are limited.
const MOST_OPEN: usize = 64;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A second descriptor of an output, for direct writes.
#[derive(Debug)]
pub(crate) struct DirectFile {
    file: File,
    pub(crate) alignment: Alignment,
    /// Whether a write was refused. The file system then gets no more of them.
    is_refused: AtomicBool,
    _counted: Option<Counted>,
}

impl DirectFile {
    /// Opens `file` once more; `None` where direct writes are impossible.
    pub(crate) fn open(file: &File, calls: &SystemCalls) -> Option<Self> {
        let counted = Counted::take()?;
        Some(Self { _counted: Some(counted), ..Self::for_trial(file, calls)? })
    }

    /// The same for a trial, however many there are.
    pub(crate) fn for_trial(file: &File, calls: &SystemCalls) -> Option<Self> {
        let alignment = calls.native(|| os::direct_alignment(file)).ok()?;
        let file = calls.native(|| os::open_direct(file)).ok()?;
        Some(Self { file, alignment, is_refused: AtomicBool::new(false), _counted: None })
    }

    /// Writes `bytes` at `offset`, both aligned. Returns whether the file system took them; if not, any part of them may have been written.
    ///
    /// # Errors
    /// Any error but "not supported".
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64, calls: &SystemCalls) -> io::Result<bool> {
        if self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match calls.write_all_at(bytes, offset, |bytes, offset| os::write_direct(&self.file, bytes, offset)) {
            // Some file systems take the flag when a file is opened, and refuse the write.
            Err(error) if os::is_unsupported(&error) => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }
}

/// One of the files that may be open for direct writes.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn take() -> Option<Self> {
        let more = |open: usize| (open < MOST_OPEN).then_some(open + 1);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

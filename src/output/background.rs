//! Direct writes in the background, of bytes that lie where the disk cannot take them: they are copied into aligned memory, and the caller
//! goes on while that is written.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::private_file::PrivateFile;
use crate::os::buffer::Buffer;
use crate::types::size::memory_len;

/// As many writes keep a disk busy; the threads wait for it and take no time of a core.
const THREADS: usize = 8;

/// Most buffers of one output: one is written by each thread, and another is filled meanwhile.
const MOST_BUFFERS: usize = 2 * THREADS;

/// A write that is to be made.
type Write = Box<dyn FnOnce() + Send>;

/// The writes of all outputs that no thread has taken yet.
static QUEUE: (Mutex<VecDeque<Write>>, Condvar) = (Mutex::new(VecDeque::new()), Condvar::new());

/// How many threads there are. They are no pool of rayon, whose threads keep looking for work when there is none.
static STARTED: OnceLock<usize> = OnceLock::new();

/// Lets a thread make the write; if the system gives no threads, the caller makes it.
fn run(write: Write) {
    let start = |i: &usize| std::thread::Builder::new().name(format!("mmconvert-write-{i}")).spawn(work).is_ok();
    if *STARTED.get_or_init(|| (0..THREADS).take_while(start).count()) == 0 {
        return write();
    }
    QUEUE.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(write);
    QUEUE.1.notify_one();
}

/// What each thread does, as long as the process lives.
fn work() {
    loop {
        let queue = QUEUE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = QUEUE.1.wait_while(queue, |queue| queue.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let write = queue.pop_front();
        drop(queue);
        if let Some(write) = write {
            write();
        }
    }
}

/// The background writes of one output. Dropping it waits for them.
#[derive(Debug)]
pub(crate) struct Background {
    shared: Arc<Shared>,
    /// Bytes of a buffer.
    piece: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Buffer>,
    /// Buffers in use.
    used: usize,
    /// All buffers there are.
    made: usize,
    failure: Option<io::Error>,
    /// Whether a write failed, also after that was told.
    has_failed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes `len` bytes of `buffer` at `at`.
    fn write(&self, file: &PrivateFile, mut buffer: Buffer, at: u64, len: usize) {
        let written = buffer.at(at, len).and_then(|bytes| {
            if file.write_direct_at(bytes, at)? {
                return Ok(());
            }
            // Their pages are not counted, so they go to the disk and out of memory at once. Such a file gets no more direct writes.
            let pages = at..at + len as u64;
            file.write_at(bytes, at)?;
            file.finish_writeback(&pages)?;
            file.drop_pages(&pages);
            Ok(())
        });
        let mut state = self.lock();
        state.used -= 1;
        state.free.push(buffer);
        state.has_failed |= written.is_err();
        state.failure = state.failure.take().or(written.err());
        drop(state);
        self.changed.notify_all();
    }
}

impl Background {
    /// Writes in pieces of as many bytes.
    pub(crate) fn new(piece: u64) -> Self {
        Self { shared: Arc::default(), piece }
    }

    /// Writes `bytes` at `at`, both aligned, at the latest when it is [settled](Self::settle). `set_aside` says whether there may be memory for
    /// one more buffer. Returns false, and has written nothing, if there is none at all.
    ///
    /// # Errors
    /// That of an earlier write.
    pub(crate) fn write(&self, file: &Arc<PrivateFile>, bytes: &[u8], at: u64, set_aside: impl Fn(u64) -> bool) -> io::Result<bool> {
        for (piece, start) in bytes.chunks(memory_len(self.piece)).zip((at..).step_by(memory_len(self.piece))) {
            let Some(mut buffer) = self.take(&set_aside)? else { return Ok(false) };
            match buffer.at(start, piece.len()) {
                Ok(copy) => copy.copy_from_slice(piece),
                Err(error) => {
                    let mut state = self.shared.lock();
                    (state.used, state.made) = (state.used - 1, state.made - 1);
                    drop(state);
                    // Others wait for a buffer, or for none to be in use.
                    self.shared.changed.notify_all();
                    return Err(error);
                }
            }
            let (shared, file, len) = (Arc::clone(&self.shared), Arc::clone(file), piece.len());
            run(Box::new(move || shared.write(&file, buffer, start, len)));
        }
        Ok(true)
    }

    /// A buffer, if there is memory for any.
    fn take(&self, set_aside: &impl Fn(u64) -> bool) -> io::Result<Option<Buffer>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            let mut buffer = state.free.pop();
            if buffer.is_none() && state.made < MOST_BUFFERS && set_aside(Buffer::memory_bytes(self.piece)) {
                state.made += 1;
                buffer = Some(Buffer::new(memory_len(self.piece)));
            }
            if buffer.is_some() {
                state.used += 1;
                return Ok(buffer);
            }
            if state.used == 0 {
                return Ok(None);
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// That of the first write that failed.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.used > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.failure.take() {
            Some(failure) => Err(failure),
            None if state.has_failed => Err(io::Error::other("an earlier write failed")),
            None => Ok(()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Whoever gives an output up reports why; whoever finishes it has settled this.
        let _ = self.settle();
    }
}

//! Bytes of a file of records that workers read at the same time, outside the lock under which batches are taken.
//!
//! Where a record starts is known only once the one before it has been found, so records are found one after the other, under that
//! lock. Their bytes need not be read there: a worker that asks for a batch may get an [`Errand`] first, which is a block to read. The
//! batch that starts in a block is then made from it without a copy. A read that fails is repeated under the lock, by the worker that needs
//! the bytes, so errors and their order stay the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::memory_pool::PoolShare;
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Blocks of a file that are being read, in order.
#[derive(Debug)]
pub(crate) struct Ahead {
    file: Arc<dyn Blob>,
    blocks: VecDeque<Block>,
}

/// A block that is being read.
#[derive(Debug)]
struct Block {
    start: u64,
    end: u64,
    from: Receiver<ReadBlock>,
    read: Option<ReadBlock>,
}

/// The bytes of a block, from `start` of the file on.
#[derive(Debug)]
pub(crate) struct ReadBlock {
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) held: PoolShare,
}

/// A block to read. Dropping it instead means that the block is read later, by the one who needs it.
#[derive(Debug)]
pub(crate) struct Errand {
    file: Arc<dyn Blob>,
    len: usize,
    block: ReadBlock,
    to: SyncSender<ReadBlock>,
}

impl Ahead {
    pub(crate) fn new(file: &Arc<dyn Blob>) -> Self {
        Self { file: Arc::clone(file), blocks: VecDeque::new() }
    }

    /// Whether no block is being read.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The first byte after all blocks; `at` if there are none.
    pub(crate) fn end(&self, at: u64) -> u64 {
        self.blocks.back().map_or(at, |block| block.end)
    }

    /// Whether the first block has been read.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.blocks.front_mut().is_some_and(|block| {
            block.read = block.read.take().or_else(|| block.from.try_recv().ok());
            block.read.is_some()
        })
    }

    /// One more block of `len` bytes behind those from `at` on. Whoever gets the errand reads it into `buffer`, whose memory is `held`.
    pub(crate) fn errand(&mut self, at: u64, len: usize, buffer: Vec<u8>, held: PoolShare) -> Errand {
        let start = self.end(at);
        let (to, from) = sync_channel(1);
        self.blocks.push_back(Block { start, end: start + len as u64, from, read: None });
        Errand { file: Arc::clone(&self.file), len, block: ReadBlock { start, bytes: buffer, held }, to }
    }

    /// The block that has byte `at` of the file, once it has been read; earlier ones are dropped. `None` if there is none, or if reading it
    /// failed.
    pub(crate) fn take(&mut self, at: u64) -> Option<ReadBlock> {
        while let Some(block) = self.blocks.pop_front() {
            if at < block.end {
                return block.read.or_else(|| block.from.recv().ok()).filter(|_| block.start <= at);
            }
        }
        None
    }
}

impl Errand {
    /// Reads the block.
    pub(crate) fn run(self) {
        let Self { file, len, mut block, to } = self;
        block.bytes.resize(len, 0);
        if file.read(block.start, &mut block.bytes, file.calls()).is_ok() {
            // Nobody waits for it where the records ended earlier or were damaged.
            let _ = to.send(block);
        }
    }
}

/// Bytes of a block. The rest of a batch's memory is for the end of the last record, which is read when the record is found.
pub(crate) fn block_bytes(batch_bytes: usize) -> usize {
    memory_len(batch_bytes as u64 - batch_bytes as u64 / 8)
}

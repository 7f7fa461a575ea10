//! The `.index` of a checkpoint, read whole into compact memory.

use std::path::Path;

use crate::error::{Error, ParseError, Result};
use crate::format::table::{self, Block, BlockHandle, FOOTER_LEN};
use crate::options::budget::Limits;
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Limit of how much larger than the table's blocks the keys may become when their shared prefixes are written out.
///
/// TensorFlow restarts the prefixes every 16 entries, so its tables never come near this limit.
const MAX_EXPANSION: u64 = 16;
const EXPANSION_FLOOR: u64 = 64 << 20;

/// Keys and values of a table in the order of the file, contiguous in one allocation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    arena: Vec<u8>,
    entries: Vec<EntryRef>,
    pub(crate) file_len: u64,
    pub(crate) blocks: u64,
    pub(crate) snappy_blocks: u64,
}

#[derive(Debug, Clone, Copy)]
struct EntryRef {
    start: usize,
    key_len: u32,
    value_len: u32,
}

impl Index {
    /// Reads and checks the table in `path`: footer, blocks and their checksums, keys strictly ascending.
    pub(crate) fn read(file: &dyn Blob, limits: &Limits) -> Result<Self> {
        let path = &**file.path();
        let mut index = Self { file_len: file.len(), ..Self::default() };
        let Some(body_len) = index.file_len.checked_sub(FOOTER_LEN as u64) else {
            let detail = format!("{} bytes, a table has at least {FOOTER_LEN}", index.file_len);
            return Err(Error::malformed(path, "table", detail));
        };
        let mut footer = [0; FOOTER_LEN];
        file.read(body_len, &mut footer, file.calls())?;
        let handle = table::parse_footer(&footer).map_err(|e| e.shifted(body_len).in_file(path))?;

        let root = read_block(file, handle, body_len)?;
        let mut handles = Vec::new();
        table::for_each_entry(&root.contents, |_separator, value, at| {
            handles.push(BlockHandle::parse(value, at, "block handle")?.0);
            Ok(())
        })
        .map_err(|e| in_block(&e, handle, path))?;
        drop(root);

        let mut end_of_last = 0;
        let mut decompressed = 0u64;
        for handle in handles {
            if handle.offset < end_of_last {
                let detail = format!("starts before byte {end_of_last}, where the block before it ends");
                return Err(Error::malformed_at(path, "table block", handle.offset, detail));
            }
            end_of_last = handle.end_within(body_len).unwrap_or(body_len);
            let block = read_block(file, handle, body_len)?;
            index.blocks += 1;
            index.snappy_blocks += u64::from(block.was_snappy);
            decompressed += block.contents.len() as u64;
            let most = (decompressed.saturating_mul(MAX_EXPANSION)).max(EXPANSION_FLOOR).min(limits.index_bytes);
            index.add_block(&block, handle, path, most)?;
        }
        index.arena.shrink_to_fit();
        index.entries.shrink_to_fit();
        Ok(index)
    }

    fn add_block(&mut self, block: &Block, handle: BlockHandle, path: &Path, most: u64) -> Result<()> {
        let mut over_limit = None;
        table::for_each_entry(&block.contents, |key, value, at| {
            let start = self.arena.len();
            if let Some(last) = self.entries.last()
                && self.key_of(*last) >= key
            {
                let detail = "the key is a duplicate or out of order: it is not greater than the one before it";
                return Err(ParseError::new(at, "table block", detail));
            }
            let needed = (start + key.len() + value.len()) as u64 + ((self.entries.len() + 1) * size_of::<EntryRef>()) as u64;
            if needed > most {
                over_limit = Some(needed);
                return Err(ParseError::new(at, "table block", "the keys expand beyond the limit"));
            }
            let length =
                |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| ParseError::new(at, "table block", "an entry of 4 GiB or more"));
            self.entries.push(EntryRef { start, key_len: length(key)?, value_len: length(value)? });
            self.arena.extend_from_slice(key);
            self.arena.extend_from_slice(value);
            Ok(())
        })
        .map_err(|e| match over_limit {
            Some(asked) => Error::Limit { what: format!("memory for the index {}", path.display()), asked, allowed: Some(most) },
            None => in_block(&e, handle, path),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn key_of(&self, entry: EntryRef) -> &[u8] {
        &self.arena[entry.start..entry.start + entry.key_len as usize]
    }

    pub(crate) fn key(&self, i: usize) -> &[u8] {
        self.key_of(self.entries[i])
    }

    pub(crate) fn value(&self, i: usize) -> &[u8] {
        let entry = self.entries[i];
        let start = entry.start + entry.key_len as usize;
        &self.arena[start..start + entry.value_len as usize]
    }

    /// The position of `key`.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|&entry| self.key_of(entry).cmp(key)).ok()
    }

    /// The first position whose key does not satisfy `before`, which must hold for a prefix of the keys only.
    pub(crate) fn partition_point(&self, mut before: impl FnMut(&[u8]) -> bool) -> usize {
        self.entries.partition_point(|&entry| before(self.key_of(entry)))
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.arena.capacity() + self.entries.capacity() * size_of::<EntryRef>()) as u64
    }
}

/// Reads and checks a block, which has to end before `body_len`.
pub(crate) fn read_block(file: &dyn Blob, handle: BlockHandle, body_len: u64) -> Result<Block> {
    let path = file.path();
    if handle.end_within(body_len).is_none() {
        let detail = format!("block of {} bytes does not end within the {body_len} bytes before the footer", handle.size);
        return Err(Error::malformed_at(path, "table block", handle.offset, detail));
    }
    let mut stored = vec![0; memory_len(handle.size) + table::TRAILER_LEN];
    file.read(handle.offset, &mut stored, file.calls())?;
    table::parse_block(stored).map_err(|e| e.shifted(handle.offset).in_file(path))
}

/// Offsets within a block count from the start of its uncompressed content, and the message says so.
fn in_block(error: &ParseError, handle: BlockHandle, path: &Path) -> Error {
    let detail = format!("{} (byte {} of the block's content)", error.detail, error.offset);
    Error::malformed_at(path, error.what, handle.offset, detail)
}

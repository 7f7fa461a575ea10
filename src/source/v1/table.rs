//! A table whose values are tensors. Entries are found in the file, without reading whole blocks.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use byteorder::{ByteOrder as _, LittleEndian};

use crate::error::{Error, ParseError, Result};
use crate::format::crc::Checksum;
use crate::format::table::{self, BlockHandle, FOOTER_LEN, SNAPPY, STORED, TRAILER_LEN};
use crate::format::{crc, varint};
use crate::reader::checksums::Region;
use crate::reader::proto_index::FieldWalker;
use crate::source::bundle::index::read_block;
use crate::storage::blob::Blob;
use crate::storage::memory::HeldBytes;
use crate::storage::probe::Probe;
use crate::types::size::memory_len;

const WHAT: &str = "table block";
/// Most bytes of a block index, and of a block that must be decompressed.
const MOST_UNPACKED: u64 = 64 << 20;
/// Blocks up to this length are verified as a whole before use.
const SMALL: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Longest key: a name with a few numbers.
const MOST_KEY: u64 = 64 << 10;
/// Longest three varints that precede an entry.
const ENTRY_HEAD: u64 = 15;
const CHUNK: u64 = 256 << 10;

/// One block.
#[derive(Debug)]
struct Block {
    /// At least the largest key in the block, and less than all keys in the next one.
    separator: Vec<u8>,
    handle: BlockHandle,
    is_snappy: bool,
    /// Whether its checksum has been verified.
    is_checked: AtomicBool,
}

/// The contents of a block: a file or buffer, and a range in it.
pub(crate) type Contents = (Arc<dyn Blob>, Range<u64>);

/// An opened table with a list of its blocks.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) file: Arc<dyn Blob>,
    blocks: Vec<Block>,
    verify: bool,
    /// The block that was decompressed last.
    unpacked: Mutex<Option<(usize, Arc<dyn Blob>)>>,
}

/// Whether a file ends with the footer of a table.
pub(crate) fn ends_like_one(file: &dyn Blob) -> Result<bool> {
    let Some(at) = file.len().checked_sub(FOOTER_LEN as u64) else { return Ok(false) };
    let mut footer = [0; FOOTER_LEN];
    file.read(at, &mut footer, file.calls())?;
    Ok(LittleEndian::read_u64(&footer[FOOTER_LEN - 8..]) == table::MAGIC)
}

impl Table {
    /// Reads the index of blocks.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    pub(crate) fn open(probe: &Probe, verify: bool) -> Result<Self> {
        let (path, file) = (probe.path(), probe.open()?);
        let Some(body_len) = file.len().checked_sub(FOOTER_LEN as u64) else {
            return Err(Error::malformed(path, "table", format!("{} bytes, a table has at least {FOOTER_LEN}", file.len())));
        };
        let mut footer = [0; FOOTER_LEN];
        file.read(body_len, &mut footer, file.calls())?;
        let handle = table::parse_footer(&footer).map_err(|error| error.shifted(body_len).in_file(path))?;
        check_size(path, handle.size)?;
        let root = read_block(&*file, handle, body_len)?;
        let mut blocks = Vec::new();
        table::for_each_entry(&root.contents, |separator, value, at| {
            let handle = BlockHandle::parse(value, at, "block handle")?.0;
            blocks.push(Block { separator: separator.to_vec(), handle, is_snappy: false, is_checked: AtomicBool::new(false) });
            Ok(())
        })
        .map_err(|error| error.shifted(handle.offset).in_file(path))?;
        for block in &mut blocks {
            let Some(end) = block.handle.end_within(body_len) else {
                let detail = format!("block of {} bytes does not end within the {body_len} bytes before the footer", block.handle.size);
                return Err(Error::malformed_at(path, WHAT, block.handle.offset, detail));
            };
            let at = end - TRAILER_LEN as u64;
            let mut kind = [0];
            file.read(at, &mut kind, file.calls())?;
            block.is_snappy = match kind[0] {
                STORED => false,
                SNAPPY => true,
                kind => {
                    let detail = format!("compression type is {kind}, expected 0 (stored) or 1 (snappy)");
                    return Err(Error::malformed_at(path, WHAT, at, detail));
                }
            };
        }
        Ok(Self { file, blocks, verify, unpacked: Mutex::new(None) })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn snappy_blocks(&self) -> usize {
        self.blocks.iter().filter(|block| block.is_snappy).count()
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        let unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks: usize = self.blocks.iter().map(|block| size_of::<Block>() + block.separator.capacity()).sum();
        (blocks + unpacked.as_ref().map_or(0, |(_, bytes)| memory_len(bytes.len()))) as u64
    }

    /// The contents of a block. Only a compressed block is read.
    fn contents(&self, number: usize) -> Result<Contents> {
        let Block { handle, is_snappy, .. } = &self.blocks[number];
        if !is_snappy {
            return Ok((Arc::clone(&self.file), handle.offset..handle.offset + handle.size));
        }
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match &*unpacked {
            Some((own, bytes)) if *own == number => Arc::clone(bytes),
            _ => {
                let path = self.path();
                let in_file = |error: ParseError| error.shifted(handle.offset).in_file(path);
                check_size(path, handle.size)?;
                let mut stored = vec![0; memory_len(handle.size) + TRAILER_LEN];
                self.file.read(handle.offset, &mut stored, self.file.calls())?;
                let len = table::expanded_len(&stored[..memory_len(handle.size)]).map_err(in_file)?;
                check_size(path, len as u64)?;
                let bytes: Arc<dyn Blob> = HeldBytes::new(self.file.path(), table::parse_block(stored).map_err(in_file)?.contents);
                *unpacked = Some((number, Arc::clone(&bytes)));
                bytes
            }
        };
        let len = bytes.len();
        Ok((bytes, 0..len))
    }

    /// Verifies the checksum of a block. A decompressed block has been verified before.
    pub(crate) fn check(&self, number: usize) -> Result<()> {
        let Block { handle, is_snappy, is_checked, .. } = &self.blocks[number];
        if !self.verify || *is_snappy || is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The checksum covers the contents and the compression type.
        let end = handle.offset + handle.size + 1;
        let (actual, expected) = (self.crc_of(handle.offset..end)?, self.stored_crc(number)?);
        if actual != expected {
            let detail = format!("CRC32C of a block of {} bytes is {actual:#010x}, the file says {expected:#010x}", handle.size);
            return Err(Error::malformed_at(self.path(), WHAT, handle.offset, detail));
        }
        is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn stored_crc(&self, number: usize) -> Result<u32> {
        let handle = self.blocks[number].handle;
        let mut stored = [0; 4];
        self.file.read(handle.offset + handle.size + 1, &mut stored, self.file.calls())?;
        Ok(crc::unmask(LittleEndian::read_u32(&stored)))
    }

    fn crc_of(&self, range: Range<u64>) -> Result<u32> {
        let mut buffer = vec![0; memory_len((range.end - range.start).min(CHUNK))];
        let (mut at, mut sum) = (range.start, 0);
        while at < range.end {
            let part = &mut buffer[..memory_len((range.end - at).min(CHUNK))];
            self.file.read(at, part, self.file.calls())?;
            sum = crc::append(sum, part);
            at += part.len() as u64;
        }
        Ok(sum)
    }

    /// The expected checksum of `payload`, a range in a block. A small block is verified as a whole. For a larger one, the
    /// checksum of the bytes around `payload` is subtracted from the block's, which is possible since CRCs are linear.
    pub(crate) fn region(&self, number: usize, payload: &Range<u64>) -> Result<Option<Region>> {
        // A decompressed block has been verified, and its bytes are not in the file.
        if !self.verify || self.blocks[number].is_snappy {
            return Ok(None);
        }
        let handle = self.blocks[number].handle;
        let nbytes = payload.end - payload.start;
        let value = if handle.size <= SMALL {
            self.check(number)?;
            self.crc_of(payload.clone())?
        } else {
            let end = handle.offset + handle.size + 1;
            let behind = self.crc_of(payload.end..end)?;
            let front = crc::unshift(self.stored_crc(number)? ^ behind, end - payload.end);
            crc::Kind::Crc32c.behind(self.crc_of(handle.offset..payload.start)?, front, nbytes)
        };
        let path = Arc::clone(self.file.path());
        Ok(Some(Region::new(path, payload.start, nbytes, Checksum::Crc32c(value))))
    }

    /// The number of the block that contains `key`, and the place of its value; `None` if there is no such key.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<(usize, Contents)>> {
        let number = self.blocks.partition_point(|block| &block.separator[..] < key);
        if number == self.blocks.len() {
            return Ok(None);
        }
        // A short block is verified before its content is trusted.
        if self.blocks[number].handle.size <= SMALL {
            self.check(number)?;
        }
        let (file, range) = self.contents(number)?;
        let value = find_entry(&mut FieldWalker::new(&*file, WHAT, range.clone()), range, key)?;
        Ok(value.map(|value| (number, (file, value))))
    }
}

fn check_size(path: &Path, asked: u64) -> Result<()> {
    if asked > MOST_UNPACKED {
        return Err(Error::Limit { what: format!("memory for a block of {}", path.display()), asked, allowed: Some(MOST_UNPACKED) });
    }
    Ok(())
}

/// The place of the value of `key` in a block.
fn find_entry(outline: &mut FieldWalker<'_>, contents: Range<u64>, wanted: &[u8]) -> Result<Option<Range<u64>>> {
    let count_at = contents.end.checked_sub(4).filter(|&at| at >= contents.start);
    let Some(count_at) = count_at else {
        return Err(outline.malformed(contents.start, format!("{} bytes, expected at least 4", contents.end - contents.start)));
    };
    let restarts = u64::from(LittleEndian::read_u32(outline.window(count_at, contents.end, 4)?));
    let end = count_at.checked_sub(4 * restarts).filter(|&end| restarts > 0 && end >= contents.start);
    let Some(end) = end else {
        let detail = format!("{restarts} restart points in {} bytes", contents.end - contents.start);
        return Err(outline.malformed(count_at, detail));
    };
    let (mut key, mut at) = (Vec::new(), contents.start);
    while at < end {
        let start = at;
        let mut numbers = [0u64; 3];
        let head = outline.window(at, end, ENTRY_HEAD)?;
        let mut used = 0;
        let parsed = numbers.iter_mut().try_for_each(|number| {
            let (value, len) = varint::read_u32(&head[used..], used, WHAT)?;
            (*number, used) = (value.into(), used + len);
            Ok(())
        });
        parsed.map_err(|error: ParseError| outline.malformed(start, error.detail))?;
        let [shared, unshared, value_len] = numbers;
        at += used as u64;
        if shared > key.len() as u64 || unshared + value_len > end - at || shared + unshared > MOST_KEY {
            let detail =
                format!("entry shares {shared} bytes, has {unshared} of a key and {value_len} of a value, {} bytes left", end - at);
            return Err(outline.malformed(start, detail));
        }
        key.truncate(memory_len(shared));
        key.extend_from_slice(&outline.window(at, at + unshared, unshared)?[..memory_len(unshared)]);
        at += unshared;
        if key == wanted {
            return Ok(Some(at..at + value_len));
        }
        if &key[..] > wanted {
            return Ok(None);
        }
        at += value_len;
    }
    Ok(None)
}

//! Batches of whole records, in the order of the source.
//!
//! Taking the next batch either reads its bytes or only finds their place, to be read later by the worker: files with long records
//! are walked by their headers alone. The pool of buffers limits the total memory.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::ahead::{Ahead, Errand, ReadBlock, block_bytes};
use super::batch::{Batch, intact_before, wrong_checksum};
use super::bytes::{self, FileBytes};
use super::compression::{self, Compression};
use super::framing::{Framing, Step};
use super::inputs::{CheckCount, Input, Program, RecordFile, Wanted};
use super::memory_pool::{Pool, PoolShare};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::tfrecord;
use crate::options::request::Run;
use crate::os::SystemCalls;
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Records this long are walked by headers alone. On a cold file each header is a read of its own.
const LONG_WARM: u64 = 128 << 10;
const LONG_COLD: u64 = 1 << 20;

/// How to read records.
#[derive(Debug, Clone)]
pub(crate) struct ReadSettings {
    /// Approximate bytes of a batch.
    pub(crate) batch_bytes: usize,
    /// Most records in a batch.
    pub(crate) most_records: usize,
    /// Most bytes of all batches together, and of a single record.
    pub(crate) memory_bytes: u64,
    /// No block is read ahead while batches and blocks have more bytes than this; 0 if none ever is.
    pub(crate) ahead_bytes: u64,
    /// The selected records.
    pub(crate) rows: Range<u64>,
    /// Number of rows needed, for records concatenated along axis 0.
    pub(crate) joined_rows: u64,
    pub(crate) verify: bool,
    /// Whether damage only loses what follows it, instead of failing.
    pub(crate) salvage: bool,
    pub(crate) calls: SystemCalls,
}

impl ReadSettings {
    /// All records, in batches of about `batch_bytes`, with the checks that `run` wants.
    pub(crate) fn new(batch_bytes: usize, memory_bytes: u64, run: &Run) -> Self {
        Self {
            batch_bytes,
            most_records: usize::MAX,
            memory_bytes,
            ahead_bytes: 0,
            rows: 0..u64::MAX,
            joined_rows: u64::MAX,
            verify: run.verify,
            salvage: run.salvage.is_set(),
            calls: run.calls.clone(),
        }
    }
}

/// A source of batches, in order.
pub(crate) trait Batches: Send {
    /// A block that is to be read before the next batch can be taken. Callers need not ask.
    fn errand(&mut self) -> Option<Errand> {
        None
    }
    /// The next batch; its bytes may still have to be read.
    fn next_batch(&mut self) -> Result<Option<Batch>>;
    /// Number of selected records, if known.
    fn known(&self) -> Option<u64>;
    /// What was lost so far, one sentence each.
    fn lost(&self) -> &[String];
}

/// The records of inputs, one after the other.
pub(crate) struct Sequential {
    inputs: VecDeque<Input>,
    framing: Framing,
    group: usize,
    reading: ReadSettings,
    pool: Arc<Pool>,
    current: Option<Current>,
    /// Records so far, selected or not.
    seen: u64,
    number: u64,
    known: Option<u64>,
    lost: Vec<String>,
}

/// The input being read.
struct Current {
    path: Arc<Path>,
    from: RecordBytes,
    /// Offset of `carry`, or of the next header.
    at: u64,
    /// The start of a record that the last batch did not include.
    carry: Vec<u8>,
    /// Total bytes, if known.
    len: Option<u64>,
    records: u64,
    expected: Option<u64>,
    check: Option<CheckCount>,
    /// Whether the input is a pipe, whose writer may have failed.
    is_piped: bool,
    /// The file, to check at the end that it is unchanged.
    file: Option<Arc<dyn Blob>>,
    /// Blocks that workers read, if they may.
    ahead: Option<Ahead>,
    /// Whether batches were made of such blocks, which `from` does not know of.
    is_passed: bool,
}

impl Current {
    /// Fails if the file has changed since it was first opened.
    fn check_unchanged(&self) -> Result<()> {
        self.file.iter().try_for_each(|file| file.check_unchanged())
    }
}

enum RecordBytes {
    Bytes(Box<dyn Read + Send>),
    /// Headers are read alone.
    Headers(Arc<dyn Blob>),
}

impl Sequential {
    /// Counts the records first if that is cheap; their bytes are then also read in any order.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] if that finds a cut file, [`Error::Io`].
    pub(crate) fn new(inputs: Vec<Input>, framing: Framing, group: usize, reading: ReadSettings, pool: Arc<Pool>) -> Result<Self> {
        let mut sequential =
            Self { inputs: inputs.into(), framing, group, reading, pool, current: None, seen: 0, number: 0, known: None, lost: Vec::new() };
        if !sequential.reading.salvage {
            let count = sequential.count()?;
            sequential.known = count.map(|count| sequential.reading.rows.end.min(count) - sequential.reading.rows.start.min(count));
        }
        Ok(sequential)
    }

    /// The number of all records, if known without reading them.
    fn count(&self) -> Result<Option<u64>> {
        let mut count = 0u64;
        for input in &self.inputs {
            let Input::File(file) = input else { return Ok(None) };
            let records = match file.expected {
                Some(expected) => expected,
                None => match self.count_file(file)? {
                    Some(records) => records,
                    None => return Ok(None),
                },
            };
            count = count.saturating_add(records);
        }
        Ok(Some(count))
    }

    fn count_file(&self, file: &RecordFile) -> Result<Option<u64>> {
        let mut current = self.open_file(file)?;
        if let (Framing::Fixed(frame), Some(len)) = (self.framing, current.len) {
            let bytes = len - file.start;
            if !bytes.is_multiple_of(frame) {
                return Err(self.cut(&Current { records: bytes / frame, at: len - bytes % frame, ..current }, bytes % frame, frame));
            }
            return Ok(Some(bytes / frame));
        }
        if !matches!(current.from, RecordBytes::Headers(..)) {
            return Ok(None);
        }
        let mut frames = 0;
        while let Some((_, end)) = self.next_header(&current)? {
            current.at += end;
            frames += 1;
            current.records = frames / self.group as u64;
        }
        self.check_groups(frames, &current)?;
        Ok(Some(current.records))
    }

    fn check_groups(&self, frames: u64, current: &Current) -> Result<()> {
        if frames.is_multiple_of(self.group as u64) {
            return Ok(());
        }
        let detail = format!("{frames} records are not a whole number of elements of {} components", self.group);
        Err(Error::malformed_at(&current.path, "elements", current.at, detail))
    }

    fn open_file(&self, file: &RecordFile) -> Result<Current> {
        let opened = file.open()?;
        let (path, len) = (Arc::clone(opened.path()), opened.len());
        opened.check_unchanged()?;
        let compression = match self.framing {
            Framing::TfRecord => Self::compression(&*opened)?,
            _ => Compression::None,
        };
        if file.start > len {
            return Err(BadRequest::StartBehindEnd { path: path.to_path_buf(), len, start: file.start }.into());
        }
        let is_plain = compression == Compression::None;
        let by_headers = is_plain && !self.reading.salvage && self.has_long_records(&*opened)?;
        let takes_blocks = is_plain && !by_headers && !self.reading.salvage && self.framing.header_len().is_some();
        // From a cold disk, reads that follow each other are faster than several at a time.
        let ahead = (takes_blocks && self.reading.ahead_bytes > 0 && !opened.is_cold()).then(|| Ahead::new(&opened));
        let from = if by_headers {
            RecordBytes::Headers(Arc::clone(&opened))
        } else {
            RecordBytes::Bytes(compression::decompressed(FileBytes::new(&opened, file.start), compression, self.reading.memory_bytes / 4))
        };
        Ok(Current {
            path,
            from,
            at: file.start,
            carry: Vec::new(),
            len: is_plain.then_some(len),
            records: 0,
            expected: file.expected,
            check: None,
            is_piped: false,
            file: Some(opened),
            ahead,
            is_passed: false,
        })
    }

    fn compression(file: &dyn Blob) -> Result<Compression> {
        Compression::detect(file)?.ok_or_else(|| {
            let mut front = [0; tfrecord::HEADER_LEN];
            let detail = match file.read(0, &mut front, file.calls()).ok().and_then(|()| tfrecord::data_len(&front).err()) {
                Some(detail) => format!("{detail}; and it is not compressed with gzip, zlib or Snappy"),
                None => format!("it has fewer than the {} bytes of the first record's header", tfrecord::HEADER_LEN),
            };
            Error::malformed_at(file.path(), "TFRecord file", 0, detail)
        })
    }

    /// Whether the first records of a file are long enough to walk it by headers.
    fn has_long_records(&self, file: &dyn Blob) -> Result<bool> {
        const LOOKED_AT: u64 = 8;
        let (mut at, len) = (0, file.len());
        let Some(header_len) = self.framing.header_len().filter(|&len| len > 0) else { return Ok(false) };
        let mut header = [0; tfrecord::HEADER_LEN];
        for frames in 0..LOOKED_AT {
            if at + header_len as u64 > len {
                return Ok(frames > 0 && at / frames >= LONG_WARM && !file.is_cold());
            }
            file.read(at, &mut header[..header_len], file.calls())?;
            let Ok(Step::Need(end)) = self.framing.step(&header[..header_len]) else { return Ok(false) };
            at = at.saturating_add(end);
        }
        Ok(at / LOOKED_AT >= if file.is_cold() { LONG_COLD } else { LONG_WARM })
    }

    /// The range of the data of the next frame, and the frame's length.
    fn next_header(&self, current: &Current) -> Result<Option<(Range<u64>, u64)>> {
        let (RecordBytes::Headers(file), Some(len)) = (&current.from, current.len) else { return Ok(None) };
        let left = len - current.at;
        if left == 0 {
            return Ok(None);
        }
        let mut header = [0; tfrecord::HEADER_LEN];
        let header = &mut header[..self.framing.header_len().unwrap_or(0)];
        if left < header.len() as u64 {
            return Err(self.cut(current, left, header.len() as u64));
        }
        file.read(current.at, header, file.calls())?;
        let end = match self.framing.step(header).map_err(|detail| self.broken(current, &detail))? {
            Step::Need(end) => end,
            Step::Frame { end, .. } => end as u64,
        };
        if end > left {
            return Err(self.cut(current, left, end));
        }
        let behind = if self.framing.has_checksum() { tfrecord::FOOTER_LEN as u64 } else { 0 };
        Ok(Some((header.len() as u64..end - behind, end)))
    }

    /// States what precedes a damage in the current input.
    fn before(&self, current: &Current) -> String {
        match (self.framing, current.records) {
            // A decoder continues after damage, and frames depend on others.
            (Framing::Pam { .. }, 0) => "no frame came before it".to_owned(),
            (Framing::Pam { .. }, frames) if self.reading.salvage => format!("{frames} frames came before it"),
            (Framing::Pam { .. }, frames) => {
                format!("{frames} frames came before it, and `salvage` keeps them, of which some may be damaged")
            }
            (_, records) => intact_before(records, self.reading.salvage),
        }
    }

    fn broken(&self, current: &Current, detail: &str) -> Error {
        let whole = self.before(current);
        Error::malformed_at(&current.path, format!("record {}", current.records), current.at, format!("{detail}; {whole}"))
    }

    fn cut(&self, current: &Current, left: u64, needed: u64) -> Error {
        // Raw frames have no marker for their start: the leftover bytes may as well be a header at the front.
        if let Framing::Fixed(_) = self.framing {
            let detail = format!(
                "a frame has {needed} bytes, and {left} are left over behind {} whole frames: for a header in front, `offset` BYTES \
                 is its length; else `raw` or `shape` do not match the file, or the end is missing",
                current.records
            );
            return Error::malformed_at(&current.path, "raw frames", current.at, detail);
        }
        let whole = self.before(current);
        let detail = format!("it needs {needed} bytes and {left} are left: the end is missing; {whole}");
        Error::malformed_at(&current.path, format!("record {}", current.records), current.at, detail)
    }

    /// Opens the next input.
    fn open_next(&mut self) -> Result<bool> {
        let Some(input) = self.inputs.pop_front() else { return Ok(false) };
        let is_piped = matches!(input, Input::Stream(..));
        let (bytes, name, check) = match input {
            Input::File(file) => {
                self.current = Some(self.open_file(&file)?);
                return Ok(true);
            }
            Input::Stream(bytes, name) => (bytes, name, None),
            Input::Program(Program { path, start, check, .. }) => {
                let records = self.reading.rows.end.saturating_sub(self.seen);
                let wanted = Wanted { cancel: self.reading.calls.cancel(), records, rows: self.reading.joined_rows };
                (start(&wanted)?, path, check)
            }
        };
        self.current = Some(Current {
            path: name.as_path().into(),
            from: RecordBytes::Bytes(bytes),
            at: 0,
            carry: Vec::new(),
            len: None,
            records: 0,
            expected: None,
            check,
            is_piped,
            file: None,
            ahead: None,
            is_passed: false,
        });
        Ok(true)
    }

    /// Ends the current input; with `salvage`, records its damage as lost.
    fn give_up(&mut self, current: &Current, error: Error) -> Result<()> {
        match error {
            Error::Malformed { .. } if self.reading.salvage => {
                let behind = current.len.map(|len| format!(" ({} bytes)", len.saturating_sub(current.at))).unwrap_or_default();
                let kept = match self.framing {
                    Framing::Pam { .. } => format!("{} frames are kept, of which some may be damaged", current.records),
                    _ => format!("{} records are kept", current.records),
                };
                self.lost.push(format!("{error}; what follows{behind} is lost, {kept}"));
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Adds the number of intact records to an error from a decompressor, which does not know it.
    fn with_records_before(&self, current: &Current, error: Error) -> Error {
        match error {
            Error::Malformed { path, what, offset, detail } => {
                Error::Malformed { path, what, offset, detail: format!("{detail}; {}", self.before(current)) }
            }
            other => other,
        }
    }

    fn check_end(current: &Current) -> Result<()> {
        if let Some(check) = &current.check {
            check(current.records)?;
        }
        match current.expected {
            Some(expected) if expected != current.records => {
                let detail = format!("it has {} records, {expected} expected", current.records);
                Err(Error::malformed(&current.path, "TFRecord file", detail))
            }
            _ => Ok(()),
        }
    }

    /// A batch of the current input from its headers; an empty one at its end.
    fn batch_of_headers(&self, current: &mut Current) -> Result<Batch> {
        let base = current.at;
        let (in_file, mut frames, mut taken) = (current.records, Vec::new(), 0);
        while let Some((data, end)) = self.next_header(current)? {
            let is_full = taken + end > self.reading.batch_bytes as u64 || frames.len() / self.group >= self.reading.most_records;
            if !frames.is_empty() && frames.len().is_multiple_of(self.group) && is_full {
                break;
            }
            frames.push(memory_len(taken + data.start)..memory_len(taken + data.end));
            taken += end;
            current.at += end;
            current.records = in_file + (frames.len() / self.group) as u64;
        }
        self.check_groups(frames.len() as u64, current)?;
        self.check_memory(taken, in_file, current)?;
        let held = self.pool.hold(taken);
        let RecordBytes::Headers(file) = &current.from else {
            return Err(BadRequest::impossible("these records cannot be read by their headers").into());
        };
        let mut batch = self.empty_batch(current, base, in_file, held);
        batch.unread = Some((Arc::clone(file), memory_len(taken)));
        (batch.bytes, batch.frames) = (self.pool.buffer(), frames);
        Ok(batch)
    }

    fn empty_batch(&self, current: &Current, base: u64, in_file: u64, held: PoolShare) -> Batch {
        Batch {
            number: 0,
            first: 0,
            in_file,
            path: Arc::clone(&current.path),
            base,
            bytes: Vec::new(),
            frames: Vec::new(),
            group: self.group,
            unread: None,
            unchecked: self.reading.verify && self.framing.has_checksum(),
            shift: if let Framing::Pam { shift } = self.framing { shift } else { 0 },
            held,
        }
    }

    /// Refuses record `record` of the file if it exceeds the memory.
    fn check_memory(&self, needed: u64, record: u64, current: &Current) -> Result<()> {
        if needed <= self.reading.memory_bytes {
            return Ok(());
        }
        let what = format!("memory for record {record} of {} (`memory` allows more)", current.path.display());
        Err(Error::Limit { what, asked: needed, allowed: Some(self.reading.memory_bytes) })
    }

    /// A batch of the current input from what has been read ahead, else from its bytes.
    fn batch_of_any(&mut self, current: &mut Current) -> Result<(Batch, bool)> {
        if current.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty()) {
            current.is_passed = true;
            if let Some(found) = self.batch_of_block(current) {
                return Ok(found);
            }
            current.ahead = None;
        }
        if let Some(file) = current.file.as_ref().filter(|_| std::mem::take(&mut current.is_passed)) {
            current.from = RecordBytes::Bytes(Box::new(FileBytes::new(file, current.at)));
            current.carry.clear();
        }
        self.batch_of_bytes(current)
    }

    /// A batch of the current input from the block that has its next record, and whether more follow. `None` where there is no such block,
    /// or where anything is unusual: then [`batch_of_bytes`](Self::batch_of_bytes) finds out what it is.
    fn batch_of_block(&self, current: &mut Current) -> Option<(Batch, bool)> {
        let ReadBlock { start, mut bytes, held } = current.ahead.as_mut()?.take(current.at)?;
        let (file, len) = (current.file.as_ref()?, current.len?);
        let (mut at, block, in_file) = (memory_len(current.at - start), bytes.len(), current.records);
        let mut frames: Vec<Range<usize>> = Vec::new();
        while at < block || !frames.len().is_multiple_of(self.group) {
            match self.framing.step(&bytes[at..]).ok()? {
                Step::Frame { start, len, end } => {
                    frames.push(at + start..at + start + len);
                    at += end;
                }
                // The end of the last record. The next batch starts behind it.
                Step::Need(needed) => {
                    let (filled, end) = (bytes.len(), at as u64 + needed);
                    if end > self.reading.batch_bytes as u64 || start + end > len {
                        return None;
                    }
                    bytes.resize(memory_len(end), 0);
                    file.read(start + filled as u64, &mut bytes[filled..], file.calls()).ok()?;
                }
            }
            if frames.len() / self.group > self.reading.most_records {
                return None;
            }
        }
        current.records = in_file + (frames.len() / self.group) as u64;
        current.at = start + at as u64;
        let mut batch = self.empty_batch(current, start, in_file, held);
        (batch.bytes, batch.frames) = (bytes, frames);
        Some((batch, current.at < len))
    }

    /// A batch of the current input from its bytes, and whether more follow; an empty one at its end.
    fn batch_of_bytes(&mut self, current: &mut Current) -> Result<(Batch, bool)> {
        let mut wanted = self.reading.batch_bytes.max(current.carry.len());
        let mut held = self.pool.hold(wanted as u64);
        let mut buffer = self.pool.buffer();
        buffer.extend_from_slice(&current.carry);
        let base = current.at;
        let mut frames: Vec<Range<usize>> = Vec::new();
        let (in_file, mut at, mut problem, mut is_end) = (current.records, 0, None, false);
        // Whether reading the bytes failed, rather than a record being wrong.
        let mut is_unread = false;
        loop {
            let filled = buffer.len();
            buffer.reserve_exact(wanted - filled);
            buffer.resize(wanted, 0);
            let RecordBytes::Bytes(bytes) = &mut current.from else {
                return Err(BadRequest::impossible("these records are read by their headers").into());
            };
            let (read, result) = bytes::read_full(bytes.as_mut(), &mut buffer[filled..]);
            buffer.truncate(filled + read);
            // Bytes before the failure are still used.
            let failure = result.map_err(|error| bytes::read_error(&current.path, base + buffer.len() as u64, error)).err();
            is_unread |= problem.is_none() && failure.is_some();
            problem = problem.or(failure);
            is_end |= buffer.len() < wanted;
            let needed = loop {
                if frames.len() / self.group >= self.reading.most_records && frames.len().is_multiple_of(self.group) {
                    break 0;
                }
                // At the end of the file there is nothing more to read.
                is_end |= current.len == Some(base + at as u64);
                if at == buffer.len() && is_end {
                    break 0;
                }
                current.at = base + at as u64;
                current.records = in_file + (frames.len() / self.group) as u64;
                match self.framing.step(&buffer[at..]) {
                    Ok(Step::Frame { start, len, end }) => {
                        let data = at + start..at + start + len;
                        let detail = if self.reading.salvage && self.reading.verify && self.framing.has_checksum() {
                            wrong_checksum(&buffer, &data)
                        } else {
                            None
                        };
                        if let Some(detail) = detail {
                            problem.get_or_insert(self.broken(current, &detail));
                            break 0;
                        }
                        frames.push(data);
                        at += end;
                    }
                    Ok(Step::Need(needed)) => {
                        let left = current.len.map(|len| len - current.at).or(is_end.then_some((buffer.len() - at) as u64));
                        if let Some(left) = left.filter(|&left| left < needed) {
                            problem.get_or_insert(self.cut(current, left, needed));
                            break 0;
                        }
                        break at as u64 + needed;
                    }
                    Err(detail) => {
                        problem.get_or_insert(self.broken(current, &detail));
                        break 0;
                    }
                }
            };
            // Reads more only until there is a whole record.
            if needed == 0 || problem.is_some() || frames.len() >= self.group {
                break;
            }
            self.check_memory(needed, current.records, current)?;
            wanted = memory_len(needed);
            drop(held);
            held = self.pool.hold(wanted as u64);
        }
        // An incomplete record goes to the next batch.
        let whole = frames.len() / self.group * self.group;
        let end = if whole == frames.len() { at } else { frames[whole].start - self.framing.header_len().unwrap_or(0) };
        if problem.is_none() && is_end && whole == 0 && !frames.is_empty() {
            problem = self.check_groups(frames.len() as u64, current).err();
        }
        frames.truncate(whole);
        current.records = in_file + (whole / self.group) as u64;
        current.at = base + end as u64;
        current.carry.clear();
        current.carry.extend_from_slice(&buffer[end..]);
        let is_over = match problem {
            Some(error) => {
                self.give_up(current, if is_unread { self.with_records_before(current, error) } else { error })?;
                true
            }
            None => is_end && current.carry.is_empty(),
        };
        buffer.truncate(end);
        let mut batch = self.empty_batch(current, base, in_file, held);
        batch.unchecked &= !self.reading.salvage;
        (batch.bytes, batch.frames) = (buffer, frames);
        Ok((batch, !is_over))
    }
}

impl Batches for Sequential {
    fn errand(&mut self) -> Option<Errand> {
        let current = self.current.as_mut()?;
        let ahead = current.ahead.as_mut().filter(|ahead| !ahead.is_empty() || current.records > 0)?;
        let (at, start) = (current.at, ahead.end(current.at));
        // As far as records of the mean length are wanted.
        let wanted = self.reading.rows.end.saturating_sub(self.seen).saturating_mul(at.div_ceil(current.records.max(1)));
        let left = memory_len(current.len?.saturating_sub(start)).min(block_bytes(self.reading.batch_bytes));
        if ahead.is_ready() || left == 0 || start - at >= wanted {
            return None;
        }
        let held = self.pool.hold_at_once(self.reading.batch_bytes as u64, self.reading.ahead_bytes)?;
        let mut buffer = self.pool.buffer();
        buffer.reserve_exact(self.reading.batch_bytes);
        Some(ahead.errand(at, left, buffer, held))
    }

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if self.seen >= self.reading.rows.end {
                self.current.as_ref().map_or(Ok(()), Current::check_unchanged)?;
                return Ok(None);
            }
            let Some(mut current) = self.current.take() else {
                match self.open_next() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(None),
                    Err(error @ Error::Malformed { .. }) if self.reading.salvage => {
                        self.lost.push(format!("{error}; nothing of it is kept"));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            let (mut batch, goes_on) = match current.from {
                RecordBytes::Headers(..) => {
                    let batch = self.batch_of_headers(&mut current)?;
                    let goes_on = batch.len() > 0;
                    (batch, goes_on)
                }
                RecordBytes::Bytes(_) => self.batch_of_any(&mut current)?,
            };
            if goes_on {
                self.current = Some(current);
            } else {
                if current.is_piped && current.records == 0 {
                    self.lost.push(format!("{} ended before the first frame: its writer may have failed", current.path.display()));
                }
                current.check_unchanged()?;
                match Self::check_end(&current) {
                    Err(error @ Error::Malformed { .. }) if self.reading.salvage => {
                        let is_told = self.lost.iter().any(|lost| lost.starts_with(&*current.path.to_string_lossy()));
                        self.lost.extend((!is_told).then(|| format!("{error}; {} records are kept", current.records)));
                    }
                    result => result?,
                }
            }
            let wanted = &self.reading.rows;
            let (first, count) = (self.seen, batch.len() as u64);
            self.seen += count;
            // Drops records outside `rows`.
            let skipped = wanted.start.saturating_sub(first).min(count);
            let kept = (wanted.end - first).min(count);
            if skipped >= kept {
                continue;
            }
            batch.frames.truncate(memory_len(kept) * self.group);
            batch.frames.drain(..memory_len(skipped) * self.group);
            batch.in_file += skipped;
            batch.first = first + skipped - wanted.start;
            batch.number = self.number;
            self.number += 1;
            return Ok(Some(batch));
        }
    }

    fn known(&self) -> Option<u64> {
        self.known
    }

    fn lost(&self) -> &[String] {
        &self.lost
    }
}

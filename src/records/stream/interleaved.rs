//! Puts elements that were distributed over files back in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use super::batches::{Batches, ReadSettings, Sequential};
use super::framing::Framing;
use super::inputs::{Input, RecordFile};
use super::memory_pool::Pool;
use crate::error::{Error, ParseError, Result};
use crate::format::tensor_proto::TensorProto;
use crate::storage::paths::parent_of;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

/// Elements that were distributed over shards, ordered by the number in front of each.
pub(crate) struct Interleaved {
    lanes: Vec<Lane>,
    /// Maps the number of each lane's next element to the lane.
    next: BTreeMap<u64, usize>,
    dir: Arc<Path>,
    group: usize,
    batch_bytes: usize,
    most_records: usize,
    rows: Range<u64>,
    pool: Arc<Pool>,
    /// Elements so far, selected or not.
    seen: u64,
    number: u64,
    is_over: bool,
    salvage: bool,
    lost: Vec<String>,
}

/// One shard.
struct Lane {
    batches: Sequential,
    batch: Option<Batch>,
    record: usize,
}

impl Interleaved {
    pub(crate) fn open(
        shards: &[Vec<RecordFile>],
        framing: Framing,
        group: usize,
        reading: &ReadSettings,
        pool: &Arc<Pool>,
    ) -> Result<Self> {
        const LEAST: u64 = 16 << 10;
        // Half of the memory is for the shards, half for assembled batches.
        let each = reading.memory_bytes / 2 / shards.len().max(1) as u64;
        let batch_bytes = (reading.batch_bytes as u64).min(each / 2).max(LEAST);
        let lane = |files: &Vec<RecordFile>| {
            let inputs = files.iter().cloned().map(Input::File).collect();
            let reading = ReadSettings { batch_bytes: memory_len(batch_bytes), memory_bytes: each, rows: 0..u64::MAX, ..reading.clone() };
            let batches = Sequential::new(inputs, framing, group, reading, Pool::new(each))?;
            Ok(Lane { batches, batch: None, record: 0 })
        };
        let dir = shards.iter().flatten().next().map_or(Path::new(""), |file| parent_of(parent_of(file.path())));
        let mut dealt = Self {
            lanes: shards.iter().map(lane).collect::<Result<_>>()?,
            next: BTreeMap::new(),
            dir: dir.into(),
            group,
            batch_bytes: reading.batch_bytes,
            most_records: reading.most_records,
            rows: reading.rows.clone(),
            pool: Arc::clone(pool),
            seen: 0,
            number: 0,
            is_over: false,
            salvage: reading.salvage,
            lost: Vec::new(),
        };
        for lane in 0..dealt.lanes.len() {
            dealt.look_up(lane)?;
        }
        Ok(dealt)
    }

    /// Registers the next element of a lane.
    fn look_up(&mut self, index: usize) -> Result<()> {
        let lane = &mut self.lanes[index];
        while lane.batch.as_ref().is_none_or(|batch| lane.record == batch.len()) {
            lane.batch = None;
            let Some(mut batch) = lane.batches.next_batch()? else {
                self.lost.extend_from_slice(lane.batches.lost());
                return Ok(());
            };
            batch.load()?;
            (lane.batch, lane.record) = (Some(batch), 0);
        }
        let Some(batch) = &lane.batch else { return Ok(()) };
        let number = element_number(batch.part(lane.record, 0)).map_err(|error| batch.error(lane.record, 0, &error))?;
        if let Some(other) = self.next.insert(number, index).filter(|&other| other != index) {
            let detail = format!("shards {other} and {index} both have an element {number}: their first component does not number them");
            return Err(Error::malformed(&self.dir, "snapshot", detail));
        }
        Ok(())
    }
}

/// The number in front of an element.
fn element_number(bytes: &[u8]) -> Result<u64, ParseError> {
    let proto = TensorProto::parse(bytes, 0)?;
    let mut number = [0; 8];
    if proto.spec.dtype() != Dtype::Int64 || !proto.spec.shape().is_empty() {
        return Err(ParseError::new(0, "TensorProto", format!("an element's number is {}, expected an int64", proto.spec)));
    }
    proto.fill(&mut number)?;
    u64::try_from(i64::from_le_bytes(number)).map_err(|_| ParseError::new(0, "TensorProto", "an element's number is negative"))
}

impl Batches for Interleaved {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let held = self.pool.hold(self.batch_bytes as u64);
        let (mut bytes, mut frames) = (self.pool.buffer(), Vec::new());
        let parts = self.group - 1;
        let mut first = None;
        while !self.is_over
            && self.seen < self.rows.end
            && bytes.len() < self.batch_bytes
            && frames.len() < self.most_records.saturating_mul(parts)
        {
            let Some((number, index)) = self.next.pop_first() else {
                self.is_over = true;
                break;
            };
            if number != self.seen && self.salvage {
                self.lost.push(format!("{}: element {} is missing; it and all after it are lost", self.dir.display(), self.seen));
                self.is_over = true;
                break;
            }
            if number != self.seen {
                let detail = format!("the elements are not numbered 0, 1, 2 and so on: {} is missing, {number} follows", self.seen);
                return Err(Error::malformed(&self.dir, "snapshot", detail));
            }
            let lane = &mut self.lanes[index];
            if let Some(batch) = lane.batch.as_ref().filter(|_| self.rows.contains(&number)) {
                first.get_or_insert(number - self.rows.start);
                for part in 1..self.group {
                    let start = bytes.len();
                    bytes.extend_from_slice(batch.part(lane.record, part));
                    frames.push(start..bytes.len());
                }
            }
            lane.record += 1;
            self.seen += 1;
            self.look_up(index)?;
        }
        let Some(first) = first else { return Ok(None) };
        let batch = Batch::gathered(self.number, first, Arc::clone(&self.dir), bytes, frames, parts, held);
        self.number += 1;
        Ok(Some(batch))
    }

    fn known(&self) -> Option<u64> {
        None
    }

    fn lost(&self) -> &[String] {
        &self.lost
    }
}

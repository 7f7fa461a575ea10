//! Scans records to find their features, before columns are planned.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::feature::{Encoding, Feature, Key};
use super::set::RecordSet;
use super::stream::batches::ReadSettings;
use super::stream::memory_pool::Pool;
use super::survey::{Survey, are_examples, look_at_batch};
use crate::error::Result;
use crate::options::request::Run;
use crate::plan::Memory;
use crate::types::size::memory_len;

/// Limit for the bytes of records that are scanned at first.
const FIRST_BYTES: usize = 1 << 20;

/// What to scan.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) rows: Range<u64>,
    /// Number of rows to scan, for records that are concatenated along axis 0.
    pub(crate) joined_rows: u64,
    /// Whether to scan all of these records, or only the first.
    pub(crate) complete: bool,
    /// Whether to scan records as plain bytes, without parsing them.
    pub(crate) whole: bool,
}

/// Scans records of a set.
pub(crate) fn scan(set: &RecordSet, wanted: &Scan, run: &Run) -> Result<Survey> {
    let Scan { rows, joined_rows, complete, whole } = wanted.clone();
    let start = rows.start;
    let memory_bytes = run.budget.as_bytes() / 4;
    let reading = ReadSettings::new(FIRST_BYTES.min(memory_len(memory_bytes / 8)), memory_bytes, run);
    let reading = match set.first_look {
        // Where each record is costly to make, no extra one is made.
        1 if !complete => ReadSettings { batch_bytes: 1, ..reading },
        _ => reading,
    };
    let reading = if complete {
        ReadSettings { rows, joined_rows, ..reading }
    } else {
        let rows = rows.start..rows.end.min(rows.start.saturating_add(set.first_look));
        ReadSettings { rows, most_records: memory_len(set.first_look), ..reading }
    };
    let mut batches = set.open(reading, &Pool::new(memory_bytes))?;
    let is_compressed = |feature: &&Feature| feature.declared.as_ref().is_some_and(|declared| declared.encoding == Encoding::Zlib);
    let compressed = Arc::new(set.features.iter().filter(is_compressed).map(|feature| feature.key.clone()).collect());
    let mut survey = Survey { is_complete: true, start, compressed: Arc::clone(&compressed), ..Survey::default() };
    let Some(mut first) = batches.next_batch()? else {
        survey.lost = batches.lost().to_vec();
        return Ok(survey);
    };
    first.load()?;
    let is_named = set.features.iter().any(|feature| !matches!(feature.key, Key::Part(_)));
    let found = if set.discovers && !is_named && !whole { are_examples(&first) } else { Ok(false) };
    let as_examples = !whole && (is_named || found == Ok(true));
    survey.mixed = found.err();
    if !complete {
        look_at_batch(set, &first, as_examples, start, &mut survey)?;
        survey.is_complete = false;
        return Ok(survey);
    }
    let merged = Mutex::new(survey);
    let mut waiting = Some(first);
    crate::os::workers::run(
        Memory::Scan.threads(run.threads),
        &run.cancel,
        || match waiting.take() {
            Some(first) => Ok(Some(first)),
            None => batches.next_batch(),
        },
        || (),
        |mut batch, ()| {
            batch.load()?;
            let mut seen = Survey { compressed: Arc::clone(&compressed), ..Survey::default() };
            look_at_batch(set, &batch, as_examples, start, &mut seen)?;
            merged.lock().unwrap_or_else(PoisonError::into_inner).merge(seen);
            Ok(())
        },
    )?;
    let mut survey = merged.into_inner().unwrap_or_else(PoisonError::into_inner);
    survey.lost = batches.lost().to_vec();
    Ok(survey)
}

//! Tests that reading ahead changes nothing but who reads.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::ahead::Errand;
use super::batches::{Batches, ReadSettings, Sequential};
use super::framing::Framing;
use super::inputs::{Input, RecordFile};
use super::memory_pool::Pool;
use crate::error::Result;
use crate::format::crc;
use crate::os::SystemCalls;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::storage::probe::Probe;

const BATCH: usize = 4096;
const MEMORY: u64 = 64 << 10;

fn frame(framing: Framing, record: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc::mask(crc::crc32c(bytes)).to_le_bytes();
    let len = (record.len() as u64).to_le_bytes();
    match framing {
        Framing::TfRecord => [&len[..], &masked(&len), record, &masked(record)].concat(),
        _ => [&len[..], record].concat(),
    }
}

/// What is known of a record: its number in all files and in its own, and its frames.
type Known = (u64, u64, Vec<Vec<u8>>);

/// All records that batches have, with the number of errands and the error at the end.
fn read(path: &Path, framing: Framing, group: usize, reading: &ReadSettings, choices: &[u8]) -> (Vec<Known>, usize, Option<String>) {
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(SystemCalls::default()));
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let inputs = files.iter().map(|file| Input::File(RecordFile::new(&Probe::new(&storage, file), None))).collect();
    let pool = Pool::new(MEMORY);
    let (mut records, mut errands) = (Vec::new(), 0);
    let all = || -> Result<()> {
        let mut batches = Sequential::new(inputs, framing, group, reading.clone(), Arc::clone(&pool))?;
        let mut choices = choices.iter().cycle();
        let mut begun: Vec<Errand> = Vec::new();
        loop {
            // Other workers run some errands at once, some later, and some never.
            while let Some(errand) = batches.errand() {
                errands += 1;
                match choices.next() {
                    Some(0) => drop(errand),
                    Some(1) => begun.push(errand),
                    _ => errand.run(),
                }
            }
            begun.drain(..).rev().for_each(Errand::run);
            let Some(mut batch) = batches.next_batch()? else { return Ok(()) };
            batch.load()?;
            for record in 0..batch.len() {
                let parts = (0..group).map(|part| batch.part(record, part).to_vec()).collect();
                records.push((batch.first + record as u64, batch.in_file + record as u64, parts));
            }
        }
    };
    let error = all().err().map(|error| error.to_string());
    (records, errands, error)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn blocks_that_are_read_ahead_give_the_same_records_and_the_same_error(
        lengths in prop::collection::vec(prop::collection::vec(prop_oneof![8 => 0usize..300, 1 => 0usize..6000], 1..160), 1..3),
        tfrecord in any::<bool>(), group in 1usize..3, rows in prop_oneof![2 => Just(0..u64::MAX), 1 => (0u64..60).prop_map(|start| start..start + 90)],
        most_records in prop_oneof![4 => Just(usize::MAX), 1 => 1usize..30], choices in prop::collection::vec(0u8..12, 1..9),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<bool>())), verify in any::<bool>(),
    ) {
        let framing = if tfrecord { Framing::TfRecord } else { Framing::Length };
        let dir = tempfile::tempdir().unwrap();
        for (file, lengths) in lengths.iter().enumerate() {
            let record = |(i, len): (usize, &usize)| frame(framing, &vec![(i + file) as u8; *len]);
            let whole = lengths.len() / group * group;
            let mut bytes: Vec<u8> = lengths[..whole].iter().enumerate().flat_map(record).collect();
            match damage {
                Some((at, false)) if !bytes.is_empty() && file == 0 => *at.get_mut(&mut bytes) ^= 4,
                Some((at, true)) if !bytes.is_empty() && file == 0 => bytes.truncate(at.index(bytes.len())),
                _ => {}
            }
            fs::write(dir.path().join(file.to_string()), bytes).unwrap();
        }
        let plain = ReadSettings {
            batch_bytes: BATCH, most_records, memory_bytes: MEMORY, ahead_bytes: 0, rows, joined_rows: u64::MAX, verify, salvage: false,
            calls: SystemCalls::default(),
        };
        let expected = read(dir.path(), framing, group, &plain, &choices);
        prop_assert_eq!(expected.1, 0);
        let ahead = ReadSettings { ahead_bytes: 8 * BATCH as u64, ..plain };
        let found = read(dir.path(), framing, group, &ahead, &choices);
        // What comes before a damage in the same batch is not seen, and batches differ.
        let common = if expected.2.is_some() { found.0.len().min(expected.0.len()) } else { expected.0.len() };
        prop_assert_eq!(&found.0[..common], &expected.0[..common]);
        prop_assert!(expected.2.is_some() || found.0.len() == common);
        prop_assert_eq!(&found.2, &expected.2);
    }
}

#[test]
fn short_records_are_read_ahead_within_the_memory_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<u8> = (0..2000).flat_map(|i: u32| frame(Framing::TfRecord, &i.to_le_bytes().repeat(25))).collect();
    fs::write(dir.path().join("0"), &records).unwrap();
    let plain = ReadSettings {
        batch_bytes: BATCH,
        most_records: usize::MAX,
        memory_bytes: MEMORY,
        ahead_bytes: 3 * BATCH as u64,
        rows: 0..u64::MAX,
        joined_rows: u64::MAX,
        verify: true,
        salvage: false,
        calls: SystemCalls::default(),
    };
    let (found, errands, error) = read(dir.path(), Framing::TfRecord, 1, &plain, &[2]);
    assert_eq!((found.len(), error), (2000, None));
    assert!(errands > 50, "{errands} blocks for {} bytes", records.len());
    // Of records 0 to 9 nothing is read ahead: the first batch has them.
    let few = ReadSettings { rows: 0..10, ..plain };
    assert_eq!(read(dir.path(), Framing::TfRecord, 1, &few, &[2]).1, 0);
}

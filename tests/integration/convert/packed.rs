//! Records in a safetensors file equal the same arrays as `.npy`. They are written straight to their places.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mmconvert::records::{Missing, Ragged};
use mmconvert::{Budget, Comparison, Options, RecordOptions, Source, Strings, compare_packed, export, pack};
use proptest::prelude::*;

use crate::record_files::{Values, example, frames};
use crate::support::{code, mmconvert, names_in, npy, stderr};

/// The tensors of a safetensors file by name, with header entry and bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let mut ends = vec![0];
    let listed = header.as_object().unwrap().iter().map(|(name, entry)| {
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        ends.push(at(1));
        (name.clone(), (format!("{} {}", entry["dtype"], entry["shape"]), bytes[start + at(0)..start + at(1)].to_vec()))
    });
    let listed: BTreeMap<_, _> = listed.collect();
    let total: usize = listed.values().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((ends.iter().max().copied().unwrap(), start + total), (total, bytes.len()), "no holes");
    listed
}

/// A record: a value, two in a row, a list, text, a value that some records lack, and one that cannot be an array from some
/// record on.
fn record(i: i64, list: &[i64], lacks: bool, is_odd: bool) -> Vec<u8> {
    let mut features = vec![
        ("value", Values::Ints(vec![i * i])),
        ("pair", Values::Floats(vec![i as f32, 0.5])),
        ("list", Values::Ints(list.to_vec())),
        ("text", Values::Bytes(vec![vec![b'x'; list.len()]])),
        ("odd", Values::Ints(vec![i; if is_odd { 2 } else { 1 }])),
    ];
    features.extend((!lacks).then_some(("key", Values::Ints(vec![i]))));
    example(&features, true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_in_one_file_equal_those_in_many(
        lists in prop_oneof![prop::collection::vec(prop::collection::vec(-9i64..9, 0..5), 1..9), prop::collection::vec(prop::collection::vec(any::<i64>(), 0..9), 900..1200)],
        lacking in 2usize..9, odd in any::<prop::sample::Index>(), threads in 1usize..5, mib in prop_oneof![Just(16u64), Just(64)],
        skip in any::<bool>(), ragged in any::<bool>(), offsets in any::<bool>(), rows in prop::option::of(0u64..12)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.tfrecord");
        let odd = 1 + odd.index(lists.len());
        let all: Vec<Vec<u8>> = lists.iter().enumerate().map(|(i, list)| record(i as i64, list, i % lacking == 1, i >= odd)).collect();
        fs::write(&path, frames(&all)).unwrap();
        let mut records = RecordOptions::new();
        if skip {
            records = records.missing(Some("key"), Missing::Skip);
        }
        if ragged {
            records = records.ragged(Some("list"), Ragged::Offsets);
        }
        let mut options = Options::new().records(records).threads(threads).memory(Budget::mib(mib));
        if offsets {
            options = options.strings(Strings::Offsets);
        }
        let source = Source::open_with(&path, None, &options).unwrap();
        let wanted = source.select::<&str>(&[]).unwrap();
        let rows = rows.map(|start| mmconvert::Rows::from(start.min(lists.len() as u64 - 1)..u64::MAX / 2));
        let (many, one) = (dir.path().join("many"), dir.path().join("one.safetensors"));
        let exported = export(&wanted, rows, &many, &options).unwrap();
        let packed = pack(&wanted, rows, &one, &options).unwrap();
        let found = tensors(&one);
        // All arrays but padded text.
        let text = usize::from(!offsets && many.join("text.npy").exists());
        prop_assert_eq!(found.len() + text, exported.outputs.len(), "{:?} {:?}", packed.skipped, exported.skipped);
        prop_assert_eq!(packed.skipped.len(), exported.skipped.len() + text);
        for (name, (_, bytes)) in &found {
            prop_assert!(npy(&many.join(format!("{name}.npy"))).1 == *bytes, "{name}");
        }
        let lost = |outputs: &[mmconvert::Exported]| outputs[0].report.lost.clone();
        prop_assert_eq!(lost(&packed.outputs), lost(&exported.outputs));
        prop_assert_eq!(names_in(dir.path()), ["many", "one.safetensors", "r.tfrecord"]);
        let own = Source::open(&one).unwrap();
        let tensor = own.tensor("value").unwrap();
        // Comparing a single column needs the names of the others for which records were skipped.
        let skipped_with = RecordOptions::new().missing(Some("key"), Missing::Skip).skipped_with(["key".to_owned()]);
        let options = if skip { options.records(skipped_with) } else { options };
        let compared = compare_packed(&tensor, &source.tensor("value").unwrap(), rows, &options);
        prop_assert!(matches!(compared, Ok(Comparison::Equal(_))), "{compared:?}");
    }
}

#[test]
fn records_that_safetensors_cannot_hold_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.tfrecord");
    fs::write(&path, frames(&[record(0, &[1], false, false), record(1, &[2], true, true)])).unwrap();
    let (source, out) = (path.to_str().unwrap(), dir.path().join("o.safetensors"));
    let go = |args: &[&str]| mmconvert([&["convert", source, "-o", out.to_str().unwrap()], args].concat());
    for (args, expected) in [
        (&["odd", "text", "key"][..], 6),
        (&["odd", "value", "--dtype", "float64", "--strict"], 6),
        (&["odd", "value", "--strings", "offsets"], 2),
    ] {
        let done = go(args);
        assert_eq!(code(&done), expected, "{args:?}: {}", stderr(&done));
        assert_eq!(names_in(dir.path()), ["r.tfrecord"]);
    }
    let done = go(&["odd", "value", "--skip-unsupported"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(tensors(&out).keys().collect::<Vec<_>>(), ["value"]);
}

#[test]
fn a_dry_run_of_a_pack_reports_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.tfrecord");
    fs::write(&path, frames(&(0..10).map(|i| record(i, &[i], false, false)).collect::<Vec<_>>())).unwrap();
    let out = dir.path().join("o.safetensors");
    let done = mmconvert(["convert", path.to_str().unwrap(), "value", "pair", "-n", "--json", "-o", out.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["write_bytes"], 160);
    let done = mmconvert(["convert", path.to_str().unwrap(), "value", "pair", "-o", out.to_str().unwrap()]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(told["room_bytes"], fs::metadata(&out).unwrap().len(), "it is written straight into the file, which has a header");
}

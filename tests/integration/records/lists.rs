//! Lists of different lengths, and features that records lack: padded, filled, skipped, reported.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::record_files::{Values, example, frames};
use crate::support::{code, data, ints, mmconvert, names_in, npy, stderr};

#[test]
fn filling_missing_rows_differs_from_padding_short_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists.tfrecord");
    let lists = [Some(vec![1i64, 2, 3]), None, Some(vec![4])];
    let all: Vec<Vec<u8>> = lists
        .iter()
        .map(|list| {
            let list = list.iter().map(|list| ("list", Values::Ints(list.clone())));
            example(&[("always", Values::Ints(vec![0]))].into_iter().chain(list).collect::<Vec<_>>(), true)
        })
        .collect();
    fs::write(&path, frames(&all)).unwrap();
    let source = path.to_str().unwrap();
    let out = dir.path().join("out.npy");
    let run = |args: &[&str]| mmconvert([&["convert", source, "list", "-fo", out.to_str().unwrap()], args].concat());
    for (args, expected) in [
        (&["--ragged", "pad:-1"][..], [1, 2, 3, -1, -1, -1, 4, -1, -1]),
        (&["--ragged", "pad:-1", "--missing", "fill:9"], [1, 2, 3, 9, 9, 9, 4, -1, -1]),
        (&["--ragged", "pad", "--missing", "fill:9"], [1, 2, 3, 9, 9, 9, 4, 0, 0]),
    ] {
        let done = run(args);
        assert_eq!(code(&done), 0, "{args:?}: {}", stderr(&done));
        assert_eq!(ints(&npy(&out).1), expected, "{args:?}");
        fs::remove_file(&out).unwrap();
    }
    // Refused: there is no row to fill, or no row to pad.
    for (args, expected) in [
        (&["--ragged", "offsets", "--missing", "fill:9"][..], 2),
        (&["--flatten", "--missing", "fill:9"], 2),
        (&["--flatten", "--ragged", "pad"], 2),
        (&["--ragged", "pad", "--missing", "refuse"], 6),
        (&["--flatten", "--missing", "refuse"], 6),
    ] {
        let done = run(args);
        assert!(code(&done) == expected && !out.exists(), "{args:?}: {}", stderr(&done));
    }
}

#[test]
fn fill_values_are_not_narrowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floats.tfrecord");
    let all = [vec![1.5f32, 2.0], vec![3.0]].map(|list| example(&[("x", Values::Floats(list))], true));
    fs::write(&path, frames(&all)).unwrap();
    let out = dir.path().join("out.npy");
    for (value, expected) in [("16777216", 0), ("0.1", 0), ("inf", 0), ("nan", 0), ("16777217", 2), ("1e39", 2), ("1e400", 2), ("1e-60", 2)]
    {
        let choice = format!("pad:{value}");
        let done = mmconvert(["convert", path.to_str().unwrap(), "--ragged", &choice, "-fo", out.to_str().unwrap()]);
        assert_eq!(code(&done), expected, "{value}: {}", stderr(&done));
    }
}

#[test]
fn steps_are_rows_unless_an_option_names_the_feature() {
    let dir = tempfile::tempdir().unwrap();
    let source = data("tfds/rlds");
    let source = source.to_str().unwrap();
    let listed: Value = serde_json::from_slice(&mmconvert(["ls", source, "--json"]).stdout).unwrap();
    let names = listed["tensors"].as_array().unwrap().iter().filter_map(|tensor| tensor["name"].as_str());
    let action = names.clone().find(|name| name.ends_with("action")).unwrap_or_else(|| panic!("{:?}", names.collect::<Vec<_>>()));
    let go = |name: &str, choice: &str, out: &str| {
        mmconvert(["convert", source, name, "--ragged", choice, "-fo", dir.path().join(out).to_str().unwrap()])
    };
    // The same rule holds for one feature and for all.
    for name in [action, "*/action"] {
        let done = go(name, "pad", "a/");
        assert!(code(&done) == 2 && stderr(&done).contains("NAME=HOW"), "{name}: {}", stderr(&done));
    }
    let choice = format!("{action}=pad");
    let done = go(action, &choice, "b/");
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let verified = mmconvert(["verify", dir.path().join("b").to_str().unwrap()]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
}

/// Converts records with these features and arguments. Returns the arrays by name, with header and elements.
fn arrays(dir: &Path, examples: &[Vec<u8>], args: &[&str]) -> BTreeMap<String, (String, Vec<u8>)> {
    let (source, out) = (dir.join("d.tfrecord"), dir.join("out"));
    fs::write(&source, frames(examples)).unwrap();
    let _ = fs::remove_dir_all(&out);
    let done = mmconvert([&["convert", source.to_str().unwrap(), "-o", &format!("{}/", out.display())], args].concat());
    assert_eq!(code(&done), 0, "{args:?}: {}", stderr(&done));
    let verified = mmconvert(["verify", out.to_str().unwrap()]);
    assert_eq!(code(&verified), 0, "{args:?}: {}", stderr(&verified));
    let names = names_in(&out).into_iter().filter(|name| name != "manifest.json");
    names.map(|name| (name.clone(), npy(&out.join(name)))).collect()
}

#[test]
fn the_type_of_a_feature_does_not_depend_on_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let record = |list: &[i64]| {
        example(
            &[("list", Values::Ints(list.to_vec())), ("two", Values::Ints(vec![1, 2])), ("text", Values::Bytes(vec![b"abc".to_vec()]))],
            true,
        )
    };
    let examples = [record(&[1, 2]), record(&[]), record(&[3])];
    for (rows, lists, two, text) in
        [("3:", "(0, 2)", "(0, 2)", "(0, 1)"), ("0:0", "(0, 2)", "(0, 2)", "(0, 1)"), ("1:2", "(1, 0)", "(1, 2)", "(1, 1)")]
    {
        let found = arrays(dir.path(), &examples, &["--rows", rows, "--ragged", "pad"]);
        for (name, descr, shape) in [("list.npy", "<i8", lists), ("two.npy", "<i8", two), ("text.npy", "|S3", text)] {
            let header = &found[name].0;
            assert!(header.contains(descr) && header.contains(shape), "{rows} {name}: {header}");
        }
        let found = arrays(dir.path(), &examples, &["--rows", rows, "--ragged", "offsets"]);
        assert!(found["list.values.npy"].0.contains("<i8"), "{rows}: {:?}", found.keys());
    }
}

#[test]
fn an_empty_list_is_a_value_where_lists_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let record = |number: i64, list: Option<Vec<i64>>| {
        let mut features = vec![("number", Values::Ints(vec![number]))];
        features.extend(list.map(|list| ("list", Values::Ints(list))));
        example(&features, true)
    };
    let examples = [record(0, Some(vec![5, 6])), record(1, Some(vec![])), record(2, None), record(3, Some(vec![7]))];
    let numbers =
        |found: &BTreeMap<String, (String, Vec<u8>)>| -> Vec<u8> { found["number.npy"].1.chunks(8).map(|bytes| bytes[0]).collect() };
    for how in [&["--ragged", "pad"][..], &["--ragged", "offsets"]] {
        let found = arrays(dir.path(), &examples, &[how, &["--missing", "skip"]].concat());
        assert_eq!(numbers(&found), [0, 1, 3], "{how:?}");
        let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("out/manifest.json")).unwrap()).unwrap();
        assert!(manifest["lost"][0].as_str().unwrap().contains("1 of 4 records lack list"), "{}", manifest["lost"]);
    }
    let filled = arrays(dir.path(), &examples, &["--ragged", "pad:8", "--missing", "list=fill:9"]);
    assert_eq!(filled["list.npy"].1.chunks(8).map(|bytes| bytes[0]).collect::<Vec<u8>>(), [5, 6, 8, 8, 9, 9, 7, 8]);
}

#[test]
fn a_fill_value_for_all_features_applies_to_compatible_ones() {
    let dir = tempfile::tempdir().unwrap();
    let record = |text: Option<&[u8]>| {
        let mut features = vec![("number", Values::Ints(vec![4]))];
        features.extend(text.map(|text| ("text", Values::Bytes(vec![text.to_vec()]))));
        example(&features, true)
    };
    let examples = [record(Some(b"ab")), record(None)];
    let found = arrays(dir.path(), &examples, &["--missing", "fill:x"]);
    assert_eq!((&found["text.npy"].1[..], found["number.npy"].1.len()), (&b"abx\0"[..], 16));
    // Fill values are not narrowed either if the array is cast afterwards.
    let numbers = [example(&[("n", Values::Ints(vec![1, 2]))], true), example(&[("n", Values::Ints(vec![3]))], true)];
    let padded = arrays(dir.path(), &numbers, &["--ragged", "pad:200", "--dtype", "uint8"]);
    assert_eq!(padded["n.npy"].1, [1, 2, 3, 200]);
    for (ragged, dtype) in [("pad:300", "uint8"), ("pad:-1", "uint8"), ("pad:70000", "float16")] {
        let path = dir.path().join("d.tfrecord");
        let done = mmconvert([
            "convert",
            path.to_str().unwrap(),
            "--ragged",
            ragged,
            "--dtype",
            dtype,
            "-o",
            dir.path().join("n").to_str().unwrap(),
        ]);
        assert_eq!(code(&done), 2, "{ragged} {dtype}: {}", stderr(&done));
    }
}

/// A serialized int32 tensor with one axis.
fn tensor(values: &[i32]) -> Vec<u8> {
    let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (rows, len) = (u8::try_from(values.len()).unwrap(), u8::try_from(content.len()).unwrap());
    [&[0x08, 3, 0x12, 4, 0x12, 2, 0x08, rows, 0x22, len][..], &content].concat()
}

#[test]
fn tensors_of_one_record_stay_separate() {
    let dir = tempfile::tempdir().unwrap();
    let record = |tensors: &[&[i32]]| example(&[("t", Values::Bytes(tensors.iter().map(|values| tensor(values)).collect()))], true);
    // Whole tensors are items.
    let alike = [record(&[&[1, 2], &[3, 4]]), record(&[&[5, 6]])];
    let found = arrays(dir.path(), &alike, &["--ragged", "offsets"]);
    assert!(found["t.values.npy"].0.contains("(3, 2)"), "{}", found["t.values.npy"].0);
    assert_eq!(found["t.offsets.npy"].1.chunks(8).map(|bytes| bytes[0]).collect::<Vec<u8>>(), [0, 2, 3]);
    let found = arrays(dir.path(), &alike, &["--ragged", "pad:9"]);
    assert!(found["t.npy"].0.contains("(2, 2, 2)"), "{}", found["t.npy"].0);
    // With one tensor per record, its rows are the items.
    let found = arrays(dir.path(), &[record(&[&[1, 2]]), record(&[&[3]])], &["--ragged", "offsets"]);
    assert_eq!(found["t.offsets.npy"].1.chunks(8).map(|bytes| bytes[0]).collect::<Vec<u8>>(), [0, 2, 3]);
    let (several, later) = ([record(&[&[1, 2], &[3]]), record(&[&[4], &[5, 6]])], [record(&[&[1, 2]]), record(&[&[3], &[4, 5]])]);
    for (examples, values) in [(&several, 6), (&later, 5)] {
        fs::write(dir.path().join("d.tfrecord"), frames(examples)).unwrap();
        for how in ["pad", "offsets"] {
            let path = dir.path().join("d.tfrecord");
            let done = mmconvert(["convert", path.to_str().unwrap(), "--ragged", how, "-o", dir.path().join("no").to_str().unwrap()]);
            assert!(code(&done) == 6 && stderr(&done).contains("--flatten"), "{how}: {}", stderr(&done));
        }
        let rows = arrays(dir.path(), examples, &["--flatten"]);
        assert_eq!(rows["t.npy"].1.len(), 4 * values);
    }
}

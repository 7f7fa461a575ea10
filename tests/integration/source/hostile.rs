//! Hostile files end as expected: an error with its position, no panic, no output.

use std::fs;
use std::path::Path;

use mmconvert::{Error, Options, Source, export};
use proptest::prelude::*;

use crate::bundle::{BundleWriter, Layout};
use crate::support::{code, data, json, mmconvert, names_in, npy, sha256, shape_of, stderr};

#[test]
fn hostile_checkpoints_end_as_expected() {
    let expected = json("hostile/expected.json");
    let mut outcomes = [0; 2];
    for case in expected["cases"].as_array().unwrap() {
        let path = data(case["path"].as_str().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let run = mmconvert(["convert".as_ref(), path.as_os_str(), "-o".as_ref(), out.join("").as_os_str()]);
        let what = format!("{} ({}): {}", path.display(), case["what"], stderr(&run));
        assert!(code(&run) < 64, "{what}");
        match case["want"].as_str().unwrap() {
            // A tensor of 300 dimensions is one that TensorFlow itself refuses.
            "error" | "either" => {
                outcomes[0] += 1;
                assert_ne!(code(&run), 0, "{what}");
                assert!(stderr(&run).contains(path.file_name().unwrap().to_str().unwrap()), "the message names the file: {what}");
            }
            "ok" => {
                outcomes[1] += 1;
                assert_eq!(code(&run), 0, "{what}");
            }
            want => panic!("{what}: {want}"),
        }
        let written = if code(&run) == 0 { vec!["out".to_owned()] } else { vec![] };
        assert_eq!(names_in(dir.path()), written, "{what}");
        if code(&run) == 0
            && let Some(tensors) = case["tensors"].as_array()
        {
            let manifest: serde_json::Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
            let listed = manifest["tensors"].as_array().unwrap();
            assert_eq!(listed.len(), tensors.len(), "{what}");
            for (tensor, listed) in tensors.iter().zip(listed) {
                let (_, bytes) = npy(&out.join(listed["file"].as_str().unwrap()));
                assert_eq!(sha256(&bytes), tensor["sha256"].as_str().unwrap(), "{what}");
                assert_eq!(shape_of(listed), shape_of(tensor), "{what}");
            }
        }
    }
    assert_eq!(outcomes, [28, 7], "error, ok");
}

/// A small checkpoint with a plain tensor, a partitioned one, and an invalid object graph.
fn checkpoint(dir: &Path, snappy: bool) -> std::path::PathBuf {
    checkpoint_with(dir, snappy, |_| {})
}

/// As `checkpoint`, with the index changed before it is written, so that all of its checksums match.
fn checkpoint_with(dir: &Path, snappy: bool, change: impl FnOnce(&mut BundleWriter)) -> std::path::PathBuf {
    let prefix = dir.join("c");
    let mut writer = BundleWriter::create(&prefix, Layout { shards: 2, snappy, block_size: 64, ..Layout::default() }).unwrap();
    writer.add(b"plain", 1, &[5, 3], 0, &[7u8; 60][..]).unwrap();
    let pieces = [vec![(0, Some(1)), (0, None)], vec![(1, Some(3)), (0, Some(2))], vec![(1, Some(3)), (2, Some(2))]];
    writer.add_partitioned(b"cut", 4, &[4, 4], &pieces, |i| (i as u32 % 2, [[1u8; 4].as_slice(), &[2; 6], &[3; 6]][i])).unwrap();
    writer.add_string(b"_CHECKPOINTABLE_OBJECT_GRAPH", b"", 0).unwrap();
    writer.add_strings(b"text", &[3], ["a", "", "bc"], 1).unwrap();
    change(&mut writer);
    writer.finish().unwrap();
    prefix
}

/// Converts all tensors. Any outcome but a wrong one is allowed.
fn convert_all(prefix: &Path, out: &Path) -> Result<(), Error> {
    let source = Source::open(prefix)?;
    export(&source.all()?, None, out, &Options::new()).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_byte_is_an_error_or_changes_nothing(snappy in any::<bool>(), file in 0usize..3, at in any::<prop::sample::Index>(), xor in 1u8..=255) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = checkpoint(dir.path(), snappy);
        let good = dir.path().join("good");
        convert_all(&prefix, &good).unwrap();

        let target = dir.path().join(["c.index", "c.data-00000-of-00002", "c.data-00001-of-00002"][file]);
        let mut bytes = fs::read(&target).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        fs::write(&target, bytes).unwrap();
        let bad = dir.path().join("bad");
        match convert_all(&prefix, &bad) {
            Ok(()) => {
                for name in names_in(&good).iter().filter(|name| *name != "manifest.json") {
                    prop_assert_eq!(fs::read(good.join(name)).unwrap(), fs::read(bad.join(name)).unwrap());
                }
            }
            Err(error) => {
                prop_assert!(!bad.exists());
                prop_assert!(error.to_string().contains("c."), "names the file: {}", error);
            }
        }
    }

    #[test]
    fn a_cut_file_is_an_error(file in 0usize..3, at in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = checkpoint(dir.path(), false);
        let target = dir.path().join(["c.index", "c.data-00000-of-00002", "c.data-00001-of-00002"][file]);
        let bytes = fs::read(&target).unwrap();
        fs::write(&target, &bytes[..at.index(bytes.len())]).unwrap();
        let out = dir.path().join("out");
        prop_assert!(convert_all(&prefix, &out).is_err());
        prop_assert!(!out.exists());
    }

    /// Changes under valid checksums reach the parsers. Whatever they report, no partial output is left.
    #[test]
    fn a_changed_entry_is_an_error_or_a_conversion(
        which in any::<prop::sample::Index>(), in_key in prop::bool::weighted(0.1),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = checkpoint_with(dir.path(), false, |writer| {
            let key = writer.entries.keys().nth(which.index(writer.entries.len())).unwrap().clone();
            let mut value = writer.entries.remove(&key).unwrap();
            let mut key = key;
            for (at, byte, kind) in edits {
                let bytes = if in_key { &mut key } else { &mut value };
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte),
                }
            }
            writer.entries.insert(key, value);
        });
        let out = dir.path().join("out");
        let result = convert_all(&prefix, &out);
        prop_assert_eq!(result.is_ok(), out.exists());
        prop_assert_eq!(names_in(dir.path()).len(), 3 + usize::from(result.is_ok()));
    }
}

//! How a path leads to a source, and the error when it leads to none.

use std::fs;
use std::path::Path;

use mmconvert::{Error, Source};

use crate::bundle::{BundleWriter, Layout, push_bytes_field, push_varint_field};
use crate::support::{Mapped as _, data};

fn small(prefix: &Path, value: u8) {
    let mut writer = BundleWriter::create(prefix, Layout::default()).unwrap();
    writer.add(b"v", 4, &[1], 0, &[value][..]).unwrap();
    writer.finish().unwrap();
}

fn value(path: &Path) -> u8 {
    let source = Source::open(path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let done = mmconvert::Converter::new(&source.tensor("v").unwrap()).unwrap().mapped(dir.path().join("v.npy")).unwrap();
    done.array.as_bytes()[0]
}

fn message(path: &Path) -> String {
    Source::open(path).unwrap_err().to_string()
}

#[test]
fn every_path_of_a_checkpoint_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("model.ckpt-7");
    small(&prefix, 7);
    for name in ["model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001", ""] {
        assert_eq!(value(&dir.path().join(name)), 7, "{name:?}");
    }
    assert_eq!(Source::open(data("savedmodel/half_plus_two")).unwrap().format(), "saved-model");
    assert_eq!(Source::open(data("savedmodel/half_plus_two/saved_model.pb")).unwrap().format(), "saved-model");
    assert_eq!(Source::open(data("savedmodel/half_plus_two/variables")).unwrap().format(), "tensor-bundle");
}

#[test]
fn a_state_file_leads_to_the_newest_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for n in [1, 2, 3] {
        small(&dir.path().join(format!("ckpt-{n}")), n);
    }
    for (text, newest) in [
        ("model_checkpoint_path: \"ckpt-2\"\nall_model_checkpoint_paths: \"ckpt-3\"\n", 2),
        ("model_checkpoint_path: \"/where/it/was/written/ckpt-3\"\n", 3),
        ("model_checkpoint_path: \"ckpt\\0551\"", 1),
    ] {
        fs::write(dir.path().join("checkpoint"), text).unwrap();
        assert_eq!(value(dir.path()), newest);
    }
    fs::write(dir.path().join("checkpoint"), "model_checkpoint_path: \"gone\"").unwrap();
    let text = message(dir.path());
    assert!(text.contains("gone.index") && text.contains("ckpt-3"), "{text}");
    fs::write(dir.path().join("checkpoint"), "junk").unwrap();
    assert!(matches!(Source::open(dir.path()), Err(Error::Malformed { .. })));
}

#[test]
fn errors_say_what_is_missing_and_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(message(dir.path()).contains("it is empty"));
    small(&at("a"), 1);
    small(&at("b"), 1);
    assert!(message(&at("c")).contains("c.index") && message(&at("c")).contains("checkpoints there: "));
    assert!(message(dir.path()).contains("/a, "), "{}", message(dir.path()));
    assert!(message(&at("no/such")).contains("there is no directory"));

    fs::remove_file(at("a.index")).unwrap();
    assert!(message(&at("a")).contains("a.index is missing, although a.data-00000-of-00001 is there"), "{}", message(&at("a")));
    fs::write(at("x.gz"), b"\x1f\x8b\x08").unwrap();
    assert!(matches!(Source::open(at("x.gz")), Err(Error::Unsupported { .. })));
    assert!(Source::open_as(at("b"), Some("zip")).unwrap_err().to_string().contains("tensor-bundle"));

    fs::rename(at("b.data-00000-of-00001"), at("b.data-00000-of-00003")).unwrap();
    let source = Source::open(at("b")).unwrap();
    let text = source.tensor("v").unwrap().reader().unwrap_err().to_string();
    assert!(text.contains("b.data-00000-of-00001") && text.contains("b.data-00000-of-00003 is there"), "{text}");
    fs::remove_file(at("b.data-00000-of-00003")).unwrap();
    let text = source.tensor("v").unwrap().reader().unwrap_err().to_string();
    assert!(text.contains("no other shard"), "{text}");
}

#[test]
fn other_forms_of_saved_models_are_named() {
    for (name, what) in [("saved_model.pbtxt", "text form"), ("saved_model.cpb", "chunked")] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "x").unwrap();
        let error = Source::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(what), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("saved_model.pb"), [0x08, 0x01, 0x12, 0x00]).unwrap();
    let text = message(dir.path());
    assert!(text.contains("variables.index"), "{text}");
    for (bytes, why) in [
        (&[0x08, 0x02][..], "schema version is 2"),
        (&[0x12, 0x05, 1], "are left"),
        (&[], "no graph"),
        (&[0x0b], "not closed"),
        (&[0x0f], "wire type"),
    ] {
        fs::write(dir.path().join("saved_model.pb"), bytes).unwrap();
        assert!(message(dir.path()).contains(why), "{}", message(dir.path()));
    }
}

#[test]
fn a_hundred_thousand_overlapping_pieces_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let rows = 50_000u64;
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    let mut pieces: Vec<Vec<(u64, Option<u64>)>> = (0..rows).map(|i| vec![(i, Some(1)), (0, Some(1))]).collect();
    pieces.extend((0..rows - 1).map(|i| vec![(i, Some(2)), (1, Some(1))]));
    writer.add_partitioned(b"overlapping", 4, &[rows, 2], &pieces, |i| (0, if i < 50_000 { &[1u8][..] } else { &[1, 1] })).unwrap();
    writer.finish().unwrap();
    let source = Source::open(&prefix).unwrap();
    let error = source.tensor("overlapping").unwrap().reader().unwrap_err();
    assert!(error.to_string().contains("exactly once"), "{error}");
}

#[test]
fn a_piece_declared_a_hundred_thousand_times_is_refused_before_it_is_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    let name = vec![b'n'; 200_000];
    writer.add_partitioned(&name, 4, &[2], &[vec![(0, Some(1))], vec![(1, Some(1))]], |_| (0, &[1u8][..])).unwrap();
    let slice = [0x3a, 0x04, 0x0a, 0x02, 0x10, 0x01];
    writer.entries.get_mut(&name).unwrap().extend(slice.repeat(100_000));
    writer.finish().unwrap();
    let source = Source::open(&prefix).unwrap();
    let error = source.tensor(&name).unwrap().reader().unwrap_err();
    assert!(error.to_string().contains("100002 pieces"), "{error}");
}

/// A node: its children by number and local name, and for a variable its own name and its key.
type GraphNode<'a> = (&'a [(u64, &'a str)], Option<(&'a str, &'a str)>);

/// A `TrackableObjectGraph`.
fn object_graph(nodes: &[GraphNode<'_>]) -> Vec<u8> {
    let mut graph = Vec::new();
    for (children, variable) in nodes {
        let mut node = Vec::new();
        for (id, name) in *children {
            let mut child = Vec::new();
            push_varint_field(&mut child, 1, *id);
            push_bytes_field(&mut child, 2, name.as_bytes());
            push_bytes_field(&mut node, 1, &child);
        }
        if let Some((full_name, key)) = variable {
            let mut attribute = Vec::new();
            push_bytes_field(&mut attribute, 1, b"VARIABLE_VALUE");
            push_bytes_field(&mut attribute, 2, full_name.as_bytes());
            push_bytes_field(&mut attribute, 3, key.as_bytes());
            push_bytes_field(&mut node, 2, &attribute);
        }
        push_bytes_field(&mut graph, 1, &node);
    }
    graph
}

#[test]
fn the_alias_shown_never_leads_to_another_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let (public, private) = ("dense/kernel/.ATTRIBUTES/VARIABLE_VALUE", "_l/k/.ATTRIBUTES/VARIABLE_VALUE");
    let graph = object_graph(&[
        (&[(1, "dense"), (2, "_l")], None),
        (&[(3, "kernel")], None),
        (&[(4, "k")], None),
        (&[], Some(("other", public))),
        (&[], Some(("dense/kernel", private))),
    ]);
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    for (i, key) in [public, private].iter().enumerate() {
        writer.add(key.as_bytes(), 4, &[1], 0, &[i as u8][..]).unwrap();
    }
    writer.add_string(b"_CHECKPOINTABLE_OBJECT_GRAPH", &graph, 0).unwrap();
    writer.finish().unwrap();
    let source = Source::open(&prefix).unwrap();
    let alias = |key: &str| source.tensor(key).unwrap().info().alias.clone();
    assert_eq!((alias(public).as_deref(), alias(private)), (Some("dense/kernel"), None));

    // A broken graph loses the aliases it gave, but not the short names of variables.
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    writer.add(public.as_bytes(), 4, &[1], 0, &[1u8][..]).unwrap();
    writer.add_string(b"_CHECKPOINTABLE_OBJECT_GRAPH", b"\xff\xff", 0).unwrap();
    writer.finish().unwrap();
    let source = Source::open(&prefix).unwrap();
    assert_eq!(source.tensor("dense/kernel").unwrap().info().name.to_string(), public);
    assert!(source.warnings()[0].contains("object graph"), "{:?}", source.warnings());
}

#[test]
fn pipes_are_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(Source::open(&pipe), Err(Error::NotFound { .. })));
    let source = Source::open(data("checkpoint/embedding/embedding.ckpt")).unwrap();
    let tensor = source.tensors().next().unwrap().unwrap();
    assert!(mmconvert::compare(&pipe, &tensor, None, &mmconvert::Options::new()).is_err());
}

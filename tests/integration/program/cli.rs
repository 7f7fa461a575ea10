//! The program: exit codes, messages, JSON.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bundle::{BundleWriter, Layout, Pattern};
use crate::support::{code, data, mmconvert, names_in, npy, stderr};

fn run(args: &[&str]) -> std::process::Output {
    mmconvert(args)
}

fn stdout_json(output: &std::process::Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn ls_lists_what_scripts_rely_on() {
    let src = data("generated/object_graph");
    let listed = stdout_json(&run(&["ls", text(&src), "--json"]));
    assert_eq!(listed["format"], "tensor-bundle");
    let tensors = listed["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 33);
    let named = |name: &str| tensors.iter().find(|t| t["name"] == name).unwrap();
    let kernel = named("model/optimizer/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE");
    assert_eq!(kernel["alias"], "sequential/basic_d/kernel");
    assert_eq!((&kernel["dtype"], &kernel["descr"], &kernel["nbytes"]), (&"float32".into(), &"<f4".into(), &80.into()));
    assert_eq!(kernel["shape"], serde_json::json!([4, 5]));
    assert_eq!(kernel["convertible"], true);
    let string = named("_CHECKPOINTABLE_OBJECT_GRAPH");
    assert_eq!((&string["dtype"], &string["descr"], &string["convertible"]), (&"string".into(), &Value::Null, &true.into()));

    let lines = String::from_utf8(run(&["ls", text(&src), "net/layers/*/w"]).stdout).unwrap();
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.lines().all(|line| line.contains("float32") && line.contains("/w/.ATTRIBUTES")));
}

#[test]
fn info_says_what_a_conversion_costs() {
    let src = data("generated/six_shards");
    let whole = stdout_json(&run(&["info", text(&src), "--json"]));
    assert_eq!((&whole["num_shards"], &whole["shards_present"]), (&6.into(), &6.into()));
    let one = stdout_json(&run(&["info", text(&src), "pv/grid", "--json", "--memory", "64MiB"]));
    assert_eq!(one["pieces"].as_array().unwrap().len(), 12);
    assert_eq!(one["conversion"]["read_bytes"], 8640);
    assert!(one["conversion"]["memory_bytes"].as_u64().unwrap() <= 64 << 20);
    assert_eq!(code(&run(&["info", text(&src)])), 0);
}

#[test]
fn one_tensor_becomes_a_file_and_several_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let src = data("savedmodel/half_plus_two_tf2");
    let file = dir.path().join("a.npy");
    let done = stdout_json(&run(&["convert", text(&src), "a", "-o", text(&file), "--json"]));
    let output = &done["outputs"][0];
    assert_eq!((&output["name"], &output["path"]), (&"a/.ATTRIBUTES/VARIABLE_VALUE".into(), &text(&file).into()));
    assert_eq!((&output["dtype"], &output["descr"], &output["nbytes"]), (&"float32".into(), &"<f4".into(), &4.into()));
    assert_eq!((&output["shape"], &output["verified"]), (&serde_json::json!([]), &true.into()));
    assert!(output["method"].as_str().unwrap().parse::<mmconvert::Method>().is_ok(), "{output}");
    assert_eq!((&done["bytes_written"], &done["skipped"]), (&4.into(), &serde_json::json!([])));
    assert!(done["peak_memory"].as_u64().unwrap() > 0 && output["seconds"].as_f64().unwrap() > 0.0);

    // A cast does not exist for strings: the rest is converted, and the exit code says that something was skipped.
    let out = dir.path().join("all");
    let named = ["_CHECKPOINTABLE_OBJECT_GRAPH", "?/*"];
    let all = run(&["convert", text(&src), named[0], named[1], "-o", text(&out), "--dtype", "float16"]);
    assert_eq!(code(&all), 6, "{}", stderr(&all));
    assert!(stderr(&all).contains("skipped _CHECKPOINTABLE_OBJECT_GRAPH"));
    assert_eq!(
        names_in(&out),
        ["a+.^attributes+variable_value.npy", "b+.^attributes+variable_value.npy", "c+.^attributes+variable_value.npy", "manifest.json"]
    );
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["skipped"][0]["name"], "_CHECKPOINTABLE_OBJECT_GRAPH");
    let first = &manifest["tensors"][0];
    assert_eq!(first["file"], "a+.^attributes+variable_value.npy");
    assert_eq!((&first["dtype"], &first["source_dtype"], &first["descr"]), (&"float16".into(), &"float32".into(), &"<f2".into()));
    // The manifest records the cast, and `verify` uses it.
    let verified = run(&["verify", text(&out), "--against", text(&src)]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));

    // A single tensor goes into a directory, too, if the output is one or ends in a slash.
    let slash = format!("{}/one/", text(dir.path()));
    assert_eq!(code(&run(&["convert", text(&src), "a", "-o", &slash])), 0);
    assert_eq!(names_in(Path::new(&slash)).len(), 2);

    assert_eq!(code(&run(&["convert", text(&src), "-o", text(&out)])), 1, "a directory with something in it is kept");
    fs::write(out.join("mine.txt"), "mine").unwrap();
    assert_eq!(code(&run(&["convert", text(&src), "-o", text(&out), "-f"])), 0);
    assert_eq!(fs::read_to_string(out.join("mine.txt")).unwrap(), "mine");
    assert_eq!(code(&run(&["verify", text(&out), "--against", text(&src)])), 0);
}

#[test]
fn an_existing_output_stays_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("o.npy");
    fs::write(&out, "old").unwrap();
    let src = data("checkpoint/embedding/embedding.ckpt");
    let kept = run(&["convert", text(&src), "-o", text(&out)]);
    assert_eq!((code(&kept), fs::read_to_string(&out).unwrap().as_str()), (1, "old"), "{}", stderr(&kept));
    assert_eq!(code(&run(&["convert", text(&src), "-o", text(&out), "-f", "-q"])), 0);
    assert_eq!(code(&run(&["verify", text(&out), "--against", text(&src)])), 0);
    assert_eq!(names_in(dir.path()), ["o.npy"]);
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let src = data("generated/six_shards");
    let out = dir.path().join("o");
    let plan = stdout_json(&run(&["convert", text(&src), "pv/*", "-o", text(&out), "-n", "--json"]));
    assert_eq!(plan["outputs"].as_array().unwrap().len(), 10);
    assert!(plan["outputs"][0]["method"].as_str().unwrap().parse::<mmconvert::Method>().is_ok());
    assert_eq!(code(&run(&["convert", text(&src), "-o", text(&out), "--dry-run"])), 0);
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn rows_follow_python() {
    let dir = tempfile::tempdir().unwrap();
    let src = data("generated/six_shards");
    let (all, some) = (dir.path().join("all.npy"), dir.path().join("some.npy"));
    assert_eq!(code(&run(&["convert", text(&src), "pv/rows", "-o", text(&all)])), 0);
    assert_eq!(code(&run(&["convert", text(&src), "pv/rows", "-o", text(&some), "--rows", "-5:-1"])), 0);
    let (all, (header, some_bytes)) = (npy(&all).1, npy(&some));
    assert!(header.contains("(4, 7)"), "{header}");
    assert_eq!(some_bytes, all[96 * 28..100 * 28]);
    assert_eq!(code(&run(&["verify", text(&some), "--against", text(&src), "pv/rows", "--rows", "-5:-1"])), 0);
    assert_eq!(code(&run(&["verify", text(&some), "--against", text(&src), "pv/rows"])), 5, "another shape");
    assert_eq!(code(&run(&["convert", text(&src), "pv/step", "-o", "x", "--rows", "0:1"])), 2, "a scalar has no rows");
}

#[test]
fn verify_finds_the_first_difference() {
    let dir = tempfile::tempdir().unwrap();
    let src = data("checkpoint/chicago_taxi/model.ckpt-1000");
    let out = dir.path().join("k.npy");
    let name = "dnn/hiddenlayer_1/kernel";
    assert_eq!(code(&run(&["convert", text(&src), name, "-o", text(&out)])), 0);
    let good = fs::read(&out).unwrap();
    let mut bad = good.clone();
    for at in [27_000, 5_003, 13_000] {
        bad[4096 + at] ^= 1;
    }
    fs::write(&out, &bad).unwrap();
    let result = run(&["verify", text(&out), "--against", text(&src), name]);
    assert_eq!(code(&result), 5);
    assert!(stderr(&result).contains("element [17, 60]"), "{}", stderr(&result));
    let json = run(&["verify", text(&out), "--against", text(&src), name, "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["equal"], false);

    fs::write(&out, &good[..good.len() - 1]).unwrap();
    assert_eq!(code(&run(&["verify", text(&out), "--against", text(&src), name])), 5, "a cut file");
    fs::write(&out, "no array").unwrap();
    assert_eq!(code(&run(&["verify", text(&out), "--against", text(&src), name])), 3);
    assert_eq!(code(&run(&["verify", text(&out), "--against", text(&src)])), 2, "which tensor?");
}

#[test]
fn wrong_requests_are_usage_errors_that_help() {
    let src = data("generated/object_graph");
    let miss = run(&["convert", text(&src), "sequential/dense/kernle", "-o", "x.npy"]);
    assert_eq!(code(&miss), 2);
    assert!(stderr(&miss).contains("did you mean \"sequential/dense/kernel\""), "{}", stderr(&miss));
    for args in [
        &["convert", text(&src), "no*match", "-o", "x"][..],
        &["convert", text(&src)],
        &["convert", text(&src), "-o", "x", "--memory", "lots"],
        &["convert", text(&src), "-o", "x", "-j", "0"],
        &["convert", text(&src), "-o", "x", "--dtype", "float33"],
        &["convert", text(&src), "-o", "x", "--byte-order", "middle"],
        &["convert", text(&src), "-o", "x", "--layout", "D"],
        &["convert", text(&src), "-o", "x", "--strings", "cut"],
        &["ls", text(&src), "--format", "zip"],
        &["frobnicate"],
    ] {
        assert_eq!(code(&run(args)), 2, "{args:?}");
    }
    assert_eq!(code(&run(&["ls", "/no/such/thing"])), 1);
    assert_eq!(code(&run(&["convert", text(&src), "net/big", "-o", "/no/such/dir/x.npy"])), 1);
    assert_eq!(code(&run(&["convert", text(&src), "net/big", "-o", "x.npy", "--memory", "100kB"])), 4);
    assert_eq!(code(&run(&["convert", text(&src), "_CHECKPOINTABLE_OBJECT_GRAPH", "-o", "x.npy", "--dtype", "int8"])), 6);
    assert!(!Path::new("x.npy").exists());
    for args in [&["--help"][..], &["convert", "--help"], &["--version"], &["completions", "bash"]] {
        assert_eq!(code(&run(args)), 0, "{args:?}");
    }
}

#[test]
fn names_that_cannot_be_typed_are_shown_and_accepted_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    for (i, name) in [&b"a\0b"[..], b"\xff\xfe", b"\x1b[2J"].iter().enumerate() {
        writer.add(name, 4, &[1], 0, &[i as u8][..]).unwrap();
    }
    writer.finish().unwrap();
    let listed = String::from_utf8(run(&["ls", text(&prefix)]).stdout).unwrap();
    for (shown, value) in [("a\\x00b", 0), ("\\xff\\xfe", 1), ("\\x1b[2J", 2)] {
        assert!(listed.contains(shown), "{listed}");
        let out = dir.path().join(format!("{value}.npy"));
        assert_eq!(code(&run(&["convert", text(&prefix), shown, "-o", text(&out)])), 0);
        assert_eq!(npy(&out).1, [value]);
    }
}

#[test]
fn an_interrupted_conversion_leaves_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    writer.add(b"t", 4, &[400 << 20], 0, Pattern::new(400 << 20)).unwrap();
    writer.finish().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    for (signal, expected) in [("-INT", 130), ("-TERM", 143)] {
        // Progress lines start after the first slices, so the conversion has begun when the first one is read.
        let mut child = Command::new(env!("CARGO_BIN_EXE_mmconvert"))
            .args(["convert", text(&prefix), "-o", text(&out.join("t.npy")), "--memory", "13MiB", "-j", "1", "-v"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 1];
        child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        // A fast machine may have finished before the signal.
        if status.code() == Some(0) {
            fs::remove_file(out.join("t.npy")).unwrap();
        } else {
            assert_eq!(status.code(), Some(expected));
        }
        assert!(names_in(&out).is_empty());
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mmconvert"))
        .args(["ls", text(&data("generated/dtypes")), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_failure_leaves_an_existing_directory_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    writer.add(b"a", 4, &[3], 0, &[1u8, 2, 3][..]).unwrap();
    writer.add(b"b", 4, &[3], 0, &[4u8, 5, 6][..]).unwrap();
    writer.finish().unwrap();
    let out = dir.path().join("out");
    assert_eq!(code(&run(&["convert", text(&prefix), "-o", text(&out)])), 0);
    fs::write(out.join("a.npy"), "old").unwrap();
    fs::write(dir.path().join("c.data-00000-of-00001"), [1, 2, 3, 4, 5, 7]).unwrap();
    assert_eq!(code(&run(&["convert", text(&prefix), "-o", text(&out), "-f"])), 3);
    assert_eq!(fs::read_to_string(out.join("a.npy")).unwrap(), "old");
    assert_eq!(names_in(&out), ["a.npy", "b.npy", "manifest.json"]);
}

#[test]
fn a_file_of_the_source_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).unwrap();
    writer.add(b"a", 4, &[3], 0, &[1u8, 2, 3][..]).unwrap();
    writer.finish().unwrap();
    std::os::unix::fs::symlink("c.index", dir.path().join("link")).unwrap();
    for own in ["c.data-00000-of-00001", "c.index", "link"] {
        let refused = run(&["convert", text(&prefix), "-f", "-o", text(&dir.path().join(own))]);
        assert_eq!(code(&refused), 2, "{}", stderr(&refused));
    }
    assert_eq!(fs::read(dir.path().join("c.data-00000-of-00001")).unwrap(), [1, 2, 3]);
    assert_eq!(code(&run(&["ls", text(&prefix)])), 0);
}

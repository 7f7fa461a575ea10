//! Every option either has an effect or is refused, and the name of OUT decides what it becomes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bundle::{BundleWriter, Layout};
use crate::record_files::{Values, example, frames};
use crate::support::{code, data, mmconvert, names_in, npy, stderr};

/// Writes a `uint8` array with this shape, as `numpy.save` does.
fn array(path: &Path, shape: &str, values: &[u8]) {
    let text = format!("{:<117}\n", format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}"));
    fs::write(path, [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), values].concat()).unwrap();
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mmconvert")).args(args).current_dir(dir).output().unwrap()
}

/// Writes a checkpoint with a 2x2 string tensor.
fn strings(prefix: &Path) {
    let mut writer = BundleWriter::create(prefix, Layout::default()).unwrap();
    writer.add_strings(b"s", &[2, 2], ["a", "bc", "", "d"], 0).unwrap();
    writer.finish().unwrap();
}

#[test]
fn options_that_no_selected_tensor_can_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    array(&dir.path().join("a.npy"), "3,", &[1, 2, 3]);
    let path = |name: &str| data(name).to_str().unwrap().to_owned();
    let (bundle, model, keras) = (path("generated/object_graph"), path("savedmodel/half_plus_two"), path("keras/dk_model.keras"));
    let (records, images) = (path("records/mixed_plain.tfrecord"), path("records/png.tfrecord"));
    fs::write(dir.path().join("x.raw"), [0; 12]).unwrap();
    for (source, choice) in [
        ("a.npy", &["--feed", "x=a.npy"][..]),
        ("a.npy", &["--signature", "s"]),
        ("a.npy", &["--output", "y"]),
        ("a.npy", &["--batch", "3"]),
        ("a.npy", &["--tag-set", "serve"]),
        ("a.npy", &["--op-library", "a.npy"]),
        ("a.npy", &["--shape", "3"]),
        ("a.npy", &["--as", "image"]),
        ("a.npy", &["--ragged", "pad"]),
        ("a.npy", &["--missing", "skip"]),
        ("a.npy", &["--flatten"]),
        ("a.npy", &["--channels", "3"]),
        ("a.npy", &["--jpeg", "fast"]),
        ("a.npy", &["--stream", "1"]),
        ("a.npy", &["--offset", "8"]),
        ("a.npy", &["--strings", "offsets"]),
        ("a.npy", &["--strict"]),
        ("a.npy", &["--tensorflow", "/nowhere"]),
        (&keras, &["--feed", "x=a.npy"]),
        (&keras, &["--output", "y"]),
        (&bundle, &["--ragged", "pad"]),
        (&bundle, &["--signature", "x"]),
        (&bundle, &["--salvage"]),
        (&model, &["--shape", "x=3"]),
        (&records, &["--batch", "10"]),
        (&records, &["--ragged", "no_such_feature=pad"]),
        (&records, &["--stream", "0"]),
        (&records, &["--offset", "4"]),
        (&images, &["--shape", "image/encoded=3"]),
    ] {
        let args = [&["convert", source, "-o", "out/"][..], choice].concat();
        let done = run(dir.path(), &args);
        assert_eq!(code(&done), 2, "{source} {choice:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(choice[0]), "{source} {choice:?}: {}", stderr(&done));
        assert!(!dir.path().join("out").exists(), "{source} {choice:?}");
    }
    let channels = run(dir.path(), &["convert", &records, "dense/f32", "--channels", "1", "-o", "x.npy"]);
    assert!(code(&channels) == 2 && stderr(&channels).contains("--channels"), "{}", stderr(&channels));
}

#[test]
fn an_option_for_records_is_accepted_if_one_feature_can_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let lists = [vec![1i64, 2], vec![3], vec![4, 5, 6]];
    let examples: Vec<Vec<u8>> = lists
        .iter()
        .map(|list| {
            example(
                &[("fixed", Values::Ints(vec![7, 8])), ("list", Values::Ints(list.clone())), ("text", Values::Bytes(vec![b"a".to_vec()]))],
                true,
            )
        })
        .collect();
    fs::write(dir.path().join("d.tfrecord"), frames(&examples)).unwrap();
    let done = run(dir.path(), &["convert", "d.tfrecord", "--ragged", "offsets", "-o", "out/"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    // `--ragged` does not apply to features of fixed length.
    assert_eq!(names_in(&dir.path().join("out")), ["fixed.npy", "list.offsets.npy", "list.values.npy", "manifest.json", "text.npy"]);
    assert!(npy(&dir.path().join("out/fixed.npy")).0.contains("(3, 2)"));
    // An option with a feature's name applies to that feature.
    let done = run(dir.path(), &["convert", "d.tfrecord", "fixed", "--ragged", "fixed=offsets", "-o", "f/"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(names_in(&dir.path().join("f")), ["fixed.offsets.npy", "fixed.values.npy", "manifest.json"]);
    let none = run(dir.path(), &["convert", "d.tfrecord", "fixed", "text", "--ragged", "offsets", "-o", "g/"]);
    assert!(code(&none) == 2 && stderr(&none).contains("--ragged") || names_in(&dir.path().join("g")).contains(&"fixed.npy".to_owned()));
    // A string of each record becomes a scalar if `--shape` asks for it.
    let done = run(dir.path(), &["convert", "d.tfrecord", "text", "--shape", "text=", "-o", "text.npy"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert!(npy(&dir.path().join("text.npy")).0.contains("(3,)"));
}

#[test]
fn the_name_of_an_output_decides_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let several = data("savedmodel/half_plus_two_tf2");
    let several = several.to_str().unwrap();
    for (names, out) in [
        (&[][..], "all.npy"),
        (&[], "x.npz"),
        (&["a"], "x.npz"),
        (&[], "x.h5"),
        (&["a"], "x.h5"),
        (&["a"], "x.csv"),
        (&["a"], "x.tfrecord"),
        (&["a", "b"], "two.npy"),
    ] {
        let done = run(dir.path(), &[&["convert", several][..], names, &["-o", out]].concat());
        assert!(code(&done) == 2 && stderr(&done).contains(out), "{names:?} {out}: {}", stderr(&done));
        assert!(names_in(dir.path()).is_empty(), "{out}");
    }
    fs::create_dir(dir.path().join("there")).unwrap();
    for (out, expected) in [("new/", "new/manifest.json"), ("there", "there/manifest.json"), ("all.safetensors", "all.safetensors")] {
        let done = run(dir.path(), &["convert", several, "-o", out]);
        assert_eq!(code(&done), 0, "{out}: {}", stderr(&done));
        assert!(dir.path().join(expected).is_file(), "{out}");
    }
    let done = run(dir.path(), &["convert", several, "a", "-o", "a.npy"]);
    assert!(code(&done) == 0 && dir.path().join("a.npy").is_file(), "{}", stderr(&done));
}

#[test]
fn an_output_in_a_directory_that_does_not_exist_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    array(&dir.path().join("a.npy"), "3,", &[1, 2, 3]);
    for out in ["none/a.npy", "none/all/", "none/a.safetensors"] {
        let done = run(dir.path(), &["convert", "a.npy", "-o", out]);
        assert!(code(&done) == 1 && stderr(&done).contains("none: the directory does not exist: create it first"), "{}", stderr(&done));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn an_array_goes_to_standard_output_header_first() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..200).collect();
    array(&dir.path().join("a.npy"), "20, 10", &values);
    let to_pipe = run(dir.path(), &["convert", "a.npy", "--rows", "3:8", "-o", "-"]);
    assert_eq!(code(&to_pipe), 0, "{}", stderr(&to_pipe));
    let file = File::create(dir.path().join("out.npy")).unwrap();
    let to_file = Command::new(env!("CARGO_BIN_EXE_mmconvert"))
        .args(["convert", "a.npy", "--rows", "3:8", "-o", "-"])
        .current_dir(dir.path())
        .stdout(Stdio::from(file))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(code(&to_file), 0, "{}", stderr(&to_file));
    assert_eq!(fs::read(dir.path().join("out.npy")).unwrap(), to_pipe.stdout);
    let (header, found) = npy(&dir.path().join("out.npy"));
    assert!(header.contains("(5, 10)") && found == values[30..80], "{header}");
    assert!(!dir.path().join("-").exists());

    let records: Vec<Vec<u8>> = (0..9i64).map(|value| example(&[("x", Values::Ints(vec![value, -value]))], true)).collect();
    fs::write(dir.path().join("d.tfrecord"), frames(&records)).unwrap();
    let done = run(dir.path(), &["convert", "d.tfrecord", "-o", "-"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    fs::write(dir.path().join("r.npy"), &done.stdout).unwrap();
    let expected: Vec<u8> = (0..9i64).flat_map(|value| [value, -value]).flat_map(i64::to_le_bytes).collect();
    assert_eq!(npy(&dir.path().join("r.npy")).1, expected);

    for args in [&["--json"][..], &["-f"], &["--method", "map"]] {
        let done = run(dir.path(), &[&["convert", "a.npy", "-o", "-"][..], args].concat());
        assert!(code(&done) == 2 && done.stdout.is_empty(), "{args:?}: {}", stderr(&done));
    }
    let several = data("savedmodel/half_plus_two_tf2");
    let done = run(dir.path(), &["convert", several.to_str().unwrap(), "-o", "-"]);
    assert!(code(&done) == 2 && done.stdout.is_empty(), "{}", stderr(&done));
}

#[test]
fn raw_frames_behind_a_header_need_an_offset() {
    let dir = tempfile::tempdir().unwrap();
    // Two numbers in front, as in files for nearest-neighbour search, then big-endian 16-bit values.
    let numbers = [0x0102u16, 0x0304, 0x0506, 0x0708, 0x090a, 0x0b0c];
    let bytes: Vec<u8> =
        [6u32.to_le_bytes(), 2u32.to_le_bytes()].concat().into_iter().chain(numbers.iter().flat_map(|n| n.to_be_bytes())).collect();
    fs::write(dir.path().join("base.bin"), bytes).unwrap();
    let refused = run(dir.path(), &["convert", "base.bin", "--raw", "uint16", "--shape", "3", "-o", "x.npy"]);
    assert_eq!(code(&refused), 3);
    assert!(stderr(&refused).contains("--offset") && !stderr(&refused).contains("--salvage"), "{}", stderr(&refused));
    for args in [&["--raw", ">u2"][..], &["--raw", "uint16", "--byte-order", "big"]] {
        let done = run(dir.path(), &[&["convert", "base.bin", "--shape", "3", "--offset", "8", "-o", "x.npy", "-f"][..], args].concat());
        assert_eq!(code(&done), 0, "{args:?}: {}", stderr(&done));
        let (header, found) = npy(&dir.path().join("x.npy"));
        assert!(header.contains("(2, 3)"), "{header}");
        let big = header.contains(">u2");
        let read = |bytes: &[u8]| if big { u16::from_be_bytes([bytes[0], bytes[1]]) } else { u16::from_le_bytes([bytes[0], bytes[1]]) };
        assert_eq!(found.chunks_exact(2).map(read).collect::<Vec<_>>(), numbers, "{args:?}");
    }
    let beyond = run(dir.path(), &["convert", "base.bin", "--raw", "uint16", "--shape", "3", "--offset", "21", "-o", "y.npy"]);
    assert!(code(&beyond) == 2 && stderr(&beyond).contains("20 bytes"), "{}", stderr(&beyond));
}

#[test]
fn a_manifest_records_every_option_that_made_its_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| data(name).to_str().unwrap().to_owned();
    let (mixed, tfds, images) = (path("records/mixed_plain.tfrecord"), path("tfds/seq"), path("records/png.tfrecord"));
    for (at, (source, choices)) in [
        (&mixed, &["--ragged", "pad:-1", "--missing", "fill:3", "--rows", "5:40"][..]),
        (&mixed, &["--ragged", "offsets", "--missing", "skip", "--strings", "offsets"]),
        (&mixed, &["dense/f32", "--dtype", "float64"]),
        (&tfds, &["--ragged", "pad"]),
        (&images, &["--channels", "1"]),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("{}/{at}/", dir.path().display());
        let done = mmconvert([&["convert", source, "-o", &out, "--skip-unsupported"][..], choices].concat());
        assert_eq!(code(&done), 0, "{choices:?}: {}", stderr(&done));
        // `verify` works from any directory without repeating options.
        let verified = run(Path::new("/"), &["verify", &out, "--json"]);
        assert_eq!(code(&verified), 0, "{choices:?}: {}", stderr(&verified));
        let manifest: Value = serde_json::from_slice(&fs::read(format!("{out}manifest.json")).unwrap()).unwrap();
        // It finds an array that differs from its source.
        let file =
            manifest["tensors"].as_array().unwrap().iter().find(|t| t["nbytes"].as_u64() > Some(0)).unwrap()["file"].as_str().unwrap();
        let mut bytes = fs::read(format!("{out}{file}")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(format!("{out}{file}"), bytes).unwrap();
        assert_eq!(code(&run(Path::new("/"), &["verify", &out])), 5, "{choices:?} {file}");
    }
}

#[test]
fn structured_text_and_date_arrays_are_listed_by_their_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    for (descr, literal) in [("<M8[D]", "'<M8[D]'"), ("<U2", "'<U2'"), ("[('a', '<i4'), ('b', '<f4')]", "[('a', '<i4'), ('b', '<f4')]")] {
        let text = format!("{:<117}\n", format!("{{'descr': {literal}, 'fortran_order': False, 'shape': (2,), }}"));
        fs::write(dir.path().join("a.npy"), [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), &[1; 16]].concat()).unwrap();
        let done = run(dir.path(), &["convert", "a.npy", "-o", "out/", "-f", "--json"]);
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&json["outputs"][0]["descr"], &json["outputs"][0]["dtype"]), (&descr.into(), &descr.into()));
        let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("out/manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["tensors"][0]["descr"], descr);
        let plain = run(dir.path(), &["convert", "a.npy", "-o", "b.npy", "-f"]);
        assert!(stderr(&plain).contains(descr) && !stderr(&plain).contains("uint8"), "{}", stderr(&plain));
    }
}

#[test]
fn another_byte_order_is_written_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (literal, descr) in [
        ("'<M8[D]'", "<M8[D]"),
        ("'<U2'", "<U2"),
        ("[('a', '<i4'), ('b', '<f4')]", "i4"),
        ("'<i8'", ">i8"),
        ("'>i8'", ">i8"),
        ("'|S8'", "|S8"),
        ("'|u1'", "|u1"),
    ] {
        let rows = if literal == "'|u1'" { 16 } else { 2 };
        let text = format!("{:<117}\n", format!("{{'descr': {literal}, 'fortran_order': False, 'shape': ({rows},), }}"));
        fs::write(dir.path().join("a.npy"), [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), &[1; 16]].concat()).unwrap();
        let done = run(dir.path(), &["convert", "a.npy", "-fo", "big.npy", "--byte-order", "big"]);
        let can_be = !literal.contains('<') || literal == "'<i8'";
        assert_eq!(code(&done), if can_be { 0 } else { 6 }, "{literal}: {}", stderr(&done));
        if can_be {
            assert!(npy(&dir.path().join("big.npy")).0.contains(descr), "{literal}");
            let _ = fs::remove_file(dir.path().join("big.npy"));
        } else {
            assert!(stderr(&done).contains("--byte-order") && !dir.path().join("big.npy").exists(), "{literal}: {}", stderr(&done));
            assert_eq!(code(&run(dir.path(), &["convert", "a.npy", "-fo", "little.npy", "--byte-order", "little"])), 0, "{literal}");
        }
    }
}

#[test]
fn options_that_a_comparison_cannot_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    array(&dir.path().join("a.npy"), "3,", &[1, 2, 3]);
    assert_eq!(code(&run(dir.path(), &["convert", "a.npy", "-o", "b.npy"])), 0);
    let big = run(dir.path(), &["verify", "b.npy", "--against", "a.npy", "--byte-order", "big"]);
    assert!(code(&big) == 2 && stderr(&big).contains("--byte-order"), "{}", stderr(&big));
    let strings = data("generated/dtypes");
    let strings = strings.to_str().unwrap();
    let listed: Value = serde_json::from_slice(&run(dir.path(), &["ls", strings, "--json"]).stdout).unwrap();
    let name = listed["tensors"].as_array().unwrap().iter().find(|tensor| tensor["dtype"] == "string").unwrap()["name"].as_str().unwrap();
    assert_eq!(code(&run(dir.path(), &["convert", strings, name, "--strings", "offsets", "-o", "t.npy"])), 0);
    for (how, expected) in [("offsets", 0), ("utf8", 2), ("pad", 2)] {
        let done = run(dir.path(), &["verify", "t.npy", name, "--against", strings, "--strings", how]);
        assert_eq!(code(&done), expected, "{how}: {}", stderr(&done));
    }
}

#[test]
fn skipped_tensors_and_sources_are_always_reported() {
    let dir = tempfile::tempdir().unwrap();
    let model = data("savedmodel/half_plus_two_tf2");
    let model = model.to_str().unwrap();
    // Object arrays are not read. The run reports that even with -q.
    let objects = data("npy/generated/objects.npy");
    array(&dir.path().join("a.npy"), "3,", &[1, 2, 3]);
    let done = run(dir.path(), &["convert", objects.to_str().unwrap(), "a.npy", "-qo", "out/"]);
    assert!(code(&done) == 6 && stderr(&done).contains("skipped objects"), "{}", stderr(&done));
    let quiet = run(dir.path(), &["convert", objects.to_str().unwrap(), "a.npy", "-qfo", "out/", "--skip-unsupported"]);
    assert!(code(&quiet) == 0 && stderr(&quiet).is_empty(), "{}", stderr(&quiet));
    let listed = run(dir.path(), &["ls", objects.to_str().unwrap()]);
    assert!(String::from_utf8(listed.stdout).unwrap().contains("not converted:"));
    // An empty source beside another one.
    fs::write(dir.path().join("none.tfrecord"), b"").unwrap();
    let done = run(dir.path(), &["convert", "a.npy", "none.tfrecord", "-o", "two/"]);
    assert!(stderr(&done).contains("none.tfrecord adds nothing"), "{}", stderr(&done));
    // Arrays that the manifest does not list, and listed ones that are gone.
    assert_eq!(code(&run(dir.path(), &["convert", model, "-o", "three/"])), 0);
    fs::copy(dir.path().join("a.npy"), dir.path().join("three/other.npy")).unwrap();
    let more = run(dir.path(), &["verify", "three"]);
    assert!(code(&more) == 0 && stderr(&more).contains("other.npy is not in the manifest"), "{}", stderr(&more));
    fs::remove_file(dir.path().join("three/other.npy")).unwrap();
    let names: Vec<String> = names_in(&dir.path().join("three")).into_iter().filter(|name| *name != "manifest.json").collect();
    fs::remove_file(dir.path().join("three").join(&names[0])).unwrap();
    let less = run(dir.path(), &["verify", "three"]);
    let told = stderr(&less);
    assert!(code(&less) == 5 && names.iter().all(|name| told.contains(name)), "{told}");
    // A source that has moved.
    assert_eq!(code(&run(dir.path(), &["convert", "a.npy", "-o", "four/"])), 0);
    fs::rename(dir.path().join("a.npy"), dir.path().join("moved.npy")).unwrap();
    let moved = run(dir.path(), &["verify", "four"]);
    assert!(code(&moved) == 1 && stderr(&moved).contains("--against"), "{}", stderr(&moved));
}

#[test]
fn a_warning_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = data("tf-data/cache_file");
    for args in [&["ls"][..], &["info"], &["convert", "-o", "out/"]] {
        let (command, rest) = args.split_first().unwrap();
        let done = run(dir.path(), &[&[*command, cache.to_str().unwrap()][..], rest].concat());
        assert_eq!(stderr(&done).matches("tf.data cache of").count(), 1, "{args:?}: {}", stderr(&done));
    }
    // A warning found while scanning records and again while converting them.
    let records: Vec<Vec<u8>> = (0..6i64).map(|value| example(&[("x", Values::Ints(vec![value]))], true)).collect();
    let mut bytes = frames(&records);
    let middle = bytes.len() / 2 - 2;
    bytes[middle] ^= 1;
    fs::write(dir.path().join("d.tfrecord"), bytes).unwrap();
    for args in [&["ls"][..], &["info"], &["convert", "-o", "x/"]] {
        let (command, rest) = args.split_first().unwrap();
        let done = run(dir.path(), &[&[*command, "d.tfrecord", "--salvage"][..], rest].concat());
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        assert_eq!(stderr(&done).matches("warning").count(), 1, "{args:?}: {}", stderr(&done));
    }
}

#[test]
fn a_comparison_does_not_accept_another_dtype() {
    let dir = tempfile::tempdir().unwrap();
    array(&dir.path().join("a.npy"), "3,", &[0, 2, 3]);
    let go = |args: &[&str]| run(dir.path(), args);
    for (out, dtype) in [("b.safetensors", "bool"), ("h/", "float16"), ("p.npy", "int16")] {
        assert_eq!(code(&go(&["convert", "a.npy", "-o", out, "--dtype", dtype])), 0, "{out}");
    }
    for (args, expected) in [
        (&["b.safetensors", "--against", "a.npy"][..], 5),
        (&["b.safetensors", "--against", "a.npy", "--dtype", "int8"], 5),
        (&["b.safetensors", "--against", "a.npy", "--dtype", "bool"], 0),
        (&["p.npy", "--against", "a.npy"], 5),
        (&["p.npy", "--against", "a.npy", "--dtype", "int16"], 0),
        (&["h"], 0),
        (&["h", "--dtype", "float16"], 0),
        (&["h", "--dtype", "float32"], 2),
        (&["h", "--format", "hdf5"], 2),
        (&["nothing"], 1),
        (&["nothing/"], 1),
    ] {
        let done = go(&[&["verify"], args].concat());
        assert_eq!(code(&done), expected, "{args:?}: {}", stderr(&done));
    }
    // Strings in another form than stated.
    strings(&dir.path().join("c"));
    assert_eq!(code(&go(&["convert", "c", "--strings", "utf8", "-o", "s.npy"])), 0);
    let verified = |how: &str| go(&["verify", "s.npy", "--against", "c", "--strings", how]);
    assert_eq!(code(&verified("utf8")), 0, "{}", stderr(&verified("utf8")));
    let other = verified("pad");
    assert!(code(&other) == 2 && stderr(&other).contains("utf8"), "{}", stderr(&other));
}

#[test]
fn checksums_that_were_not_verified_are_not_verified_by_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = frames(&[example(&[("x", Values::Ints(vec![7]))], true)]);
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(dir.path().join("d.tfrecord"), bytes).unwrap();
    assert_eq!(code(&run(dir.path(), &["convert", "d.tfrecord", "-o", "no/"])), 3);
    assert_eq!(code(&run(dir.path(), &["convert", "d.tfrecord", "--no-verify", "-o", "out/"])), 0);
    let done = run(dir.path(), &["verify", "out"]);
    assert!(code(&done) == 0 && stderr(&done).contains("checksums not verified"), "{}", stderr(&done));
    let source = ["verify", "out/x.npy", "--against", "d.tfrecord"];
    assert_eq!(code(&run(dir.path(), &source)), 3);
    assert_eq!(code(&run(dir.path(), &[&source[..], &["--no-verify"]].concat())), 0);
}

#[test]
fn bookkeeping_that_a_pattern_matches_is_skipped_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let source = data("generated/object_graph");
    let source = source.to_str().unwrap();
    let patterned = run(dir.path(), &["convert", source, "*", "-o", "some/", "--strings", "offsets"]);
    assert!(code(&patterned) == 0 && stderr(&patterned).contains("bookkeeping; --all"), "{}", stderr(&patterned));
    let all = run(dir.path(), &["convert", source, "*", "--all", "-o", "all/", "--strings", "offsets"]);
    assert!(code(&all) == 0 && !stderr(&all).contains("left out"), "{}", stderr(&all));
    assert!(names_in(&dir.path().join("all")).len() > names_in(&dir.path().join("some")).len());
    let listed: Value = serde_json::from_slice(&run(dir.path(), &["ls", source, "--json"]).stdout).unwrap();
    let plain = listed["tensors"].as_array().unwrap().iter().find(|tensor| tensor["bookkeeping"].is_null()).unwrap();
    let named = run(dir.path(), &["convert", source, plain["name"].as_str().unwrap(), "--all", "-o", "w.npy"]);
    assert!(code(&named) == 2 && stderr(&named).contains("--all"), "{}", stderr(&named));
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    array(&dir.path().join("a.npy"), "3,", &[1, 2, 3]);
    array(&dir.path().join("there.npy"), "3,", &[1, 2, 3]);
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/x"), "x").unwrap();
    for link in ["loose.npy", "loose"] {
        std::os::unix::fs::symlink("gone", dir.path().join(link)).unwrap();
    }
    let before = names_in(dir.path());
    for out in ["there.npy", "full/", "none/x.npy", "loose.npy", "loose/", "there.npy/", "none/b.safetensors"] {
        for dry in [&["-n"][..], &[]] {
            let done = run(dir.path(), &[&["convert", "a.npy", "-o", out], dry].concat());
            assert_eq!(code(&done), 1, "{out} {dry:?}: {}", stderr(&done));
        }
    }
    for (out, force) in [("there.npy", true), ("full/", true), ("new.npy", false), ("new/", false)] {
        let done = run(dir.path(), &["convert", "a.npy", "-n", "-o", out, if force { "-f" } else { "-q" }]);
        assert_eq!(code(&done), 0, "{out}: {}", stderr(&done));
    }
    // Advice is given only if it would help.
    let link = run(dir.path(), &["convert", "a.npy", "-o", "loose.npy"]);
    assert!(stderr(&link).contains("symbolic link") && !stderr(&link).contains("-f"), "{}", stderr(&link));
    let own = run(dir.path(), &["convert", "a.npy", "-o", "a.npy"]);
    assert!(code(&own) == 2 && stderr(&own).contains("of the source itself"), "{}", stderr(&own));
    assert_eq!(names_in(dir.path()), before);
}

#[test]
fn strings_cannot_be_written_in_fortran_order() {
    let dir = tempfile::tempdir().unwrap();
    strings(&dir.path().join("c"));
    for strings in ["offsets", "pad", "utf8"] {
        let turned = run(dir.path(), &["convert", "c", "--strings", strings, "--layout", "F", "-fo", "s"]);
        assert!(code(&turned) == 6 && stderr(&turned).contains("order"), "{strings}: {}", stderr(&turned));
        let plain = run(dir.path(), &["convert", "c", "--strings", strings, "-fo", "s"]);
        assert_eq!(code(&plain), 0, "{strings}: {}", stderr(&plain));
    }
}

#[test]
fn comparing_a_name_that_the_output_lacks_fails() {
    let dir = tempfile::tempdir().unwrap();
    let examples = [example(&[("a", Values::Ints(vec![1])), ("s", Values::Bytes(vec![b"xy".to_vec()]))], true)];
    fs::write(dir.path().join("d.tfrecord"), frames(&examples)).unwrap();
    assert_eq!(code(&run(dir.path(), &["convert", "d.tfrecord", "a", "-o", "out/"])), 0);
    for (name, expected) in [("a", 0), ("s", 2), ("none", 2)] {
        let done = run(dir.path(), &["verify", "out", name]);
        assert_eq!(code(&done), expected, "{name}: {}", stderr(&done));
    }
    // The arrays of one tensor have separate names in a safetensors file.
    assert_eq!(code(&run(dir.path(), &["convert", "d.tfrecord", "--strings", "offsets", "-o", "p.safetensors"])), 0);
    let verify = ["verify", "p.safetensors", "--against", "d.tfrecord", "--strings", "offsets"];
    let done = run(dir.path(), &verify);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let mut bytes = fs::read(dir.path().join("p.safetensors")).unwrap();
    let at = bytes.windows(2).rposition(|window| window == b"xy").unwrap();
    bytes[at] ^= 1;
    fs::write(dir.path().join("p.safetensors"), bytes).unwrap();
    assert_eq!(code(&run(dir.path(), &verify)), 5);
}

#[test]
fn a_dry_run_knows_what_the_output_can_hold() {
    let dir = tempfile::tempdir().unwrap();
    strings(&dir.path().join("c"));
    array(&dir.path().join("a.npy"), "2, 2", &[1, 2, 3, 4]);
    let examples = [example(&[("list", Values::Ints(vec![1]))], true), example(&[("list", Values::Ints(vec![1, 2]))], true)];
    fs::write(dir.path().join("d.tfrecord"), frames(&examples)).unwrap();
    for (args, expected) in [
        (&["c", "-o", "p.safetensors"][..], 6),
        (&["a.npy", "-o", "p.safetensors", "--dtype", "complex128"], 6),
        (&["a.npy", "-o", "p.safetensors", "--layout", "F"], 2),
        (&["a.npy", "-o", "-", "--layout", "F"], 2),
        (&["d.tfrecord", "-o", "-", "--ragged", "offsets"], 2),
        (&["c", "-o", "s/", "--strings", "pad", "--dtype", "int8"], 6),
        (&["a.npy", "-o", "p.safetensors"], 0),
        (&["a.npy", "-o", "-"], 0),
    ] {
        for dry in [&["-n"][..], &[]] {
            let done = run(dir.path(), &[&["convert"], args, dry].concat());
            assert_eq!(code(&done), expected, "{args:?} {dry:?}: {}", stderr(&done));
        }
    }
}

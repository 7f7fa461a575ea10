//! How paths lead to sources, equally in all commands. An existing path wins over any pattern; several sources become one without
//! losing any; missing or ambiguous sources are errors.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::bundle::{BundleWriter, Layout};
use crate::record_files::{Values, example, frames};
use crate::support::{code, data, mmconvert, names_in, npy, stderr};

fn checkpoint(prefix: &Path, value: u8) {
    fs::create_dir_all(prefix.parent().unwrap()).unwrap();
    let mut writer = BundleWriter::create(prefix, Layout::default()).unwrap();
    writer.add(b"v", 4, &[1], 0, &[value][..]).unwrap();
    writer.finish().unwrap();
}

/// Writes a file of records with an integer each.
fn records(path: &Path, values: &[i64]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let examples: Vec<Vec<u8>> = values.iter().map(|&value| example(&[("x", Values::Ints(vec![value]))], true)).collect();
    fs::write(path, frames(&examples)).unwrap();
}

fn ints(path: &Path) -> Vec<i64> {
    npy(path).1.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn run_in(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mmconvert")).args(args).current_dir(dir).output().unwrap()
}

fn check(done: &Output) {
    assert_eq!(code(done), 0, "{}", stderr(done));
}

#[test]
fn an_existing_path_is_never_a_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["run[1]/w", "run1/w", "m*", "mine", "ok?", "oka", "{a,b}", "a", "w[!x]", "wy", "best@10", "bs=2_ds=[[2019],[2018]]"];
    for (value, name) in (0..).zip(names) {
        checkpoint(&dir.path().join(name), value);
    }
    for (value, name) in (0u8..).zip(names) {
        for name in [name.to_owned(), format!("{name}.index")] {
            check(&run_in(dir.path(), &["convert", &name, "-o", "out.npy", "-f"]));
            assert_eq!(npy(&dir.path().join("out.npy")).1, [value], "{name}");
            check(&run_in(dir.path(), &["verify", "out.npy", "--against", &name]));
            for command in ["ls", "info"] {
                let listed = run_in(dir.path(), &[command, &name, "--json"]);
                check(&listed);
                let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
                assert_eq!(listed["source"], name.as_str(), "{command}");
            }
        }
    }
}

#[test]
fn a_directory_with_pattern_characters_in_its_name_is_that_directory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, first) in [("day[1]", 10), ("day1", 20)] {
        for shard in 0..2 {
            records(&dir.path().join(name).join(format!("t-{shard:05}-of-00002")), &[first + shard]);
        }
    }
    for (pattern, expected) in
        [("day[1]/t-*", [10, 11]), ("day[1]/t@2", [10, 11]), ("day1/t-*", [20, 21]), ("day[!2]/t-0000?-of-00002", [20, 21])]
    {
        check(&run_in(dir.path(), &["convert", pattern, "-o", "x.npy", "-f"]));
        assert_eq!(ints(&dir.path().join("x.npy")), expected, "{pattern}");
    }
}

#[test]
fn patterns_of_bytes_that_are_not_utf_8_match() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [(&b"d\xff-1.tfrecord"[..], 1), (b"d\xff-2.tfrecord", 2)] {
        records(&dir.path().join(OsStr::from_bytes(name)), &[value]);
    }
    let out = dir.path().join("x.npy");
    let pattern = dir.path().join(OsStr::from_bytes(b"d\xff-*.tfrecord"));
    check(&mmconvert([OsStr::new("convert"), pattern.as_os_str(), OsStr::new("-o"), out.as_os_str()]));
    assert_eq!(ints(&out), [1, 2]);
}

#[test]
fn shards_given_one_by_one_are_one_source_and_other_files_are_separate() {
    let dir = tempfile::tempdir().unwrap();
    for shard in 0..3 {
        records(&dir.path().join(format!("t-{shard:05}-of-00003")), &[shard]);
    }
    // As a shell lists them, in any order.
    check(&run_in(dir.path(), &["convert", "t-00002-of-00003", "t-00000-of-00003", "t-00001-of-00003", "-o", "x.npy"]));
    assert_eq!(ints(&dir.path().join("x.npy")), [0, 1, 2]);

    for (name, value) in [("a/train.tfrecord", 1), ("b/train.tfrecord", 2), ("b/test.tfrecord", 3)] {
        records(&dir.path().join(name), &[value]);
    }
    check(&run_in(dir.path(), &["convert", "a/train.tfrecord", "b/train.tfrecord", "b/test.tfrecord", "-o", "out/"]));
    let out = dir.path().join("out");
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let mut found: Vec<(String, Vec<i64>)> = Vec::new();
    for tensor in manifest["tensors"].as_array().unwrap() {
        found.push((tensor["name"].as_str().unwrap().to_owned(), ints(&out.join(tensor["file"].as_str().unwrap()))));
    }
    found.sort();
    assert_eq!(found, [("a/train/x".into(), vec![1]), ("b/train/x".into(), vec![2]), ("test/x".into(), vec![3])]);
    check(&run_in(dir.path(), &["verify", "out/"]));

    // One JSON document for all sources.
    let plan = run_in(dir.path(), &["convert", "a/train.tfrecord", "b/train.tfrecord", "-o", "plan/", "-n", "--json"]);
    check(&plan);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["outputs"].as_array().unwrap().len(), 2);
    assert!(!dir.path().join("plan").exists());
}

#[test]
fn one_source_that_fails_leaves_nothing_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    records(&dir.path().join("a.tfrecord"), &[1]);
    records(&dir.path().join("b.tfrecord"), &[2, 3]);
    let mut bytes = fs::read(dir.path().join("b.tfrecord")).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    fs::write(dir.path().join("b.tfrecord"), bytes).unwrap();
    let done = run_in(dir.path(), &["convert", "a.tfrecord", "b.tfrecord", "-o", "out/"]);
    assert!(code(&done) == 3 && !dir.path().join("out").exists(), "{}", stderr(&done));
}

#[test]
fn records_are_joined_and_one_source_is_not() {
    let dir = tempfile::tempdir().unwrap();
    records(&dir.path().join("b.tfrecord"), &[1, 2]);
    records(&dir.path().join("a.tfrecord"), &[3]);
    check(&run_in(dir.path(), &["convert", "--concat", "b.tfrecord", "a.tfrecord", "-o", "x.npy"]));
    assert_eq!(ints(&dir.path().join("x.npy")), [1, 2, 3], "in the order in which they are given");
    check(&run_in(dir.path(), &["verify", "x.npy", "--concat", "--against", "b.tfrecord", "--against", "a.tfrecord"]));
    let one = run_in(dir.path(), &["convert", "--concat", "a.tfrecord", "-o", "y.npy"]);
    assert!(code(&one) == 2 && stderr(&one).contains("a.tfrecord") && !dir.path().join("y.npy").exists(), "{}", stderr(&one));
}

#[test]
fn tensors_that_are_not_selected_need_not_fit_to_be_joined() {
    let dir = tempfile::tempdir().unwrap();
    // Two checkpoints with a variable that fits, one that does not, and bookkeeping.
    for (name, first, wide) in [("one", 0u8, 2u64), ("two", 10, 3)] {
        let mut writer = BundleWriter::create(&dir.path().join(name), Layout::default()).unwrap();
        writer.add(b"w", 4, &[2], 0, &[first, first + 1][..]).unwrap();
        writer.add(b"x", 4, &[1, wide], 0, &vec![0; wide as usize][..]).unwrap();
        writer.add_string(b"_CHECKPOINTABLE_OBJECT_GRAPH", b"\n\0", 0).unwrap();
        writer.finish().unwrap();
    }
    check(&run_in(dir.path(), &["convert", "--concat", "one", "two", "w", "-o", "w.npy"]));
    assert_eq!(npy(&dir.path().join("w.npy")).1, [0, 1, 10, 11]);
    let both = run_in(dir.path(), &["convert", "--concat", "one", "two", "-o", "all/"]);
    assert!(code(&both) == 6 && stderr(&both).contains("skipped x"), "{}", stderr(&both));
    assert_eq!(names_in(&dir.path().join("all")), ["manifest.json", "w.npy"]);
}

#[test]
fn tensors_that_only_some_joined_sources_have_are_listed_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    for (name, extra) in [("one", None), ("two", Some("b")), ("three", Some("c"))] {
        let mut writer = BundleWriter::create(&dir.path().join(name), Layout::default()).unwrap();
        if let Some(extra) = extra {
            writer.add(extra.as_bytes(), 4, &[1], 0, &[9][..]).unwrap();
        }
        for also in ["v", "w"] {
            writer.add(also.as_bytes(), 4, &[1], 0, &[7][..]).unwrap();
        }
        writer.finish().unwrap();
    }
    for order in [["one", "two", "three"], ["two", "one", "three"], ["three", "two", "one"]] {
        let done = run_in(dir.path(), &[&["convert", "--concat"], &order[..], &["-o", "all/", "-f"]].concat());
        let text = stderr(&done);
        assert!(code(&done) == 6 && text.contains("skipped b") && text.contains("skipped c"), "{order:?}: {text}");
        assert_eq!(names_in(&dir.path().join("all")), ["manifest.json", "v.npy", "w.npy"]);
        check(&run_in(dir.path(), &[&["convert", "--concat"], &order[..], &["v", "-o", "v.npy", "-f"]].concat()));
        let named = run_in(dir.path(), &[&["convert", "--concat"], &order[..], &["c", "-o", "c.npy"]].concat());
        assert!(code(&named) == 6 && !dir.path().join("c.npy").exists(), "{order:?}: {}", stderr(&named));
    }
}

#[test]
fn checksums_of_one_part_are_not_taken_for_those_of_another() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(&dir.path().join("sums"), 5);
    let from = dir.path().join("sums");
    check(&run_in(dir.path(), &["convert", from.to_str().unwrap(), "v", "-o", "bare.npy"]));
    let values = npy(&dir.path().join("bare.npy")).1;
    for parts in [["bare.npy", "sums"], ["sums", "bare.npy"]] {
        let done = run_in(dir.path(), &["convert", "--concat", parts[0], parts[1], "-o", "both.npy", "-f"]);
        assert!(code(&done) == 0 && stderr(&done).contains("verified in part"), "{parts:?}: {}", stderr(&done));
        assert_eq!(npy(&dir.path().join("both.npy")).1, values.repeat(2));
    }
}

#[test]
fn shards_may_count_from_one_and_none_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    for shard in 1..=3 {
        records(&dir.path().join(format!("one/t-{shard:05}-of-00003")), &[shard]);
        for set in ["npy", "gap"] {
            let mut array = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
            array.extend(format!("{:<117}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }").bytes());
            array.push(u8::try_from(shard).unwrap());
            let path = dir.path().join(format!("{set}/x-{shard:05}-of-00003.npy"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, array).unwrap();
        }
    }
    for pattern in ["one/t-*", "one/t@3", "one/t-0000?-of-00003"] {
        check(&run_in(dir.path(), &["convert", pattern, "-o", "x.npy", "-f"]));
        assert_eq!(ints(&dir.path().join("x.npy")), [1, 2, 3], "{pattern}");
    }
    check(&run_in(dir.path(), &["convert", "--concat", "npy/x-*.npy", "-o", "y.npy"]));
    assert_eq!(npy(&dir.path().join("y.npy")).1, [1, 2, 3]);

    fs::remove_file(dir.path().join("one/t-00002-of-00003")).unwrap();
    fs::remove_file(dir.path().join("gap/x-00002-of-00003.npy")).unwrap();
    for args in [
        &["convert", "one/t-*"][..],
        &["convert", "one/t@3"],
        &["convert", "--concat", "gap/x-*.npy"],
        &["ls", "one/t-*"],
        &["info", "one/t-*"],
    ] {
        let out = if args[0] == "convert" { &["-o", "z.npy"][..] } else { &[] };
        let done = run_in(dir.path(), &[args, out].concat());
        assert!(code(&done) == 1 && stderr(&done).contains("00002-of-00003"), "{args:?}: {}", stderr(&done));
        assert!(!dir.path().join("z.npy").exists());
    }
    let done = run_in(dir.path(), &["convert", "one/t-*", "--salvage", "-o", "z.npy"]);
    assert!(code(&done) == 0 && stderr(&done).contains("00002-of-00003"), "{}", stderr(&done));
    assert_eq!(ints(&dir.path().join("z.npy")), [1, 3]);
}

#[test]
fn each_alternative_leads_to_something_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        records(&dir.path().join(format!("{name}.tfrecord")), &[i64::from(name.as_bytes()[0])]);
        checkpoint(&dir.path().join(format!("ck-{name}")), name.as_bytes()[0]);
    }
    check(&run_in(dir.path(), &["convert", "{c,a}.tfrecord", "-o", "x.npy"]));
    assert_eq!(ints(&dir.path().join("x.npy")), [99, 97]);
    check(&run_in(dir.path(), &["convert", "--concat", "ck-{c,a}", "-o", "y.npy"]));
    assert_eq!(npy(&dir.path().join("y.npy")).1, [99, 97]);
    for (pattern, expected) in
        [("ck-[ab]", &[97, 98][..]), ("ck-?", &[97, 98, 99]), ("ck-*", &[97, 98, 99]), ("ck-{b,[ac]}", &[98, 97, 99])]
    {
        check(&run_in(dir.path(), &["convert", "--concat", pattern, "-fo", "z.npy"]));
        assert_eq!(npy(&dir.path().join("z.npy")).1, expected, "{pattern}");
    }
    for pattern in ["{a,d}.tfrecord", "ck-{a,d}", "{a,x*}.tfrecord"] {
        let done = run_in(dir.path(), &["convert", pattern, "-o", "none.npy"]);
        assert!(code(&done) == 1 && !dir.path().join("none.npy").exists(), "{pattern}: {}", stderr(&done));
    }
    // The same for names of tensors.
    let mut writer = BundleWriter::create(&dir.path().join("two"), Layout::default()).unwrap();
    for name in ["v", "w"] {
        writer.add(name.as_bytes(), 4, &[1], 0, &[1][..]).unwrap();
    }
    writer.finish().unwrap();
    check(&run_in(dir.path(), &["convert", "two", "{w,v}", "-o", "both/"]));
    let missing = run_in(dir.path(), &["convert", "two", "{w,u}", "-o", "one/"]);
    assert!(code(&missing) == 2 && stderr(&missing).contains("\"u\"") && !dir.path().join("one").exists(), "{}", stderr(&missing));
}

#[test]
fn shards_are_one_source_unless_concat_gives_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..3).map(|shard| format!("t-{shard:05}-of-00003")).collect();
    for (shard, name) in names.iter().enumerate() {
        records(&dir.path().join(name), &[shard as i64]);
    }
    let [first, second, third] = &names[..] else { unreachable!() };
    // One source, whatever the order; with `--concat`, one after the other.
    check(&run_in(dir.path(), &["convert", third, first, second, "-o", "x.npy"]));
    assert_eq!(ints(&dir.path().join("x.npy")), [0, 1, 2]);
    check(&run_in(dir.path(), &["convert", "--concat", third, first, second, "-o", "y/"]));
    assert_eq!(ints(&dir.path().join("y/x.npy")), [2, 0, 1]);
    check(&run_in(dir.path(), &["verify", "y"]));
    let twice = run_in(dir.path(), &["convert", first, second, first, "-o", "z.npy"]);
    assert!(code(&twice) == 2 && stderr(&twice).contains("given twice"), "{}", stderr(&twice));
    let set = run_in(dir.path(), &["convert", "--concat", "t@3", "-o", "z.npy"]);
    assert!(code(&set) == 2 && stderr(&set).contains("follow each other without it"), "{}", stderr(&set));
}

#[test]
fn a_pattern_must_not_match_several_formats() {
    let dir = tempfile::tempdir().unwrap();
    records(&dir.path().join("d/1.tfrecord"), &[1]);
    fs::write(dir.path().join("d/notes.txt"), "text").unwrap();
    let done = run_in(dir.path(), &["convert", "d/*", "-o", "x.npy"]);
    assert!(code(&done) == 6 && stderr(&done).contains("notes.txt"), "{}", stderr(&done));
    checkpoint(&dir.path().join("d2/c"), 1);
    records(&dir.path().join("d2/1.tfrecord"), &[1]);
    let done = run_in(dir.path(), &["convert", "d2/*", "-o", "x/"]);
    assert!(code(&done) == 2 && stderr(&done).contains("several formats"), "{}", stderr(&done));
}

/// A ZIP archive of one stored, empty member.
fn zip(name: &str) -> Vec<u8> {
    let (len, name) = (u16::try_from(name.len()).unwrap().to_le_bytes(), name.as_bytes());
    let local = [b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0", &[0; 12][..], &len, &[0; 2], name].concat();
    let central = [b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0", &[0; 12][..], &len, &[0; 16], name].concat();
    let sizes = [u32::try_from(central.len()).unwrap().to_le_bytes(), u32::try_from(local.len()).unwrap().to_le_bytes()].concat();
    [&local[..], &central, b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &sizes, &[0; 2]].concat()
}

#[test]
fn errors_for_unknown_files_say_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let gzip = |bytes: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let files: &[(&str, Vec<u8>, &str)] = &[
        ("m.zip", zip("m/saved_model.pb"), "unzip"),
        ("t.pt", zip("archive/data.pkl"), "safetensors"),
        ("d.docx", zip("word/document.xml"), "document.xml"),
        ("m.tar", tar.clone(), "tar -xf"),
        ("m.tar.gz", gzip(&tar), "tar -xzf"),
        ("a.gz", gzip(b"hello"), "gunzip"),
        ("m.tflite", b"\x1c\0\0\0TFL3".to_vec(), "TensorFlow Lite"),
        ("a.parquet", b"PAR1xxxx".to_vec(), "pyarrow"),
        ("a.array_record", b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f\0\0\0\0".to_vec(), "tfds convert_format"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "ffmpeg"),
        ("a.tif", b"II*\0\x08\0\0\0".to_vec(), "tifffile"),
        ("a.pkl", b"\x80\x04\x95".to_vec(), "numpy.save"),
        ("m.pbtxt", b"node {\n}".to_vec(), "binary form"),
        ("a.wav", b"RIFF\x24\0\0\0WAVEfmt ".to_vec(), "f32le"),
        ("a.bin", vec![1; 100], "--raw"),
        ("empty.bin", Vec::new(), "an empty file"),
        ("checkpoint", b"model_checkpoint_path: \"x\"\n".to_vec(), "name the directory"),
    ];
    for (name, bytes, step) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
        for command in [&["ls", name][..], &["convert", name, "-o", "out.npy"]] {
            let done = run_in(dir.path(), command);
            assert!(code(&done) == 6 && stderr(&done).contains(step), "{name}: {}", stderr(&done));
        }
    }
    let images = run_in(dir.path(), &["convert", "*.jpg", "-o", "out/"]);
    assert!(code(&images) == 6 && stderr(&images).contains("JPEG image") && !stderr(&images).contains("checksum"), "{}", stderr(&images));
}

#[test]
fn errors_for_directories_say_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let put = |name: &str| {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), "{}").unwrap();
    };
    for version in ["1.0.0", "1.1.0"] {
        put(&format!("tfds/mnist/{version}/dataset_info.json"));
    }
    let told = |name: &str, words: &[&str]| {
        let done = run_in(dir.path(), &["ls", name]);
        assert!(code(&done) == 1 && words.iter().all(|word| stderr(&done).contains(word)), "{name}: {}", stderr(&done));
    };
    told("tfds", &["tfds/mnist/1.0.0", "tfds/mnist/1.1.0"]);
    told("tfds/mnist", &["tfds/mnist/1.0.0", "tfds/mnist/1.1.0"]);
    for model in [1, 2] {
        put(&format!("export/{model}/saved_model.pb"));
    }
    told("export", &["export/1", "export/2"]);
    // The files of an unfinished cache.
    put("cache/c_0.lockfile");
    put("cache/c_0.data-00000-of-00001.tempstate123");
    told("cache", &["c_0.lockfile", "not finished"]);
    told("cache/c", &["c_0.lockfile", "not a finished"]);
    put("keras/config.json");
    put("keras/model.weights.h5");
    told("keras", &["model.weights.h5"]);
}

#[test]
fn the_graph_of_a_model_is_chosen_by_exactly_its_tags() {
    let constant = |model: &str, args: &[&str], name: &str| -> Result<Vec<f32>, String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (data("savedmodel").join(model), dir.path().join("c.npy"));
        let fixed = ["convert", path.to_str().unwrap(), name, "-o", out.to_str().unwrap()];
        let done = mmconvert(fixed.iter().chain(args));
        if code(&done) != 0 {
            return Err(format!("{}: {}", code(&done), stderr(&done)));
        }
        Ok(npy(&out).1.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect())
    };
    // The first graph is tagged serve and gpu, and adds 1; the other is tagged serve, and adds 2: as TensorFlow 2.21 loads them.
    assert_eq!(constant("tags", &[], "y/bias").unwrap(), [2.0; 3]);
    assert_eq!(constant("tags", &["--tag-set", "serve"], "y/bias").unwrap(), [2.0; 3]);
    for tags in ["serve,gpu", "gpu,serve"] {
        assert_eq!(constant("tags", &["--tag-set", tags], "y/bias").unwrap(), [1.0; 3]);
    }
    // A constant of the other graph is available under a name of its own.
    assert_eq!(constant("tags", &[], "serve,gpu/y/bias").unwrap(), [1.0; 3]);
    let unknown = constant("tags", &["--tag-set", "train"], "y/bias").unwrap_err();
    assert!(unknown.starts_with("2:") && unknown.contains("\"serve,gpu\", \"serve\""), "{unknown}");

    // No graph is tagged serve alone.
    let path = data("savedmodel/tags_ambiguous");
    let listed = mmconvert(["ls".as_ref(), path.as_os_str()]);
    let text = String::from_utf8(listed.stdout.clone()).unwrap();
    assert!(text.contains("tag sets: \"train\", \"serve,gpu\"") && stderr(&listed).contains("--tag-set"), "{text}{}", stderr(&listed));
    let asked = constant("tags_ambiguous", &["--signature", "serving_default"], "y").unwrap_err();
    assert!(asked.starts_with("2:") && asked.contains("\"train\", \"serve,gpu\""), "{asked}");
    assert_eq!(constant("tags_ambiguous", &["--tag-set", "train"], "y/bias").unwrap(), [1.0; 3]);
    assert_eq!(constant("tags_ambiguous", &[], "serve,gpu/y/bias").unwrap(), [2.0; 3]);
    let json = mmconvert(["ls".as_ref(), path.as_os_str(), "--json".as_ref()]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["tag_sets"], serde_json::json!([["train"], ["serve", "gpu"]]));
}

#[test]
fn bookkeeping_is_converted_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let source: PathBuf = data("savedmodel/half_plus_two_tf2");
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for target in ["all/", "all.safetensors"] {
        let done = mmconvert(["convert", source.to_str().unwrap(), "-o", &out(target)]);
        check(&done);
        assert!(stderr(&done).contains("--all"), "{}", stderr(&done));
    }
    assert!(!names_in(&dir.path().join("all")).iter().any(|name| name.contains("checkpointable")));
    // Selected by its name, and with all tensors.
    check(&mmconvert([
        "convert",
        source.to_str().unwrap(),
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        "--strings",
        "offsets",
        "-o",
        &out("graph.npy"),
    ]));
    assert_eq!(code(&mmconvert(["convert", source.to_str().unwrap(), "--all", "-o", &out("every.safetensors")])), 6);
    check(&mmconvert(["convert", source.to_str().unwrap(), "--all", "--strings", "offsets", "-o", &out("every/")]));
    assert!(names_in(&dir.path().join("every")).len() > names_in(&dir.path().join("all")).len());
}

#[test]
fn a_source_given_twice_is_used_once_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    records(&dir.path().join("a.tfrecord"), &[1, 2]);
    records(&dir.path().join("s-00000-of-00002"), &[1]);
    records(&dir.path().join("s-00001-of-00002"), &[2]);
    checkpoint(&dir.path().join("c"), 5);
    for twice in [["a.tfrecord", "a.tfrecord"], ["c", "c"], ["c.index", "c.index"], ["s-00001-of-00002", "s-00001-of-00002"]] {
        let done = run_in(dir.path(), &[&["convert"], &twice[..], &["-o", "out/"]].concat());
        assert!(code(&done) == 2 && stderr(&done).contains("given twice"), "{twice:?}: {}", stderr(&done));
    }
    let joined = run_in(dir.path(), &["convert", "a.tfrecord", "a.tfrecord", "--concat", "-o", "x.npy"]);
    check(&joined);
    assert_eq!(ints(&dir.path().join("x.npy")), [1, 2, 1, 2]);
    // Two paths of one checkpoint are the same source.
    check(&run_in(dir.path(), &["convert", "c", "c.index", "-o", "c/"]));
    for more in [&["--concat"][..], &[]] {
        let done = run_in(dir.path(), &[&["convert", "-", "-", "--raw", "uint8", "--shape", "1", "-o", "p/"], more].concat());
        assert!(code(&done) == 2 && stderr(&done).contains("given twice"), "{more:?}: {}", stderr(&done));
    }
}

#[test]
fn names_in_several_sources_get_titles_and_are_suggested() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(&dir.path().join("one/m"), 1);
    checkpoint(&dir.path().join("two/m"), 2);
    let done = run_in(dir.path(), &["convert", "one/m", "two/m", "v", "-o", "v.npy"]);
    let said = stderr(&done);
    assert!(code(&done) == 2 && said.contains("one/m/v") && said.contains("two/m/v"), "{said}");
    check(&run_in(dir.path(), &["convert", "one/m", "two/m", "two/m/v", "-o", "v.npy"]));
    assert_eq!(npy(&dir.path().join("v.npy")).1, [2]);
    // Aliases, too.
    let model = data("savedmodel/half_plus_two");
    for copy in ["x", "y"] {
        let to = dir.path().join(copy);
        fs::create_dir_all(to.join("variables")).unwrap();
        for file in ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"] {
            fs::copy(model.join(file), to.join(file)).unwrap();
        }
    }
    let listed = run_in(dir.path(), &["ls", "{x,y}", "--json"]);
    check(&listed);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let tensors = listed["tensors"].as_array().unwrap();
    let names = || tensors.iter().flat_map(|tensor| [&tensor["name"], &tensor["alias"]]).filter_map(Value::as_str);
    for name in names() {
        let done = run_in(dir.path(), &["ls", "{x,y}", name, "--json"]);
        check(&done);
        let found: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert!(found["tensors"].as_array().unwrap().iter().any(|tensor| tensor["name"] == name || tensor["alias"] == name), "{name}");
    }
}

#[test]
fn a_model_that_lost_its_variables_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = data("savedmodel/half_plus_two");
    fs::create_dir_all(dir.path().join("m/variables")).unwrap();
    fs::copy(model.join("saved_model.pb"), dir.path().join("m/saved_model.pb")).unwrap();
    let bare = run_in(dir.path(), &["convert", "m", "-o", "bare/"]);
    assert!(code(&bare) == 0 && stderr(&bare).contains("variables.index is missing"), "{}", stderr(&bare));
    let shard = "variables/variables.data-00000-of-00001";
    fs::copy(model.join(shard), dir.path().join("m").join(shard)).unwrap();
    for command in [&["convert", "m", "-o", "out/"][..], &["ls", "m"], &["info", "m"]] {
        let done = run_in(dir.path(), command);
        assert!(code(&done) == 1 && stderr(&done).contains("variables.index is missing"), "{command:?}: {}", stderr(&done));
    }
    assert!(!dir.path().join("out").exists());
}

#[test]
fn missing_shards_that_are_tolerated_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    records(&dir.path().join("t-00000-of-00003"), &[1]);
    records(&dir.path().join("t-00002-of-00003"), &[3]);
    let missing = run_in(dir.path(), &["convert", "t-*", "-o", "no/"]);
    assert!(code(&missing) == 1 && stderr(&missing).contains("--salvage"), "{}", stderr(&missing));
    for more in [&[][..], &["--concat"]] {
        let source: &[&str] = if more.is_empty() { &["t-*"] } else { &["t-00000-of-00003", "t-00002-of-00003"] };
        let done = run_in(dir.path(), &[&["convert"], source, &["--salvage", "--json", "-fo", "out/"], more].concat());
        check(&done);
        assert!(stderr(&done).contains("t-00001-of-00003") && !stderr(&done).contains("--salvage"), "{}", stderr(&done));
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("out/manifest.json")).unwrap()).unwrap();
        for lost in [&told["lost"], &manifest["lost"]] {
            assert!(lost[0].as_str().is_some_and(|lost| lost.contains("t-00001-of-00003")), "{more:?}: {lost}");
        }
    }
}

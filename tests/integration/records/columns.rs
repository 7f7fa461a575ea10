//! Records: files written by TensorFlow, and laws over generated files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mmconvert::records::{Missing, Ragged, ReadAs};
use mmconvert::{Budget, Comparison, Converter, Dtype, Error, Options, RecordOptions, Source, Strings, compare, export};
use proptest::prelude::*;
use serde_json::Value;

use crate::bundle::varint;
use crate::record_files::{Values, compress, example, field, frame, frames};
use crate::support::{Mapped as _, code, data, ints, json, mmconvert, names_in, npy, sha256, shape_text, stderr};

/// Converts one feature. Returns path and data of each array.
fn convert(path: &Path, name: &str, options: Options) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::open_with(path, None, &options)?;
    let parts = Converter::new(&source.tensor(name)?)?.options(options).write_parts(dir.path().join("a.npy"))?;
    Ok(parts.iter().map(|(path, _)| npy(path)).collect())
}

fn with(records: RecordOptions) -> Options {
    Options::new().records(records)
}

/// The elements that values and offsets represent.
fn elements<'a>(values: &'a [u8], offsets: &[u8]) -> Vec<&'a [u8]> {
    ints(offsets).windows(2).map(|ends| &values[ends[0] as usize..ends[1] as usize]).collect()
}

fn sha256_strings(elements: &[&[u8]]) -> String {
    sha256(&elements.iter().flat_map(|e| [&(e.len() as u64).to_le_bytes()[..], e].concat()).collect::<Vec<_>>())
}

#[test]
fn features_of_tensorflows_files_equal_what_it_reads() {
    let (mut numbers, mut strings, mut images) = (0, 0, 0);
    for case in json("records.json")["cases"].as_array().unwrap() {
        let (path, expected) = (data(case["path"].as_str().unwrap()), &case["expected"]);
        let options = || with(RecordOptions::new());
        if case["kind"] != "tfrecord" {
            continue;
        }
        let records =
            convert(&path, "records", with(RecordOptions::new().read_as(None, ReadAs::String)).strings(Strings::Offsets)).unwrap();
        let whole = elements(&records[0].1, &records[1].1);
        assert_eq!(whole.len() as u64, expected["records"].as_u64().unwrap(), "{}", path.display());
        assert_eq!(sha256_strings(&whole), expected["payload_sha256"].as_str().unwrap());
        for place in ["features", "feature_lists"] {
            for (name, feature) in expected[place].as_object().into_iter().flatten() {
                if let Some(wanted) = feature["sha256"].as_str() {
                    let (header, bytes) = convert(&path, name, options()).unwrap().remove(0);
                    let shape: Vec<u64> = feature["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
                    assert!(header.contains(&format!("'shape': {}", shape_text(&shape))), "{name}: {header}");
                    assert_eq!(sha256(&bytes), wanted, "{name}");
                    numbers += 1;
                } else if let Some(wanted) = feature["sha256_strings"].as_str() {
                    let as_strings = RecordOptions::new().read_as(None, ReadAs::String).flatten(place == "feature_lists");
                    let parts = convert(&path, name, with(as_strings).strings(Strings::Offsets)).unwrap();
                    assert_eq!(sha256_strings(&elements(&parts[0].1, &parts[1].1)), wanted, "{name}");
                    strings += 1;
                } else if let Some(wanted) = feature["sha256_flat"].as_str() {
                    let parts = convert(&path, name, with(RecordOptions::new().ragged(None, Ragged::Offsets))).unwrap();
                    assert_eq!(sha256(&parts[0].1), wanted, "{name}");
                    numbers += 1;
                }
            }
        }
        for image in expected["images"].as_array().into_iter().flatten() {
            let row = image["record"].as_u64().unwrap();
            let source = Source::open(&path).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let tensor = source.tensor(case["image_feature"].as_str().unwrap()).unwrap();
            let array = Converter::new(&tensor).unwrap().rows(row..row + 1).mapped(dir.path().join("i.npy")).unwrap().array;
            let shape: Vec<u64> = image["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            assert_eq!(array.shape()[1..], shape);
            let bytes = npy(&dir.path().join("i.npy")).1;
            if path.ends_with("png.tfrecord") || path.ends_with("png16_gray_rgba.tfrecord") {
                assert_eq!(sha256(&bytes), image["sha256_tf_default"].as_str().unwrap(), "record {row}");
            } else {
                // The mean equals TensorFlow's within a level and a half: its fast transform rounds down.
                let mean = bytes.iter().map(|&byte| f64::from(byte)).sum::<f64>() / bytes.len() as f64;
                assert!((mean - image["mean"].as_f64().unwrap()).abs() < 1.5, "record {row}: {mean}");
            }
            images += 1;
        }
    }
    assert_eq!((numbers, strings, images), (26, 19, 35), "all of them are looked at");
}

#[cfg(feature = "libjpeg-turbo")]
#[test]
fn jpegs_through_libjpeg_turbo_are_those_of_tensorflow() {
    use mmconvert::records::Jpeg;
    let mut equal = 0;
    for case in json("records.json")["cases"].as_array().unwrap() {
        for image in case["expected"]["images"].as_array().into_iter().flatten() {
            let row = image["record"].as_u64().unwrap();
            for (jpeg, key) in [(Jpeg::TfFast, "sha256_tf_default"), (Jpeg::TfAccurate, "sha256_integer_accurate")] {
                let Some(wanted) = image[key].as_str() else { continue };
                let source = Source::open(data(case["path"].as_str().unwrap())).unwrap();
                let tensor = source.tensor(case["image_feature"].as_str().unwrap()).unwrap();
                let dir = tempfile::tempdir().unwrap();
                let options = with(RecordOptions::new().jpeg(jpeg));
                Converter::new(&tensor).unwrap().options(options).rows(row..row + 1).write(dir.path().join("i.npy")).unwrap();
                assert_eq!(sha256(&npy(&dir.path().join("i.npy")).1), wanted, "record {row}, {key}");
                equal += 1;
            }
        }
    }
    assert!(equal >= 56, "{equal}");
}

#[test]
fn components_of_tf_data_equal_what_tensorflow_reads() {
    let mut equal = 0;
    for case in json("records.json")["cases"].as_array().unwrap() {
        if case["kind"] == "tfrecord" {
            continue;
        }
        let path = data(case["path"].as_str().unwrap());
        let source = Source::open(&path).unwrap();
        let names: Vec<String> = source.tensors().map(|tensor| tensor.unwrap().info().name.to_json()).collect();
        for (component, expected) in names.iter().zip(case["expected"]["components"].as_array().unwrap()) {
            let is_text = expected["dtype"] == "string";
            let options = if is_text { Options::new().strings(Strings::Offsets) } else { Options::new() };
            let parts = convert(&path, component, options).unwrap();
            if case["path"] == "tf-data/save_sharded" {
                // TensorFlow mixes shards in an order that depends on the machine.
                assert_eq!(parts[0].1.len(), 25 * 5 * 3 * 4);
            } else if is_text {
                let found = elements(&parts[0].1, &parts[1].1);
                assert_eq!(found.len(), 25);
                let joined: Vec<u8> = found.iter().flat_map(|e| [&(e.len() as u64).to_le_bytes()[..], e].concat()).collect();
                assert_eq!(
                    sha256(&joined),
                    expected["sha256_concat"].as_str().or(expected["sha256_strings"].as_str()).unwrap_or(&sha256(&joined))
                );
            } else {
                assert_eq!(sha256(&parts[0].1), expected["sha256_concat"].as_str().unwrap(), "{component} of {}", path.display());
            }
            equal += 1;
        }
        // Numbers find the same components.
        let numbered = source.tensor(b"5").map(|tensor| tensor.info().name.to_json());
        assert!(names.len() < 6 || numbered.unwrap() == names[5]);
    }
    assert_eq!(equal, 29);
    let cache = Source::open_as(data("tf-data/cache_file"), Some("tf-data-cache")).unwrap();
    assert_eq!(cache.len().unwrap(), 1);
    let dir = tempfile::tempdir().unwrap();
    let stacked = Converter::new(&cache.tensor("0").unwrap()).unwrap().mapped(dir.path().join("c.npy")).unwrap();
    assert_eq!(stacked.array.shape(), [25, 5, 3]);
    let bundle = Source::open(data("tf-data/cache_file")).unwrap();
    let one = Converter::new(&bundle.tensor("     12_0").unwrap()).unwrap().mapped(dir.path().join("d.npy")).unwrap();
    assert_eq!(stacked.array.view::<f32>().unwrap().index_axis(ndarray::Axis(0), 12), one.array.view::<f32>().unwrap());
}

#[test]
fn lists_of_different_lengths_in_tf_data_come_as_offsets() {
    let path = data("tf-data/save_ragged_snappy");
    assert!(matches!(convert(&path, "0", Options::new()), Err(Error::Unsupported { .. })));
    let parts = convert(&path, "0", with(RecordOptions::new().ragged(None, Ragged::Offsets))).unwrap();
    let offsets = ints(&parts[1].1);
    assert_eq!((offsets.len(), offsets[25] as usize * 4), (26, parts[0].1.len()));
}

#[test]
fn a_save_of_the_tf_data_service_has_all_elements_in_some_order() {
    // Ten elements {i, x: [i, i + 1]}.
    let path = data("tf-data/distributed");
    let numbers = ints(&convert(&path, "i", Options::new()).unwrap()[0].1);
    let x: Vec<f32> = convert(&path, "x", Options::new()).unwrap()[0]
        .1
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    assert_eq!(x, numbers.iter().flat_map(|&i| [i as f32, i as f32 + 1.0]).collect::<Vec<_>>());
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).collect::<Vec<i64>>());
    // An incomplete save is refused, unless `salvage` is set.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("chunks")).unwrap();
    for file in ["dataset_spec.pb", "snapshot.metadata", "chunks/chunk_0_1_5"] {
        fs::copy(path.join(file), dir.path().join(file)).unwrap();
    }
    assert!(matches!(convert(dir.path(), "i", Options::new()), Err(Error::NotFound { .. })));
    assert_eq!(convert(dir.path(), "i", with(RecordOptions::new().salvage(true))).unwrap()[0].1.len(), 5 * 8);
}

#[test]
fn features_of_tfds_equal_what_it_reads() {
    let mut equal = 0;
    for case in json("tfds.json")["cases"].as_array().unwrap() {
        let path = data(case["path"].as_str().unwrap());
        let full = |name: &str| case["split"].as_str().map_or(name.to_owned(), |split| format!("{split}/{name}"));
        for (node, offsets) in case["nodes"].as_object().unwrap() {
            let found = ints(&convert(&path, &full(node), Options::new()).unwrap()[0].1);
            let wanted: Vec<i64> = offsets.as_array().unwrap().iter().map(|o| o.as_i64().unwrap()).collect();
            assert_eq!(found, wanted, "{node} of {}", path.display());
        }
        for (name, feature) in case["features"].as_object().unwrap() {
            check_tfds(&path, &full(name), feature);
            equal += 1;
        }
    }
    assert_eq!(equal, 134);
}

fn check_tfds(path: &Path, name: &str, feature: &Value) {
    let is_ragged = feature["kind"] == "ragged";
    let records = if is_ragged { RecordOptions::new().ragged(None, Ragged::Offsets) } else { RecordOptions::new() };
    let options = with(records).strings(if feature["strings"].is_array() { Strings::Offsets } else { Strings::Pad });
    let parts = convert(path, name, options).unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
    if let Some(strings) = feature["strings"].as_array() {
        let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        let wanted: Vec<Vec<u8>> = strings.iter().map(|s| s.as_str().unwrap().as_bytes().chunks(2).map(byte).collect()).collect();
        assert_eq!(elements(&parts[0].1, &parts[1].1), wanted, "{name} of {}", path.display());
        return;
    }
    assert_eq!(sha256(&parts[0].1), feature["sha256"].as_str().unwrap(), "{name} of {}", path.display());
    if is_ragged {
        let lengths: Vec<i64> = ints(&parts[1].1).windows(2).map(|ends| ends[1] - ends[0]).collect();
        assert_eq!(lengths, feature["row_lengths"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap()).collect::<Vec<_>>());
    } else {
        let shape: Vec<u64> = feature["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        assert!(parts[0].0.contains(&format!("'shape': {}", shape_text(&shape))), "{name}: {}", parts[0].0);
    }
}

#[test]
fn hostile_records_end_as_expected() {
    for case in json("records.json")["hostile"].as_array().unwrap() {
        let path = data(case["path"].as_str().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("o.npy");
        let feature = case["image_feature"].as_str().unwrap_or(if case["id"] == "tfrecord-example_kind_changes" { "x" } else { "records" });
        let words = ["convert", path.to_str().unwrap(), feature, "-o", out.to_str().unwrap(), "--format", "tfrecord", "--memory", "64MiB"];
        let done = mmconvert(words);
        let (text, ended) = (stderr(&done), code(&done));
        assert!(!text.contains("panicked"), "{}: {text}", case["id"]);
        match case["want"].as_str().unwrap() {
            // It is hostile only to a reader that believes it is compressed.
            "error" if case["id"] == "tfrecord-none_declared_gzip" => assert_eq!(ended, 0, "{text}"),
            "error" => assert!([3, 4, 6].contains(&ended) && names_in(dir.path()).is_empty(), "{}: {ended} {text}", case["id"]),
            "ok" => {
                assert_eq!(ended, 0, "{text}");
                let header = npy(&out).0;
                assert!(header.contains(&format!("'shape': ({},)", case["records"])), "{header}");
            }
            _ => assert!([0, 3, 4].contains(&ended), "{}: {ended} {text}", case["id"]),
        }
    }
}

/// A record: a list of fixed length, one of any length, a feature that some records lack, and a string.
type Record = (Vec<f32>, Vec<i64>, Option<i64>, Vec<u8>);

fn records() -> impl Strategy<Value = Vec<Record>> {
    let string = prop::collection::vec(1u8..255, 0..20);
    let list = prop::collection::vec(prop_oneof![any::<i64>(), -3i64..200], 0..9);
    let record = (prop::collection::vec(any::<f32>(), 3..4), list, prop::option::weighted(0.8, any::<i64>()), string);
    prop_oneof![prop::collection::vec(record.clone(), 1..30), prop::collection::vec(record, 200..900)]
}

fn encode((fixed, ragged, rare, text): &Record, packed: bool) -> Vec<u8> {
    let mut features = vec![("text", Values::Bytes(vec![text.clone()])), ("ragged", Values::Ints(ragged.clone()))];
    features.extend(rare.map(|rare| ("rare", Values::Ints(vec![rare]))));
    features.push(("fixed", Values::Floats(fixed.clone())));
    if fixed[0] > 0.0 {
        features.reverse();
    }
    example(&features, packed)
}

fn le_floats<'a>(values: impl Iterator<Item = &'a f32>) -> Vec<u8> {
    values.flat_map(|value| value.to_le_bytes()).collect()
}

fn le_ints<'a>(values: impl Iterator<Item = &'a i64>) -> Vec<u8> {
    values.flat_map(|value| value.to_le_bytes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_way_of_converting_gives_the_written_values(
        records in records(), way in 0usize..4, packed in any::<bool>(), shards in 1usize..4, threads in 1usize..6, mib in prop_oneof![Just(16u64), Just(20), Just(64)],
        pads in -5i64..5, rows in any::<[prop::sample::Index; 2]>()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Vec<u8>> = records.iter().map(|record| encode(record, packed)).collect();
        let per_shard = all.len().div_ceil(shards);
        let chunks: Vec<&[Vec<u8>]> = (0..shards).map(|i| &all[(i * per_shard).min(all.len())..((i + 1) * per_shard).min(all.len())]).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            fs::write(dir.path().join(format!("s-{i:05}-of-{shards:05}")), compress(way, &frames(chunk))).unwrap();
        }
        let path = dir.path().join(format!("s@{shards}"));
        let base = |wanted: RecordOptions| with(wanted).threads(threads).memory(Budget::mib(mib));
        let go = |name: &str, wanted: RecordOptions| convert(&path, name, base(wanted)).unwrap();
        let plain = RecordOptions::new;

        prop_assert_eq!(&go("fixed", plain())[0].1, &le_floats(records.iter().flat_map(|r| &r.0)));
        let parts = go("ragged", plain().ragged(None, Ragged::Offsets));
        prop_assert_eq!(&parts[0].1, &le_ints(records.iter().flat_map(|r| &r.1)));
        let mut ends = vec![0i64];
        for record in &records {
            ends.push(ends[ends.len() - 1] + record.1.len() as i64);
        }
        prop_assert_eq!(ints(&parts[1].1), ends);
        let longest = records.iter().map(|r| r.1.len()).max().unwrap();
        if longest > 0 {
            let padded: Vec<i64> = records.iter().flat_map(|r| r.1.iter().copied().chain(std::iter::repeat(pads)).take(longest)).collect();
            prop_assert_eq!(ints(&go("ragged", plain().ragged(None, Ragged::Pad(Some(pads.to_string()))))[0].1), padded);
        }
        // A skipped record is missing from all arrays of the pass.
        let has_rare = records.iter().any(|r| r.2.is_some());
        if has_rare {
            let filled: Vec<i64> = records.iter().map(|r| r.2.unwrap_or(pads)).collect();
            prop_assert_eq!(ints(&go("rare", plain().missing(None, Missing::Fill(pads.to_string())))[0].1), filled);
            let options = base(plain().missing(None, Missing::Skip)).strings(Strings::Offsets);
            let source = Source::open_with(&path, None, &options).unwrap();
            let tensors = source.select(&["rare", "fixed", "text"]).unwrap();
            let out = dir.path().join("out");
            export(&tensors, None, &out, &options).unwrap();
            let kept: Vec<&Record> = records.iter().filter(|r| r.2.is_some()).collect();
            prop_assert_eq!(npy(&out.join("fixed.npy")).1, le_floats(kept.iter().flat_map(|r| &r.0)));
            prop_assert_eq!(ints(&npy(&out.join("rare.npy")).1), kept.iter().map(|r| r.2.unwrap()).collect::<Vec<_>>());
            let (values, offsets) = (npy(&out.join("text.values.npy")).1, npy(&out.join("text.offsets.npy")).1);
            prop_assert_eq!(elements(&values, &offsets), kept.iter().map(|r| &r.3[..]).collect::<Vec<_>>());
        }
        let width = records.iter().map(|r| r.3.len()).max().unwrap().max(1);
        let padded: Vec<u8> = records.iter().flat_map(|r| [&r.3[..], &vec![0; width - r.3.len()]].concat()).collect();
        prop_assert_eq!(&go("text", plain())[0].1, &padded);

        // Selected rows equal rows of the whole, and verify accepts what is written.
        let mut ends = rows.map(|i| i.index(records.len() + 1) as u64);
        ends.sort_unstable();
        let source = Source::open_with(&path, None, &base(plain())).unwrap();
        let tensor = source.tensor("fixed").unwrap();
        let some = dir.path().join("some.npy");
        Converter::new(&tensor).unwrap().options(base(plain())).rows(ends[0]..ends[1]).cast(Dtype::Float64).write(&some).unwrap();
        let wanted: Vec<u8> = records[ends[0] as usize..ends[1] as usize].iter().flat_map(|r| &r.0).flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        let bits = |bytes: &[u8]| bytes.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).map(|v| if v.is_nan() { u64::MAX } else { v.to_bits() }).collect::<Vec<_>>();
        prop_assert_eq!(bits(&npy(&some).1), bits(&wanted));
        let range = Some((ends[0]..ends[1]).into());
        let options = base(plain()).cast(Dtype::Float64);
        prop_assert!(matches!(compare(&some, &tensor, range, &options).unwrap(), Comparison::Equal(_)));
    }

    #[test]
    fn a_cut_file_tells_how_many_records_are_whole_and_salvage_keeps_them(count in 1usize..12, cut in any::<prop::sample::Index>(), long in any::<bool>()) {
        let record = |i: usize| example(&[("x", Values::Ints(vec![i as i64; if long { 40_000 } else { 2 }]))], true);
        let all: Vec<Vec<u8>> = (0..count).map(|i| frame(&record(i))).collect();
        let bytes = all.concat();
        let cut = cut.index(bytes.len());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.tfrecord");
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut ends: Vec<usize> = vec![0];
        for frame in &all {
            ends.push(ends[ends.len() - 1] + frame.len());
        }
        let whole = ends.iter().filter(|&&end| end <= cut && end > 0).count();
        let result = convert(&path, "x", Options::new());
        if ends.contains(&cut) {
            prop_assert_eq!(result.is_ok(), whole > 0);
            return Ok(());
        }
        let text = match result {
            Err(error @ Error::Malformed { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        prop_assert!(whole == 0 || text.contains(&format!("the {whole} records before it are whole")), "{text}");
        let salvaged = convert(&path, "x", with(RecordOptions::new().salvage(true)));
        if whole > 0 {
            let wanted: Vec<i64> = (0..whole as i64).flat_map(|i| vec![i; if long { 40_000 } else { 2 }]).collect();
            prop_assert_eq!(ints(&salvaged.unwrap()[0].1), wanted);
        }
    }

    #[test]
    fn no_byte_of_a_file_can_change_unnoticed(at in any::<prop::sample::Index>(), bit in 0u8..8, way in 0usize..4) {
        let records: Vec<Vec<u8>> = (0..9).map(|i| example(&[("x", Values::Floats(vec![i as f32, 0.5]))], true)).collect();
        let mut bytes = compress(way, &frames(&records));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tfrecord");
        fs::write(&path, &bytes).unwrap();
        let wanted: Vec<u8> = le_floats((0..9).flat_map(|i| [i as f32, 0.5]).collect::<Vec<_>>().iter());
        // Some bytes of compressed files have no effect, such as the time in a gzip header.
        match convert(&path, "x", Options::new()) {
            Ok(parts) => prop_assert!(way != 0 && parts[0].1 == wanted),
            Err(error) => prop_assert!(matches!(error, Error::Malformed { .. } | Error::Unsupported { .. } | Error::Limit { .. }), "{error:?}"),
        }
    }
}

#[test]
fn frames_from_a_pipe_become_rows_however_they_arrive() {
    let bytes: Vec<u8> = (0..3 * 4 * 6 * 50 + 7).map(|i| (i % 251) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let feed = |len: usize, more: &[&str]| {
        let out = dir.path().join("f.npy");
        let words = ["convert", "-", "--raw", "uint8", "--shape", "4,6,3", "-o", out.to_str().unwrap(), "-fq"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        let mut child = child.args(words).args(more).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for part in bytes[..len].chunks(101) {
            stdin.write_all(part).unwrap();
        }
        drop(stdin);
        (child.wait_with_output().unwrap(), out)
    };
    let (done, out) = feed(72 * 50, &[]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let (header, data) = npy(&out);
    assert!(header.contains("'shape': (50, 4, 6, 3)") && data == bytes[..72 * 50], "{header}");
    fs::remove_file(&out).unwrap();
    let (done, out) = feed(72 * 50 + 7, &[]);
    assert!(code(&done) == 3 && stderr(&done).contains("7 are left over behind 50 whole frames") && !out.exists(), "{}", stderr(&done));
    let (done, out) = feed(72 * 50 + 7, &["--salvage"]);
    assert!(code(&done) == 0 && npy(&out).1 == bytes[..72 * 50], "{}", stderr(&done));
    // No bytes at all are 0 frames, with a warning: another program may have failed.
    let (done, out) = feed(0, &[]);
    assert!(code(&done) == 0 && npy(&out).0.contains("'shape': (0, 4, 6, 3)"), "{}", stderr(&done));
    let output = mmconvert(["convert", "-", "--raw", "uint8", "--shape", "4", "-fo", out.to_str().unwrap()]);
    assert!(code(&output) == 0 && stderr(&output).contains("ended before the first frame"), "{}", stderr(&output));
}

#[test]
fn only_a_record_larger_than_the_memory_is_a_limit_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.tfrecord");
    fs::write(&path, frames(&[example(&[("x", Values::Floats(vec![1.5; 4 << 20]))], true)])).unwrap();
    let memory = |mib| convert(&path, "x", Options::new().memory(Budget::mib(mib)));
    assert!(matches!(memory(24), Err(Error::Limit { .. })));
    assert_eq!(memory(256).unwrap()[0].1.len(), 16 << 20);
}

#[test]
fn each_feature_can_have_its_own_rule_for_missing_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gaps.tfrecord");
    let mut all = Vec::new();
    for i in 0..6i64 {
        let mut features = vec![("always", Values::Ints(vec![i]))];
        // An empty list counts as missing.
        features.push(("first", Values::Floats(if i % 2 == 0 { vec![] } else { vec![i as f32] })));
        features.extend((i != 3).then_some(("key", Values::Ints(vec![10 * i]))));
        all.push(example(&features, true));
    }
    fs::write(&path, frames(&all)).unwrap();
    let records = RecordOptions::new().missing(Some("first"), Missing::Fill("-1".into())).missing(Some("key"), Missing::Skip);
    let options = with(records);
    let source = Source::open_with(&path, None, &options).unwrap();
    let tensors = source.select(&["always", "first", "key"]).unwrap();
    let out = dir.path().join("out");
    export(&tensors, None, &out, &options).unwrap();
    assert_eq!(ints(&npy(&out.join("always.npy")).1), [0, 1, 2, 4, 5]);
    assert_eq!(ints(&npy(&out.join("key.npy")).1), [0, 10, 20, 40, 50]);
    assert_eq!(npy(&out.join("first.npy")).1, le_floats([-1.0, 1.0, -1.0, -1.0, 5.0].iter()));
    let words =
        ["verify", out.to_str().unwrap(), "--against", path.to_str().unwrap(), "--missing", "first=fill:-1", "--missing", "key=skip"];
    assert_eq!(code(&mmconvert(words)), 0);
    assert!(matches!(convert(&path, "first", Options::new()), Err(Error::Unsupported { .. })));
}

#[test]
fn errors_name_the_number_of_the_unreadable_record() {
    let dir = tempfile::tempdir().unwrap();
    let text = |bytes: &[u8]| example(&[("s", Values::Bytes(vec![bytes.to_vec()]))], true);
    let all = [text(b"a"), text(b"b"), text(b"c"), text(b"\xff\xfe"), text(b"d")];
    fs::write(dir.path().join("s.tfrecord"), frames(&all)).unwrap();
    let path = dir.path().join("s.tfrecord");
    let out = dir.path().join("out.npy");
    for (rows, element) in [("0:5", 3), ("2:5", 1), ("3:4", 0)] {
        let words = ["convert", path.to_str().unwrap(), "--strings", "utf8", "--rows", rows, "-o", out.to_str().unwrap()];
        let done = mmconvert(words);
        let text = stderr(&done);
        assert!(code(&done) == 6 && text.contains("record 3 of") && text.contains(&format!("element [{element}]")), "{rows}: {text}");
    }
    // If one record is not an Example, it is named, and no features are listed.
    let all = [text(b"a"), text(b"b"), b"not an example at all".to_vec(), text(b"c")];
    fs::write(&path, frames(&all)).unwrap();
    for args in [&["ls", path.to_str().unwrap()][..], &["convert", path.to_str().unwrap(), "s", "-o", out.to_str().unwrap()]] {
        let done = mmconvert(args);
        assert!(stderr(&done).contains("record 2 of") && stderr(&done).contains("no Example"), "{args:?}: {}", stderr(&done));
    }
}

#[test]
fn the_whole_records_of_a_cut_stream_are_counted() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<Vec<u8>> = (0..50i64).map(|value| example(&[("x", Values::Ints(vec![value]))], true)).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&frames(&all)).unwrap();
    let mut bytes = packed.finish().unwrap();
    bytes.truncate(bytes.len() - 5);
    let path = dir.path().join("cut.tfrecord.gz");
    fs::write(&path, bytes).unwrap();
    let out = dir.path().join("out.npy");
    let run = |args: &[&str]| mmconvert([&["convert", path.to_str().unwrap(), "x", "-fo", out.to_str().unwrap()], args].concat());
    let done = run(&[]);
    assert!(code(&done) == 3 && stderr(&done).contains("the 50 records before it are whole, and --salvage"), "{}", stderr(&done));
    assert_eq!(code(&run(&["--salvage"])), 0);
    assert_eq!(ints(&npy(&out).1), (0..50).collect::<Vec<_>>());
}

#[test]
fn files_that_end_at_a_batch_boundary_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("even.tfrecord");
    // Frames of 64 bytes fill batches of any power of two. A long record at the end extends its batch.
    for (short, long) in [(1 << 15, 0), (1 << 16, 0), (100, 3 << 20), (0, 2 << 20), (1, (2 << 20) - 64 - 28)] {
        let mut all: Vec<Vec<u8>> = (0..short).map(|i| vec![(i % 7) as u8; 48]).collect();
        all.extend((long > 0).then(|| vec![9; long]));
        fs::write(&path, frames(&all)).unwrap();
        for mib in [20, 24, 64, 256] {
            let wanted = with(RecordOptions::new().read_as(None, ReadAs::String)).strings(Strings::Offsets).memory(Budget::mib(mib));
            match convert(&path, "records", wanted) {
                Ok(parts) => assert!(elements(&parts[0].1, &parts[1].1) == all, "{short} {long} {mib}"),
                Err(error) => assert!(matches!(error, Error::Limit { .. }) && long > 0 && mib < 64, "{short} {long} {mib}: {error}"),
            }
        }
    }
    let path = dir.path().join("even.raw");
    for len in [65_536, 640_000, 2 << 20] {
        fs::write(&path, vec![3; len]).unwrap();
        let wanted = with(RecordOptions::new().raw(None, Dtype::UInt8).shape(None, &[len as i64])).memory(Budget::mib(24));
        assert!(matches!(convert(&path, "frames", wanted), Ok(_) | Err(Error::Limit { .. })), "{len}");
    }
}

#[test]
fn a_few_bytes_that_declare_huge_tensors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("splat.tfrecord");
    let shape = |dims: &[u64]| dims.iter().flat_map(|&dim| field(2, &[vec![8], varint(dim)].concat())).collect::<Vec<_>>();
    let tensor = |dtype: u8, dims: &[u64]| [vec![8, dtype], field(2, &shape(dims))].concat();
    for values in [vec![tensor(7, &[1 << 40])], vec![tensor(1, &[1 << 40])], vec![tensor(1, &[1000, 1000]); 500]] {
        fs::write(&path, frames(&[example(&[("x", Values::Bytes(values))], true)])).unwrap();
        for records in [RecordOptions::new(), RecordOptions::new().flatten(true), RecordOptions::new().ragged(None, Ragged::Offsets)] {
            let records = records.read_as(None, ReadAs::Tensor);
            let error = convert(&path, "x", with(records).strings(Strings::Offsets).memory(Budget::mib(32))).unwrap_err();
            assert!(matches!(error, Error::Limit { .. } | Error::Malformed { .. } | Error::Unsupported { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_missing_shard_and_a_missing_ffmpeg_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for i in [0, 2] {
        fs::write(dir.path().join(format!("d-{i:05}-of-00003")), frames(&[example(&[("x", Values::Ints(vec![i]))], true)])).unwrap();
    }
    let pattern = dir.path().join("d-*-of-00003");
    match convert(&pattern, "x", Options::new()) {
        Err(Error::NotFound { what: "shard", detail }) => assert!(detail.contains("d-00001-of-00003"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ints(&convert(&pattern, "x", with(RecordOptions::new().salvage(true))).unwrap()[0].1), [0, 2]);

    let video = dir.path().join("clip.bin");
    fs::write(&video, b"\0\0\0\x18ftypmp42 and so on").unwrap();
    let out = dir.path().join("v.npy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
    let done = command.args(["convert", video.to_str().unwrap(), "-o", out.to_str().unwrap()]).env("PATH", dir.path()).output().unwrap();
    assert!(code(&done) == 1 && stderr(&done).contains("ffmpeg") && !out.exists(), "{}", stderr(&done));
}

#[test]
fn features_are_listed_with_what_is_known_of_them() {
    let listed = mmconvert(["ls", data("records/mixed_plain.tfrecord").to_str().unwrap(), "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["format"], "tfrecord");
    let find = |name: &str| listed["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    let ragged = find("ragged");
    assert_eq!((&ragged["shape"][0], &ragged["shape"][1], &ragged["kind"]), (&61.into(), &Value::Null, &"float_list".into()));
    assert_eq!((&ragged["lengths"][0], &ragged["lengths"][1], &ragged["missing"]), (&0.into(), &5.into(), &7.into()));
    assert_eq!(find("tensor_proto")["encoding"], "TensorProto float64 [2, 3]");
    assert_eq!(find("dense/f32")["nbytes"], 61 * 12 * 4);
    let images = mmconvert(["ls", data("records/png.tfrecord").to_str().unwrap(), "image/encoded"]);
    let line = String::from_utf8(images.stdout).unwrap();
    assert!(line.contains("[5, 48, 64, 3]") && line.contains("PNG"), "{line}");
}

#[test]
fn parts_of_saved_elements_that_are_not_plain_tensors_are_reported() {
    // `None` is not stored. Four elements {a: i, b: None, c: (None, i * i)}.
    let path = data("tf-data/save_of_none");
    let names: Vec<String> = Source::open(&path).unwrap().tensors().map(|tensor| tensor.unwrap().info().name.to_json()).collect();
    assert_eq!(names, ["a", "c/1"]);
    assert_eq!(ints(&convert(&path, "a", Options::new()).unwrap()[0].1), [0, 1, 2, 3]);
    assert_eq!(ints(&convert(&path, "c/1", Options::new()).unwrap()[0].1), [0, 1, 4, 9]);
    // `IndexedSlices` are three tensors: values of ones times i, indices 1 and 2, and the shape 5 x 3.
    let path = data("tf-data/save_slices");
    let floats: Vec<f32> =
        convert(&path, "values", Options::new()).unwrap()[0].1.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(floats, [vec![0.0; 6], vec![1.0; 6], vec![2.0; 6]].concat());
    let numbers = |name: &str| {
        convert(&path, name, Options::new()).unwrap()[0]
            .1
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes(b.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!((numbers("indices"), numbers("dense_shape")), ([1, 2].repeat(3), [5, 3].repeat(3)));
    for (name, what, step) in [
        ("save_ragged_tensor", "RaggedTensor", "r.nested_row_splits"),
        ("save_sparse", "SparseTensor", "s.indices"),
        ("save_optional", "Optional", "get_value"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let done =
            mmconvert(["convert".as_ref(), data("tf-data").join(name).as_os_str(), "-o".as_ref(), out.path().join("x.npy").as_os_str()]);
        assert!(code(&done) == 6 && stderr(&done).contains(what) && stderr(&done).contains(step), "{name}: {}", stderr(&done));
    }
}

#[test]
fn a_cache_is_converted_by_component_also_for_strings() {
    let dir = tempfile::tempdir().unwrap();
    // Seven elements: {a: str(i^5), b: [[i, i * i], [i, 7]] as text, c: i}.
    let cache = data("tf-data/cache_strings");
    let out = dir.path().join("out");
    let done = mmconvert(["convert".as_ref(), cache.as_os_str(), "-o".as_ref(), out.as_os_str(), "--strings".as_ref(), "offsets".as_ref()]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(names_in(&out), ["0.offsets.npy", "0.values.npy", "1.offsets.npy", "1.values.npy", "2.npy", "manifest.json"]);
    let strings = |name: &str| {
        let (values, offsets) = (npy(&out.join(format!("{name}.values.npy"))).1, npy(&out.join(format!("{name}.offsets.npy"))).1);
        elements(&values, &offsets).into_iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(strings("0"), (0..7u64).map(|i| i.pow(5).to_string()).collect::<Vec<_>>());
    assert_eq!(strings("1"), (0..7u64).flat_map(|i| [i, i * i, i, 7]).map(|n| n.to_string()).collect::<Vec<_>>());
    let verified = mmconvert(["verify".as_ref(), out.as_os_str()]);
    assert_eq!(code(&verified), 0, "{}", stderr(&verified));
    // Rows, padded and as text. A changed byte is found.
    for (how, descr) in [("pad", "|S2"), ("utf8", "<U2")] {
        let one = dir.path().join("one.npy");
        let done = mmconvert([
            "convert".as_ref(),
            cache.as_os_str(),
            "1".as_ref(),
            "--rows".as_ref(),
            "2:5".as_ref(),
            "--strings".as_ref(),
            how.as_ref(),
            "-f".as_ref(),
            "-o".as_ref(),
            one.as_os_str(),
        ]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let header = npy(&one).0;
        assert!(header.contains(descr) && header.contains("(3, 2, 2)"), "{header}");
    }
    let bytes = fs::read(data("tf-data/cache_strings.data-00000-of-00001")).unwrap();
    fs::copy(data("tf-data/cache_strings.index"), dir.path().join("c.index")).unwrap();
    for at in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(dir.path().join("c.data-00000-of-00001"), changed).unwrap();
        let done = mmconvert([
            "convert".as_ref(),
            dir.path().join("c").as_os_str(),
            "-f".as_ref(),
            "-o".as_ref(),
            dir.path().join("c/").as_os_str(),
        ]);
        assert_eq!(code(&done), 3, "byte {at}: {}", stderr(&done));
    }
}

#[test]
fn a_file_without_whole_records_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.tfrecord");
    let run = |args: &[&str]| {
        let out = dir.path().join("out.npy");
        let fixed = ["convert", path.to_str().unwrap(), "-f", "-o", out.to_str().unwrap()];
        mmconvert(fixed.iter().chain(args))
    };
    // The first record is damaged: nothing can be salvaged, and the error says so.
    let mut bytes = frames(&[example(&[("x", Values::Ints(vec![1]))], true), example(&[("x", Values::Ints(vec![2]))], true)]);
    for at in [3, 14] {
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let done = run(&["--salvage"]);
        assert!(
            code(&done) == 3 && stderr(&done).contains("no record is left") && !stderr(&done).contains("no tensor"),
            "{}",
            stderr(&done)
        );
        let listed = mmconvert(["ls", path.to_str().unwrap(), "--salvage"]);
        assert_eq!(code(&listed), 3, "{}", stderr(&listed));
        bytes[at] ^= 1;
    }
    // Without any record, the features are unknown unless the user names them.
    fs::write(&path, b"").unwrap();
    let done = run(&[]);
    assert!(code(&done) == 6 && stderr(&done).contains("no records"), "{}", stderr(&done));
    let done = run(&["x", "--raw", "x=float32", "--shape", "x=3,2"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let (header, values) = npy(&dir.path().join("out.npy"));
    assert!(header.contains("'<f4'") && header.contains("(0, 3, 2)") && values.is_empty(), "{header}");
}

#[test]
fn compressed_bytes_as_strings_are_as_long_as_they_are_stored() {
    let source = data("tfds/tensor_zlib");
    let dir = tempfile::tempdir().unwrap();
    let whole = |how: &str| {
        let out = dir.path().join(how);
        let args = ["convert", source.to_str().unwrap(), "m_bfloat16", "--as", "m_bfloat16=string", "--strings", how, "-o"];
        let done = mmconvert(args.iter().map(AsRef::<std::ffi::OsStr>::as_ref).chain([out.join("").as_os_str()]));
        assert_eq!(code(&done), 0, "{how}: {}", stderr(&done));
        out
    };
    let parts = whole("offsets");
    let (values, offsets) = (npy(&parts.join("m_bfloat16.values.npy")).1, npy(&parts.join("m_bfloat16.offsets.npy")).1);
    let (header, padded) = npy(&whole("pad").join("m_bfloat16.npy"));
    let strings = elements(&values, &offsets);
    let longest = strings.iter().map(|string| string.len()).max().unwrap();
    assert!(header.contains(&format!("|S{longest}'")), "{header}");
    // Each string is a zlib stream.
    for (string, padded) in strings.iter().zip(padded.chunks_exact(longest)) {
        assert_eq!(string[0], 0x78);
        assert!(padded.starts_with(string) && padded[string.len()..].iter().all(|&byte| byte == 0));
    }
}

/// Bytes done, and their total if known.
type Step = (u64, Option<u64>);

#[test]
fn progress_never_exceeds_the_total() {
    use std::sync::{Arc, Mutex};
    for name in [
        "records/mixed_plain.tfrecord",
        "records/png.tfrecord",
        "tfds/rlds",
        "tfds/seq",
        "tf-data/save_gzip",
        "generated/dtypes",
        "keras/dk_model.keras",
    ] {
        let Ok(source) = Source::open(data(name)) else { panic!("{name}") };
        for cast in [None, Some(mmconvert::Dtype::Float64)] {
            let seen: Arc<Mutex<Vec<Step>>> = Arc::default();
            let own = Arc::clone(&seen);
            let options = with(RecordOptions::new().ragged(None, Ragged::Offsets));
            let options = options.progress(move |p| own.lock().unwrap().push((p.done_bytes, p.total_bytes)));
            let options = match cast {
                Some(dtype) => options.cast(dtype),
                None => options,
            };
            let dir = tempfile::tempdir().unwrap();
            let tensors = source.select::<&str>(&[]).unwrap();
            mmconvert::export(&tensors, None, dir.path().join("out"), &options).unwrap();
            let seen = seen.lock().unwrap();
            assert!(!seen.is_empty(), "{name}");
            for (done, total) in seen.iter() {
                assert!(total.is_none_or(|total| *done <= total), "{name}: {done} of {total:?}");
            }
        }
    }
}

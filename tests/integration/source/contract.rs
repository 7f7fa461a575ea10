//! The laws that every format of tensors keeps. `SAMPLES` has a line for each.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mmconvert::{Budget, ByteOrder, CancelToken, Comparison, Converter, Error, Layout, Options, Selection, Source, compare, export, pack};

use crate::support::{code, converted, data, mmconvert as command, names_in, npy, stderr};

/// Formats, each with a source whose tensors have more than one row.
pub(crate) const SAMPLES: &[(&str, &str)] = &[
    ("tensor-bundle", "generated/six_shards"),
    ("saved-model", "savedmodel/half_plus_two"),
    ("v1-checkpoint", "protos/v1/partitioned.ckpt"),
    ("tensor-proto", "protos/tensorproto/dev__float32__r4_10_6x1x6x2.pb"),
    ("graph-def", "protos/graph/lstm.pb"),
    ("hdf5", "keras/dk_layouts.h5"),
    ("keras", "keras/dk_model.keras"),
    ("keras-shards", "keras-shards/m.weights.json"),
    ("npy", "npy/generated/f4_be_f.npy"),
    ("npz", "npy/generated/deflated.npz"),
    ("safetensors", "safetensors/all.safetensors"),
];

/// Formats of records keep other laws: `records.rs`, `graphs.rs`.
const OTHERS: &[&str] = &["tf-data", "tfds", "tf-data-cache", "raw", "video", "tfrecord"];

/// Calls `check` with the sample's tensors that are numeric arrays.
fn with_arrays(path: &str, check: impl Fn(&Selection)) {
    let source = Source::open(data(path)).unwrap();
    let mut tensors = source.all().unwrap();
    tensors.retain(|tensor| tensor.reader().is_ok());
    assert!(!tensors.is_empty(), "{path}");
    check(&tensors);
}

#[test]
fn every_format_has_a_sample() {
    let all: BTreeSet<&str> = mmconvert::formats().collect();
    let listed: BTreeSet<&str> = SAMPLES.iter().map(|(format, _)| *format).chain(OTHERS.iter().copied()).collect();
    assert_eq!(all, listed);
}

#[test]
fn a_source_is_recognised_and_its_tensors_are_found_by_their_names() {
    for (format, path) in SAMPLES {
        let source = Source::open(data(path)).unwrap();
        assert_eq!(source.format(), *format);
        assert_eq!(Source::open_as(data(path), Some(format)).unwrap().len().unwrap(), source.len().unwrap());
        for tensor in source.tensors().map(Result::unwrap) {
            let info = tensor.info();
            assert_eq!(source.tensor(info.name.as_bytes()).unwrap().info().spec, info.spec, "{format}: {}", info.name);
            if let Some(alias) = &info.alias {
                assert_eq!(source.tensor(alias).unwrap().info().name, info.name, "{format}: {alias}");
            }
            tensor.facts().unwrap();
        }
    }
}

#[test]
fn a_file_of_another_format_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (i, bytes) in [&b""[..], b"x", &[0; 100], &[0xff; 5000]].into_iter().enumerate() {
        let path = dir.path().join(format!("f{i}"));
        fs::write(&path, bytes).unwrap();
        for (format, _) in SAMPLES {
            // An empty file is a valid graph without nodes, and has no tensors.
            let error = convert_all(&path, format, &dir.path().join("out")).unwrap_err();
            assert!(error.to_string().contains(&format!("f{i}")), "{format}: {error}");
        }
    }
}

#[test]
fn rows_equal_those_of_the_whole_with_any_memory_and_threads() {
    for (format, path) in SAMPLES {
        with_arrays(path, |tensors| {
            for tensor in tensors {
                let spec = tensor.reader().unwrap().spec().clone();
                let whole = converted(tensor, Options::new());
                assert_eq!(whole.len() as u64, spec.nbytes(), "{format}");
                let small = converted(tensor, Options::new().memory(Budget::mib(20)).threads(1).method(mmconvert::Method::Portable));
                assert_eq!(small, whole, "{format}: {}", tensor.info().name);
                if spec.shape().is_empty() {
                    continue;
                }
                let dir = tempfile::tempdir().unwrap();
                let mut parts = Vec::new();
                let rows = spec.rows();
                for (i, part) in [0..rows / 3, rows / 3..rows / 2, rows / 2..rows].into_iter().enumerate() {
                    let out = dir.path().join(format!("{i}.npy"));
                    Converter::new(tensor).unwrap().rows(part.clone()).write(&out).unwrap();
                    assert!(is_equal(&compare(&out, tensor, Some(part.into()), &Options::new()).unwrap()), "{format}");
                    parts.extend(npy(&out).1);
                }
                assert_eq!(parts, whole, "{format}: {}", tensor.info().name);
            }
        });
    }
}

fn is_equal(comparison: &Comparison) -> bool {
    matches!(comparison, Comparison::Equal(_))
}

#[test]
fn other_orders_hold_the_same_elements() {
    for (format, path) in SAMPLES {
        with_arrays(path, |tensors| {
            for tensor in tensors.iter().filter(|tensor| tensor.info().item.is_none()) {
                let dir = tempfile::tempdir().unwrap();
                for (layout, order) in [(Layout::F, ByteOrder::Little), (Layout::C, ByteOrder::Big), (Layout::F, ByteOrder::Big)] {
                    let out = dir.path().join("a.npy");
                    let options = Options::new().layout(layout).byte_order(order).overwrite(true);
                    match Converter::new(tensor).unwrap().options(options).write(&out) {
                        Ok(_) => assert!(is_equal(&compare(&out, tensor, None, &Options::new()).unwrap()), "{format}"),
                        Err(error) => assert!(error.to_string().contains("V2"), "{format}: {error}"),
                    }
                }
            }
        });
    }
}

#[test]
fn a_changed_byte_of_an_output_is_found() {
    for (format, path) in SAMPLES {
        with_arrays(path, |tensors| {
            let Some(tensor) = tensors.iter().find(|tensor| tensor.info().spec.nbytes() > 0) else { return };
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("a.npy");
            Converter::new(tensor).unwrap().write(&out).unwrap();
            let mut bytes = fs::read(&out).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&out, bytes).unwrap();
            assert!(!is_equal(&compare(&out, tensor, None, &Options::new()).unwrap()), "{format}");
        });
    }
}

#[test]
fn a_view_in_place_shows_what_a_conversion_writes() {
    for (format, path) in SAMPLES {
        with_arrays(path, |tensors| {
            let source = tensors.source();
            for tensor in tensors {
                let name = tensor.info().name.as_bytes();
                // SAFETY: nobody writes to the test data.
                #[expect(unsafe_code, reason = "the interface is unsafe")]
                match unsafe { mmconvert::view(source, name) } {
                    Ok(view) => {
                        assert!(tensor.in_place().is_ok());
                        let layout = tensor.reader().unwrap().layout();
                        assert_eq!(view.as_bytes(), converted(tensor, Options::new().layout(layout)), "{format}: {}", tensor.info().name);
                    }
                    Err(error) => assert!(tensor.in_place().is_err() && error.to_string().contains("in place"), "{format}: {error}"),
                }
            }
        });
    }
}

#[test]
fn an_export_or_pack_is_complete_or_absent() {
    for (format, path) in SAMPLES {
        with_arrays(path, |tensors| {
            let dir = tempfile::tempdir().unwrap();
            let (out, packed) = (dir.path().join("out"), dir.path().join("all.safetensors"));
            let done = export(tensors, None, &out, &Options::new()).unwrap();
            assert_eq!(done.outputs.len(), tensors.len(), "{format}");
            let both = pack(tensors, None, &packed, &Options::new()).unwrap();
            let again = Source::open(&packed).unwrap();
            assert_eq!(again.len().unwrap(), both.outputs.len(), "{format}");
            for output in &both.outputs {
                let from = done.outputs.iter().find(|other| other.name == output.name).unwrap();
                let tensor = again.tensor(output.name.to_json()).unwrap();
                assert_eq!((tensor.info().spec.dtype(), tensor.info().spec.shape()), (from.report.dtype, &from.report.shape[..]));
                assert_eq!(converted(&tensor, Options::new()), npy(&from.path).1, "{format}: {}", output.name);
            }
            let cancelled = CancelToken::new();
            cancelled.cancel();
            let options = Options::new().cancel(cancelled).overwrite(true);
            assert!(matches!(pack(tensors, None, dir.path().join("no.safetensors"), &options), Err(Error::Cancelled)));
            assert!(matches!(export(tensors, None, dir.path().join("no"), &options), Err(Error::Cancelled)));
            assert_eq!(names_in(dir.path()), ["all.safetensors", "out"], "{format}");
        });
    }
}

/// Copies the files of a source and changes its main file.
fn damaged(path: &Path, dir: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Option<std::path::PathBuf> {
    if !path.is_file() {
        return None;
    }
    let copy = dir.join(path.file_name()?);
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(&copy, bytes).unwrap();
    Some(copy)
}

/// Converts all tensors of a file.
fn convert_all(path: &Path, format: &str, out: &Path) -> Result<(), Error> {
    let source = Source::open_as(path, Some(format))?;
    export(&source.all()?, None, out, &Options::new().memory(Budget::mib(64))).map(drop)
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_that_names_it() {
    for (format, path) in SAMPLES {
        let dir = tempfile::tempdir().unwrap();
        let len = fs::metadata(data(path)).map_or(0, |metadata| if metadata.is_file() { metadata.len() } else { 0 }) as usize;
        for part in 0..40 {
            let Some(copy) = damaged(&data(path), dir.path(), |bytes| bytes.truncate(len * part / 40)) else { continue };
            let out = dir.path().join("out");
            let Err(error) = convert_all(&copy, format, &out) else { panic!("{format}: {part}/40 of the file") };
            assert!(error.to_string().contains(copy.file_name().unwrap().to_str().unwrap()), "{format}: {error}");
            assert!(!out.exists());
        }
    }
}

#[test]
fn a_changed_byte_of_a_source_is_an_error_or_a_conversion() {
    for (format, path) in SAMPLES {
        let dir = tempfile::tempdir().unwrap();
        let len = fs::metadata(data(path)).map_or(0, |metadata| metadata.len()) as usize;
        for i in 0..200usize {
            // Change the front, where the structure is, and the whole file.
            let at = if i % 2 == 0 { i * 3 % len.max(1) } else { i.wrapping_mul(2_654_435_761) % len.max(1) };
            let Some(copy) = damaged(&data(path), dir.path(), |bytes| bytes[at] ^= 1 << (i % 8)) else { continue };
            let out = dir.path().join(format!("out{i}"));
            let result = convert_all(&copy, format, &out);
            assert_eq!(result.is_ok(), out.exists(), "{format}, byte {at}: {result:?}");
        }
    }
}

#[test]
fn the_checksum_of_an_archive_member_is_verified_if_all_of_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(data("keras/dk_model.keras")).unwrap();
    let out = |name: &str| dir.path().join(name);
    let run = |path: &Path| command(["convert".as_ref(), path.as_os_str(), "-f".as_ref(), "-o".as_ref(), out("out").join("").as_os_str()]);
    let whole = run(&data("keras/dk_model.keras"));
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    let text = stderr(&whole);
    let count = text.split_once(" arrays").unwrap().0;
    assert!(stderr(&whole).contains(&format!("{count} with all checksums verified")), "{}", stderr(&whole));
    // The place of values: behind the signature of the HDF5 file, which the archive stores uncompressed.
    let start = good.windows(8).position(|bytes| bytes == b"\x89HDF\r\n\x1a\n").unwrap();
    let end = good.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap().min(good.len());
    let (mut found, mut tried) = (0, 0);
    for at in (start..end).step_by((end - start) / 60 + 1) {
        let mut changed = good.clone();
        changed[at] ^= 0x10;
        let path = out("changed.keras");
        fs::write(&path, changed).unwrap();
        let done = run(&path);
        tried += 1;
        found += usize::from(code(&done) != 0);
        assert!(matches!(code(&done), 0 | 3 | 6), "byte {at}: {}", stderr(&done));
        // A successful run must not claim that all checksums were verified.
        assert!(code(&done) != 0 || !stderr(&done).contains(&format!("{count} with all checksums verified")), "byte {at}");
    }
    assert!(found > 0 && tried > 30, "{found} of {tried}");
}

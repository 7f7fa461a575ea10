//! All write methods, sparse sources and exports of many tensors give the same result as the plainest way. With `TMPDIR` on XFS
//! or Btrfs, as in `tests/filesystems`, the tests also share blocks.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use mmconvert::{Budget, Comparison, Converter, Dtype, Error, Method, Options, Source, Verified, compare, export};

use crate::bundle::{BundleWriter, Layout, Pattern, with_suffix};
use crate::support::{Mapped as _, code, mmconvert, names_in, npy, stderr};

/// Pseudo-random bytes that differ from tensor to tensor.
fn bytes(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|i| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed) >> 33) as u8).collect()
}

/// Writes a bundle with `t`, float32 `[rows, 64]`, at offset `before` in its shard.
fn floats(prefix: &Path, before: u64, rows: u64) -> Vec<u8> {
    let stored = bytes(1, rows * 256);
    let mut writer = BundleWriter::create(prefix, Layout::default()).unwrap();
    writer.add(b"a", 4, &[before], 0, &bytes(2, before)[..]).unwrap();
    writer.add(b"t", 1, &[rows, 64], 0, &stored[..]).unwrap();
    writer.add(b"z", 4, &[5], 0, &bytes(3, 5)[..]).unwrap();
    writer.finish().unwrap();
    stored
}

#[test]
fn a_source_at_any_offset_is_right_by_every_method() {
    let dir = tempfile::tempdir().unwrap();
    for before in [0, 3, 8, 100, 4095, 4096, 5000, 12288] {
        let prefix = dir.path().join(format!("c{before}"));
        let stored = floats(&prefix, before, 5000);
        let source = Source::open(&prefix).unwrap();
        let tensor = source.tensor("t").unwrap();
        for method in [None].into_iter().chain(Method::ALL.map(Some)) {
            for (rows, verify) in [(0..5000, true), (0..5000, false), (17..4011, true)] {
                let out = dir.path().join("out.npy");
                let mut options = Options::new().memory(Budget::mib(24)).overwrite(true).verify(verify);
                if let Some(method) = method {
                    options = options.method(method);
                }
                let wanted = &stored[rows.start as usize * 256..rows.end as usize * 256];
                let whole = rows == (0..5000);
                let converter = Converter::new(&tensor).unwrap().rows(rows).options(options);
                let done = match converter.mapped(&out) {
                    Err(Error::Unsupported { .. }) if matches!(method, Some(Method::Clone | Method::Direct | Method::Uncached)) => continue,
                    done => done.unwrap(),
                };
                assert!(done.array.as_bytes() == wanted, "{before} bytes before, {method:?}");
                assert!(npy(&out).1 == wanted);
                assert_eq!(done.report.verified, if verify && whole { Verified::Full } else { Verified::Not });
                assert!(before % 4 == 0 || done.report.method != Method::Clone, "data would start in the middle of an element");
                let start = fs::metadata(&out).unwrap().len() - wanted.len() as u64;
                assert_eq!(start % 4, 0, "elements are aligned in the file");
            }
        }
    }
}

#[test]
fn a_wrong_byte_is_found_by_every_method_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    floats(&prefix, 4096, 5000);
    let shard = fs::OpenOptions::new().write(true).open(with_suffix(&prefix, ".data-00000-of-00001")).unwrap();
    let out = dir.path().join("out.npy");
    let before = names_in(dir.path());
    for at in [4096, 4096 + 700_000, 4096 + 5000 * 256 - 1] {
        let mut byte = [0];
        std::fs::File::open(with_suffix(&prefix, ".data-00000-of-00001")).unwrap().read_exact_at(&mut byte, at).unwrap();
        shard.write_all_at(&[!byte[0]], at).unwrap();
        let source = Source::open(&prefix).unwrap();
        for method in [None].into_iter().chain(Method::ALL.map(Some)) {
            let mut converter = Converter::new(&source.tensor("t").unwrap()).unwrap();
            if let Some(method) = method {
                converter = converter.method(method);
            }
            match converter.mapped(&out) {
                Err(Error::Malformed { what, .. }) => assert_eq!(what, "tensor data"),
                Err(Error::Unsupported { .. }) => assert!(matches!(method, Some(Method::Clone | Method::Direct | Method::Uncached))),
                other => panic!("{other:?}"),
            }
            assert_eq!(names_in(dir.path()), before);
        }
        shard.write_all_at(&byte, at).unwrap();
    }
}

/// Files in memory cannot be written past the page cache.
#[cfg(target_os = "linux")]
#[test]
fn a_method_that_cannot_work_is_refused_with_the_place_and_the_next_step() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    floats(&dir.path().join("c"), 4, 60_000);
    for dry in [&["-n"][..], &[]] {
        let [source, out] = ["c", "x.npy"].map(|name| dir.path().join(name).display().to_string());
        let done = mmconvert([&["convert", &source, "t", "-o", &out, "--method", "direct"], dry].concat());
        assert_eq!(code(&done), 6);
        let message = stderr(&done);
        assert!(message.contains(&format!("method direct for an output in {}", dir.path().display())), "{message}");
        assert!(message.contains("past the page cache") && message.contains("without --method"), "{message}");
        assert!(!dir.path().join("x.npy").exists());
    }
}

#[test]
fn limiting_slices_in_flight_changes_only_memory() {
    let dir = tempfile::tempdir().unwrap();
    let stored = floats(&dir.path().join("c"), 4, 60_000);
    let source = Source::open(dir.path().join("c")).unwrap();
    let tensor = source.tensor("t").unwrap();
    for method in [Method::Map, Method::Portable] {
        let run = |slices: usize| {
            let converter = Converter::new(&tensor).unwrap().method(method).threads(4).in_flight(slices).overwrite(true);
            let done = converter.memory(Budget::mib(200)).mapped(dir.path().join("out.npy")).unwrap();
            assert!(done.array.as_bytes() == stored);
            done.report.peak_memory
        };
        let peaks = [1, 3, 16].map(run);
        assert!(peaks.is_sorted(), "{peaks:?}");
    }
}

/// A 64 MiB tensor with three runs of data, and one byte in a block of its own.
fn sparse(prefix: &Path, runs: &[(u64, Vec<u8>)]) -> Vec<u8> {
    const LEN: u64 = 64 << 20;
    let mut writer = BundleWriter::create(prefix, Layout::default()).unwrap();
    writer.add(b"a", 4, &[12], 0, &bytes(2, 12)[..]).unwrap();
    writer.add_sparse(b"t", 3, &[LEN / 64, 16], LEN, runs).unwrap();
    writer.finish().unwrap();
    let mut stored = vec![0; LEN as usize];
    for (at, run) in runs {
        stored[*at as usize..*at as usize + run.len()].copy_from_slice(run);
    }
    stored
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn holes_stay_holes_and_their_checksum_holds() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let runs = [(0, bytes(5, 70_001)), (9_000_001, bytes(6, 3_000_000)), (40 << 20, vec![1]), ((64 << 20) - 13, bytes(7, 13))];
    let stored = sparse(&prefix, &runs);
    let shard = with_suffix(&prefix, ".data-00000-of-00001");
    if allocated(&shard) > 8 << 20 {
        eprintln!("no sparse files here: nothing to test");
        return;
    }
    let source = Source::open(&prefix).unwrap();
    let tensor = source.tensor("t").unwrap();
    let out = dir.path().join("out.npy");
    for method in [None, Some(Method::Uncached), Some(Method::Map), Some(Method::Portable)] {
        let converter = || {
            let converter = Converter::new(&tensor).unwrap().memory(Budget::mib(24)).overwrite(true);
            match method {
                Some(method) => converter.method(method),
                None => converter,
            }
        };
        if matches!(converter().estimate(&out), Err(Error::Unsupported { .. })) {
            continue;
        }
        let estimate = converter().estimate(&out).unwrap().remove(0);
        let done = converter().mapped(&out).unwrap();
        // Check this before reading the file: a memory file system fills holes that are mapped and read.
        if method != Some(Method::Portable) {
            assert!(estimate.read_bytes < 8 << 20, "{estimate:?}");
            assert!(allocated(&out) < 8 << 20, "{method:?} takes {} bytes", allocated(&out));
        }
        assert!(done.array.as_bytes() == stored, "{method:?}");
        assert_eq!(done.report.verified, Verified::Full);
        assert!(matches!(compare(&out, &tensor, None, &Options::new()).unwrap(), Comparison::Equal(Verified::Full)));
        let part = converter().rows(100_000..700_000).mapped(dir.path().join("part.npy")).unwrap();
        assert!(part.array.as_bytes() == &stored[100_000 * 64..700_000 * 64], "{method:?}");
    }

    // A hole on one side only is compared.
    let array = fs::OpenOptions::new().write(true).open(&out).unwrap();
    array.write_all_at(&[1], 4096 + (30 << 20)).unwrap();
    let Comparison::Different(difference) = compare(&out, &tensor, None, &Options::new()).unwrap() else { panic!("a byte differs") };
    assert!(difference.to_string().contains("[491520, 0]"), "{difference}");
    // A hole that contradicts the checksum is found.
    let found = fs::OpenOptions::new().write(true).open(&shard).unwrap();
    found.write_all_at(&[1], 20 << 20).unwrap();
    assert!(matches!(Converter::new(&tensor).unwrap().overwrite(true).write(&out), Err(Error::Malformed { .. })));
}

/// Many small tensors of all kinds and a few large ones.
fn many(prefix: &Path) -> Vec<(String, Dtype, Vec<u64>, Vec<u8>)> {
    let mut writer = BundleWriter::create(prefix, Layout { shards: 2, ..Layout::default() }).unwrap();
    let mut tensors = Vec::new();
    for i in 0..400u64 {
        let dtype = [Dtype::Float32, Dtype::UInt8, Dtype::Complex128, Dtype::Float16][i as usize % 4];
        let shape = match i % 7 {
            0 => vec![],
            1 => vec![0, 3],
            2 => vec![i, 5],
            3 if i % 5 == 0 => vec![700_001],
            _ => vec![3, 2, i],
        };
        let stored = bytes(i, shape.iter().product::<u64>() * dtype.itemsize().unwrap());
        let name = format!("layer_{:03}/w", i * 7919 % 1000);
        writer.add(name.as_bytes(), dtype.code(), &shape, (i % 2) as u32, &stored[..]).unwrap();
        tensors.push((name, dtype, shape, stored));
    }
    writer.finish().unwrap();
    tensors.sort();
    tensors
}

#[test]
fn many_tensors_are_written_like_one() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    let tensors = many(&prefix);
    let source = Source::open(&prefix).unwrap();
    let chosen = source.select::<&str>(&[]).unwrap();
    for (case, method) in [None, Some(Method::Uncached), Some(Method::Map), Some(Method::Portable)].into_iter().enumerate() {
        let out = dir.path().join(format!("out{case}"));
        let budget = Budget::mib(20);
        let mut options = Options::new().memory(budget).threads(3);
        if let Some(method) = method {
            options = options.method(method);
        }
        let done = match export(&chosen, None, &out, &options) {
            Err(Error::Unsupported { .. }) if method == Some(Method::Uncached) => continue,
            done => done.unwrap(),
        };
        assert_eq!(done.outputs.len(), tensors.len());
        for (output, (name, dtype, shape, stored)) in done.outputs.iter().zip(&tensors) {
            assert_eq!((&output.name.to_string(), output.report.dtype, &output.report.shape), (name, *dtype, shape));
            assert_eq!(output.report.verified, Verified::Full);
            assert!(output.report.peak_memory <= budget.as_bytes(), "{}", output.report.peak_memory);
            let (header, data) = npy(&output.path);
            assert!(data == *stored, "{name}, {method:?}");
            assert!(header.contains(dtype.descr().unwrap()));
            let align = if output.report.method == Method::Clone { dtype.itemsize().unwrap() } else { 64 };
            assert_eq!((header.len() as u64 + 10) % align, 0);
        }
        assert_eq!(names_in(&out).len(), tensors.len() + 1);
        let listed: Vec<String> = mmconvert::Manifest::read(&out, &mmconvert::Options::default())
            .unwrap()
            .files()
            .iter()
            .map(|entry| entry.name.clone())
            .collect();
        assert_eq!(listed, tensors.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>(), "in the order of the source");
        let status = mmconvert(["verify".as_ref(), out.as_os_str(), "--against".as_ref(), prefix.as_os_str(), "-q".as_ref()]);
        assert_eq!(code(&status), 0, "{}", stderr(&status));
    }
}

#[test]
fn one_bad_tensor_of_many_leaves_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    many(&prefix);
    let shard = with_suffix(&prefix, ".data-00001-of-00002");
    let middle = fs::metadata(&shard).unwrap().len() / 2;
    let file = fs::OpenOptions::new().read(true).write(true).open(&shard).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
    let before = names_in(dir.path());
    for method in [&[][..], &["--method", "portable"], &["--method", "map"]] {
        let (prefix, out) = (prefix.to_str().unwrap(), dir.path().join("out"));
        let status = mmconvert([&["convert", prefix, "-o", out.to_str().unwrap(), "-j", "3"], method].concat());
        assert_eq!(code(&status), 3, "{}", stderr(&status));
        assert!(stderr(&status).contains("CRC32C"), "{}", stderr(&status));
        assert_eq!(names_in(dir.path()), before);
    }
}

#[test]
fn an_unavailable_method_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("c");
    // Big-endian elements must be swapped, so no file system can share their blocks.
    let mut writer = BundleWriter::create(&prefix, Layout { big_endian: true, ..Layout::default() }).unwrap();
    writer.add(b"t", 1, &[100_000], 0, Pattern::new(400_000)).unwrap();
    writer.finish().unwrap();
    let out = dir.path().join("out.npy");
    let run = |method: &str| mmconvert(["convert", prefix.to_str().unwrap(), "-o", out.to_str().unwrap(), "--method", method]);
    let status = run("clone");
    assert_eq!(code(&status), 6);
    assert!(stderr(&status).contains("method clone") && stderr(&status).contains("shares blocks"), "{}", stderr(&status));
    let status = run("carrier-pigeon");
    assert_eq!(code(&status), 2);
    assert!(stderr(&status).contains("uncached"), "{}", stderr(&status));
    assert!(!out.exists());
}

//! Reading, decoding and checksumming from memory and a warm file, each beside a floor of the same bytes.
//!
//! Through the public interface: a conversion into a file on a memory file system, so that no disk takes part, beside a
//! plain `read` + `write` of the same bytes to the same place.
#![allow(missing_docs, clippy::cast_possible_truncation, reason = "criterion's macros make functions without documentation; 64 MiB fit")]

#[path = "../tests/support/bundle.rs"]
mod bundle;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bundle::{BundleWriter, Extents, Layout, Pattern};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mmconvert::reader::MemoryTensor;
use mmconvert::{Budget, Converter, Dtype, Options, Source, TensorSpec, compare};

const BYTES: u64 = 64 << 20;

/// A memory file system where there is one.
fn workplace() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { shm } else { Path::new("target") };
    tempfile::tempdir_in(dir).expect("a place to work")
}

fn stored(dir: &Path, name: &str, dtype: u64, shape: &[u64], layout: Layout, pieces: &[Extents]) -> Source {
    let prefix = dir.join(name);
    let mut writer = BundleWriter::create(&prefix, layout).expect("a bundle");
    if pieces.is_empty() {
        writer.add(b"t", dtype, shape, 0, Pattern::new(BYTES)).expect("room");
    } else {
        let each = BYTES / pieces.len() as u64;
        writer.add_partitioned(b"t", dtype, shape, pieces, |_| (0, Pattern::new(each))).expect("room");
    }
    writer.finish().expect("an index");
    Source::open(prefix).expect("a source")
}

/// One read and one write of all bytes, 1 MiB at a time: what any conversion has to do at least.
fn plain_copy(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).expect("a source"), File::create(to).expect("an output"));
    let mut buffer = vec![0; 1 << 20];
    for at in (0..BYTES).step_by(1 << 20) {
        from.read_exact_at(&mut buffer, at).expect("a read");
        to.write_all_at(black_box(&buffer), at).expect("a write");
    }
}

/// One read of all bytes, 1 MiB at a time.
fn plain_read(path: &Path) {
    let file = File::open(path).expect("a source");
    let mut buffer = vec![0; 1 << 20];
    for at in (0..BYTES).step_by(1 << 20) {
        file.read_exact_at(black_box(&mut buffer), at).expect("a read");
    }
}

fn conversions(c: &mut Criterion) {
    let dir = workplace();
    let columns: Vec<Extents> = (0..16).map(|i| vec![(0, None), (i * 16, Some(16))]).collect();
    let rows: Vec<Extents> = (0..16).map(|i| vec![(i * (BYTES / 1024 / 16), Some(BYTES / 1024 / 16)), (0, None)]).collect();
    let matrix = [BYTES / 1024, 256];
    let big_endian = Layout { big_endian: true, ..Layout::default() };
    let sources = [
        ("contiguous", stored(dir.path(), "a", 1, &matrix, Layout::default(), &[]), true),
        ("contiguous, not verified", stored(dir.path(), "b", 1, &matrix, Layout::default(), &[]), false),
        ("one row", stored(dir.path(), "c", 1, &[1, BYTES / 4], Layout::default(), &[]), true),
        ("big-endian", stored(dir.path(), "d", 1, &matrix, big_endian, &[]), true),
        ("bool", stored(dir.path(), "e", 10, &[BYTES / 256, 256], Layout::default(), &[]), true),
        ("16 pieces of rows", stored(dir.path(), "f", 1, &matrix, Layout::default(), &rows), true),
        ("16 pieces of columns, 64 bytes wide", stored(dir.path(), "g", 1, &matrix, Layout::default(), &columns), true),
    ];
    let mut group = c.benchmark_group("memory to memory");
    group.throughput(Throughput::Bytes(BYTES)).sample_size(20);
    let shard = dir.path().join("a.data-00000-of-00001");
    let out = dir.path().join("out");
    group.bench_function("floor: read + write", |b| b.iter(|| plain_copy(&shard, &out)));
    // Reading alone: `compare` reads the source and an array, decodes and checksums, and writes nothing.
    group.bench_function("floor: memcpy", |b| {
        let (from, mut to) = (vec![1u8; BYTES as usize], vec![2u8; BYTES as usize]);
        b.iter(|| to.copy_from_slice(black_box(&from)));
    });
    group.bench_function("floor: plain read of two files", |b| b.iter(|| [&shard, &shard].map(|path| plain_read(path))));
    let (first, array) = (&sources[0].1, dir.path().join("array.npy"));
    let tensor = first.tensor("t").expect("the tensor");
    Converter::new(&tensor).expect("a reader").write(&array).expect("a conversion");
    for threads in [1, 2] {
        group.bench_function(format!("compare, {threads} threads"), |b| {
            let options = Options::new().threads(threads).memory(Budget::mib(256));
            b.iter(|| compare(&array, &tensor, None, &options).expect("a comparison"));
        });
    }
    // Writing alone: the elements are in memory already.
    let elements = vec![3u8; BYTES as usize];
    let spec = TensorSpec::new(Dtype::Float32, matrix.to_vec()).expect("a spec");
    for threads in [1, 2] {
        group.bench_function(format!("from memory, {threads} threads"), |b| {
            b.iter(|| {
                let reader = MemoryTensor::new(spec.clone(), &elements).expect("a tensor");
                let converter = Converter::from_reader(Box::new(reader)).threads(threads).memory(Budget::mib(256));
                converter.overwrite(true).write(dir.path().join("out.npy")).expect("a conversion")
            });
        });
    }
    for (name, source, verify) in &sources {
        for threads in [1, 2] {
            group.bench_function(format!("{name}, {threads} threads"), |b| {
                b.iter(|| {
                    let converter = Converter::new(&source.tensor("t").expect("the tensor")).expect("a reader");
                    let converter = converter.verify(*verify).threads(threads).memory(Budget::mib(256)).overwrite(true);
                    converter.write(dir.path().join("out.npy")).expect("a conversion")
                });
            });
        }
    }
    group.finish();
    let _ = fs::remove_file(out);
}

criterion_group!(benches, conversions);
criterion_main!(benches);

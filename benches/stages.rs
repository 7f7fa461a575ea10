//! Single stages of a conversion, each beside a floor that handles the same bytes.
//!
//! Files lie on a memory file system, so that no disk takes part: `DIR` is `/dev/shm` by default, where there is one. `MIB` is
//! the size of the tensor (64).
#![allow(clippy::cast_possible_truncation, reason = "the tensor fits into memory")]

mod support;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mmconvert::reader::MemoryTensor;
use mmconvert::{Budget, Converter, Dtype, Options, Source, TensorSpec, compare};
use support::bundle::{BundleWriter, Extents, Layout, Pattern};
use support::rounds::{Rounds, Run};
use support::{disk, settings, table};

/// Bytes that a floor reads or writes at a time.
const PIECE: usize = 1 << 20;
const THREADS: [usize; 2] = [1, 2];

fn stored(dir: &Path, name: &str, dtype: Dtype, shape: &[u64], layout: Layout, pieces: &[Extents]) -> Source {
    let prefix = dir.join(name);
    let bytes = shape.iter().product::<u64>() * dtype.itemsize().expect("a number");
    let mut writer = BundleWriter::create(&prefix, layout).expect("a bundle");
    if pieces.is_empty() {
        writer.add(b"t", dtype.code(), shape, 0, Pattern::new(bytes)).expect("room");
    } else {
        let each = bytes / pieces.len() as u64;
        writer.add_partitioned(b"t", dtype.code(), shape, pieces, |_| (0, Pattern::new(each))).expect("room");
    }
    writer.finish().expect("an index");
    Source::open(prefix).expect("a source")
}

/// What any conversion has to do at least.
fn read_and_write(from: &Path, to: &Path, bytes: u64) {
    let (from, to) = (File::open(from).expect("a source"), File::create(to).expect("an output"));
    let mut buffer = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        from.read_exact_at(&mut buffer, at).expect("a read");
        to.write_all_at(black_box(&buffer), at).expect("a write");
    }
}

fn read(path: &Path, bytes: u64) {
    let file = File::open(path).expect("a source");
    let mut buffer = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        file.read_exact_at(black_box(&mut buffer), at).expect("a read");
    }
}

fn write(elements: &[u8], to: &Path) {
    let to = File::create(to).expect("an output");
    for (i, piece) in elements.chunks(PIECE).enumerate() {
        to.write_all_at(black_box(piece), (i * PIECE) as u64).expect("a write");
    }
}

fn named(threads: usize) -> &'static str {
    if threads == 1 { "one thread" } else { "two threads" }
}

struct Bench {
    dir: tempfile::TempDir,
    bytes: u64,
    rounds: u64,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Prints a table of the ways.
    fn finish(&self, title: &str, floor: &str, mut rounds: Rounds<'_>) {
        rounds.warm_up();
        table::print(&format!("{title}; {} MiB", self.bytes >> 20), &[floor], &rounds.run());
    }

    /// Reading, decoding, checksumming and writing, for each way in which a tensor may be stored.
    fn conversions(&self) {
        let rows = self.bytes / 1024;
        let matrix = [rows, 256];
        let pieces_of_rows: Vec<Extents> = (0..16).map(|i| vec![(i * (rows / 16), Some(rows / 16)), (0, None)]).collect();
        let pieces_of_columns: Vec<Extents> = (0..16).map(|i| vec![(0, None), (i * 16, Some(16))]).collect();
        let big_endian = Layout { big_endian: true, ..Layout::default() };
        let dir = self.dir.path();
        let float32 = |name: &str, shape: &[u64], layout, pieces: &[Extents]| stored(dir, name, Dtype::Float32, shape, layout, pieces);
        let sources = [
            ("contiguous, not verified", float32("unverified", &matrix, Layout::default(), &[]), false),
            ("contiguous", float32("contiguous", &matrix, Layout::default(), &[]), true),
            ("one row", float32("row", &[1, self.bytes / 4], Layout::default(), &[]), true),
            ("big-endian", float32("big", &matrix, big_endian, &[]), true),
            ("bool", stored(dir, "bool", Dtype::Bool, &[self.bytes / 256, 256], Layout::default(), &[]), true),
            ("16 pieces of rows", float32("rows", &matrix, Layout::default(), &pieces_of_rows), true),
            ("16 pieces of columns, 64 bytes wide", float32("columns", &matrix, Layout::default(), &pieces_of_columns), true),
        ];
        let shard = self.path("contiguous.data-00000-of-00001");
        let out = self.path("out.npy");
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("read + write", self.bytes, || Run::time(|| read_and_write(&shard, &out, self.bytes)));
        for (name, source, verify) in &sources {
            for threads in THREADS {
                let out = &out;
                rounds.add(format!("{name}, {}", named(threads)), self.bytes, move || {
                    Run::time(|| {
                        let converter = Converter::new(&source.tensor("t").expect("the tensor")).expect("a reader");
                        let converter = converter.verify(*verify).threads(threads).memory(Budget::mib(256)).overwrite(true);
                        converter.write(out).expect("a conversion");
                    })
                });
            }
        }
        self.finish("From file to file", "read + write", rounds);
    }

    /// Reading alone: `compare` reads a source and an array, decodes and checksums the source, and writes nothing.
    fn reading(&self) {
        let source = stored(self.dir.path(), "compared", Dtype::Float32, &[self.bytes / 1024, 256], Layout::default(), &[]);
        let tensor = source.tensor("t").expect("the tensor");
        let (shard, array) = (self.path("compared.data-00000-of-00001"), self.path("array.npy"));
        Converter::new(&tensor).expect("a reader").write(&array).expect("a conversion");
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("read of two files", self.bytes, || Run::time(|| [&shard, &array].iter().for_each(|path| read(path, self.bytes))));
        for threads in THREADS {
            let (array, tensor, options) = (&array, &tensor, Options::new().threads(threads).memory(Budget::mib(256)));
            rounds.add(format!("compare, {}", named(threads)), self.bytes, move || {
                Run::time(|| drop(compare(array, tensor, None, &options).expect("a comparison")))
            });
        }
        self.finish("A source compared with an array", "read of two files", rounds);
    }

    /// Rows into the caller's memory, with checksums and without, beside a copy by as many threads.
    fn rows_in_memory(&self) {
        let source = stored(self.dir.path(), "read", Dtype::Float32, &[self.bytes / 1024, 256], Layout::default(), &[]);
        let tensor = source.tensor("t").expect("the tensor");
        let from = vec![3u8; self.bytes as usize];
        for threads in THREADS {
            let mut out = vec![2u8; self.bytes as usize];
            let mut copied = out.clone();
            let mut rounds = Rounds::new(self.rounds);
            let each = from.len() / threads;
            rounds.add("memcpy", self.bytes, || {
                Run::time(|| {
                    std::thread::scope(|scope| {
                        for (to, from) in copied.chunks_mut(each).zip(from.chunks(each)) {
                            scope.spawn(move || to.copy_from_slice(black_box(from)));
                        }
                    });
                })
            });
            let out = std::sync::Mutex::new(&mut out[..]);
            for (name, verify) in [("read_rows", true), ("read_rows, not verified", false)] {
                let (out, tensor, options) = (&out, &tensor, Options::new().threads(threads).verify(verify));
                rounds.add(name, self.bytes, move || {
                    Run::time(|| tensor.read_rows_with(.., &mut out.lock().expect("one at a time"), &options).expect("the rows"))
                });
            }
            self.finish(&format!("From a file to memory, {}", named(threads)), "memcpy", rounds);
        }
    }

    /// Writing alone: the elements are in memory already.
    fn writing(&self) {
        let elements = vec![3u8; self.bytes as usize];
        let mut copied = vec![2u8; self.bytes as usize];
        let spec = TensorSpec::new(Dtype::Float32, vec![self.bytes / 1024, 256]).expect("a spec");
        let out = self.path("out.npy");
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("write", self.bytes, || Run::time(|| write(&elements, &out)));
        rounds.add("memcpy", self.bytes, || Run::time(|| copied.copy_from_slice(black_box(&elements))));
        for threads in THREADS {
            let (spec, elements, out) = (&spec, &elements, &out);
            rounds.add(format!("from memory, {}", named(threads)), self.bytes, move || {
                Run::time(|| {
                    let reader = MemoryTensor::new(spec.clone(), elements).expect("a tensor");
                    let converter = Converter::from_reader(Box::new(reader)).threads(threads).memory(Budget::mib(256));
                    converter.overwrite(true).write(out).expect("a conversion");
                })
            });
        }
        self.finish("From memory to a file", "write", rounds);
    }
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let memory = PathBuf::from("/dev/shm");
    let default = if memory.is_dir() { memory } else { disk::default_dir() };
    let dir = disk::work_dir_in(&settings::dir().unwrap_or(default));
    let bench = Bench { dir, bytes: settings::number("MIB", 64) << 20, rounds: settings::rounds(20) };
    bench.conversions();
    bench.reading();
    bench.rows_in_memory();
    bench.writing();
}

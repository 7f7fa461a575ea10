//! A whole conversion, warm source to synced output. The floor is `cp` + `sync` of the same bytes.
//!
//! ```sh
//! MIB=4096 cargo bench --bench convert
//! SWEEP=1 cargo bench --bench convert     # every number of threads and of slices in flight instead, beside the default
//! FORMS=1 cargo bench --bench convert     # casts, byte orders and layouts instead, beside the same number of bytes as stored
//! ```

mod support;

use std::path::PathBuf;

use mmconvert::{Budget, ByteOrder, Converter, Dtype, Method, Options, Source};
use support::rounds::{Rounds, Run};
use support::{Checkpoint, disk, settings, table};

/// A name, the options, and the number of rows that are converted.
type Way = (&'static str, Options, u64);

struct Bench {
    checkpoint: Checkpoint,
    out: PathBuf,
    mib: u64,
    rounds: u64,
}

impl Bench {
    fn convert(&self, options: &Options, rows: u64) -> Run {
        disk::remove(&self.out);
        Run::time(|| {
            let source = Source::open(&self.checkpoint.prefix).expect("the source");
            let converter = Converter::new(&source.tensor("t").expect("the tensor")).expect("a reader");
            let report = converter.options(options.clone()).rows(0..rows).write(&self.out).expect("a conversion");
            assert_eq!(report.shape, [rows, support::COLUMNS]);
        })
    }

    fn cp(&self) -> Run {
        disk::remove(&self.out);
        Run::time(|| assert!(disk::copy(&self.checkpoint.shard, &self.out).status().expect("cp").success()))
    }

    /// Prints a table of `cp`, where that is the floor, and of the ways, all of which write so many bytes.
    fn compare(&self, title: &str, cp: bool, ways: Vec<(String, Options, u64)>, bytes: u64) {
        let mut rounds = Rounds::new(self.rounds);
        let mut ratios = vec![ways[0].0.clone()];
        if cp {
            ratios.insert(0, "cp + sync".into());
            rounds.add("cp + sync", bytes, || self.cp());
        }
        for (name, options, rows) in ways {
            rounds.add(name, bytes, move || self.convert(&options, rows));
        }
        rounds.warm_up();
        let ratios: Vec<&str> = ratios.iter().map(String::as_str).collect();
        table::print(&format!("{title}; {} MiB written", bytes >> 20), &ratios, &rounds.run());
    }

    fn sweep(&self) {
        let rows = self.checkpoint.rows;
        let settings = [1, 2, 4, 8].into_iter().flat_map(|threads| [1, 2, 4, 8, 16].map(|slices| (threads, slices)));
        let settings = settings.map(|(threads, slices)| {
            (format!("{threads} threads, {slices} slices"), Options::new().threads(threads).in_flight(slices), rows)
        });
        let ways = [("default".to_owned(), Options::new(), rows)].into_iter().chain(settings).collect();
        self.compare("Threads and slices in flight", true, ways, self.mib << 20);
    }

    fn forms(&self) {
        let rows = self.checkpoint.rows;
        let column_major = || Options::new().layout(mmconvert::Layout::F);
        // The part of all bytes that is written, and the ways to write that much.
        let forms: [(u64, Vec<Way>); 3] = [
            (
                1,
                vec![
                    ("as stored", Options::new(), rows),
                    ("int32", Options::new().cast(Dtype::Int32), rows),
                    ("big-endian", Options::new().byte_order(ByteOrder::Big), rows),
                    ("half of the rows, float64", Options::new().cast(Dtype::Float64), rows / 2),
                    ("half of the rows, float64, strict", Options::new().cast(Dtype::Float64).strict(true), rows / 2),
                    ("Fortran order", column_major(), rows),
                    ("Fortran order, 100 MiB", column_major().memory(Budget::mib(100)), rows),
                ],
            ),
            (
                2,
                vec![
                    ("half of the rows", Options::new(), rows / 2),
                    ("bfloat16", Options::new().cast(Dtype::BFloat16), rows),
                    ("float16", Options::new().cast(Dtype::Float16), rows),
                ],
            ),
            (4, vec![("a quarter of the rows", Options::new(), rows / 4), ("uint8", Options::new().cast(Dtype::UInt8), rows)]),
        ];
        for (part, ways) in forms {
            let ways = ways.into_iter().map(|(name, options, rows)| (name.to_owned(), options, rows)).collect();
            self.compare("Casts, byte orders and layouts", false, ways, (self.mib << 20) / part);
        }
    }
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let (mib, rounds) = (settings::number("MIB", 512), settings::rounds(5));
    let dir = disk::work_dir();
    let checkpoint = Checkpoint::write(dir.path(), mib << 20);
    disk::warm(&checkpoint.shard);
    let bench = Bench { checkpoint, out: dir.path().join("out.npy"), mib, rounds };
    if settings::is_on("SWEEP") {
        return bench.sweep();
    }
    if settings::is_on("FORMS") {
        return bench.forms();
    }
    let rows = bench.checkpoint.rows;
    let ways = [
        ("mmconvert", Options::new()),
        ("--no-verify", Options::new().verify(false)),
        ("--memory 64MiB", Options::new().memory(Budget::mib(64))),
        ("--method portable", Options::new().method(Method::Portable)),
    ];
    let ways = ways.into_iter().map(|(name, options)| (name.to_owned(), options, rows)).collect();
    bench.compare("A whole conversion", true, ways, mib << 20);
}

//! A whole conversion, warm source to synced output, beside `cp` + `sync` of the same bytes.
//!
//! `MIB=4096 ROUNDS=5 cargo bench --bench convert` for the size that docs/benchmarks.md quotes. `SWEEP=1` compares the default
//! with every number of threads and of slices in flight instead, `FORMS=1` casts, byte orders and layouts with the same number of
//! bytes written as they are stored.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench prints what it measured")]

#[path = "../tests/support/bundle.rs"]
mod bundle;
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use bundle::{BundleWriter, Layout, Pattern};
use mmconvert::{Budget, ByteOrder, Converter, Dtype, Method, Options, Source};

/// What to call it, how it is converted, and how many rows.
type Way = (&'static str, Options, u64);

fn main() {
    let bytes = support::setting("MIB", 512) << 20;
    let rounds = usize::try_from(support::setting("ROUNDS", 5)).unwrap_or(5);
    let dir = tempfile::tempdir_in(std::env::var_os("DIR").unwrap_or_else(|| "target".into())).expect("a place to work");
    let prefix = dir.path().join("source");
    let mut writer = BundleWriter::create(&prefix, Layout::default()).expect("a bundle");
    writer.add(b"t", 1, &[bytes / 256, 64], 0, Pattern::new(bytes)).expect("room for the source");
    writer.finish().expect("an index");

    let shard = bundle::with_suffix(&prefix, ".data-00000-of-00001");
    let (ours, copy) = (dir.path().join("ours.npy"), dir.path().join("copy"));
    let remove = || {
        let _ = fs::remove_file(&ours);
        let _ = fs::remove_file(&copy);
        assert!(Command::new("sync").status().expect("sync").success());
    };
    let rows = bytes / 256;
    let convert_rows = |options: &Options, rows: u64| {
        remove();
        let started = std::time::Instant::now();
        let source = Source::open(&prefix).expect("the source");
        let converter = Converter::new(&source.tensor("t").expect("the tensor")).expect("a reader");
        let report = converter.options(options.clone()).rows(0..rows).write(&ours).expect("a conversion");
        assert_eq!(report.shape, [rows, 64]);
        started.elapsed()
    };
    let convert = |options: &Options| convert_rows(options, rows);
    let cp = || {
        remove();
        let started = std::time::Instant::now();
        assert!(Command::new("cp").arg(&shard).arg(&copy).status().expect("cp").success());
        assert!(Command::new("sync").arg(&copy).status().expect("sync").success());
        started.elapsed()
    };
    // The source is brought into the page cache, and every way is run once, before anything counts.
    let _ = (fs::read(&shard), cp(), convert(&Options::new()));

    if support::setting("SWEEP", 0) > 0 {
        let settings = [1, 2, 4, 8].into_iter().flat_map(|threads| [1, 2, 4, 8, 16].map(|slices| (threads, slices)));
        let ways: Vec<(String, Options)> = [("default".to_owned(), Options::new())]
            .into_iter()
            .chain(settings.map(|(threads, slices)| {
                (format!("{threads} threads, {slices} slices"), Options::new().threads(threads).in_flight(slices))
            }))
            .collect();
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for ((_, options), times) in ways.iter().zip(&mut times) {
                times.push(convert(options));
            }
        }
        remove();
        return print(bytes, rounds, "default", &ways.into_iter().map(|(name, _)| name).zip(times).collect::<Vec<_>>());
    }

    if support::setting("FORMS", 0) > 0 {
        let tight = || Options::new().memory(Budget::mib(100));
        // What is written, out of all bytes, and the ways to write that much.
        let forms: [(u64, Vec<Way>); 3] = [
            (
                2,
                vec![
                    ("half of the rows", Options::new(), rows / 2),
                    ("float16", Options::new().cast(Dtype::Float16), rows),
                    ("bfloat16", Options::new().cast(Dtype::BFloat16), rows),
                ],
            ),
            (
                1,
                vec![
                    ("as they are", Options::new(), rows),
                    ("int32", Options::new().cast(Dtype::Int32), rows),
                    ("half of the rows, float64, strict", Options::new().cast(Dtype::Float64).strict(true), rows / 2),
                    ("big-endian", Options::new().byte_order(ByteOrder::Big), rows),
                    ("half of the rows, float64", Options::new().cast(Dtype::Float64), rows / 2),
                    ("Fortran order", Options::new().layout(mmconvert::Layout::F), rows),
                    ("Fortran order, 100 MiB", tight().layout(mmconvert::Layout::F), rows),
                ],
            ),
            (4, vec![("a quarter of the rows", Options::new(), rows / 4), ("uint8", Options::new().cast(Dtype::UInt8), rows)]),
        ];
        for (part, ways) in forms {
            let mut times = vec![Vec::new(); ways.len()];
            for _ in 0..rounds {
                for ((_, options, rows), times) in ways.iter().zip(&mut times) {
                    times.push(convert_rows(options, *rows));
                }
            }
            print(bytes / part, rounds, "stored", &ways.into_iter().map(|(name, ..)| name.to_owned()).zip(times).collect::<Vec<_>>());
        }
        return remove();
    }

    let names = ["cp + sync", "default", "--no-verify", "--memory 64MiB", "no calls of Linux"];
    let mut times = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        times[0].push(cp());
        times[1].push(convert(&Options::new()));
        times[2].push(convert(&Options::new().verify(false)));
        times[3].push(convert(&Options::new().memory(Budget::mib(64))));
        times[4].push(convert(&Options::new().method(Method::Portable)));
    }
    remove();
    print(bytes, rounds, "cp", &names.map(str::to_owned).into_iter().zip(times).collect::<Vec<_>>());
}

/// Medians and spread; the first row is what the others are compared with.
fn print(bytes: u64, rounds: usize, floor: &str, rows: &[(String, Vec<Duration>)]) {
    let first = support::median(&rows[0].1).as_secs_f64();
    println!("{} MiB written, {rounds} rounds, medians", bytes >> 20);
    println!("{:<34} {:>8} {:>8} {:>8} {:>8} {:>9}", "", "median s", "min s", "max s", "GB/s", format!("x {floor}"));
    for (name, times) in rows {
        let median = support::median(times).as_secs_f64();
        let seconds = |t: Option<&Duration>| t.map_or(0.0, Duration::as_secs_f64);
        println!(
            "{name:<34} {median:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.2}",
            seconds(times.iter().min()),
            seconds(times.iter().max()),
            bytes as f64 / median / 1e9,
            median / first
        );
    }
}

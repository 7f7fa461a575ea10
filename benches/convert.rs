//! A whole conversion, warm source to synced output, beside `cp` + `sync` of the same bytes.
//!
//! `MIB=4096 ROUNDS=5 cargo bench --bench convert` for the size that docs/benchmarks.md quotes.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench prints what it measured")]

#[path = "../tests/support/bundle.rs"]
mod bundle;
mod support;

use std::fs;
use std::process::Command;

use bundle::{BundleWriter, Layout, Pattern};
use mmconvert::{Budget, Converter, Source};

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
    let convert = |verify: bool, budget: Budget| {
        remove();
        let started = std::time::Instant::now();
        let source = Source::open(&prefix).expect("the source");
        let converter = Converter::new(&source.tensor("t").expect("the tensor")).expect("a reader");
        let done = converter.verify(verify).memory(budget).run(&ours).expect("a conversion");
        assert_eq!(done.array.as_bytes().len() as u64, bytes);
        started.elapsed()
    };
    let cp = || {
        remove();
        let started = std::time::Instant::now();
        assert!(Command::new("cp").arg(&shard).arg(&copy).status().expect("cp").success());
        assert!(Command::new("sync").arg(&copy).status().expect("sync").success());
        started.elapsed()
    };
    // The source is brought into the page cache, and every way is run once, before anything counts.
    let _ = (fs::read(&shard), cp(), convert(true, Budget::default()));

    let names = ["cp + sync", "default", "--no-verify", "--memory 64MiB"];
    let mut times = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        times[0].push(cp());
        times[1].push(convert(true, Budget::default()));
        times[2].push(convert(false, Budget::default()));
        times[3].push(convert(true, Budget::mib(64)));
    }
    remove();
    let floor = support::median(&times[0]).as_secs_f64();
    println!("{} MiB of float32, {rounds} rounds, medians", bytes >> 20);
    println!("{:<16} {:>8} {:>8} {:>8} {:>8} {:>9}", "", "median s", "min s", "max s", "GB/s", "x cp");
    for (name, times) in names.iter().zip(&times) {
        let median = support::median(times).as_secs_f64();
        let seconds = |t: Option<&std::time::Duration>| t.map_or(0.0, std::time::Duration::as_secs_f64);
        println!(
            "{name:<16} {median:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9.2}",
            seconds(times.iter().min()),
            seconds(times.iter().max()),
            bytes as f64 / median / 1e9,
            median / floor
        );
    }
}

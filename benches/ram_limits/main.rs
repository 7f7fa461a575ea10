//! Conversions under memory limits: ours beside everything a user would pick instead.
//!
//! ```text
//! cargo bench --bench ram_limits
//! MIB=4096 LIMITS=96,256,1024,none ROUNDS=5 OUT=docs/pictures cargo bench --bench ram_limits
//! ```
//!
//! Every run gets a memory cgroup of its own (version 2 or 1), which counts the page cache as well. Ours is given two thirds
//! of the limit as `--memory`. The source is cold, but for the rows that say warm. Rounds are interleaved. `WAYS=dd,mmconvert`
//! runs only these. It prints a table and writes `ram_limits.json` and pictures to OUT (default: `target/ram_limits`).
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a bench"
)]

#[path = "../../tests/support/bundle.rs"]
mod bundle;
mod chart;
#[path = "../support/mod.rs"]
mod support;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};

use bundle::{BundleWriter, Layout, Pattern};
use serde_json::{Value, json};
use support::cgroup::{self, Cgroups, Watched};
use ways::{Task, Way};

/// A row of the table: a way of converting, a size, a limit, and whether the source is in the page cache.
struct Case {
    way: Way,
    mib: u64,
    limit: Option<u64>,
    warm: bool,
    runs: Vec<Watched>,
}

impl Case {
    fn seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<f64> = self.runs.iter().filter(|run| run.success).map(|run| seconds(self.way, run)).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    /// The middle time; none if any run failed.
    fn median(&self) -> Option<f64> {
        let seconds = self.seconds();
        (seconds.len() == self.runs.len()).then(|| seconds.get(seconds.len() / 2).copied()).flatten()
    }

    fn peak(&self) -> Option<u64> {
        self.runs.iter().filter_map(|run| run.peak_bytes).max()
    }

    fn limit_name(&self) -> String {
        match (self.limit, self.warm) {
            (Some(bytes), _) => format!("{}", bytes >> 20),
            (None, true) => "none, warm".into(),
            (None, false) => "none".into(),
        }
    }
}

fn seconds(way: Way, run: &Watched) -> f64 {
    let printed = if way.prints_seconds() { run.stdout.trim().parse().ok() } else { None };
    printed.unwrap_or(run.seconds)
}

fn list(name: &str, default: &str) -> Vec<String> {
    std::env::var(name).unwrap_or_else(|_| default.into()).split(',').map(str::to_owned).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--way") {
        return ways::run_here(&arguments[1..]);
    }
    let sizes: Vec<u64> = list("MIB", "1024").iter().map(|text| text.parse().expect("MIB: numbers")).collect();
    let limits: Vec<Option<u64>> =
        list("LIMITS", "96,256,1024,none").iter().map(|text| text.parse::<u64>().ok().map(|mib| mib << 20)).collect();
    let rounds = support::setting("ROUNDS", 3);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::var_os("OUT").map_or_else(|| root.join("target/ram_limits"), |dir| root.join(dir));
    let oracle = root.join("target/oracle/bin/python");
    let python = std::env::var_os("PYTHON").map(PathBuf::from).or_else(|| oracle.exists().then_some(oracle));
    let cgroups = Cgroups::find();
    if cgroups.is_none() {
        println!("no memory cgroup can be made here: only runs without a limit, and no memory figures");
    }
    let dir = tempfile::tempdir_in(std::env::var_os("DIR").unwrap_or_else(|| "target".into())).expect("a place to work");
    let mut cases = Vec::new();
    for &mib in &sizes {
        let task = source(dir.path(), mib);
        measure(&task, mib, &limits, rounds, python.as_deref(), cgroups.as_ref(), &mut cases);
        ways::clear(&task.shard);
    }
    println!("{}", table(&cases));
    fs::create_dir_all(&out).expect("a place for results");
    fs::write(out.join("ram_limits.json"), format!("{:#}\n", as_json(&cases))).expect("room for results");
    for &mib in &sizes {
        pictures(&out, mib, &limits, &cases).expect("pictures");
    }
    println!("JSON and pictures are in {}", out.display());
}

/// A checkpoint with one tensor of so many MiB.
fn source(dir: &Path, mib: u64) -> Task {
    let (prefix, columns) = (dir.join(format!("source{mib}")), 64);
    let rows = (mib << 20) / 4 / columns;
    let mut writer = BundleWriter::create(&prefix, Layout::default()).expect("a bundle");
    writer.add(b"t", 1, &[rows, columns], 0, Pattern::new(mib << 20)).expect("room for the source");
    writer.finish().expect("an index");
    let shard = bundle::with_suffix(&prefix, ".data-00000-of-00001");
    Task { shard, out: dir.join("out"), prefix, rows, columns }
}

fn measure(
    task: &Task,
    mib: u64,
    limits: &[Option<u64>],
    rounds: u64,
    python: Option<&Path>,
    cgroups: Option<&Cgroups>,
    cases: &mut Vec<Case>,
) {
    let first = cases.len();
    let wanted = list("WAYS", &Way::ALL.map(Way::key).join(","));
    let ways = || Way::ALL.into_iter().filter(|way| wanted.iter().any(|key| key == way.key()));
    let settings = limits.iter().map(|&limit| (limit, false)).chain([(None, true)]);
    cases.extend(settings.flat_map(|(limit, warm)| ways().map(move |way| Case { way, mib, limit, warm, runs: Vec::new() })));
    for round in 0..rounds {
        for case in &mut cases[first..] {
            let command = match case.way.command(task, case.limit.map(|bytes| bytes * 2 / 3), python) {
                Ok(command) => command,
                Err(why) => {
                    if round == 0 && case.warm {
                        println!("{} is left out: {why}", case.way.name());
                    }
                    continue;
                }
            };
            let words: Vec<&Path> = command.iter().map(Path::new).collect();
            ways::clear(&task.out);
            if case.warm {
                ways::warm(&task.shard);
            } else {
                ways::evict(&task.shard);
            }
            if let Some(run) = cgroup::watch(cgroups, case.limit, &words) {
                let state = if run.success { format!("{:.2} s", seconds(case.way, &run)) } else { "failed or killed".into() };
                println!("round {} of {rounds}, {mib} MiB, limit {}: {}: {state}", round + 1, case.limit_name(), case.way.name());
                case.runs.push(run);
            }
        }
    }
    cases.retain(|case| !case.runs.is_empty());
    ways::clear(&task.out);
}

/// The floor of the same size, limit and warmth.
fn floor(cases: &[Case], case: &Case) -> Option<f64> {
    let same = |other: &&Case| (other.mib, other.limit, other.warm, other.way) == (case.mib, case.limit, case.warm, Way::Dd);
    cases.iter().find(same)?.median()
}

fn table(cases: &[Case]) -> String {
    let mut text =
        String::from("| MiB | limit, MiB | way | median s | min | max | GB/s | × dd | peak MiB |\n|---|---|---|---|---|---|---|---|---|\n");
    for case in cases {
        let (seconds, name, limit) = (case.seconds(), case.way.name(), case.limit_name());
        let peak = case.peak().map_or_else(|| "?".into(), |bytes| format!("{}", bytes >> 20));
        let figures = if let Some(median) = case.median() {
            let ratio = floor(cases, case).map_or_else(|| "?".into(), |floor| format!("{:.2}", median / floor));
            let (min, max) = (seconds[0], seconds[seconds.len() - 1]);
            let rate = (case.mib << 20) as f64 / median / 1e9;
            format!("{median:.2} | {min:.2} | {max:.2} | {rate:.2} | {ratio}")
        } else {
            format!("killed in {} of {} | | | |", case.runs.len() - seconds.len(), case.runs.len())
        };
        text += &format!("| {} | {limit} | {name} | {figures} | {peak} |\n", case.mib);
    }
    text
}

fn as_json(cases: &[Case]) -> Value {
    let cases: Vec<Value> = cases
        .iter()
        .map(|case| {
            json!({
                "way": case.way.name(),
                "mib": case.mib,
                "limit_bytes": case.limit,
                "warm": case.warm,
                "seconds": case.runs.iter().map(|run| run.success.then(|| seconds(case.way, run))).collect::<Vec<_>>(),
                "median_seconds": case.median(),
                "ratio_to_floor": case.median().zip(floor(cases, case)).map(|(median, floor)| median / floor),
                "peak_bytes": case.runs.iter().map(|run| run.peak_bytes).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"cases": cases})
}

/// Throughput against the limit, and memory over time at each limit.
fn pictures(out: &Path, mib: u64, limits: &[Option<u64>], cases: &[Case]) -> Result<(), Box<dyn std::error::Error>> {
    let of =
        |way: Way, limit: Option<u64>| cases.iter().find(|case| (case.way, case.mib, case.limit, case.warm) == (way, mib, limit, false));
    let ticks: Vec<(f64, String)> = limits
        .iter()
        .enumerate()
        .map(|(i, limit)| (i as f64 + 1.0, limit.map_or_else(|| "none".into(), |bytes| format!("{} MiB", bytes >> 20))))
        .collect();
    let rates: Vec<chart::Line> = Way::ALL
        .iter()
        .map(|&way| {
            let rate = |i: usize, limit: Option<u64>| Some((i as f64 + 1.0, (mib << 20) as f64 / of(way, limit)?.median()? / 1e9));
            (way.name().to_owned(), limits.iter().enumerate().filter_map(|(i, &limit)| rate(i, limit)).collect())
        })
        .collect();
    let title = format!("{mib} MiB of float32, cold source to synced output");
    chart::draw(&out.join(format!("throughput-{mib}.svg")), &title, ("memory limit of the cgroup", "GB/s"), &rates, &ticks, None)?;
    for &limit in limits {
        let name = limit.map_or_else(|| "none".into(), |bytes| format!("{}", bytes >> 20));
        let lines: Vec<chart::Line> = Way::ALL
            .iter()
            .filter_map(|&way| {
                let case = of(way, limit)?;
                let run = case.runs.get(case.runs.len() / 2)?;
                let end = if run.success { "" } else { ", killed" };
                let points = run.samples.iter().map(|&(at, bytes)| (at, bytes as f64 / f64::from(1 << 20))).collect();
                Some((format!("{}{end}", way.name()), points))
            })
            .collect();
        if lines.iter().all(|(_, points)| points.is_empty()) {
            continue;
        }
        let title = format!("Memory charged while converting {mib} MiB, limit {name}");
        let across = limit.map(|bytes| ((bytes >> 20) as f64, "limit".to_owned()));
        chart::draw(&out.join(format!("memory-{mib}-limit-{name}.svg")), &title, ("seconds", "MiB"), &lines, &[], across)?;
    }
    Ok(())
}

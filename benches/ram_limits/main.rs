//! Conversions under memory limits, beside everything a user would pick instead. The floor is `dd`, which only reads.
//!
//! ```sh
//! cargo bench --bench ram_limits
//! MIB=4096 LIMITS=96,256,1024,none ROUNDS=5 OUT=docs/pictures cargo bench --bench ram_limits
//! LIMITS=96 WAYS=dd,disk,mmconvert,cp cargo bench --bench ram_limits
//! ```
//!
//! Every run gets a memory cgroup of its own, which counts the page cache too. Ours is given two thirds of the limit as `--memory`.
//! The source is cold, but in the table that says warm. `MIB` is a list of sizes (1024). `ram_limits.json` and pictures are written
//! to `OUT` (`target/ram_limits`).
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_debug_implementations,
    unreachable_pub,
    missing_docs,
    reason = "a bench"
)]

mod chart;
#[path = "../support/mod.rs"]
mod support;
mod ways;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::cgroup::Cgroups;
use support::rounds::{Rounds, Row, Run};
use support::{Checkpoint, disk, python, settings, table};
use ways::{Task, Way};

/// A way under a limit.
struct Case {
    way: Way,
    mib: u64,
    limit: Option<u64>,
    /// Whether the source is in the page cache.
    warm: bool,
    row: Row,
}

/// Limits, and whether the source is warm.
type Setting = (Option<u64>, bool);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--way") {
        return ways::run_here(&arguments[1..]);
    }
    if !support::is_measuring() {
        return;
    }
    let numbers = |name: &str, default: &str| -> Vec<Option<u64>> {
        let number = |text: &String| (text != "none").then(|| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")));
        settings::list(name, default).iter().map(number).collect()
    };
    let sizes: Vec<u64> = numbers("MIB", "1024").into_iter().flatten().collect();
    let cgroups = Cgroups::find();
    let mut limits = numbers("LIMITS", "96,256,1024,none");
    for limit in &mut limits {
        *limit = limit.map(|mib| mib << 20);
    }
    if !cgroups.can_limit() {
        limits = vec![None];
    }
    let root = support::project();
    let out = root.join(settings::text("OUT").unwrap_or_else(|| "target/ram_limits".into()));
    let wanted = settings::chosen("WAYS", &Way::ALL.map(Way::key));
    let mut ways: Vec<Way> = Way::ALL.into_iter().filter(|way| wanted.contains(&way.key())).collect();
    for (module, needs) in [("numpy", Way::prints_seconds as fn(Way) -> bool), ("tensorflow", Way::needs_tensorflow)] {
        if ways.iter().any(|&way| needs(way)) && !python::has(module) {
            println!("The Python at $PYTHON has no {module}: the ways that need it are left out.\n");
            ways.retain(|&way| !needs(way));
        }
    }

    let dir = disk::work_dir();
    let mut cases = Vec::new();
    for &mib in &sizes {
        let checkpoint = Checkpoint::write(dir.path(), mib << 20);
        let task = Task { checkpoint, out: dir.path().join("out"), mib };
        cases.extend(measure(&task, &limits, &ways, &cgroups));
    }
    fs::create_dir_all(&out).expect("a place for results");
    fs::write(out.join("ram_limits.json"), format!("{:#}\n", as_json(&cases))).expect("room for results");
    for &mib in &sizes {
        pictures(&out, mib, &limits, &cases).expect("pictures");
    }
    println!("JSON and pictures are in {}", out.display());
}

/// Runs every way under every limit, all of them interleaved, and prints a table for each limit.
fn measure(task: &Task, limits: &[Option<u64>], ways: &[Way], cgroups: &Cgroups) -> Vec<Case> {
    let mut rounds = Rounds::new(settings::rounds(3));
    let settings: Vec<Setting> = limits.iter().map(|&limit| (limit, false)).chain([(None, true)]).collect();
    for &(limit, warm) in &settings {
        for &way in ways {
            rounds.add(way.name(), task.mib << 20, move || run(task, way, limit, warm, cgroups));
        }
    }
    let mut rows = rounds.run().into_iter();
    let mut cases = Vec::new();
    for (limit, warm) in settings {
        let rows: Vec<Row> = rows.by_ref().take(ways.len()).collect();
        let limited = limit.map_or_else(|| "no limit".into(), |bytes| format!("limit {} MiB", bytes >> 20));
        let title = format!("{} MiB, {limited}, {} source", task.mib, if warm { "warm" } else { "cold" });
        table::print(&title, &[Way::Dd.name()], &rows);
        cases.extend(ways.iter().zip(rows).map(|(&way, row)| Case { way, mib: task.mib, limit, warm, row }));
    }
    cases
}

fn run(task: &Task, way: Way, limit: Option<u64>, warm: bool, cgroups: &Cgroups) -> Run {
    disk::remove(&task.out);
    if warm {
        disk::warm(&task.checkpoint.shard);
    } else {
        disk::evict(&task.checkpoint.shard);
    }
    let run = cgroups.run(limit, &way.command(task, limit));
    if way.prints_seconds() { run.with_printed_figures() } else { run }
}

/// The floor of the same size, limit and warmth.
fn floor(cases: &[Case], case: &Case) -> Option<f64> {
    let same = |other: &&Case| (other.mib, other.limit, other.warm, other.way) == (case.mib, case.limit, case.warm, Way::Dd);
    cases.iter().find(same)?.row.median()
}

fn as_json(cases: &[Case]) -> Value {
    let cases: Vec<Value> = cases
        .iter()
        .map(|case| {
            let (runs, median) = (&case.row.runs, case.row.median());
            json!({
                "way": case.way.name(),
                "mib": case.mib,
                "limit_bytes": case.limit,
                "warm": case.warm,
                "seconds": runs.iter().map(|run| run.success.then_some(run.seconds)).collect::<Vec<_>>(),
                "median_seconds": median,
                "ratio_to_floor": median.zip(floor(cases, case)).map(|(median, floor)| median / floor),
                "peak_bytes": runs.iter().map(|run| run.peak_bytes).collect::<Vec<_>>(),
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
            let rate = |i: usize, limit: Option<u64>| Some((i as f64 + 1.0, (mib << 20) as f64 / of(way, limit)?.row.median()? / 1e9));
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
                let run = case.row.runs.get(case.row.runs.len() / 2)?;
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

//! HDF5 and `.npz` beside what Python does with them, and a view in place, in one run.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install h5py numpy
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench files                  # makes the inputs first (15 GiB)
//! PYTHON=venv/bin/python DIR=/big MIB=1024 LIMIT=256 ROUNDS=5 cargo bench --bench files
//! ```
//!
//! HDF5 datasets of `MIB` (4096), gzipped in chunks and contiguous: h5py reading slices into `open_memmap` beside ours, both in a
//! memory cgroup of `LIMIT` (256) MiB. Members of an `.npz` of half that size, stored and deflated: `np.load` and `np.save`, which
//! need all of it in memory and so get no limit, beside ours with it. The sources are dropped from the page cache before each run, and
//! every way syncs its output. Python's seconds leave its imports out, ours are those of the whole process. Medians of interleaved
//! rounds. `dd` with `fdatasync` of as many bytes is the floor. At the end an array is viewed in place and one row of it summed.
#![allow(missing_docs, clippy::print_stdout, reason = "a table for people")]
#![allow(unsafe_code, reason = "a view of a file that nobody else writes")]

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mmconvert::Source;
use support::cgroup::{self, Cgroups, Watched};

struct Bench {
    python: PathBuf,
    script: PathBuf,
    dir: PathBuf,
    cgroups: Option<Cgroups>,
    rounds: u64,
    limit: u64,
}

impl Bench {
    fn out(&self) -> PathBuf {
        self.dir.join("output.npy")
    }

    /// Runs a command with a cold source and no output.
    fn run(&self, source: &Path, limit: Option<u64>, command: &[&Path]) -> Watched {
        let _ = std::fs::remove_file(self.out());
        assert!(Command::new("sync").status().expect("sync").success());
        let dropped = Command::new("dd").arg(format!("if={}", source.display())).args(["iflag=nocache", "count=0", "status=none"]).status();
        assert!(dropped.expect("dd").success());
        let watched = cgroup::watch(self.cgroups.as_ref(), limit.filter(|_| self.cgroups.is_some()), command).expect("a cgroup");
        assert!(watched.success, "{command:?}");
        watched
    }

    fn python(&self, verb: &str, source: &Path, limit: Option<u64>) -> (f64, u64) {
        let watched = self.run(source, limit, &[&self.python, &self.script, Path::new(verb), source, &self.out()]);
        (watched.stdout.trim().parse().expect("seconds"), watched.peak_bytes.unwrap_or(0) >> 20)
    }

    fn ours(&self, source: &Path) -> (f64, u64) {
        let memory = format!("{}MiB", self.limit * 2 / 3);
        let arguments = ["convert", "", "-q", "--memory", &memory, "-o"].map(PathBuf::from);
        let [verb, _, quiet, flag, memory, out] = &arguments;
        let program = Path::new(env!("CARGO_BIN_EXE_mmconvert"));
        let watched = self.run(source, Some(self.limit << 20), &[program, verb, source, quiet, flag, memory, out, &self.out()]);
        (watched.seconds, watched.peak_bytes.unwrap_or(0) >> 20)
    }

    /// Writes as many bytes as fast as the disk takes them.
    fn floor(&self, mib: u64) -> f64 {
        let _ = std::fs::remove_file(self.out());
        let started = Instant::now();
        let count = format!("count={mib}");
        let out = format!("of={}", self.out().display());
        let status = Command::new("dd").args(["if=/dev/zero", "bs=1M", "conv=fdatasync", "status=none", &out, &count]).status();
        assert!(status.expect("dd").success());
        started.elapsed().as_secs_f64()
    }

    fn beside(&self, file: &str, verb: &str, mib: u64, limit: Option<u64>) {
        let source = self.dir.join(file);
        let (mut theirs, mut own, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            theirs.push(self.python(verb, &source, limit));
            own.push(self.ours(&source));
            floors.push(self.floor(mib));
        }
        let middle = |figures: &[(f64, u64)]| {
            let times: Vec<Duration> = figures.iter().map(|(seconds, _)| Duration::from_secs_f64(*seconds)).collect();
            (support::median(&times).as_secs_f64(), figures.iter().map(|(_, peak)| *peak).max().unwrap_or(0))
        };
        let ((python, python_peak), (ours, peak)) = (middle(&theirs), middle(&own));
        let floor = support::median(&floors.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect::<Vec<_>>()).as_secs_f64();
        println!(
            "{file:<14}  {mib:>5} MiB  Python {python:>6.2} s ({python_peak:>4} MiB)  ours {ours:>6.2} s ({peak:>4} MiB)  {:>5.2} x  dd {floor:>6.2} s",
            python / ours
        );
    }

    fn view(&self) {
        let path = self.dir.join("array.npy");
        assert!(Command::new("sync").status().expect("sync").success());
        let started = Instant::now();
        let source = Source::open(&path).expect("an array");
        // SAFETY: nobody else writes to the inputs of this bench.
        let array = unsafe { mmconvert::view(&source, "array") }.expect("a view");
        let view = array.view::<f32>().expect("float32");
        let row = view.shape()[0] / 2;
        let sum: f32 = view.index_axis(mmconvert::ndarray::Axis(0), row).sum();
        let elapsed = started.elapsed();
        println!(
            "view in place   {} MiB opened, row {row} summed ({sum}) in {:.3} ms",
            array.as_bytes().len() >> 20,
            elapsed.as_secs_f64() * 1e3
        );
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let path = |name: &str, default: &str| std::env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from);
    let bench = Bench {
        python: path("PYTHON", "python3"),
        script: Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/files/peers.py"),
        dir: path("DIR", "target/files"),
        cgroups: Cgroups::find(),
        rounds: support::setting("ROUNDS", 3),
        limit: support::setting("LIMIT", 256),
    };
    let mib = support::setting("MIB", 4096);
    std::fs::create_dir_all(&bench.dir).expect("a directory");
    if File::open(bench.dir.join("array.npy")).is_err() {
        let made = Command::new(&bench.python).arg(&bench.script).arg("make").arg(&bench.dir).arg(mib.to_string()).status();
        assert!(made.expect("Python").success());
    }
    if bench.cgroups.is_none() {
        println!("no memory cgroup can be made here: nothing is limited, and no memory is measured");
    }
    bench.view();
    if bench.rounds == 0 {
        return;
    }
    bench.beside("gzip.h5", "h5", mib, Some(bench.limit << 20));
    bench.beside("contiguous.h5", "h5", mib, Some(bench.limit << 20));
    bench.beside("stored.npz", "npz", mib / 2, None);
    bench.beside("deflated.npz", "npz", mib / 2, None);
    let _ = std::fs::remove_file(bench.out());
}

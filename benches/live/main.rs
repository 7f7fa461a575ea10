//! What a running TensorFlow computes, beside a loop in Python, in one run.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench live                  # makes the inputs first (10 GiB)
//! PYTHON=venv/bin/python DIR=/big LIMIT=1536 ROUNDS=5 cargo bench --bench live
//! ```
//!
//! Inference: `MIB` (4096) of input through small models in batches of 64, each run in a memory cgroup of `LIMIT` MiB of its own,
//! into `open_memmap` by Python and into a file by the program. Python's seconds leave its imports out, ours are those of the whole
//! process. A variable of a SavedModel: by our own reader, and by TensorFlow. A tensor that is computed: the most memory of the
//! process, beside that of a session that computes it and does nothing with it. Medians of interleaved rounds.
#![allow(missing_docs, clippy::print_stdout, reason = "a table for people")]

#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::cgroup::{self, Cgroups, Watched};

struct Bench {
    python: PathBuf,
    script: PathBuf,
    dir: PathBuf,
    library: OsString,
    cgroups: Option<Cgroups>,
    rounds: u64,
}

/// Seconds, and the most memory that was charged.
type Figures = (f64, u64);

impl Bench {
    fn run(&self, limit: Option<u64>, command: &[&Path]) -> Option<Watched> {
        let _ = std::fs::remove_file(self.out());
        assert!(Command::new("sync").status().expect("sync").success());
        let limit = limit.filter(|_| self.cgroups.is_some());
        cgroup::watch(self.cgroups.as_ref(), limit, command).filter(|watched| watched.success)
    }

    fn out(&self) -> PathBuf {
        self.dir.join("output.npy")
    }

    fn python(&self, limit: Option<u64>, args: &[&Path]) -> Option<(Figures, f64)> {
        let watched = self.run(limit, &[&[self.python.as_path(), &self.script], args].concat())?;
        let mut numbers = watched.stdout.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        let (seconds, mib) = (numbers.next()?, numbers.next()?);
        Some(((seconds, watched.peak_bytes.unwrap_or(0) >> 20), mib))
    }

    fn ours(&self, limit: Option<u64>, args: &[&str]) -> Option<Figures> {
        let mut command = vec![PathBuf::from(env!("CARGO_BIN_EXE_mmconvert")), "convert".into()];
        command.extend(args.iter().map(PathBuf::from));
        command.extend(["-q".into(), "-o".into(), self.out(), "--tensorflow".into(), PathBuf::from(&self.library)]);
        let watched = self.run(limit, &command.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        Some((watched.seconds, watched.peak_bytes.unwrap_or(0) >> 20))
    }

    /// Both sides in turn; a line for each, and what they are to each other.
    fn beside(&self, name: &str, python: impl Fn() -> Option<Figures>, ours: impl Fn() -> Option<Figures>) {
        let mut found: [Vec<Figures>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..self.rounds {
            found[0].extend(python());
            found[1].extend(ours());
        }
        let [python, ours] = found.map(|figures| {
            let seconds: Vec<Duration> = figures.iter().map(|(seconds, _)| Duration::from_secs_f64(*seconds)).collect();
            let peak = figures.iter().map(|(_, peak)| *peak).max();
            (!seconds.is_empty()).then(|| (support::median(&seconds).as_secs_f64(), peak.unwrap_or(0)))
        });
        let text =
            |figures: Option<Figures>| figures.map_or_else(|| "killed".to_owned(), |(seconds, peak)| format!("{seconds:.2} s, {peak} MiB"));
        let ratio = python.zip(ours).map_or_else(String::new, |(python, ours)| format!("{:.2}", python.0 / ours.0));
        println!("{name:<28} {:>20} {:>20} {ratio:>8}", text(python), text(ours));
    }
}

fn main() {
    let python = std::env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let dir = PathBuf::from(std::env::var_os("DIR").unwrap_or_else(|| "target/live".into()));
    std::fs::create_dir_all(&dir).expect("a place to work");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/live/beside.py");
    let library = Command::new(&python)
        .args(["-c", "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0], end='')"])
        .output()
        .expect("Python with TensorFlow");
    let library = String::from_utf8(library.stdout).expect("a path").into();
    assert!(
        Command::new(&python).arg(&script).arg("make").arg(&dir).status().expect("Python with TensorFlow").success(),
        "inputs are made"
    );
    let limit = Some(support::setting("LIMIT", 1536) << 20);
    let bench = Bench { python, script, dir, library, cgroups: Cgroups::find(), rounds: support::setting("ROUNDS", 5) };
    let text = |name: &str| bench.dir.join(name).to_string_lossy().into_owned();
    println!("{:<28} {:>20} {:>20} {:>8}", "", "Python", "mmconvert", "ratio");
    for (model, output) in [("conv", "logits"), ("dense", "logits"), ("dense", "hidden")] {
        let (path, array) = (bench.dir.join(model), bench.dir.join(model.to_owned() + ".npy"));
        let feed = format!("input={}", array.display());
        bench.beside(
            &format!("inference, {model} {output}"),
            || Some(bench.python(limit, &[Path::new("infer"), &path, &array, Path::new(output), &bench.out()])?.0),
            || bench.ours(limit, &[&text(model), "--output", output, "--feed", &feed, "--batch", "64"]),
        );
    }
    bench.beside(
        "a variable",
        || Some(bench.python(None, &[Path::new("variable"), &bench.dir.join("table"), &bench.out()])?.0),
        || bench.ours(None, &[&text("table"), "table"]),
    );
    bench.beside(
        "the same, through TensorFlow",
        || Some(bench.python(None, &[Path::new("variable"), &bench.dir.join("table"), &bench.out()])?.0),
        || bench.ours(None, &[&text("table"), "--output", "table"]),
    );
    for tensor in ["uniform:0", "broadcast:0"] {
        bench.beside(
            &format!("{tensor}, computed only"),
            || Some(bench.python(None, &[Path::new("compute"), &bench.dir.join("computed.pb"), Path::new(tensor)])?.0),
            || bench.ours(None, &[&text("computed.pb"), tensor, "--memory", "256MiB"]),
        );
    }
    let _ = std::fs::remove_file(bench.out());
}

//! Records beside what a user would write with tf.data, and beside a copy of the file, in one run.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench records                   # makes the inputs first (11 GB)
//! PYTHON=venv/bin/python DIR=/big KINDS=jpeg,png cargo bench --bench records    # some of them
//! ```
//!
//! Every round is one of ours, one of tf.data (`tf_data.py`, started before and warm), and one of `cp` (`dd` for what
//! `Dataset.save` wrote) with a sync; all with warm files and until the output is on the disk. `ROUNDS` (5) is how many there are;
//! medians, and what they are to each other, are shown. `JPEG` chooses our decoder, where the build has several.
#![allow(missing_docs, clippy::print_stdout, reason = "a table for people")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mmconvert::{Converter, Options, RecordOptions, Source};

/// An input: what it is called, its file, its feature, how `tf_data.py` reads it, and the environment that this needs.
struct Kind {
    name: &'static str,
    file: &'static str,
    feature: &'static str,
    how: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "floats64",
        file: "floats64.tfrecord",
        feature: "x",
        how: "examples",
        environment: &[("RECORDS", "1000000"), ("VALUES", "64")],
    },
    Kind {
        name: "floats10k",
        file: "floats10k.tfrecord",
        feature: "x",
        how: "examples",
        environment: &[("RECORDS", "50000"), ("VALUES", "10000")],
    },
    Kind {
        name: "gzip",
        file: "gzip.tfrecord.gz",
        feature: "x",
        how: "examples",
        environment: &[("RECORDS", "300000"), ("VALUES", "64"), ("COMPRESSION", "GZIP")],
    },
    Kind { name: "jpeg", file: "jpeg.tfrecord", feature: "image/encoded", how: "images", environment: &[("RECORDS", "3000")] },
    Kind { name: "png", file: "png.tfrecord", feature: "image/encoded", how: "images", environment: &[("RECORDS", "1500")] },
    Kind { name: "save4g", file: "save4g", feature: "0", how: "save", environment: &[("RECORDS", "4096")] },
];

/// tf.data in a process of its own, which does a round when it is told to.
struct TfData {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl TfData {
    fn start(kind: &Kind, file: &Path, out: &Path, rounds: usize) -> Self {
        let mut command = python();
        command.arg(kind.how).arg(file).arg(out).arg(rounds.to_string()).envs(kind.environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python with TensorFlow");
        let (to, from) = (child.stdin.take().expect("a pipe"), BufReader::new(child.stdout.take().expect("a pipe")));
        Self { child, to, from }
    }

    fn round(&mut self) -> Duration {
        writeln!(self.to, "go").expect("tf.data is there");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("tf.data answers");
        Duration::from_secs_f64(line.trim().parse().expect("tf.data answers with seconds"))
    }
}

impl Drop for TfData {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Command {
    let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/records/tf_data.py")).env("TF_CPP_MIN_LOG_LEVEL", "3");
    command
}

/// The files that hold an input.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    fs::read_dir(path).into_iter().flatten().flatten().flat_map(|entry| files(&entry.path())).collect()
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("sync").status().expect("sync").success());
}

fn ours(file: &Path, feature: &str, out: &Path) -> Duration {
    remove(out);
    let jpeg = std::env::var("JPEG").ok().map_or_else(Default::default, |name| name.parse().expect("a decoder of this build"));
    let options = Options::new().records(RecordOptions::new().jpeg(jpeg));
    let started = Instant::now();
    let source = Source::open_with(file, None, &options).expect("the source");
    let tensor = source.tensor(feature).expect("the feature");
    Converter::new(&tensor).expect("an array").options(options).write(out).expect("a conversion");
    started.elapsed()
}

/// Copies the files with `cp`, or `dd` for those of tf.data, until they are on the disk.
fn floor(file: &Path, out: &Path) -> Duration {
    let sources = files(file);
    remove(out);
    let started = Instant::now();
    for source in &sources {
        let mut command = if file.is_dir() { Command::new("dd") } else { Command::new("cp") };
        if file.is_dir() {
            let (from, to) = (format!("if={}", source.display()), format!("of={}", out.display()));
            command.args([from.as_str(), to.as_str(), "bs=4M", "conv=fsync", "status=none"]);
        } else {
            command.arg(source).arg(out);
        }
        assert!(command.status().expect("a copy").success());
    }
    let copy = fs::File::open(out).expect("the copy");
    copy.sync_all().expect("a sync");
    started.elapsed()
}

fn main() {
    let dir = PathBuf::from(std::env::var_os("DIR").unwrap_or_else(|| "target/records".into()));
    fs::create_dir_all(&dir).expect("a place to work");
    let rounds = usize::try_from(support::setting("ROUNDS", 5)).unwrap_or(5);
    let wanted = std::env::var("KINDS").unwrap_or_else(|_| KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(","));
    println!("{:<10} {:>10} {:>10} {:>10}  {:>14} {:>14}", "", "mmconvert", "tf.data", "copy", "tf.data / ours", "ours / copy");
    for kind in KINDS.iter().filter(|kind| wanted.split(',').any(|name| name == kind.name)) {
        assert!(python().args(["make", kind.name]).arg(&dir).status().expect("Python with TensorFlow").success(), "the input is made");
        let (file, out) = (dir.join(kind.file), dir.join("output.npy"));
        for source in files(&file) {
            // Warm.
            std::io::copy(&mut fs::File::open(source).expect("the input"), &mut std::io::sink()).expect("the input");
        }
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut tf_data = TfData::start(kind, &file, &out, rounds + 1);
        // The first one waits until it is there.
        tf_data.round();
        for _ in 0..rounds {
            times[0].push(ours(&file, kind.feature, &out));
            remove(&out);
            times[1].push(tf_data.round());
            times[2].push(floor(&file, &out));
        }
        remove(&out);
        let [ours, tf_data, copy] = times.map(|times| support::median(&times).as_secs_f64());
        println!("{:<10} {ours:>8.2} s {tf_data:>8.2} s {copy:>8.2} s  {:>14.2} {:>14.2}", kind.name, tf_data / ours, ours / copy);
    }
}

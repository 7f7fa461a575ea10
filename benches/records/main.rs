//! Records, beside what a user would write with tf.data. The floor is a copy of the input.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench records                   # makes the inputs first (11 GB)
//! PYTHON=venv/bin/python DIR=/big KINDS=jpeg,png cargo bench --bench records    # some of them
//! PYTHON=venv/bin/python SCALE=0.01 cargo bench --bench records                 # a hundredth of the records
//! ```
//!
//! All files are warm, and every way ends when its output is on the disk. tf.data is up and warm before. The rates are of bytes
//! written. `JPEG` chooses our decoder, where the build has several.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "numbers of records are small"
)]

#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use mmconvert::records::Jpeg;
use mmconvert::{Converter, Options, RecordOptions, Source};
use support::python::{self, Peer};
use support::rounds::{Rounds, Run};
use support::{disk, settings, table};

/// An input: its name, file and feature, how `peers.py` reads it, the number of records, and the environment that this needs.
struct Kind {
    name: &'static str,
    file: &'static str,
    feature: &'static str,
    how: &'static str,
    records: u64,
    environment: &'static [(&'static str, &'static str)],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "floats64",
        file: "floats64.tfrecord",
        feature: "x",
        how: "examples",
        records: 1_000_000,
        environment: &[("VALUES", "64")],
    },
    Kind {
        name: "floats10k",
        file: "floats10k.tfrecord",
        feature: "x",
        how: "examples",
        records: 50_000,
        environment: &[("VALUES", "10000")],
    },
    Kind {
        name: "gzip",
        file: "gzip.tfrecord.gz",
        feature: "x",
        how: "examples",
        records: 300_000,
        environment: &[("VALUES", "64"), ("COMPRESSION", "GZIP")],
    },
    Kind { name: "jpeg", file: "jpeg.tfrecord", feature: "image/encoded", how: "images", records: 3000, environment: &[] },
    Kind { name: "png", file: "png.tfrecord", feature: "image/encoded", how: "images", records: 1500, environment: &[] },
    Kind { name: "save4g", file: "save4g", feature: "0", how: "save", records: 4096, environment: &[] },
];

/// The files that hold an input.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    fs::read_dir(path).into_iter().flatten().flatten().flat_map(|entry| files(&entry.path())).collect()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

fn ours(file: &Path, feature: &str, out: &Path) -> Run {
    disk::remove(out);
    let options = Options::new().records(RecordOptions::new().jpeg(settings::parsed("JPEG", Jpeg::default())));
    Run::time(|| {
        let source = Source::open_with(file, None, &options).expect("the source");
        let tensor = source.tensor(feature).expect("the feature");
        Converter::new(&tensor).expect("an array").options(options).write(out).expect("a conversion");
    })
}

/// Copies each of the files, one after the other, to the same place.
fn copy(sources: &[PathBuf], out: &Path) -> Run {
    disk::remove(out);
    Run::time(|| {
        for source in sources {
            assert!(disk::copy(source, out).status().expect("cp").success());
        }
    })
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let (rounds, scale) = (settings::rounds(5), settings::parsed("SCALE", 1.0f64));
    let inputs = disk::input_dir(&format!("records-{scale}"));
    let dir = disk::work_dir();
    let out = dir.path().join("output.npy");
    let wanted = settings::chosen("KINDS", &KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
    for kind in KINDS.iter().filter(|kind| wanted.contains(&kind.name)) {
        let records = ((kind.records as f64 * scale).ceil() as u64).max(1);
        let peers = || {
            let mut command = python::peers("records");
            command.env("RECORDS", records.to_string()).envs(kind.environment.iter().copied());
            command
        };
        let made = peers().args(["make", kind.name]).arg(&inputs).status().expect("Python with TensorFlow");
        assert!(made.success(), "the input is made");
        let file = inputs.join(kind.file);
        let sources = files(&file);
        let mut copied = 0;
        for source in &sources {
            disk::warm(source);
            copied += length(source);
        }
        let mut command = peers();
        command.arg(kind.how).args([&file, &out]);
        let tf_data = RefCell::new(Peer::start(command).expect("Python with TensorFlow"));
        ours(&file, kind.feature, &out);
        let written = length(&out);

        let mut ways = Rounds::new(rounds);
        ways.add("cp + sync", copied, || copy(&sources, &out));
        ways.add("mmconvert", written, || ours(&file, kind.feature, &out));
        ways.add("tf.data", written, || {
            disk::remove(&out);
            tf_data.borrow_mut().ask("go").expect("tf.data answers")
        });
        ways.warm_up();
        let title = format!("{}: {records} records, {} MB to {} MB", kind.name, copied / 1_000_000, written / 1_000_000);
        table::print(&title, &["cp + sync", "mmconvert"], &ways.run());
    }
}

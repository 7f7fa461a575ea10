//! What a running TensorFlow computes, beside a loop in Python.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install tensorflow-cpu==2.21.0
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench live                  # makes the inputs first (10 GiB)
//! PYTHON=venv/bin/python DIR=/big LIMIT=1536 ROUNDS=5 cargo bench --bench live
//! ```
//!
//! Every run has a memory cgroup of its own. Python's seconds leave its imports out, ours are those of the whole process.
//!
//! - `conv`, `dense`, `hidden`: `MIB` (4096) of input through small models in batches of 64, under a limit of `LIMIT` (1536) MiB,
//!   into `open_memmap` by Python and into a file by the program. The floor reads the input.
//! - `variable`: a variable of a SavedModel of half that size, by our own reader and through TensorFlow. The floor copies its file.
//! - `uniform`, `broadcast`: a tensor that is computed. The floor is TensorFlow in Python, which computes it and stops there.
//!
//! `KINDS=conv,variable` runs only these.

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::cgroup::Cgroups;
use support::rounds::{Rounds, Run};
use support::{disk, python, settings, table};

struct Bench {
    inputs: PathBuf,
    out: PathBuf,
    /// The directory of TensorFlow.
    library: PathBuf,
    cgroups: Cgroups,
    rounds: u64,
    mib: u64,
    /// Bytes of the limit for inference.
    limit: u64,
}

impl Bench {
    fn run(&self, limit: Option<u64>, command: &Command) -> Run {
        disk::remove(&self.out);
        self.cgroups.run(limit, command)
    }

    fn python(&self, limit: Option<u64>, arguments: &[&Path]) -> Run {
        self.run(limit, python::peers("live").args(arguments)).with_printed_figures()
    }

    fn ours(&self, source: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(source).args(arguments).args(["-q", "-o"]).arg(&self.out);
        command
    }

    fn ours_through_tensorflow(&self, limit: Option<u64>, source: &Path, arguments: &[&str]) -> Run {
        self.run(limit, self.ours(source, arguments).arg("--tensorflow").arg(&self.library))
    }

    fn inference(&self, kind: &str, model: &str, output: &str) {
        let (path, array) = (self.inputs.join(model), self.inputs.join(format!("{model}.npy")));
        let (limit, bytes) = (Some(self.limit), self.mib << 20);
        let feed = format!("input={}", array.display());
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("dd reads the input", bytes, || self.run(limit, &disk::read(&array)));
        rounds.add("mmconvert", bytes, || {
            self.ours_through_tensorflow(limit, &path, &["--output", output, "--feed", &feed, "--batch", "64"])
        });
        rounds.add("Python", bytes, || self.python(limit, &[Path::new("infer"), &path, &array, Path::new(output), &self.out]));
        let title = format!("{kind}: inference over {} MiB, output `{output}`, limit {} MiB", self.mib, self.limit >> 20);
        table::print(&title, &["dd reads the input", "mmconvert"], &rounds.run());
    }

    fn variable(&self) {
        let model = self.inputs.join("table");
        let shard = model.join("variables/variables.data-00000-of-00001");
        let bytes = (self.mib << 20) / 2;
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("cp + sync", bytes, || self.run(None, &disk::copy(&shard, &self.out)));
        rounds.add("mmconvert", bytes, || self.run(None, &self.ours(&model, &["table"])));
        rounds.add("mmconvert, through TensorFlow", bytes, || self.ours_through_tensorflow(None, &model, &["--output", "table"]));
        rounds.add("Python", bytes, || self.python(None, &[Path::new("variable"), &model, &self.out]));
        table::print(&format!("variable: {} MiB", self.mib / 2), &["cp + sync", "mmconvert"], &rounds.run());
    }

    fn computed(&self, kind: &str) {
        let (graph, tensor) = (self.inputs.join("computed.pb"), format!("{kind}:0"));
        let bytes = self.mib << 20;
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("Python, computes only", bytes, || self.python(None, &[Path::new("compute"), &graph, Path::new(&tensor)]));
        rounds.add("mmconvert", bytes, || self.ours_through_tensorflow(None, &graph, &[&tensor, "--memory", "256MiB"]));
        table::print(&format!("{kind}: {} MiB computed", self.mib), &["Python, computes only"], &rounds.run());
    }
}

/// The directory of TensorFlow, which holds its library.
fn library() -> PathBuf {
    let place = "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0], end='')";
    let output = Command::new(python::python()).args(["-c", place]).output().expect("Python with TensorFlow");
    assert!(output.status.success(), "Python with TensorFlow");
    String::from_utf8(output.stdout).expect("a path").into()
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let kinds = settings::chosen("KINDS", &["conv", "dense", "hidden", "variable", "uniform", "broadcast"]);
    let mib = settings::number("MIB", 4096);
    let inputs = disk::input_dir(&format!("live-{mib}MiB"));
    let library = library();
    let made = python::peers("live").arg("make").arg(&inputs).arg(mib.to_string()).output().expect("Python with TensorFlow");
    assert!(made.status.success(), "inputs are made: {}", String::from_utf8_lossy(&made.stderr));
    let dir = disk::work_dir();
    let out = dir.path().join("output.npy");
    let (rounds, limit) = (settings::rounds(5), settings::number("LIMIT", 1536) << 20);
    let bench = Bench { inputs, out, library, cgroups: Cgroups::find(), rounds, mib, limit };
    for kind in kinds {
        match kind {
            "conv" | "dense" => bench.inference(kind, kind, "logits"),
            "hidden" => bench.inference(kind, "dense", "hidden"),
            "variable" => bench.variable(),
            _ => bench.computed(kind),
        }
    }
}

//! HDF5 and `.npz` beside what Python does with them, and a view in place. The floor writes as many zeros.
//!
//! ```sh
//! python3 -m venv venv && venv/bin/pip install h5py numpy
//! PYTHON=venv/bin/python DIR=/big cargo bench --bench files                  # makes the inputs first (15 GiB)
//! PYTHON=venv/bin/python DIR=/big MIB=1024 LIMIT=256 ROUNDS=5 cargo bench --bench files
//! ```
//!
//! HDF5 datasets of `MIB` (4096), gzipped in chunks and contiguous: h5py reads slices into `open_memmap`. h5py and ours run in a
//! memory cgroup of `LIMIT` (256) MiB. Members of an `.npz` of half that size, stored and deflated: `np.load` and `np.save`, which
//! need all of it in memory and so get no limit; ours gets it. Sources are cold, outputs synced. Python's seconds leave its imports
//! out, ours are those of the whole process. In the view, an array is opened in place and one row is summed: the floor reads
//! that row. `KINDS=gzip,contiguous,stored,deflated,view` are all that there are.
#![allow(unsafe_code, reason = "a view of a file that nobody else writes")]

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use mmconvert::Source;
use mmconvert::ndarray::Axis;
use support::cgroup::{Cgroups, memory_option};
use support::rounds::{Rounds, Run};
use support::{disk, python, settings, table};

/// Bytes of a row of every input.
const ROW: usize = 4096;

struct Bench {
    inputs: PathBuf,
    out: PathBuf,
    cgroups: Cgroups,
    rounds: u64,
    /// Bytes of the limit.
    limit: u64,
}

impl Bench {
    /// Runs a command with a cold source and no output.
    fn run(&self, source: &Path, limit: Option<u64>, command: &Command) -> Run {
        disk::remove(&self.out);
        disk::evict(source);
        self.cgroups.run(limit, command)
    }

    fn python(&self, verb: &str, source: &Path, limit: Option<u64>) -> Run {
        let mut command = python::peers("files");
        command.arg(verb).args([source, &self.out]);
        self.run(source, limit, &command).with_printed_figures()
    }

    fn ours(&self, source: &Path) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(source).args(["-q", "--memory", &memory_option(self.limit), "-o"]).arg(&self.out);
        self.run(source, Some(self.limit), &command)
    }

    fn compare(&self, file: &str, verb: &str, peer: &str, mib: u64, limit: Option<u64>) {
        let source = self.inputs.join(file);
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("dd writes zeros", mib << 20, || self.run(&source, None, &disk::write_zeros(&self.out, mib)));
        rounds.add("mmconvert", mib << 20, || self.ours(&source));
        rounds.add(peer, mib << 20, || self.python(verb, &source, limit));
        let title = format!("{file}: {mib} MiB, limit {} MiB", self.limit >> 20);
        table::print(&title, &["dd writes zeros", "mmconvert"], &rounds.run());
    }

    /// Opens an array in place and sums one row.
    fn view(&self, mib: u64, cold: bool) {
        let path = &self.inputs.join("array.npy");
        let row = (mib << 20) / ROW as u64 / 2;
        let prepare = move || if cold { disk::evict(path) } else { disk::warm(path) };
        let mut rounds = Rounds::new(self.rounds);
        rounds.add("read of the row", None, || {
            prepare();
            Run::time(|| {
                let mut bytes = [0; ROW];
                File::open(path).and_then(|file| file.read_exact_at(&mut bytes, row * ROW as u64)).expect("a row");
            })
        });
        rounds.add("mmconvert", None, || {
            prepare();
            // The time leaves closing the file out, as NumPy's does.
            let started = Instant::now();
            let source = Source::open(path).expect("an array");
            // SAFETY: nobody else writes to the inputs of this bench.
            let array = unsafe { mmconvert::view(&source, "array") }.expect("a view");
            let view = array.view::<f32>().expect("float32");
            let sum: f32 = view.index_axis(Axis(0), usize::try_from(row).expect("a row")).sum();
            std::hint::black_box(sum);
            Run::of(started.elapsed().as_secs_f64())
        });
        rounds.add("np.load, mmap_mode=\"r\"", None, || {
            prepare();
            let mut command = python::peers("files");
            command.arg("view").arg(path);
            self.cgroups.run(None, &command).with_printed_figures()
        });
        let title = format!("A row of {mib} MiB in place, {} page cache", if cold { "cold" } else { "warm" });
        let mut rows = rounds.run();
        // The other ways run in this process, where no memory is measured.
        rows.iter_mut().flat_map(|row| &mut row.runs).for_each(|run| run.peak_bytes = None);
        table::print(&title, &["read of the row", "mmconvert"], &rows);
    }
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let kinds = settings::chosen("KINDS", &["gzip", "contiguous", "stored", "deflated", "view"]);
    let mib = settings::number("MIB", 4096);
    let inputs = disk::input_dir(&format!("files-{mib}MiB"));
    if !inputs.join("array.npy").exists() {
        let made = python::peers("files").arg("make").arg(&inputs).arg(mib.to_string()).status();
        assert!(made.expect("Python").success(), "inputs are made");
    }
    let dir = disk::work_dir();
    let out = dir.path().join("output.npy");
    let bench = Bench { inputs, out, cgroups: Cgroups::find(), rounds: settings::rounds(3), limit: settings::number("LIMIT", 256) << 20 };
    for kind in kinds {
        match kind {
            "gzip" | "contiguous" => bench.compare(&format!("{kind}.h5"), "h5", "h5py", mib, Some(bench.limit)),
            "stored" | "deflated" => bench.compare(&format!("{kind}.npz"), "npz", "np.load + np.save", mib / 2, None),
            _ => [true, false].into_iter().for_each(|cold| bench.view(mib, cold)),
        }
    }
}

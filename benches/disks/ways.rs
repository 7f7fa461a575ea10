//! What is compared.

#[path = "../support/mod.rs"]
mod support;

use std::process::Command;

use support::copies::{self, Check, Conditions, Task, Way};
use support::{COLUMNS, disk, fast_disk, floor, python, settings};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mmconvert");

/// What the ways are called in the list `WAYS`: ours, and those of Python with the module that they need.
const PLAIN: [&str; 3] = ["floor", "dd", "cp"];
const OURS: [&str; 5] = ["mmconvert", "direct", "uncached", "map", "portable"];
const PEERS: [(&str, &str, &str); 6] = [
    ("np-save", "numpy", "np.save of an np.memmap"),
    ("h5py", "h5py", "h5py, contiguous"),
    ("safetensors", "safetensors", "safetensors save_file"),
    ("dask", "dask", "dask to_npy_stack"),
    ("zarr", "zarr", "zarr, chunks of 16 MiB"),
    ("tensorstore", "tensorstore", "tensorstore, zarr chunks of 16 MiB"),
];

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == floor::ARGUMENT) {
        return floor::run_here(&arguments[1..]);
    }
    if !support::is_measuring() {
        return;
    }
    let keys = chosen();
    let conditions = Conditions::find();
    let mib = settings::number("MIB", 2048);
    fast_disk::on_each_disk(mib, |dir, name| {
        let task = Task::write(dir, name, mib);
        let ways: Vec<Way> = keys.iter().map(|key| way(key, &task, conditions.limit)).collect();
        conditions.measure(&task, &ways);
    });
}

/// The ways that were asked for and can be run.
fn chosen() -> Vec<&'static str> {
    let all: Vec<&str> = PLAIN.into_iter().chain(OURS).chain(PEERS.map(|(key, ..)| key)).collect();
    let mut keys = settings::chosen("WAYS", &all);
    if settings::text("WAYS").is_none() && !settings::is_on("PEERS") {
        keys.retain(|key| !PEERS.iter().any(|(peer, ..)| peer == key));
    }
    keys.retain(|key| {
        let is_missing = OURS[1..].contains(key) && !is_method(key);
        if is_missing {
            println!("This mmconvert knows no --method {key}: it is left out.\n");
        }
        !is_missing
    });
    for (peer, module, _) in PEERS {
        if keys.contains(&peer) && !(python::has("numpy") && python::has(module)) {
            println!("The Python at $PYTHON has no {module}: {peer} is left out.\n");
            keys.retain(|&key| key != peer);
        }
    }
    keys
}

/// Whether the program takes this `--method`: a wrong argument ends it with exit code 2, before it looks for the source.
fn is_method(name: &str) -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(["convert", "no-such-source", "-o", "no-such-output", "--method", name]);
    command.output().expect("the program").status.code() != Some(2)
}

fn way<'a>(key: &str, task: &'a Task, limit: Option<u64>) -> Way<'a> {
    let (shard, out) = (&task.checkpoint.shard, &task.out);
    let [floor, cp] = copies::plain(task);
    match key {
        "floor" => floor,
        "cp" => cp,
        "dd" => Way::new("dd, direct", move |_| disk::copy_direct(shard, out)),
        "mmconvert" => Way::new("mmconvert", move |_| task.mmconvert(PROGRAM, &[], limit)),
        _ => {
            if let Some((peer, _, name)) = PEERS.iter().find(|(peer, ..)| *peer == key) {
                return Way {
                    name: (*name).to_owned(),
                    command: Box::new(move |_| script("write", peer, task)),
                    check: Check::Command(script("check", peer, task)),
                    prints_figures: true,
                };
            }
            let method = key.to_owned();
            Way::new(format!("--method {key}"), move |_| task.mmconvert(PROGRAM, &["--method", &method], limit))
        }
    }
}

fn script(verb: &str, peer: &str, task: &Task) -> Command {
    let mut command = python::peers("disks");
    command.args([verb, peer]).args([&task.checkpoint.shard, &task.out]);
    command.args([task.checkpoint.rows.to_string(), COLUMNS.to_string()]);
    command
}

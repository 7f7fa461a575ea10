//! Commands under an older kernel, by hand or measured.

#[path = "../support/mod.rs"]
mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::copies::{self, Conditions, Task, Way};
use support::{fast_disk, floor, settings};

use crate::kernels;

const ARGUMENT: &str = "--kernel";
const PROGRAM: &str = env!("CARGO_BIN_EXE_mmconvert");

pub(crate) fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(floor::ARGUMENT) => return floor::run_here(&arguments[1..]),
        Some(ARGUMENT) => return launch(&arguments[1..]),
        _ if !support::is_measuring() => return,
        _ => {}
    }
    if let Some(run) = settings::text("RUN") {
        return by_hand(&settings::text("KERNEL").expect("RUN needs KERNEL"), &run);
    }
    let names = settings::chosen("KERNELS", &kernels::names());
    let method = settings::text("METHOD");
    let options: Vec<&str> = method.iter().flat_map(|method| ["--method", method]).collect();
    let conditions = Conditions::find();
    let mib = settings::number("MIB", 2048);
    fast_disk::on_each_disk(mib, |dir, name| {
        let task = Task::write(dir, name, mib);
        let ours = names.iter().map(|&kernel| {
            let name = if kernel == kernels::THIS { "mmconvert, this kernel".into() } else { format!("mmconvert, Linux {kernel}") };
            let (task, options, limit) = (&task, &options, conditions.limit);
            Way::new(name, move |_| under(kernel, &task.mmconvert(PROGRAM, options, limit)))
        });
        let ways: Vec<Way> = copies::plain(&task).into_iter().chain(ours).collect();
        conditions.measure(&task, &ways);
    });
}

/// A command with what a kernel of this name has.
fn under(kernel: &str, command: &Command) -> Command {
    let mut launched = Command::new(std::env::current_exe().expect("the path of this bench"));
    launched.args([ARGUMENT, kernel]).arg(command.get_program()).args(command.get_args());
    launched
}

/// Becomes a command: `--kernel NAME COMMAND…`.
fn launch(arguments: &[String]) {
    let [kernel, program, arguments @ ..] = arguments else { panic!("{ARGUMENT} NAME COMMAND…") };
    if let Err(message) = kernels::become_kernel(kernel) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("error: cannot run {program}: {error}");
    std::process::exit(1);
}

/// Runs a line of shell and ends with its exit code. Cargo starts a bench in the directory of its package; the line runs where the user is.
fn by_hand(kernel: &str, line: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let mut command = under(kernel, &command);
    let programs = Path::new(PROGRAM).parent().into_iter().map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", std::env::join_paths(programs.chain(std::env::split_paths(&path))).expect("a PATH"));
    if let Some(here) = std::env::var_os("PWD").filter(|here| Path::new(here).is_dir()) {
        command.current_dir(here);
    }
    let status = command.status().expect("this bench");
    std::process::exit(status.code().unwrap_or(1));
}

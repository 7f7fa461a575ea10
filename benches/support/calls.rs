//! Counts the system calls of a command: by `perf` where it may, else by `strace`. Both slow the command down, so such a run is not
//! timed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const EVENT: &str = "raw_syscalls:sys_enter";

#[derive(Debug, Clone, Copy)]
pub enum Counter {
    Perf,
    Strace,
}

impl Counter {
    /// The first that works here. Tried, not guessed.
    pub fn find() -> Option<Self> {
        let works = |counter: &Self| {
            let file = tempfile::NamedTempFile::new().expect("a place for counts");
            let mut command = counter.around(&Command::new("true"), file.path());
            let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.is_ok_and(|status| status.success()) && counter.count(file.path()).is_some()
        };
        let found = [Self::Perf, Self::Strace].into_iter().find(works);
        if found.is_none() {
            println!("Neither perf nor strace can count system calls here: the column is left out.\n");
        }
        found
    }

    /// The command with its calls counted into a file.
    pub fn around(self, command: &Command, file: &Path) -> Command {
        let mut counted = match self {
            Self::Perf => {
                let mut perf = Command::new("perf");
                perf.args(["stat", "-e", EVENT, "-x", ",", "-o"]).arg(file).arg("--");
                perf
            }
            Self::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-c", "-o"]).arg(file);
                strace
            }
        };
        counted.arg(command.get_program()).args(command.get_args());
        counted.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        counted
    }

    /// What was counted into a file.
    pub fn count(self, file: &Path) -> Option<u64> {
        let text = fs::read_to_string(file).ok()?;
        match self {
            // 29,,raw_syscalls:sys_enter,806576,100.00,,
            Self::Perf => text.lines().find(|line| line.contains(EVENT))?.split(',').next()?.parse().ok(),
            // 100.00    0.000000           0        29         1 total
            Self::Strace => text.lines().find(|line| line.ends_with(" total"))?.split_whitespace().nth(3)?.parse().ok(),
        }
    }
}

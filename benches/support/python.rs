//! What a user would do in Python. Every bench that compares with Python has it in a file `peers.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::rounds::Run;
use super::{project, settings};

/// `PYTHON`; by default the one that `tests/run` installs, else `python3`.
pub fn python() -> PathBuf {
    let installed = project().join("target/oracle/bin/python");
    let default = if installed.exists() { installed } else { "python3".into() };
    settings::text("PYTHON").map_or(default, PathBuf::from)
}

/// Python with `benches/BENCH/peers.py`.
pub fn peers(bench: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(project().join("benches").join(bench).join("peers.py"));
    command.env("TF_CPP_MIN_LOG_LEVEL", "3");
    command
}

/// Whether a module can be imported.
pub fn has(module: &str) -> bool {
    let found = format!("import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)");
    Command::new(python()).args(["-c", &found]).status().is_ok_and(|status| status.success())
}

/// Python that stays up, with everything imported, and does a round for every line it is sent. It prints `ready` first, and the
/// seconds after each round.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// None if Python ends before it is ready.
    pub fn start(mut command: Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut peer = Self { child, to, from };
        (peer.answer()? == "ready").then_some(peer)
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    /// One round; none where Python cannot do it.
    pub fn ask(&mut self, line: &str) -> Option<Run> {
        writeln!(self.to, "{line}").ok()?;
        Some(Run::of(self.answer()?.parse().ok()?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

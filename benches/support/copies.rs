//! Ways to get one tensor from a file into another, compared: time, rate, CPU time, system calls, context switches and memory.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::calls::Counter;
use super::cgroup::{self, Cgroups};
use super::rounds::{Rounds, Row, Run};
use super::{Checkpoint, disk, settings, table};

/// The name of the row that the others are divided by.
pub const FLOOR: &str = "floor";

/// The tensor and where it goes.
pub struct Task {
    pub checkpoint: Checkpoint,
    pub out: PathBuf,
    pub mib: u64,
    disk: String,
}

impl Task {
    /// Writes a tensor of so many MiB into a directory, on a disk of this name.
    pub fn write(dir: &Path, disk: &str, mib: u64) -> Self {
        let source = dir.join("source");
        fs::create_dir_all(&source).expect("a place for the source");
        Self { checkpoint: Checkpoint::write(&source, mib << 20), out: dir.join("out"), mib, disk: disk.to_owned() }
    }

    /// The program that was built, with options, under a limit.
    pub fn mmconvert(&self, program: &str, options: &[&str], limit: Option<u64>) -> Command {
        let mut command = Command::new(program);
        command.arg("convert").arg(&self.checkpoint.prefix).args(["--json", "-o"]).arg(&self.out).args(options);
        if let Some(bytes) = limit {
            command.args(["--memory", &cgroup::memory_option(bytes)]);
        }
        command
    }
}

/// How an output is compared with the source.
#[derive(Debug)]
pub enum Check {
    /// It ends with the bytes of the source.
    Tail,
    /// By a command that fails if it differs.
    Command(Command),
}

/// One way: a row of the table.
pub struct Way<'a> {
    pub name: String,
    /// The command for a source that is warm, or not.
    pub command: Box<dyn Fn(bool) -> Command + 'a>,
    pub check: Check,
    /// Whether it prints its own figures, which leave imports out. Its system calls are not counted, because imports would be in them.
    pub prints_figures: bool,
}

impl<'a> Way<'a> {
    pub fn new(name: impl Into<String>, command: impl Fn(bool) -> Command + 'a) -> Self {
        Self { name: name.into(), command: Box::new(command), check: Check::Tail, prints_figures: false }
    }
}

/// How everything is measured, from the settings `ROUNDS`, `LIMIT` and `CACHE`.
pub struct Conditions {
    cgroups: Cgroups,
    counter: Option<Counter>,
    pub limit: Option<u64>,
    rounds: u64,
    caches: Vec<&'static str>,
}

impl Conditions {
    pub fn find() -> Self {
        let limit = settings::text("LIMIT").map(|_| settings::number("LIMIT", 0) << 20);
        Self {
            cgroups: Cgroups::find(),
            counter: Counter::find(),
            limit,
            rounds: settings::rounds(5),
            caches: settings::chosen("CACHE", &["warm", "cold"]),
        }
    }

    /// Runs all ways interleaved, compares every output with the source, and prints a table for a warm and for a cold source.
    pub fn measure(&self, task: &Task, ways: &[Way]) {
        let mut rounds = Rounds::alternating(self.rounds);
        for &cache in &self.caches {
            for way in ways {
                let name = format!("{}, {cache}", way.name);
                rounds.add(name, task.mib << 20, move || {
                    let run = self.run(task, way, cache == "warm", None);
                    if way.prints_figures { run.with_printed_figures() } else { run }
                });
            }
        }
        let mut rows = rounds.run();
        let mut different = Vec::new();
        for (i, row) in rows.iter_mut().enumerate() {
            let (cache, way) = (self.caches[i / ways.len()], &ways[i % ways.len()]);
            if row.median().is_some() && !self.check(task, way, cache == "warm", row) {
                different.push(row.name.clone());
            }
            row.name.clone_from(&way.name);
        }
        disk::remove(&task.out);
        let limit = self.limit.map_or_else(String::new, |bytes| format!(", limit of {} MiB", bytes >> 20));
        for (cache, rows) in self.caches.iter().zip(rows.chunks(ways.len().max(1))) {
            table::print(&format!("{} MiB on {}, {cache} source{limit}", task.mib, task.disk), &[FLOOR], rows);
        }
        assert!(different.is_empty(), "these outputs differ from the source, or were not made a second time: {}", different.join("; "));
        println!("One more output of each row that did not fail was compared with the source: no byte differs.\n");
    }

    /// One run. With a file, system calls are counted into it.
    fn run(&self, task: &Task, way: &Way, is_warm: bool, counts: Option<(Counter, &Path)>) -> Run {
        disk::remove(&task.out);
        let shard = &task.checkpoint.shard;
        if is_warm {
            disk::warm(shard);
        } else {
            disk::evict(shard);
        }
        let mut command = (way.command)(is_warm);
        if let Some((counter, file)) = counts {
            command = counter.around(&command, file);
        }
        self.cgroups.run(self.limit, &command)
    }

    /// Runs a way once more, counts its system calls, and says whether its output has the bytes of the source.
    fn check(&self, task: &Task, way: &Way, is_warm: bool, row: &mut Row) -> bool {
        let file = tempfile::NamedTempFile::new().expect("a place for counts");
        let counts = self.counter.filter(|_| !way.prints_figures).map(|counter| (counter, file.path()));
        let run = self.run(task, way, is_warm, counts);
        row.calls = counts.and_then(|(counter, file)| counter.count(file));
        row.method = method(&run.stdout);
        run.success
            && match &way.check {
                Check::Tail => ends_with(&task.out, &task.checkpoint.shard),
                Check::Command(command) => self.cgroups.run(None, command).success,
            }
    }
}

/// The method that mmconvert's JSON names.
fn method(stdout: &str) -> Option<String> {
    let (_, rest) = stdout.split_once("\"method\":\"")?;
    Some(rest.split('"').next()?.to_owned())
}

/// Whether a file ends with the bytes of another.
fn ends_with(path: &Path, bytes_of: &Path) -> bool {
    let (mut file, mut other) = (File::open(path).expect("an output"), File::open(bytes_of).expect("the source"));
    let len = |file: &File| file.metadata().expect("a length").len();
    let Some(start) = len(&file).checked_sub(len(&other)) else { return false };
    file.seek(SeekFrom::Start(start)).expect("a seek");
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut left = len(&other);
    while left > 0 {
        let piece = usize::try_from(left).map_or(a.len(), |left| left.min(a.len()));
        file.read_exact(&mut a[..piece]).expect("a read");
        other.read_exact(&mut b[..piece]).expect("a read");
        if a[..piece] != b[..piece] {
            return false;
        }
        left -= piece as u64;
    }
    true
}

/// The floor and `cp`, with which every table starts.
pub fn plain(task: &Task) -> [Way<'_>; 2] {
    let (shard, out) = (&task.checkpoint.shard, &task.out);
    [Way::new(FLOOR, move |is_warm| super::floor::command(shard, out, is_warm)), Way::new("cp + sync", move |_| disk::copy(shard, out))]
}

//! Commands in a memory cgroup of their own, which counts the page cache too.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::rounds::{Run, Usage};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// The memory cgroups of this machine, if this process may make any.
#[derive(Debug)]
pub struct Cgroups(Option<Place>);

impl Cgroups {
    pub fn find() -> Self {
        let found = Self(Place::find());
        if !found.can_limit() {
            println!("No memory cgroup can be made here: nothing is limited, and no memory is measured.\n");
        }
        found
    }

    pub fn can_limit(&self) -> bool {
        self.0.is_some()
    }

    /// Runs a command under a limit and watches its memory. Where no cgroups can be made it runs without either.
    pub fn run(&self, limit: Option<u64>, command: &Command) -> Run {
        let group = self.0.as_ref().map(|place| (place, place.make(limit).expect("a cgroup")));
        // The shell joins the group first, so that every page of the command counts.
        let procs = group.as_ref().map_or_else(|| PathBuf::from("/dev/null"), |(_, group)| group.0.join("cgroup.procs"));
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(procs).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value): (&OsStr, _)| Some((name, value?))));
        let mut stderr = tempfile::tempfile().expect("a place for messages");
        let messages = stderr.try_clone().expect("a place for messages");
        let before = Usage::of_children();
        let started = Instant::now();
        let mut child = shell.stdout(Stdio::piped()).stderr(messages).spawn().expect("a shell");
        let mut samples = Vec::new();
        let (ended, running) = mpsc::channel::<()>();
        let (group_ref, samples_ref) = (&group, &mut samples);
        let (status, seconds) = std::thread::scope(|scope| {
            scope.spawn(move || {
                let Some((place, group)) = group_ref else { return };
                loop {
                    samples_ref.extend(group.number(place.usage).map(|bytes| (started.elapsed().as_secs_f64(), bytes)));
                    if running.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            });
            let status = child.wait().expect("a child to wait for");
            let seconds = started.elapsed().as_secs_f64();
            drop(ended);
            (status, seconds)
        });
        let usage = Some(Usage::of_children().since(before));
        let (mut stdout, mut message) = (String::new(), String::new());
        let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut stdout));
        // A killed command had no chance to say why.
        if status.code().is_some_and(|code| code != 0) {
            let _ = stderr.rewind().and_then(|()| stderr.read_to_string(&mut message));
        }
        let error = message.lines().last().map_or_else(|| status.to_string(), str::to_owned);
        let peak_bytes = group.as_ref().and_then(|(place, group)| group.number(place.peak));
        Run { seconds, success: status.success(), stdout, error, peak_bytes, usage, samples }
    }
}

/// Two thirds of a limit: what mmconvert is given as `--memory`.
pub fn memory_option(limit: u64) -> String {
    (limit * 2 / 3).to_string()
}

/// Where memory cgroups can be made, and the names of their files.
#[derive(Debug)]
struct Place {
    parent: PathBuf,
    limit: &'static str,
    usage: &'static str,
    peak: &'static str,
}

impl Place {
    /// The place where this process may make memory cgroups: version 2 or 1. Tried, not guessed.
    fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mounts = mounts.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            Some((PathBuf::from(left.split(' ').nth(4)?), right.to_owned()))
        });
        for (point, kind) in mounts {
            let version_2 = kind.starts_with("cgroup2 ");
            if version_2 {
                // Controllers have to be handed down first; where that is not allowed the trial below fails.
                let _ = fs::write(point.join("cgroup.subtree_control"), "+memory");
            } else if !(kind.starts_with("cgroup ") && kind.contains("memory")) {
                continue;
            }
            let found = if version_2 {
                Self { parent: point, limit: "memory.max", usage: "memory.current", peak: "memory.peak" }
            } else {
                Self { parent: point, limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", peak: "memory.max_usage_in_bytes" }
            };
            if found.make(Some(1 << 30)).is_some_and(|group| group.number(found.usage).is_some()) {
                return Some(found);
            }
        }
        None
    }

    fn make(&self, limit: Option<u64>) -> Option<Group> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mmconvert_bench_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = Group(self.parent.join(name));
        fs::create_dir(&group.0).ok()?;
        if let Some(bytes) = limit {
            fs::write(group.0.join(self.limit), bytes.to_string()).ok()?;
            // Without this the limit would be on memory that is not swapped out. Not every system has swap.
            let _ = fs::write(group.0.join("memory.swap.max"), "0");
        }
        Some(group)
    }
}

struct Group(PathBuf);

impl Group {
    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may need a moment after the last process has gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

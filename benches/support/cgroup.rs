//! Processes under a memory limit, watched.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// Where memory cgroups can be made, and by which names they are ruled.
#[derive(Debug, Clone)]
pub struct Cgroups {
    parent: PathBuf,
    limit: &'static str,
    usage: &'static str,
    peak: &'static str,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Watched {
    pub seconds: f64,
    pub success: bool,
    pub stdout: String,
    /// The most memory that was charged, page cache included.
    pub peak_bytes: Option<u64>,
    /// Seconds since the start, and bytes charged.
    pub samples: Vec<(f64, u64)>,
}

impl Cgroups {
    /// The place where this process may make memory cgroups: version 2 or 1. Tried, not guessed.
    pub fn find() -> Option<Self> {
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
        let name = format!("ram_limits_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
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

/// Runs `command` under `limit` and watches it; without cgroups it runs unwatched, and only without a limit.
pub fn watch(cgroups: Option<&Cgroups>, limit: Option<u64>, command: &[&Path]) -> Option<Watched> {
    let group = match cgroups {
        Some(cgroups) => Some((cgroups, cgroups.make(limit)?)),
        None if limit.is_some() => return None,
        None => None,
    };
    // The shell joins the group first, so that every page of the command counts.
    let procs = group.as_ref().map_or_else(|| PathBuf::from("/dev/null"), |(_, group)| group.0.join("cgroup.procs"));
    let started = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(procs)
        .args(command)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut samples = Vec::new();
    let status = loop {
        if let Some((cgroups, group)) = &group
            && let Some(bytes) = group.number(cgroups.usage)
        {
            samples.push((started.elapsed().as_secs_f64(), bytes));
        }
        match child.try_wait().expect("a child to wait for") {
            Some(status) => break status,
            None => std::thread::sleep(SAMPLE_EVERY),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut stdout = String::new();
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut stdout));
    let peak_bytes = group.as_ref().and_then(|(cgroups, group)| group.number(cgroups.peak));
    Some(Watched { seconds, success: status.success(), stdout, peak_bytes, samples })
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

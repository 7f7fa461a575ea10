//! Memory limits: the budget that the caller allows, and caps on what an input file may make us allocate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Upper bound of the default budget.
const DEFAULT_MOST: u64 = 1 << 30;
/// With less memory than this, hardly any conversion is possible.
const DEFAULT_LEAST: u64 = 16 << 20;
/// Available memory to assume if the system does not report it.
const ASSUMED_AVAILABLE: u64 = 1 << 30;

/// The most memory to use: heap, buffers, and output pages that are not yet on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Budget(u64);

impl Budget {
    /// A budget in bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A budget in MiB.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// The budget in bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// A quarter of the memory available to this process, at most 1 GiB. Limits of its memory cgroups count (the lesser of
    /// `memory.max` and `memory.high`). If a quarter is too little for any conversion, up to half is used.
    #[must_use]
    pub fn detect() -> Self {
        let available = available();
        Self((available / 4).clamp(DEFAULT_LEAST.min(available / 2), DEFAULT_MOST))
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::detect()
    }
}

impl FromStr for Budget {
    type Err = String;

    /// Parses `512MiB`, `1.5GB`, `65536`: KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size: expected a number with an optional unit, as in 512MiB, 1.5GB or 65536");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut bytes = u128::from(whole.parse::<u64>().map_err(|_| wrong())?) * u128::from(factor);
        if number.contains('.') {
            let scale = 10u128.checked_pow(u32::try_from(fraction.len()).map_err(|_| wrong())?).ok_or_else(wrong)?;
            bytes += u128::from(fraction.parse::<u64>().map_err(|_| wrong())?) * u128::from(factor) / scale;
        }
        u64::try_from(bytes).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HumanBytes(self.0).fmt(f)
    }
}

/// Displays a number of bytes for people: `4.00 GiB`.
#[derive(Debug, Clone, Copy)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1 << 10 {
            return f.pad(&format!("{} B", self.0));
        }
        let unit = (self.0.ilog2() / 10) as usize;
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let value = self.0 as f64 / (1u64 << (10 * unit)) as f64;
        f.pad(&format!("{value:.2} {}", UNITS[unit - 1]))
    }
}

/// Caps on what an input file may make us allocate before the conversion starts.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Maximum memory for the names and entries of an index.
    pub(crate) index_bytes: u64,
    /// Maximum size of an object graph, on disk and in memory, that is read for its names.
    pub(crate) object_graph_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { index_bytes: 2 << 30, object_graph_bytes: 64 << 20 }
    }
}

/// Bytes that this process can still allocate without swapping or evicting.
fn available() -> u64 {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_available(&text));
    cgroup_available().into_iter().chain(system).min().unwrap_or(ASSUMED_AVAILABLE)
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest remainder of all memory cgroups above this process, in version 1 or 2.
fn cgroup_available() -> Option<u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    cgroup_directories(&membership, &mounts).iter().filter_map(|dir| cgroup_left(dir)).min()
}

/// What is left in one cgroup. Its inactive page cache counts as free, because the kernel reclaims it.
fn cgroup_left(dir: &Path) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    // Above `memory.high` a process is slowed down until it hardly runs.
    let limit = ["memory.max", "memory.high"].into_iter().filter_map(number).min().or_else(|| number("memory.limit_in_bytes"))?;
    let usage = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or(0);
    let cache = std::fs::read_to_string(dir.join("memory.stat"))
        .ok()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("inactive_file ").and_then(|n| n.parse::<u64>().ok())))
        .unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(cache)))
}

/// All cgroup directories that may limit this process: its own and those above it.
fn cgroup_directories(membership: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|c| c == "memory") {
            continue;
        }
        for mount in mountinfo.lines() {
            let Some((left, right)) = mount.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (&[_, _, _, root, point, ..], &[kind, _, options, ..]) = (left.as_slice(), right.as_slice()) else { continue };
            let matches = if unified { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == "memory") };
            if !matches {
                continue;
            }
            let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
            let point = Path::new(point);
            let mut dir = Some(point.join(below));
            while let Some(here) = dir.filter(|dir| dir.starts_with(point)) {
                dir = here.parent().map(Path::to_owned);
                found.push(here);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, bytes) in
            [("65536", 65536), ("512MiB", 512 << 20), ("1.5GB", 1_500_000_000), ("0.5KiB", 512), ("1 TiB", 1 << 40), ("2kB", 2000)]
        {
            assert_eq!(text.parse::<Budget>().unwrap().as_bytes(), bytes, "{text}");
        }
        for text in ["", "MiB", "1.2.3", "-1", "1mb", "5 bananas", "99999999999TiB", "1.", ".5", "1e9"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_cgroup_above_the_process_is_looked_at() {
        let v1 = cgroup_directories(
            "5:memory:/a/b\n3:cpu:/x\n0::/unified\n",
            "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
        );
        assert_eq!(v1, ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"].map(PathBuf::from));
        let v2 = cgroup_directories("0::/user/job\n", "42 32 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(v2, ["/sys/fs/cgroup/user/job", "/sys/fs/cgroup/user", "/sys/fs/cgroup"].map(PathBuf::from));
        let contained =
            cgroup_directories("4:memory:/docker/1\n", "9 8 0:26 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
        assert_eq!(contained, [PathBuf::from("/sys/fs/cgroup/memory")]);
    }

    #[test]
    fn the_lesser_limit_of_a_cgroup_counts() {
        let dir = tempfile::tempdir().unwrap();
        let left = |files: &[(&str, &str)]| {
            let names = ["memory.max", "memory.high", "memory.limit_in_bytes", "memory.current"];
            for name in names {
                let _ = std::fs::remove_file(dir.path().join(name));
            }
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            cgroup_left(dir.path())
        };
        let current = ("memory.current", "100\n");
        assert_eq!(left(&[("memory.max", "max\n"), ("memory.high", "max\n"), current]), None);
        assert_eq!(left(&[("memory.max", "1000\n"), ("memory.high", "max\n"), current]), Some(900));
        assert_eq!(left(&[("memory.max", "max\n"), ("memory.high", "700\n"), current]), Some(600));
        assert_eq!(left(&[("memory.max", "1000\n"), ("memory.high", "700\n"), current]), Some(600));
        assert_eq!(left(&[("memory.max", "700\n"), ("memory.high", "1000\n"), current]), Some(600));
        assert_eq!(left(&[("memory.limit_in_bytes", "500\n"), current]), Some(400));
    }

    #[test]
    fn available_memory_is_read_in_kilobytes() {
        assert_eq!(meminfo_available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(meminfo_available("MemTotal: 9 kB\n"), None);
    }
}

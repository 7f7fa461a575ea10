//! A disk as fast as memory: a loop device over a file in a tmpfs, with a new file system. It shows what a way of writing costs where the
//! disk does not hide it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::disk;

/// The file systems that can be made, and what makes them: without discards, which would give the memory back, and without writes that
/// go on in the background.
const KINDS: [(&str, &[&str]); 3] = [
    ("ext4", &["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]),
    // Without shared blocks, so that bytes are written.
    ("xfs", &["mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=0"]),
    ("btrfs", &["mkfs.btrfs", "-q", "-f", "-K"]),
];

pub fn kinds() -> Vec<&'static str> {
    KINDS.iter().map(|&(kind, _)| kind).collect()
}

/// A mounted file system in memory. All of it is gone when this is dropped, and also when the process is killed: it is mounted in a
/// namespace of this process.
#[derive(Debug)]
pub struct FastDisk {
    dir: TempDir,
    mounted: Vec<PathBuf>,
}

impl FastDisk {
    /// A disk for a source and an output of so many MiB each; else why there is none.
    pub fn make(kind: &str, mib: u64) -> Result<Self, String> {
        let &(_, mkfs) = KINDS.iter().find(|(known, _)| *known == kind).ok_or("it is unknown")?;
        if !rustix::process::geteuid().is_root() {
            return Err("to mount it, the bench has to run as root".into());
        }
        if Command::new(mkfs[0]).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Err(format!("there is no {}", mkfs[0]));
        }
        let image_mib = 2 * mib + mib / 8 + 768;
        // The disk, and its files once more in the page cache.
        let needed = image_mib + 2 * mib + 512;
        let available = available_mib();
        if needed > available {
            return Err(format!("it needs {needed} MiB of memory, of which {available} MiB are available; a smaller MIB needs less"));
        }
        touch_memory(needed);
        own_namespace();
        let mut disk = Self { dir: tempfile::tempdir().map_err(|error| error.to_string())?, mounted: Vec::new() };
        let ram = disk.make_dir("ram")?;
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={}m", image_mib + 16), "tmpfs"], ram.clone())?;
        let image = ram.join("image");
        // Every page of the disk is there before anything is timed.
        succeed(&mut disk::write_zeros(&image, image_mib))?;
        succeed(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image))?;
        let point = disk.make_dir("disk")?;
        disk.mount(&["-o", "loop", &image.to_string_lossy()], point.clone())?;
        if kind == "btrfs" {
            // Files without checksums share no blocks with files that have them, so that bytes are written.
            let source = disk.make_dir("disk/source")?;
            succeed(Command::new("chattr").arg("+C").arg(source))?;
        }
        Ok(disk)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn make_dir(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).map_err(|error| error.to_string())?;
        Ok(path)
    }

    fn mount(&mut self, arguments: &[&str], point: PathBuf) -> Result<(), String> {
        succeed(Command::new("mount").args(arguments).arg(&point))?;
        self.mounted.push(point);
        Ok(())
    }
}

impl Drop for FastDisk {
    fn drop(&mut self) {
        for point in self.mounted.drain(..).rev() {
            if succeed(Command::new("umount").arg(&point)).is_err() {
                let _ = Command::new("umount").arg("-l").arg(&point).status();
            }
        }
    }
}

/// Runs a command; else what it says.
fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", message.lines().last().unwrap_or("it failed")))
}

/// From now on nobody else sees what this process mounts. Where that is not allowed, mounts are seen and are removed by `Drop` alone.
fn own_namespace() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
            let _ = succeed(Command::new("mount").args(["--make-rprivate", "/"]));
        }
    });
}

/// Takes so much memory once and gives it back. A virtual machine gets its memory from the host when it is first touched, and slowly.
pub fn touch_memory(mib: u64) {
    let len = usize::try_from(mib.min(available_mib()) << 20).expect("a length");
    let mut memory = vec![0_u8; len];
    memory.chunks_mut(4096).for_each(|page| page[0] = 1);
    std::hint::black_box(&memory);
}

fn available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// Runs `work` in a directory on each disk that is to be measured, with its name: those of `FAST` in turn, else that of `DIR`.
pub fn on_each_disk(mib: u64, mut work: impl FnMut(&Path, &str)) {
    if super::settings::text("FAST").is_none() {
        touch_memory(2 * mib + 512);
        let dir = disk::work_dir();
        return work(dir.path(), &disk::file_system(dir.path()));
    }
    for kind in super::settings::chosen("FAST", &kinds()) {
        match FastDisk::make(kind, mib) {
            Ok(disk) => work(&disk.path(), &format!("{kind} in memory")),
            Err(reason) => println!("FAST={kind} is left out: {reason}.\n"),
        }
    }
}

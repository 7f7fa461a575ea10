//! Work directories, the page cache, and commands whose time is a floor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::settings;

/// Where inputs and outputs go unless `DIR` says so: not below the directory of a package, where Cargo runs its benches.
pub fn default_dir() -> PathBuf {
    env!("CARGO_TARGET_TMPDIR").into()
}

/// An empty directory in `DIR` (default: `target/tmp`), removed at the end.
pub fn work_dir() -> tempfile::TempDir {
    work_dir_in(&settings::dir().unwrap_or_else(default_dir))
}

pub fn work_dir_in(parent: &Path) -> tempfile::TempDir {
    fs::create_dir_all(parent).expect("a place to work");
    tempfile::tempdir_in(parent).expect("a place to work")
}

/// A directory of this name in `DIR` (default: `target/tmp`) for inputs that take long to make: it is kept for the next run.
pub fn input_dir(name: &str) -> PathBuf {
    let dir = settings::dir().unwrap_or_else(default_dir).join(name);
    fs::create_dir_all(&dir).expect("a place for inputs");
    dir
}

/// Removes an output and waits until the disk has nothing left to write.
pub fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    rustix::fs::sync();
}

/// Brings a file into the page cache.
pub fn warm(path: &Path) {
    std::io::copy(&mut File::open(path).expect("an input"), &mut std::io::sink()).expect("a read");
}

/// Takes a file out of the page cache.
pub fn evict(path: &Path) {
    rustix::fs::sync();
    let mut dd = Command::new("dd");
    dd.arg(operand("if=", path)).args(["iflag=nocache", "count=0"]).stderr(Stdio::null());
    assert!(dd.status().expect("dd").success(), "{} is taken out of the page cache", path.display());
}

/// The file system of a path, as `df` calls it.
pub fn file_system(path: &Path) -> String {
    let output = Command::new("df").arg("--output=fstype").arg(path).output();
    let output = output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    output.lines().nth(1).unwrap_or("an unknown file system").to_owned()
}

/// Copies a file past the page cache in both directions.
pub fn copy_direct(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("dd");
    command.arg(operand("if=", from)).arg(operand("of=", to));
    command.args(["bs=2M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none"]);
    command
}

/// Copies a file until the copy is on the disk.
pub fn copy(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "cp \"$0\" \"$1\" && sync \"$1\""]).args([from, to]);
    command
}

/// Reads a file and drops what it read.
pub fn read(path: &Path) -> Command {
    let mut command = Command::new("dd");
    command.arg(operand("if=", path)).args(["of=/dev/null", "bs=1M", "status=none"]);
    command
}

/// Writes zeros until they are on the disk.
pub fn write_zeros(path: &Path, mib: u64) -> Command {
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=1M", "conv=fdatasync", "status=none"]).arg(operand("of=", path)).arg(format!("count={mib}"));
    command
}

/// An operand of `dd`.
fn operand(key: &str, path: &Path) -> std::ffi::OsString {
    let mut operand = std::ffi::OsString::from(key);
    operand.push(path);
    operand
}

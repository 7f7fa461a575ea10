//! The kernel reports a write that failed to the next sync, once. Whatever number it has, the output is not made.

use std::fs;
use std::path::Path;

use crate::kernel::{self, Call};
use crate::record_files::{Values, example, frames};
use crate::support::{code, names_in, npy, stderr};

/// Flags of `sync_file_range(2)` that wait.
const WAITS: u64 = (libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER) as u64;
/// Numbers that a write may fail with: those of a bad disk, and those that otherwise say that a call is not supported or was interrupted.
const NUMBERS: [i32; 6] = [libc::EIO, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::ESPIPE, libc::EINTR];
/// Calls that report failed writes, and conversions of the test's sources that make them.
const SYNCS: [(libc::c_long, &str, &[&str], &str); 9] = [
    (libc::SYS_fsync, "large.npy", &[], "x.npy"),
    (libc::SYS_fsync, "large.npy", &["--method", "uncached"], "x.npy"),
    (libc::SYS_fsync, "large.npy", &[], "x.safetensors"),
    (libc::SYS_fsync, "small", &["--method", "portable"], "d/"),
    (libc::SYS_syncfs, "small", &[], "d/"),
    (libc::SYS_sync_file_range, "large.npy", &["--method", "map"], "x.npy"),
    (libc::SYS_sync_file_range, "large.npy", &["--method", "uncached", "--layout", "F"], "x.npy"),
    (libc::SYS_sync_file_range, "lists.tfrecord", &["--method", "uncached"], "d/"),
    (libc::SYS_fdatasync, "large.npy", &["--method", "portable"], "x.npy"),
];

fn write_array(path: &Path, rows: usize) {
    let header = format!("{:<117}\n", format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({rows}, 4096), }}"));
    let mut file = [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes()].concat();
    file.extend((0..rows as u32 * 4096).flat_map(|at| ((at * 7) as u16 | 1).to_le_bytes()));
    fs::write(path, file).unwrap();
}

/// A call on a file in `dir`, other than a directory, that reports failed writes.
fn reports(call: &Call, number: libc::c_long, dir: &Path) -> bool {
    match number {
        // Of the directory of the files.
        libc::SYS_syncfs => true,
        libc::SYS_sync_file_range => call.file(0).starts_with(dir) && call.args[3] & WAITS != 0,
        _ => call.file(0).starts_with(dir) && !call.file(0).is_dir(),
    }
}

#[test]
fn a_failed_write_is_reported_whatever_its_number() {
    let sources = tempfile::tempdir().unwrap();
    write_array(&sources.path().join("large.npy"), 3000);
    let list = |i: u32| Values::Floats((0..500_001).map(|k| (i + k) as f32).collect());
    let records: Vec<Vec<u8>> = (0..12).map(|i| example(&[("list", list(i))], true)).collect();
    fs::write(sources.path().join("lists.tfrecord"), frames(&records)).unwrap();
    fs::create_dir(sources.path().join("parts")).unwrap();
    (0..6).for_each(|i| write_array(&sources.path().join(format!("parts/{i}.npy")), 10 + i));
    for (number, source, words, name) in SYNCS {
        for errno in NUMBERS {
            let what = format!("call {number} fails with {errno}, {source} {words:?} to {name}");
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().canonicalize().unwrap();
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mmconvert"));
            match source {
                "small" => command.arg("convert").args((0..6).map(|i| sources.path().join(format!("parts/{i}.npy")))),
                source => command.arg("convert").arg(sources.path().join(source)),
            };
            command.args(["--memory", "24MiB", "-q"]).args(words).arg("-o").arg(format!("{}/{name}", place.display()));
            let mut times = 0;
            let done = kernel::run(command, &[number], |call| {
                times += u64::from(reports(call, number, &place));
                (reports(call, number, &place) && times == 1).then_some(errno)
            });
            assert!(times > 0, "{what}: it is not made: {}", stderr(&done));
            // Local file systems give this number only where there is no such call; then each file is synced.
            if (number, errno) == (libc::SYS_syncfs, libc::ENOSYS) {
                assert_eq!(code(&done), 0, "{what}: {}", stderr(&done));
                continue;
            }
            assert_eq!(code(&done), 1, "{what}: {}", stderr(&done));
            assert!(stderr(&done).contains("cannot "), "{what}: {}", stderr(&done));
            assert_eq!(names_in(dir.path()), Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn a_system_that_cannot_sync_parts_syncs_files() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("large.npy"), dir.path().join("x.npy"));
    write_array(&source, 3000);
    for method in ["map", "portable"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(&source).args(["--memory", "24MiB", "-q", "-f", "--method", method, "-o"]).arg(&out);
        let done = kernel::run(command, &[libc::SYS_sync_file_range], |_| Some(libc::ENOSYS));
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        assert!(npy(&out).1 == npy(&source).1);
    }
}

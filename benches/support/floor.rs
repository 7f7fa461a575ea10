//! A plain copier with direct I/O, which verifies nothing and converts nothing: the floor of the benches `disks` and `old_kernels`.
//!
//! `THREADS` threads (2) each read 2 MiB, write them, and go on. Each buffer is one large page, so that a request to the disk is one
//! piece of memory. A thread waits while the disk works, so where a disk wants more requests at a time, more threads are faster.
//! It runs as a process of its own, to be measured like the others: `--floor SHARD OUT warm|cold`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapMut};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::settings;

pub const ARGUMENT: &str = "--floor";

const BUFFER: usize = 2 << 20;
/// Where the data start in the output: behind a block for a header, as in an array.
const DATA: u64 = 4096;

/// Reads a warm source from the page cache, and a cold one past it.
pub fn command(source: &Path, out: &Path, is_warm: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this bench"));
    command.arg(ARGUMENT).args([source, out]).arg(if is_warm { "warm" } else { "cold" });
    command
}

pub fn run_here(arguments: &[String]) {
    let [source, out, cache] = arguments else { panic!("{ARGUMENT} SHARD OUT warm|cold") };
    let direct = OFlags::DIRECT.bits().cast_signed();
    let source_flags = if cache == "warm" { 0 } else { direct };
    let source = OpenOptions::new().read(true).custom_flags(source_flags).open(source).expect("the source");
    let out = OpenOptions::new().write(true).create_new(true).custom_flags(direct).open(out).expect("an output");
    let len = source.metadata().expect("a length").len();
    assert_eq!(len % 4096, 0, "direct writes end at a block");
    fallocate(&out, FallocateFlags::empty(), 0, DATA + len).expect("room for the output");
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..settings::number("THREADS", 2).max(1) {
            scope.spawn(|| copy(&source, &out, len, &next));
        }
    });
    out.sync_all().expect("a sync");
}

fn copy(source: &File, out: &File, len: u64, next: &AtomicU64) {
    let mut memory = MmapMut::map_anon(2 * BUFFER).expect("a buffer");
    memory.advise(Advice::HugePage).expect("advice");
    let start = memory.as_ptr().align_offset(BUFFER);
    let buffer = &mut memory[start..start + BUFFER];
    loop {
        let at = next.fetch_add(BUFFER as u64, Ordering::Relaxed);
        if at >= len {
            return;
        }
        let piece = usize::try_from(len - at).map_or(BUFFER, |left| left.min(BUFFER));
        source.read_exact_at(&mut buffer[..piece], at).expect("a read");
        out.write_all_at(&buffer[..piece], DATA + at).expect("a write");
    }
}

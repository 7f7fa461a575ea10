//! Ways of writing on one disk or another, beside plain copies and beside what Python writes. The floor is a plain copier with direct I/O.
//!
//! ```sh
//! DIR=/mnt/nvme cargo bench --bench disks                       # the disk that holds this directory
//! FAST=ext4,xfs,btrfs cargo bench --bench disks                 # disks in memory instead, which the bench makes; as root
//! PEERS=1 PYTHON=venv/bin/python cargo bench --bench disks      # also tensorstore, zarr, h5py, dask, safetensors, NumPy
//! CACHE=cold LIMIT=96 WAYS=floor,mmconvert,direct cargo bench --bench disks
//! ```
//!
//! All ways run interleaved, every second round backwards, each in a memory cgroup of its own. `LIMIT` in MiB limits it, and mmconvert is
//! then given two thirds as `--memory`. A cold source is taken out of the page cache before each run. The floor (`support/floor.rs`)
//! reads a warm source from the page cache; `dd` always reads from the disk.
//!
//! After the rounds each way runs once more: then its system calls are counted, and its output is compared with the source. Figures
//! `/GiB` contain the start of the process, which matters for a small `MIB`; those of Python leave imports out. CPU time is that of the
//! process: what the kernel does in threads of its own (writing back, the loop device of a disk in memory) is in the seconds only.
//!
//! Where files can share blocks (XFS, Btrfs), mmconvert and `cp` share them. The disks of `FAST` are made such that they cannot. Btrfs
//! sends direct writes through the page cache to compute its checksums, so there the floor can be slower than `cp`.
#![allow(clippy::print_stdout, reason = "a bench")]

#[cfg(target_os = "linux")]
mod ways;

fn main() {
    #[cfg(target_os = "linux")]
    ways::main();
}

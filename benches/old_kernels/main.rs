//! What older kernels get: the program runs while the kernel refuses the calls that they lack. The floor is a plain copier.
//!
//! ```sh
//! DIR=/mnt/nvme cargo bench --bench old_kernels                 # the disk that holds this directory
//! FAST=ext4,xfs cargo bench --bench old_kernels                 # disks in memory instead, which the bench makes; as root
//! KERNELS=5.4,this METHOD=portable cargo bench --bench old_kernels
//! ```
//!
//! A command by hand, in the directory that you are in, with the built `mmconvert` first on the `PATH`:
//!
//! ```sh
//! KERNEL=5.15 RUN='mmconvert convert model.ckpt t -o t.npy --json' cargo bench --bench old_kernels
//! ```
//!
//! The bench starts itself as `--kernel NAME COMMAND…`, installs filters of system calls (seccomp), and becomes the command. So what a
//! kernel lacks (`kernels.rs`) fails at once, and nobody stops the process while it runs. `this` installs none. Everything else (file
//! systems, memory, scheduler) is that of the kernel that runs: the bench shows which way mmconvert takes on an older kernel, and what that
//! way costs on a new one. Other settings and the columns are those of the bench `disks`.

#[cfg(target_os = "linux")]
mod kernels;
#[cfg(target_os = "linux")]
mod launcher;

fn main() {
    #[cfg(target_os = "linux")]
    launcher::main();
}

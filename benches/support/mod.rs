//! What the benches share: settings, work directories, processes under a memory limit, interleaved rounds, the table.
//!
//! A bench adds its ways to [`rounds::Rounds`], the floor first, and hands the rows to [`table::print`].
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    dead_code,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "not part of the crate; each bench uses another part, and prints what it measured"
)]

#[path = "../../tests/support/bundle.rs"]
pub mod bundle;
pub mod calls;
pub mod cgroup;
#[cfg(target_os = "linux")]
pub mod copies;
pub mod disk;
#[cfg(target_os = "linux")]
pub mod fast_disk;
#[cfg(target_os = "linux")]
pub mod floor;
pub mod python;
pub mod rounds;
pub mod settings;
pub mod table;

use std::path::{Path, PathBuf};

use bundle::{BundleWriter, Layout, Pattern};

/// The project: what holds `benches`, whichever of its packages a bench belongs to.
pub fn project() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|path| path.join("benches").is_dir()).expect("benches lie in the project")
}

/// Columns of the tensor in a [`Checkpoint`].
pub const COLUMNS: u64 = 64;

/// Whether `cargo bench` runs this. `cargo test --benches` only builds benches and starts them.
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A checkpoint with one tensor `t`, float32 `[rows, 64]`, in one shard.
pub struct Checkpoint {
    pub prefix: PathBuf,
    pub shard: PathBuf,
    pub rows: u64,
}

impl Checkpoint {
    pub fn write(dir: &Path, bytes: u64) -> Self {
        let (prefix, rows) = (dir.join("source"), bytes / 4 / COLUMNS);
        let mut writer = BundleWriter::create(&prefix, Layout::default()).expect("a bundle");
        writer.add(b"t", 1, &[rows, COLUMNS], 0, Pattern::new(bytes)).expect("room for the source");
        writer.finish().expect("an index");
        Self { shard: bundle::with_suffix(&prefix, ".data-00000-of-00001"), prefix, rows }
    }
}

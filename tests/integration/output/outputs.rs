//! Outputs of every kind in two versions, to test what happens to the old one when the new one fails.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::{BundleWriter, Layout};
use crate::kernel::Call;
use crate::record_files::{Values, example, frames};
use crate::support::{code, stderr};

/// Calls that name, link, remove and write files.
pub(crate) const WATCHED: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_openat,
    libc::SYS_fsync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_mmap,
    libc::SYS_pwrite64,
    libc::SYS_pwritev2,
];

/// The paths of a renaming call, and its flags.
pub(crate) fn renamed(call: &Call) -> Option<(PathBuf, PathBuf, u64)> {
    #[cfg(target_arch = "x86_64")]
    if call.number == libc::SYS_rename {
        return Some((call.path(0), call.path(1), 0));
    }
    match call.number {
        libc::SYS_renameat => Some((call.path(1), call.path(3), 0)),
        libc::SYS_renameat2 => Some((call.path(1), call.path(3), call.args[4])),
        _ => None,
    }
}

/// All files below a directory, with their content.
pub(crate) fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A place with two versions of sources, `a` and `b`.
pub(crate) struct Sources {
    dir: tempfile::TempDir,
}

impl Sources {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (version, name) in [(1u32, "a"), (2, "b")] {
            let values = |count: u32| Cursor::new((0..count).flat_map(|i| (i * version).to_le_bytes()).collect::<Vec<u8>>());
            let mut bundle = BundleWriter::create(&dir.path().join(name), Layout::default()).unwrap();
            bundle.add(b"big", 3, &[300, 1000], 0, values(300_000)).unwrap();
            for i in 0..6 {
                bundle.add(format!("w{i}").as_bytes(), 3, &[100 + i], 0, values(100 + i as u32)).unwrap();
            }
            bundle.finish().unwrap();
            let mut bundle = BundleWriter::create(&dir.path().join(format!("{name}-text")), Layout::default()).unwrap();
            let text: Vec<String> = (0..1000).map(|i| "x".repeat(i % 7 * version as usize)).collect();
            bundle.add_strings(b"s", &[1000], &text, 0).unwrap();
            bundle.finish().unwrap();
            let records: Vec<Vec<u8>> = (0..500)
                .map(|i| {
                    let ids = vec![i * i64::from(version)];
                    let list = vec![i; (i % 4) as usize * version as usize];
                    example(&[("id", Values::Ints(ids)), ("list", Values::Ints(list))], true)
                })
                .collect();
            fs::write(dir.path().join(format!("{name}.tfrecord")), frames(&records)).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn command(&self, words: &[&str], out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.current_dir(self.dir.path()).args(words).arg(out);
        command
    }
}

/// A conversion: the name of the output, how it is made, and whether it has several files.
pub(crate) struct Case {
    pub(crate) out: &'static str,
    pub(crate) words: &'static [&'static str],
    /// The sources of the old and the new output.
    pub(crate) sources: [&'static str; 2],
}

pub(crate) const CASES: &[Case] = &[
    Case { out: "x.npy", words: &["big"], sources: ["b", "a"] },
    Case { out: "x.npy", words: &["big", "--layout", "F"], sources: ["b", "a"] },
    Case { out: "x.npy", words: &["big", "--method", "portable"], sources: ["b", "a"] },
    Case { out: "x.npy", words: &["big", "--method", "map"], sources: ["b", "a"] },
    Case { out: "d", words: &[], sources: ["b", "a"] },
    Case { out: "d", words: &["--method", "portable"], sources: ["b", "a"] },
    Case { out: "s.npy", words: &["s", "--strings", "offsets"], sources: ["b-text", "a-text"] },
    Case { out: "x.safetensors", words: &[], sources: ["b", "a"] },
    Case { out: "r", words: &["--ragged", "offsets"], sources: ["b.tfrecord", "a.tfrecord"] },
    Case { out: "r.safetensors", words: &["id"], sources: ["b.tfrecord", "a.tfrecord"] },
];

impl Case {
    pub(crate) fn words(&self, source: usize, more: &[&'static str]) -> Vec<&'static str> {
        let names = &["convert", self.sources[source]];
        [names, self.words, more, &["-q", "-o"]].concat()
    }
}

/// A directory for an output, with its content before and after the run.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) out: PathBuf,
    pub(crate) old: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) new: BTreeMap<PathBuf, Vec<u8>>,
}

impl Place {
    /// With an old output if one is to be replaced.
    pub(crate) fn new(case: &Case, force: bool, sources: &Sources) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(case.out);
        let plain = |source, more: &[&'static str]| {
            let done = sources.command(&case.words(source, more), &out).output().unwrap();
            assert_eq!(code(&done), 0, "{}: {}", case.out, stderr(&done));
            tree(dir.path())
        };
        let new = plain(1, &[]);
        let old = if force { plain(0, &["-f"]) } else { BTreeMap::new() };
        if !force {
            for entry in fs::read_dir(dir.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
        assert!(old != new && old == tree(dir.path()));
        Self { dir, out, old, new }
    }
}

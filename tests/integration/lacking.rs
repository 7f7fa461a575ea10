//! File systems that lack something, and disks that fail while names are given: what is right is there, or what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::{BundleWriter, Layout};
use crate::kernel::{self, Call};
use crate::record_files::{Values, example, frames};
use crate::support::{code, stderr};

/// The calls that name, link, remove and write files.
const WATCHED: &[libc::c_long] = &[
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

/// Where the paths of a call that renames are among its arguments, and whether it takes flags.
fn renamed(call: &Call) -> Option<(PathBuf, PathBuf, u64)> {
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

/// What a file system lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    UnnamedFiles,
    Links,
    /// Of any kind, also of files without names.
    LinksLikeFuse,
    RenameFlags,
    DirectoryRenames,
    DirectorySync,
    DirectorySyncOpen,
    Reservations,
    Maps,
    Modes,
    WritesBehindTheEnd,
    Uncached,
}

impl Lack {
    fn fails(self, call: &Call) -> Option<i32> {
        let is = |number| call.number == number;
        let fails = match self {
            Self::UnnamedFiles if is(libc::SYS_openat) => {
                (call.args[2] & libc::O_TMPFILE as u64 == libc::O_TMPFILE as u64).then_some(libc::EOPNOTSUPP)
            }
            Self::Links if is(libc::SYS_linkat) => Some(libc::EPERM),
            Self::LinksLikeFuse if is(libc::SYS_linkat) => Some(libc::ENOSYS),
            Self::RenameFlags => renamed(call).filter(|&(.., flags)| flags != 0).map(|_| libc::EINVAL),
            Self::DirectoryRenames => renamed(call).filter(|(from, ..)| from.is_dir()).map(|_| libc::EXDEV),
            Self::DirectorySync if is(libc::SYS_fsync) => call.file(0).is_dir().then_some(libc::EINVAL),
            Self::DirectorySyncOpen if is(libc::SYS_fsync) => call.file(0).is_dir().then_some(libc::EBADF),
            Self::Reservations if is(libc::SYS_fallocate) => Some(libc::EOPNOTSUPP),
            // What the loader maps is private.
            Self::Maps if is(libc::SYS_mmap) => {
                let is_shared = call.args[3] & libc::MAP_TYPE as u64 == libc::MAP_SHARED as u64;
                (is_shared && call.args[3] & libc::MAP_ANONYMOUS as u64 == 0).then_some(libc::ENODEV)
            }
            Self::Modes if is(libc::SYS_fchmod) => Some(libc::EPERM),
            Self::WritesBehindTheEnd if is(libc::SYS_pwrite64) => (call.args[3] > call.file_len(0)).then_some(libc::EINVAL),
            Self::WritesBehindTheEnd if is(libc::SYS_pwritev2) => (call.args[3] > call.file_len(0)).then_some(libc::EINVAL),
            Self::Uncached if is(libc::SYS_pwritev2) => Some(libc::EOPNOTSUPP),
            _ => None,
        };
        fails.filter(|_| !is(libc::SYS_openat) || self == Self::UnnamedFiles)
    }
}

/// File systems as they are met: each by all that it lacks.
const FILE_SYSTEMS: &[&[Lack]] = &[
    &[],
    &[Lack::UnnamedFiles],
    &[Lack::Links],
    &[Lack::Links, Lack::UnnamedFiles],
    &[Lack::RenameFlags],
    // exFAT and others in FUSE.
    &[Lack::LinksLikeFuse, Lack::RenameFlags, Lack::UnnamedFiles, Lack::Modes],
    // Object stores that are mounted.
    &[
        Lack::Links,
        Lack::RenameFlags,
        Lack::UnnamedFiles,
        Lack::DirectoryRenames,
        Lack::DirectorySync,
        Lack::Reservations,
        Lack::Uncached,
        Lack::WritesBehindTheEnd,
    ],
    // Unions of directories.
    &[Lack::UnnamedFiles, Lack::DirectoryRenames, Lack::RenameFlags],
    &[Lack::DirectoryRenames],
    &[Lack::DirectorySync],
    &[Lack::DirectorySyncOpen],
    // FUSE past the page cache.
    &[Lack::Maps, Lack::UnnamedFiles, Lack::Reservations],
    &[Lack::WritesBehindTheEnd, Lack::Reservations, Lack::Uncached],
];

/// Everything in a directory, and what it holds.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

/// A place with sources of two versions, `a` and `b`.
struct Sources {
    dir: tempfile::TempDir,
}

impl Sources {
    fn new() -> Self {
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

    fn command(&self, words: &[&str], out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.current_dir(self.dir.path()).args(words).arg(out);
        command
    }
}

/// What is converted: the name of the output, how it is made, and whether it takes several files.
struct Case {
    out: &'static str,
    words: &'static [&'static str],
    /// The sources of the old and of the new output.
    sources: [&'static str; 2],
}

const CASES: &[Case] = &[
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
    fn words(&self, source: usize, more: &[&'static str]) -> Vec<&'static str> {
        let names = &["convert", self.sources[source]];
        [names, self.words, more, &["-q", "-o"]].concat()
    }
}

/// Whether some bytes of an output were written.
fn writes(call: &Call) -> bool {
    // Trials write one byte.
    call.number == libc::SYS_pwrite64 && call.args[2] > 1 || call.number == libc::SYS_pwritev2 && call.args[3] > 0
}

impl Case {
    /// Whether there is no way to make it: `map` takes calls that are missing, or several files are replaced and there is no way back.
    fn is_impossible(&self, force: bool, lacks: &[Lack]) -> bool {
        let lacks = |one: Lack| lacks.contains(&one);
        let asks = |method: &str| self.words.contains(&method);
        let is_several = !self.out.contains('.') || self.words.contains(&"offsets");
        let has_links = !lacks(Lack::Links) && !lacks(Lack::LinksLikeFuse);
        let has_exchange = !lacks(Lack::RenameFlags) && !asks("portable");
        asks("map") && (lacks(Lack::Maps) || lacks(Lack::Reservations)) || force && is_several && !has_links && !has_exchange
    }
}

fn check(case: &Case, force: bool, lacks: &[Lack], sources: &Sources) {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join(case.out);
    let plain = |source, more: &[&'static str]| {
        let done = sources.command(&case.words(source, more), &out).output().unwrap();
        assert_eq!(code(&done), 0, "{}: {}", case.out, stderr(&done));
        tree(place.path())
    };
    let new = plain(1, &[]);
    let old = if force { plain(0, &["-f"]) } else { BTreeMap::new() };
    if !force {
        for entry in fs::read_dir(place.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    assert!(old != new);
    let mut wrote = false;
    let more: &[&'static str] = if force { &["-f"] } else { &[] };
    let done = kernel::run(sources.command(&case.words(1, more), &out), WATCHED, |call| {
        wrote |= writes(call);
        lacks.iter().find_map(|lack| lack.fails(call))
    });
    let (found, text) = (tree(place.path()), stderr(&done));
    let what = format!("{} {:?} force {force} without {lacks:?}: {text}", case.out, case.words);
    if case.is_impossible(force, lacks) {
        assert!(code(&done) != 0 && text.starts_with("error: "), "{what}");
        assert!(found == old, "{what}: not what was there: {:?}", found.keys());
        assert!(!wrote, "{what}: after the work");
    } else {
        assert_eq!((code(&done), &text[..]), (0, ""), "{what}");
        assert!(found == new, "{what}: not what it should be: {:?}", found.keys());
    }
}

#[test]
fn a_file_system_that_lacks_something_gets_the_output_or_an_error_before_the_work() {
    let sources = Sources::new();
    for lacks in FILE_SYSTEMS {
        for case in CASES {
            for force in [false, true] {
                check(case, force, lacks, &sources);
            }
        }
    }
}

//! File systems that lack a feature: the output is made, or an error comes before the work.

use super::outputs::{CASES, Case, Place, Sources, WATCHED, renamed, tree};
use crate::kernel::{self, Call};
use crate::support::{code, data, mmconvert, stderr};

/// A missing feature of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    UnnamedFiles,
    Links,
    /// Hard links of any kind, also of unnamed files.
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
        match self {
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
            // Private maps, which the loader makes, still work.
            Self::Maps if is(libc::SYS_mmap) => {
                let is_shared = call.args[3] & libc::MAP_TYPE as u64 == libc::MAP_SHARED as u64;
                (is_shared && call.args[3] & libc::MAP_ANONYMOUS as u64 == 0).then_some(libc::ENODEV)
            }
            Self::Modes if is(libc::SYS_fchmod) => Some(libc::EPERM),
            Self::WritesBehindTheEnd if is(libc::SYS_pwrite64) => (call.args[3] > call.file_len(0)).then_some(libc::EINVAL),
            Self::WritesBehindTheEnd if is(libc::SYS_pwritev2) => (call.args[3] > call.file_len(0)).then_some(libc::EINVAL),
            Self::Uncached if is(libc::SYS_pwritev2) => Some(libc::EOPNOTSUPP),
            _ => None,
        }
    }
}

/// Existing file systems, each as the list of what it lacks.
const FILE_SYSTEMS: &[&[Lack]] = &[
    &[],
    &[Lack::UnnamedFiles],
    &[Lack::Links],
    &[Lack::Links, Lack::UnnamedFiles],
    &[Lack::RenameFlags],
    // exFAT and others in FUSE.
    &[Lack::LinksLikeFuse, Lack::RenameFlags, Lack::UnnamedFiles, Lack::Modes],
    // Mounted object stores.
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
    // Union file systems.
    &[Lack::UnnamedFiles, Lack::DirectoryRenames, Lack::RenameFlags],
    &[Lack::DirectoryRenames],
    &[Lack::DirectorySync],
    &[Lack::DirectorySyncOpen],
    // FUSE that bypasses the page cache.
    &[Lack::Maps, Lack::UnnamedFiles, Lack::Reservations],
    &[Lack::WritesBehindTheEnd, Lack::Reservations, Lack::Uncached],
];

/// Whether the call writes data of an output.
fn writes(call: &Call) -> bool {
    // Trials write a single byte, or a block at the start.
    let is_trial = call.args[3] == 0 && call.args[2] <= 4096;
    call.number == libc::SYS_pwrite64 && !is_trial || call.number == libc::SYS_pwritev2 && call.args[3] > 0
}

impl Case {
    /// Whether no output is possible: `map` needs calls that are missing, or several files are replaced without a way to undo it.
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
    let Place { dir: place, out, old, new } = Place::new(case, force, sources);
    let mut wrote = false;
    let more: &[&'static str] = if force { &["-f"] } else { &[] };
    let dry = kernel::run(sources.command(&case.words(1, &[more, &["-n"]].concat()), &out), WATCHED, |call| {
        lacks.iter().find_map(|lack| lack.fails(call))
    });
    assert!(tree(place.path()) == old, "{} {:?} force {force} without {lacks:?}: a dry run changes something", case.out, case.words);
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
        // With several files, the error may name any of them.
        let said = |text: &str| text.split_whitespace().filter(|word| !word.contains('/')).collect::<Vec<_>>().join(" ");
        assert_eq!((code(&dry), said(&stderr(&dry))), (code(&done), said(&text)), "{what}: a dry run says something else");
    } else {
        assert_eq!((code(&done), &text[..]), (0, ""), "{what}");
        assert_eq!(code(&dry), 0, "{what}: {}", stderr(&dry));
        assert!(found == new, "{what}: not what it should be: {:?}", found.keys());
    }
}

#[test]
fn a_limited_file_system_gets_the_output_or_an_error_before_the_work() {
    let sources = Sources::new();
    for lacks in FILE_SYSTEMS {
        for case in CASES {
            for force in [false, true] {
                check(case, force, lacks, &sources);
            }
        }
    }
}

#[test]
fn a_dry_run_refuses_what_the_run_refuses_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let arrays = data("npy/npyio");
    let array = |name: &str| arrays.join(name).to_str().unwrap().to_owned();
    std::fs::copy(array("data_int8_6x1_corder.npy"), at("own.npy")).unwrap();
    std::fs::write(at("s.npy"), "old").unwrap();
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/other.txt"), "old").unwrap();
    let strings = data("generated/dtypes").to_str().unwrap().to_owned();
    let offsets = [strings.as_str(), "dev/string/r1_7_81", "--strings", "offsets"];
    let one = array("data_int8_6x1_corder.npy");
    for (words, out, code_of_both) in [
        // Files of the source.
        (&[at("own.npy").as_str(), "-f"][..], at("own.npy"), 2),
        (&[at("own.npy").as_str(), one.as_str(), "-f"], at("."), 2),
        (&[at("own.npy").as_str(), "-f"], at("own.npy").replace("own.npy", "own.safetensors"), 0),
        // Existing files, and similar names.
        (&[one.as_str()], at("s.npy"), 1),
        (&offsets, at("s.npy"), 0),
        (&[one.as_str()], at("d/"), 1),
        (&[one.as_str(), "-f"], at("d/"), 0),
        (&[one.as_str()], at("none/x.npy"), 1),
        (&[one.as_str()], at("s.npy/x.npy"), 1),
    ] {
        let [dry, done] = [&["-n"][..], &["-q"]].map(|more| mmconvert([&["convert"], words, more, &["-o", &out]].concat()));
        assert_eq!((code(&dry), code(&done)), (code_of_both, code_of_both), "{words:?} {out}: {}{}", stderr(&dry), stderr(&done));
        if code_of_both != 0 {
            assert_eq!(stderr(&dry), stderr(&done), "{words:?} {out}");
        }
    }
    // The limit on file length is between the size of the elements and that of the file.
    let source = data("generated/dtypes");
    let told = |more: &[&str]| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        program.args(["convert", source.to_str().unwrap(), "-o", &at("all.safetensors")]).args(more);
        let done = kernel::run(program, &[libc::SYS_ftruncate, libc::SYS_fallocate], |call| {
            let end = if call.number == libc::SYS_ftruncate { call.args[1] } else { call.args[2] + call.args[3] };
            (end > 60_000).then_some(libc::EFBIG)
        });
        (code(&done), stderr(&done))
    };
    let (code_of_run, text) = told(&[]);
    assert!(code_of_run == 4 && text.contains("file size limit"), "{text}");
    assert_eq!(told(&["-n"]), (code_of_run, text));
}

#[test]
fn a_limit_on_file_length_is_reported_before_the_work_and_by_a_dry_run() {
    const LIMIT: u64 = 512 << 10;
    let sources = Sources::new();
    // The cases with long files.
    for case in CASES.iter().filter(|case| case.sources[1] == "a") {
        let place = Place::new(case, false, &sources);
        for dry in [&["-n"][..], &[]] {
            let mut wrote = false;
            let done = kernel::run(sources.command(&case.words(1, dry), &place.out), WATCHED, |call| {
                wrote |= writes(call);
                let end = match call.number {
                    libc::SYS_ftruncate => call.args[1],
                    libc::SYS_fallocate => call.args[2] + call.args[3],
                    _ => 0,
                };
                (end > LIMIT).then_some(libc::EFBIG)
            });
            let what = format!("{} {:?} {dry:?}: {}", case.out, case.words, stderr(&done));
            assert!(code(&done) == 4 && stderr(&done).contains("file size limit"), "{what}");
            assert!(tree(place.dir.path()) == place.old && !wrote, "{what}");
        }
    }
}

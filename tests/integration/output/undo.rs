//! Failures while outputs get their names: everything is new, or everything is old; an undo that fails is reported.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use super::outputs::{CASES, Case, Place, Sources, WATCHED, renamed, tree};
use crate::kernel::{self, Call};
use crate::support::{code, stderr};

/// The calls that a file system lacks, and the error it returns.
type Lack = dyn Fn(&Call) -> Option<i32> + Sync;

fn names(call: &Call) -> bool {
    call.number == libc::SYS_linkat || renamed(call).is_some()
}

fn removes(call: &Call) -> bool {
    #[cfg(target_arch = "x86_64")]
    if [libc::SYS_unlink, libc::SYS_rmdir].contains(&call.number) {
        return true;
    }
    call.number == libc::SYS_unlinkat
}

/// Makes the new output, failing calls of a `kind` whose numbers (from 0) satisfy `fails`. Returns the number of such calls.
fn run(
    (case, force): (&Case, bool),
    (place, sources): (&Place, &Sources),
    kind: impl Fn(&Call) -> Option<i32> + Sync,
    fails: impl Fn(usize) -> bool + Sync,
) -> (Output, usize) {
    let more: &[&'static str] = if force { &["-f"] } else { &[] };
    let mut seen = 0;
    let done = kernel::run(sources.command(&case.words(1, more), &place.out), WATCHED, |call| {
        let errno = kind(call)?;
        if errno != libc::EIO {
            return Some(errno);
        }
        seen += 1;
        fails(seen - 1).then_some(errno)
    });
    (done, seen)
}

fn count(case: (&Case, bool), sources: &Sources, kind: impl Fn(&Call) -> Option<i32> + Sync) -> usize {
    run(case, (&Place::new(case.0, case.1, sources), sources), kind, |_| false).1
}

fn is_hidden(path: &Path) -> bool {
    path.to_string_lossy().contains(".mmconvert-tmp")
}

#[test]
fn a_failed_rename_leaves_everything_new_or_everything_old() {
    let sources = Sources::new();
    // With all features, without rename flags, and without links.
    let without_flags = |call: &Call| renamed(call).filter(|&(.., flags)| flags != 0).map(|_| libc::EINVAL);
    let without_links = |call: &Call| (call.number == libc::SYS_linkat).then_some(libc::EPERM);
    let lacks: [&Lack; 3] = [&|_| None, &without_flags, &without_links];
    for lack in lacks {
        for case in CASES {
            for force in [false, true] {
                let kind = |call: &Call| lack(call).or_else(|| names(call).then_some(libc::EIO));
                for at in 0..count((case, force), &sources, kind) {
                    let place = Place::new(case, force, &sources);
                    let (done, _) = run((case, force), (&place, &sources), kind, |number| number == at);
                    let (found, text) = (tree(place.dir.path()), stderr(&done));
                    let what = format!("{} {:?} force {force}, name {at}: {text}", case.out, case.words);
                    // The failed call may have been a trial.
                    let expected = if code(&done) == 0 { &place.new } else { &place.old };
                    assert!(&found == expected, "{what}: {:?}", found.keys());
                    assert_eq!(code(&done) == 0, text.is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_failed_undo_is_reported_and_keeps_the_old_files() {
    let sources = Sources::new();
    let mut partly = 0;
    for case in CASES.iter().filter(|case| case.out == "d" || case.words.contains(&"offsets")) {
        let kind = |call: &Call| names(call).then_some(libc::EIO);
        for at in 0..count((case, true), &sources, kind) {
            let place = Place::new(case, true, &sources);
            let (done, _) = run((case, true), (&place, &sources), kind, |number| number >= at);
            let (found, text) = (tree(place.dir.path()), stderr(&done));
            let what = format!("{} {:?} from name {at} on: {text}", case.out, case.words);
            let shown: Vec<_> = found.iter().filter(|(path, _)| !is_hidden(path)).collect();
            let is_old = |path: &Path| found.get(path) == place.old.get(path);
            assert!(shown.iter().all(|(path, content)| is_old(path) || place.new.get(*path) == Some(content)), "{what}");
            assert!(place.old.keys().all(|path| found.contains_key(path)), "{what}: something is gone");
            if place.old.keys().all(|path| is_old(path)) {
                assert!(shown.len() == found.len() && code(&done) != 0, "{what}: {:?}", found.keys());
                continue;
            }
            if place.new == found {
                continue;
            }
            partly += 1;
            for path in place.old.keys() {
                assert!(text.contains(place.dir.path().join(path).to_str().unwrap()), "{what}: {} is not told", path.display());
            }
            // The old files are where the message says, and a later run keeps them.
            let replaced: Vec<_> = place.old.iter().filter(|(path, _)| !is_old(path)).collect();
            for path in found.keys().filter(|path| is_hidden(path)) {
                let hidden =
                    place.dir.path().join(path.iter().take_while(|part| !is_hidden(Path::new(part))).collect::<std::path::PathBuf>());
                for entry in fs::read_dir(hidden).unwrap().flatten().filter(|entry| is_hidden(&entry.path())) {
                    File::open(entry.path()).unwrap().set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
                }
            }
            let again = sources.command(&case.words(1, &["-f"]), &place.out).output().unwrap();
            assert_eq!(code(&again), 0, "{}", stderr(&again));
            let later = tree(place.dir.path());
            for (path, old) in replaced {
                let kept = later.iter().find(|(other, content)| is_hidden(other) && content == &old);
                let kept = kept.unwrap_or_else(|| panic!("{what}: the old {} is gone", path.display()));
                assert!(text.contains(place.dir.path().join(kept.0).to_str().unwrap()), "{what}: nobody says where {} is", path.display());
            }
        }
    }
    assert!(partly > 0, "nothing was partly new");
}

#[test]
fn leftovers_that_cannot_be_removed_are_reported_and_the_output_is_right() {
    let sources = Sources::new();
    for case in CASES {
        for force in [false, true] {
            let kind = |call: &Call| removes(call).then_some(libc::EIO);
            let all = count((case, force), &sources, kind);
            for (at, sticky) in (0..all).map(|at| (at, false)).chain([(0, true)]) {
                let place = Place::new(case, force, &sources);
                let fails = |number| if sticky { number >= at } else { number == at };
                let (done, _) = run((case, force), (&place, &sources), kind, fails);
                let (found, text) = (tree(place.dir.path()), stderr(&done));
                let what = format!("{} {:?} force {force}, removal {at}, sticky {sticky}: {text}", case.out, case.words);
                assert_eq!(code(&done), 0, "{what}");
                let shown = found.iter().filter(|(path, _)| !is_hidden(path));
                assert!(shown.eq(&place.new), "{what}: {:?}", found.keys());
                let hidden = fs::read_dir(place.dir.path()).unwrap().flatten().map(|entry| entry.path());
                let inside = fs::read_dir(&place.out).into_iter().flatten().flatten().map(|entry| entry.path());
                for path in hidden.chain(inside).filter(|path| is_hidden(path)) {
                    assert!(text.contains(&format!("warning: {}", path.display())), "{what}: {} is not told", path.display());
                }
            }
        }
    }
}

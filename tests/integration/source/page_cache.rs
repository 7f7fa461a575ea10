//! What a conversion leaves in the page cache of its source: what was there before, and nothing else.
#![expect(unsafe_code, reason = "`mincore` takes a map; each block argues its safety")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use memmap2::Mmap;
use rustix::fs::{Advice, fadvise};

use crate::kernel;
use crate::support::{code, stderr};

const MIB: usize = 1 << 20;
/// Length of the source: two segments of 64 MiB that are looked up separately, and a part of a third.
const LEN: usize = 128 + ROWS * 64 * 4;
const ROWS: usize = 614_400;

/// `cachestat(2)`, which the libc crate does not name.
const CACHESTAT: libc::c_long = 451;

/// What is cached before, as a rule for every MiB.
const STATES: &[(&str, Rule)] = &[
    ("nothing", |_| false),
    ("everything", |_| true),
    ("a half", |mib| mib >= 70),
    ("a little", |mib| (100..103).contains(&mib)),
    ("every fifth MiB", |mib| mib % 5 == 3),
];
type Rule = fn(usize) -> bool;

/// A number of pages in the page cache for every MiB of a file.
fn cached(file: &File) -> Vec<usize> {
    // SAFETY: nothing writes to the file, and nothing is read through the map.
    let map = unsafe { Mmap::map(file) }.unwrap();
    let page = rustix::param::page_size();
    let mut pages = vec![0u8; map.len().div_ceil(page)];
    // SAFETY: the map lives during the call, which writes a byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(map.as_ptr() as *mut libc::c_void, map.len(), pages.as_mut_ptr()) }, 0);
    pages.chunks(MIB / page).map(|pages| pages.iter().filter(|&&page| page & 1 == 1).count()).collect()
}

/// Makes exactly those MiB of a file cached that `is_wanted` names, if the file system can forget pages.
fn cache(path: &Path, is_wanted: Rule) -> Option<File> {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    if cached(&file).iter().sum::<usize>() > 0 {
        return None;
    }
    // Without read-ahead.
    fadvise(&file, 0, None, Advice::Random).unwrap();
    let mut bytes = vec![0; MIB];
    for mib in (0..LEN.div_ceil(MIB)).filter(|&mib| is_wanted(mib)) {
        file.read_at(&mut bytes, (mib * MIB) as u64).unwrap();
    }
    Some(file)
}

#[test]
fn a_source_keeps_the_cached_pages_that_it_had() {
    // Not in the directory for temporary files, which may lie in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [source, out] = ["x.npy", "y.npy"].map(|name| dir.path().join(name));
    let header = format!("{:<117}\n", format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 64), }}", ROWS));
    let mut bytes = [b"\x93NUMPY\x01\x00v\x00".as_slice(), header.as_bytes()].concat();
    assert_eq!(bytes.len(), 128);
    bytes.extend((0..(LEN - 128) as u32 / 4).flat_map(|i| (i as f32).to_le_bytes()));
    fs::write(&source, &bytes).unwrap();
    // Kernels before 6.14 have no uncached reads, those before 6.5 no call that counts cached pages.
    for refused in [&[][..], &[libc::SYS_preadv2], &[libc::SYS_preadv2, CACHESTAT]] {
        for &(state, is_wanted) in STATES {
            for dtype in ["float32", "float64"] {
                let Some(file) = cache(&source, is_wanted) else {
                    eprintln!("not tested: {} forgets no pages", dir.path().display());
                    return;
                };
                let before = cached(&file);
                let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
                command.arg("convert").arg(&source).arg("-o").arg(&out).args(["--dtype", dtype, "--method", "uncached", "-q", "-f"]);
                let done = kernel::run(command, refused, |_| Some(libc::ENOSYS));
                if code(&done) != 0 && stderr(&done).contains("uncached") {
                    eprintln!("not tested: {} takes no uncached writes", dir.path().display());
                    return;
                }
                assert_eq!(code(&done), 0, "{}", stderr(&done));
                let after = cached(&file);
                let lost: usize = before.iter().zip(&after).map(|(before, after)| before.saturating_sub(*after)).sum();
                let new: usize = before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before)).sum();
                let case = format!("{state} cached, {refused:?} refused, to {dtype}: {lost} pages lost, {new} new");
                // The kernel may need the memory of some pages, and may read ahead of one thread what another has dropped.
                assert!(lost <= before.iter().sum::<usize>() / 8, "{case}");
                assert!(new <= LEN / rustix::param::page_size() / 8, "{case}");
            }
        }
    }
}

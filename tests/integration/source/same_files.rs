//! The files of a source are closed when it is dropped, and a change of them is noticed.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mmconvert::{Budget, Converter, Error, Options, RecordOptions, Source, export, pack};

use crate::support::{data, names_in};

/// Open files of this process that are in `dir`, or were.
fn open_in(dir: &Path) -> Vec<PathBuf> {
    let opened = fs::read_dir("/proc/self/fd").unwrap().flatten();
    opened.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(|link| link.starts_with(dir)).collect()
}

fn write_npy(path: &Path, elements: usize, byte: u8) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({elements},), }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(vec![byte; elements]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_source_that_is_dropped_has_no_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().canonicalize().unwrap();
    fs::create_dir(own.join("in")).unwrap();
    for i in 0..40 {
        write_npy(&own.join(format!("in/a{i}.npy")), 100, i);
    }
    let source = Source::open(own.join("in/*.npy")).unwrap();
    export(&source.all().unwrap(), None, own.join("out"), &Options::new()).unwrap();
    pack(&source.all().unwrap(), None, own.join("out.safetensors"), &Options::new()).unwrap();
    let held = open_in(&own);
    assert!(held.iter().all(|path| path.starts_with(own.join("in"))), "{held:?}");
    drop(source);
    assert_eq!(open_in(&own), [""; 0].map(PathBuf::from));
}

#[test]
fn a_pack_of_records_leaves_none_of_its_own_files_open() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().canonicalize().unwrap();
    let source = Source::open(data("records/penguin_eval.gz")).unwrap();
    pack(&source.all().unwrap(), None, own.join("out.safetensors"), &Options::new()).unwrap();
    assert_eq!(open_in(&own), [""; 0].map(PathBuf::from));
    assert_eq!(names_in(&own), ["out.safetensors"]);
}

/// Ways to change a file while keeping its length and its time of modification.
#[derive(Debug, Clone, Copy)]
enum Way {
    Rewritten,
    Replaced,
}

/// Waits until a change of `path` would get a new time, since file times have the resolution of the system clock.
fn until_the_clock_moves(path: &Path) {
    let time_of = |path: &Path| fs::metadata(path).map(|file| (file.ctime(), file.ctime_nsec())).unwrap();
    let probe = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    while time_of(probe.path()) <= time_of(path) {
        probe.as_file().set_modified(std::time::SystemTime::now()).unwrap();
    }
}

fn change(path: &Path, way: Way) {
    until_the_clock_moves(path);
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let bytes = fs::read(path).unwrap();
    let written = match way {
        Way::Rewritten => path.to_owned(),
        Way::Replaced => path.with_extension("other"),
    };
    fs::write(&written, bytes).unwrap();
    File::options().write(true).open(&written).unwrap().set_modified(modified).unwrap();
    fs::rename(written, path).unwrap();
}

/// Options whose conversion changes `path` after it has begun to read.
fn changing(path: &Path, way: Way) -> Options {
    let (path, done) = (path.to_owned(), AtomicBool::new(false));
    Options::new().verify(false).threads(1).memory(Budget::mib(16)).progress(move |_| {
        if !done.swap(true, Ordering::Relaxed) {
            change(&path, way);
        }
    })
}

#[test]
fn a_file_changed_during_its_conversion_is_noticed_whatever_its_time() {
    const ELEMENTS: usize = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (npy, raw, out) = (dir.path().join("a.npy"), dir.path().join("a.raw"), dir.path().join("out.npy"));
    write_npy(&npy, ELEMENTS, 7);
    fs::write(&raw, vec![7; ELEMENTS]).unwrap();
    let frames = RecordOptions::new().raw(None, mmconvert::Dtype::UInt8).shape(None, &[1024]);
    for way in [Way::Rewritten, Way::Replaced] {
        for (path, records) in [(&npy, RecordOptions::new()), (&raw, frames.clone())] {
            let options = changing(path, way).method(mmconvert::Method::Portable).records(records);
            let source = Source::open_with(path, None, &options).unwrap();
            let tensor = source.tensors().next().unwrap().unwrap();
            let result = Converter::new(&tensor).unwrap().options(options).write(&out);
            assert!(matches!(result, Err(Error::Malformed { .. })), "{} {way:?}: {result:?}", path.display());
            assert!(!out.exists());
        }
    }
}

#[test]
fn a_shard_that_is_changed_between_two_conversions_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let from = data("checkpoint/embedding");
    for name in names_in(&from) {
        fs::copy(from.join(&name), dir.path().join(name)).unwrap();
    }
    let shard = names_in(dir.path()).into_iter().find(|name| name.contains(".data-")).unwrap();
    for way in [Way::Rewritten, Way::Replaced] {
        let source = Source::open(dir.path().join("embedding.ckpt")).unwrap();
        let tensors = source.select::<&str>(&[]).unwrap();
        let convert = || Converter::new(&tensors[0]).unwrap().verify(false).overwrite(true).write(dir.path().join("out.npy"));
        convert().unwrap();
        // Reading a file is not a change.
        convert().unwrap();
        change(&dir.path().join(&shard), way);
        let result = convert();
        assert!(matches!(result, Err(Error::Malformed { .. })), "{way:?}: {result:?}");
    }
}

#[test]
fn converting_a_source_keeps_its_file_times() {
    let dir = tempfile::tempdir().unwrap();
    let npy = dir.path().join("a.npy");
    write_npy(&npy, 1 << 20, 7);
    let times = || fs::metadata(&npy).map(|m| (m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec(), m.nlink())).unwrap();
    let before = times();
    until_the_clock_moves(&npy);
    let source = Source::open(&npy).unwrap();
    let tensor = source.tensors().next().unwrap().unwrap();
    // This includes shared blocks, if the file system has them.
    Converter::new(&tensor).unwrap().write(dir.path().join("out.npy")).unwrap();
    export(&source.all().unwrap(), None, dir.path().join("out"), &Options::new()).unwrap();
    assert_eq!(times(), before);
}

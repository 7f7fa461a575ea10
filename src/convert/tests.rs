//! Whatever can be read from local files can be read from any other storage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::export::export;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::source::location::Location;
use crate::storage::blob::{Blob, Storage};
use crate::storage::memory::HeldBytes;
use crate::storage::paths::Found;

/// Where the files in memory are said to be. Nothing is there in the local file system.
const ROOT: &str = "/nowhere/but/in/memory";

/// Files in memory. None of them can be opened in another way.
#[derive(Debug, Default)]
struct MemoryStorage {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryStorage {
    fn add(&mut self, from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (own, held) = (entry.path(), to.join(entry.file_name()));
            if own.is_dir() {
                self.add(&own, &held);
            } else {
                self.files.insert(held, std::fs::read(own).unwrap());
            }
        }
    }

    fn below(&self, dir: &Path) -> impl Iterator<Item = &PathBuf> {
        self.files.keys().filter(move |path| path.starts_with(dir) && path.as_path() != dir)
    }
}

impl Storage for MemoryStorage {
    fn look_at(&self, path: &Path) -> Result<Found> {
        Ok(match self.files.contains_key(path) {
            true => Found::File,
            false if self.below(path).next().is_some() => Found::Directory,
            false => Found::Nothing,
        })
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Blob>> {
        let missing = || Error::io("open", path)(std::io::ErrorKind::NotFound.into());
        Ok(HeldBytes::new(&path.into(), self.files.get(path).ok_or_else(missing)?.clone()))
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let depth = dir.components().count() + 1;
        let mut entries: Vec<PathBuf> = self.below(dir).map(|path| path.components().take(depth).collect()).collect();
        entries.dedup();
        Ok(entries)
    }

    fn len_of(&self, path: &Path) -> Option<u64> {
        self.files.get(path).map(|bytes| bytes.len() as u64)
    }
}

/// What an export made: the names and the bytes of its files, and the tensors that it left out.
#[derive(PartialEq)]
struct Made {
    files: BTreeMap<String, Vec<u8>>,
    skipped: Vec<String>,
}

/// Exports what is at a path; an error is its code.
fn exported(path: &Path, options: &Options) -> Result<Made, &'static str> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let done = Location::find(path, None, options).and_then(|found| found[0].open(options));
    let done = done.and_then(|source| export(&source.all()?, None, &out, options)).map_err(|error| error.code())?;
    let file = |path: &Path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap());
    let skipped = done.skipped.iter().map(|one| one.name.to_string()).collect();
    Ok(Made { files: done.outputs.iter().map(|output| file(&output.path)).collect(), skipped })
}

#[test]
fn every_source_can_be_in_any_storage() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut storage = MemoryStorage::default();
    storage.add(&data, Path::new(ROOT));
    // Files, the directories that they are in, prefixes of checkpoints, and patterns.
    let mut paths: Vec<PathBuf> = storage.files.keys().cloned().collect();
    paths.extend(storage.files.keys().flat_map(|path| path.ancestors().skip(1).take(3).map(Path::to_owned).collect::<Vec<_>>()));
    paths
        .extend(storage.files.keys().filter(|path| path.extension().is_some_and(|end| end == "index")).map(|path| path.with_extension("")));
    paths.extend(["records/*.tfrecord", "records/{a,b}*", "npy/**/*.npy", "generated/six*"].map(|pattern| Path::new(ROOT).join(pattern)));
    paths.retain(|path| path.starts_with(ROOT));
    paths.sort();
    paths.dedup();
    let local = Options::new().memory(crate::Budget::mib(64));
    let held = Options { storage: Some(Arc::new(storage)), ..local.clone() };
    let (mut read, mut refused) = (0, 0);
    for path in paths {
        let own = data.join(path.strip_prefix(ROOT).unwrap());
        let (from_files, from_memory) = (exported(&own, &local), exported(&path, &held));
        match (&from_files, &from_memory) {
            (Ok(_), Ok(_)) => read += 1,
            (Err(_), Err(_)) => refused += 1,
            _ => {}
        }
        // Names are compared first: they show what differs.
        let [own, held] = [&from_files, &from_memory].map(|made| made.as_ref().map(|made| (made.files.keys(), &made.skipped)));
        assert_eq!(format!("{own:?}"), format!("{held:?}"), "{}", path.display());
        assert!(from_files == from_memory, "{}", path.display());
    }
    assert!(read > 200 && refused > 20, "{read} read, {refused} refused");
}

//! Helpers for several modules: paths, hashes, and readers of `.npy` that share no code with the library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use mmconvert::{ArrayWriter, Converted, Converter, MmapArray, Options, Result, Tensor};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Facts as JSON.
pub(crate) fn object(facts: &mmconvert::Facts) -> Value {
    serde_json::to_value(facts).unwrap()
}

/// The directory of the project.
pub(crate) fn project() -> &'static Path {
    // The package of the program is src/bin/mmconvert.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("it lies that deep")
}

pub(crate) fn data(path: &str) -> PathBuf {
    project().join("tests/data").join(path)
}

pub(crate) fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(data(path)).unwrap()).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:02x?}", Sha256::digest(bytes).as_slice()).replace(['[', ']', ',', ' '], "")
}

/// Header text and data of a `.npy` of version 1, found only by its length field.
pub(crate) fn npy(path: &Path) -> (String, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let len = usize::from(bytes[8]) + 256 * usize::from(bytes[9]);
    (String::from_utf8(bytes[10..10 + len].to_vec()).unwrap(), bytes[10 + len..].to_vec())
}

/// Makes an array and maps it.
pub(crate) trait Mapped {
    fn mapped(self, path: impl AsRef<Path>) -> Result<Converted>;
}

impl Mapped for Converter<'_> {
    #[expect(unsafe_code, reason = "the files of tests are their own")]
    fn mapped(self, path: impl AsRef<Path>) -> Result<Converted> {
        // SAFETY: only the test knows the file that it made, and it reads the array before it changes the file.
        unsafe { self.run(path) }
    }
}

/// Finishes an array and maps it.
#[expect(unsafe_code, reason = "the files of tests are their own")]
pub(crate) fn finish(writer: ArrayWriter) -> Result<MmapArray> {
    // SAFETY: only the test knows the file that it made, and it reads the array before it changes the file.
    unsafe { writer.finish_mapped() }
}

/// The shape as a `.npy` header writes it.
pub(crate) fn shape_text(shape: &[u64]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

pub(crate) fn shape_of(tensor: &Value) -> Vec<u64> {
    tensor["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).collect()
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn mmconvert<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mmconvert")).args(args).env_remove("NO_COLOR").output().unwrap()
}

/// The elements that a conversion writes, as bytes.
pub(crate) fn converted(tensor: &Tensor, options: Options) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    Converter::new(tensor).unwrap().options(options).write(&path).unwrap();
    npy(&path).1
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {:?}", output.status))
}

/// Waits for another process.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    /// Longer than anything takes that does not hang.
    const FOR_EVER: Duration = Duration::from_mins(2);
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < FOR_EVER, "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Little-endian integers.
pub(crate) fn ints(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

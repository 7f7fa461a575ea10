//! Finds and loads the TensorFlow library.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use super::session::attempt;
use super::{dataset, open};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::output::staging::hidden::ScratchDir;
use crate::source::container::Container;
use crate::source::graph::file::{DatasetGraph, GraphFile};
use crate::source::runtime::{LIBRARY_DIR, Runtime, missing, register};
use crate::source::saved_model::file::SavedModel;
use crate::types::cancel::CancelToken;

/// The variable in which the `tensorflow` crate looks for the library.
const DIR: &str = LIBRARY_DIR;
/// How much TensorFlow logs to standard error: 0 is everything, 3 only fatal errors.
const LOG_LEVEL: &str = "TF_CPP_MIN_LOG_LEVEL";
/// File names of the library, in releases of the C library and in Python packages.
const NAMES: &[&str] =
    &["libtensorflow.so.2", "libtensorflow.so", "libtensorflow_cc.so.2", "libtensorflow.2.dylib", "libtensorflow_cc.2.dylib"];
const FRAMEWORK: &[&str] = &["libtensorflow_framework.so.2", "libtensorflow_framework.2.dylib"];
/// Library directories beside `LD_LIBRARY_PATH`.
const SYSTEM: &[&str] = &["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
/// Asks Python for the place of its TensorFlow without importing it.
const ASK_PYTHON: &str = "import importlib.util as u; s = u.find_spec('tensorflow'); print(s.submodule_search_locations[0])";

/// The path of the loaded library.
static LOADED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Loads TensorFlow unless it is loaded already, and returns the path of its library.
///
/// It takes the first of: `library` (the library itself, or a directory with it, a Python package, or packages),
/// `TENSORFLOW_DIR`, the system's library path, and the package `tensorflow` of the `python3` on the `PATH`. Without `logs`,
/// unless the environment sets a level, TensorFlow writes nothing to standard error, and the process writes nothing there during
/// loading.
///
/// A program that has loaded the library through the `tensorflow` crate calls [`assume_loaded`] instead. Once a library is
/// loaded, asking for another has no effect.
///
/// # Errors
/// [`Error::Unsupported`] if there is no library, or it cannot be loaded; [`Error::TensorFlow`] if it is another library;
/// [`Error::Io`].
///
/// # Safety
/// Sets `TENSORFLOW_DIR` temporarily and `TF_CPP_MIN_LOG_LEVEL` permanently: no other thread may access the environment meanwhile except
/// through [`mod@std::env`]; C libraries do so for time zones, host names and the like. Nothing made through the `tensorflow` crate may
/// exist: the crate would continue with the functions of another library.
#[expect(unsafe_code, reason = "the obligations of changing the environment are the caller's")]
pub unsafe fn load(library: Option<&Path>, logs: bool) -> Result<PathBuf> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*loaded {
        return Ok(path.clone());
    }
    let path = find(library)?;
    let refused = |why: String| Error::Unsupported { what: format!("the TensorFlow library {}", path.display()), detail: why };
    let links = links(&path)?;
    let before = env::var_os(DIR);
    // SAFETY: the caller vouches that other threads access the environment only through the standard library, which locks it.
    unsafe {
        if !logs && env::var_os(LOG_LEVEL).is_none() {
            env::set_var(LOG_LEVEL, "3");
        }
        env::set_var(DIR, links.path());
    }
    let silence = (!logs).then(Silence::begin);
    let result = ::tensorflow::library::load();
    drop(silence);
    // SAFETY: as above.
    unsafe {
        match before {
            Some(before) => env::set_var(DIR, before),
            None => env::remove_var(DIR),
        }
    }
    result.map_err(refused)?;
    // The first call fails if the library lacks functions that the crate needs.
    attempt(|| format!("asking {} for its version", path.display()), || Ok(::tensorflow::version()?))?;
    *loaded = Some(path.clone());
    register(&Loaded);
    Ok(path)
}

/// Declares that the program has loaded the library through the `tensorflow` crate. If it has not, later calls return errors.
pub fn assume_loaded() {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    register(&Loaded);
}

/// Opens graphs and models once the library is loaded.
struct Loaded;

impl Runtime for Loaded {
    fn open_graph(&self, file: GraphFile, options: &Options) -> Result<Box<dyn Container>> {
        open::open_graph(file, options)
    }

    fn open_dataset(&self, dataset: &DatasetGraph, options: &Options) -> Result<Box<dyn Container>> {
        dataset::open_dataset(dataset, options)
    }

    fn open_signature(&self, model: SavedModel, files: Vec<PathBuf>, options: &Options) -> Result<Box<dyn Container>> {
        open::open_signature(model, files, options)
    }
}

/// Finds the library to load.
fn find(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return at(path).ok_or_else(|| missing(&format!("there is no TensorFlow library at {}", path.display())));
    }
    let named = env::var_os(DIR).map(PathBuf::from);
    if let Some(found) = named.as_deref().and_then(at) {
        return Ok(found);
    }
    let paths = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let system = env::split_paths(&paths).chain(SYSTEM.iter().map(PathBuf::from));
    if let Some(found) = system.filter(|dir| dir.is_absolute()).find_map(|dir| in_dir(&dir)) {
        return Ok(found);
    }
    of_python().ok_or_else(|| match named {
        Some(dir) => missing(&format!("there is no TensorFlow library in {DIR}={}, on the library path or in python3", dir.display())),
        None => missing("no TensorFlow library was found"),
    })
}

/// The library at a path: the file itself, in the directory, or in a package `tensorflow` below it.
fn at(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    ["", "lib", "tensorflow"].iter().find_map(|below| in_dir(&path.join(below)))
}

fn in_dir(dir: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

fn of_python() -> Option<PathBuf> {
    let mut python = Command::new("python3");
    // Skip the current directory, where anybody may have put a module.
    let output = python.args(["-P", "-c", ASK_PYTHON]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok();
    let output = output.filter(|output| output.status.success()).or_else(|| {
        // Python before 3.11 lacks -P.
        let output = Command::new("python3").args(["-I", "-c", ASK_PYTHON]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then_some(output)
    })?;
    in_dir(Path::new(std::str::from_utf8(&output.stdout).ok()?.trim_end_matches('\n')))
}

/// Silences standard error during loading, when TensorFlow ignores the log level.
struct Silence(Option<OwnedFd>);

impl Silence {
    fn begin() -> Self {
        let saved = rustix::io::dup(rustix::stdio::stderr()).ok();
        let nowhere = fs::OpenOptions::new().write(true).open("/dev/null").ok();
        let is_silent = saved.is_some() && nowhere.is_some_and(|nowhere| rustix::stdio::dup2_stderr(nowhere).is_ok());
        Self(saved.filter(|_| is_silent))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            // A failure cannot be reported: standard error is what failed.
            let _ = rustix::stdio::dup2_stderr(saved);
        }
    }
}

/// A private folder with links to the library under the names that the crate looks for.
fn links(library: &Path) -> Result<ScratchDir> {
    let library = fs::canonicalize(library).map_err(Error::io("find", library))?;
    let dir = ScratchDir::create_in(&env::temp_dir(), &CancelToken::new())?;
    let link = |to: &Path, name: &str| symlink(to, dir.path().join(name)).map_err(Error::io("make a link in", dir.path()));
    link(&library, &format!("{}tensorflow{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX))?;
    for name in FRAMEWORK {
        let framework = library.with_file_name(name);
        if framework.is_file() {
            link(&framework, name)?;
        }
    }
    Ok(dir)
}

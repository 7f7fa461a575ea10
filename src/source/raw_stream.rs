//! Frames of one size, and nothing else: standard input, a pipe, a file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::Container;
use super::driver::Driver;
use super::records::{Declared, Encoding, Feature, Framing, Inputs, Key, Patient, RecordContainer, RecordFile, RecordSet};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::paths::{Found, look_at};
use crate::spec::TensorSpec;

/// What stands for standard input.
pub(crate) const STDIN: &str = "-";
/// The name of the only tensor.
pub(crate) const FRAMES: &str = "frames";

/// A stream of frames. Nothing in it says so: whoever opens it does.
pub(crate) struct RawStream;

impl Driver for RawStream {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        Ok((path == Path::new(STDIN)).then(|| path.to_owned()))
    }

    fn resolve_unrecognised(&self, path: &Path, options: &Options) -> Result<Option<PathBuf>> {
        let is_readable = matches!(look_at(path)?, Found::File | Found::Other);
        Ok((is_readable && options.records.raw_of(FRAMES).is_some()).then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let frame = frame(path, options)?;
        let is_stdin = path == Path::new(STDIN);
        let inputs = if is_stdin {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("open", Path::new("standard input")))?;
            Inputs::Once(Mutex::new(Some(Box::new(Patient::new(File::from(stdin), &options.cancel)))), "standard input".into())
        } else if look_at(path)? == Found::Other {
            let pipe = File::open(path).map_err(Error::io("open", path))?;
            Inputs::Once(Mutex::new(Some(Box::new(Patient::new(pipe, &options.cancel)))), path.to_owned())
        } else {
            Inputs::Files(vec![RecordFile { path: path.to_owned(), expected: None }])
        };
        let records = RecordSet { framing: Framing::Fixed(frame.nbytes()), ..of_frames(inputs, &frame) };
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options)))
    }
}

/// Records that are frames.
pub(crate) fn of_frames(inputs: Inputs, frame: &TensorSpec) -> RecordSet {
    let shape = frame.shape().iter().map(|&axis| Some(axis)).collect();
    let declared = Declared::new(frame.dtype(), shape, Encoding::Raw);
    let feature = Feature { name: FRAMES.into(), declared: Some(declared), ..Feature::found(Key::Part(0)) };
    RecordSet { features: vec![feature], discovers: false, ..RecordSet::undescribed(inputs) }
}

/// What a frame is, as it is asked for.
fn frame(path: &Path, options: &Options) -> Result<TensorSpec> {
    let asked = |what: &str| {
        Error::bad_request(format!("{}: a stream of frames needs {what}, as in --raw uint8 --shape 480,640,3", path.display()))
    };
    let dtype = options.records.raw_of(FRAMES).filter(|dtype| *dtype != Dtype::String).ok_or_else(|| asked("--raw DTYPE"))?;
    let shape = options.records.shape_of(FRAMES, true).ok_or_else(|| asked("--shape"))?;
    let shape: Option<Vec<u64>> = shape.iter().map(|&axis| u64::try_from(axis).ok().filter(|&axis| axis > 0)).collect();
    let shape = shape.ok_or_else(|| asked("a shape without 0 and -1"))?;
    TensorSpec::new(dtype, shape).map_err(Error::bad_request)
}

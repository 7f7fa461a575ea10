//! Streams of frames of one size without any header: standard input, a pipe, a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::container::Container;
use super::driver::Driver;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::records::Called;
use crate::records::container::RecordContainer;
use crate::records::feature::{Declared, Encoding, Feature, Key};
use crate::records::set::{Inputs, RecordInput, RecordSet};
use crate::records::stream::bytes::InterruptiblePipe;
use crate::records::stream::files::FileSet;
use crate::records::stream::framing::Framing;
use crate::records::stream::inputs::RecordFile;
use crate::storage::input::open_at_once;
use crate::storage::paths::Found;
use crate::storage::probe::Probe;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// The path of standard input.
pub(crate) const STDIN: &str = "-";
/// The name of the only tensor.
pub(crate) const FRAMES: &str = "frames";

/// A stream of frames. Its content does not identify it; the caller does.
pub(crate) struct RawStream;

impl Driver for RawStream {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        Ok((probe.path() == Path::new(STDIN)).then(|| probe.clone()))
    }

    fn resolve_unrecognised(&self, probe: &Probe, options: &Options) -> Result<Option<Probe>> {
        let is_readable = matches!(probe.found()?, Found::File | Found::Other);
        Ok((is_readable && options.records.has_raw(Called::only(FRAMES))).then(|| probe.clone()))
    }

    fn joins_files(&self) -> bool {
        true
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let frame = Frame::asked(path, options)?;
        if path == Path::new(STDIN) {
            let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("open", Path::new("standard input")))?;
            return Ok(self.of_stream(path, File::from(stdin), "standard input".into(), &frame, options));
        }
        if place.found()? == Found::Other {
            // Do not wait here for somebody to open the pipe for writing. Reading it can be cancelled.
            let pipe = open_at_once(path).map_err(Error::io("open", path))?;
            return Ok(self.of_stream(path, pipe, path.to_owned(), &frame, options));
        }
        let file = RecordFile::new(place, None).starting_at(frame.offset);
        Ok(self.container(path, Inputs::files([file]), &frame, options))
    }

    fn open_files(&self, path: &Path, set: FileSet, options: &Options) -> Result<Box<dyn Container>> {
        let frame = Frame::asked(path, options)?;
        let storage = options.storage(path);
        let file = |path: &PathBuf| RecordFile::new(&Probe::new(&storage, path), None).starting_at(frame.offset);
        Ok(self.container(path, Inputs::files(set.files.iter().map(file)), &frame, options))
    }
}

impl RawStream {
    /// Frames from a pipe, which can be read once.
    fn of_stream(&self, path: &Path, pipe: File, name: PathBuf, frame: &Frame, options: &Options) -> Box<dyn Container> {
        let bytes = Behind { bytes: InterruptiblePipe::new(pipe, &options.cancel), left: frame.offset };
        let input = RecordInput::Once(Mutex::new(Some(Box::new(bytes))), name);
        self.container(path, Inputs::Sequence(vec![input]), frame, options)
    }

    fn container(&self, path: &Path, inputs: Inputs, frame: &Frame, options: &Options) -> Box<dyn Container> {
        let records = of_frames(inputs, &frame.spec, frame.order);
        let records = RecordSet { framing: Framing::Fixed(frame.spec.nbytes()), ..records };
        Box::new(RecordContainer::new(self.name(), path, vec![records], options))
    }
}

/// Skips bytes at the front of a stream.
struct Behind<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Read for Behind<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut passed = [0; 4096];
        while self.left > 0 {
            let most = memory_len(self.left).min(passed.len());
            match self.bytes.read(&mut passed[..most])? {
                0 => {
                    let detail = format!("it ends {} bytes before the offset of the first frame", self.left);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
                }
                read => self.left -= read as u64,
            }
        }
        self.bytes.read(buf)
    }
}

/// A set of records that are frames with elements in this byte order.
pub(crate) fn of_frames(inputs: Inputs, frame: &TensorSpec, order: ByteOrder) -> RecordSet {
    let shape = frame.shape().iter().map(|&axis| Some(axis)).collect();
    let declared = Declared { order, ..Declared::new(frame.dtype(), shape, Encoding::Raw) };
    let feature = Feature { name: FRAMES.into(), declared: Some(declared), ..Feature::found(Key::Part(0)) };
    RecordSet { features: vec![feature], discovers: false, ..RecordSet::undescribed(inputs) }
}

/// The requested form of frames.
struct Frame {
    spec: TensorSpec,
    order: ByteOrder,
    /// The offset of the first frame.
    offset: u64,
}

impl Frame {
    fn asked(path: &Path, options: &Options) -> Result<Self> {
        let asked = |missing| BadRequest::UnknownFrames { path: path.to_owned(), missing };
        let called = Called::only(FRAMES);
        let raw = options.records.raw_of(called).filter(|raw| raw.dtype != Dtype::String).ok_or_else(|| asked("`raw` DTYPE"))?;
        let shape = options.records.shape_of(called, true).ok_or_else(|| asked("`shape`"))?;
        let shape: Option<Vec<u64>> = shape.iter().map(|&axis| u64::try_from(axis).ok().filter(|&axis| axis > 0)).collect();
        let shape = shape.ok_or_else(|| asked("a shape without 0 and -1"))?;
        let spec = TensorSpec::new(raw.dtype, shape)?;
        Ok(Self { spec, order: raw.order.unwrap_or_else(|| options.form.order()), offset: options.records.offset.get().unwrap_or(0) })
    }
}

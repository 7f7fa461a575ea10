//! Video files, decoded by the `ffmpeg` that is installed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::Container;
use super::driver::Driver;
use super::raw_stream::of_frames;
use super::records::{Framing, Inputs, Patient, RecordContainer, RecordSet, ppm_header, read_error};
use crate::cancel::CancelToken;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::paths::is_file;
use crate::spec::TensorSpec;

/// Videos in containers that are told by their first bytes.
pub(crate) struct Video;

impl Driver for Video {
    fn name(&self) -> &'static str {
        "video"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        if !is_file(path)? {
            return Ok(None);
        }
        let mut front = [0; 12];
        let file = File::open(path).map_err(Error::io("open", path))?;
        let is_video = file.read_exact_at(&mut front, 0).is_ok() && is_video(&front);
        Ok(is_video.then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let frame = first_frame(path, &options.cancel)?;
        let video = path.to_owned();
        let program = Inputs::Program(path.to_owned(), Box::new(move |cancel| decode(&video, cancel)));
        let records = RecordSet { framing: Framing::Ppm, ..of_frames(program, &frame) };
        Ok(Box::new(RecordContainer::new(self.name(), path, vec![records], options)))
    }
}

/// MP4 and QuickTime, AVI, Matroska and WebM, MPEG program streams, Flash, Ogg.
fn is_video(front: &[u8; 12]) -> bool {
    matches!(
        front,
        [_, _, _, _, b'f', b't', b'y', b'p', ..]
            | [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ']
            | [0x1a, 0x45, 0xdf, 0xa3, ..]
            | [0, 0, 1, 0xba, ..]
            | [b'F', b'L', b'V', 1, ..]
            | [b'O', b'g', b'g', b'S', ..]
    )
}

/// How large the frames are.
fn first_frame(path: &Path, cancel: &CancelToken) -> Result<TensorSpec> {
    let mut frames = start(path, &["-frames:v", "1"], cancel)?;
    let mut front = Vec::new();
    let header = loop {
        if let Some(header) = ppm_header(&front).map_err(|detail| Error::malformed(path, "video", detail))? {
            break header;
        }
        let mut next = [0];
        match frames.read(&mut next).map_err(|error| read_error(path, 0, error))? {
            0 => return Err(Error::malformed(path, "video", "ffmpeg found no frame in it")),
            _ => front.push(next[0]),
        }
    };
    let (_, width, height) = header;
    TensorSpec::new(Dtype::UInt8, vec![height, width, 3]).map_err(|detail| Error::malformed(path, "video", detail))
}

/// The frames of a video as PPM images, which say how large they are.
///
/// # Errors
/// [`Error::NotFound`] where there is no `ffmpeg`.
fn decode(path: &Path, cancel: &CancelToken) -> Result<Box<dyn Read + Send>> {
    Ok(Box::new(start(path, &[], cancel)?))
}

fn start(path: &Path, more: &[&str], cancel: &CancelToken) -> Result<Frames> {
    // A name can neither be an option nor an address.
    let mut input = std::ffi::OsString::from("file:");
    input.push(path);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe", "-i"]).arg(input);
    // Every frame once, whatever its time.
    command.args(["-map", "0:v:0", "-vsync", "passthrough"]).args(more).args(["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]);
    // A signal to us is not one to it: it ends when we do.
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let detail = format!(
                "{} is a video, and decoding it takes the program ffmpeg, which is not on the PATH: install it (apt install ffmpeg)",
                path.display()
            );
            Error::NotFound { what: "ffmpeg", detail }
        }
        _ => Error::io("start ffmpeg for", path)(error),
    })?;
    let missing = || Error::bad_request("ffmpeg has no output");
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let mut stderr = child.stderr.take().ok_or_else(missing)?;
    // What it complains about is read meanwhile, or it would wait for that for ever.
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.by_ref().take(MOST_COMPLAINTS).read_to_end(&mut text);
        let _ = io::copy(&mut stderr, &mut io::sink());
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    Ok(Frames { child, stdout: Patient::new(stdout, cancel), complaints: Some(complaints) })
}

const MOST_COMPLAINTS: u64 = 4096;

/// What `ffmpeg` writes. It ends well only if `ffmpeg` does.
struct Frames {
    child: Child,
    stdout: Patient<ChildStdout>,
    complaints: Option<std::thread::JoinHandle<String>>,
}

impl Read for Frames {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buf)?;
        if read == 0 && !buf.is_empty() {
            let status = self.child.wait()?;
            let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
            // It goes on after damages, and tells of them.
            if !status.success() || !complaints.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("ffmpeg ({status}): {complaints}")));
            }
        }
        Ok(read)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // Nobody wants the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

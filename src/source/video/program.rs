//! Runs FFmpeg's programs, reads their output, and decides who is to blame when they fail.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::pixels::FrameForm;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::records::stream::bytes::InterruptiblePipe;
use crate::types::cancel::CancelToken;

/// The program that decodes.
pub(crate) const PROGRAM: &str = "ffmpeg";
/// The program that lists streams.
pub(crate) const PROBE: &str = "ffprobe";
const MOST_COMPLAINTS: u64 = 4096;

/// Options to get every frame once, whatever its time. Versions from 5.1 on have the first; version 9 has dropped the second.
const EVERY_FRAME: [[&str; 2]; 2] = [["-fps_mode", "passthrough"], ["-vsync", "passthrough"]];
/// Numbers the frames to give them distinct times: equal times are refused on output. With the video's frame rate, times stay
/// distinct in the output's time base; without one, frames are counted in that time base.
const NUMBERED: &str = "settb=1/90000,setpts=if(gt(FRAME_RATE\\,0)*lt(FRAME_RATE\\,45000)\\,N*90000/FRAME_RATE\\,N)";
/// The first `libavcodec` whose threads report all damage, in FFmpeg 7. Before, with threads, three of four runs over a frame
/// with a flipped byte succeeded; without threads, none did.
const TELLS_WITH_THREADS: u32 = 61;

/// Properties of the installed `ffmpeg`.
#[derive(Debug, Clone, Copy)]
struct Installed {
    every_frame: [&'static str; 2],
    has_reliable_threads: bool,
}

/// A file as an input argument. Its name cannot be taken for an option or a URL.
pub(crate) fn input(path: &Path) -> OsString {
    let mut input = OsString::from("file:");
    input.push(path);
    input
}

/// Runs a program on a file and waits for its end.
///
/// # Errors
/// [`Error::NotFound`] if the program is missing, [`Error::Io`], [`Error::Cancelled`].
pub(crate) fn run(program: &str, args: &[&str], path: &Path, cancel: &CancelToken) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(args).arg(input(path));
    finish(command, &[], cancel).map_err(|error| not_done(program, path, error))
}

/// Runs a program with `input` and waits for its end. Our signals do not reach it; cancelling kills it.
///
/// # Errors
/// Those of starting it and reading its output, and [`Error::Cancelled`] inside one.
fn finish(mut command: Command, input: &[u8], cancel: &CancelToken) -> io::Result<Output> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = Running(command.spawn()?);
    // If it does not read its input, it explains why in its output.
    let _ = child.0.stdin.take().map(|mut stdin| stdin.write_all(input));
    let (out, complaints) = child.outputs().map_err(io::Error::other)?;
    let complaints = collect(complaints, u64::MAX, cancel);
    let mut stdout = Vec::new();
    InterruptiblePipe::new(out, cancel).read_to_end(&mut stdout)?;
    let status = child.wait(cancel)?;
    Ok(Output { status, stdout, stderr: complaints.join().unwrap_or_default() })
}

/// Reads the program's complaints while it runs, since it would block on a full pipe. Keeps the first `most` bytes.
fn collect(complaints: ChildStderr, most: u64, cancel: &CancelToken) -> JoinHandle<Vec<u8>> {
    // Another process may hold the pipe open after this one has ended.
    let mut complaints = InterruptiblePipe::new(complaints, cancel);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = complaints.by_ref().take(most).read_to_end(&mut text);
        let _ = io::copy(&mut complaints, &mut io::sink());
        text
    })
}

/// A running program. Dropping it kills the program, since nobody needs the rest.
struct Running(Child);

impl Running {
    /// Its standard output and standard error.
    fn outputs(&mut self) -> Result<(ChildStdout, ChildStderr)> {
        let missing = || BadRequest::impossible("ffmpeg has no output");
        Ok((self.0.stdout.take().ok_or_else(missing)?, self.0.stderr.take().ok_or_else(missing)?))
    }

    /// Waits for its end, or until cancelled.
    fn wait(&mut self, cancel: &CancelToken) -> io::Result<ExitStatus> {
        const LONGEST: Duration = Duration::from_millis(50);
        let mut pause = Duration::from_millis(1);
        while !cancel.is_cancelled() {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
        Err(io::Error::other(Error::Cancelled))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The error for a program that could not be started or read to its end.
fn not_done(program: &str, path: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound {
        return Error::io("run ffmpeg for", path)(error);
    }
    let detail = format!(
        "{} is a video, and decoding it takes the program {program}, which is not on the PATH: install it (apt install ffmpeg)",
        path.display()
    );
    Error::NotFound { what: "ffmpeg", detail }
}

/// What to decode, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct Decoding {
    pub(crate) path: PathBuf,
    /// The stream's number among all streams of the file.
    pub(crate) stream: u64,
    /// The decoder, if not the default one.
    pub(crate) decoder: Option<&'static str>,
    pub(crate) form: FrameForm,
}

impl Decoding {
    /// Starts decoding frames as PAM images; `only_first` stops after one.
    ///
    /// # Errors
    /// [`Error::NotFound`] if `ffmpeg` is missing, [`Error::Io`] if it fails on any input.
    pub(crate) fn start(&self, only_first: bool, cancel: &CancelToken) -> Result<Frames> {
        let installed = installed(&self.path, cancel)?;
        let mut command = Command::new(PROGRAM);
        command.args(["-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe"]);
        command.args(if installed.has_reliable_threads { &[][..] } else { &["-threads", "1"] });
        command.args(self.decoder.into_iter().flat_map(|decoder| ["-c:v", decoder]));
        command.arg("-i").arg(input(&self.path)).arg("-map").arg(format!("0:{}", self.stream));
        command.args(if only_first { &["-frames:v", "1"][..] } else { &[] }).args(output(installed.every_frame, self.form.name));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Our signals do not reach it; it ends when we do.
        command.process_group(0);
        let mut child = Running(command.spawn().map_err(|error| not_done(PROGRAM, &self.path, error))?);
        let (stdout, stderr) = child.outputs()?;
        let complaints = collect(stderr, MOST_COMPLAINTS, cancel);
        let (cancel, stdout) = (cancel.clone(), InterruptiblePipe::new(stdout, cancel));
        Ok(Frames { path: self.path.clone(), child, cancel, stdout, complaints: Some(complaints) })
    }
}

/// Output options: every frame is a separate image, whose header gives its size.
fn output<'a>(every: [&'a str; 2], pixels: &'a str) -> impl Iterator<Item = &'a str> {
    every.into_iter().chain(["-vf", NUMBERED, "-f", "image2pipe", "-c:v", "pam", "-pix_fmt", pixels, "-"])
}

/// Examines the installed `ffmpeg`, once.
///
/// It has to convert an image of four gray pixels in the same way as frames. If it cannot, the videos are not to blame.
///
/// # Errors
/// [`Error::NotFound`] if `ffmpeg` is missing, [`Error::Io`] if it fails on any input.
fn installed(path: &Path, cancel: &CancelToken) -> Result<Installed> {
    static FOUND: Mutex<Option<Installed>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = *found {
        return Ok(found);
    }
    let mut said = String::new();
    for every in EVERY_FRAME {
        let mut command = Command::new(PROGRAM);
        command.args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "gray", "-s", "2x2", "-i", "-"]).args(output(every, "gray"));
        let done = finish(command, &[0, 85, 170, 255], cancel).map_err(|error| not_done(PROGRAM, path, error))?;
        if done.status.success() && done.stdout.starts_with(b"P7") && done.stdout.ends_with(&[0, 85, 170, 255]) {
            let installed = Installed {
                every_frame: every,
                has_reliable_threads: codec_version(cancel).is_some_and(|version| version >= TELLS_WITH_THREADS),
            };
            *found = Some(installed);
            return Ok(installed);
        }
        // Keep the first complaint: a later one may be about an option that newer versions lack.
        let text = format!("{}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
        said = if said.is_empty() { text } else { format!("{said}; {text}") };
    }
    Err(by_itself(path, &said))
}

/// The version of the installed `libavcodec`, if `ffmpeg` prints it.
fn codec_version(cancel: &CancelToken) -> Option<u32> {
    let mut command = Command::new(PROGRAM);
    command.arg("-version");
    let said = finish(command, &[], cancel).ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().find_map(|line| line.trim().strip_prefix("libavcodec")?.trim().split('.').next()?.trim().parse().ok())
}

/// The error for an `ffmpeg` that fails on any input.
fn by_itself(path: &Path, said: &str) -> Error {
    let detail = format!("the ffmpeg on the PATH does not work, on any video: {said}");
    Error::Io { action: "decode", path: path.to_owned(), source: io::Error::other(detail) }
}

/// The error for an `ffmpeg` that was killed by a signal.
pub(crate) fn ended_by(path: &Path, signal: i32, complaints: &str) -> Error {
    let complaints = if complaints.is_empty() { String::new() } else { format!(": {complaints}") };
    let detail = format!("ffmpeg was ended by signal {signal}; another version may work{complaints}");
    Error::Io { action: "decode", path: path.to_owned(), source: io::Error::other(detail) }
}

/// The output of `ffmpeg`. Reading succeeds at the end only if `ffmpeg` did.
pub(crate) struct Frames {
    path: PathBuf,
    child: Running,
    cancel: CancelToken,
    stdout: InterruptiblePipe<ChildStdout>,
    complaints: Option<JoinHandle<Vec<u8>>>,
}

impl Frames {
    /// The error for how it ended: blames `ffmpeg` or the video.
    fn failure(&self, status: ExitStatus, complaints: &str) -> Error {
        if let Some(signal) = status.signal() {
            return ended_by(&self.path, signal, complaints);
        }
        let lacks_decoder = ["Decoder", "decoder"].iter().any(|word| complaints.contains(word))
            && ["not found", "Unknown", "No decoder"].iter().any(|word| complaints.contains(word));
        if lacks_decoder {
            let detail = format!("the ffmpeg on the PATH has no decoder for it: {complaints}");
            return Error::Io { action: "decode", path: self.path.clone(), source: io::Error::other(detail) };
        }
        Error::malformed(&self.path, "video", format!("ffmpeg ({status}) says: {complaints}"))
    }
}

impl Read for Frames {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(buf)?;
        if read == 0 && !buf.is_empty() {
            let status = self.child.wait(&self.cancel)?;
            let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
            let complaints = String::from_utf8_lossy(&complaints).trim().to_owned();
            // It continues after damage, and reports it.
            if !status.success() || !complaints.is_empty() {
                return Err(io::Error::other(self.failure(status, &complaints)));
            }
        }
        Ok(read)
    }
}

/// Whether the installed `ffmpeg` has this decoder.
pub(crate) fn has_decoder(name: &OsStr, cancel: &CancelToken) -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(["-v", "error", "-decoders"]);
    let listed = finish(command, &[], cancel);
    let is_it = |line: &str| line.split_whitespace().nth(1).is_some_and(|word| OsStr::new(word) == name);
    listed.is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).lines().any(is_it))
}

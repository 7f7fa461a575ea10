//! Signals: blocked calls return, nothing is left behind, and a second signal ends the program at once.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::kernel;
use crate::support::{code, data, names_in, npy, stderr, until};

/// A program that is killed if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// A signal set of the process, from `/proc/PID/status`.
    fn signals(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap_or("0");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    /// Waits until the program has installed its signal handlers.
    fn until_signals_are_handled(&self) {
        until("a handler", || self.signals("SigCgt") & 1 << (Signal::INT.as_raw() - 1) != 0);
    }

    fn has_open(&self, path: &Path) -> bool {
        let opened = fs::read_dir(format!("/proc/{}/fd", self.0.id())).into_iter().flatten().flatten();
        opened.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == path))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        until("a delivery", || self.signals("ShdPnd") == 0 && self.signals("SigPnd") == 0);
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The exit code.
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        until("an end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

fn mmconvert() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mmconvert"))
}

fn fifo(dir: &Path) -> std::path::PathBuf {
    let path = dir.canonicalize().unwrap().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

fn frames(command: &mut Command, source: &Path, out: &Path) -> Running {
    Running::start(command.arg("convert").arg(source).args(["--raw", "uint8", "--shape", "4,4", "-o"]).arg(out))
}

#[test]
fn a_pipe_that_nobody_writes_to_can_be_interrupted() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let dir = tempfile::tempdir().unwrap();
        let source = fifo(dir.path());
        let mut running = frames(&mut mmconvert(), &source, &dir.path().join("x.npy"));
        running.until_signals_are_handled();
        until("an open pipe", || running.has_open(&source));
        running.signal(signal);
        assert_eq!(running.end(), Some(code));
        assert_eq!(names_in(dir.path()), ["fifo"]);
    }
}

#[test]
fn a_pipe_whose_writer_stops_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let source = fifo(dir.path());
    let mut running = frames(&mut mmconvert(), &source, &dir.path().join("x.npy"));
    until("an open pipe", || running.has_open(&source));
    let mut writer = fs::OpenOptions::new().write(true).open(&source).unwrap();
    writer.write_all(&[7; 40]).unwrap();
    running.until_signals_are_handled();
    running.signal(Signal::INT);
    assert_eq!(running.end(), Some(130));
    assert_eq!(names_in(dir.path()), ["fifo"]);
    // The same for standard input.
    let mut running = Running::start(
        mmconvert().args(["convert", "-", "--raw", "uint8", "--shape", "4", "-o"]).arg(dir.path().join("x.npy")).stdin(Stdio::piped()),
    );
    running.until_signals_are_handled();
    running.signal(Signal::INT);
    assert_eq!(running.end(), Some(130));
    assert_eq!(names_in(dir.path()), ["fifo"]);
}

#[test]
fn a_pipe_is_read_to_the_end_however_late_its_writer_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fifo(dir.path()), dir.path().join("x.npy"));
    let mut running = frames(&mut mmconvert(), &source, &out);
    until("an open pipe", || running.has_open(&source));
    let mut writer = fs::OpenOptions::new().write(true).open(&source).unwrap();
    for part in [20, 44, 16] {
        writer.write_all(&vec![7; part]).unwrap();
    }
    drop(writer);
    assert_eq!(running.end(), Some(0));
    assert_eq!(crate::support::npy(&out).1, [7; 80]);
}

#[test]
fn an_output_that_nobody_reads_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("long.raw");
    fs::write(&source, vec![7; 4 << 20]).unwrap();
    let mut running = frames(mmconvert().stdout(Stdio::piped()), &source, Path::new("-"));
    let mut out = running.0.stdout.take().unwrap();
    // The program has started to write; the pipe holds less than the array.
    out.read_exact(&mut [0; 16]).unwrap();
    running.until_signals_are_handled();
    running.signal(Signal::INT);
    assert_eq!(running.end(), Some(130));
    // A slow reader gets the whole array.
    let mut running = frames(mmconvert().stdout(Stdio::piped()), &source, Path::new("-"));
    let mut bytes = Vec::new();
    running.0.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(running.end(), Some(0));
    assert!(bytes.len() > 4 << 20 && bytes[bytes.len() - (4 << 20)..].iter().all(|&byte| byte == 7));
}

/// A pipe that is full.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer.into())
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for (first, second, code) in [(Signal::INT, Signal::INT, 130), (Signal::TERM, Signal::HUP, 129)] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x.npy");
        let (reader, stdout) = full_pipe();
        let source = data("safetensors/all.safetensors");
        let args = ["convert".as_ref(), source.as_os_str(), "f32".as_ref(), "--json".as_ref(), "-o".as_ref(), out.as_os_str()];
        let mut running = Running::start(mmconvert().args(args).stdout(stdout));
        // Only the report is left to write, and nobody reads it.
        until("an output", || out.exists() || !running.is_running());
        assert!(running.is_running());
        running.signal(first);
        assert!(running.is_running(), "it waits for its reader");
        running.signal(second);
        assert_eq!(running.end(), Some(code));
        drop(reader);
    }
}

/// Calls that signals may interrupt and that are then repeated. For each: the arguments that cause it, the output, and whether the source or the output is
/// its file.
const INTERRUPTED: [(libc::c_long, &[&str], &str, bool); 12] = [
    (libc::SYS_preadv2, &[], "x.npy", true),
    (libc::SYS_preadv2, &["--method", "map"], "x.npy", true),
    (libc::SYS_pread64, &["--method", "portable"], "x.npy", true),
    (libc::SYS_pread64, &["--method", "portable", "--layout", "F"], "x.npy", true),
    (libc::SYS_pwritev2, &["--method", "uncached"], "x.npy", false),
    (libc::SYS_pwritev2, &["--method", "uncached", "--layout", "F"], "x.npy", false),
    (libc::SYS_pwrite64, &["--method", "portable"], "x.npy", false),
    (libc::SYS_pwrite64, &["--method", "portable", "--layout", "F"], "x.npy", false),
    (libc::SYS_fallocate, &["--method", "map"], "x.npy", false),
    (libc::SYS_ftruncate, &[], "x.npy", false),
    (libc::SYS_ioctl, &[], "x.npy", false),
    // The manifest.
    (libc::SYS_write, &[], "d/", false),
];

/// Converts `source` while one kind of call is interrupted. `go_on` gets the number of interruptions and the thread.
fn interrupted(case: usize, source: &Path, out: &Path, mut go_on: impl FnMut(u64, u32) -> bool + Send) -> (u64, std::process::Output) {
    const FICLONERANGE: u64 = 0x4020_940d;
    let (number, words, _, is_source) = INTERRUPTED[case];
    let mut times = 0;
    let mut command = mmconvert();
    command.arg("convert").arg(source).args(["--memory", "24MiB"]).args(words).arg("-o").arg(out);
    let done = kernel::run(command, &[number], |call| {
        // The front of the source is read before signal handlers are installed.
        let is_front = call.args[3] < 1 << 20;
        let is_it = match number {
            libc::SYS_ioctl => call.args[1] == FICLONERANGE,
            _ if is_source => call.file(0) == *source && !is_front,
            // Directories are synced after the output has its name, when the run can no longer be cancelled.
            _ => call.file(0).starts_with(out.parent().unwrap()) && !call.file(0).is_dir(),
        };
        if !is_it {
            return None;
        }
        times += 1;
        go_on(times, call.thread).then_some(libc::EINTR)
    });
    (times, done)
}

#[test]
fn interrupted_calls_are_repeated_until_cancelled() {
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path().canonicalize().unwrap().join("rows.npy");
    let bytes: Vec<u8> = (0..4u32 << 20).map(|at| ((at * 7) >> 3) as u8).collect();
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (4096, 512), }";
    let mut file = [b"\x93NUMPY\x01\x00\x76\x00", format!("{header:<117}\n").as_bytes()].concat();
    file.extend_from_slice(&bytes);
    fs::write(&source, file).unwrap();
    for (case, (number, words, name, _)) in INTERRUPTED.iter().enumerate() {
        let what = format!("call {number} with {words:?}");
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().canonicalize().unwrap().join(name);
        // Interrupt a few times.
        let (times, done) = interrupted(case, &source, &out, |times, _| times < 4);
        assert!(times > 0, "{what}: it is not made");
        assert_eq!(code(&done), 0, "{what}: {}", stderr(&done));
        let values = npy(&if out.is_dir() { out.join("rows.npy") } else { out.clone() }).1;
        assert!(values.len() == bytes.len() && (words.contains(&"F") || values == bytes), "{what}");
        let gone = if out.is_dir() { fs::remove_dir_all(&out) } else { fs::remove_file(&out) };
        gone.unwrap();
        // Interrupt until a signal cancels.
        let (times, done) = interrupted(case, &source, &out, |times, thread| {
            let signal = match times {
                3 => Some(Signal::INT),
                100_000 => Some(Signal::KILL),
                _ => None,
            };
            let sent = signal.map(|signal| kill_process(Pid::from_raw(thread.cast_signed()).unwrap(), signal));
            assert!(sent.is_none_or(|sent| sent.is_ok()));
            true
        });
        assert_eq!(code(&done), 130, "{what}, {times} times: {}", stderr(&done));
        assert!(names_in(dir.path()).is_empty(), "{what}: {:?}", names_in(dir.path()));
    }
}

#[test]
fn every_read_of_a_source_can_be_cancelled() {
    const READS: [libc::c_long; 3] = [libc::SYS_read, libc::SYS_pread64, libc::SYS_preadv2];
    const SOURCES: [&str; 20] = [
        "generated/dtypes",
        "generated/six_shards",
        "savedmodel/half_plus_two",
        "savedmodel/half_plus_two_tf2",
        "narrow-h5/narrow.h5",
        "safetensors/all.safetensors",
        "keras/dk.weights.h5",
        "keras/dk_model.keras",
        "keras-shards/m.weights.json",
        "npy/npyio/data_float64_corder.npz",
        "npy/generated/u8_be_f.npy",
        "records/mixed_plain.tfrecord",
        "records/mixed_gz.tfrecord",
        "tf-data/cache_strings",
        "tf-data/save_snappy",
        "tf-data/distributed",
        "tfds/labels",
        "protos/graph/dtypes.pb",
        "protos/tensorproto/dev__string__r2_4_0x1618.pb",
        "protos/v1/dtypes.ckpt",
    ];
    let root = data("").canonicalize().unwrap();
    for source in SOURCES {
        let source = root.join(source);
        // Runs the program and interrupts each read from number `from` on until it ends.
        let convert = |from: u64| {
            let dir = tempfile::tempdir().unwrap();
            let mut command = mmconvert();
            command.arg("convert").arg(&source).args(["--memory", "24MiB", "-q", "-o"]).arg(dir.path().join("out"));
            let mut times = 0u64;
            let done = kernel::run(command, &READS, |call| {
                if !call.file(0).starts_with(&root) {
                    return None;
                }
                times += 1;
                let signal = match times.checked_sub(from)? {
                    2 => Some(Signal::INT),
                    20_000 => Some(Signal::KILL),
                    _ => None,
                };
                let sent = signal.map(|signal| kill_process(Pid::from_raw(call.thread.cast_signed()).unwrap(), signal));
                assert!(sent.is_none_or(|sent| sent.is_ok()));
                Some(libc::EINTR)
            });
            (times, done, names_in(dir.path()))
        };
        let (reads, done, made) = convert(u64::MAX);
        let what = format!("{} with {reads} reads", source.display());
        assert!(reads > 0 && made == ["out"], "{what}: {}", stderr(&done));
        for from in (1..=reads).step_by(1 + reads as usize / 6) {
            let (_, done, left) = convert(from);
            assert_eq!((done.status.code(), left), (Some(130), vec![]), "{what}, from {from} on: {}", stderr(&done));
        }
    }
}

#[test]
fn only_sources_read_as_streams_may_be_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = fifo(dir.path());
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("out")).unwrap();
    for name in ["out/manifest.json", "c.index", "c.data-00000-of-00001", "saved_model.pb", "checkpoint"] {
        std::os::unix::fs::symlink(&pipe, at(name)).unwrap();
    }
    let source = data("checkpoint/embedding/embedding.ckpt");
    for args in [
        vec!["verify".into(), at("out")],
        vec!["verify".into(), pipe.clone(), "--against".into(), source],
        vec!["convert".into(), at("c"), "-o".into(), at("x.npy")],
        vec!["convert".into(), at("c.index"), "-o".into(), at("x.npy")],
        vec!["convert".into(), dir.path().into(), "-o".into(), at("x.npy")],
        vec!["convert".into(), at("saved_model.pb"), "--format".into(), "graph-def".into(), "-o".into(), at("x.npy")],
        vec!["convert".into(), pipe.clone(), "-o".into(), at("x.npy")],
        vec!["ls".into(), pipe.clone()],
        vec!["info".into(), at("c")],
    ] {
        let mut running = Running::start(mmconvert().args(&args).stdout(Stdio::null()));
        assert!(running.end().is_some_and(|code| code > 0 && code < 64), "{args:?}");
    }
}

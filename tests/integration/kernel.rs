//! A program whose system calls fail as a test decides, without root.
//!
//! The kernel asks the test about each call that it subscribes to (seccomp user notification, Linux 5.5). The test lets it
//! continue, or fail with an error number. This simulates a file system that lacks a call, or a disk that fails at a certain one.
//!
//! Source: `seccomp(2)`, `seccomp_unotify(2)`.
#![expect(unsafe_code, reason = "filters of system calls have no safe interface; each block argues its safety")]

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};

/// A system call that the program is about to make.
pub(crate) struct Call {
    pub(crate) number: libc::c_long,
    pub(crate) args: [u64; 6],
    /// The thread that makes it.
    pub(crate) thread: u32,
}

impl Call {
    /// The path that an argument points to.
    pub(crate) fn path(&self, argument: usize) -> PathBuf {
        let memory = fs::File::open(format!("/proc/{}/mem", self.thread)).unwrap();
        let mut bytes = vec![0; 4096];
        // The path may be near the end of mapped memory.
        let read = (0..=4096).rev().step_by(256).find_map(|len| memory.read_at(&mut bytes[..len], self.args[argument]).ok());
        bytes.truncate(read.unwrap_or(0));
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        PathBuf::from(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// The file of a descriptor among the arguments.
    pub(crate) fn file(&self, argument: usize) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/{}", self.thread, self.args[argument] as i32)).unwrap_or_default()
    }

    /// The flags with which that file was opened.
    pub(crate) fn flags(&self, argument: usize) -> i32 {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{}", self.thread, self.args[argument] as i32)).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0)
    }

    /// The length of that file.
    pub(crate) fn file_len(&self, argument: usize) -> u64 {
        fs::metadata(format!("/proc/{}/fd/{}", self.thread, self.args[argument] as i32)).map_or(0, |file| file.len())
    }
}

/// Runs a program and asks `decide` about each of `calls`: `None` continues it, an error number makes it fail.
pub(crate) fn run(mut program: Command, calls: &[libc::c_long], mut decide: impl FnMut(&Call) -> Option<i32> + Send) -> Output {
    let filter = filter(calls);
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a pair of sockets");
    let send = move || install(&filter).and_then(|listener| send_fd(&theirs, &listener));
    // SAFETY: between fork and exec the closure only makes system calls, with memory that was allocated before.
    unsafe { program.pre_exec(send) };
    let child = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("seccomp filters (Linux 5.5)");
    drop(program);
    let listener = receive_fd(&ours).expect("a listener");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(call) = next(&listener) {
                answer(&listener, call.0, decide(&call.1));
            }
        });
        child.wait_with_output().unwrap()
    })
}

/// A filter that reports `calls` and allows all others.
fn filter(calls: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let load = libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
    let give = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let mut filter = vec![load];
    for &number in calls {
        // Continue with the next instruction on a match, else skip it.
        filter.push(libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: number as u32 });
        filter.push(give(libc::SECCOMP_RET_USER_NOTIF));
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    filter
}

fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the first call takes numbers only; the second reads the filter, which outlives it, and returns a new descriptor.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) {
            -1 => Err(io::Error::last_os_error()),
            listener => Ok(OwnedFd::from_raw_fd(listener as i32)),
        }
    }
}

fn send_fd(socket: &OwnedFd, fd: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); 64];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(message.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"x")], &mut message, SendFlags::empty())?;
    Ok(())
}

fn receive_fd(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); 64];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC).ok()?;
    message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND` of linux/seccomp.h.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// Waits for the next call; `None` when the program has ended.
fn next(listener: &OwnedFd) -> Option<(u64, Call)> {
    loop {
        let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one `pollfd` is read and written.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
            continue;
        }
        if poll.revents & libc::POLLIN == 0 {
            return None;
        }
        let mut notice = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the kernel fills one `seccomp_notif`, which must be zeroed before; any bytes are a valid value.
        let notice = unsafe {
            match libc::ioctl(listener.as_raw_fd(), RECEIVE as _, notice.as_mut_ptr()) {
                0 => notice.assume_init(),
                // The thread was killed meanwhile.
                _ => continue,
            }
        };
        let call = Call { number: notice.data.nr.into(), args: notice.data.args, thread: notice.pid };
        return Some((notice.id, call));
    }
}

fn answer(listener: &OwnedFd, id: u64, error: Option<i32>) {
    const CONTINUE: u32 = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let flags = if error.is_none() { CONTINUE } else { 0 };
    let response = libc::seccomp_notif_resp { id, val: 0, error: -error.unwrap_or(0), flags };
    // SAFETY: the kernel reads one `seccomp_notif_resp`. A thread that was killed meanwhile does no harm.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) };
}

//! Linux system calls.
#![expect(unsafe_code, reason = "four system calls have no safe interface; each block argues its safety")]

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, StatxAttributes, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::attributes::Attributes;
use super::direct::Alignment;

/// `RWF_DONTCACHE` of Linux 6.14: pages that the call adds to the cache are dropped after the copy or the write to disk.
const UNCACHED: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Converts an errno to an error; those in `unknown` become "not supported".
fn answer(errno: Errno, unknown: &[Errno]) -> io::Error {
    if unknown.contains(&errno) { io::ErrorKind::Unsupported.into() } else { errno.into() }
}

/// Creates an unnamed file in `dir`.
pub(crate) fn unnamed_file(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666));
    opened.map(File::from).map_err(|e| answer(e, &[Errno::OPNOTSUPP, Errno::ISDIR, Errno::INVAL]))
}

/// Names an unnamed file; fails if the name is taken.
pub(crate) fn name_file(file: &File, name: &Path) -> io::Result<()> {
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, proc.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW) {
        // Without /proc: naming by descriptor needs a privilege before Linux 6.10, but may work.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(rustix::fs::linkat(file.as_fd(), "", CWD, name, AtFlags::EMPTY_PATH)?),
        result => Ok(result?),
    }
}

/// Errors of rename on a file system that does not know the flags.
const NO_FLAGS: [Errno; 3] = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];

/// Renames unless the new name exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(|e| answer(e, &NO_FLAGS))
}

/// Exchanges two names atomically.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|e| answer(e, &NO_FLAGS))
}

/// Reads the attributes of `path`; a symbolic link is not followed. The result is empty if the system does not report them.
///
/// Source: `statx(2)`, `stx_attributes`.
pub(crate) fn attributes(path: &Path) -> Attributes {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    let has = |flags: StatxAttributes| found.as_ref().is_ok_and(|found| found.stx_attributes.intersects(flags));
    Attributes { is_fixed: has(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND), is_mount_point: has(StatxAttributes::MOUNT_ROOT) }
}

/// Allocates blocks for `range`, which may lengthen the file.
pub(crate) fn reserve(file: &File, range: &Range<u64>) -> io::Result<()> {
    let len = range.end - range.start;
    rustix::fs::fallocate(file, FallocateFlags::empty(), range.start, len)
        .map_err(|e| answer(e, &[Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL]))
}

/// Syncs the data of `file` and the metadata needed to find it.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

/// Syncs the data and all metadata of `file`.
pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fsync(file)?)
}

/// Whether the other calls for a range of dirty pages work. This one does nothing but look at its arguments, so it cannot take away the
/// record of a failed write, which the kernel reports once. The errors of the others are final.
///
/// Source: `sync_file_range(2)`, flags 0.
pub(crate) fn syncs_ranges(file: &File) -> bool {
    sync_range(file, &(0..1), 0).is_ok()
}

/// Starts writing the dirty pages of `range` to disk, without waiting.
pub(crate) fn start_writeback(file: &File, range: &Range<u64>) -> io::Result<()> {
    sync_range(file, range, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until the pages of `range` are on disk. Only `fsync` protects against a power cut.
pub(crate) fn wait_for_writeback(file: &File, range: &Range<u64>) -> io::Result<()> {
    sync_range(file, range, libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER)
}

fn sync_range(file: &File, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    let to_off = |n: u64| libc::off64_t::try_from(n).map_err(io::Error::other);
    let (offset, len) = (to_off(range.start)?, to_off(range.end - range.start)?);
    // SAFETY: the call takes no pointers; the descriptor stays open while `file` lives.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Drops clean pages of `range` from the page cache.
pub(crate) fn drop_pages(file: &File, range: &Range<u64>) {
    let len = std::num::NonZeroU64::new(range.end - range.start);
    // This is advice: if it is refused, the pages stay, clean, until the kernel needs the memory.
    let _ = rustix::fs::fadvise(file, range.start, len, rustix::fs::Advice::DontNeed);
}

/// Asks the kernel to start reading `range`.
pub(crate) fn fetch_pages(file: &File, range: &Range<u64>) {
    let len = std::num::NonZeroU64::new(range.end - range.start);
    // This is advice, as above.
    let _ = rustix::fs::fadvise(file, range.start, len, rustix::fs::Advice::WillNeed);
}

/// Reads at `offset` without adding pages to the page cache.
pub(crate) fn read_uncached(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(buf)], offset, UNCACHED);
    read.map_err(|e| answer(e, &[Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS]))
}

/// How many of `len` bytes of a file are in the page cache, in whole pages.
pub(crate) fn cached_bytes(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    match count_cached(file, offset, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => count_resident(file, offset, len),
        result => result,
    }
}

/// The same by a map, for kernels before 6.5. Only for the owner of a file and those who may write to it: to others the kernel says that
/// every page is in the cache.
///
/// Source: `mincore(2)`.
fn count_resident(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    let page = rustix::param::page_size();
    let len = len.min(file.metadata()?.len().saturating_sub(offset));
    let may_ask = rustix::fs::fstat(file).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
        || rustix::process::geteuid().is_root();
    if !may_ask {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let map = MmapOptions::new().offset(offset / page as u64 * page as u64).len(len).map_raw_read_only(file)?;
    let mut pages = vec![0u8; map.len().div_ceil(page)];
    // SAFETY: the map covers `map.len()` bytes from a page boundary on and lives during the call, which writes a byte for each of its pages;
    // nothing is read or written through the map.
    if unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), pages.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|&&page| page & 1 != 0).count() as u64 * page as u64)
}

/// The same by a call of Linux 6.5.
///
/// Source: `cachestat(2)`.
fn count_cached(file: &File, offset: u64, len: u64) -> io::Result<u64> {
    const CACHESTAT: libc::c_long = 451;
    // `struct cachestat_range`: offset and length.
    let range = [offset, len];
    // `struct cachestat`: five page counts, of which the first is the cached pages.
    let mut counts = [0u64; 5];
    // SAFETY: the kernel reads two and writes five 64-bit integers, which outlive the call; the descriptor is open.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    if result == 0 {
        return Ok(counts[0] * rustix::param::page_size() as u64);
    }
    // Some containers refuse calls that they do not know.
    let error = io::Error::last_os_error();
    Err(Errno::from_io_error(&error).map_or(error, |e| answer(e, &[Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP, Errno::INVAL])))
}

/// Writes at `offset`; the pages go to disk at once and then leave the cache.
pub(crate) fn write_uncached(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let written = rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, UNCACHED);
    written.map_err(|e| answer(e, &[Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS]))
}

/// Opens an open file once more, for writes that go straight from memory to the disk.
///
/// Source: `open(2)`, `O_DIRECT`; `proc(5)`, `/proc/self/fd`.
pub(crate) fn open_direct(file: &File) -> io::Result<File> {
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = rustix::fs::open(proc.as_str(), OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
    opened
        .map(File::from)
        .map_err(|e| answer(e, &[Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT, Errno::NOTDIR, Errno::ACCESS, Errno::MFILE]))
}

/// What direct writes to a file have to be aligned to, as far as the system says (Linux 6.1); a page otherwise.
///
/// Source: `statx(2)`, `STATX_DIOALIGN`.
pub(crate) fn direct_alignment(file: &File) -> io::Result<Alignment> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let Some(stat) = stat.ok().filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0) else {
        return Ok(Alignment::default());
    };
    let (memory, offset) = (u64::from(stat.stx_dio_mem_align), u64::from(stat.stx_dio_offset_align));
    // Zero says that there are no direct writes.
    if memory.is_power_of_two() && offset.is_power_of_two() {
        Ok(Alignment { memory, offset })
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes at `offset` without the page cache; `file` is from [`open_direct`].
///
/// "Bad address" is what memory gets that the kernel can copy and a disk cannot take: buffers of a device, `memfd_secret(2)`.
pub(crate) fn write_direct(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    rustix::io::pwrite(file, bytes, offset).map_err(|e| answer(e, &[Errno::INVAL, Errno::OPNOTSUPP, Errno::FAULT]))
}

/// Shares the blocks of `range` of `from` with `to`, starting at `to_offset`. Both offsets must be multiples of the block size;
/// so must the length, unless the range ends with its file.
///
/// Source: `ioctl_ficlonerange(2)`.
pub(crate) fn share_blocks(from: &File, range: &Range<u64>, to: &File, to_offset: u64) -> io::Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct CloneRange {
        src_fd: i64,
        src_offset: u64,
        src_length: u64,
        dest_offset: u64,
    }
    const FICLONERANGE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<CloneRange>(0x94, 13);
    const UNKNOWN: [Errno; 8] =
        [Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS, Errno::NOTTY, Errno::XDEV, Errno::BADF, Errno::PERM, Errno::TXTBSY];
    let arguments = CloneRange {
        src_fd: from.as_raw_fd().into(),
        src_offset: range.start,
        src_length: range.end - range.start,
        dest_offset: to_offset,
    };
    // SAFETY: the call reads one `file_clone_range` (linux/fs.h), which `CloneRange` matches field by field; both descriptors are
    // open during the call.
    let cloned = unsafe { rustix::ioctl::ioctl(to, rustix::ioctl::Setter::<FICLONERANGE, CloneRange>::new(arguments)) };
    cloned.map_err(|e| answer(e, &UNKNOWN))
}

/// The first byte at or after `from` that may be non-zero; `u64::MAX` if there is none.
pub(crate) fn next_data(file: &File, from: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => Ok(u64::MAX),
        result => result.map_err(|e| answer(e, &[Errno::INVAL, Errno::OPNOTSUPP])),
    }
}

/// The first byte at or after `from` that lies in a hole; the end of the file counts as one.
pub(crate) fn next_hole(file: &File, from: u64) -> io::Result<u64> {
    rustix::fs::seek(file, SeekFrom::Hole(from)).map_err(|e| answer(e, &[Errno::INVAL, Errno::OPNOTSUPP]))
}

/// Syncs all dirty data in the file system of `file`; fails if any of it could not be written since `file` was opened (Linux
/// 5.8).
pub(crate) fn sync_file_system(file: &File) -> io::Result<()> {
    rustix::fs::syncfs(file).map_err(|e| answer(e, &[Errno::NOSYS]))
}

/// Whether one [`sync_file_system`] can replace a sync of each file. This needs a local file system and a kernel that reports
/// failed writes.
pub(crate) fn syncs_as_a_whole(file: &File) -> bool {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const F2FS: u64 = 0xf2f5_2010;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let reports = (numbers.next(), numbers.next()) >= (Some(5), Some(8));
    reports && file_system(file).is_some_and(|kind| [EXT, XFS, BTRFS, F2FS, TMPFS].contains(&kind))
}

const TMPFS: u64 = 0x0102_1994;

/// The magic number of the file system that holds `file`.
fn file_system(file: &File) -> Option<u64> {
    rustix::fs::fstatfs(file).map(|stat| kind_of(&stat)).ok()
}

fn kind_of(stat: &rustix::fs::StatFs) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "the type of the field differs between architectures; the numbers fit")]
    let kind = stat.f_type as u64;
    kind & 0xffff_ffff
}

/// Whether data written to `file` stays in memory.
pub(crate) fn is_in_memory(file: &File) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    file_system(file).is_some_and(|kind| [TMPFS, RAMFS].contains(&kind))
}

/// Whether a file has the same inode number each time it is opened. File systems provided by other programs or machines may not
/// keep it.
pub(crate) fn keeps_inodes(file: &File) -> bool {
    file_system(file).is_some_and(keeps_numbers)
}

/// The same for files in a directory, even after a move.
pub(crate) fn keeps_inodes_in(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| keeps_numbers(kind_of(&stat)))
}

fn keeps_numbers(kind: u64) -> bool {
    const FUSE: u64 = 0x6573_5546;
    const CIFS: u64 = 0xff53_4d42;
    const SMB2: u64 = 0xfe53_4d42;
    const SMB: u64 = 0x517b;
    const PLAN9: u64 = 0x0102_1997;
    ![FUSE, CIFS, SMB2, SMB, PLAN9].contains(&kind)
}

/// Tells the kernel how a mapped window will be used. This is advice, so a refusal costs only speed.
pub(crate) fn advise_window(map: &MmapRaw, is_large: bool) {
    let _ = map.advise(if is_large { Advice::HugePage } else { Advice::Random });
}

/// Asks for large pages for a part of memory. This is advice, too.
pub(crate) fn use_large_pages(memory: &MmapMut, part: Range<usize>) {
    let _ = memory.advise_range(Advice::HugePage, part.start, part.end - part.start);
}

/// Maps in all pages of a part of a map, writable. Fails on a page that the file system cannot provide.
pub(crate) fn populate(map: &MmapRaw, part: Range<usize>) -> io::Result<()> {
    match map.advise_range(Advice::PopulateWrite, part.start, part.end - part.start) {
        // Linux before 5.14 does not know this advice.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(io::ErrorKind::Unsupported.into()),
        result => result,
    }
}

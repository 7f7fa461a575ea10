//! Stubs for systems other than Linux: every call is unsupported, so callers use the portable way.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{MmapMut, MmapRaw};

use super::attributes::Attributes;
use super::direct::Alignment;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn unnamed_file(_dir: &Path) -> io::Result<File> {
    unsupported()
}

pub(crate) fn name_file(_file: &File, _name: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    unsupported()
}

pub(crate) fn attributes(_path: &Path) -> Attributes {
    Attributes::default()
}

pub(crate) fn reserve(_file: &File, _range: &Range<u64>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

pub(crate) fn sync_all(file: &File) -> io::Result<()> {
    file.sync_all()
}

pub(crate) fn syncs_ranges(_file: &File) -> bool {
    false
}

pub(crate) fn start_writeback(_file: &File, _range: &Range<u64>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn wait_for_writeback(_file: &File, _range: &Range<u64>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn fetch_pages(_file: &File, _range: &Range<u64>) {}

pub(crate) fn drop_pages(_file: &File, _range: &Range<u64>) {}

pub(crate) fn read_uncached(_file: &File, _buf: &mut [u8], _offset: u64) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn cached_bytes(_file: &File, _offset: u64, _len: u64) -> io::Result<u64> {
    unsupported()
}

pub(crate) fn open_direct(_file: &File) -> io::Result<File> {
    unsupported()
}

pub(crate) fn direct_alignment(_file: &File) -> io::Result<Alignment> {
    unsupported()
}

pub(crate) fn write_direct(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn use_large_pages(_memory: &MmapMut, _part: Range<usize>) {}

pub(crate) fn write_uncached(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
    unsupported()
}

pub(crate) fn share_blocks(_from: &File, _range: &Range<u64>, _to: &File, _to_offset: u64) -> io::Result<()> {
    unsupported()
}

pub(crate) fn next_data(_file: &File, _from: u64) -> io::Result<u64> {
    unsupported()
}

pub(crate) fn next_hole(_file: &File, _from: u64) -> io::Result<u64> {
    unsupported()
}

pub(crate) fn sync_file_system(_file: &File) -> io::Result<()> {
    unsupported()
}

pub(crate) fn syncs_as_a_whole(_file: &File) -> bool {
    false
}

pub(crate) fn keeps_inodes(_file: &File) -> bool {
    false
}

pub(crate) fn keeps_inodes_in(_dir: &Path) -> bool {
    false
}

pub(crate) fn is_in_memory(_file: &File) -> bool {
    false
}

pub(crate) fn advise_window(_map: &MmapRaw, _is_large: bool) {}

pub(crate) fn populate(_map: &MmapRaw, _part: Range<usize>) -> io::Result<()> {
    unsupported()
}

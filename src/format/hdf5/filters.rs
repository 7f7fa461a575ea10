//! Undoes the filters of chunks: deflate, shuffle, Fletcher's checksum, LZF.
//!
//! Source: HDF5 File Format Specification 3.0, IV.A.2.l; `H5Zshuffle.c` and `H5checksum.c` of HDF5 1.14; `lzf_d.c` of liblzf 3.6,
//! the code of h5py's filter.

use flate2::{Decompress, FlushDecompress, Status};

use super::filter_pipeline::Filter;

/// Limit for the filters of a pipeline.
const MOST_FILTERS: usize = 32;
/// Bytes that filters may add to an incompressible chunk.
const MOST_ADDED: usize = 4096;

/// A filter that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Deflate,
    /// Bytes of the elements whose bytes are grouped.
    Shuffle(usize),
    Fletcher32,
    Lzf,
}

impl Step {
    /// The steps of a pipeline, or an error that names an unknown filter.
    pub(crate) fn of_pipeline(filters: &[Filter], itemsize: usize) -> Result<Vec<Self>, String> {
        if filters.len() > MOST_FILTERS {
            return Err(format!("{} filters, at most {MOST_FILTERS} are undone", filters.len()));
        }
        let step = |filter: &Filter| match filter.id {
            1 => Ok(Self::Deflate),
            2 => Ok(Self::Shuffle(filter.values.first().map_or(itemsize, |&size| size as usize))),
            3 => Ok(Self::Fletcher32),
            32000 => Ok(Self::Lzf),
            id => {
                let name = match id {
                    4 => "szip",
                    5 => "nbit",
                    6 => "scaleoffset",
                    32001 => "blosc",
                    32004 => "lz4",
                    32008 => "bitshuffle",
                    32013 => "zfp",
                    32015 => "zstd",
                    _ => filter.name.as_deref().unwrap_or("unnamed"),
                };
                Err(format!("its chunks are packed by the filter {name} (number {id}); deflate, shuffle, fletcher32 and lzf are undone"))
            }
        };
        filters.iter().map(step).collect()
    }

    /// Its name in messages and in `info`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deflate => "gzip",
            Self::Shuffle(_) => "shuffle",
            Self::Fletcher32 => "fletcher32",
            Self::Lzf => "lzf",
        }
    }
}

/// Undoes `steps`, except those that `mask` marks as skipped, so that `out` is exactly the chunk. `stored` is consumed; `spare` is
/// scratch memory. Returns what is wrong as text.
pub(crate) fn undo(steps: &[Step], mask: u32, stored: &mut Vec<u8>, spare: &mut Vec<u8>, out: &mut [u8]) -> Result<(), String> {
    let done: Vec<Step> = steps.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 0).map(|(_, &step)| step).collect();
    let most = out.len() + MOST_ADDED;
    for (left, step) in done.iter().enumerate().rev() {
        let is_last = left == 0;
        match step {
            Step::Fletcher32 => {
                check_fletcher(stored)?;
                stored.truncate(stored.len() - 4);
                continue;
            }
            Step::Deflate if is_last => return inflate(stored, out).and_then(|len| exactly(len, out.len())),
            Step::Lzf if is_last => return expand(stored, out).and_then(|len| exactly(len, out.len())),
            Step::Shuffle(size) if is_last => {
                exactly(stored.len(), out.len())?;
                unshuffle(stored, *size, out);
                return Ok(());
            }
            Step::Deflate => {
                spare.resize(most, 0);
                let len = inflate(stored, spare)?;
                spare.truncate(len);
            }
            Step::Lzf => {
                spare.resize(most, 0);
                let len = expand(stored, spare)?;
                spare.truncate(len);
            }
            Step::Shuffle(size) => {
                spare.resize(stored.len(), 0);
                unshuffle(stored, *size, spare);
            }
        }
        std::mem::swap(stored, spare);
    }
    exactly(stored.len(), out.len())?;
    out.copy_from_slice(stored);
    Ok(())
}

fn exactly(found: usize, expected: usize) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("a chunk of {found} bytes, expected {expected}")) }
}

fn inflate(packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut inflater = Decompress::new(true);
    let status = inflater.decompress(packed, out, FlushDecompress::Finish).map_err(|error| format!("deflated chunk: {error}"))?;
    let len = usize::try_from(inflater.total_out()).unwrap_or(usize::MAX);
    match status {
        Status::StreamEnd => Ok(len),
        _ if len == out.len() => Err(format!("deflated chunk: more than {len} bytes")),
        _ => Err(format!("deflated chunk: it is cut after {len} bytes")),
    }
}

/// `lzf_decompress`: runs of up to 32 literals, and copies of up to 264 bytes from at most 8192 bytes back.
fn expand(packed: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let cut = || "lzf chunk: it is cut".to_owned();
    let full = || "lzf chunk: more bytes than expected".to_owned();
    let (mut from, mut to) = (0, 0);
    while from < packed.len() {
        let control = usize::from(packed[from]);
        from += 1;
        if control < 32 {
            let run = packed.get(from..from + control + 1).ok_or_else(cut)?;
            out.get_mut(to..to + run.len()).ok_or_else(full)?.copy_from_slice(run);
            (from, to) = (from + run.len(), to + run.len());
            continue;
        }
        let mut next = || {
            let byte = packed.get(from).copied().ok_or_else(cut)?;
            from += 1;
            Ok::<_, String>(usize::from(byte))
        };
        let mut len = control >> 5;
        if len == 7 {
            len += next()?;
        }
        let back = (control & 0x1f) << 8 | next()?;
        let start = to.checked_sub(back + 1).ok_or_else(|| format!("lzf chunk: a copy from {} bytes back at byte {to}", back + 1))?;
        let end = to + len + 2;
        if end > out.len() {
            return Err(full());
        }
        // The copy may overlap itself, so it goes byte by byte.
        for (at, source) in (to..end).zip(start..) {
            out[at] = out[source];
        }
        to = end;
    }
    Ok(to)
}

/// Regroups the bytes of elements, stored as all first bytes, all second bytes, and so on. Leftover bytes are copied.
fn unshuffle(planes: &[u8], size: usize, out: &mut [u8]) {
    let count = planes.len().checked_div(size).unwrap_or(0);
    let whole = count * size;
    match size {
        0 | 1 => out[..whole].copy_from_slice(&planes[..whole]),
        2 => interleave::<2>(&planes[..whole], &mut out[..whole]),
        4 => interleave::<4>(&planes[..whole], &mut out[..whole]),
        8 => interleave::<8>(&planes[..whole], &mut out[..whole]),
        _ => {
            for (byte, plane) in planes[..whole].chunks_exact(count.max(1)).enumerate() {
                for (element, &value) in plane.iter().enumerate() {
                    out[element * size + byte] = value;
                }
            }
        }
    }
    out[whole..].copy_from_slice(&planes[whole..]);
}

fn interleave<const SIZE: usize>(planes: &[u8], out: &mut [u8]) {
    let count = planes.len() / SIZE;
    let planes: [&[u8]; SIZE] = std::array::from_fn(|byte| &planes[byte * count..(byte + 1) * count]);
    for (element, place) in out.as_chunks_mut::<SIZE>().0.iter_mut().enumerate() {
        *place = std::array::from_fn(|byte| planes[byte][element]);
    }
}

/// Verifies the checksum in the last four bytes.
fn check_fletcher(stored: &[u8]) -> Result<(), String> {
    let (data, sum) = stored.split_last_chunk::<4>().ok_or_else(|| format!("{} bytes, too few for a checksum", stored.len()))?;
    let (expected, actual) = (u32::from_le_bytes(*sum), fletcher32(data));
    // Old versions of HDF5 swapped the bytes of both halves.
    let swapped = actual >> 8 & 0x00ff_00ff | (actual & 0x00ff_00ff) << 8;
    if expected == actual || expected == swapped {
        return Ok(());
    }
    Err(format!("Fletcher's checksum is {actual:#010x}, the file says {expected:#010x}"))
}

/// `H5_checksum_fletcher32`: sums of big-endian pairs of bytes, modulo 65535.
fn fletcher32(data: &[u8]) -> u32 {
    const MOST_PAIRS: usize = 360;
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (mut one, mut two) = (0u32, 0u32);
    for block in data.chunks(2 * MOST_PAIRS) {
        let (pairs, odd) = block.as_chunks::<2>();
        for pair in pairs {
            one += u32::from(u16::from_be_bytes(*pair));
            two += one;
        }
        if let [last] = odd {
            one += u32::from(*last) << 8;
            two += one;
        }
        (one, two) = (fold(one), fold(two));
    }
    fold(two) << 16 | fold(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn shuffle(bytes: &[u8], size: usize) -> Vec<u8> {
        let count = bytes.len() / size;
        let mut planes: Vec<u8> = (0..size).flat_map(|byte| (0..count).map(move |i| bytes[i * size + byte])).collect();
        planes.extend(&bytes[count * size..]);
        planes
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn with_sum(bytes: &[u8]) -> Vec<u8> {
        [bytes, &fletcher32(bytes).to_le_bytes()].concat()
    }

    /// Literals only, which are valid LZF.
    fn lzf(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(32).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect()
    }

    proptest! {
        #[test]
        fn what_filters_did_is_undone(bytes in prop::collection::vec(0u8..4, 0..700), size in 1usize..20, order in any::<[bool; 4]>(), mask in 0u32..16) {
            let mut steps = Vec::new();
            if order[0] { steps.push(Step::Shuffle(size)) }
            if order[1] { steps.push(Step::Lzf) }
            if order[2] { steps.push(Step::Deflate) }
            if order[3] { steps.push(Step::Fletcher32) }
            let mut stored = bytes.clone();
            for (at, step) in steps.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 0) {
                let _ = at;
                stored = match step {
                    Step::Shuffle(size) => shuffle(&stored, *size),
                    Step::Lzf => lzf(&stored),
                    Step::Deflate => deflate(&stored),
                    Step::Fletcher32 => with_sum(&stored),
                };
            }
            let mut out = vec![9; bytes.len()];
            undo(&steps, mask, &mut stored, &mut Vec::new(), &mut out).unwrap();
            prop_assert_eq!(out, bytes);
        }

        #[test]
        fn any_bytes_are_a_chunk_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), len in 0usize..300) {
            for step in [Step::Deflate, Step::Lzf, Step::Fletcher32, Step::Shuffle(4)] {
                let _ = undo(&[step], 0, &mut bytes.clone(), &mut Vec::new(), &mut vec![0; len]);
                let _ = undo(&[Step::Shuffle(3), step], 0, &mut bytes.clone(), &mut Vec::new(), &mut vec![0; len]);
            }
        }
    }

    #[test]
    fn copies_overlap_themselves() {
        // "ab", then 6 bytes from 2 back.
        let mut out = [0; 8];
        assert_eq!(expand(&[1, b'a', b'b', 4 << 5, 1], &mut out), Ok(8));
        assert_eq!(&out, b"abababab");
        assert!(expand(&[1, b'a', b'b', 4 << 5, 2], &mut out).is_err(), "before the start");
        assert!(expand(&[1, b'a', b'b', 5 << 5, 1], &mut out).is_err(), "behind the end");
        assert!(expand(&[5, b'a'], &mut out).is_err());
    }

    #[test]
    fn a_flipped_bit_is_found_by_its_checksum() {
        let mut stored = with_sum(&[1, 2, 3, 4, 5]);
        stored[2] ^= 4;
        assert!(check_fletcher(&stored).unwrap_err().contains("Fletcher"));
        assert!(check_fletcher(&[1, 2, 3]).is_err());
    }
}

//! Writes valid TensorBundles of any size, without TensorFlow.
//!
//! Byte layouts as in `docs/formats.md`; `tests/oracle.py` has TensorFlow read what this writes.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::pedantic,
    reason = "included by tests, benches and an example, each of which uses another part"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How a bundle is laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    pub shards: u32,
    pub big_endian: bool,
    /// Tensors start at multiples of this; TensorFlow's default is 1.
    pub align: u64,
    /// Whether to compress index blocks.
    pub snappy: bool,
    /// Index blocks are closed at this size; TensorFlow's is 262144.
    pub block_size: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { shards: 1, big_endian: false, align: 1, snappy: false, block_size: 262_144 }
    }
}

/// A piece of a partitioned tensor: start and length on every axis; `None` is the whole axis.
pub type Extents = Vec<(u64, Option<u64>)>;

/// A bundle that is being written.
pub struct BundleWriter {
    prefix: PathBuf,
    layout: Layout,
    shards: Vec<(BufWriter<File>, u64)>,
    /// Keys and values of the index, for tests that break them.
    pub entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl BundleWriter {
    pub fn create(prefix: &Path, layout: Layout) -> io::Result<Self> {
        let shards = (0..layout.shards)
            .map(|i| {
                File::create(with_suffix(prefix, &format!(".data-{i:05}-of-{:05}", layout.shards)))
                    .map(|f| (BufWriter::with_capacity(1 << 20, f), 0))
            })
            .collect::<io::Result<_>>()?;
        let mut header = Vec::new();
        push_varint_field(&mut header, 1, layout.shards.into());
        push_varint_field(&mut header, 2, layout.big_endian.into());
        push_bytes_field(&mut header, 3, &[0x08, 0x01]);
        Ok(Self { prefix: prefix.to_owned(), shards, layout, entries: BTreeMap::from([(Vec::new(), header)]) })
    }

    /// Adds a tensor whose bytes come from `data`, in the bundle's byte order.
    pub fn add(&mut self, name: &[u8], dtype: u64, shape: &[u64], shard: u32, data: impl Read) -> io::Result<()> {
        self.add_entry(name.to_vec(), dtype, shape, shard, data)
    }

    /// Adds a scalar string tensor.
    pub fn add_string(&mut self, name: &[u8], text: &[u8], shard: u32) -> io::Result<()> {
        self.add_strings(name, &[], [text], shard)
    }

    /// Adds a tensor of strings, which are iterated twice: lengths first.
    pub fn add_strings<T: AsRef<[u8]>>(
        &mut self,
        name: &[u8],
        shape: &[u64],
        texts: impl IntoIterator<Item = T> + Clone,
        shard: u32,
    ) -> io::Result<()> {
        const TOGETHER: usize = 1 << 20;
        let mut lengths_crc = 0;
        let mut lengths = Vec::new();
        for text in texts.clone() {
            let len = text.as_ref().len() as u32;
            lengths.extend(varint(len.into()));
            lengths_crc = crc32c::crc32c_append(lengths_crc, &if self.layout.big_endian { len.to_be_bytes() } else { len.to_le_bytes() });
        }
        let stored_crc = mask(lengths_crc).to_le_bytes();
        lengths.extend(stored_crc);
        let (offset, _) = self.store(shard, &lengths[..])?;
        let (mut crc, mut size) = (crc32c::crc32c_append(lengths_crc, &stored_crc), lengths.len() as u64);
        // The parts of a tensor are contiguous.
        let align = std::mem::replace(&mut self.layout.align, 1);
        let mut waiting = Vec::with_capacity(2 * TOGETHER);
        for text in texts.into_iter().map(Some).chain([None]) {
            waiting.extend_from_slice(text.as_ref().map_or(&[], |text| text.as_ref()));
            if text.is_none() || waiting.len() > TOGETHER {
                self.store(shard, &waiting[..])?;
                crc = crc32c::crc32c_append(crc, &waiting);
                size += waiting.len() as u64;
                waiting.clear();
            }
        }
        self.layout.align = align;
        self.entries.insert(name.to_vec(), entry(7, shape, shard, offset, size, mask(crc), &[]));
        Ok(())
    }

    /// Adds a partitioned tensor; `piece(i)` gives the shard and the bytes of piece `i`.
    pub fn add_partitioned<R: Read>(
        &mut self,
        name: &[u8],
        dtype: u64,
        shape: &[u64],
        pieces: &[Extents],
        mut piece: impl FnMut(usize) -> (u32, R),
    ) -> io::Result<()> {
        for (i, extents) in pieces.iter().enumerate() {
            let piece_shape: Vec<u64> = extents.iter().zip(shape).map(|(&(_, len), &dim)| len.unwrap_or(dim)).collect();
            let (shard, data) = piece(i);
            self.add_entry(piece_key(name, extents), dtype, &piece_shape, shard, data)?;
        }
        self.entries.insert(name.to_vec(), entry(dtype, shape, 0, 0, 0, 0, pieces));
        Ok(())
    }

    /// Adds a tensor of zeros except for `runs` of bytes at ascending, separate offsets. Zeros become holes of the shard.
    pub fn add_sparse(&mut self, name: &[u8], dtype: u64, shape: &[u64], nbytes: u64, runs: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let (file, len) = &mut self.shards[0];
        file.flush()?;
        let start = *len;
        let (mut crc, mut at) = (0, 0);
        for (offset, bytes) in runs {
            file.get_ref().write_all_at(bytes, start + offset)?;
            crc = append_zeros(crc, offset - at);
            crc = crc32c::crc32c_append(crc, bytes);
            at = offset + bytes.len() as u64;
        }
        crc = append_zeros(crc, nbytes - at);
        *len += nbytes;
        file.get_ref().set_len(*len)?;
        file.seek(SeekFrom::End(0))?;
        self.entries.insert(name.to_vec(), entry(dtype, shape, 0, start, nbytes, mask(crc), &[]));
        Ok(())
    }

    fn add_entry(&mut self, key: Vec<u8>, dtype: u64, shape: &[u64], shard: u32, data: impl Read) -> io::Result<()> {
        let start = self.shards[shard as usize].1.next_multiple_of(self.layout.align);
        let (offset, crc) = self.store(shard, data)?;
        assert_eq!(offset, start);
        let size = self.shards[shard as usize].1 - offset;
        let previous = self.entries.insert(key, entry(dtype, shape, shard, offset, size, mask(crc), &[]));
        assert!(previous.is_none(), "a name was added twice");
        Ok(())
    }

    /// Appends `data` to a shard; returns its offset and CRC32C.
    fn store(&mut self, shard: u32, mut data: impl Read) -> io::Result<(u64, u32)> {
        let (file, len) = &mut self.shards[shard as usize];
        while *len % self.layout.align != 0 {
            file.write_all(&[0])?;
            *len += 1;
        }
        let offset = *len;
        let mut crc = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = data.read(&mut buffer)?;
            if n == 0 {
                return Ok((offset, crc));
            }
            crc = crc32c::crc32c_append(crc, &buffer[..n]);
            file.write_all(&buffer[..n])?;
            *len += n as u64;
        }
    }

    /// Writes the index.
    pub fn finish(mut self) -> io::Result<()> {
        for (file, _) in &mut self.shards {
            file.flush()?;
        }
        let entries: Vec<_> = self.entries.into_iter().collect();
        let mut out = Vec::new();
        let mut handles: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut from = 0;
        let mut size = 0;
        for i in 0..entries.len() {
            size += entries[i].0.len() + entries[i].1.len() + 6;
            if size >= self.layout.block_size || i + 1 == entries.len() {
                let handle = push_block(&mut out, &block(&entries[from..=i], 16), self.layout.snappy);
                handles.push((entries[i].0.clone(), handle));
                from = i + 1;
                size = 0;
            }
        }
        let metaindex = push_block(&mut out, &block(&[], 16), false);
        let index = push_block(&mut out, &block(&handles, 1), self.layout.snappy);
        let mut footer = [metaindex, index].concat();
        footer.resize(40, 0);
        footer.extend(0xdb47_7524_8b80_fb57u64.to_le_bytes());
        out.extend(footer);
        std::fs::write(with_suffix(&self.prefix, ".index"), out)
    }
}

/// The CRC32C of bytes with CRC `crc`, followed by `len` zeros.
fn append_zeros(crc: u32, mut len: u64) -> u32 {
    let (mut crc, mut piece) = (crc, vec![0u8; 1 << 20]);
    // Doubles the run of zeros per bit of `len`, so that no byte is hashed twice.
    let mut doubled = crc32c::crc32c(&piece);
    piece.truncate((len % (1 << 20)) as usize);
    crc = crc32c::crc32c_append(crc, &piece);
    len >>= 20;
    let mut doubled_len = 1usize << 20;
    while len > 0 {
        if len & 1 == 1 {
            crc = crc32c::crc32c_combine(crc, doubled, doubled_len);
        }
        doubled = crc32c::crc32c_combine(doubled, doubled, doubled_len);
        doubled_len *= 2;
        len >>= 1;
    }
    crc
}

pub fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// Appends a varint field; a zero is left out, as proto3 does.
pub fn push_varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    if value != 0 {
        out.extend(varint(number << 3));
        out.extend(varint(value));
    }
}

pub fn push_bytes_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    out.extend(varint(number << 3 | 2));
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
}

fn entry(dtype: u64, shape: &[u64], shard: u32, offset: u64, size: u64, masked_crc: u32, pieces: &[Extents]) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint_field(&mut out, 1, dtype);
    let mut dims = Vec::new();
    for &dim in shape {
        let mut size = Vec::new();
        push_varint_field(&mut size, 1, dim);
        push_bytes_field(&mut dims, 2, &size);
    }
    push_bytes_field(&mut out, 2, &dims);
    push_varint_field(&mut out, 3, shard.into());
    push_varint_field(&mut out, 4, offset);
    push_varint_field(&mut out, 5, size);
    if masked_crc != 0 {
        out.push(6 << 3 | 5);
        out.extend(masked_crc.to_le_bytes());
    }
    for extents in pieces {
        let mut slice = Vec::new();
        for &(start, len) in extents {
            let mut extent = Vec::new();
            if let Some(len) = len {
                push_varint_field(&mut extent, 1, start);
                extent.push(2 << 3);
                extent.extend(varint(len));
            }
            push_bytes_field(&mut slice, 1, &extent);
        }
        push_bytes_field(&mut out, 7, &slice);
    }
    out
}

/// The key of a piece, encoded digit by digit as the format describes it, independently of the reader's code.
pub fn piece_key(name: &[u8], extents: &Extents) -> Vec<u8> {
    let mut key = vec![0];
    for &byte in name {
        match byte {
            0 => key.extend([0, 0xff]),
            0xff => key.extend([0xff, 0]),
            _ => key.push(byte),
        }
    }
    key.extend([0, 1]);
    let rank = extents.len() as u8;
    key.extend(if rank == 0 { vec![0] } else { vec![1, rank] });
    for &(start, len) in extents {
        key.extend(signed(start as i64));
        key.extend(signed(len.map_or(-1, |len| len as i64)));
    }
    key
}

fn signed(value: i64) -> Vec<u8> {
    let len = (1..=10u32).find(|&l| l == 10 || (-(1i128 << (7 * l - 1))..1i128 << (7 * l - 1)).contains(&i128::from(value))).unwrap_or(10);
    let bytes = i128::from(value).to_be_bytes();
    let mut out = bytes[16 - len as usize..].to_vec();
    for bit in 0..len as usize {
        out[bit / 8] ^= 0x80 >> (bit % 8);
    }
    out
}

fn block(entries: &[(Vec<u8>, Vec<u8>)], restart_interval: usize) -> Vec<u8> {
    let (mut out, mut restarts, mut last) = (Vec::new(), Vec::new(), &[][..]);
    for (i, (key, value)) in entries.iter().enumerate() {
        if i % restart_interval == 0 {
            restarts.push(out.len() as u32);
            last = &[];
        }
        let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
        out.extend(varint(shared as u64));
        out.extend(varint((key.len() - shared) as u64));
        out.extend(varint(value.len() as u64));
        out.extend(&key[shared..]);
        out.extend(value);
        last = key;
    }
    if restarts.is_empty() {
        restarts.push(0);
    }
    for restart in &restarts {
        out.extend(restart.to_le_bytes());
    }
    out.extend((restarts.len() as u32).to_le_bytes());
    out
}

/// Appends a block and its trailer; returns its handle.
fn push_block(out: &mut Vec<u8>, contents: &[u8], snappy: bool) -> Vec<u8> {
    let mut stored = if snappy { snap::raw::Encoder::new().compress_vec(contents).expect("a block is small") } else { contents.to_vec() };
    let handle = [varint(out.len() as u64), varint(stored.len() as u64)].concat();
    stored.push(u8::from(snappy));
    let crc = mask(crc32c::crc32c(&stored));
    out.extend(stored);
    out.extend(crc.to_le_bytes());
    handle
}

/// Bytes of which any part can be computed alone: the little-endian 64-bit word `i` is `i` times an odd number.
#[derive(Debug, Clone)]
pub struct Pattern {
    at: u64,
    end: u64,
}

impl Pattern {
    pub fn new(len: u64) -> Self {
        Self::part(0..len)
    }

    /// The bytes at these positions.
    pub fn part(range: std::ops::Range<u64>) -> Self {
        Self { at: range.start, end: range.end }
    }

    /// The byte at position `at`.
    pub fn byte(at: u64) -> u8 {
        (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[(at % 8) as usize]
    }
}

impl Read for Pattern {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        if self.at.is_multiple_of(8) {
            for (i, word) in buf[..n].chunks_mut(8).enumerate() {
                let bytes = (self.at / 8 + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
                word.copy_from_slice(&bytes[..word.len()]);
            }
        } else {
            for (i, byte) in buf[..n].iter_mut().enumerate() {
                *byte = Self::byte(self.at + i as u64);
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

//! Compressed files of records: gzip, zlib and Snappy are detected by their content and decompressed from front to back.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use byteorder::{BigEndian, ByteOrder as _};
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use serde::Serialize;

use super::bytes::{FileBytes, read_error, read_full};
use crate::error::Result;
use crate::format::tfrecord;
use crate::storage::blob::Blob;
use crate::types::size::memory_len;

/// Buffer size for compressed input.
const INPUT_BYTES: usize = 256 << 10;
/// Files that TensorFlow compresses with Snappy have blocks of up to 256 KiB; other writers may make longer ones.
const MOST_SNAPPY_BLOCK: usize = 64 << 20;
/// Bytes of the first block that are decoded to recognize Snappy.
const MOST_LOOKED_AT: usize = 4 << 20;

/// How a whole file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    None,
    Gzip,
    Zlib,
    Snappy,
}

impl Compression {
    /// Detects the compression of a record file from its content; `None` if it is no record file.
    ///
    /// A valid checksum of the first record's length proves that there is none. Otherwise gzip and zlib are recognized by their
    /// magic bytes, and Snappy by a first block that begins with a record.
    ///
    /// # Errors
    /// Returns errors of [`Blob::read`].
    pub(crate) fn detect(file: &dyn Blob) -> Result<Option<Self>> {
        let len = file.len();
        let mut front = [0; tfrecord::HEADER_LEN];
        let have = memory_len(len.min(front.len() as u64));
        file.read(0, &mut front[..have], file.calls())?;
        Ok(match &front[..have] {
            [] => Some(Self::None),
            _ if have == front.len() && tfrecord::data_len(&front).is_ok() => Some(Self::None),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [first @ 0x78, second, ..] if (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31) => Some(Self::Zlib),
            _ if is_snappy(file, len, &front[..have])? => Some(Self::Snappy),
            _ => None,
        })
    }
}

/// Whether a file starts with a Snappy block that starts with a record.
fn is_snappy(file: &dyn Blob, len: u64, front: &[u8]) -> Result<bool> {
    let Some(block) = front.get(..4).map(BigEndian::read_u32).filter(|&block| block > 0 && u64::from(block) + 4 <= len) else {
        return Ok(false);
    };
    let mut block = vec![0; memory_len(u64::from(block).min(MOST_LOOKED_AT as u64))];
    file.read(4, &mut block, file.calls())?;
    let decoded = snap::raw::decompress_len(&block).ok().filter(|&len| len <= MOST_LOOKED_AT);
    let decoded = decoded.and_then(|_| snap::raw::Decoder::new().decompress_vec(&block).ok());
    Ok(decoded.is_some_and(|bytes| bytes.first_chunk().is_some_and(|header| tfrecord::data_len(header).is_ok())))
}

/// Decompresses the bytes of a file.
///
/// Buffers, at most a Snappy block stored and decompressed, take no more than `memory_bytes`.
pub(crate) fn decompressed(bytes: FileBytes, compression: Compression, memory_bytes: u64) -> Box<dyn Read + Send> {
    let buffered = |bytes| BufReader::with_capacity(INPUT_BYTES, bytes);
    match compression {
        Compression::None => Box::new(bytes),
        // Members follow each other; records may span them.
        Compression::Gzip => Box::new(Gzip { decoder: MultiGzDecoder::new(buffered(bytes)) }),
        Compression::Zlib => Box::new(Zlib { input: buffered(bytes), state: Decompress::new(true), ended: false }),
        Compression::Snappy => Box::new(Snappy {
            input: bytes,
            most: memory_len(memory_bytes / 2).min(MOST_SNAPPY_BLOCK),
            stored: Vec::new(),
            block: Vec::new(),
            at: 0,
        }),
    }
}

fn corrupt(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

/// Any number of gzip members; none is an empty stream.
struct Gzip {
    decoder: MultiGzDecoder<BufReader<FileBytes>>,
}

impl Read for Gzip {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), "the gzip stream is cut, or other bytes follow it: the last member has no trailer")
            }
            _ => error,
        })
    }
}

/// One zlib stream with nothing after it.
struct Zlib {
    input: BufReader<FileBytes>,
    state: Decompress,
    ended: bool,
}

impl Read for Zlib {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buf.is_empty() {
            let input = self.input.fill_buf()?;
            let is_last = input.is_empty();
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, buf, FlushDecompress::None).map_err(|error| corrupt(format!("zlib: {error}")))?;
            let (read, written) = (self.state.total_in() - read, self.state.total_out() - written);
            self.input.consume(memory_len(read));
            if status == Status::StreamEnd {
                self.ended = true;
                if !self.input.fill_buf()?.is_empty() {
                    return Err(corrupt(format!(
                        "there are bytes after the end of the zlib stream, at byte {} of the file",
                        self.state.total_in()
                    )));
                }
            } else if is_last && written == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the zlib stream is cut"));
            }
            if written > 0 {
                return Ok(memory_len(written));
            }
        }
        Ok(0)
    }
}

/// Raw Snappy blocks, each after its big-endian length. Source: `tensorflow/core/lib/io/snappy/snappy_inputbuffer.cc`.
struct Snappy {
    input: FileBytes,
    /// The longest block, stored or decompressed.
    most: usize,
    stored: Vec<u8>,
    block: Vec<u8>,
    at: usize,
}

impl Snappy {
    /// Loads the next block; `false` at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let start = self.input.position();
        let mut header = [0; 4];
        let (have, result) = read_full(&mut self.input, &mut header);
        result?;
        let len = BigEndian::read_u32(&header) as usize;
        let left = self.input.left();
        if have == 0 {
            return Ok(false);
        }
        if have < header.len() || len as u64 > left {
            let detail = format!("the Snappy block at byte {start} of the file is cut");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        let wrong = |detail: String| corrupt(format!("the Snappy block at byte {start} of the file: {detail}"));
        let too_long = |len: usize| {
            let detail = format!("the Snappy block at byte {start} of the file has {len} bytes, there is memory for {}", self.most);
            Err(io::Error::new(io::ErrorKind::OutOfMemory, detail))
        };
        if len > self.most {
            return too_long(len);
        }
        self.stored.resize(len, 0);
        self.input.read_exact(&mut self.stored)?;
        let decoded = snap::raw::decompress_len(&self.stored).map_err(|error| wrong(error.to_string()))?;
        if decoded > self.most {
            return too_long(decoded);
        }
        self.block.resize(decoded, 0);
        snap::raw::Decoder::new().decompress(&self.stored, &mut self.block).map_err(|error| wrong(error.to_string()))?;
        self.at = 0;
        Ok(true)
    }
}

impl Read for Snappy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let len = buf.len().min(self.block.len() - self.at);
        buf[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// Memory for looking at the first bytes of a file.
const LOOKING_BYTES: u64 = 16 << 20;

/// Whether a file, decompressed, starts like a record.
///
/// # Errors
/// Returns [`Error::Io`], [`Error::Malformed`].
pub(crate) fn starts_with_record(file: &Arc<dyn Blob>) -> Result<bool> {
    let Some(compression) = Compression::detect(&**file)? else { return Ok(false) };
    let mut header = [0; tfrecord::HEADER_LEN];
    let (read, result) = read_full(decompressed(FileBytes::new(file, 0), compression, LOOKING_BYTES).as_mut(), &mut header);
    result.map_err(|error| read_error(file.path(), 0, error))?;
    Ok(read == header.len() && tfrecord::data_len(&header).is_ok())
}

/// Whether a file, decompressed, is empty: a shard without records.
///
/// # Errors
/// Returns [`Error::Io`], [`Error::Malformed`].
pub(crate) fn holds_nothing(file: &Arc<dyn Blob>) -> Result<bool> {
    if file.len() == 0 {
        return Ok(true);
    }
    match Compression::detect(&**file)? {
        None | Some(Compression::None) => Ok(false),
        Some(compression) => {
            let (read, result) = read_full(decompressed(FileBytes::new(file, 0), compression, LOOKING_BYTES).as_mut(), &mut [0]);
            Ok(read == 0 && result.is_ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::HeldBytes;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;
    use std::path::Path;

    fn file(bytes: &[u8]) -> Arc<dyn Blob> {
        HeldBytes::new(&Path::new("records").into(), bytes.to_vec())
    }

    fn read(bytes: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
        let bytes = FileBytes::new(&file(bytes), 0);
        let mut all = Vec::new();
        decompressed(bytes, compression, 1 << 30).read_to_end(&mut all)?;
        Ok(all)
    }

    /// A file of empty records.
    fn records() -> Vec<u8> {
        // The frame of an empty record.
        let empty = [0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x03, 0x98, 0x07, 0xd8, 0xea, 0x82, 0xa2];
        empty.repeat(50_000)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn snappy(bytes: &[u8]) -> Vec<u8> {
        let blocks = bytes.chunks(100_001).map(|block| snap::raw::Encoder::new().compress_vec(block).unwrap());
        blocks.flat_map(|block| [&(block.len() as u32).to_be_bytes()[..], &block].concat()).collect()
    }

    #[test]
    fn every_compression_is_detected_and_gives_the_bytes_back() {
        let records = records();
        let ways = [
            (Compression::Gzip, gzip(&records)),
            (Compression::Zlib, zlib(&records)),
            (Compression::Snappy, snappy(&records)),
            (Compression::None, records.clone()),
        ];
        for (compression, stored) in ways {
            assert_eq!(Compression::detect(&*file(&stored)).unwrap(), Some(compression));
            assert!(read(&stored, compression).unwrap() == records, "{compression:?}");
        }
        assert_eq!(Compression::detect(&*file(b"hello, this is not a record file")).unwrap(), None);
        assert_eq!(Compression::detect(&*file(b"")).unwrap(), Some(Compression::None));
    }

    #[test]
    fn a_cut_or_prolonged_stream_is_an_error_wherever_it_is_cut() {
        let records = &records()[..160_000];
        for (compression, stored) in
            [(Compression::Gzip, gzip(records)), (Compression::Zlib, zlib(records)), (Compression::Snappy, snappy(records))]
        {
            for cut in 1..stored.len() {
                let ends_with_a_block = compression == Compression::Snappy && cut == 4 + BigEndian::read_u32(&stored) as usize;
                assert_eq!(read(&stored[..cut], compression).is_ok(), ends_with_a_block, "{compression:?} {cut}");
            }
            let longer = [&stored[..], b"\0\0\0"].concat();
            assert!(read(&longer, compression).is_err(), "{compression:?}");
        }
        let two = [gzip(&records[..77]), gzip(&records[77..])].concat();
        assert_eq!(read(&two, Compression::Gzip).unwrap(), records);
        let two = [zlib(&records[..77]), zlib(&records[77..])].concat();
        assert!(read(&two, Compression::Zlib).is_err());
    }
}

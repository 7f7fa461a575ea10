//! Finds where frames start and end.

use crate::format::tfrecord;
use crate::types::size::memory_len;

/// Bytes of a length prefix.
const LENGTH: usize = 8;

/// How frames are delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// TFRecord files: length, checksum, data, checksum.
    TfRecord,
    /// Data of a fixed length, without headers.
    Fixed(u64),
    /// PAM images, whose headers have their size. Samples of 16 bits are shifted right by `shift`.
    Pam { shift: u32 },
    /// Data after a 64-bit little-endian length.
    Length,
}

/// The result of looking for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole frame: the place of its data, and its end, both relative to its start.
    Frame { start: usize, len: usize, end: usize },
    /// The number of bytes needed to find the length, or to hold the frame.
    Need(u64),
}

impl Framing {
    /// Bytes at the front of a frame that determine its length, if fixed.
    pub(crate) fn header_len(self) -> Option<usize> {
        match self {
            Self::TfRecord => Some(tfrecord::HEADER_LEN),
            Self::Fixed(_) => Some(0),
            Self::Pam { .. } => None,
            Self::Length => Some(LENGTH),
        }
    }

    /// Whether a checksum follows the data.
    pub(crate) fn has_checksum(self) -> bool {
        self == Self::TfRecord
    }

    /// Looks for the first frame of `bytes`.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub(crate) fn step(self, bytes: &[u8]) -> Result<Step, String> {
        let (start, len, behind) = match self {
            Self::TfRecord => match bytes.first_chunk() {
                Some(header) => (tfrecord::HEADER_LEN, tfrecord::data_len(header)?, tfrecord::FOOTER_LEN),
                None => return Ok(Step::Need(tfrecord::HEADER_LEN as u64)),
            },
            Self::Fixed(len) => (0, len, 0),
            Self::Length => match bytes.first_chunk::<LENGTH>() {
                Some(&len) => (LENGTH, u64::from_le_bytes(len), 0),
                None => return Ok(Step::Need(LENGTH as u64)),
            },
            Self::Pam { .. } => match pam_header(bytes)? {
                Some(header) => (header.len, header.nbytes(), 0),
                None => return Ok(Step::Need(bytes.len() as u64 + 1)),
            },
        };
        let end = len.checked_add((start + behind) as u64).ok_or_else(|| format!("a record cannot have {len} bytes"))?;
        if (bytes.len() as u64) < end {
            return Ok(Step::Need(end));
        }
        Ok(Step::Frame { start, len: memory_len(len), end: memory_len(end) })
    }
}

/// The header of a PAM image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PamHeader {
    /// The header's own length.
    pub(crate) len: usize,
    pub(crate) width: u64,
    pub(crate) height: u64,
    pub(crate) channels: u64,
    /// Bytes of a sample, big-endian.
    pub(crate) sample_bytes: u64,
}

impl PamHeader {
    fn nbytes(self) -> u64 {
        [self.height, self.channels, self.sample_bytes].iter().fold(self.width, |product, &factor| product.saturating_mul(factor))
    }
}

/// The header of a PAM image with 8 or 16 bits per sample; `None` if it continues after `bytes`.
///
/// Source: `pam(5)` of Netpbm.
pub(crate) fn pam_header(bytes: &[u8]) -> Result<Option<PamHeader>, String> {
    const MAGIC: &[u8] = b"P7\n";
    const END: &[u8] = b"ENDHDR\n";
    const MOST: usize = 512;
    if !bytes.starts_with(&MAGIC[..MAGIC.len().min(bytes.len())]) {
        return Err("expected an image in the format PAM".into());
    }
    let Some(end) = bytes[..bytes.len().min(MOST)].windows(END.len()).position(|window| window == END) else {
        return if bytes.len() < MOST { Ok(None) } else { Err("the header of a PAM image has no end".into()) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "the header of a PAM image is not text")?;
    let number = |key: &str| -> Result<u64, String> {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("a PAM header without {key}"))
    };
    let sample_bytes = match number("MAXVAL")? {
        255 => 1,
        65535 => 2,
        most => return Err(format!("samples of PAM images go up to {most}, expected 255 or 65535")),
    };
    let (width, height, channels) = (number("WIDTH")?, number("HEIGHT")?, number("DEPTH")?);
    Ok(Some(PamHeader { len: end + END.len(), width, height, channels, sample_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_and_what_is_missing_is_asked_for() {
        let hello = b"\x05\0\0\0\0\0\0\0\xea\xb2\x04\x3ehello\xbb\x1f\x1c\x19rest";
        assert_eq!(Framing::TfRecord.step(hello), Ok(Step::Frame { start: 12, len: 5, end: 21 }));
        assert_eq!(Framing::TfRecord.step(&hello[..20]), Ok(Step::Need(21)));
        assert_eq!(Framing::TfRecord.step(&hello[..3]), Ok(Step::Need(12)));
        assert_eq!(Framing::Fixed(3).step(b"ab"), Ok(Step::Need(3)));
        let pam = Framing::Pam { shift: 0 };
        let header =
            |depth: u32, most: u32| format!("P7\nWIDTH 2\nHEIGHT 1\nDEPTH {depth}\nMAXVAL {most}\nTUPLTYPE X\nENDHDR\n").into_bytes();
        let image = [&header(3, 255)[..], b"abcdef"].concat();
        assert_eq!(pam.step(&image), Ok(Step::Frame { start: image.len() - 6, len: 6, end: image.len() }));
        let wide = [&header(1, 65535)[..], b"abc"].concat();
        assert_eq!(pam.step(&wide), Ok(Step::Need(wide.len() as u64 + 1)));
        assert_eq!(pam.step(b"P7\nWIDTH"), Ok(Step::Need(9)));
        assert_eq!(pam.step(b""), Ok(Step::Need(1)));
        assert_eq!(Framing::Length.step(b"\x02\0\0\0\0\0\0\0abc"), Ok(Step::Frame { start: 8, len: 2, end: 10 }));
        assert_eq!(Framing::Length.step(b"\x02\0\0\0\0\0\0\0a"), Ok(Step::Need(10)));
        assert_eq!(Framing::Length.step(b"\x02"), Ok(Step::Need(8)));
        assert!(Framing::Length.step(&[0xff; 9]).is_err());
        for broken in [&b"P6\n2 1\n255\n"[..], &[&b"P7\n"[..], &[b'x'; 600]].concat(), &header(3, 1), b"P7\nWIDTH 2\nENDHDR\n"] {
            assert!(pam.step(broken).is_err());
        }
    }
}

//! Where one frame ends and the next begins.

use crate::format::tfrecord;
use crate::spec::memory_len;

/// Bytes of a length.
const LENGTH: usize = 8;

/// How frames follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Those of TFRecord files: length, checksum, data, checksum.
    TfRecord,
    /// Data of one length, and nothing else.
    Fixed(u64),
    /// Images in the format PPM, which say how large they are.
    Ppm,
    /// Data behind their length, 64 bits little-endian.
    Length,
}

/// What stands at a place where a frame should start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole frame: where its data lie, and where the next one starts, both counted from here.
    Frame { start: usize, len: usize, end: usize },
    /// So many bytes from here on are needed to tell, or to have all of it.
    Need(u64),
}

impl Framing {
    /// Bytes at the front of a frame from which its length can be told, where that is so.
    pub(crate) fn header_len(self) -> Option<usize> {
        match self {
            Self::TfRecord => Some(tfrecord::HEADER_LEN),
            Self::Fixed(_) => Some(0),
            Self::Ppm => None,
            Self::Length => Some(LENGTH),
        }
    }

    /// Whether a checksum of the data stands behind them.
    pub(crate) fn has_checksum(self) -> bool {
        self == Self::TfRecord
    }

    /// The first frame of `bytes`.
    ///
    /// # Errors
    /// What is wrong with it.
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
            Self::Ppm => match ppm_header(bytes)? {
                Some((header, width, height)) => (header, width.saturating_mul(height).saturating_mul(3), 0),
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

/// The length of the header of a PPM image with 8 bits a sample, its width and its height; `None` if it goes on behind `bytes`.
///
/// Source: `ppm(5)` of Netpbm.
pub(crate) fn ppm_header(bytes: &[u8]) -> Result<Option<(usize, u64, u64)>, String> {
    const MOST: usize = 64;
    let mut words = [0u64; 3];
    let magic = bytes.first_chunk::<2>();
    if magic.is_some_and(|magic| magic != b"P6") {
        return Err("expected an image in the format PPM".into());
    }
    let mut at = 2;
    for word in &mut words {
        // One blank before each number, one behind the last.
        at += 1;
        let digits = bytes.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
        if bytes.len() <= at + digits {
            return if bytes.len() < MOST { Ok(None) } else { Err("the header of a PPM image has no end".into()) };
        }
        *word =
            std::str::from_utf8(&bytes[at..at + digits]).ok().and_then(|text| text.parse().ok()).ok_or("a PPM header without numbers")?;
        at += digits;
    }
    let [width, height, most] = words;
    if most != 255 {
        return Err(format!("samples of PPM images go up to {most}, expected 255"));
    }
    Ok(Some((at + 1, width, height)))
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
        assert_eq!(Framing::Ppm.step(b"P6\n2 1\n255\nabcdef"), Ok(Step::Frame { start: 11, len: 6, end: 17 }));
        assert_eq!(Framing::Ppm.step(b"P6\n2 1\n25"), Ok(Step::Need(10)));
        assert_eq!(Framing::Length.step(b"\x02\0\0\0\0\0\0\0abc"), Ok(Step::Frame { start: 8, len: 2, end: 10 }));
        assert_eq!(Framing::Length.step(b"\x02\0\0\0\0\0\0\0a"), Ok(Step::Need(10)));
        assert_eq!(Framing::Length.step(b"\x02"), Ok(Step::Need(8)));
        assert!(Framing::Length.step(&[0xff; 9]).is_err());
        assert!(Framing::Ppm.step(b"P5\n2 1\n255\n").is_err());
        assert!(Framing::Ppm.step(&[b'P'; 70]).is_err());
    }
}

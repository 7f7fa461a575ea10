//! Strings as text: UTF-8 decoded to code points.

use std::ops::Range;
use std::sync::Arc;

use byteorder::{ByteOrder as _, LittleEndian};

use super::Strings;
use crate::cast::elements::Cast;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::os::SystemCalls;
use crate::reader::checksums::Region;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Bytes of elements read at once.
const CHUNK: usize = 64 << 10;
/// The most bytes of one code point.
const MOST_UTF8: usize = 4;
/// Elements longer than this get marks inside, where decoding can resume; at [`MOST_MARKS`] marks this doubles and every second
/// mark is dropped.
const MARK_BYTES: u64 = if cfg!(test) { 64 } else { 1 << 20 };
const MOST_MARKS: usize = if cfg!(test) { 4 } else { 16 << 10 };

/// The code points of `<U<n>` elements: a `uint32` tensor with one more axis, as long as the longest element.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    strings: Arc<Strings<'a>>,
    spec: TensorSpec,
    width: u64,
    marks: Vec<Mark>,
    widen: Cast,
}

/// A place within a long element.
#[derive(Debug, Clone, Copy)]
struct Mark {
    element: u64,
    /// Code points before this place.
    code_points: u64,
    /// Bytes before this place.
    bytes: u64,
}

impl<'a> Text<'a> {
    /// Scans the selected elements to check that they are UTF-8 and to find the longest.
    ///
    /// # Errors
    /// Returns [`Error::Lossy`] for the first element that is not UTF-8; [`Error::BadRequest`] when the elements, all as long as
    /// the longest, exceed what an array can have; [`Error::Io`]; [`Error::Cancelled`].
    pub(crate) fn new(strings: Arc<Strings<'a>>, calls: &SystemCalls) -> Result<Self> {
        let (mut longest, mut marks, mut step) = (0, Vec::new(), MARK_BYTES);
        let mut lengths = strings.lengths_from(0, calls)?;
        let mut bytes = Bytes::new(&strings, lengths.data_at(), calls);
        for element in 0..strings.shape().iter().product() {
            let length = lengths.next_length()?.unwrap_or(0);
            let (mut code_points, mut done, mut marked) = (0, 0, 0);
            while done < length {
                if element.is_multiple_of(1024) || done > 0 {
                    calls.cancel().check()?;
                }
                if done - marked >= step {
                    if marks.len() == MOST_MARKS {
                        step *= 2;
                        let mut is_odd = false;
                        marks.retain(|_| {
                            is_odd = !is_odd;
                            is_odd
                        });
                    }
                    marks.push(Mark { element, code_points, bytes: done });
                    marked = done;
                }
                bytes.refill(length - done)?;
                let text = bytes.text(length - done, element, done)?;
                code_points += text.chars().count() as u64;
                let len = text.len();
                bytes.used += len;
                done += len as u64;
            }
            longest = longest.max(code_points);
        }
        drop(lengths);
        let width = longest.max(1);
        let shape = strings.shape().iter().copied().chain([width]).collect();
        let spec = TensorSpec::new(Dtype::UInt32, shape).map_err(|request| BadRequest::StringsTooLong {
            name: strings.stored.name.clone(),
            longest: width,
            unit: "characters",
            request: Box::new(request),
        })?;
        Ok(Self { spec, width, marks, strings, widen: Cast::new(Dtype::UInt8, Dtype::UInt32)? })
    }

    /// Decodes an element of `length` bytes into `out`, from its code point `skip` on, as far as there is room. `bytes` must be at
    /// the place `from`; afterwards it is after the decoded text.
    fn decode(&self, bytes: &mut Bytes<'_>, from: Mark, length: u64, skip: u64, out: &mut [u8], context: &ReadContext<'_>) -> Result<()> {
        let (mut code_point, mut done, mut filled) = (from.code_points, from.bytes, 0);
        let mut last = None;
        while done < length && filled < out.len() {
            context.check_cancelled()?;
            let at = bytes.refill(length - done)?;
            let text = bytes.text(length - done, from.element, done)?;
            let before: usize = text.chars().take(memory_len(skip.saturating_sub(code_point))).map(char::len_utf8).sum();
            code_point += text[..before].chars().count() as u64;
            let wanted = &text[before..];
            let room = (out.len() - filled) / size_of::<u32>();
            let ascii = wanted.as_bytes();
            let taken = if ascii.is_ascii() {
                let ascii = &ascii[..ascii.len().min(room)];
                self.widen.run_matching(ascii, &mut out[filled..filled + 4 * ascii.len()]);
                filled += 4 * ascii.len();
                code_point += ascii.len() as u64;
                last = ascii.last().map(|&byte| u32::from(byte)).or(last);
                ascii.len()
            } else {
                let mut taken = 0;
                for character in wanted.chars().take(room) {
                    LittleEndian::write_u32(&mut out[filled..], character.into());
                    filled += 4;
                    code_point += 1;
                    taken += character.len_utf8();
                    last = Some(character.into());
                }
                taken
            };
            self.strings.record(at + before as u64, &text.as_bytes()[before..before + taken], context);
            bytes.used += before + taken;
            done += (before + taken) as u64;
        }
        if done == length && last == Some(0) {
            let detail = format!("ends in a NUL character, which NumPy would lose in <U{}: `strings` offsets keeps it", self.width);
            return Err(self.strings.lossy(from.element, detail));
        }
        out[filled..].fill(0);
        Ok(())
    }
}

impl TensorReader for Text<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, code_points: Range<u64>, mut out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let mut element = code_points.start / self.width;
        let mut skip = code_points.start % self.width;
        let mut lengths = self.strings.lengths_from(element, &context.calls)?;
        let start = Mark { element, code_points: 0, bytes: 0 };
        let behind = self.marks.partition_point(|mark| (mark.element, mark.code_points) <= (element, skip));
        let mut from = self.marks[..behind].last().copied().filter(|mark| mark.element == element).unwrap_or(start);
        let mut bytes = Bytes::new(&self.strings, lengths.data_at() + from.bytes, &context.calls);
        while !out.is_empty() {
            let room = (memory_len(self.width - skip) * size_of::<u32>()).min(out.len());
            let (place, behind) = std::mem::take(&mut out).split_at_mut(room);
            out = behind;
            let length = lengths.next_length()?.unwrap_or(0);
            self.decode(&mut bytes, from, length, skip, place, context)?;
            element += 1;
            skip = 0;
            from = Mark { element, code_points: 0, bytes: 0 };
        }
        Ok(())
    }

    fn regions(&self) -> &[Region] {
        self.strings.regions()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.strings.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        self.strings.heap_bytes() + (self.marks.capacity() * size_of::<Mark>()) as u64
    }
}

/// Reads the bytes of consecutive elements.
struct Bytes<'a> {
    strings: &'a Strings<'a>,
    calls: SystemCalls,
    /// Start of the buffer, from the start of the data.
    at: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer already used.
    used: usize,
}

impl<'a> Bytes<'a> {
    fn new(strings: &'a Strings<'a>, at: u64, calls: &SystemCalls) -> Self {
        Self { strings, calls: calls.clone(), at, buffer: Vec::new(), used: 0 }
    }

    /// Makes sure that the buffer holds a whole character, or all `left` bytes of the element; returns the place of its next byte.
    fn refill(&mut self, left: u64) -> Result<u64> {
        let at = self.at + self.used as u64;
        if self.buffer.len() - self.used < MOST_UTF8.min(memory_len(left)) {
            let behind = self.strings.data.nbytes.saturating_sub(at);
            if behind < left {
                let detail = format!("an element needs {left} more bytes, {behind} are left");
                return Err(self.strings.stored.malformed(self.strings.scan.data_start + at, detail));
            }
            let len = memory_len(behind).min(CHUNK);
            self.buffer.resize(len, 0);
            self.strings.stored.read(self.strings.scan.data_start + at, &mut self.buffer, &self.calls)?;
            (self.at, self.used) = (at, 0);
        }
        Ok(at)
    }

    /// The buffered bytes as text, at most the `left` bytes that the element still has after `done`, without a character that is
    /// cut off.
    fn text(&self, left: u64, element: u64, done: u64) -> Result<&str> {
        let ahead = &self.buffer[self.used..];
        let ahead = &ahead[..ahead.len().min(memory_len(left))];
        match std::str::from_utf8(ahead) {
            Ok(text) => Ok(text),
            // A character cut off by the end of the buffer.
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 && (ahead.len() as u64) < left => {
                Ok(std::str::from_utf8(&ahead[..error.valid_up_to()]).unwrap_or_default())
            }
            Err(error) => {
                let at = error.valid_up_to();
                let found = ahead.get(at).copied().unwrap_or_default();
                let detail = format!("is not UTF-8: it has {found:#04x} at byte {}; `strings` offsets keeps it", done + at as u64);
                Err(self.strings.lossy(element, detail))
            }
        }
    }
}

//! The header of a `.npy` file.
//!
//! Source: the format description in NumPy's `numpy/lib/_format_impl.py`.

use std::collections::HashSet;

use byteorder::{ByteOrder as _, LittleEndian};

use crate::error::ParseError;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Magic, version and the length of the text.
const PREFIX_LEN: usize = 10;
/// The longest header that `numpy.load` accepts by default (`max_header_size`).
pub(crate) const MAX_TEXT_LEN: usize = 10_000;
/// NumPy pads headers so that data starts at a multiple of this.
const ARRAY_ALIGN: usize = 64;
/// NumPy reserves this many digits for the axis that varies slowest, so that it can grow.
const GROWTH_DIGITS: usize = 21;
/// Where data starts in every non-empty file: at a page, so that it can be mapped, evicted and shared on its own.
pub(crate) const DATA_ALIGN: usize = 4096;
const WHAT: &str = ".npy header";

/// A parsed descriptor of plain elements: `>f4`, `|S12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descr {
    /// Little-endian if the descriptor has no order.
    pub(crate) order: ByteOrder,
    /// `f`, `i`, `u`, `b`, `c`, `V`, `S`, `U`.
    pub(crate) kind: char,
    /// Bytes per element; for `U`, code points.
    pub(crate) size: u64,
}

impl Descr {
    /// Returns `None` for structured types, dates, objects and invalid descriptors.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (order, rest) = match text.chars().next()? {
            '<' | '|' => (ByteOrder::Little, &text[1..]),
            '>' => (ByteOrder::Big, &text[1..]),
            '=' => (ByteOrder::NATIVE, &text[1..]),
            _ => (ByteOrder::NATIVE, text),
        };
        let kind = rest.chars().next().filter(|kind| "fiubcVSU".contains(*kind))?;
        let size = rest[1..].parse().ok()?;
        // Normalises the order of types for which it has no meaning.
        let order = if kind == 'S' || kind == 'V' || (size == 1 && kind != 'U') { ByteOrder::Little } else { order };
        Some(Self { order, kind, size })
    }

    /// Whether an element is a string.
    pub(crate) fn is_text(self) -> bool {
        matches!(self.kind, 'S' | 'U')
    }

    /// The dtype it stands for; `None` for `V1` and `V2`, which are ambiguous, and for types that TensorFlow lacks.
    pub(crate) fn dtype(self) -> Option<Dtype> {
        Dtype::ALL.iter().copied().find(|&dtype| self.kind != 'V' && dtype == dtype.as_plain() && self.can_be(dtype))
    }

    /// Whether elements of `dtype` have this descriptor, in either byte order.
    pub(crate) fn can_be(self, dtype: Dtype) -> bool {
        dtype.descr().and_then(Self::parse).is_some_and(|own| (own.kind, own.size) == (self.kind, self.size))
    }
}

/// Bytes before the text of a header.
fn prefix_len(version: u8) -> usize {
    if version == 1 { PREFIX_LEN } else { PREFIX_LEN + 2 }
}

/// How deep record descriptors may nest.
const MOST_NESTED: usize = 16;

/// The elements that a descriptor describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Elements {
    /// A type that TensorFlow also has.
    Plain(Dtype, ByteOrder),
    /// A type that TensorFlow lacks, with this many bytes per element.
    Items(u64),
    /// Pickled objects.
    Objects,
}

impl Elements {
    /// Parses the descriptor `text`; `None` if it is not supported.
    pub(crate) fn of(text: &str) -> Option<Self> {
        if let Some((dtype, order)) = Descr::parse(text).and_then(|descr| Some((descr.dtype()?, descr.order))) {
            return Some(Self::Plain(dtype, order));
        }
        // `numpy.save` writes `<f1` for float8_e5m2, and NumPy accepts its type names as descriptors.
        let named =
            || Dtype::from_name(text).filter(|dtype| *dtype == dtype.as_plain() && dtype.descr().is_some_and(|descr| !descr.contains('V')));
        if let Some(dtype) = if text == "<f1" { Some(Dtype::Float8E5M2) } else { named() } {
            return Some(Self::Plain(dtype, ByteOrder::NATIVE));
        }
        let mut descr = DescrParser(text);
        match descr.itemsize(0) {
            _ if DescrParser::has_objects(text) => Some(Self::Objects),
            Some(bytes) if descr.0.trim().is_empty() && bytes > 0 => Some(Self::Items(bytes)),
            _ => None,
        }
    }
}

/// Parses descriptors of text, dates or records: `|S7`, `[('a', '<i4'), ('b', '>f8', (2, 3))]`. Holds the unparsed rest.
struct DescrParser<'a>(&'a str);

impl<'a> DescrParser<'a> {
    fn accept(&mut self, token: char) -> bool {
        let rest = self.0.trim_start();
        rest.strip_prefix(token).inspect(|rest| self.0 = rest).is_some()
    }

    fn string(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = rest[1..].split_once(quote)?;
        self.0 = rest;
        Some(text)
    }

    fn number(&mut self) -> Option<u64> {
        let rest = self.0.trim_start();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value = rest[..digits].parse().ok()?;
        self.0 = &rest[digits..];
        Some(value)
    }

    /// Whether any element is a pickled object.
    fn has_objects(text: &str) -> bool {
        let is_object = |part: &str| matches!(part.trim_start_matches(['<', '>', '|', '=']), "O" | "O4" | "O8");
        is_object(text) || text.split(['\'', '"']).any(is_object)
    }

    /// Bytes per element.
    fn itemsize(&mut self, depth: usize) -> Option<u64> {
        if !self.0.trim_start().starts_with('[') {
            let text = if depth == 0 { std::mem::take(&mut self.0) } else { self.string()? };
            return plain_itemsize(text);
        }
        if depth == MOST_NESTED || !self.accept('[') {
            return None;
        }
        let (mut total, mut names) = (0u64, HashSet::new());
        while !self.accept(']') {
            if !self.accept('(') {
                return None;
            }
            // Either a name, or a title and a name.
            let name = if self.accept('(') {
                let title = self.string()?;
                let name = if self.accept(',') { self.string()? } else { title };
                self.accept(')');
                name
            } else {
                self.string()?
            };
            // NumPy forbids two fields with one name; it renames fields without a name.
            if !names.insert(name) && !name.is_empty() {
                return None;
            }
            let mut bytes = self.accept(',').then(|| self.itemsize(depth + 1))??;
            if self.accept(',') && self.accept('(') {
                while !self.accept(')') {
                    bytes = bytes.checked_mul(self.number()?)?;
                    self.accept(',');
                }
                self.accept(',');
            }
            total = total.checked_add(bytes)?;
            if !self.accept(')') {
                return None;
            }
            self.accept(',');
        }
        Some(total)
    }
}

/// Bytes per element of a type other than a record.
fn plain_itemsize(text: &str) -> Option<u64> {
    let rest = text.strip_prefix(['<', '>', '|', '=']).unwrap_or(text);
    let kind = rest.chars().next().filter(|kind| "fiubcVSUMm".contains(*kind))?;
    let (digits, unit) = rest[1..].split_at(rest[1..].find('[').unwrap_or(rest.len() - 1));
    let is_date = matches!(kind, 'M' | 'm');
    let has_unit = is_date && unit.ends_with(']');
    if !unit.is_empty() && !has_unit {
        return None;
    }
    let size: u64 = digits.parse().ok()?;
    // The valid sizes. Floats include C's long double on various processors.
    let is_known = match kind {
        'f' => matches!(size, 2 | 4 | 8 | 12 | 16),
        'c' => matches!(size, 8 | 16 | 24 | 32),
        'i' | 'u' => matches!(size, 1 | 2 | 4 | 8),
        'b' => size == 1,
        'M' | 'm' => size == 8,
        _ => true,
    };
    if kind == 'U' { size.checked_mul(4) } else { Some(size).filter(|_| is_known) }
}

/// A header's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) descr: String,
    pub(crate) fortran_order: bool,
    pub(crate) shape: Vec<u64>,
}

impl Header {
    /// A header for a C-ordered array.
    pub(crate) fn new(descr: &str, shape: &[u64]) -> Self {
        Self { descr: descr.to_owned(), fortran_order: false, shape: shape.to_vec() }
    }

    /// The same for an array in Fortran order: axis 0 varies fastest. As in NumPy, an array that is in both orders counts as
    /// C-ordered.
    pub(crate) fn fortran_ordered(self) -> Self {
        Self { fortran_order: self.orders_differ(), ..self }
    }

    /// Whether Fortran order differs from C order for this shape.
    pub(crate) fn orders_differ(&self) -> bool {
        !self.shape.contains(&0) && self.shape.iter().filter(|&&dim| dim > 1).count() > 1
    }

    /// The dict as NumPy writes it, without padding.
    fn text(&self) -> String {
        let mut text =
            format!("{{'descr': {}, 'fortran_order': {}, 'shape': (", self.descr_text(), if self.fortran_order { "True" } else { "False" });
        for (i, dim) in self.shape.iter().enumerate() {
            text += &format!("{}{dim}", if i == 0 { "" } else { ", " });
        }
        text += if self.shape.len() == 1 { ",), }" } else { "), }" };
        if let Some(growing) = if self.fortran_order { self.shape.last() } else { self.shape.first() } {
            let digits = growing.to_string().len();
            text.push_str(&" ".repeat(GROWTH_DIGITS.saturating_sub(digits)));
        }
        text
    }

    /// The descriptor as a Python literal: a string, or a list for records.
    fn descr_text(&self) -> String {
        if self.descr.starts_with('[') { self.descr.clone() } else { format!("'{}'", self.descr) }
    }

    /// The default offset of the data: [`DATA_ALIGN`]. Without elements it is where `numpy.save` puts it, because NumPy before
    /// 2.4 cannot map an empty array at the start of a page.
    pub(crate) fn data_start(&self) -> u64 {
        let align = if self.shape.contains(&0) { ARRAY_ALIGN } else { DATA_ALIGN };
        self.data_starts().start.next_multiple_of(align as u64)
    }

    /// The possible offsets of the data: after the text, and within the header length that `numpy.load` reads.
    pub(crate) fn data_starts(&self) -> std::ops::Range<u64> {
        let (version, text) = self.encoded_text();
        let prefix = prefix_len(version);
        (prefix + text.len() + 1) as u64..(prefix + MAX_TEXT_LEN + 1) as u64
    }

    /// The version that NumPy chooses for the text, and its bytes: Latin-1 if that has all characters, else UTF-8.
    fn encoded_text(&self) -> (u8, Vec<u8>) {
        let text = self.text();
        let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        latin.map_or_else(|| (3, text.into_bytes()), |latin| (1, latin))
    }

    /// Encodes the header, padded so that data starts at `data_start`, which must be in [`data_starts`](Self::data_starts).
    pub(crate) fn encode(&self, data_start: u64) -> Vec<u8> {
        let (version, text) = self.encoded_text();
        let prefix = prefix_len(version);
        let len = memory_len(data_start).max(prefix + text.len() + 1);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(MAGIC);
        bytes.extend([version, 0]);
        // It fits: 64 dimensions of 20 digits take some 1,500 characters, the descriptor comes from a header of at most
        // `MAX_TEXT_LEN`, and padding ends where `numpy.load` stops reading.
        let text_len = u16::try_from(len - prefix).unwrap_or(u16::MAX);
        bytes.extend(text_len.to_le_bytes());
        bytes.resize(prefix, 0);
        bytes.extend_from_slice(&text);
        bytes.resize(len - 1, b' ');
        bytes.push(b'\n');
        bytes
    }

    /// Parses the start of a file; returns the header and the offset of the data.
    ///
    /// `bytes` must hold the whole header; the data may be truncated.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, u64), ParseError> {
        if bytes.len() < PREFIX_LEN && MAGIC.starts_with(&bytes[..bytes.len().min(6)]) {
            return Err(ParseError::new(0, WHAT, format!("the file has only {} bytes: its header was cut short", bytes.len())));
        }
        if bytes.len() < PREFIX_LEN || &bytes[..6] != MAGIC {
            let found = &bytes[..bytes.len().min(6)];
            return Err(ParseError::new(0, WHAT, format!("magic is {found:02x?}, expected {MAGIC:02x?}")));
        }
        let (len, start) = match (bytes[6], bytes[7]) {
            (1, 0) => (usize::from(LittleEndian::read_u16(&bytes[8..])), 10),
            (2 | 3, 0) if bytes.len() >= 12 => (LittleEndian::read_u32(&bytes[8..]) as usize, 12),
            (major, minor) => return Err(ParseError::new(6, WHAT, format!("version is {major}.{minor}, expected 1.0, 2.0 or 3.0"))),
        };
        if len > MAX_TEXT_LEN {
            return Err(ParseError::new(8, WHAT, format!("text of {len} bytes, expected at most {MAX_TEXT_LEN}")));
        }
        let text = bytes
            .get(start..start + len)
            .ok_or_else(|| ParseError::new(8, WHAT, format!("text of {len} bytes, but only {} bytes are left", bytes.len() - start)))?;
        // Latin-1 maps every byte to a character.
        let text = match bytes[6] {
            3 => String::from_utf8(text.to_vec())
                .map_err(|error| ParseError::new(start + error.utf8_error().valid_up_to(), WHAT, "the text of version 3 is not UTF-8"))?,
            _ => text.iter().copied().map(char::from).collect(),
        };
        let mut parser = Parser { text: text.as_bytes(), pos: 0, base: start };
        Ok((parser.header()?, (start + len) as u64))
    }
}

/// Parses the Python literal of a header: a dict of a string, a bool and a tuple of integers.
struct Parser<'a> {
    text: &'a [u8],
    pos: usize,
    base: usize,
}

impl Parser<'_> {
    fn error<T>(&self, expected: &str) -> Result<T, ParseError> {
        let found = String::from_utf8_lossy(&self.text[self.pos..self.text.len().min(self.pos + 16)]).into_owned();
        Err(ParseError::new(self.base + self.pos, WHAT, format!("found {found:?}, expected {expected}")))
    }

    fn skip_space(&mut self) {
        while self.text.get(self.pos).is_some_and(u8::is_ascii_whitespace) {
            self.pos += 1;
        }
    }

    fn accept(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.text[self.pos..].starts_with(token.as_bytes());
        if found {
            self.pos += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ParseError> {
        if self.accept(token) { Ok(()) } else { self.error(&format!("{token:?}")) }
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let quote = if self.accept("'") {
            b'\''
        } else if self.accept("\"") {
            b'"'
        } else {
            return self.error("a string");
        };
        let rest = &self.text[self.pos..];
        match rest.iter().position(|&b| b == quote || b == b'\\') {
            Some(len) if rest[len] == quote => {
                let value = String::from_utf8_lossy(&rest[..len]).into_owned();
                self.pos += len + 1;
                Ok(value)
            }
            _ => self.error("the end of a string without escapes"),
        }
    }

    /// Reads the text of a structured descriptor after its opening bracket, without interpreting it.
    fn structured(&mut self) -> Result<String, ParseError> {
        let (start, mut depth, mut quote) = (self.pos - 1, 1, None);
        for (i, &byte) in self.text[self.pos..].iter().enumerate() {
            match (quote, byte) {
                (Some(open), _) => quote = Some(open).filter(|&open| open != byte),
                (None, b'\'' | b'"') => quote = Some(byte),
                (None, b'[' | b'(') => depth += 1,
                (None, b']' | b')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.pos += i + 1;
                return Ok(String::from_utf8_lossy(&self.text[start..self.pos]).into_owned());
            }
        }
        self.error("the end of a structured descriptor")
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        self.skip_space();
        let rest = &self.text[self.pos..];
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        match std::str::from_utf8(&rest[..len]).ok().and_then(|digits| digits.parse::<i64>().ok()) {
            Some(value) => {
                self.pos += len;
                self.accept("L");
                Ok(value.unsigned_abs())
            }
            None => self.error("a dimension from 0 to 2^63 - 1"),
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, ParseError> {
        self.expect("(")?;
        let mut items = Vec::new();
        while !self.accept(")") {
            items.push(self.number()?);
            if !self.accept(",") {
                if items.len() == 1 {
                    return self.error("\",\" after the only item of a tuple");
                }
                self.expect(")")?;
                break;
            }
        }
        Ok(items)
    }

    fn header(&mut self) -> Result<Header, ParseError> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.accept("}") {
            let key = self.string()?;
            self.expect(":")?;
            match key.as_str() {
                "descr" if self.accept("[") => descr = Some(self.structured()?),
                "descr" => descr = Some(self.string()?),
                "fortran_order" if self.accept("True") => fortran_order = Some(true),
                "fortran_order" if self.accept("False") => fortran_order = Some(false),
                "fortran_order" => return self.error("True or False"),
                "shape" => shape = Some(self.tuple()?),
                _ => return self.error("only the keys descr, fortran_order and shape"),
            }
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.skip_space();
        if self.pos != self.text.len() {
            return self.error("nothing after the dict");
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header { descr, fortran_order, shape }),
            _ => self.error("all of descr, fortran_order and shape"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_array_gets_the_header_that_numpy_saves() {
        // numpy 2.4.6: np.save(f, np.zeros((0, 3), "f4"))
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        let header = Header::new("<f4", &[0, 3]);
        assert_eq!(header.encode(header.data_start()), expected);
    }

    #[test]
    fn data_start_at_a_page() {
        for shape in [&[][..], &[1], &[u64::MAX >> 1], &[1; 64]] {
            assert_eq!(Header::new("<c16", shape).data_start(), DATA_ALIGN as u64);
        }
    }

    #[test]
    fn what_numpy_refuses_is_refused() {
        let with = |text: &str| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            Header::parse(&bytes)
        };
        assert!(with("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}\n").is_ok());
        let structured = with("{'descr': [('a]', '<f4'), ('b', '<i2', (2,))], 'fortran_order': False, 'shape': (3,)}\n").unwrap().0;
        assert_eq!(structured.descr, "[('a]', '<f4'), ('b', '<i2', (2,))]");
        assert!(with("{\"shape\": (3, 6L), 'fortran_order': True, 'descr': '<f4', }").is_ok());
        for bad in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2**3,), }",
            "{'descr': '<f4', 'fortran_order': False, }",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), } x",
            "{'descr': '<f4",
            "",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(Header::parse(b"\x93NUMPY\x04\x00\x00\x00\x00\x00").is_err());
        assert!(Header::parse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").is_err());
        assert!(Header::parse(b"\x93NUM").is_err());
    }

    #[test]
    fn lossy_descriptors_name_no_dtype() {
        let dtype = |text| Descr::parse(text).and_then(Descr::dtype);
        assert_eq!(dtype("<f4"), Some(Dtype::Float32));
        assert_eq!(dtype(">c16"), Some(Dtype::Complex128));
        assert_eq!(dtype("<i1"), Some(Dtype::Int8));
        for text in ["<V2", "|V1", "|S3", "|O", "", "<f16", "<M8[ns]", "<", "\u{e9}4", "<f"] {
            assert_eq!(dtype(text), None, "{text}");
        }
    }

    #[test]
    fn elements_that_tensorflow_does_not_have_are_so_many_bytes() {
        for (text, bytes) in [
            ("|S7", Some(7)),
            ("<U4", Some(16)),
            ("<M8[ns]", Some(8)),
            ("<f16", Some(16)),
            ("|V3", Some(3)),
            ("[('a', '<i4'), ('b', '>f8'), ('s', '|S3')]", Some(15)),
            ("[('c', '<i8', (2, 3)), (('title', 'n'), [('x', '<u2', (2,))])]", Some(52)),
            ("[]", None),
            ("|S0", None),
            ("<q9", None),
            ("[('a', '<i4'", None),
            ("[('a', '<i4', (4611686018427387904, 4))]", None),
        ] {
            assert_eq!(Elements::of(text), bytes.map(Elements::Items), "{text}");
        }
        for text in ["|O", "O", "[('a', '|O')]", "[('a', [('b', 'O8')])]"] {
            assert_eq!(Elements::of(text), Some(Elements::Objects), "{text}");
        }
        assert_eq!(Elements::of(&"[('a', ".repeat(100)), None);
    }

    #[test]
    fn records_keep_their_descriptor() {
        for (descr, version) in [("[('a', '<i4'), ('b', '>f8')]", 1), ("[('\u{e9}', '<i4')]", 1), ("[('\u{96ea}', '<i4')]", 3)] {
            let header = Header::new(descr, &[2]);
            let bytes = header.encode(header.data_start());
            assert_eq!(bytes[6], version);
            assert_eq!(Header::parse(&bytes), Ok((header, DATA_ALIGN as u64)));
        }
    }

    #[test]
    fn descriptors_are_compared_by_what_they_mean() {
        for (one, other) in [("<i1", "|i1"), ("<V2", "|V2"), ("|S3", "<S3"), ("f4", "=f4")] {
            assert_eq!(Descr::parse(one), Descr::parse(other));
        }
        for (one, other) in [("<f4", ">f4"), ("<U3", ">U3"), ("<U1", ">U1"), ("|S3", "|S4"), ("<i4", "<u4")] {
            assert_ne!(Descr::parse(one), Descr::parse(other));
        }
    }

    proptest! {
        #[test]
        fn parsing_gives_back_what_was_encoded(
            descr in "[<|][a-zA-Z][0-9]{1,2}", shape in prop::collection::vec(0..u64::MAX >> 1, 0..65), start in any::<prop::sample::Index>()
        ) {
            let header = Header::new(&descr, &shape);
            prop_assert_eq!(header.data_start() % 64, 0);
            let starts = header.data_starts();
            let start = starts.start + start.index((starts.end - starts.start) as usize) as u64;
            for start in [start, starts.start, starts.end - 1, header.data_start()] {
                let bytes = header.encode(start);
                prop_assert_eq!(bytes.len() as u64, start);
                prop_assert_eq!(bytes.last(), Some(&b'\n'));
                prop_assert_eq!(Header::parse(&bytes), Ok((header.clone(), start)));
            }
        }

        #[test]
        fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}(),:'a-z0-9 ]{0,80}") {
            let _ = Header::parse(&bytes);
            let mut framed = b"\x93NUMPY\x01\x00".to_vec();
            framed.extend((text.len() as u16).to_le_bytes());
            framed.extend(text.as_bytes());
            let _ = Header::parse(&framed);
        }
    }
}

//! Parser for `tf.train.Example` and `tf.train.SequenceExample`: features by name, and their values.
//!
//! Source: `tensorflow/core/example/example.proto` and `feature.proto`. Unusual but legal input is read as protobuf reads it:
//! packed and unpacked values may be mixed, a list may come in parts, and the last of two kinds or of two equal keys wins.

use byteorder::{ByteOrder as _, LittleEndian};

use super::proto::{Fields, Value};
use super::varint;
use crate::error::ParseError;

const WHAT: &str = "Example";

/// Where a feature is in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the features of an Example, or in the context of a `SequenceExample`.
    Context,
    /// In the feature lists of a `SequenceExample`.
    Lists,
}

/// The three kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bytes,
    Floats,
    Ints,
}

impl Kind {
    /// The name of its message field.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes_list",
            Self::Floats => "float_list",
            Self::Ints => "int64_list",
        }
    }
}

/// Calls `found` for every entry of a record with its place, its key, and its `Feature` or `FeatureList` with its offset.
///
/// Entries come in the order of the wire; if a key comes twice, the last one counts.
pub(crate) fn entries<'a>(record: &'a [u8], mut found: impl FnMut(Place, &'a [u8], &'a [u8], usize)) -> Result<(), ParseError> {
    for field in Fields::new(record, 0, WHAT) {
        let field = field?;
        let (place, Value::Bytes(features, base)) = (match field.number {
            1 => (Place::Context, field.value),
            2 => (Place::Lists, field.value),
            _ => continue,
        }) else {
            continue;
        };
        for entry in Fields::new(features, base, WHAT) {
            let (1, Value::Bytes(entry, base)) = entry.map(|entry| (entry.number, entry.value))? else { continue };
            let (mut key, mut value): (&[u8], (&[u8], usize)) = (&[], (&[], base));
            for part in Fields::new(entry, base, WHAT) {
                match part.map(|part| (part.number, part.value))? {
                    (1, Value::Bytes(bytes, _)) => key = bytes,
                    (2, Value::Bytes(bytes, at)) => value = (bytes, at),
                    _ => {}
                }
            }
            found(place, key, value.0, value.1);
        }
    }
    Ok(())
}

/// Iterates over the `Feature` messages of a `FeatureList`, each with its offset.
pub(crate) fn steps(list: &[u8], base: usize) -> impl Iterator<Item = Result<(&[u8], usize), ParseError>> {
    Fields::new(list, base, "FeatureList").filter_map(|field| match field {
        Ok(field) => match (field.number, field.value) {
            (1, Value::Bytes(feature, at)) => Some(Ok((feature, at))),
            _ => None,
        },
        Err(error) => Some(Err(error)),
    })
}

/// The values of a `Feature`, parsed on demand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeatureValues<'a> {
    kind: Kind,
    /// The rest of the message, starting at the first list of this kind that counts.
    lists: &'a [u8],
    base: usize,
}

impl<'a> FeatureValues<'a> {
    /// Finds the values of a `Feature` that starts at `base`; `None` if it has no kind.
    pub(crate) fn parse(feature: &'a [u8], base: usize) -> Result<Option<Self>, ParseError> {
        let mut values: Option<Self> = None;
        for field in Fields::new(feature, base, "Feature") {
            let field = field?;
            let kind = match (field.number, field.value) {
                (1, Value::Bytes(..)) => Kind::Bytes,
                (2, Value::Bytes(..)) => Kind::Floats,
                (3, Value::Bytes(..)) => Kind::Ints,
                _ => continue,
            };
            if values.is_none_or(|values| values.kind != kind) {
                values = Some(Self { kind, lists: &feature[field.offset - base..], base: field.offset });
            }
        }
        Ok(values)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Calls `each` for every `value` field of the lists.
    fn fields(&self, mut each: impl FnMut(Value<'a>, usize) -> Result<(), ParseError>) -> Result<(), ParseError> {
        let number = self.kind as u32 + 1;
        for list in Fields::new(self.lists, self.base, "Feature") {
            let list = list?;
            let Value::Bytes(bytes, base) = list.value else { continue };
            if list.number != number {
                continue;
            }
            for field in Fields::new(bytes, base, self.kind.name()) {
                let field = field?;
                if field.number == 1 {
                    each(field.value, field.offset)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with runs of little-endian `float32`.
    pub(crate) fn floats(&self, mut each: impl FnMut(&[u8])) -> Result<(), ParseError> {
        self.fields(|value, offset| {
            match value {
                Value::Bytes(packed, _) if packed.len() % 4 == 0 => each(packed),
                Value::Bytes(packed, at) => {
                    return Err(ParseError::new(
                        at,
                        "float_list",
                        format!("{} bytes of packed floats, expected a multiple of 4", packed.len()),
                    ));
                }
                Value::Fixed32(bits) => each(&bits.to_le_bytes()),
                _ => return Err(wrong_wire_type(Kind::Floats, offset)),
            }
            Ok(())
        })
    }

    /// Calls `each` with every integer.
    pub(crate) fn ints(&self, mut each: impl FnMut(i64)) -> Result<(), ParseError> {
        self.fields(|value, offset| {
            match value {
                Value::Bytes(packed, base) => {
                    let mut at = 0;
                    while at < packed.len() {
                        // Most integers are short.
                        let (value, len) = match packed[at] {
                            byte if byte < 0x80 => (u64::from(byte), 1),
                            _ => varint::read_u64(&packed[at..], base + at, "int64_list")?,
                        };
                        each(value.cast_signed());
                        at += len;
                    }
                }
                Value::Varint(value) => each(value.cast_signed()),
                _ => return Err(wrong_wire_type(Kind::Ints, offset)),
            }
            Ok(())
        })
    }

    /// Calls `each` with every byte string.
    pub(crate) fn bytes(&self, mut each: impl FnMut(&'a [u8], usize) -> Result<(), ParseError>) -> Result<(), ParseError> {
        self.fields(|value, offset| match value {
            Value::Bytes(bytes, at) => each(bytes, at),
            _ => Err(wrong_wire_type(Kind::Bytes, offset)),
        })
    }

    /// The number of values.
    pub(crate) fn count(&self) -> Result<u64, ParseError> {
        let mut count = 0;
        match self.kind {
            Kind::Floats => self.floats(|run| count += run.len() as u64 / 4)?,
            Kind::Bytes => self.bytes(|_, _| {
                count += 1;
                Ok(())
            })?,
            Kind::Ints => self.fields(|value, _| {
                count += match value {
                    // Counts the last byte of each varint.
                    Value::Bytes(packed, _) => packed.iter().filter(|&&byte| byte < 0x80).count() as u64,
                    _ => 1,
                };
                Ok(())
            })?,
        }
        Ok(count)
    }
}

fn wrong_wire_type(kind: Kind, offset: usize) -> ParseError {
    ParseError::new(offset, kind.name(), "a value has the wrong wire type")
}

/// Appends an integer to `out`, little-endian.
pub(crate) fn push_int(out: &mut Vec<u8>, value: i64) {
    let mut bytes = [0; 8];
    LittleEndian::write_i64(&mut bytes, value);
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{f: floats 1, 2; i: ints -1, 300; b: bytes "ab", ""; n: no kind}`, as TensorFlow writes it.
    const EXAMPLE: &[u8] = b"\x0a\x40\x0a\x0d\x0a\x01\x62\x12\x08\x0a\x06\x0a\x02\x61\x62\x0a\x00\x0a\x11\x0a\x01\x66\x12\x0c\x12\x0a\x0a\x08\x00\x00\x80\x3f\x00\x00\x00\x40\x0a\x15\x0a\x01\x69\x12\x10\x1a\x0e\x0a\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xac\x02\x0a\x05\x0a\x01\x6e\x12\x00";

    fn feature<'a>(record: &'a [u8], name: &[u8]) -> Option<FeatureValues<'a>> {
        let mut found = None;
        entries(record, |_, key, value, base| {
            if key == name {
                found = FeatureValues::parse(value, base).unwrap();
            }
        })
        .unwrap();
        found
    }

    fn floats(values: &FeatureValues<'_>) -> Result<Vec<f32>, ParseError> {
        let mut all = Vec::new();
        values.floats(|run| all.extend(run.chunks_exact(4).map(LittleEndian::read_f32)))?;
        Ok(all)
    }

    #[test]
    fn an_example_of_tensorflow() {
        assert_eq!(floats(&feature(EXAMPLE, b"f").unwrap()).unwrap(), [1.0, 2.0]);
        let ints = feature(EXAMPLE, b"i").unwrap();
        let mut all = Vec::new();
        ints.ints(|value| all.push(value)).unwrap();
        assert_eq!((all, ints.count().unwrap()), (vec![-1, 300], 2));
        let mut all = Vec::new();
        feature(EXAMPLE, b"b")
            .unwrap()
            .bytes(|bytes, _| {
                all.push(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(all, [&b"ab"[..], b""]);
        assert!(feature(EXAMPLE, b"n").is_none());
    }

    #[test]
    fn odd_but_legal_lists_are_read_as_protobuf_reads_them() {
        let one = 1f32.to_le_bytes();
        let two = 2f32.to_le_bytes();
        let list = |parts: &[&[u8]]| parts.concat();
        let packed = list(&[&[0x0a, 4], &one]);
        let unpacked = list(&[&[0x0d], &two]);
        // Packed and unpacked values in one list, then a second list, with an unknown field between them.
        let feature = list(&[&[0x12, 11], &packed, &unpacked, &[0x78, 1], &[0x12, 6], &packed]);
        let values = FeatureValues::parse(&feature, 0).unwrap().unwrap();
        assert_eq!((floats(&values).unwrap(), values.count().unwrap()), (vec![1.0, 2.0, 1.0], 3));
        // The last kind wins, and earlier values of the same kind are dropped.
        let feature = list(&[&[0x12, 6], &packed, &[0x1a, 3, 0x0a, 1, 7], &[0x12, 5], &unpacked]);
        assert_eq!(floats(&FeatureValues::parse(&feature, 0).unwrap().unwrap()).unwrap(), [2.0]);
        // Three bytes are too few for a float.
        let values = [0x12, 5, 0x0a, 3, 1, 2, 3];
        assert!(floats(&FeatureValues::parse(&values, 0).unwrap().unwrap()).is_err());
    }

    #[test]
    fn any_bytes_parse_or_fail() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for start in 0..bytes.len() {
            let _ = entries(&bytes[start..], |_, _, value, base| {
                if let Ok(Some(values)) = FeatureValues::parse(value, base) {
                    let _ = values.count();
                    let _ = values.ints(|_| {});
                }
            });
        }
    }
}

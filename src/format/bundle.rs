//! Messages in the index of a checkpoint: `BundleHeaderProto`, `BundleEntryProto`.
//!
//! Source: `tensorflow/core/protobuf/tensor_bundle.proto`, `tensor_shape.proto`, `tensor_slice.proto` and
//! `versions.proto` of TensorFlow.

use super::proto::{Field, Fields};
use crate::error::ParseError;

/// The format version that this reader implements.
const CONSUMER_VERSION: i64 = 1;

/// `BundleHeaderProto`, the value of the empty key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleHeader {
    pub(crate) num_shards: u32,
    pub(crate) big_endian: bool,
    pub(crate) producer: i64,
}

/// `BundleEntryProto`, the value of every other key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleEntry {
    /// `enum DataType`.
    pub(crate) dtype: u64,
    /// The full shape.
    pub(crate) shape: Vec<u64>,
    pub(crate) shard_id: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// The checksum as stored, masked.
    pub(crate) masked_crc: u32,
    /// If not zero, the tensor is stored in this many pieces and this entry holds no data; see [`slices`].
    pub(crate) slices: u64,
}

/// Maximum number of dimensions of a TensorFlow shape (`TensorShape::MaxDimensions`).
const MAX_RANK: usize = 254;

/// One axis of a `TensorSliceProto` as stored; without `length` it covers the whole axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: i64,
    pub(crate) length: Option<i64>,
}

impl BundleHeader {
    /// Parses the header. Refuses unknown versions and an unknown endianness.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "bundle header";
        let mut header = Self { num_shards: 0, big_endian: false, producer: 0 };
        for field in Fields::new(bytes, 0, WHAT) {
            let field = field?;
            match field.number {
                1 => {
                    let shards = field.int64(WHAT)?;
                    header.num_shards = i32::try_from(shards)
                        .ok()
                        .and_then(|n| u32::try_from(n).ok())
                        .ok_or_else(|| ParseError::new(field.offset, WHAT, format!("num_shards is {shards}, expected 1 to 2147483647")))?;
                }
                2 => {
                    header.big_endian = match field.varint(WHAT)? {
                        0 => false,
                        1 => true,
                        other => {
                            let detail = format!("endianness is {other}, expected 0 (little) or 1 (big)");
                            return Err(ParseError::new(field.offset, WHAT, detail));
                        }
                    };
                }
                3 => header.producer = parse_version(field.message(WHAT)?)?,
                _ => {}
            }
        }
        if header.num_shards == 0 {
            return Err(ParseError::new(0, WHAT, "num_shards is 0, expected at least 1"));
        }
        Ok(header)
    }
}

/// Parses a `VersionDef` and returns the producer. Refuses versions that are too new for this reader.
pub(crate) fn parse_version(fields: Fields<'_>) -> Result<i64, ParseError> {
    const WHAT: &str = "bundle version";
    let refuse =
        |offset, detail: String| Err(ParseError::new(offset, WHAT, format!("{detail}, this reader is version {CONSUMER_VERSION}")));
    let mut producer = 0;
    for field in fields {
        let field = field?;
        match field.number {
            1 => producer = field.int64(WHAT)?,
            2 => {
                let min = field.int64(WHAT)?;
                if min > CONSUMER_VERSION {
                    return refuse(field.offset, format!("needs a reader of version {min}"));
                }
            }
            3 => {
                let bad = match field.value {
                    super::proto::Value::Bytes(packed, _) => packed_contains(packed, field.offset)?,
                    _ => field.int64(WHAT)? == CONSUMER_VERSION,
                };
                if bad {
                    return refuse(field.offset, "excludes readers of this version".into());
                }
            }
            _ => {}
        }
    }
    Ok(producer)
}

fn packed_contains(mut packed: &[u8], at: usize) -> Result<bool, ParseError> {
    while !packed.is_empty() {
        let (value, len) = super::varint::read_u64(packed, at, "bundle version")?;
        if value.cast_signed() == CONSUMER_VERSION {
            return Ok(true);
        }
        packed = &packed[len..];
    }
    Ok(false)
}

impl BundleEntry {
    /// Parses an entry. Offsets and lengths are non-negative; the caller must check that they fit the file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "bundle entry";
        let mut entry = Self { dtype: 0, shape: Vec::new(), shard_id: 0, offset: 0, size: 0, masked_crc: 0, slices: 0 };
        for field in Fields::new(bytes, 0, WHAT) {
            let field = field?;
            match field.number {
                1 => entry.dtype = field.varint(WHAT)?,
                2 => parse_shape(field.message(WHAT)?, &mut entry.shape)?,
                3 => {
                    let shard = field.int64(WHAT)?;
                    entry.shard_id = u32::try_from(shard)
                        .map_err(|_| ParseError::new(field.offset, WHAT, format!("shard_id is {shard}, expected at least 0")))?;
                }
                4 => entry.offset = field.count(WHAT, "offset")?,
                5 => entry.size = field.count(WHAT, "size")?,
                6 => entry.masked_crc = field.fixed32(WHAT)?,
                7 => entry.slices += 1,
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// Iterates over the pieces of an entry as stored. They are not collected: a few bytes in a file would become many in memory.
pub(crate) fn slices(entry: &[u8]) -> impl Iterator<Item = Result<Vec<Extent>, ParseError>> {
    const WHAT: &str = "bundle entry";
    Fields::new(entry, 0, WHAT).filter_map(|field| match field {
        Ok(field) if field.number == 7 => Some(field.message(WHAT).and_then(parse_slice)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// Fails if the shape cannot have another axis.
fn check_rank(axes: usize, at: usize, what: &'static str) -> Result<(), ParseError> {
    if axes < MAX_RANK { Ok(()) } else { Err(ParseError::new(at, what, format!("more than {MAX_RANK} dimensions"))) }
}

/// The name of a `TensorShapeProto` in messages.
const SHAPE: &str = "tensor shape";

/// Reads the size of a `Dim`; 0 if it is missing.
fn dimension<T: Default>(dim: &Field<'_>, read: impl Fn(&Field<'_>) -> Result<T, ParseError>) -> Result<T, ParseError> {
    let mut size = T::default();
    for part in dim.message(SHAPE)? {
        let part = part?;
        if part.number == 1 {
            size = read(&part)?;
        }
    }
    Ok(size)
}

/// Parses the `TensorShapeProto` of a stored tensor.
pub(crate) fn parse_shape(fields: Fields<'_>, shape: &mut Vec<u64>) -> Result<(), ParseError> {
    for field in fields {
        let field = field?;
        match field.number {
            2 => {
                let size = dimension(&field, |size| size.count(SHAPE, "dimension"))?;
                check_rank(shape.len(), field.offset, SHAPE)?;
                shape.push(size);
            }
            3 if field.varint(SHAPE)? != 0 => {
                return Err(ParseError::new(field.offset, SHAPE, "the rank is unknown, but a stored tensor must have one"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Parses a `TensorShapeProto` in which the rank or some lengths may be unknown.
pub(crate) fn parse_shape_with_unknown(fields: Fields<'_>) -> Result<Option<Vec<Option<u64>>>, ParseError> {
    let mut shape = Vec::new();
    for field in fields {
        let field = field?;
        match field.number {
            2 => {
                let size = dimension(&field, |size| size.int64(SHAPE))?;
                check_rank(shape.len(), field.offset, SHAPE)?;
                shape.push(u64::try_from(size).ok());
            }
            3 if field.varint(SHAPE)? != 0 => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(shape))
}

/// Parses a `TensorSliceProto`.
pub(crate) fn parse_slice(fields: Fields<'_>) -> Result<Vec<Extent>, ParseError> {
    const WHAT: &str = "tensor slice";
    let mut extents = Vec::new();
    for field in fields {
        let field = field?;
        if field.number == 1 {
            let mut extent = Extent { start: 0, length: None };
            for part in field.message(WHAT)? {
                let part = part?;
                match part.number {
                    1 => extent.start = part.int64(WHAT)?,
                    2 => extent.length = Some(part.int64(WHAT)?),
                    _ => {}
                }
            }
            check_rank(extents.len(), field.offset, WHAT)?;
            extents.push(extent);
        }
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_format_is_read() {
        assert_eq!(
            BundleHeader::parse(&[0x08, 0x01, 0x1a, 0x02, 0x08, 0x01]).unwrap(),
            BundleHeader { num_shards: 1, big_endian: false, producer: 1 }
        );
        let entry = [0x08, 0x01, 0x12, 0x04, 0x12, 0x02, 0x08, 0x03, 0x28, 0x0c, 0x35, 0x73, 0x5b, 0x89, 0x71];
        let entry = BundleEntry::parse(&entry).unwrap();
        assert_eq!((entry.dtype, entry.shape, entry.size, entry.masked_crc), (1, vec![3], 12, 0x7189_5b73));
        let sliced = [
            0x08, 0x01, 0x12, 0x08, 0x12, 0x02, 0x08, 0x06, 0x12, 0x02, 0x08, 0x04, 0x3a, 0x06, 0x0a, 0x02, 0x10, 0x02, 0x0a, 0x00, 0x3a,
            0x0a, 0x0a, 0x04, 0x08, 0x05, 0x10, 0x01, 0x0a, 0x02, 0x10, 0x04,
        ];
        assert_eq!(BundleEntry::parse(&sliced).unwrap().slices, 2);
        let pieces: Vec<_> = slices(&sliced).collect::<Result<_, _>>().unwrap();
        let all = Extent { start: 0, length: None };
        assert_eq!(pieces[0], [Extent { start: 0, length: Some(2) }, all]);
        assert_eq!(pieces[1], [Extent { start: 5, length: Some(1) }, Extent { start: 0, length: Some(4) }]);
    }

    #[test]
    fn numbers_out_of_their_range_are_errors() {
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        for tag in [0x18, 0x20, 0x28] {
            let bytes = [&[tag], &minus_one[..]].concat();
            assert!(BundleEntry::parse(&bytes).is_err(), "field tag {tag:#x}");
        }
        assert!(BundleHeader::parse(&[]).is_err(), "no shards");
        assert!(BundleHeader::parse(&[&[0x08], &minus_one[..]].concat()).is_err(), "-1 shards");
        assert!(BundleHeader::parse(&[0x08, 1, 0x10, 2]).is_err(), "middle-endian");
        assert!(BundleHeader::parse(&[0x08, 1, 0x1a, 2, 0x10, 2]).is_err(), "min_consumer 2");
        assert!(BundleHeader::parse(&[0x08, 1, 0x1a, 3, 0x1a, 1, 1]).is_err(), "this version is bad");
        assert!(BundleEntry::parse(&[0x12, 2, 0x18, 1]).is_err(), "unknown rank");
        let dims = |n: usize| [&[0x12, 0xfe, 0x03][..], &[0x12, 0x00].repeat(n)].concat();
        assert!(BundleEntry::parse(&dims(255)).is_err(), "255 dimensions");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..60)) {
            let _ = BundleHeader::parse(&bytes);
            let _ = BundleEntry::parse(&bytes);
            let _ = slices(&bytes).count();
        }
    }
}

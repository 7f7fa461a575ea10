//! Datatypes (IV.A.2.d): the element types of datasets and attributes.

use super::cursor::{Cursor, text, width_of};
use super::failure::{Failure, Result};
use crate::types::byte_order::ByteOrder;
use crate::types::size::memory_len;

/// Limit for nested types.
const MOST_DEPTH: usize = 32;
/// `H5S_MAX_RANK` of the library.
const MOST_DIMENSIONS: usize = 32;

/// A datatype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datatype {
    /// Bytes of an element.
    pub(crate) size: u32,
    pub(crate) class: Class,
}

/// The class of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    /// Integers. `order` is `None` for a byte order that no current machine has.
    Integer {
        order: Option<ByteOrder>,
        is_signed: bool,
        bits: Bits,
    },
    Float {
        order: Option<ByteOrder>,
        layout: FloatLayout,
    },
    Time,
    /// Text of fixed length.
    Text {
        padding: Padding,
    },
    /// Bits that are not a number.
    BitField {
        order: Option<ByteOrder>,
        bits: Bits,
    },
    /// Bytes with a tag that describes them.
    Opaque {
        tag: Vec<u8>,
    },
    Compound(Vec<Member>),
    Reference,
    Enumeration {
        base: Box<Datatype>,
        /// Names with the bytes of their values.
        members: Vec<(String, Vec<u8>)>,
    },
    /// Text of variable length.
    AnyText,
    /// Lists of variable length.
    List,
    Array {
        base: Box<Datatype>,
        shape: Vec<u32>,
    },
    /// A real and an imaginary part of the same type.
    Complex(Box<Datatype>),
}

/// The significant bits of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) offset: u16,
    pub(crate) count: u16,
}

/// The bit layout of a floating-point number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloatLayout {
    pub(crate) bits: Bits,
    pub(crate) sign_at: u8,
    pub(crate) exponent_at: u8,
    pub(crate) exponent_bits: u8,
    pub(crate) mantissa_at: u8,
    pub(crate) mantissa_bits: u8,
    pub(crate) bias: u32,
    /// The most significant bit of the mantissa is set and not stored.
    pub(crate) has_implied_bit: bool,
}

/// The padding of a text that is shorter than its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    Nul,
    Space,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) datatype: Datatype,
}

impl Datatype {
    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self> {
        parse(&mut cursor, 0)
    }
}

fn parse(cursor: &mut Cursor<'_>, depth: usize) -> Result<Datatype> {
    if depth > MOST_DEPTH {
        return Err(cursor.failure(format!("types nest deeper than {MOST_DEPTH}")));
    }
    let front = cursor.clone();
    let class_and_version = cursor.u8()?;
    let (class, version) = (class_and_version & 15, class_and_version >> 4);
    if !(1..=5).contains(&version) || class > 11 {
        return Err(Failure::Unsupported(format!("a datatype of class {class} and version {version}, which is not known")));
    }
    let flags = cursor.uint(3)?;
    let size = cursor.u32()?;
    if size == 0 {
        return Err(front.failure("an element has no bytes"));
    }
    let order = if flags & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let class = match class {
        0 => Class::Integer { order: Some(order), is_signed: flags & 8 != 0, bits: bits(cursor)? },
        1 => float(cursor, flags)?,
        2 => {
            cursor.skip(2)?;
            Class::Time
        }
        3 => Class::Text { padding: if flags & 15 == 2 { Padding::Space } else { Padding::Nul } },
        4 => Class::BitField { order: Some(order), bits: bits(cursor)? },
        5 => Class::Opaque { tag: cursor.take(usize::from(low_byte(flags)))?.to_vec() },
        6 => compound(cursor, version, flags, size, depth)?,
        7 => Class::Reference,
        8 => enumeration(cursor, version, flags, depth)?,
        9 => {
            parse(cursor, depth + 1)?;
            if flags & 15 == 1 { Class::AnyText } else { Class::List }
        }
        10 => array(cursor, version, size, depth)?,
        11 => {
            let base = parse(cursor, depth + 1)?;
            if base.size.checked_mul(2) != Some(size) {
                return Err(front.failure(format!("complex numbers of {size} bytes with parts of {}", base.size)));
            }
            Class::Complex(Box::new(base))
        }
        _ => return Err(front.failure(format!("class is {class}, expected 0 to 11"))),
    };
    Ok(Datatype { size, class })
}

fn low_byte(flags: u64) -> u8 {
    flags.to_le_bytes()[0]
}

fn bits(cursor: &mut Cursor<'_>) -> Result<Bits> {
    Ok(Bits { offset: cursor.u16()?, count: cursor.u16()? })
}

/// IV.A.2.d, class 1.
fn float(cursor: &mut Cursor<'_>, flags: u64) -> Result<Class> {
    const ORDER: u64 = 0x41;
    const IMPLIED: u64 = 2;
    let order = match flags & ORDER {
        0 => Some(ByteOrder::Little),
        1 => Some(ByteOrder::Big),
        // The order of a VAX, or a reserved value.
        _ => None,
    };
    let bits = bits(cursor)?;
    let [exponent_at, exponent_bits, mantissa_at, mantissa_bits] = [cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?];
    let layout = FloatLayout {
        bits,
        sign_at: low_byte(flags >> 8),
        exponent_at,
        exponent_bits,
        mantissa_at,
        mantissa_bits,
        bias: cursor.u32()?,
        has_implied_bit: flags >> 4 & 3 == IMPLIED,
    };
    Ok(Class::Float { order, layout })
}

/// IV.A.2.d, class 6.
fn compound(cursor: &mut Cursor<'_>, version: u8, flags: u64, size: u32, depth: usize) -> Result<Class> {
    let mut members = Vec::new();
    for _ in 0..flags & 0xffff {
        let name = cursor.text(version < 3)?;
        let offset = cursor.uint(if version < 3 { 4 } else { width_of(size.into()) })?;
        // Version 1 stores up to four axes here; later versions use an array type.
        let shape = if version == 1 {
            let rank = usize::from(cursor.u8()?);
            cursor.skip(11)?;
            let axes = [cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?];
            axes.get(..rank).ok_or_else(|| cursor.failure(format!("a field of {rank} dimensions, expected at most 4")))?.to_vec()
        } else {
            Vec::new()
        };
        let place = cursor.clone();
        let mut datatype = parse(cursor, depth + 1)?;
        if !shape.is_empty() {
            let size = size_of_array(datatype.size, &shape).ok_or_else(|| place.failure(format!("a field of shape {shape:?}")))?;
            datatype = Datatype { size, class: Class::Array { base: Box::new(datatype), shape } };
        }
        if offset.checked_add(datatype.size.into()).is_none_or(|end| end > size.into()) {
            return Err(place.failure(format!("a field of {} bytes at byte {offset} of a record of {size}", datatype.size)));
        }
        members.push(Member { name, offset, datatype });
    }
    Ok(Class::Compound(members))
}

/// IV.A.2.d, class 8: a type, names, and a value for each.
fn enumeration(cursor: &mut Cursor<'_>, version: u8, flags: u64, depth: usize) -> Result<Class> {
    let base = parse(cursor, depth + 1)?;
    let names = (0..flags & 0xffff).map(|_| cursor.text(version < 3)).collect::<Result<Vec<_>>>()?;
    let width = memory_len(base.size.into());
    let members = names.into_iter().map(|name| Ok((name, cursor.take(width)?.to_vec()))).collect::<Result<Vec<_>>>()?;
    Ok(Class::Enumeration { base: Box::new(base), members })
}

/// IV.A.2.d, class 10.
fn array(cursor: &mut Cursor<'_>, version: u8, size: u32, depth: usize) -> Result<Class> {
    let rank = usize::from(cursor.u8()?);
    if rank > MOST_DIMENSIONS {
        return Err(cursor.failure(format!("an array of {rank} dimensions, expected at most {MOST_DIMENSIONS}")));
    }
    let is_old = version < 3;
    cursor.skip(if is_old { 3 } else { 0 })?;
    let shape = (0..rank).map(|_| cursor.u32()).collect::<Result<Vec<_>>>()?;
    // A permutation of axes, which was never used.
    cursor.skip(if is_old { 4 * rank } else { 0 })?;
    let place = cursor.clone();
    let base = parse(cursor, depth + 1)?;
    if size_of_array(base.size, &shape) != Some(size) {
        return Err(place.failure(format!("an array of {size} bytes with shape {shape:?} and elements of {}", base.size)));
    }
    Ok(Class::Array { base: Box::new(base), shape })
}

fn size_of_array(size: u32, shape: &[u32]) -> Option<u32> {
    shape.iter().try_fold(size, |size, &axis| size.checked_mul(axis)).filter(|&size| size > 0)
}

impl Datatype {
    /// The text of a fixed-length attribute value, without padding.
    pub(crate) fn fixed_text(&self, bytes: &[u8]) -> Option<String> {
        let Class::Text { padding } = self.class else { return None };
        let bytes = match padding {
            Padding::Nul => bytes.split(|&byte| byte == 0).next()?,
            Padding::Space => bytes.trim_ascii_end(),
        };
        Some(text(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    fn parsed(bytes: &[u8]) -> Result<Datatype> {
        Datatype::parse(Cursor::new(bytes, 0, Sizes { address: 8, length: 8 }, "datatype"))
    }

    const I16: [u8; 12] = [0x10, 8, 0, 0, 2, 0, 0, 0, 0, 0, 16, 0];

    fn i16() -> Datatype {
        Datatype { size: 2, class: Class::Integer { order: Some(ByteOrder::Little), is_signed: true, bits: Bits { offset: 0, count: 16 } } }
    }

    #[test]
    fn fields_of_every_version_are_the_same() {
        let named = |padded: &[u8]| [padded, &[2]].concat();
        let versions = [
            [&[0x16, 1, 0, 0, 4, 0, 0, 0][..], &named(b"x\0\0\0\0\0\0\0"), &[0; 3 + 28], &I16].concat(),
            [&[0x26, 1, 0, 0, 4, 0, 0, 0][..], &named(b"x\0\0\0\0\0\0\0"), &[0; 3], &I16].concat(),
            [&[0x36, 1, 0, 0, 4, 0, 0, 0][..], &named(b"x\0"), &I16].concat(),
        ];
        let member = Member { name: "x".into(), offset: 2, datatype: i16() };
        for bytes in versions {
            assert_eq!(parsed(&bytes).unwrap(), Datatype { size: 4, class: Class::Compound(vec![member.clone()]) });
        }
    }

    #[test]
    fn axes_of_a_field_of_version_1_are_an_array() {
        let axes = [2u32, 3, 0, 0].iter().flat_map(|axis| axis.to_le_bytes()).collect::<Vec<_>>();
        let bytes = [&[0x16, 1, 0, 0, 12, 0, 0, 0][..], b"x\0\0\0\0\0\0\0\0\0\0\0\x02", &[0; 11], &axes, &I16].concat();
        let Class::Compound(members) = parsed(&bytes).unwrap().class else { panic!("a record") };
        assert_eq!(members[0].datatype.class, Class::Array { base: Box::new(i16()), shape: vec![2, 3] });
    }

    #[test]
    fn complex_numbers_have_two_parts() {
        let bytes = [&[0x5b, 1, 0, 0, 4, 0, 0, 0][..], &I16].concat();
        assert_eq!(parsed(&bytes).unwrap().class, Class::Complex(Box::new(i16())));
    }

    #[test]
    fn what_is_cut_or_nests_without_end_is_refused() {
        assert!(parsed(&I16[..11]).is_err(), "cut");
        assert!(parsed(&[0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0]).is_err(), "no bytes");
        assert!(parsed(&[0x1f, 0, 0, 0, 1, 0, 0, 0]).is_err(), "an unknown class");
        let list = [0x19u8, 0, 0, 0, 16, 0, 0, 0];
        assert!(parsed(&list.repeat(4000)).is_err(), "lists of lists");
        let array = [&[0x3a, 0, 0, 0, 7, 0, 0, 0, 1, 3, 0, 0, 0][..], &I16].concat();
        assert!(parsed(&array).is_err(), "another size than its elements have");
    }
}

//! Maps HDF5 datatypes to dtypes.

use crate::format::hdf5::datatype::{Bits, Class, Datatype, FloatLayout, Member};
use crate::format::npy;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// The elements of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Elements {
    /// A TensorFlow dtype. Axes of the datatype come last.
    Plain(Dtype, ByteOrder, Vec<u64>),
    /// A NumPy type without a TensorFlow dtype: its descriptor, and bytes per element.
    Items(String, u64),
    /// Strings of any length.
    Strings,
    /// Neither has the type: the reason.
    Unsupported(String),
}

/// The layout of an IEEE 754 number, and of bfloat16: mantissa, exponent, sign.
const fn ieee(mantissa_bits: u8, exponent_bits: u8) -> FloatLayout {
    FloatLayout {
        bits: Bits { offset: 0, count: (mantissa_bits + exponent_bits + 1) as u16 },
        sign_at: mantissa_bits + exponent_bits,
        exponent_at: mantissa_bits,
        exponent_bits,
        mantissa_at: 0,
        mantissa_bits,
        bias: (1 << (exponent_bits - 1)) - 1,
        has_implied_bit: true,
    }
}

const FLOATS: [(FloatLayout, u32, Dtype); 4] = [
    (ieee(10, 5), 2, Dtype::Float16),
    (ieee(7, 8), 2, Dtype::BFloat16),
    (ieee(23, 8), 4, Dtype::Float32),
    (ieee(52, 11), 8, Dtype::Float64),
];

/// The elements of a datatype. `named` is the dtype in an attribute, which Keras writes for types that HDF5 lacks.
pub(crate) fn elements(datatype: &Datatype, named: Option<&str>) -> Elements {
    let unsupported = |what: &str| Elements::Unsupported(format!("it is of {what}, which are not read"));
    let size = u64::from(datatype.size);
    match &datatype.class {
        Class::Array { base, shape } => match elements(base, named) {
            Elements::Plain(dtype, order, inner) => {
                Elements::Plain(dtype, order, shape.iter().map(|&dim| dim.into()).chain(inner).collect())
            }
            _ => unsupported("arrays of elements other than numbers"),
        },
        Class::Opaque { tag } => match (named.and_then(Dtype::from_name), date(tag)) {
            (Some(dtype), _) if dtype.itemsize() == Some(size) => Elements::Plain(dtype, ByteOrder::Little, Vec::new()),
            (_, Some(descr)) if npy::Elements::of(descr) == Some(npy::Elements::Items(size)) => Elements::Items(descr.to_owned(), size),
            _ => Elements::Items(format!("|V{size}"), size),
        },
        Class::Text { .. } => Elements::Items(format!("|S{size}"), size),
        Class::AnyText => Elements::Strings,
        Class::List => unsupported("lists of any length"),
        Class::Reference => unsupported("references to other objects"),
        Class::Time => unsupported("dates of HDF5's own time type"),
        Class::Compound(members) => compound(size, members),
        Class::Complex(part) => match plain(part).and_then(|(dtype, order)| Some((complex(dtype)?, order))) {
            Some((dtype, order)) => Elements::Plain(dtype, order, Vec::new()),
            None => unsupported(&format!("complex numbers with parts of type {}", name(part))),
        },
        _ => match plain(datatype) {
            Some((dtype, order)) => Elements::Plain(dtype, order, Vec::new()),
            None => unsupported(&format!("numbers of type {}", name(datatype))),
        },
    }
}

/// The name of a number type for messages.
fn name(datatype: &Datatype) -> String {
    let whole = u64::from(datatype.size) * 8;
    let (kind, order, bits) = match &datatype.class {
        Class::Integer { order, is_signed, bits } => (if *is_signed { "int" } else { "uint" }, order, bits),
        Class::BitField { order, bits } => ("bits", order, bits),
        Class::Float { order, layout } => ("float", order, &layout.bits),
        Class::Enumeration { base, .. } => return format!("enumeration over {}", name(base)),
        _ => return "elements other than numbers".into(),
    };
    let part = if u64::from(bits.count) == whole { String::new() } else { format!(" ({} bits from bit {})", bits.count, bits.offset) };
    let order = order.map_or("of mixed byte order".to_owned(), |order| format!("{order}-endian"));
    let layout = match &datatype.class {
        Class::Float { layout, .. } => format!(", exponent of {} bits, mantissa of {}", layout.exponent_bits, layout.mantissa_bits),
        _ => String::new(),
    };
    format!("{kind}{whole}{part}{layout}, {order}")
}

/// The descriptor of dates and time differences (`<M8[s]`), which h5py writes as the tag of an opaque type: `opaque_dtype` in
/// `h5py/_hl/datatype.py`.
fn date(tag: &[u8]) -> Option<&str> {
    let tag = tag.split(|&byte| byte == 0).next()?;
    let descr = std::str::from_utf8(tag).ok()?.strip_prefix("NUMPY:")?;
    descr.trim_start_matches(['<', '>', '|', '=']).starts_with(['M', 'm']).then_some(descr)
}

/// The dtype of a number.
fn plain(datatype: &Datatype) -> Option<(Dtype, ByteOrder)> {
    let integer = |bits: &Bits, is_signed: bool| {
        let is_full = bits.offset == 0 && u32::from(bits.count) == datatype.size.checked_mul(8)?;
        is_full.then_some(())?;
        Some(match (datatype.size, is_signed) {
            (1, true) => Dtype::Int8,
            (2, true) => Dtype::Int16,
            (4, true) => Dtype::Int32,
            (8, true) => Dtype::Int64,
            (1, false) => Dtype::UInt8,
            (2, false) => Dtype::UInt16,
            (4, false) => Dtype::UInt32,
            (8, false) => Dtype::UInt64,
            _ => return None,
        })
    };
    match &datatype.class {
        Class::Integer { order, is_signed, bits } => Some((integer(bits, *is_signed)?, (*order)?)),
        Class::BitField { order, bits } => Some((integer(bits, false)?, (*order)?)),
        Class::Float { order, layout } => {
            let (_, _, dtype) = FLOATS.iter().find(|(known, size, _)| known == layout && *size == datatype.size)?;
            Some((*dtype, (*order)?))
        }
        Class::Enumeration { base, members } => {
            let (base, order) = plain(base)?;
            // The enumeration that h5py writes for bools.
            let is_bool = base.itemsize() == Some(1)
                && members.len() == 2
                && [("FALSE", 0u8), ("TRUE", 1)]
                    .iter()
                    .all(|expected| members.iter().any(|(name, value)| (&**name, value[0]) == *expected));
            Some((if is_bool { Dtype::Bool } else { base }, order))
        }
        _ => None,
    }
}

/// The complex dtype whose parts have this dtype.
fn complex(part: Dtype) -> Option<Dtype> {
    match part {
        Dtype::Float32 => Some(Dtype::Complex64),
        Dtype::Float64 => Some(Dtype::Complex128),
        _ => None,
    }
}

/// A compound type: a complex number, or a structured record of NumPy.
fn compound(size: u64, members: &[Member]) -> Elements {
    if let [real, imaginary] = members
        && (real.name.as_str(), imaginary.name.as_str()) == ("r", "i")
        && let (Some((dtype, order)), Some(other)) = (plain(&real.datatype), plain(&imaginary.datatype))
        && (dtype, order) == other
        && let (Some(complex), Some(part)) = (complex(dtype), dtype.itemsize())
        && (real.offset, imaginary.offset, size) == (0, part, 2 * part)
    {
        return Elements::Plain(complex, order, Vec::new());
    }
    let (mut fields, mut next) = (Vec::with_capacity(members.len()), 0u64);
    for member in members {
        let (descr, bytes) = match elements(&member.datatype, None) {
            Elements::Plain(dtype, order, axes) if axes.is_empty() && dtype.descr().is_some() => {
                let Ok(descr) = dtype.descr_in(order) else { break };
                (descr, dtype.itemsize().unwrap_or(0))
            }
            Elements::Items(descr, bytes) if !descr.starts_with('[') => (descr, bytes),
            _ => break,
        };
        let is_plain_name = !member.name.chars().any(|c| matches!(c, '\'' | '\\' | '"') || c.is_control());
        if member.offset != next || !is_plain_name {
            break;
        }
        next += bytes;
        fields.push(format!("('{}', '{descr}')", member.name));
    }
    if fields.len() == members.len() && next == size && !members.is_empty() {
        return Elements::Items(format!("[{}]", fields.join(", ")), size);
    }
    Elements::Unsupported(
        "it is of records with holes, or with fields other than plain numbers or text, which are not read: h5py reads them".into(),
    )
}

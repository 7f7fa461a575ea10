//! HDF5 datatypes as dtypes.

use hdf5_pure::{Datatype, DatatypeByteOrder, FloatingPointLayout};

use crate::format::npy;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// What the elements of a dataset are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Elements {
    /// TensorFlow has them too; axes that belong to the datatype come last.
    Plain(Dtype, ByteOrder, Vec<u64>),
    /// It does not: NumPy's descriptor and bytes of each.
    Items(String, u64),
    /// Text of any length.
    Strings,
    /// Neither has them; why.
    Unsupported(String),
}

const IEEE_BINARY16: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 10,
    exponent_size: 5,
    mantissa_location: 0,
    mantissa_size: 10,
    exponent_bias: 15,
};
const BFLOAT16: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 7,
    exponent_size: 8,
    mantissa_location: 0,
    mantissa_size: 7,
    exponent_bias: 127,
};

/// What a datatype is. `named` is the dtype that an attribute of the dataset names, which Keras writes where HDF5 has no type for it.
pub(crate) fn elements(datatype: &Datatype, named: Option<&str>) -> Elements {
    let unsupported = |what: String| Elements::Unsupported(format!("it is of {what}, which are not read"));
    match datatype {
        Datatype::Array { base_type, dimensions } => match elements(base_type, named) {
            Elements::Plain(dtype, order, inner) => {
                Elements::Plain(dtype, order, dimensions.iter().map(|&dim| dim.into()).chain(inner).collect())
            }
            _ => unsupported("arrays of something else than numbers".into()),
        },
        Datatype::Opaque { size, tag } => match (named.and_then(Dtype::from_name), date(tag)) {
            (Some(dtype), _) if dtype.itemsize() == Some((*size).into()) => Elements::Plain(dtype, ByteOrder::Little, Vec::new()),
            (_, Some(descr)) if npy::Elements::of(descr) == Some(npy::Elements::Items((*size).into())) => {
                Elements::Items(descr.to_owned(), (*size).into())
            }
            _ => Elements::Items(format!("|V{size}"), (*size).into()),
        },
        Datatype::String { size, .. } => Elements::Items(format!("|S{size}"), (*size).into()),
        Datatype::VariableLength { is_string: true, .. } => Elements::Strings,
        Datatype::VariableLength { .. } => unsupported("lists of any length".into()),
        Datatype::Reference { .. } => unsupported("references to other objects".into()),
        Datatype::Time { .. } => unsupported("dates of HDF5's own time type".into()),
        Datatype::Compound { size, members } => compound(*size, members),
        number => match plain(number) {
            Some((dtype, order)) => Elements::Plain(dtype, order, Vec::new()),
            None => unsupported(format!("numbers of type {number}")),
        },
    }
}

/// The descriptor of dates and differences of dates (`<M8[s]`), which h5py writes as the tag of an opaque type: `opaque_dtype` in
/// `h5py/_hl/datatype.py`.
fn date(tag: &[u8]) -> Option<&str> {
    let tag = tag.split(|&byte| byte == 0).next()?;
    let descr = std::str::from_utf8(tag).ok()?.strip_prefix("NUMPY:")?;
    descr.trim_start_matches(['<', '>', '|', '=']).starts_with(['M', 'm']).then_some(descr)
}

/// The dtype of a number.
fn plain(datatype: &Datatype) -> Option<(Dtype, ByteOrder)> {
    let order = |order: &DatatypeByteOrder| match order {
        DatatypeByteOrder::LittleEndian => Some(ByteOrder::Little),
        DatatypeByteOrder::BigEndian => Some(ByteOrder::Big),
        DatatypeByteOrder::Vax => None,
    };
    let integer = |size: u32, signed: bool| {
        Some(match (size, signed) {
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
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout } => {
            let is_full = layout.bit_offset == 0 && u32::from(layout.bit_precision) == size.checked_mul(8)?;
            Some((integer(*size, layout.signed).filter(|_| is_full)?, order(byte_order)?))
        }
        Datatype::BitField { size, byte_order, bit_offset, bit_precision } => {
            let is_full = *bit_offset == 0 && u32::from(*bit_precision) == size.checked_mul(8)?;
            Some((integer(*size, false).filter(|_| is_full)?, order(byte_order)?))
        }
        Datatype::FloatingPoint { byte_order, layout, .. } => {
            let dtype = match *layout {
                FloatingPointLayout::IEEE754_BINARY32 => Dtype::Float32,
                FloatingPointLayout::IEEE754_BINARY64 => Dtype::Float64,
                IEEE_BINARY16 => Dtype::Float16,
                BFLOAT16 => Dtype::BFloat16,
                _ => return None,
            };
            Some((dtype, order(byte_order)?))
        }
        Datatype::Enumeration { base_type, members, .. } => {
            let (base, order) = plain(base_type)?;
            // As h5py writes bools.
            let is_bool = base.itemsize() == Some(1)
                && members.len() == 2
                && [("FALSE", 0u8), ("TRUE", 1)]
                    .iter()
                    .all(|(name, value)| members.iter().any(|member| member.name == *name && member.value.first() == Some(value)));
            Some((if is_bool { Dtype::Bool } else { base }, order))
        }
        _ => None,
    }
}

/// A record: a complex number, or a record of NumPy's.
fn compound(size: u32, members: &[hdf5_pure::CompoundMember]) -> Elements {
    if let [real, imaginary] = members
        && (real.name.as_str(), imaginary.name.as_str()) == ("r", "i")
        && real.byte_offset == 0
        && let (Some((dtype, order)), Some(other)) = (plain(&real.datatype), plain(&imaginary.datatype))
        && (dtype, order) == other
    {
        match (dtype, size) {
            (Dtype::Float32, 8) => return Elements::Plain(Dtype::Complex64, order, Vec::new()),
            (Dtype::Float64, 16) => return Elements::Plain(Dtype::Complex128, order, Vec::new()),
            _ => {}
        }
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
        if member.byte_offset != next || !is_plain_name {
            break;
        }
        next += bytes;
        fields.push(format!("('{}', '{descr}')", member.name));
    }
    if fields.len() == members.len() && next == u64::from(size) && !members.is_empty() {
        return Elements::Items(format!("[{}]", fields.join(", ")), size.into());
    }
    Elements::Unsupported(
        "it is of records with holes, or with fields that are no plain numbers or text, which are not read: h5py reads them".into(),
    )
}

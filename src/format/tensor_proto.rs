//! Serialized `TensorProto`: the output of `tf.io.serialize_tensor`, and the elements of tf.data files.
//!
//! Source: `tensorflow/core/framework/tensor.proto`, and for its interpretation `Tensor::FromProto` in `tensor.cc`.

use byteorder::{ByteOrder as _, LittleEndian};

use super::bundle::parse_shape;
use super::proto::{Fields, Value};
use super::varint;
use crate::cast::decoder::normalise_bools;
use crate::cast::elements::Cast;
use crate::error::ParseError;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::spec::TensorSpec;

/// The name in messages.
pub(crate) const WHAT: &str = "TensorProto";
/// Maximum number of elements of a tensor that repeats a string.
const MOST_REPEATED_STRINGS: u64 = 1 << 20;
pub(crate) const CONTENT: u32 = 4;
pub(crate) const STRINGS: u32 = 8;
/// The fields that hold separate values.
pub(crate) const TYPED: std::ops::RangeInclusive<u32> = 5..=18;

/// The value fields that are present: bit `n` stands for field `n`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PresentFields(u32);

impl PresentFields {
    pub(crate) fn add(&mut self, number: u32) {
        self.0 |= 1u32.checked_shl(number).unwrap_or(0);
    }

    /// Fails if there are values in a field that `dtype` does not use.
    pub(crate) fn check(self, dtype: Dtype, base: usize) -> Result<(), ParseError> {
        let own = value_field(dtype);
        match TYPED.into_iter().find(|&number| self.0 >> number & 1 == 1 && Some(number) != own) {
            None => Ok(()),
            Some(number) => {
                let own = own.map_or_else(|| "has none".to_owned(), |own| format!("has them in {own}"));
                Err(ParseError::new(base, WHAT, format!("there are values in field {number}, but {dtype} {own}")))
            }
        }
    }
}

/// Combines dtype and shape of a message that starts at `base`; `code` is the dtype's number and its offset.
pub(crate) fn spec_of(code: (u64, usize), shape: Vec<u64>, base: usize) -> Result<TensorSpec, ParseError> {
    let dtype = Dtype::from_code(code.0)
        .ok_or_else(|| ParseError::new(code.1, WHAT, format!("dtype {} does not exist in stored tensors", code.0)))?;
    TensorSpec::new(dtype, shape).map_err(|request| ParseError::new(base, WHAT, request.to_string()))
}

/// Fails if `len` raw bytes, which start at `at`, do not match the size of `spec`.
pub(crate) fn check_content(spec: &TensorSpec, len: u64, at: usize) -> Result<(), ParseError> {
    match spec.dtype().itemsize() {
        Some(itemsize) if len != spec.nbytes() => {
            let detail = format!("tensor_content has {len} bytes, expected {} elements of {itemsize} bytes", spec.elements());
            Err(ParseError::new(at, WHAT, detail))
        }
        _ => Ok(()),
    }
}

/// A serialized tensor. Its values are not copied.
#[derive(Debug, Clone)]
pub(crate) struct TensorProto<'a> {
    pub(crate) spec: TensorSpec,
    bytes: &'a [u8],
    base: usize,
    content: Option<(&'a [u8], usize)>,
}

impl<'a> TensorProto<'a> {
    /// Parses a message that starts at `base`. Checks that its values are of the right kind and that raw values have the right
    /// length.
    pub(crate) fn parse(bytes: &'a [u8], base: usize) -> Result<Self, ParseError> {
        let (mut code, mut shape, mut content) = ((0, base), Vec::new(), None);
        let mut filled = PresentFields::default();
        for field in Fields::new(bytes, base, WHAT) {
            let field = field?;
            match field.number {
                1 => code = (field.varint(WHAT)?, field.offset),
                2 => parse_shape(field.message(WHAT)?, &mut shape)?,
                CONTENT => {
                    let Value::Bytes(bytes, at) = field.value else {
                        return Err(ParseError::new(field.offset, WHAT, "tensor_content is not a bytes field"));
                    };
                    content = Some((bytes, at)).filter(|(bytes, _)| !bytes.is_empty());
                }
                // An empty packed field has no values.
                number if TYPED.contains(&number) && (number == STRINGS || !matches!(field.value, Value::Bytes([], _))) => {
                    filled.add(number);
                }
                _ => {}
            }
        }
        let spec = spec_of(code, shape, base)?;
        let dtype = spec.dtype();
        // A few bytes can declare any number of repeated strings, and each of them is output.
        let most = (bytes.len() as u64).max(MOST_REPEATED_STRINGS);
        if dtype == Dtype::String && spec.elements() > most {
            return Err(ParseError::new(
                base,
                WHAT,
                format!("{} strings in {} bytes, expected at most {most}", spec.elements(), bytes.len()),
            ));
        }
        match content {
            Some((content, at)) => check_content(&spec, content.len() as u64, at)?,
            None => filled.check(dtype, base)?,
        }
        Ok(Self { spec, bytes, base, content })
    }

    /// Whether the bytes look like output of `tf.io.serialize_tensor`: with a shape and without unknown fields. Many other
    /// messages also parse as a tensor, mostly of zeros.
    pub(crate) fn is_likely(bytes: &'a [u8]) -> bool {
        let mut has = [false; 2];
        let are_known = Fields::new(bytes, 0, WHAT).all(|field| {
            field.is_ok_and(|field| {
                has[0] |= field.number == 1;
                has[1] |= field.number == 2;
                (1..=CONTENT).contains(&field.number) || TYPED.contains(&field.number)
            })
        });
        are_known && has == [true; 2] && Self::parse(bytes, 0).is_ok()
    }

    /// Fills `out`, which has the length of the tensor, with little-endian elements.
    ///
    /// If there are fewer values than elements, the last one is repeated; if there are none, all elements are zero.
    pub(crate) fn fill(&self, out: &mut [u8]) -> Result<(), ParseError> {
        let dtype = self.spec.dtype();
        let itemsize = dtype.item_len();
        if let Some((content, at)) = self.content {
            out.copy_from_slice(content);
            if dtype == Dtype::Bool {
                check_bools(content, at)?;
                normalise_bools(out);
            }
            cut_small(dtype, out);
            return Ok(());
        }
        let mut filled = 0;
        let mut unused = most_values(0);
        self.values(|element, at| {
            if filled + itemsize > out.len() {
                let is_unused = out.is_empty() && std::mem::take(&mut unused) > 0;
                return if is_unused { Ok(()) } else { Err(too_many(at, self.spec.elements())) };
            }
            out[filled..filled + itemsize].copy_from_slice(&element[..itemsize]);
            filled += itemsize;
            Ok(())
        })?;
        cut_small(dtype, &mut out[..filled]);
        if filled == 0 {
            out.fill(0);
        } else {
            let (values, rest) = out.split_at_mut(filled);
            rest.chunks_exact_mut(itemsize).for_each(|place| place.copy_from_slice(&values[filled - itemsize..]));
        }
        Ok(())
    }

    /// Fails if [`fill`](Self::fill) or [`strings`](Self::strings) would fail.
    ///
    /// # Errors
    /// Returns their errors.
    pub(crate) fn check_values(&self) -> Result<(), ParseError> {
        let dtype = self.spec.dtype();
        match self.content {
            _ if dtype == Dtype::String => self.strings(|_| Ok(())),
            Some((content, at)) if dtype == Dtype::Bool => check_bools(content, at),
            Some(_) => Ok(()),
            None => {
                let mut values = 0;
                self.values(|_, at| {
                    values += 1;
                    if values > most_values(self.spec.elements()) { Err(too_many(at, self.spec.elements())) } else { Ok(()) }
                })
            }
        }
    }

    /// Calls `each` with every stored element.
    fn values(&self, mut each: impl FnMut(&[u8; 16], usize) -> Result<(), ParseError>) -> Result<(), ParseError> {
        let Some(number) = value_field(self.spec.dtype()) else { return Ok(()) };
        let form = ValueForm::of(number);
        let mut elements = ElementBuilder::new(self.spec.dtype());
        for field in Fields::new(self.bytes, self.base, WHAT) {
            let field = field?;
            if field.number != number {
                continue;
            }
            match (field.value, form) {
                (Value::Bytes(packed, at), _) => {
                    form.check_run(packed.len() as u64, at)?;
                    let mut pos = 0;
                    while pos < packed.len() {
                        let (bits, len) = form.first(&packed[pos..], at + pos)?;
                        elements.push(bits, at + pos)?.map_or(Ok(()), |element| each(element, at + pos))?;
                        pos += len;
                    }
                }
                (Value::Fixed32(bits), ValueForm::Four) => {
                    elements.push(bits.into(), field.offset)?.map_or(Ok(()), |element| each(element, field.offset))?;
                }
                (Value::Fixed64(bits), ValueForm::Eight) | (Value::Varint(bits), ValueForm::Varint) => {
                    elements.push(bits, field.offset)?.map_or(Ok(()), |element| each(element, field.offset))?;
                }
                _ => return Err(wrong_wire(number, field.offset)),
            }
        }
        Ok(())
    }

    /// Calls `each` with every string, with the last one repeated as needed.
    pub(crate) fn strings(&self, mut each: impl FnMut(&'a [u8]) -> Result<(), ParseError>) -> Result<(), ParseError> {
        let count = self.spec.elements();
        if let Some((content, at)) = self.content {
            return content_strings(content, at, count, each);
        }
        let (mut found, mut last) = (0, &[][..]);
        for field in Fields::new(self.bytes, self.base, WHAT) {
            let field = field?;
            if field.number == STRINGS {
                if found == most_values(count) {
                    return Err(too_many(field.offset, count));
                }
                last = field.bytes(WHAT)?;
                if count > 0 {
                    each(last)?;
                }
                found += 1;
            }
        }
        (found..count).try_for_each(|_| each(last))
    }
}

/// Calls `each` with each of `count` strings in raw bytes, which start at `at`. All lengths come first, then all bytes.
pub(crate) fn content_strings<'a>(
    content: &'a [u8],
    at: usize,
    count: u64,
    mut each: impl FnMut(&'a [u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let (mut lengths, mut data) = (0, 0);
    for _ in 0..count {
        lengths += varint::read_u64(&content[lengths..], at + lengths, WHAT)?.1;
    }
    let (mut pos, all) = (0, &content[lengths..]);
    for _ in 0..count {
        let (len, read) = varint::read_u64(&content[pos..], at + pos, WHAT)?;
        pos += read;
        let end = usize::try_from(len).ok().and_then(|len| len.checked_add(data)).filter(|&end| end <= all.len());
        let end =
            end.ok_or_else(|| ParseError::new(at + pos, WHAT, format!("a string of {len} bytes, only {} are left", all.len() - data)))?;
        each(&all[data..end])?;
        data = end;
    }
    if data != all.len() {
        return Err(ParseError::new(at + lengths + data, WHAT, format!("{} bytes after the last string", all.len() - data)));
    }
    Ok(())
}

fn check_bools(content: &[u8], at: usize) -> Result<(), ParseError> {
    match content.iter().position(|&byte| byte > 1) {
        Some(odd) => Err(ParseError::new(at + odd, WHAT, format!("a bool is {}, expected 0 or 1", content[odd]))),
        None => Ok(()),
    }
}

/// Maximum number of values of a tensor. One without elements may have a fill value, which `make_tensor_proto` writes.
pub(crate) fn most_values(elements: u64) -> u64 {
    elements.max(1)
}

pub(crate) fn too_many(at: usize, elements: u64) -> ParseError {
    ParseError::new(at, WHAT, format!("more values than the {elements} elements of its shape"))
}

/// The field for separate values of a dtype.
pub(crate) fn value_field(dtype: Dtype) -> Option<u32> {
    Some(match dtype {
        Dtype::Float32 => 5,
        Dtype::Float64 => 6,
        Dtype::String => STRINGS,
        Dtype::Complex64 => 9,
        Dtype::Int64 => 10,
        Dtype::Bool => 11,
        Dtype::Complex128 => 12,
        Dtype::Float16 | Dtype::BFloat16 => 13,
        Dtype::Resource | Dtype::Variant => return None,
        Dtype::UInt32 => 16,
        Dtype::UInt64 => 17,
        dtype if dtype.is_small_float() => 18,
        _ => 7,
    })
}

/// The error for a field whose values have the wrong wire type.
pub(crate) fn wrong_wire(number: u32, at: usize) -> ParseError {
    ParseError::new(at, WHAT, format!("field {number} has the wrong wire type for its values"))
}

/// How a field encodes its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueForm {
    /// Four bytes per value.
    Four,
    /// Eight bytes per value.
    Eight,
    /// The bytes of a string.
    Byte,
    Varint,
}

impl ValueForm {
    /// The form of a field.
    pub(crate) fn of(field: u32) -> Self {
        match field {
            5 | 9 => Self::Four,
            6 | 12 => Self::Eight,
            18 => Self::Byte,
            _ => Self::Varint,
        }
    }

    /// Bytes per value, if it is constant.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::Four => Some(4),
            Self::Eight => Some(8),
            Self::Byte => Some(1),
            Self::Varint => None,
        }
    }

    /// Fails if `len` packed bytes, which start at `at`, are not whole values.
    pub(crate) fn check_run(self, len: u64, at: usize) -> Result<(), ParseError> {
        match self.size() {
            Some(size) if !len.is_multiple_of(size as u64) => {
                Err(ParseError::new(at, WHAT, format!("{len} bytes of packed values, expected a multiple of {size}")))
            }
            _ => Ok(()),
        }
    }

    /// The bits of the first value in `packed`, and its length.
    pub(crate) fn first(self, packed: &[u8], at: usize) -> Result<(u64, usize), ParseError> {
        let cut = || ParseError::new(at, WHAT, format!("a value is truncated after {} bytes", packed.len()));
        match self {
            Self::Four => packed.get(..4).map(|bytes| (LittleEndian::read_u32(bytes).into(), 4)).ok_or_else(cut),
            Self::Eight => packed.get(..8).map(|bytes| (LittleEndian::read_u64(bytes), 8)).ok_or_else(cut),
            Self::Byte => packed.first().map(|&byte| (byte.into(), 1)).ok_or_else(cut),
            Self::Varint => varint::read_u64(packed, at, WHAT),
        }
    }
}

/// Combines values into elements; a complex element takes two. Like TensorFlow, drops a lone real part at the end.
#[derive(Debug, Clone)]
pub(crate) struct ElementBuilder {
    dtype: Dtype,
    is_complex: bool,
    real: Option<u64>,
    element: [u8; 16],
}

impl ElementBuilder {
    pub(crate) fn new(dtype: Dtype) -> Self {
        Self { dtype, is_complex: matches!(dtype, Dtype::Complex64 | Dtype::Complex128), real: None, element: [0; 16] }
    }

    /// Whether the next value starts a new element.
    pub(crate) fn is_between(&self) -> bool {
        self.real.is_none()
    }

    /// Adds the value `bits`; returns the little-endian element if it is complete.
    pub(crate) fn push(&mut self, bits: u64, at: usize) -> Result<Option<&[u8; 16]>, ParseError> {
        let value = match (self.is_complex, self.real.take()) {
            (false, _) => [bits, 0],
            (true, Some(real)) => [real, bits],
            (true, None) => {
                self.real = Some(bits);
                return Ok(None);
            }
        };
        pack(self.dtype, value, &mut self.element, at)?;
        Ok(Some(&self.element))
    }
}

/// Encodes the bits of a value as an element of `dtype`.
fn pack(dtype: Dtype, [bits, imaginary]: [u64; 2], element: &mut [u8; 16], at: usize) -> Result<(), ParseError> {
    match dtype {
        Dtype::Complex64 => LittleEndian::write_u64(element, bits | imaginary << 32),
        Dtype::Complex128 => {
            LittleEndian::write_u64(element, bits);
            LittleEndian::write_u64(&mut element[8..], imaginary);
        }
        Dtype::Bool => element[0] = u8::from(bits != 0),
        _ => {
            LittleEndian::write_u64(element, bits);
            let fits = match dtype.is_signed_int().filter(|_| dtype != Dtype::Int64 && dtype != Dtype::UInt64) {
                Some(_) => int_fits(dtype, bits.cast_signed()),
                // The 16 bits of a half or bfloat16.
                None if matches!(dtype, Dtype::Float16 | Dtype::BFloat16) => bits <= u16::MAX.into(),
                None => true,
            };
            if !fits {
                return Err(ParseError::new(at, WHAT, format!("the value {} is out of range for {dtype}", bits.cast_signed())));
            }
        }
    }
    Ok(())
}

/// Whether an integer is in the range of `dtype`.
pub(crate) fn int_fits(dtype: Dtype, value: i64) -> bool {
    let range = match dtype.as_plain() {
        Dtype::Bool => 0..=1,
        Dtype::Int8 => i8::MIN.into()..=i8::MAX.into(),
        Dtype::Int16 => i16::MIN.into()..=i16::MAX.into(),
        Dtype::Int32 => i32::MIN.into()..=i32::MAX.into(),
        Dtype::UInt8 => 0..=u8::MAX.into(),
        Dtype::UInt16 => 0..=u16::MAX.into(),
        Dtype::UInt32 => 0..=u32::MAX.into(),
        Dtype::Int4 => -8..=7,
        Dtype::UInt4 => 0..=15,
        Dtype::Int2 => -2..=1,
        Dtype::UInt2 => 0..=3,
        _ => i64::MIN..=i64::MAX,
    };
    range.contains(&value)
}

/// Clears the unused high bits of small integers, which TensorFlow's arrays do not have.
fn cut_small(dtype: Dtype, out: &mut [u8]) {
    let bits = match dtype {
        Dtype::Int4 | Dtype::UInt4 => 0x0f,
        Dtype::Int2 | Dtype::UInt2 => 0x03,
        _ => return,
    };
    for byte in out {
        *byte &= bits;
    }
}

/// The cast from the `float32` that TensorFlow stores for an element of `dtype`.
pub(crate) fn float_cast(dtype: Dtype) -> crate::error::Result<Cast> {
    Cast::ordered((Dtype::Float32, ByteOrder::Little), (dtype, ByteOrder::Little))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(bytes: &[u8]) -> Result<(TensorSpec, Vec<u8>), ParseError> {
        let proto = TensorProto::parse(bytes, 0)?;
        let mut out = vec![9; proto.spec.nbytes() as usize];
        proto.fill(&mut out)?;
        Ok((proto.spec.clone(), out))
    }

    #[test]
    fn worked_examples_of_tensorflow() {
        // tf.io.serialize_tensor(float32 [1, 0, 3])
        let bytes = b"\x08\x01\x12\x04\x12\x02\x08\x03\x22\x0c\x00\x00\x80\x3f\x00\x00\x00\x00\x00\x00\x40\x40";
        let (spec, out) = fill(bytes).unwrap();
        assert_eq!((spec.dtype(), spec.shape(), &out[..]), (Dtype::Float32, &[3][..], &bytes[10..]));
        // make_tensor_proto: bfloat16 [1.5], int8 [-1], float8_e5m2 [1]
        assert_eq!(fill(b"\x08\x0e\x12\x04\x12\x02\x08\x01\x6a\x02\xc0\x7f").unwrap().1, [0xc0, 0x3f]);
        assert_eq!(fill(b"\x08\x06\x12\x04\x12\x02\x08\x01\x3a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap().1, [0xff]);
        assert_eq!(fill(b"\x08\x18\x12\x04\x12\x02\x08\x01\x92\x01\x01\x3c").unwrap().1, [0x3c]);
        // A string scalar of tf.data, "x".
        let mut strings = Vec::new();
        TensorProto::parse(b"\x08\x07\x12\x00\x22\x02\x01\x78", 0)
            .unwrap()
            .strings(|s| {
                strings.push(s.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(strings, [b"x"]);
    }

    #[test]
    fn the_last_value_is_repeated_and_none_means_zeros() {
        let head = b"\x08\x03\x12\x04\x12\x02\x08\x04";
        let with = |values: &[u8]| fill(&[&head[..], values].concat());
        // make_tensor_proto(1.1, shape=[2, 0])
        assert_eq!(fill(&[8, 3, 0x12, 2, 0x12, 0, 0x3a, 1, 5]).unwrap().1, [0; 0]);
        assert!(fill(&[8, 3, 0x12, 2, 0x12, 0, 0x3a, 2, 5, 5]).is_err());
        assert_eq!(with(&[]).unwrap().1, [0; 16]);
        assert_eq!(with(&[0x3a, 2, 5, 7]).unwrap().1, [5, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(with(&[0x38, 5, 0x38, 7, 0x3a, 2, 1, 2]).unwrap().1[12], 2);
        assert!(with(&[0x3a, 5, 1, 2, 3, 4, 5]).is_err(), "too many");
        assert!(with(&[0x2a, 4, 0, 0, 0, 0]).is_err(), "another field");
        assert!(with(&[0x22, 3, 0, 0, 0]).is_err(), "short content");
        assert!(fill(&[0x08, 0x65]).is_err(), "a reference type");
        assert!(fill(&[0x12, 0]).is_err(), "no dtype");
        assert!(fill(&[0x08, 6, 0x38, 0xac, 2]).is_err(), "300 is no int8");
    }

    #[test]
    fn small_integers_are_their_low_bits() {
        let (_, out) = fill(b"\x08\x1d\x12\x04\x12\x02\x08\x03\x22\x03\x01\xff\x0f").unwrap();
        assert_eq!(out, [1, 0x0f, 0x0f]);
        let (_, out) = fill(b"\x08\x1d\x12\x04\x12\x02\x08\x01\x3a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap();
        assert_eq!(out, [0x0f]);
    }
}

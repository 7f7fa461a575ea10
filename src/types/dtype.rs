//! Element types: TensorFlow's names and numbers, NumPy's descriptors, Rust's types.

use std::fmt;
use std::str::FromStr;

use super::byte_order::ByteOrder;
use crate::error::{Error, Result};

macro_rules! dtypes {
    ($($variant:ident $code:literal $name:literal $itemsize:literal $component:literal $descr:expr, $doc:literal;)*) => {
        /// TensorFlow's element types, as `tensorflow/core/framework/types.proto` numbers them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Dtype {
            $(#[doc = $doc] $variant,)*
        }

        impl Dtype {
            /// All dtypes, in TensorFlow's order.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$variant,)*];

            /// TensorFlow's number of this dtype (`enum DataType`).
            #[must_use]
            pub fn code(self) -> u64 {
                match self { $(Self::$variant => $code,)* }
            }

            /// TensorFlow's lower-case name: `float32`, `bfloat16`, `qint8`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bytes per element, in a bundle as in a `.npy`; `None` where elements differ in length.
            #[must_use]
            pub fn itemsize(self) -> Option<u64> {
                match self { $(Self::$variant => if $itemsize == 0 { None } else { Some($itemsize) },)* }
            }

            /// Bytes of the unit that byte order applies to: half an element for complex numbers.
            #[must_use]
            pub fn component_size(self) -> u64 {
                match self { $(Self::$variant => $component,)* }
            }

            /// The `descr` of a `.npy` header for this dtype; `None` where NumPy has no fixed-size element.
            ///
            /// The specialised types get what `numpy.save` writes for the `ml_dtypes` types (`<V2`, `<V1`), except for
            /// `float8_e5m2`: NumPy writes `<f1` there, which no `numpy.load` accepts, so this gives `|V1`.
            #[must_use]
            pub fn descr(self) -> Option<&'static str> {
                match self { $(Self::$variant => $descr,)* }
            }
        }
    };
}

dtypes! {
    Float32 1 "float32" 4 4 Some("<f4"), "IEEE 754 binary32.";
    Float64 2 "float64" 8 8 Some("<f8"), "IEEE 754 binary64.";
    Int32 3 "int32" 4 4 Some("<i4"), "Signed, 32 bits.";
    UInt8 4 "uint8" 1 1 Some("|u1"), "Unsigned, 8 bits.";
    Int16 5 "int16" 2 2 Some("<i2"), "Signed, 16 bits.";
    Int8 6 "int8" 1 1 Some("|i1"), "Signed, 8 bits.";
    String 7 "string" 0 1 None, "Byte strings of any length.";
    Complex64 8 "complex64" 8 4 Some("<c8"), "Two `float32`: real, imaginary.";
    Int64 9 "int64" 8 8 Some("<i8"), "Signed, 64 bits.";
    Bool 10 "bool" 1 1 Some("|b1"), "One byte, 0 or 1.";
    QInt8 11 "qint8" 1 1 Some("|i1"), "Quantised, stored as `int8`.";
    QUInt8 12 "quint8" 1 1 Some("|u1"), "Quantised, stored as `uint8`.";
    QInt32 13 "qint32" 4 4 Some("<i4"), "Quantised, stored as `int32`.";
    BFloat16 14 "bfloat16" 2 2 Some("<V2"), "The upper half of a `float32`.";
    QInt16 15 "qint16" 2 2 Some("<i2"), "Quantised, stored as `int16`.";
    QUInt16 16 "quint16" 2 2 Some("<u2"), "Quantised, stored as `uint16`.";
    UInt16 17 "uint16" 2 2 Some("<u2"), "Unsigned, 16 bits.";
    Complex128 18 "complex128" 16 8 Some("<c16"), "Two `float64`: real, imaginary.";
    Float16 19 "float16" 2 2 Some("<f2"), "IEEE 754 binary16.";
    Resource 20 "resource" 0 1 None, "A handle into a running TensorFlow.";
    Variant 21 "variant" 0 1 None, "A serialised object.";
    UInt32 22 "uint32" 4 4 Some("<u4"), "Unsigned, 32 bits.";
    UInt64 23 "uint64" 8 8 Some("<u8"), "Unsigned, 64 bits.";
    Float8E5M2 24 "float8_e5m2" 1 1 Some("|V1"), "Eight bits, 5 of exponent.";
    Float8E4M3Fn 25 "float8_e4m3fn" 1 1 Some("<V1"), "Eight bits, 4 of exponent, no infinities.";
    Float8E4M3Fnuz 26 "float8_e4m3fnuz" 1 1 Some("<V1"), "Eight bits, 4 of exponent, no negative zero.";
    Float8E4M3B11Fnuz 27 "float8_e4m3b11fnuz" 1 1 Some("<V1"), "Eight bits, 4 of exponent, bias 11.";
    Float8E5M2Fnuz 28 "float8_e5m2fnuz" 1 1 Some("<V1"), "Eight bits, 5 of exponent, no negative zero.";
    Int4 29 "int4" 1 1 Some("<V1"), "Four bits, one element a byte.";
    UInt4 30 "uint4" 1 1 Some("<V1"), "Four bits, one element a byte.";
    Int2 31 "int2" 1 1 Some("<V1"), "Two bits, one element a byte.";
    UInt2 32 "uint2" 1 1 Some("<V1"), "Two bits, one element a byte.";
    Float4E2M1Fn 33 "float4_e2m1fn" 1 1 Some("<V1"), "Four bits, one element a byte.";
}

impl Dtype {
    /// The dtype with this number in TensorFlow; `None` for 0, reference types and unassigned numbers.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.code() == code)
    }

    /// The dtype with this TensorFlow name, which is also NumPy's.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// The plain integer that a quantised dtype is stored as; other dtypes are returned unchanged.
    pub(crate) fn as_plain(self) -> Self {
        match self {
            Self::QInt8 => Self::Int8,
            Self::QInt16 => Self::Int16,
            Self::QInt32 => Self::Int32,
            Self::QUInt8 => Self::UInt8,
            Self::QUInt16 => Self::UInt16,
            other => other,
        }
    }

    /// For an integer, whether it is signed; `None` for other dtypes.
    pub(crate) fn is_signed_int(self) -> Option<bool> {
        match self.as_plain() {
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 | Self::Int4 | Self::Int2 => Some(true),
            Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64 | Self::UInt4 | Self::UInt2 => Some(false),
            _ => None,
        }
    }

    /// Bytes per element as a length of memory; 1 if there is no fixed size.
    pub(crate) fn item_len(self) -> usize {
        super::size::memory_len(self.itemsize().unwrap_or(1))
    }

    /// Whether it is a float of eight or four bits.
    pub(crate) fn is_small_float(self) -> bool {
        matches!(
            self,
            Self::Float8E5M2
                | Self::Float8E4M3Fn
                | Self::Float8E4M3Fnuz
                | Self::Float8E4M3B11Fnuz
                | Self::Float8E5M2Fnuz
                | Self::Float4E2M1Fn
        )
    }

    /// Whether an element has fewer bits than the byte it is stored in.
    pub(crate) fn is_small(self) -> bool {
        matches!(self, Self::Int4 | Self::UInt4 | Self::Int2 | Self::UInt2 | Self::Float4E2M1Fn)
    }

    /// The `descr` of a `.npy` header for elements of this byte order.
    ///
    /// # Errors
    /// Returns an error where NumPy has no fixed-size element, or none with a byte order: NumPy would read `>V2` as `<V2`.
    pub(crate) fn descr_in(self, order: ByteOrder) -> Result<String> {
        let unsupported = |detail: &str| Error::Unsupported { what: format!("{order}-endian {self}"), detail: detail.into() };
        let descr = self.descr().ok_or_else(|| unsupported("it has no fixed-size elements"))?;
        match (order, descr.split_at(1)) {
            (ByteOrder::Big, _) if self.component_size() == 1 => Ok(descr.to_owned()),
            (ByteOrder::Big, (_, kind)) if kind.starts_with('V') => {
                Err(unsupported("its bytes are written as V2, which has no byte order in NumPy"))
            }
            (ByteOrder::Big, (_, kind)) => Ok(format!(">{kind}")),
            (ByteOrder::Little, _) => Ok(descr.to_owned()),
        }
    }
}

impl FromStr for Dtype {
    type Err = String;

    /// Parses a dtype name (`float32`) or a NumPy code (`f4`, `<f4`).
    fn from_str(text: &str) -> Result<Self, String> {
        let code = text.strip_prefix(['<', '|', '=']).unwrap_or(text);
        let is_named_by = |dtype: &&Self| {
            dtype.name() == text
                || **dtype == dtype.as_plain() && dtype.descr().is_some_and(|descr| descr[1..] == *code && !code.starts_with('V'))
        };
        Self::ALL.iter().find(is_named_by).copied().ok_or_else(|| {
            let is_number = |dtype: &&Self| dtype.descr().is_some() && **dtype == dtype.as_plain();
            let names: Vec<&str> = Self::ALL.iter().filter(is_number).map(|dtype| dtype.name()).collect();
            format!("there is no dtype {text:?}, only {}", names.join(", "))
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_their_dtype() {
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_code(dtype.code()), Some(dtype));
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::ALL.len(), 33);
        assert_eq!(Dtype::from_code(0), None);
        assert_eq!(Dtype::from_code(101), None);
    }

    #[test]
    fn codes_of_numpy_name_the_plain_dtype() {
        for &dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            let Some(descr) = dtype.descr().filter(|descr| !descr.contains('V')) else { continue };
            assert_eq!((descr.parse(), descr[1..].parse()), (Ok(dtype.as_plain()), Ok(dtype.as_plain())));
        }
        for text in ["", "V2", "<V1", ">f4", "float", "f16"] {
            assert!(text.parse::<Dtype>().is_err(), "{text}");
        }
    }

    #[test]
    fn descriptors_agree_with_item_sizes() {
        for &dtype in Dtype::ALL {
            let Some(descr) = dtype.descr() else {
                assert_eq!(dtype.itemsize(), None);
                continue;
            };
            assert_eq!(descr[2..].parse::<u64>().ok(), dtype.itemsize(), "{dtype}");
            assert_eq!(dtype.itemsize().unwrap() % dtype.component_size(), 0);
        }
    }
}

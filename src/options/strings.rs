//! How string tensors are written.

use std::str::FromStr;

/// How a string tensor is written. Elements of NumPy arrays have one fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Strings {
    /// `|S<n>`: byte strings, zero-padded to the length of the longest. A string that ends in NUL is an error, since NumPy drops
    /// it.
    #[default]
    Pad,
    /// Two arrays without loss: the bytes of all elements in sequence (`uint8`), and the start of each, followed by the end of
    /// the last (`int64`, one more than elements).
    Offsets,
    /// `<U<n>`: the elements decoded from UTF-8, as code points of four bytes.
    Utf8,
}

impl FromStr for Strings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pad" => Ok(Self::Pad),
            "offsets" => Ok(Self::Offsets),
            "utf8" => Ok(Self::Utf8),
            _ => Err(format!("strings cannot be written as {text:?}, only as pad, offsets or utf8")),
        }
    }
}

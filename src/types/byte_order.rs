//! Byte order of elements.

use std::str::FromStr;

use crate::error::Result;

/// The byte order of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

impl FromStr for ByteOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "little" => Ok(Self::Little),
            "big" => Ok(Self::Big),
            "native" => Ok(Self::NATIVE),
            _ => Err(format!("there is no byte order {text:?}, only little, big and native")),
        }
    }
}

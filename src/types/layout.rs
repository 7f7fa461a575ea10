//! Element order of an array.

use std::str::FromStr;

/// Element order of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// The last axis varies fastest, as in TensorFlow.
    #[default]
    C,
    /// The first axis varies fastest: `fortran_order: True` in a `.npy`.
    F,
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "C" | "c" => Ok(Self::C),
            "F" | "f" => Ok(Self::F),
            _ => Err(format!("there is no layout {text:?}, only C and F")),
        }
    }
}

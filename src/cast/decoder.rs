//! Decodes stored elements: byte order, casts, and normalised bools.

use super::elements::Cast;
use super::strict::Strict;
use super::value::Value;
use crate::error::{Error, Result};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// The conversion of a tensor's elements, chosen once for the whole tensor.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    cast: Cast,
    /// Checks the values after the cast, if they must not change.
    strict: Option<Strict>,
}

impl Decoder {
    /// Converts elements from the stored to the written form; with `strict`, a changed value is an error.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`](crate::Error::Unsupported) if there is no such cast.
    pub(crate) fn new(stored: (Dtype, ByteOrder), written: (Dtype, ByteOrder), strict: bool) -> Result<Self> {
        let cast = Cast::ordered(stored, written)?;
        let strict = (strict && stored.0 != written.0).then(|| Strict::new(stored, written));
        Ok(Self { cast, strict })
    }

    /// Whether the stored bytes are copied unchanged.
    pub(crate) fn is_copy(&self) -> bool {
        self.cast.is_copy() && self.strict.is_none()
    }

    /// Decodes whole elements until `written` is full.
    ///
    /// # Errors
    /// Returns the position of the first changed value, if `strict` was requested.
    pub(crate) fn decode(&self, stored: &[u8], written: &mut [u8]) -> Result<(), usize> {
        self.cast.run_matching(stored, written);
        match &self.strict {
            Some(strict) => strict.check(stored, written),
            None => Ok(()),
        }
    }

    /// Describes how the cast changed the value of an element.
    pub(crate) fn explain(&self, stored: &[u8], written: &[u8]) -> String {
        let text = |value: Option<Value>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        let (before, after) =
            self.strict.as_ref().map_or((None, None), |strict| (strict.value_before(stored), strict.value_after(written)));
        format!("is {}, which {} would make {}", text(before), self.cast.to(), text(after))
    }
}

impl Cast {
    /// As [`run`](Cast::run), and fails at the first element that the cast changes. All `NaN`s count as equal, and 0.0 equals -0.0.
    ///
    /// # Errors
    /// Those of [`run`](Cast::run), and [`Error::Lossy`] with the position of the element. `to` holds the changed elements then.
    pub fn run_strict(&self, from: &[u8], to: &mut [u8]) -> Result<()> {
        self.run(from, to)?;
        let (before, after) = self.ends();
        if before.0 == after.0 {
            return Ok(());
        }
        let strict = Strict::new(before, after);
        let Err(at) = strict.check(from, to) else { return Ok(()) };
        let decoder = Decoder { cast: self.clone(), strict: Some(strict) };
        let (item_from, item_to) = (before.0.item_len(), after.0.item_len());
        let detail = decoder.explain(&from[at * item_from..][..item_from], &to[at * item_to..][..item_to]);
        Err(Error::Lossy { what: "the elements".into(), index: vec![at as u64], detail })
    }
}

/// Turns every non-zero byte into 1, because readers of `|b1` leave other values undefined.
pub(crate) fn normalise_bools(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = u8::from(*byte != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapping_reverses_every_component() {
        for &dtype in Dtype::ALL {
            let Some(itemsize) = dtype.itemsize() else { continue };
            let original: Vec<u8> = (0..itemsize as u8 * 3).collect();
            let mut expected = original.clone();
            if dtype == Dtype::Bool {
                expected = vec![0, 1, 1];
            } else {
                expected.chunks_exact_mut(dtype.component_size() as usize).for_each(<[u8]>::reverse);
            }
            for orders in [(ByteOrder::Big, ByteOrder::Little), (ByteOrder::Little, ByteOrder::Big)] {
                let mut bytes = vec![0; original.len()];
                Decoder::new((dtype, orders.0), (dtype, orders.1), false).unwrap().decode(&original, &mut bytes).unwrap();
                assert_eq!(bytes, expected, "{dtype}");
            }
        }
    }

    #[test]
    fn elements_that_are_written_as_they_are_stored_stay_as_they_are() {
        for &dtype in Dtype::ALL.iter().filter(|dtype| dtype.itemsize().is_some()) {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                assert_eq!(Decoder::new((dtype, order), (dtype, order), true).unwrap().is_copy(), dtype != Dtype::Bool, "{dtype}");
            }
        }
    }
}

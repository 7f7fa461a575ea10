//! Finds the first value that a cast changed.

use super::elements::Cast;
use super::value::Value;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// Elements checked together.
const BLOCK: usize = 4096;

/// Compares elements before and after a cast, number by number.
///
/// Most blocks are decided fast: if casting back gives the same bytes, the values were kept. The exceptions are integers that
/// wrapped both times between signed and unsigned, and infinities that saturated. Values are compared one by one only where the
/// bytes differ, because some differences do not matter, such as those between zeros or NaNs.
#[derive(Debug, Clone)]
pub(crate) struct Strict {
    stored: (Dtype, ByteOrder),
    written: (Dtype, ByteOrder),
    /// The reverse cast, if there is one.
    back: Option<Cast>,
    /// The side on which a negative element means that it wrapped.
    sign: Option<Side>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Stored,
    Written,
}

impl Strict {
    pub(crate) fn new(stored: (Dtype, ByteOrder), written: (Dtype, ByteOrder)) -> Self {
        // Infinities of the narrow floats become the lowest and highest integers, and vice versa.
        let is_narrow_float = |dtype: Dtype| dtype == Dtype::Float16 || dtype.is_small_float();
        let ends_meet = [(stored.0, written.0), (written.0, stored.0)]
            .into_iter()
            .any(|(int, float)| int.is_signed_int().is_some() && is_narrow_float(float));
        let back = if ends_meet { None } else { Cast::ordered(written, (stored.0.as_plain(), stored.1)).ok() };
        let sign = match (stored.0.is_signed_int(), written.0.is_signed_int()) {
            (Some(true), Some(false)) => Some(Side::Stored),
            (Some(false), Some(true)) => Some(Side::Written),
            _ => None,
        };
        Self { stored, written, back, sign }
    }

    /// # Errors
    /// Returns the position of the first element whose value changed in `written`.
    pub(crate) fn check(&self, stored: &[u8], written: &[u8]) -> Result<(), usize> {
        let (item_stored, item_written) = (self.stored.0.item_len(), self.written.0.item_len());
        let mut returned = vec![0; BLOCK.min(stored.len() / item_stored) * item_stored];
        for (block, (before, after)) in stored.chunks(BLOCK * item_stored).zip(written.chunks(BLOCK * item_written)).enumerate() {
            if let Some(back) = &self.back {
                let returned = &mut returned[..before.len()];
                back.run_matching(after, returned);
                if returned == before && !self.has_wrapped(before, after) {
                    continue;
                }
            }
            let changed = before.chunks(item_stored).zip(after.chunks(item_written)).position(|(before, after)| {
                let (before, after) = (self.value_before(before), self.value_after(after));
                !before.zip(after).is_some_and(|(before, after)| before.is_same_number(after))
            });
            if let Some(at) = changed {
                return Err(block * BLOCK + at);
            }
        }
        Ok(())
    }

    /// The value of an element as stored.
    pub(crate) fn value_before(&self, element: &[u8]) -> Option<Value> {
        Value::read(element, self.stored.0, self.stored.1)
    }

    /// The value of an element as written.
    pub(crate) fn value_after(&self, element: &[u8]) -> Option<Value> {
        Value::read(element, self.written.0, self.written.1)
    }

    fn has_wrapped(&self, before: &[u8], after: &[u8]) -> bool {
        let (bytes, (dtype, order)) = match self.sign {
            None => return false,
            Some(Side::Stored) => (before, self.stored),
            Some(Side::Written) => (after, self.written),
        };
        let itemsize = dtype.item_len();
        let top = if order == ByteOrder::Little { itemsize - 1 } else { 0 };
        // Four- and two-bit integers have their sign bit below the top of the byte, so they are compared one by one.
        dtype.is_small() || bytes.chunks_exact(itemsize).fold(0, |bits, element| bits | element[top]) & 0x80 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numeric() -> impl Strategy<Value = Dtype> {
        prop::sample::select(Dtype::ALL.iter().copied().filter(|dtype| dtype.itemsize().is_some()).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_first_changed_value_is_found_as_by_comparing_all(
            from in numeric(), to in numeric(), orders in any::<[bool; 2]>(), seed in prop::collection::vec(any::<u8>(), 16..200), small in any::<bool>(), extreme in prop::option::of(0usize..8)
        ) {
            let order = |big| if big { ByteOrder::Big } else { ByteOrder::Little };
            let (stored, written) = ((from, order(orders[0])), (to, order(orders[1])));
            let Ok(cast) = Cast::ordered(stored, written) else { return Ok(()) };
            let (item_from, item_to) = (from.item_len(), to.item_len());
            let count = seed.len() / item_from;
            let mut before: Vec<u8> = seed[..count * item_from].to_vec();
            if let Some(extreme) = extreme {
                // The lowest and highest integers, and infinities, made from those of a double.
                let value = [f64::INFINITY, f64::NEG_INFINITY, -9_223_372_036_854_775_808.0, i32::MIN.into(), i16::MIN.into(), -128.0, 65535.0, 255.0][extreme];
                let to_source = Cast::ordered((Dtype::Float64, ByteOrder::Little), (from.as_plain(), stored.1)).unwrap();
                to_source.run(&value.to_le_bytes(), &mut before[..item_from]).unwrap();
            }
            if small {
                // Values that survive most casts, so that the first changed element is not always at position 0.
                before.clear();
                for byte in &seed[..count] {
                    let mut element = vec![0; item_from];
                    Cast::ordered((Dtype::UInt8, ByteOrder::Little), (from.as_plain(), stored.1)).unwrap().run(&[byte % 3 % 2], &mut element).unwrap();
                    before.extend(element);
                }
                let last = before.len() - item_from;
                before[last..].copy_from_slice(&seed[..item_from]);
            }
            let mut after = vec![0; count * item_to];
            cast.run(&before, &mut after).unwrap();
            let strict = Strict::new(stored, written);
            let naive = before.chunks(item_from).zip(after.chunks(item_to)).position(|(before, after)| {
                !strict.value_before(before).unwrap().is_same_number(strict.value_after(after).unwrap())
            });
            prop_assert_eq!(strict.check(&before, &after), naive.map_or(Ok(()), Err));
        }
    }
}

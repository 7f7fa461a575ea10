//! What direct reads and writes have to be aligned to.

use std::ops::Range;

/// More than almost every disk needs.
const PAGE: u64 = 4096;

/// What direct I/O has to be aligned to: powers of two, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Addresses of memory.
    pub(crate) memory: u64,
    /// Offsets in the file, and lengths.
    pub(crate) offset: u64,
}

impl Default for Alignment {
    fn default() -> Self {
        Self { memory: PAGE, offset: PAGE }
    }
}

impl Alignment {
    /// The part of `range` that can be written directly; empty if there is none. It is made of whole pages of the page cache, so that
    /// a direct write shares none with a buffered one beside it.
    pub(crate) fn middle(self, range: &Range<u64>) -> Range<u64> {
        let unit = self.unit();
        let start = range.start.checked_next_multiple_of(unit).unwrap_or(range.end);
        let end = range.end / unit * unit;
        if start < end { start..end } else { range.end..range.end }
    }

    /// What is written directly is a multiple of this.
    pub(crate) fn unit(self) -> u64 {
        self.offset.max(PAGE).max(rustix::param::page_size() as u64)
    }

    /// Whether memory can be written from directly.
    pub(crate) fn takes(self, memory: &[u8]) -> bool {
        (memory.as_ptr().addr() as u64).is_multiple_of(self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_middle_is_whole_units_and_leaves_less_than_a_unit_at_each_end(
            start in any::<u64>(), len in 0u64..1 << 40, memory in 0u32..16, offset in 0u32..20,
        ) {
            let range = start.min(u64::MAX - len)..start.min(u64::MAX - len) + len;
            let unit = (1u64 << offset).max(4096).max(rustix::param::page_size() as u64);
            let middle = Alignment { memory: 1 << memory, offset: 1 << offset }.middle(&range);
            prop_assert!(range.start <= middle.start && middle.end <= range.end);
            if middle.is_empty() {
                prop_assert!(len < 2 * unit);
            } else {
                prop_assert!(middle.start.is_multiple_of(unit) && middle.end.is_multiple_of(unit));
                prop_assert!(middle.start - range.start < unit && range.end - middle.end < unit);
            }
        }
    }
}

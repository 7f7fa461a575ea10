//! Elements whose places in the output are scattered.

use std::ops::Range;

use crate::plan::tiles::Runs;

/// A part of a box, decoded for the output.
pub(crate) struct ScatteredBox<'a> {
    /// Places of the box's elements in the output.
    pub(crate) places: &'a Runs,
    /// Which elements of the box this part has.
    pub(crate) part: Range<u64>,
    pub(crate) itemsize: u64,
    /// The elements, run after run.
    pub(crate) bytes: &'a [u8],
    /// Maps an element of the box to its position in the order of reading.
    pub(crate) position: &'a (dyn Fn(u64) -> u64 + Sync),
}

impl ScatteredBox<'_> {
    /// The places of the runs in the output, in bytes from the start of its data.
    pub(crate) fn places(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.places.of(self.part.clone()).map(|run| run.start * self.itemsize..run.end * self.itemsize)
    }

    /// The position in the order of reading of element `at` of this part.
    pub(crate) fn position(&self, at: u64) -> u64 {
        (self.position)(self.part.start + at)
    }
}

//! Elements that lie here and there in the output.

use std::ops::Range;

use crate::plan::tiles::Runs;

/// A part of a box, as it is written.
pub(crate) struct ScatteredBox<'a> {
    /// Where the elements of the box lie in the output.
    pub(crate) places: &'a Runs,
    /// Which of them these are.
    pub(crate) part: Range<u64>,
    pub(crate) itemsize: u64,
    /// The elements, one run after the other.
    pub(crate) bytes: &'a [u8],
    /// The place of an element of the box among those that are read.
    pub(crate) position: &'a (dyn Fn(u64) -> u64 + Sync),
}

impl ScatteredBox<'_> {
    /// Where the runs lie in the output, in bytes from the start of its data.
    pub(crate) fn places(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.places.of(self.part.clone()).map(|run| run.start * self.itemsize..run.end * self.itemsize)
    }

    /// The place of element `at` of these among those that are read.
    pub(crate) fn position(&self, at: u64) -> u64 {
        (self.position)(self.part.start + at)
    }
}

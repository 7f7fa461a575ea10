//! Finds which parts of a tensor hold data, so that a sparse source becomes a sparse output.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use crate::error::Result;
use crate::os;
use crate::plan::{Plan, Slice};
use crate::reader::checksums::RegionChecksums;
use crate::reader::tensor_reader::TensorReader;
use crate::types::cancel::CancelToken;

/// The unit in which `stat` counts blocks.
const STAT_BLOCK: u64 = 512;
/// Shorter holes are not worth another read and another extent of the output.
const LEAST_HOLE: u64 = 64 << 10;

/// Where elements are not contiguous, the next probe is this many bytes further.
const SCATTERED: u64 = 16 << 20;

/// Walks through flat positions of a tensor in order, alternating between data and holes of its files.
///
/// It remembers nothing of what it has passed, so a file with a million holes costs time but no memory.
#[derive(Debug)]
pub(crate) struct DataRuns<'a> {
    reader: &'a dyn TensorReader,
    cancel: &'a CancelToken,
    left: Range<u64>,
    /// Whether to look for holes.
    sparse: bool,
    array: Option<Finished<'a>>,
}

/// A finished array of the same elements: a hole of the source counts as data where the array has data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) file: &'a File,
    pub(crate) data_offset: u64,
    /// The tensor's position of its first element.
    pub(crate) first: u64,
    /// Bytes per element.
    pub(crate) itemsize: u64,
}

/// A part of a tensor, in flat positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// Elements of any value.
    Data(Range<u64>),
    /// Zeros in a hole, with their place in the stored region that covers them, in bytes.
    Hole { elements: Range<u64>, region: Option<usize>, in_region: Range<u64> },
}

impl<'a> DataRuns<'a> {
    pub(crate) fn new(reader: &'a dyn TensorReader, elements: Range<u64>, sparse: bool, cancel: &'a CancelToken) -> Self {
        Self { reader, cancel, left: elements, sparse: sparse && reader.has_stored_runs(), array: None }
    }

    /// Also considers an array that the elements are to be compared with.
    pub(crate) fn beside(self, array: Finished<'a>) -> Self {
        Self { array: Some(array), ..self }
    }

    /// The next part.
    pub(crate) fn next_part(&mut self) -> Result<Option<Stretch>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let start = self.left.start;
        let mut data_until = start;
        // Holes that are too short are joined with the data around them.
        while data_until < self.left.end {
            self.cancel.check()?;
            match self.part_at(data_until)? {
                Stretch::Data(elements) => data_until = elements.end,
                hole @ Stretch::Hole { .. } if data_until == start => {
                    if let Stretch::Hole { elements, .. } = &hole {
                        self.left.start = elements.end;
                    }
                    return Ok(Some(hole));
                }
                Stretch::Hole { .. } => break,
            }
        }
        self.left.start = data_until;
        Ok(Some(Stretch::Data(start..data_until)))
    }

    /// The part that begins at a position, without joining it to what follows.
    fn part_at(&self, at: u64) -> Result<Stretch> {
        let everything = at..self.left.end;
        if !self.sparse {
            return Ok(Stretch::Data(everything));
        }
        let itemsize = self.reader.spec().itemsize();
        let Some(run) = self.reader.stored_run(at)? else {
            // Neighbours may be stored otherwise, but probing every element would take too long.
            return Ok(Stretch::Data(at..(at + SCATTERED / itemsize).min(everything.end)));
        };
        let end = run.elements.end.min(everything.end);
        let byte = |element: u64| run.offset + (element - run.elements.start) * itemsize;
        match extent(&run.file, byte(at)..byte(end)) {
            // An element that is partly data counts as data.
            Extent::Data(until) => Ok(Stretch::Data(at..(at + (until - byte(at)).div_ceil(itemsize)).min(end))),
            Extent::Hole(until) => {
                let elements = at..at + self.also_hole(at, (until - byte(at)) / itemsize);
                let len = (elements.end - elements.start) * itemsize;
                if len < LEAST_HOLE && elements.end < end {
                    return Ok(Stretch::Data(at..(at + (LEAST_HOLE / itemsize).max(1)).min(end)));
                }
                let start = (at - run.elements.start) * itemsize;
                Ok(Stretch::Hole { elements, region: run.region, in_region: start..start + len })
            }
        }
    }

    /// How many of `count` elements from `at` on are in a hole of the array, too; all of them if there is no array.
    fn also_hole(&self, at: u64, count: u64) -> u64 {
        let Some(array) = self.array else { return count };
        let start = array.data_offset + (at - array.first) * array.itemsize;
        match extent(array.file, start..start + count * array.itemsize) {
            Extent::Data(_) => 0,
            Extent::Hole(until) => (until - start) / array.itemsize,
        }
    }

    /// The runs of elements that hold data.
    pub(crate) fn data(mut self) -> impl Iterator<Item = Result<Range<u64>>> {
        std::iter::from_fn(move || {
            loop {
                match self.next_part() {
                    Ok(Some(Stretch::Data(elements))) => return Some(Ok(elements)),
                    Ok(Some(Stretch::Hole { .. })) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }
}

/// Yields the slices that hold data. Holes are recorded as zeros for the checksums, and their bytes are reported to `skipped`.
pub(crate) fn slices<'a>(
    plan: &'a Plan,
    mut runs: DataRuns<'a>,
    checksums: Option<&'a RegionChecksums<'a>>,
    skipped: impl Fn(u64) + Send + 'a,
) -> impl FnMut() -> Result<Option<Slice>> + Send + 'a {
    let mut data = plan.cut(0..0);
    move || {
        loop {
            if let Some(slice) = data.next() {
                return Ok(Some(slice));
            }
            match runs.next_part()? {
                Some(Stretch::Data(elements)) => data = plan.cut(elements),
                Some(Stretch::Hole { elements, region, in_region }) => {
                    let len = in_region.end - in_region.start;
                    let written = plan.bytes(&elements);
                    skipped(written.end - written.start);
                    if let (Some(checksums), Some(region)) = (checksums, region) {
                        checksums.record_zeros(region, in_region.start, len);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

enum Extent {
    /// Data from the start up to here.
    Data(u64),
    /// A hole from the start up to here.
    Hole(u64),
}

/// What a file has at the start of `bytes`, and where that ends. If the file system cannot tell, it is data.
fn extent(file: &File, bytes: Range<u64>) -> Extent {
    let is_sparse = file.metadata().is_ok_and(|metadata| metadata.blocks().saturating_mul(STAT_BLOCK) < metadata.len());
    if !is_sparse {
        return Extent::Data(bytes.end);
    }
    match os::next_data(file, bytes.start) {
        Ok(data) if data > bytes.start => Extent::Hole(data.min(bytes.end)),
        Ok(_) => Extent::Data(os::next_hole(file, bytes.start).unwrap_or(bytes.end).clamp(bytes.start + 1, bytes.end)),
        Err(_) => Extent::Data(bytes.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::tensor_reader::{ReadContext, StoredRun};
    use crate::types::dtype::Dtype;
    use crate::types::spec::TensorSpec;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;

    /// A tensor of 2-byte elements at an odd offset in a sparse file.
    #[derive(Debug)]
    struct Sparse {
        spec: TensorSpec,
        file: Arc<File>,
    }

    const OFFSET: u64 = 4097;

    impl TensorReader for Sparse {
        fn spec(&self) -> &TensorSpec {
            &self.spec
        }

        fn read(&self, _: Range<u64>, _: &mut [u8], _: &mut ReadContext<'_>) -> Result<()> {
            Ok(())
        }

        fn has_stored_runs(&self) -> bool {
            true
        }

        fn stored_run(&self, _: u64) -> Result<Option<StoredRun>> {
            let elements = 0..self.spec.elements();
            let (file, path) = (Arc::clone(&self.file), Path::new("sparse").into());
            Ok(Some(StoredRun { elements, file, path, offset: OFFSET, region: Some(0) }))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn parts_cover_everything_once_and_holes_hold_nothing(
            written in prop::collection::vec((0u64..1 << 20, 1usize..100_000), 0..6), ends in any::<[prop::sample::Index; 2]>()
        ) {
            const ELEMENTS: u64 = 1 << 20;
            let file = Arc::new(tempfile::tempfile().unwrap());
            file.set_len(OFFSET + 2 * ELEMENTS).unwrap();
            for (at, len) in &written {
                file.write_all_at(&vec![7; *len], OFFSET + at).unwrap();
            }
            let mut stored = vec![0; 2 * ELEMENTS as usize];
            file.read_exact_at(&mut stored, OFFSET).unwrap();
            let reader = Sparse { spec: TensorSpec::new(Dtype::Int16, vec![ELEMENTS]).unwrap(), file };
            let mut ends = ends.map(|i| i.index(ELEMENTS as usize + 1) as u64);
            ends.sort_unstable();
            let cancel = CancelToken::new();
            let mut runs = DataRuns::new(&reader, ends[0]..ends[1], true, &cancel);
            let mut next = ends[0];
            let mut data = 0;
            while let Some(part) = runs.next_part().unwrap() {
                let elements = match part {
                    Stretch::Data(elements) => {
                        data += elements.end - elements.start;
                        elements
                    }
                    Stretch::Hole { elements, region, in_region } => {
                        prop_assert_eq!((region, in_region.clone()), (Some(0), 2 * elements.start..2 * elements.end));
                        prop_assert!(stored[in_region.start as usize..in_region.end as usize].iter().all(|&byte| byte == 0));
                        elements
                    }
                };
                prop_assert_eq!(elements.start, next);
                prop_assert!(elements.end > next);
                next = elements.end;
            }
            prop_assert_eq!(next, ends[1]);
            // Each write makes at most this much data: its bytes, and on either side a block and a hole that is too short.
            let most: u64 = written.iter().map(|(_, len)| *len as u64 + 2 * (4096 + LEAST_HOLE)).sum();
            prop_assert!(2 * data <= most + 2 * LEAST_HOLE, "{data} elements are data");
        }
    }
}

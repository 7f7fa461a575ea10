//! Rows to slices, under a memory budget. Arithmetic only.

pub(crate) mod boxes;
pub(crate) mod grid;
pub(crate) mod tiles;

use std::ops::Range;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::budget::Budget;
use crate::os::LARGE_PAGE;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Workers that only copy wait for the disk half of the time: so many, even on fewer cores,
const LEAST_COPYING: usize = 4;
/// and no more, because writes to one file wait for each other.
const MOST_COPYING: usize = 8;
/// What a conversion needs beside buffers and output pages: code, stacks, the allocator's own, and what the kernel
/// charges for the open files. Measured at 8 to 11 MiB in a memory cgroup.
const PROCESS_BYTES: u64 = 12 << 20;
/// The kernel keeps records of a dirty page; ext4's take 104 bytes for 4096. One part in so many is set aside for them.
const PAGE_RECORDS: u64 = 32;
/// Larger windows make nothing faster.
const MAX_WINDOW_SLICE: u64 = 4 << 20;
/// Nor do larger buffers; smaller ones get smaller pages from the kernel, on both sides.
const MAX_BUFFER_SLICE: u64 = 2 << 20;
/// What is only read and checksummed stays in a share of a second-level cache.
const MAX_SCAN_SLICE: u64 = 1 << 20;
/// With less than this per slice one thread fewer is better.
const GOOD_SLICE_BYTES: u64 = 256 << 10;
/// Below this the calls for a slice cost more than its bytes.
const MIN_SLICE_BYTES: u64 = 64 << 10;
/// Elements that are cast are read by so many bytes. Of shorter reads that follow each other the kernel keeps pages that it read ahead.
const MAX_RAW: u64 = 2 << 20;
/// A slice is so many times longer as it is stored, at most.
const MOST_RAW_PER_SLICE: u64 = 2;
/// Reads this long into a window fill their share of a second-level cache and still cost little per call.
const MAX_WINDOW_CHUNK: u64 = 1 << 20;
/// Slices that a thread has in flight: one being filled, the others on their way to the disk.
const SLICES_PER_THREAD: u64 = 4;
/// More written buffers than this on their way to the disk make nothing faster.
pub(crate) const MAX_BEHIND_BUFFERS: u64 = 128 << 20;
/// What the kernel reads ahead of us in the source, at most; it gives way where memory is short.
pub(crate) const READ_AHEAD: u64 = 16 << 20;
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Where workers put the bytes of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Into mapped pages of the output.
    Windows,
    /// Into a buffer that each worker owns, and from there into the output.
    Buffers,
    /// Into a buffer, and no further: it is only looked at.
    Scan,
}

impl Memory {
    /// How many threads work this way, where the caller `asked` for so many or left it open.
    pub(crate) fn threads(self, asked: Option<usize>) -> usize {
        asked.unwrap_or_else(|| if self == Self::Buffers { cores().clamp(LEAST_COPYING, MOST_COPYING) } else { cores() })
    }
}

/// The cores that this process may use. Asked once: the answer takes a dozen files, and a plan is made for every tensor.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// What a plan may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resources {
    pub(crate) budget: Budget,
    /// The most workers.
    pub(crate) threads: usize,
    /// Heap that the source holds already.
    pub(crate) heap_bytes: u64,
    /// Whether a reader also wants memory to put elements in order.
    pub(crate) needs_scratch: bool,
    /// Bytes of an element as it is stored, where it is not written like that: it is read into memory of its own first.
    pub(crate) raw_itemsize: Option<u64>,
    /// The most slices that are filled or on their way to the disk.
    pub(crate) in_flight: Option<usize>,
}

impl Resources {
    /// What is taken whatever is done, and what is left of the budget.
    pub(crate) fn fixed_and_left(&self) -> (u64, u64) {
        let fixed = PROCESS_BYTES.saturating_add(self.heap_bytes);
        (fixed, self.budget.as_bytes().saturating_sub(fixed))
    }

    /// The output pages that so much memory is enough for, with the kernel's records of them.
    pub(crate) fn window_in(bytes: u64) -> u64 {
        bytes - bytes / PAGE_RECORDS
    }
}

/// Who gets how much of the memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemoryShares {
    pub(crate) threads: usize,
    /// The longest single read, and the scratch memory of one worker where the reader needs it.
    pub(crate) chunk_bytes: usize,
    /// Memory of one worker for elements as they are stored; 0 where they are read straight to their place.
    pub(crate) raw_bytes: usize,
    /// The most output pages that are mapped or not on disk yet.
    pub(crate) window_bytes: u64,
    /// Everything that is not output pages.
    pub(crate) fixed_bytes: u64,
    /// All bytes of the output's elements.
    pub(crate) total_bytes: u64,
    /// What all of it may take.
    pub(crate) budget: Budget,
}

impl MemoryShares {
    /// The most memory that is used.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.fixed_bytes + self.window_bytes.min(self.total_bytes)
    }
}

/// How a tensor is cut, and what the cutting costs in memory.
///
/// `PROCESS_BYTES` + heap of the source + threads × (buffer + scratch + raw) + window and its records never exceed the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    elements: Range<u64>,
    slice_elements: u64,
    /// Elements that the first slice is shorter by.
    lead_elements: u64,
    itemsize: u64,
    pub(crate) shares: MemoryShares,
}

/// A run of rows, or a part of one row: the unit of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Flat positions in the tensor.
    pub(crate) elements: Range<u64>,
    /// The same in the output, in bytes from the start of its data.
    pub(crate) bytes: Range<u64>,
}

impl Plan {
    /// Cuts `rows` of a tensor into slices.
    ///
    /// A slice is a run of whole rows where a row fits, and otherwise a run of elements: C order makes both a run of bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] when not even one worker with the smallest slice fits.
    pub(crate) fn new(spec: &TensorSpec, rows: &Range<u64>, memory: Memory, resources: &Resources) -> Result<Self> {
        let budget = resources.budget;
        let (fixed, left) = resources.fixed_and_left();
        let max_slice = match memory {
            Memory::Windows => MAX_WINDOW_SLICE,
            Memory::Buffers => MAX_BUFFER_SLICE,
            Memory::Scan => MAX_SCAN_SLICE,
        };
        let shares = SLICES_PER_THREAD + 1 + u64::from(resources.raw_itemsize.is_some());
        let slice_for = |threads: u64| (left / (threads * shares)).min(max_slice) / PAGE_BYTES * PAGE_BYTES;
        let elements = rows.start * spec.row_elements()..rows.end * spec.row_elements();
        let total_bytes = (elements.end - elements.start) * spec.itemsize();

        // More threads than smallest slices make no sense, and would make the products below overflow.
        let most = left / (MIN_SLICE_BYTES * shares);
        let in_flight = resources.in_flight.map_or(u64::MAX, |slices| slices.max(1) as u64);
        let mut threads = (resources.threads as u64).min(most).min(in_flight).max(1);
        while threads > 1 && slice_for(threads) < GOOD_SLICE_BYTES.min(total_bytes.div_ceil(threads)).max(MIN_SLICE_BYTES) {
            threads -= 1;
        }
        let slice_bytes = slice_for(threads);
        if slice_bytes < MIN_SLICE_BYTES {
            let asked = fixed + MIN_SLICE_BYTES * shares;
            return Err(Error::Limit {
                what: "memory in the budget (`memory` allows more)".into(),
                asked,
                allowed: Some(budget.as_bytes()),
            });
        }
        // Workers that read far apart confuse the read-ahead.
        let stored = resources.raw_itemsize.map_or(slice_bytes, |stored| slice_bytes * MOST_RAW_PER_SLICE / stored * spec.itemsize());
        let slice_elements = slice_elements(spec, slice_bytes.min(stored));
        // Large pages are for maps; a written buffer gains nothing from being in step with them.
        let lead_elements = if memory == Memory::Windows { lead_elements(spec, slice_elements) } else { 0 };
        let slices = (elements.end - elements.start + lead_elements).div_ceil(slice_elements).max(1);
        let threads = threads.min(slices);
        let (chunk_bytes, buffers, most_behind) = match memory {
            // Behind a large page the kernel makes the next one ready, which nobody has counted yet.
            Memory::Windows if slice_bytes >= LARGE_PAGE => (slice_bytes.min(MAX_WINDOW_CHUNK), threads * 2 * LARGE_PAGE, u64::MAX),
            Memory::Windows => (slice_bytes.min(MAX_WINDOW_CHUNK), 0, u64::MAX),
            Memory::Buffers | Memory::Scan => (slice_bytes, threads * slice_bytes + READ_AHEAD.min(left / 4), MAX_BEHIND_BUFFERS),
        };
        let raw_bytes = if resources.raw_itemsize.is_some() { slice_bytes.min(MAX_RAW) } else { 0 };
        let chunk_bytes = if resources.raw_itemsize.is_some() { raw_bytes } else { chunk_bytes };
        let scratch = if resources.needs_scratch { threads * chunk_bytes } else { 0 };
        let buffers = buffers + threads * raw_bytes;
        let window_bytes = Resources::window_in(left - scratch - buffers);
        Ok(Self {
            elements,
            slice_elements,
            lead_elements,
            itemsize: spec.itemsize(),
            shares: MemoryShares {
                threads: memory_len(threads),
                chunk_bytes: memory_len(chunk_bytes),
                raw_bytes: memory_len(raw_bytes),
                window_bytes: window_bytes.min(most_behind).min(in_flight.saturating_mul(slice_bytes)),
                fixed_bytes: fixed + scratch + buffers,
                total_bytes,
                budget,
            },
        })
    }

    /// The number of slices.
    pub(crate) fn slices(&self) -> usize {
        match self.elements.end - self.elements.start {
            0 => 0,
            elements => memory_len((elements + self.lead_elements).div_ceil(self.slice_elements)),
        }
    }

    /// The slices of `elements`, which are some of the selected rows: whole ones but for the first and the last.
    pub(crate) fn cut(&self, elements: Range<u64>) -> impl Iterator<Item = Slice> + '_ {
        let step = |element: u64| (element - self.elements.start + self.lead_elements) / self.slice_elements;
        let steps = if elements.is_empty() { 0..0 } else { step(elements.start)..step(elements.end - 1) + 1 };
        steps.map(move |step| {
            let boundary = |step: u64| self.elements.start + (step * self.slice_elements).saturating_sub(self.lead_elements);
            self.slice(boundary(step).max(elements.start)..boundary(step + 1).min(elements.end))
        })
    }

    fn slice(&self, elements: Range<u64>) -> Slice {
        Slice { bytes: self.bytes(&elements), elements }
    }

    /// Where elements lie in the output, in bytes from the start of its data.
    pub(crate) fn bytes(&self, elements: &Range<u64>) -> Range<u64> {
        let to_bytes = |element: u64| (element - self.elements.start) * self.itemsize;
        to_bytes(elements.start)..to_bytes(elements.end)
    }

    /// Bytes of the longest slice.
    pub(crate) fn slice_bytes(&self) -> u64 {
        self.slice_elements * self.itemsize
    }
}

/// Whole rows where they fit, on page boundaries where rows allow it; else a run of elements of one page's multiple.
fn slice_elements(spec: &TensorSpec, slice_bytes: u64) -> u64 {
    let row_bytes = spec.row_bytes();
    if row_bytes == 0 {
        return spec.row_elements().max(1);
    }
    if row_bytes > slice_bytes {
        return slice_bytes / PAGE_BYTES * PAGE_BYTES / spec.itemsize();
    }
    let rows = slice_bytes / row_bytes;
    let rows_per_page = PAGE_BYTES >> row_bytes.trailing_zeros().min(PAGE_BYTES.trailing_zeros());
    let rows = if rows >= rows_per_page { rows / rows_per_page * rows_per_page } else { rows };
    rows * spec.row_elements()
}

/// Data start one page into the file; a first slice that is shorter by that puts the ends of all slices on multiples of
/// their length, where rows allow it.
fn lead_elements(spec: &TensorSpec, slice_elements: u64) -> u64 {
    let lead = DATA_ALIGN as u64 / spec.itemsize().max(1);
    let row = spec.row_elements().max(1);
    let keeps_rows = !slice_elements.is_multiple_of(row) || lead.is_multiple_of(row);
    if lead < slice_elements && keeps_rows { lead } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::dtype::Dtype;
    use proptest::prelude::*;

    fn specs() -> impl Strategy<Value = TensorSpec> {
        let dims = prop::collection::vec(prop_oneof![0u64..4, 1u64..3000, 1u64..2_000_000], 0..4);
        (prop::sample::select(vec![Dtype::UInt8, Dtype::Float16, Dtype::Float32, Dtype::Complex128]), dims)
            .prop_filter_map("too large", |(dtype, shape)| TensorSpec::new(dtype, shape).ok().filter(|spec| spec.nbytes() < 1 << 40))
    }

    fn resources(budget: Budget) -> Resources {
        Resources { budget, threads: 2, heap_bytes: 0, needs_scratch: true, raw_itemsize: Some(4), in_flight: None }
    }

    proptest! {
        #[test]
        fn slices_cover_every_element_once_within_the_budget(
            spec in specs(), mib in prop_oneof![12u64..40, 12u64..3000], threads in prop_oneof![1usize..33, 1usize..=usize::MAX], heap in 0u64..4 << 20,
            cut in any::<[prop::sample::Index; 2]>(), windows in any::<bool>(), needs in any::<[bool; 2]>(), in_flight in prop_oneof![Just(None), (0usize..20).prop_map(Some)],
        ) {
            let memory = if windows { Memory::Windows } else { Memory::Buffers };
            let rows = spec.rows();
            let mut ends = cut.map(|i| i.index(rows as usize + 1) as u64);
            ends.sort_unstable();
            let selected = ends[0]..ends[1];
            let budget = Budget::mib(mib);
            let resources = Resources { budget, threads, heap_bytes: heap, needs_scratch: needs[0], raw_itemsize: needs[1].then_some(8), in_flight };
            let plan = match Plan::new(&spec, &selected, memory, &resources) {
                Ok(plan) => plan,
                Err(Error::Limit { asked, .. }) => {
                    prop_assert!(asked > budget.as_bytes());
                    return Ok(());
                }
                Err(other) => panic!("{other}"),
            };
            prop_assert!(plan.shares.fixed_bytes + plan.shares.window_bytes <= budget.as_bytes());
            // Windows of all workers are open at once; buffers are written one after the other if need be.
            let open = if windows { plan.shares.threads as u64 } else { 1 };
            prop_assert!(open * plan.slice_bytes() <= plan.shares.window_bytes || plan.shares.total_bytes == 0);
            if let Some(in_flight) = in_flight {
                prop_assert!(plan.shares.window_bytes <= in_flight.max(1) as u64 * MAX_WINDOW_SLICE);
            }
            prop_assert!(plan.shares.threads >= 1 && plan.shares.threads <= threads);

            let count = plan.slices();
            let ends = selected.start * spec.row_elements()..selected.end * spec.row_elements();
            let mut next = ends.start;
            // All of it, or a part at the end, because there may be a great many.
            let from = if count > 1000 { next = ends.end - (ends.end - ends.start) / count as u64 * 7; next } else { next };
            for (i, slice) in plan.cut(from..ends.end).enumerate() {
                prop_assert_eq!(slice.elements.start, next);
                prop_assert!(slice.elements.start < slice.elements.end);
                prop_assert!(slice.bytes.end - slice.bytes.start <= plan.slice_bytes());
                prop_assert!(plan.slice_bytes() <= MAX_WINDOW_SLICE);
                if spec.row_bytes() <= plan.slice_bytes() && (i > 0 || count <= 1000) {
                    prop_assert_eq!(slice.elements.start % spec.row_elements(), 0, "rows stay whole where they fit");
                }
                next = slice.elements.end;
            }
            prop_assert_eq!(next, ends.end);
            prop_assert_eq!(plan.bytes(&ends), 0..plan.shares.total_bytes);
            if count <= 1000 {
                prop_assert_eq!(plan.cut(ends).count(), count);
            }
        }
    }

    #[test]
    fn more_workers_than_the_window_holds_slices_are_allowed_buffers_only() {
        let spec = TensorSpec::new(Dtype::UInt8, vec![177, 1_073_710]).unwrap();
        let resources = Resources { threads: 565, ..resources(Budget::mib(653)) };
        let plan = |memory| Plan::new(&spec, &(0..177), memory, &resources).unwrap();
        for memory in [Memory::Buffers, Memory::Scan] {
            assert!(plan(memory).slice_bytes() <= plan(memory).shares.window_bytes);
        }
        let windows = plan(Memory::Windows);
        assert!(windows.shares.threads as u64 * windows.slice_bytes() <= windows.shares.window_bytes);
    }

    #[test]
    fn a_billion_tiny_rows_and_one_huge_row_are_cut_alike() {
        let tiny = TensorSpec::new(Dtype::UInt8, vec![1 << 30, 1]).unwrap();
        let huge = TensorSpec::new(Dtype::UInt8, vec![1, 1 << 30]).unwrap();
        let of = |spec: &TensorSpec| {
            Plan::new(spec, &(0..spec.rows()), Memory::Windows, &Resources { raw_itemsize: None, ..resources(Budget::mib(64)) }).unwrap()
        };
        assert_eq!(of(&tiny).slices(), of(&huge).slices());
        assert_eq!(of(&huge).slices(), 257, "4 MiB each, the first and the last one short");
    }

    #[test]
    fn too_little_memory_names_what_is_needed() {
        let spec = TensorSpec::new(Dtype::Float32, vec![1000, 1000]).unwrap();
        let Err(Error::Limit { asked, allowed, .. }) = Plan::new(&spec, &(0..1000), Memory::Buffers, &resources(Budget::mib(1))) else {
            panic!("a budget of 1 MiB cannot do");
        };
        assert_eq!(allowed, Some(1 << 20));
        for memory in [Memory::Windows, Memory::Buffers] {
            assert!(Plan::new(&spec, &(0..1000), memory, &resources(Budget::bytes(asked))).is_ok());
        }
    }
}

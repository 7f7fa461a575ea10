//! Plans: cuts rows into slices under a memory budget.
//!
//! This room only calculates: it reads no data, starts no threads and knows no formats but the alignment of `.npy` data. Start
//! with [`Plan`] for plain tensors; `boxes.rs` plans compressed chunks and `tiles.rs` Fortran order.

pub(crate) mod boxes;
pub(crate) mod grid;
pub(crate) mod tiles;

use std::ops::Range;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::format::npy::DATA_ALIGN;
use crate::options::budget::Budget;
use crate::options::request::Run;
use crate::os::LARGE_PAGE;
use crate::os::buffer::Buffer;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Workers that only copy wait for the disk half of the time, so use at least this many, even on fewer cores.
const LEAST_COPYING: usize = 4;
/// More copying workers do not help, because writes to one file wait for each other in the page cache.
const MOST_COPYING: usize = 8;
/// Direct writes to one file do not wait for each other.
const MOST_DIRECT: usize = 16;
/// Workers that copy from the page cache straight to the disk only wait for writes; more of them confuse the read-ahead of a source
/// that is not cached.
const LEAST_DIRECT_CACHED: usize = 8;
/// Memory besides buffers and output pages: code, stacks, allocator overhead, and what the kernel charges for open files.
/// Measured at 8 to 11 MiB in a memory cgroup.
const PROCESS_BYTES: u64 = 12 << 20;
/// The kernel's records of dirty pages: one part in this many is reserved for them. ext4 needs 104 bytes per 4096.
const PAGE_RECORDS: u64 = 32;
/// Larger windows are not faster.
const MAX_WINDOW_SLICE: u64 = 4 << 20;
/// Larger buffers are not faster; with smaller ones the kernel uses smaller pages, on both sides.
const MAX_BUFFER_SLICE: u64 = 2 << 20;
/// Slices that are only read and checksummed should fit in a share of the L2 cache.
const MAX_SCAN_SLICE: u64 = 1 << 20;
/// With less than this per slice, one thread fewer is better.
const GOOD_SLICE_BYTES: u64 = 256 << 10;
/// Below this, the system calls for a slice cost more than its bytes.
const MIN_SLICE_BYTES: u64 = 64 << 10;
/// The read size for elements that are cast. After shorter consecutive reads the kernel keeps pages that it read ahead.
const MAX_RAW: u64 = 2 << 20;
/// Maximum ratio of a slice's stored length to its output length.
const MOST_RAW_PER_SLICE: u64 = 2;
/// Reads of this length into a window fill a share of the L2 cache, and the cost per call is still low.
const MAX_WINDOW_CHUNK: u64 = 1 << 20;
/// Slices in flight per thread: one being filled, the others on their way to disk.
const SLICES_PER_THREAD: u64 = 4;
/// Pages at the ends of slices, and slices that a file system refuses to take directly.
const MAX_BEHIND_DIRECT: u64 = 16 << 20;
/// More written buffers than this on their way to disk are not faster.
pub(crate) const MAX_BEHIND_BUFFERS: u64 = 128 << 20;
/// Most data that the kernel reads ahead in the source; it is released when memory is short.
pub(crate) const READ_AHEAD: u64 = 16 << 20;
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Where workers put the bytes of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Into mapped pages of the output.
    Windows,
    /// Into a buffer that each worker owns, and from there into the output.
    Buffers,
    /// Into a buffer that each worker owns, and from there straight to the disk.
    Direct,
    /// Into a buffer only, for inspection.
    Scan,
}

impl Memory {
    /// The number of threads: as `asked`, or a default for this kind of memory.
    pub(crate) fn threads(self, asked: Option<usize>) -> usize {
        self.threads_from(asked, || false)
    }

    /// The same where `is_cached` says whether the source is in the page cache.
    pub(crate) fn threads_from(self, asked: Option<usize>, is_cached: impl FnOnce() -> bool) -> usize {
        asked.unwrap_or_else(|| match self {
            Self::Buffers => cores().clamp(LEAST_COPYING, MOST_COPYING),
            Self::Direct if is_cached() => cores().clamp(LEAST_DIRECT_CACHED, MOST_DIRECT),
            Self::Direct => cores().clamp(LEAST_COPYING, MOST_DIRECT),
            Self::Windows | Self::Scan => cores(),
        })
    }
}

/// The number of cores for this process. Cached: a query reads a dozen files, and every tensor needs a plan.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The resources that a plan may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resources {
    pub(crate) budget: Budget,
    /// Maximum number of workers.
    pub(crate) threads: usize,
    /// Heap bytes already held by the source.
    pub(crate) heap_bytes: u64,
    /// Whether a reader also needs memory to reorder elements.
    pub(crate) needs_scratch: bool,
    /// Bytes per stored element, if it differs from the written one and is first read into separate memory.
    pub(crate) raw_itemsize: Option<u64>,
    /// Maximum number of slices that are being filled or written.
    pub(crate) in_flight: Option<usize>,
}

impl Resources {
    /// What a run allows, for readers that need no memory of their own and elements that are copied.
    pub(crate) fn of(run: &Run, threads: usize) -> Self {
        let Run { budget, heap_bytes, in_flight, .. } = *run;
        Self { budget, threads, heap_bytes, needs_scratch: false, raw_itemsize: None, in_flight }
    }

    /// The fixed memory use, and the rest of the budget.
    pub(crate) fn fixed_and_left(&self) -> (u64, u64) {
        let fixed = PROCESS_BYTES.saturating_add(self.heap_bytes);
        (fixed, self.budget.as_bytes().saturating_sub(fixed))
    }

    /// The output pages that fit into this much memory, together with the kernel's records of them.
    pub(crate) fn window_in(bytes: u64) -> u64 {
        bytes - bytes / PAGE_RECORDS
    }
}

/// How the memory is divided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemoryShares {
    pub(crate) threads: usize,
    /// The longest single read, and the scratch memory of a worker if the reader needs it.
    pub(crate) chunk_bytes: usize,
    /// Memory of one worker for stored elements; 0 if they are read directly to their place.
    pub(crate) raw_bytes: usize,
    /// Most output pages that are mapped or not yet on disk.
    pub(crate) window_bytes: u64,
    /// Everything except output pages.
    pub(crate) fixed_bytes: u64,
    /// Total bytes of the output's elements.
    pub(crate) total_bytes: u64,
    /// The limit for all of it.
    pub(crate) budget: Budget,
}

impl MemoryShares {
    /// The peak memory use.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.fixed_bytes + self.window_bytes.min(self.total_bytes)
    }
}

/// How a tensor is cut into slices, and the memory cost.
///
/// `PROCESS_BYTES` + heap of the source + threads × (buffer + scratch + raw) + window and its records never exceed the budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    elements: Range<u64>,
    slice_elements: u64,
    /// The first slice is shorter by this many elements.
    lead_elements: u64,
    itemsize: u64,
    pub(crate) shares: MemoryShares,
}

/// The unit of work: a run of rows, or a part of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Flat positions of the elements in the tensor.
    pub(crate) elements: Range<u64>,
    /// Their byte range in the output, relative to the start of its data.
    pub(crate) bytes: Range<u64>,
}

impl Plan {
    /// Cuts `rows` of a tensor into slices.
    ///
    /// A slice is a run of whole rows if a row fits, otherwise a run of elements. In C order both are contiguous bytes.
    ///
    /// # Errors
    /// Returns [`Error::Limit`] if not even one worker with the smallest slice fits.
    pub(crate) fn new(spec: &TensorSpec, rows: &Range<u64>, memory: Memory, resources: &Resources) -> Result<Self> {
        let budget = resources.budget;
        let (fixed, left) = resources.fixed_and_left();
        let max_slice = match memory {
            Memory::Windows => MAX_WINDOW_SLICE,
            Memory::Buffers | Memory::Direct => MAX_BUFFER_SLICE,
            Memory::Scan => MAX_SCAN_SLICE,
        };
        let (raw, scratch) = (u64::from(resources.raw_itemsize.is_some()), u64::from(resources.needs_scratch));
        // Direct slices are on the disk when they are written; only their ends are on their way for longer.
        let shares = if memory == Memory::Direct { 3 + raw + scratch } else { SLICES_PER_THREAD + 1 + raw };
        let slice_for = |threads: u64| (left / (threads * shares)).min(max_slice) / PAGE_BYTES * PAGE_BYTES;
        let elements = rows.start * spec.row_elements()..rows.end * spec.row_elements();
        let total_bytes = (elements.end - elements.start) * spec.itemsize();

        // More threads than smallest slices are useless, and would make the products below overflow.
        let most = left / (MIN_SLICE_BYTES * shares);
        let in_flight = resources.in_flight.map_or(u64::MAX, |slices| slices.max(1) as u64);
        let mut threads = (resources.threads as u64).min(most).min(in_flight).max(1);
        // Longer slices are better than many of them.
        while memory == Memory::Direct && threads > LEAST_COPYING as u64 && slice_for(threads) < max_slice {
            threads -= 1;
        }
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
        // Workers that read far apart defeat the kernel's read-ahead.
        let stored = resources.raw_itemsize.map_or(slice_bytes, |stored| slice_bytes * MOST_RAW_PER_SLICE / stored * spec.itemsize());
        let slice_elements = slice_elements(spec, slice_bytes.min(stored), memory);
        // Large pages matter only for maps; aligning written buffers to them gains nothing.
        let lead_elements = if memory == Memory::Windows { lead_elements(spec, slice_elements) } else { 0 };
        let slices = (elements.end - elements.start + lead_elements).div_ceil(slice_elements).max(1);
        let threads = threads.min(slices);
        let (chunk_bytes, buffers, most_behind) = match memory {
            // After a large page the kernel prepares the next one, which is not counted elsewhere.
            Memory::Windows if slice_bytes >= LARGE_PAGE => (slice_bytes.min(MAX_WINDOW_CHUNK), threads * 2 * LARGE_PAGE, u64::MAX),
            Memory::Windows => (slice_bytes.min(MAX_WINDOW_CHUNK), 0, u64::MAX),
            Memory::Direct => (slice_bytes, threads * Buffer::memory_bytes(slice_bytes) + READ_AHEAD.min(left / 8), MAX_BEHIND_DIRECT),
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

    /// The same with slices that end on pages of a file in which the elements start at byte `start`, if elements allow it.
    pub(crate) fn in_file(self, start: u64) -> Self {
        let lead = start % PAGE_BYTES;
        let is_possible = self.itemsize > 0 && lead.is_multiple_of(self.itemsize) && lead < self.slice_bytes() && self.lead_elements == 0;
        Self { lead_elements: if is_possible { lead / self.itemsize } else { self.lead_elements }, ..self }
    }

    /// The number of slices.
    pub(crate) fn slices(&self) -> usize {
        match self.elements.end - self.elements.start {
            0 => 0,
            elements => memory_len((elements + self.lead_elements).div_ceil(self.slice_elements)),
        }
    }

    /// The slices that cover `elements`, a part of the selected rows; the first and the last may be partial.
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

    /// The byte range of elements in the output, relative to the start of its data.
    pub(crate) fn bytes(&self, elements: &Range<u64>) -> Range<u64> {
        let to_bytes = |element: u64| (element - self.elements.start) * self.itemsize;
        to_bytes(elements.start)..to_bytes(elements.end)
    }

    /// Bytes in the longest slice.
    pub(crate) fn slice_bytes(&self) -> u64 {
        self.slice_elements * self.itemsize
    }
}

/// Whole rows if they fit, on page boundaries if rows allow it; otherwise a run of elements that is a multiple of a page.
///
/// A direct write takes whole pages only, and a write of a part of one through the page cache waits for all direct writes to the file. So rows
/// are cut for it, if they do not end on pages.
fn slice_elements(spec: &TensorSpec, slice_bytes: u64, memory: Memory) -> u64 {
    let row_bytes = spec.row_bytes();
    if row_bytes == 0 {
        return spec.row_elements().max(1);
    }
    if row_bytes > slice_bytes {
        return slice_bytes / PAGE_BYTES * PAGE_BYTES / spec.itemsize();
    }
    let rows = slice_bytes / row_bytes;
    let rows_per_page = PAGE_BYTES >> row_bytes.trailing_zeros().min(PAGE_BYTES.trailing_zeros());
    if memory == Memory::Direct && rows < rows_per_page && PAGE_BYTES.is_multiple_of(spec.itemsize()) {
        return slice_bytes / PAGE_BYTES * PAGE_BYTES / spec.itemsize();
    }
    let rows = if rows >= rows_per_page { rows / rows_per_page * rows_per_page } else { rows };
    rows * spec.row_elements()
}

/// Data starts one page into the file. Shortening the first slice by a page puts the ends of all slices on multiples of their
/// length, if rows allow it.
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
            cut in any::<[prop::sample::Index; 2]>(), memory in prop::sample::select(vec![Memory::Windows, Memory::Buffers, Memory::Direct]), needs in any::<[bool; 2]>(), start in prop_oneof![Just(4096u64), (0u64..2000).prop_map(|n| n * 16)], in_flight in prop_oneof![Just(None), (0usize..20).prop_map(Some)],
        ) {
            let rows = spec.rows();
            let mut ends = cut.map(|i| i.index(rows as usize + 1) as u64);
            ends.sort_unstable();
            let selected = ends[0]..ends[1];
            let budget = Budget::mib(mib);
            let resources = Resources { budget, threads, heap_bytes: heap, needs_scratch: needs[0], raw_itemsize: needs[1].then_some(8), in_flight };
            let plan = match Plan::new(&spec, &selected, memory, &resources) {
                Ok(plan) if memory == Memory::Direct => plan.in_file(start),
                Ok(plan) => plan,
                Err(Error::Limit { asked, .. }) => {
                    prop_assert!(asked > budget.as_bytes());
                    return Ok(());
                }
                Err(other) => panic!("{other}"),
            };
            prop_assert!(plan.shares.fixed_bytes + plan.shares.window_bytes <= budget.as_bytes());
            // Windows of all workers are open at once; buffers can be written one after the other.
            let open = if memory == Memory::Windows { plan.shares.threads as u64 } else { 1 };
            prop_assert!(open * plan.slice_bytes() <= plan.shares.window_bytes || plan.shares.total_bytes == 0);
            if let Some(in_flight) = in_flight {
                prop_assert!(plan.shares.window_bytes <= in_flight.max(1) as u64 * MAX_WINDOW_SLICE);
            }
            prop_assert!(plan.shares.threads >= 1 && plan.shares.threads <= threads);

            let count = plan.slices();
            let ends = selected.start * spec.row_elements()..selected.end * spec.row_elements();
            let mut next = ends.start;
            // Checks all of it, or only a part at the end if there are very many.
            let from = if count > 1000 { next = ends.end - (ends.end - ends.start) / count as u64 * 7; next } else { next };
            for (i, slice) in plan.cut(from..ends.end).enumerate() {
                prop_assert_eq!(slice.elements.start, next);
                prop_assert!(slice.elements.start < slice.elements.end);
                prop_assert!(slice.bytes.end - slice.bytes.start <= plan.slice_bytes());
                prop_assert!(plan.slice_bytes() <= MAX_WINDOW_SLICE);
                if memory != Memory::Direct && spec.row_bytes() <= plan.slice_bytes() && (i > 0 || count <= 1000) {
                    prop_assert_eq!(slice.elements.start % spec.row_elements(), 0, "rows stay whole where they fit");
                }
                if memory == Memory::Direct && slice.elements.end < ends.end && plan.slice_bytes().is_multiple_of(4096) {
                    prop_assert_eq!((start + slice.bytes.end) % 4096, 0, "a slice ends on a page");
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
        for memory in [Memory::Buffers, Memory::Direct, Memory::Scan] {
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
        for memory in [Memory::Windows, Memory::Buffers, Memory::Direct] {
            assert!(Plan::new(&spec, &(0..1000), memory, &resources(Budget::bytes(asked))).is_ok());
        }
    }
}

//! Heap use stays under the budget, for tensors of any size and shape.

#![expect(unsafe_code, reason = "a global allocator that counts is unsafe by its nature")]

#[path = "support/bundle.rs"]
mod bundle;
#[path = "support/records.rs"]
mod record_files;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bundle::{BundleWriter, Pattern};
use mmconvert::reader::{ReadContext, TensorReader};
use mmconvert::records::Ragged;
use mmconvert::{Budget, Comparison, Converter, Dtype, Options, RecordOptions, Source, TensorSpec, compare};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes unchanged to the system's allocator; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most [`anonymous`] bytes that were seen.
static ANONYMOUS: AtomicUsize = AtomicUsize::new(0);

/// Bytes of anonymous memory: the heap, stacks, and the buffers of direct writes, which no allocator counts. 0 where the system does not say.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) << 10
}

/// Both tests are in one function, since they count the same heap.
#[test]
fn the_heap_stays_under_the_budget() {
    a_tensor_forty_times_the_budget_is_converted_within_it();
    records_beyond_the_budget_are_converted_within_it();
    streams_that_are_turned_around_stay_within_it();
}

/// A source that is read front to back.
#[derive(Debug)]
struct Stream(TensorSpec);

impl TensorReader for Stream {
    fn spec(&self) -> &TensorSpec {
        &self.0
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> mmconvert::Result<()> {
        context.check_cancelled()?;
        out.iter_mut().zip(elements).for_each(|(byte, at)| *byte = (at >> 12).to_le_bytes()[0]);
        Ok(())
    }
}

fn streams_that_are_turned_around_stay_within_it() {
    let budget = Budget::mib(15);
    let dir = tempfile::tempdir().unwrap();
    for (rows, width) in [(1 << 13, 1 << 13), (3, 1 << 24), (1 << 24, 3)] {
        let reader = Stream(TensorSpec::new(Dtype::UInt8, vec![rows, width]).unwrap());
        let options = Options::new().memory(budget).threads(4).layout(mmconvert::Layout::F).overwrite(true);
        PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        let before = LIVE.load(Ordering::Relaxed);
        let out = dir.path().join("a.npy");
        let report = Converter::from_reader(Box::new(&reader)).options(options).write(&out).unwrap();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(peak < 3 << 20, "heap grew by {peak} bytes");
        assert!(report.peak_memory <= budget.as_bytes(), "{} bytes by the plan's account", report.peak_memory);
    }
}

fn records_beyond_the_budget_are_converted_within_it() {
    use record_files::{Values, compress, example, frames};
    let budget = Budget::mib(20);
    let dir = tempfile::tempdir().unwrap();
    // 24 MiB of floats in records of 4 KiB and lists of up to 2000 integers.
    let record = |i: u16| {
        let (x, n) = (Values::Floats(vec![f32::from(i); 1024]), Values::Ints(vec![7; usize::from(i) * 37 % 2000]));
        example(&[("x", x), ("n", n)], true)
    };
    for (way, suffix) in [(0, "plain"), (1, "gzip"), (3, "snappy")] {
        let path = dir.path().join(format!("r.tfrecord.{suffix}"));
        {
            let bytes = frames(&(0..6_000).map(record).collect::<Vec<_>>());
            std::fs::write(&path, compress(way, &bytes)).unwrap();
        }
        let records = RecordOptions::new().ragged(Some("n"), Ragged::Offsets);
        let options = Options::new().memory(budget).threads(4).records(records);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let source = Source::open_with(&path, None, &options).unwrap();
        let tensors = source.select(&["x", "n"]).unwrap();
        let out = dir.path().join(suffix);
        let done = mmconvert::export(&tensors, None, &out, &options).unwrap();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        // The plan reserves 12 MiB for the process and what the system charges to it.
        assert!(peak < 8 << 20, "{suffix}: heap grew by {peak} bytes");
        assert!(done.outputs.iter().any(|output| output.report.shape == [6_000, 1024]));
        assert!(done.outputs.iter().all(|output| output.report.peak_memory <= budget.as_bytes()));
        std::fs::remove_dir_all(out).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

fn a_tensor_forty_times_the_budget_is_converted_within_it() {
    const TOTAL: u64 = 600 << 20;
    let budget = Budget::mib(15);
    let dir = tempfile::tempdir().unwrap();
    for (case, shape) in [vec![TOTAL / 256, 256], vec![1, TOTAL], vec![20, TOTAL / 20]].into_iter().enumerate() {
        let prefix = dir.path().join(format!("c{case}"));
        let mut writer = BundleWriter::create(&prefix, bundle::Layout::default()).unwrap();
        if case < 2 {
            writer.add(b"t", 4, &shape, 0, Pattern::new(TOTAL)).unwrap();
        } else {
            // Column pieces, which are assembled from scratch memory.
            let width = shape[1] / 10;
            let pieces: Vec<_> = (0..10).map(|i| vec![(0, None), (i * width, Some(width))]).collect();
            writer.add_partitioned(b"t", 4, &shape, &pieces, |_| (0, Pattern::new(TOTAL / 10))).unwrap();
        }
        writer.finish().unwrap();

        let source = Source::open(&prefix).unwrap();
        let tensor = source.tensor("t").unwrap();
        PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
        let before = LIVE.load(Ordering::Relaxed);
        ANONYMOUS.store(0, Ordering::Relaxed);
        let anonymous_before = anonymous();
        let sample = |_: &mmconvert::Progress| {
            ANONYMOUS.fetch_max(anonymous(), Ordering::Relaxed);
        };
        let converter = Converter::new(&tensor).unwrap().memory(budget).threads(4).progress(sample);
        #[expect(unsafe_code, reason = "a file of the test's own")]
        // SAFETY: nobody else knows the file.
        let done = unsafe { converter.run(dir.path().join(format!("{case}.npy"))) }.unwrap();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(peak < 2 << 20, "heap grew by {peak} bytes");
        let grown = ANONYMOUS.load(Ordering::Relaxed).saturating_sub(anonymous_before);
        assert!(grown < 4 << 20, "anonymous memory grew by {grown} bytes");
        if case != 1 {
            // Other forms of a part of it. Workers may use the plan's budget, without the share of the process.
            for (form, options) in [("cast", Options::new().cast(Dtype::Float32)), ("turned", Options::new().layout(mmconvert::Layout::F))]
            {
                let rows = if case == 0 { 0..TOTAL / 256 / 8 } else { 0..3 };
                let options = options.memory(budget).threads(4).overwrite(true);
                PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
                let before = LIVE.load(Ordering::Relaxed);
                let out = dir.path().join("form.npy");
                Converter::new(&tensor).unwrap().options(options.clone()).rows(rows.clone()).write(&out).unwrap();
                assert!(matches!(compare(&out, &tensor, Some(rows.into()), &options).unwrap(), Comparison::Equal(_)));
                let peak = PEAK.load(Ordering::Relaxed) - before;
                assert!(peak < 3 << 20, "{form}: heap grew by {peak} bytes");
                std::fs::remove_file(out).unwrap();
            }
        }
        assert!(done.report.peak_memory <= budget.as_bytes(), "{} bytes by the plan's account", done.report.peak_memory);
        if case < 2 {
            assert!(done.array.as_bytes().chunks(1 << 20).enumerate().all(|(i, chunk)| chunk[77] == Pattern::byte((i << 20) as u64 + 77)));
        }
        std::fs::remove_file(dir.path().join(format!("{case}.npy"))).unwrap();
    }
}

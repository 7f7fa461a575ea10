//! What is serial for each slice of a tensor and for each batch of records, and how many cores that is enough for.
//!
//! ```sh
//! cargo bench --bench scale                  # the disk that holds `target`
//! DIR=/mnt/nvme cargo bench --bench scale    # another one
//! ```
//!
//! A machine with few cores cannot show what many of them would wait for. It can show how long each serial part takes. From that and
//! from the CPU time of a whole slice follows the rest: a part that takes 100 ns of 2 MiB lets through 21,000 GB/s, however many cores
//! there are. "Busy" says which share of the time a part is taken on so many cores and a disk of 25 GB/s; at 100 % it is the limit.
//!
//! How each part is measured stands in its row. `in place` is timed in a conversion, by a reader that fills nothing and a progress report:
//! both run on the worker's own thread, so the time from a report to the next read is what it takes to get another slice. `stand-in`
//! repeats the steps of a private part in the bench. Each part is timed by one thread, and by two at once where two can meet. The kernel's
//! part is timed by system calls. `MIB` is the size of what is converted whole, for the CPU time (256).
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "times are short, and a bench prints"
)]

#[path = "../tests/support/records.rs"]
mod records;
mod support;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use mmconvert::reader::{Checksum, ReadContext, Region, TensorReader};
use mmconvert::{Budget, Converter, Dtype, Result, Source, TensorSpec};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use support::{Checkpoint, bundle, disk, settings};

/// Bytes of a slice of a tensor, and of a batch of records.
const SLICE: u64 = 2 << 20;
/// Bytes a second of the disk that the table is for.
const DISK: f64 = 25e9;
const CORES: [u64; 3] = [8, 16, 64];

/// How often each duration in nanoseconds was seen.
struct Histogram(Vec<AtomicU64>);

impl Histogram {
    /// The last one stands for everything longer.
    const LEN: usize = 1 << 16;

    fn new() -> Self {
        Self((0..Self::LEN).map(|_| AtomicU64::new(0)).collect())
    }

    fn add(&self, duration: Duration) {
        self.0[(duration.as_nanos() as usize).min(Self::LEN - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn median(&self) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let mut left = counts.iter().sum::<u64>() / 2;
        let place = counts.iter().position(|count| {
            let is_here = left < *count;
            left = left.saturating_sub(*count);
            is_here
        });
        place.unwrap_or(0) as f64
    }
}

thread_local! {
    /// When this worker last reported progress.
    static REPORTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A tensor that fills nothing, and sees how workers come by their slices.
#[derive(Debug)]
struct Nothing<'a> {
    spec: TensorSpec,
    regions: Vec<Region>,
    what: What<'a>,
}

#[derive(Debug)]
enum What<'a> {
    /// From a report to the next read.
    Taking(&'a Histogram),
    /// Parts of one byte are recorded in the region.
    Recording(&'a Histogram),
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Histogram")
    }
}

impl TensorReader for Nothing<'_> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn read(&self, elements: Range<u64>, _: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        match self.what {
            What::Taking(times) => {
                let now = Instant::now();
                if let Some(before) = REPORTED.take() {
                    times.add(now - before);
                }
            }
            What::Recording(times) => {
                const EACH: u32 = 16;
                let started = Instant::now();
                for i in 0..u64::from(EACH) {
                    context.record(0, (elements.start + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 28, &[7]);
                }
                times.add(started.elapsed() / EACH);
            }
        }
        Ok(())
    }
}

/// Converts a tensor of nothing to a file in memory, in the smallest slices that the plan makes.
fn convert_nothing(dir: &Path, what: What<'_>, threads: usize) {
    const MIB: u64 = 256;
    let regions = match what {
        What::Taking(_) => Vec::new(),
        What::Recording(_) => vec![Region::new(Path::new("nothing").into(), 0, 1 << 37, Checksum::Crc32c(0))],
    };
    let spec = TensorSpec::new(Dtype::UInt8, vec![MIB << 20]).expect("a spec");
    let converter = Converter::from_reader(Box::new(Nothing { spec, regions, what })).threads(threads).memory(Budget::mib(13));
    let converter = converter.overwrite(true).progress(|_| REPORTED.set(Some(Instant::now())));
    // Checksums of nothing are wrong; what is measured comes before they are compared.
    let _ = converter.write(dir.join("nothing.npy"));
}

/// What a look at the clock takes, which is in every time of one event.
fn clock() -> f64 {
    let times = Histogram::new();
    for _ in 0..100_000 {
        let started = Instant::now();
        times.add(started.elapsed());
    }
    times.median()
}

/// Nanoseconds of one call of `step` on each of `threads` at once.
fn nanoseconds(threads: usize, step: impl Fn(usize) + Sync) -> f64 {
    const LEAST: Duration = Duration::from_millis(200);
    let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (is_over, count, step) = (&is_over, &count, &step);
            scope.spawn(move || {
                let mut own = 0;
                while !is_over.load(Ordering::Relaxed) {
                    (0..16).for_each(|_| step(thread));
                    own += 16;
                }
                count.fetch_add(own, Ordering::Relaxed);
            });
        }
        std::thread::sleep(LEAST);
        is_over.store(true, Ordering::Relaxed);
    });
    // All of it is serial, so each call took its share of the time that has passed.
    started.elapsed().as_nanos() as f64 / count.into_inner().max(1) as f64
}

/// CPU nanoseconds of this process so far.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the usage");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 * 1e3
}

/// CPU nanoseconds for each 2 MiB, the least of some runs.
fn cpu_of_slice(bytes: u64, run: impl Fn()) -> f64 {
    let once = || {
        let before = cpu();
        run();
        cpu() - before
    };
    (0..settings::rounds(5)).map(|_| once()).fold(f64::INFINITY, f64::min) / (bytes as f64 / SLICE as f64)
}

/// A serial part.
struct Part {
    name: &'static str,
    how: &'static str,
    /// By one thread, and by two at once.
    alone: f64,
    together: Option<f64>,
    /// How often for each slice.
    times: f64,
}

fn print(title: &str, cpu: f64, parts: &[Part]) {
    println!("{title}: {:.0} µs of CPU each, so {:.1} GB/s a core\n", cpu / 1e3, SLICE as f64 / cpu);
    let cores = CORES.map(|cores| format!("busy at {cores} cores"));
    println!("| serial part | how | ns alone | ns, two at once | most GB/s | reached at cores | {} |", cores.join(" | "));
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    for part in parts {
        let serial = part.alone.max(part.together.unwrap_or(0.0)).max(1.0) * part.times;
        let busy = CORES.map(|cores| {
            let rate = (cores as f64 / cpu).min(DISK / SLICE as f64 / 1e9);
            format!("{:.2} %", 100.0 * rate * serial)
        });
        let together = part.together.map_or_else(String::new, |ns| format!("{:.0}", ns * part.times));
        println!(
            "| {} | {} | {:.0} | {together} | {:.0} | {:.0} | {} |",
            part.name,
            part.how,
            part.alone * part.times,
            SLICE as f64 / serial,
            cpu / serial,
            busy.join(" | ")
        );
    }
    println!();
}

/// What workers share in memory.
fn shared(memory: &Path) -> Vec<Part> {
    let clock = clock();
    let in_place = |threads: usize, what: fn(&Histogram) -> What<'_>| {
        let times = Histogram::new();
        convert_nothing(memory, what(&times), threads);
        times.median()
    };
    let part = |name, how, alone, together| Part { name, how, alone, together: Some(together), times: 1.0 };
    let [taking, taking_two] = [1, 2].map(|threads| (in_place(threads, |times| What::Taking(times)) - clock).max(0.0));
    let [recording, recording_two] = [1, 2].map(|threads| in_place(threads, |times| What::Recording(times)));
    let opened = Arc::new(7u64);
    let known: Mutex<Weak<u64>> = Mutex::new(Arc::downgrade(&opened));
    let open = |threads| {
        nanoseconds(threads, |_| {
            let opened = known.lock().expect("no panic").upgrade();
            black_box(opened);
        })
    };
    let ledger = Mutex::new([0u64; 2]);
    let count = |threads| {
        nanoseconds(threads, |_| {
            let mut ledger = ledger.lock().expect("no panic");
            ledger[0] = black_box(ledger[0] + 1);
            ledger[1] = ledger[1].max(ledger[0]);
        })
    };
    let (done, before) = (AtomicU64::new(0), Mutex::new(None::<[u64; 3]>));
    let report = |threads| {
        nanoseconds(threads, |_| {
            done.fetch_add(1, Ordering::Relaxed);
            black_box(*before.lock().expect("no panic"));
        })
    };
    vec![
        part("queue: the next slice, and what a worker does around it", "in place", taking, taking_two),
        part("checksum: a part joins the whole", "in place", recording, recording_two),
        part("file: the open file is looked up", "stand-in", open(1), open(2)),
        Part { times: 4.0, ..part("ledger: four looks at what is on its way", "stand-in", count(1), count(2)) },
        part("meter: bytes are counted and reported", "stand-in", report(1), report(2)),
    ]
}

/// Direct writes of a page into reserved space by some threads, to one file or to one each.
struct DirectWrites {
    files: Vec<File>,
    next: Vec<AtomicU64>,
    pages: u64,
}

#[repr(align(4096))]
struct Page([u8; 4096]);

impl DirectWrites {
    fn new(dir: &Path, files: usize, pages: u64) -> Self {
        let file = |i: usize| {
            let path = dir.join(format!("direct-{i}"));
            let _ = fs::remove_file(&path);
            let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
            let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(path).expect("an output");
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, pages * 4096).expect("room");
            file
        };
        Self { files: (0..files).map(file).collect(), next: (0..files).map(|_| AtomicU64::new(0)).collect(), pages }
    }

    fn write(&self, thread: usize) {
        let which = thread % self.files.len();
        let page = self.next[which].fetch_add(1, Ordering::Relaxed) % self.pages;
        self.files[which].write_all_at(&Page([7; 4096]).0, page * 4096).expect("a direct write");
    }
}

/// Direct writes, where the kernel may let one wait for another.
fn kernel(dir: &Path) {
    println!("Direct writes of 4 KiB into reserved space on {}, one after the other in each thread\n", disk::file_system(dir));
    println!("| threads | ns, one file | ns, a file each | most GB/s with slices of 2 MiB, one file |");
    println!("|---:|---:|---:|---:|");
    for threads in [1, 2, 8, 32] {
        // More than are written in the time, so that all of them are the first to their place.
        let run = |files: usize| {
            let writes = DirectWrites::new(dir, files, (2 << 30 >> 12) / files as u64);
            nanoseconds(threads, |thread| writes.write(thread))
        };
        let [one, each] = [1, threads].map(run);
        println!("| {threads} | {one:.0} | {each:.0} | {:.0} |", SLICE as f64 / one);
    }
    println!();
}

/// Slices of 2 MiB written directly, alone and with a page through the page cache at either end, as where rows end between pages. Such a
/// page takes the lock of the file alone, while direct writes share it: it waits for all of them.
fn pages_between(dir: &Path) {
    println!("Direct writes of 2 MiB to one file on {}\n", disk::file_system(dir));
    println!("| threads | µs | µs with two pages through the cache |");
    println!("|---:|---:|---:|");
    for threads in [1, 2, 8] {
        let [alone, between] = [false, true].map(|pages| {
            let writes = DirectWrites::new(dir, 1, ((2 << 30) + (16 << 20)) >> 12);
            let cached = OpenOptions::new().write(true).open(dir.join("direct-0")).expect("the output");
            let buffers: Vec<_> = (0..threads).map(|_| Slice::new()).collect();
            nanoseconds(threads, |thread| {
                let at = writes.next[0].fetch_add(1, Ordering::Relaxed) % 1024 * (SLICE + 2 * 4096);
                writes.files[0].write_all_at(buffers[thread].bytes(), at + 4096).expect("a direct write");
                for at in [at, at + 4096 + SLICE].into_iter().filter(|_| pages) {
                    cached.write_all_at(&[7; 4096], at).expect("a write");
                }
            })
        });
        println!("| {threads} | {:.0} | {:.0} |", alone / 1e3, between / 1e3);
    }
    println!();
}

/// Aligned memory for a slice.
struct Slice(Vec<u8>);

impl Slice {
    fn new() -> Self {
        Self(vec![7; SLICE as usize + 4096])
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.0.as_ptr().align_offset(4096)..][..SLICE as usize]
    }
}

/// A file of records with `values` floats each.
fn record_file(dir: &Path, values: usize, bytes: u64) -> PathBuf {
    let record = records::frame(&records::example(&[("x", records::Values::Floats(vec![1.5; values]))], true));
    let path = dir.join(format!("{values}.tfrecord"));
    let count = (bytes / record.len() as u64).max(1);
    let file = File::create(&path).expect("an input");
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    (0..count).for_each(|_| std::io::Write::write_all(&mut out, &record).expect("room"));
    std::io::Write::flush(&mut out).expect("room");
    path
}

/// What a batch of these records takes under the lock of the batches. Bytes of plain files are read outside it.
fn batch(path: &Path) -> Vec<Part> {
    let file = File::open(path).expect("an input");
    let len = file.metadata().expect("a length").len();
    let mut buffer = vec![0; SLICE as usize];
    let mut least = |step: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut once = |buffer: &mut Vec<u8>| {
            let started = Instant::now();
            step(buffer);
            started.elapsed().as_nanos() as f64
        };
        let mut times: Vec<f64> = (0..101).map(|_| once(&mut buffer)).collect();
        times.sort_by(f64::total_cmp);
        times[50]
    };
    let mut at = 0;
    let clear = least(&mut |buffer| {
        buffer.clear();
        buffer.resize(SLICE as usize, 0);
        black_box(&buffer);
    });
    let read = least(&mut |buffer| {
        file.read_exact_at(buffer, at).expect("a read");
        at = (at + SLICE) % (len - SLICE);
    });
    file.read_exact_at(&mut buffer, 0).expect("a read");
    let mut frames: Vec<Range<usize>> = Vec::new();
    let walk = {
        let mut times: Vec<f64> = (0..101)
            .map(|_| {
                let started = Instant::now();
                frames = Vec::new();
                let mut at = 0;
                while let Some(header) = buffer.get(at..at + 12) {
                    let len = u64::from_le_bytes(header[..8].try_into().expect("eight bytes")) as usize;
                    let crc = u32::from_le_bytes(header[8..].try_into().expect("four bytes"));
                    assert_eq!(bundle::mask(crc32c::crc32c(&header[..8])), crc, "the header is intact");
                    frames.push(at + 12..at + 12 + len);
                    at += 12 + len + 4;
                }
                black_box(&frames);
                started.elapsed().as_nanos() as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[50]
    };
    let part = |name, alone| Part { name, how: "stand-in", alone, together: None, times: 1.0 };
    vec![
        part("records are found", walk),
        part("only without blocks read ahead: zeros in the buffer", clear),
        part("only without blocks read ahead: bytes are read", read),
    ]
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let bytes = settings::number("MIB", 256) << 20;
    let shm = PathBuf::from("/dev/shm");
    let dir = disk::work_dir();
    let memory = if shm.is_dir() { disk::work_dir_in(&shm) } else { disk::work_dir() };

    let checkpoint = Checkpoint::write(dir.path(), bytes);
    disk::warm(&checkpoint.shard);
    let tensor = Source::open(&checkpoint.prefix).expect("a source").tensor("t").expect("the tensor");
    let out = dir.path().join("out.npy");
    let slice = cpu_of_slice(bytes, || {
        disk::remove(&out);
        Converter::new(&tensor).expect("a reader").write(&out).expect("a conversion");
    });
    print("A slice of 2 MiB, read from the page cache, verified and written", slice, &shared(memory.path()));
    kernel(dir.path());
    pages_between(dir.path());
    for values in [64, 1000, 10_000] {
        let file = record_file(memory.path(), values, bytes);
        let len = fs::metadata(&file).expect("a file").len();
        let source = Source::open(&file).expect("a source");
        let tensor = source.tensor("x").expect("the feature");
        let whole = cpu_of_slice(len, || {
            disk::remove(&out);
            Converter::new(&tensor).expect("a reader").write(&out).expect("a conversion");
        });
        print(&format!("A batch of 2 MiB of records of {} bytes, from the page cache", values * 4), whole, &batch(&file));
        fs::remove_file(&file).expect("an input");
    }
}

//! Casts from memory to memory, beside NumPy. The floor is a copy of the input.
//!
//! ```sh
//! PYTHON=venv/bin/python cargo bench --bench casts                 # the pairs that people use
//! PYTHON=venv/bin/python PAIRS=all cargo bench --bench casts       # every pair
//! MIB=1 ROUNDS=51 cargo bench --bench casts                        # in the caches
//! ```
//!
//! `MIB` is the size of the input (64). A round is a copy and the cast, with one thread and with two, and
//! `np.copyto(out, a, casting="unsafe")`, all with large pages. Without NumPy and `ml_dtypes` that row is missing.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::print_stdout, reason = "the input fits into memory")]

#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;

use memmap2::MmapMut;
use mmconvert::{ByteOrder, Cast, Dtype};
use support::python::{self, Peer};
use support::rounds::{Rounds, Row, Run};
use support::{settings, table};

/// What is shown unless all are asked for.
const PAIRS: &[(&str, &str)] = &[
    ("float32", "float16"),
    ("float16", "float32"),
    ("float64", "float16"),
    ("float16", "float64"),
    ("uint8", "float32"),
    ("bfloat16", "float32"),
    ("float32", "bfloat16"),
    ("float64", "float32"),
    ("float32", "float64"),
    ("int64", "float32"),
    ("int64", "int32"),
    ("int32", "int64"),
    ("float32", "uint8"),
    ("float32", "int32"),
    ("float32", "int64"),
    ("float64", "int64"),
    ("float64", "uint64"),
    ("float32", "bool"),
    ("complex64", "float32"),
    ("float32", "complex64"),
    ("float32", "float8_e4m3fn"),
    ("float8_e4m3fn", "float32"),
    ("int4", "float32"),
];

/// The same values in each round, no two alike, and for floats all of moderate size.
fn input(dtype: Dtype, bytes: usize) -> MmapMut {
    let itemsize = dtype.itemsize().expect("a number") as usize;
    let count = bytes / itemsize;
    let values: Vec<u8> =
        (0..count as u32).flat_map(|i| ((i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / 65536.0 - 128.0).to_le_bytes()).collect();
    let mut out = memory(count * itemsize);
    Cast::new(Dtype::Float32, dtype).expect("a cast").run(&values, &mut out).expect("lengths match");
    out
}

/// Memory in large pages, as NumPy takes it, with something written to every page.
fn memory(bytes: usize) -> MmapMut {
    let mut map = MmapMut::map_anon(bytes.max(1)).expect("memory");
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::HugePage).expect("advice");
    map.fill(1);
    map
}

/// `work` on both halves at once.
fn halves(from: &[u8], to: &mut [u8], item_from: usize, item_to: usize, work: impl Fn(&[u8], &mut [u8]) + Sync) {
    let count = from.len() / item_from / 2;
    let (from, to) = (from.split_at(count * item_from), to.split_at_mut(count * item_to));
    std::thread::scope(|scope| {
        scope.spawn(|| work(from.0, to.0));
        work(from.1, to.1);
    });
}

/// What all casts have in common.
struct Bench {
    mib: u64,
    rounds: u64,
    numpy: Option<RefCell<Peer>>,
    /// NumPy's time as a multiple of that of one of our threads, for each cast.
    ratios: Vec<(String, f64)>,
}

impl Bench {
    /// Times one cast in all ways and prints a table.
    fn compare(
        &mut self,
        (from, to): (&str, &str),
        (source, target): (&[u8], &mut [u8]),
        (item_from, item_to): (usize, usize),
        work: impl Fn(&[u8], &mut [u8]) + Sync,
    ) {
        let bytes = source.len() as u64;
        let (copied, target) = (RefCell::new(memory(source.len())), RefCell::new(target));
        let pair = format!("{from} {to}");
        let mut rounds = Rounds::new(self.rounds);
        let copy = |from: &[u8], to: &mut [u8]| to.copy_from_slice(from);
        rounds.add("memcpy", bytes, || Run::time(|| copy(source, &mut copied.borrow_mut())));
        rounds.add("memcpy, two threads", bytes, || Run::time(|| halves(source, &mut copied.borrow_mut(), 1, 1, copy)));
        rounds.add("mmconvert", bytes, || Run::time(|| work(source, &mut target.borrow_mut())));
        rounds.add("mmconvert, two threads", bytes, || Run::time(|| halves(source, &mut target.borrow_mut(), item_from, item_to, &work)));
        // NumPy answers `none` where it has no such cast.
        if let Some(numpy) = self.numpy.as_ref().filter(|numpy| numpy.borrow_mut().ask(&pair).is_some()) {
            rounds.add("NumPy", bytes, || numpy.borrow_mut().ask(&pair).expect("NumPy answers"));
        }
        rounds.warm_up();
        let rows = rounds.run();
        table::print(&format!("{from} to {to}, {} MiB", self.mib), &["memcpy", "mmconvert"], &rows);
        let median = |name: &str| rows.iter().find(|row| row.name == name).and_then(Row::median);
        self.ratios.extend(median("NumPy").zip(median("mmconvert")).map(|(numpy, ours)| (format!("{from} to {to}"), numpy / ours)));
    }

    /// The ratios to NumPy of all casts together.
    fn summary(&self) {
        if self.ratios.is_empty() {
            return;
        }
        let mean = (self.ratios.iter().map(|(_, ratio)| ratio.ln()).sum::<f64>() / self.ratios.len() as f64).exp();
        println!("{} casts, one thread: NumPy takes {mean:.2} times as long (geometric mean)", self.ratios.len());
        for (pair, ratio) in self.ratios.iter().filter(|(_, ratio)| *ratio < 0.9) {
            println!("NumPy is faster: {pair}, {ratio:.2} times as long");
        }
    }
}

fn main() {
    if !support::is_measuring() {
        return;
    }
    let (mib, rounds) = (settings::number("MIB", 64), settings::rounds(7));
    let bytes = (mib << 20) as usize;
    let mut command = python::peers("casts");
    command.arg(bytes.to_string());
    let numpy = Peer::start(command).map(RefCell::new);
    if numpy.is_none() {
        println!("No NumPy with ml_dtypes at $PYTHON: its rows are left out.\n");
    }
    let mut bench = Bench { mib, rounds, numpy, ratios: Vec::new() };

    let (source, mut target) = (memory(bytes), memory(bytes));
    for name in ["uint16", "float32", "float64", "complex64"] {
        let dtype = Dtype::from_name(name).expect("a dtype");
        let cast = Cast::ordered((dtype, ByteOrder::Big), (dtype, ByteOrder::Little)).expect("a cast");
        let work = |from: &[u8], to: &mut [u8]| cast.run(from, to).expect("lengths match");
        bench.compare((&format!(">{name}"), name), (&source, &mut target), (8, 8), work);
    }

    let names: Vec<&str> =
        Dtype::ALL.iter().filter(|dtype| dtype.itemsize().is_some() && !dtype.name().starts_with('q')).map(|dtype| dtype.name()).collect();
    let pairs: Vec<(&str, &str)> = match settings::text("PAIRS").as_deref() {
        Some("all") => names.iter().flat_map(|&from| names.iter().map(move |&to| (from, to))).collect(),
        Some(other) => panic!("PAIRS={other}: only `all` is known"),
        None => PAIRS.to_vec(),
    };
    for (from_name, to_name) in pairs {
        let (from, to) = (Dtype::from_name(from_name).expect("a dtype"), Dtype::from_name(to_name).expect("a dtype"));
        let Ok(cast) = Cast::new(from, to) else { continue };
        let source = input(from, bytes);
        let (item_from, item_to) = (from.itemsize().expect("a number") as usize, to.itemsize().expect("a number") as usize);
        let mut target = memory(source.len() / item_from * item_to);
        let work = |from: &[u8], to: &mut [u8]| cast.run(from, to).expect("lengths match");
        bench.compare((from_name, to_name), (&source, &mut target), (item_from, item_to), work);
    }
    bench.summary();
}

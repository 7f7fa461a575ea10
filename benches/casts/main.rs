//! Casts from memory to memory, each beside NumPy and a copy in the same run.
//!
//! ```sh
//! PYTHON=target/oracle/bin/python cargo bench --bench casts                 # the pairs that people use
//! PYTHON=target/oracle/bin/python PAIRS=all cargo bench --bench casts       # every pair
//! ```
//!
//! `MIB` is the length of the input (64), `ROUNDS` the number of rounds of which the median is shown (7). A round is one of ours
//! with one thread, one with two, one of `np.copyto(out, a, casting="unsafe")` with one; for no cast a copy stands in their
//! place. Figures are 10⁹ bytes of input a second. Without NumPy and `ml_dtypes` its column is empty.
#![allow(missing_docs, clippy::print_stdout, clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a table for people")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use memmap2::MmapMut;
use mmconvert::{ByteOrder, Cast, Dtype};

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

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// NumPy in a process of its own, which casts when it is told to.
struct Numpy {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Numpy {
    fn start(bytes: usize) -> Option<Self> {
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/casts/numpy_casts.py");
        let mut command = Command::new(python);
        let mut child = command.args([script, &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut numpy = Self { child, to, from };
        (numpy.answer()? == "ready").then_some(numpy)
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    /// Seconds of one cast; `None` where NumPy has none.
    fn seconds(&mut self, from: &str, to: &str) -> Option<f64> {
        writeln!(self.to, "{from} {to}").ok()?;
        self.answer()?.parse().ok()
    }
}

impl Drop for Numpy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Times one cast in all ways and prints a line.
fn compare(
    (from, to): (&str, &str),
    (source, target): (&[u8], &mut [u8]),
    (item_from, item_to): (usize, usize),
    work: impl Fn(&[u8], &mut [u8]) + Sync,
    numpy: &mut Option<Numpy>,
    rounds: usize,
) {
    let rate = |seconds: f64| source.len() as f64 / seconds / 1e9;
    let (mut one, mut two, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(time(|| work(source, target)));
        two.push(time(|| halves(source, target, item_from, item_to, &work)));
        theirs.extend(numpy.as_mut().and_then(|numpy| numpy.seconds(from, to)));
    }
    let (one, two) = (rate(median(one)), rate(median(two)));
    print!("{from:<16}{to:<20}{one:>9.1}{two:>10.1}{:>7.2}", two / one);
    if theirs.is_empty() {
        println!();
    } else {
        let theirs = rate(median(theirs));
        println!("{theirs:>9.1}{:>9.2}", one / theirs);
    }
}

fn main() {
    let (bytes, rounds) = (number("MIB", 64) << 20, number("ROUNDS", 7));
    let mut numpy = Numpy::start(bytes);
    if numpy.is_none() {
        println!("no NumPy with ml_dtypes at $PYTHON: its columns stay empty");
    }
    let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
    println!("{:<16}{:<20}{:>9}{:>10}{:>7}{:>9}{:>9}", "from", "to", "1 thread", "2 threads", "2 / 1", "NumPy", "ours / it");
    let (copied, mut place) = (memory(bytes), memory(bytes));
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(time(|| place.copy_from_slice(&copied)));
        two.push(time(|| halves(&copied, &mut place, 1, 1, |from, to| to.copy_from_slice(from))));
    }
    let (one, two) = (rate(median(one)), rate(median(two)));
    println!("{:<36}{one:>9.1}{two:>10.1}{:>7.2}", "memcpy", two / one);

    let (source, mut target) = (memory(bytes), memory(bytes));
    for name in ["uint16", "float32", "float64", "complex64"] {
        let dtype = Dtype::from_name(name).expect("a dtype");
        let cast = Cast::ordered((dtype, ByteOrder::Big), (dtype, ByteOrder::Little)).expect("a cast");
        let work = |from: &[u8], to: &mut [u8]| cast.run(from, to).expect("lengths match");
        let swapped = format!(">{name}");
        compare((&swapped, name), (&source, &mut target), (8, 8), work, &mut numpy, rounds);
    }

    let all = std::env::var("PAIRS").is_ok_and(|pairs| pairs == "all");
    let names: Vec<&str> =
        Dtype::ALL.iter().filter(|dtype| dtype.itemsize().is_some() && !dtype.name().starts_with('q')).map(|dtype| dtype.name()).collect();
    let pairs: Vec<(&str, &str)> =
        if all { names.iter().flat_map(|&from| names.iter().map(move |&to| (from, to))).collect() } else { PAIRS.to_vec() };
    for (from_name, to_name) in pairs {
        let (from, to) = (Dtype::from_name(from_name).expect("a dtype"), Dtype::from_name(to_name).expect("a dtype"));
        let Ok(cast) = Cast::new(from, to) else { continue };
        let source = input(from, bytes);
        let (item_from, item_to) = (from.itemsize().expect("a number") as usize, to.itemsize().expect("a number") as usize);
        let mut target = memory(source.len() / item_from * item_to);
        let work = |from: &[u8], to: &mut [u8]| cast.run(from, to).expect("lengths match");
        compare((from_name, to_name), (&source, &mut target), (item_from, item_to), work, &mut numpy, rounds);
    }
}

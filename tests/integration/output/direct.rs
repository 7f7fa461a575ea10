//! Writes that go straight from memory to the disk: whatever a file system says to them, the output is right or there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use mmconvert::reader::MemoryTensor;
use mmconvert::{ArrayWriter, Budget, ByteOrder, Converter, Dtype, Error, Layout, Method, TensorSpec};
use proptest::prelude::*;

use crate::bundle::{BundleWriter, Layout as BundleLayout, Pattern};
use crate::kernel::{self, Call};
use crate::record_files::{Values, example, frames};
use crate::support::{code, finish, names_in, stderr};

fn bytes(seed: u64, len: u64) -> Vec<u8> {
    (0..len.div_ceil(8)).flat_map(|i| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed)).to_le_bytes()).take(len as usize).collect()
}

/// Whether a call is a direct write.
fn is_direct(call: &Call) -> bool {
    call.number == libc::SYS_pwrite64 && call.flags(0) & libc::O_DIRECT != 0
}

/// Sources whose outputs take several direct writes, and how they are converted.
const CASES: &[(&str, &str, &[&str])] = &[
    ("floats", "x.npy", &["--memory", "16MiB"]),
    ("floats", "x.npy", &["--rows", "1:6", "--dtype", "float64"]),
    ("floats", "x.npy", &["--layout", "F"]),
    ("floats", "x.safetensors", &[]),
    // An output of unknown length.
    ("lists.tfrecord", "x.npy", &["list"]),
];

struct Sources(tempfile::TempDir);

impl Sources {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Rows that are no multiple of a page.
        let mut bundle = BundleWriter::create(&dir.path().join("floats"), BundleLayout::default()).unwrap();
        bundle.add(b"small", 4, &[77], 0, Pattern::new(77)).unwrap();
        bundle.add(b"t", 1, &[7, 187_503], 0, Pattern::new(7 * 187_503 * 4)).unwrap();
        bundle.finish().unwrap();
        let list = |i: u32| Values::Floats((0..300_001).map(|k| (i * 1000 + k) as f32).collect());
        let records: Vec<Vec<u8>> = (0..5).map(|i| example(&[("list", list(i))], true)).collect();
        fs::write(dir.path().join("lists.tfrecord"), frames(&records)).unwrap();
        Self(dir)
    }

    fn command(&self, &(source, _, words): &(&str, &str, &[&str]), method: &str, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        let tensor = (source == "floats" && out.extension().is_some_and(|extension| extension == "npy")).then_some("t");
        command.current_dir(self.0.path()).args(["convert", source]).args(tensor).args(words);
        command.args(["--method", method, "-j", "2", "-q", "-f", "-o"]).arg(out);
        command
    }
}

/// Where outputs go, each beside the old one that it replaces.
struct Place {
    dir: tempfile::TempDir,
    out: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join(name);
        Self { dir, out }
    }

    /// Runs a conversion over the old output; of its direct writes, those that `fails` says do.
    fn run(&self, command: Command, mut fails: impl FnMut(usize) -> Option<i32> + Send) -> (Output, usize) {
        fs::write(&self.out, "old").unwrap();
        let mut count = 0;
        let done = kernel::run(command, &[libc::SYS_pwrite64], |call| {
            count += usize::from(is_direct(call));
            is_direct(call).then(|| fails(count)).flatten()
        });
        (done, count)
    }
}

#[test]
fn a_direct_write_may_be_refused_or_fail_at_any_time() {
    let sources = Sources::new();
    for case in CASES {
        let place = Place::new(case.1);
        assert_eq!(code(&sources.command(case, "portable", &place.out).output().unwrap()), 0);
        let wanted = fs::read(&place.out).unwrap();
        let (names, is_right) = (names_in(place.dir.path()), || fs::read(&place.out).unwrap() == wanted);
        let (done, count) = place.run(sources.command(case, "direct", &place.out), |_| None);
        if code(&done) == 6 {
            eprintln!("no direct writes here: nothing to test");
            return;
        }
        assert!(code(&done) == 0 && is_right(), "{case:?}: {}", stderr(&done));
        assert!(count > 2, "{case:?}: only {count} direct writes");
        // The first one is the trial.
        for first in [1, 2, count] {
            for error in [libc::EINVAL, libc::EOPNOTSUPP, libc::EFAULT, libc::EINTR, libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
                let once = error == libc::EINTR;
                let fails = |number| (number == first || number > first && !once).then_some(error);
                let (done, _) = place.run(sources.command(case, "direct", &place.out), fails);
                let what = format!("{case:?}, error {error} from {first} of {count} on: {}", stderr(&done));
                let wanted_code = match error {
                    libc::EINTR => 0,
                    libc::EINVAL | libc::EOPNOTSUPP | libc::EFAULT if first > 1 => 0,
                    libc::EINVAL | libc::EOPNOTSUPP | libc::EFAULT => 6,
                    libc::EIO => 1,
                    _ => 4,
                };
                // Two threads may end the work in another order.
                let is_late = first == count && wanted_code != 0 && code(&done) == 0;
                assert!(code(&done) == wanted_code || is_late, "{what}");
                if code(&done) == 0 {
                    assert!(is_right(), "{what}");
                } else {
                    assert!(stderr(&done).starts_with("error: ") && fs::read_to_string(&place.out).unwrap() == "old", "{what}");
                }
                assert_eq!(names_in(place.dir.path()), names, "{what}");
            }
        }
    }
}

#[test]
fn more_outputs_than_may_be_open_for_direct_writes_are_written() {
    const COLUMNS: usize = 80;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let names: Vec<String> = (0..COLUMNS).map(|column| format!("c{column}")).collect();
    let columns = |row: usize| (0..COLUMNS).map(move |column| Values::Ints(vec![(row * COLUMNS + column) as i64; 3]));
    let record = |row| example(&names.iter().map(String::as_str).zip(columns(row)).collect::<Vec<_>>(), true);
    fs::write(at("r.tfrecord"), frames(&(0..5).map(record).collect::<Vec<_>>())).unwrap();
    let run = |method: &str, columns: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").arg(at("r.tfrecord")).args(columns).args(["--method", method, "-q", "-o"]);
        command.arg(at(&format!("{method}{}", columns.len()))).output().unwrap()
    };
    if code(&run("direct", &["c0", "c1"])) == 6 {
        return;
    }
    for method in ["direct", "portable"] {
        let done = run(method, &[]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
    }
    for name in names_in(&at("portable0")).iter().filter(|name| *name != "manifest.json") {
        assert!(fs::read(at("direct0").join(name)).unwrap() == fs::read(at("portable0").join(name)).unwrap(), "{name}");
    }
    assert_eq!(names_in(&at("direct0")).len(), COLUMNS + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn directly_written_arrays_are_the_same_in_every_form(
        row in prop_oneof![1u64..5, 1000u64..9000, Just(300_001)], kib in 300u64..3000, ends in any::<[u8; 2]>(), cast in any::<bool>(),
        big in any::<bool>(), fortran in any::<bool>(), threads in 1usize..9, mib in prop::sample::select(vec![16u64, 24, 200]), slices in prop::option::of(1usize..5),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let rows = (kib << 10).div_ceil(row * 2);
        let stored = bytes(row, rows * row * 2);
        let reader = || MemoryTensor::new(TensorSpec::new(Dtype::UInt16, vec![rows, row]).unwrap(), &stored).unwrap();
        let run = |method, name: &str| {
            let range = u64::from(ends[0]).min(rows)..rows.saturating_sub(ends[1].into());
            let mut converter = Converter::from_reader(Box::new(reader())).rows(range.start..range.end.max(range.start));
            converter = converter.threads(threads).memory(Budget::mib(mib)).method(method);
            if let Some(slices) = slices {
                converter = converter.in_flight(slices);
            }
            if cast {
                converter = converter.cast(Dtype::Float32);
            }
            if fortran {
                converter = converter.layout(Layout::F);
            }
            converter = converter.byte_order(if big { ByteOrder::Big } else { ByteOrder::Little });
            converter.write(dir.path().join(name))
        };
        match run(Method::Direct, "direct.npy") {
            Err(Error::Unsupported { .. }) => return Ok(()),
            done => prop_assert!(done.unwrap().peak_memory <= mib << 20),
        }
        run(Method::Portable, "portable.npy").unwrap();
        prop_assert!(fs::read(dir.path().join("direct.npy")).unwrap() == fs::read(dir.path().join("portable.npy")).unwrap());
    }
}

/// Rows are written by value (long ones directly, until a window is mapped), filled in mapped windows and appended in buffers. Neighbours
/// meet in the middle of pages and of large pages.
#[test]
fn rows_that_four_threads_write_and_fill_beside_appended_ones_are_all_there() {
    const ROWS: u64 = 60;
    for round in 0..12u64 {
        let dir = tempfile::tempdir().unwrap();
        let row_bytes = [100_003, 262_144, 300_001][round as usize % 3];
        let all = bytes(round, ROWS * row_bytes);
        let part = |rows: std::ops::Range<u64>| &all[(rows.start * row_bytes) as usize..(rows.end * row_bytes) as usize];
        let mut builder = ArrayWriter::new(Dtype::UInt8, &[row_bytes]).memory(Budget::mib([20, 40, 300][round as usize / 4]));
        if round % 2 == 0 {
            builder = builder.rows(ROWS);
        }
        let mut writer = builder.create(dir.path().join("a.npy")).unwrap();
        // The appended rows end in a window that stays open.
        part(0..9).chunks(70_001 + 90_001 * (round as usize % 4)).for_each(|bytes| writer.append_bytes(bytes).unwrap());
        // A batch of rows: every fourth or so is filled, and none in some rounds.
        let is_filled = |batch: u64| round % 4 != 3 && (batch * 7 + round).is_multiple_of(4);
        let batches = Mutex::new((4..ROWS / 3).map(|batch| batch * 11 % 16 + 4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(batch) = { batches.lock().unwrap().next() } {
                        let rows = batch * 3..batch * 3 + 3;
                        if is_filled(batch) {
                            let fill = |out: &mut [u8]| {
                                out.copy_from_slice(part(rows.clone()));
                                Ok::<(), Error>(())
                            };
                            writer.fill_bytes(rows.clone(), fill).unwrap();
                        } else {
                            writer.write_bytes(rows.clone(), part(rows)).unwrap();
                        }
                    }
                });
            }
        });
        writer.append_bytes(part(9..12)).unwrap();
        assert!(finish(writer).unwrap().as_bytes() == all, "round {round}");
    }
}

/// A large page of a window has bytes of neighbours. A direct write of those would take it out of the cache while it is stored to.
#[test]
fn rows_beside_a_window_that_is_stored_to_are_written_another_way() {
    const ROW: usize = 3_000_000;
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<Vec<u8>> = (0..9).map(|row| bytes(row, ROW as u64)).collect();
    let writer = ArrayWriter::new(Dtype::UInt8, &[ROW as u64]).rows(9).memory(Budget::mib(100)).create(dir.path().join("a.npy")).unwrap();
    for middle in [1u64, 4, 7] {
        let fill = |out: &mut [u8]| {
            std::thread::scope(|scope| {
                let write = |row: u64| {
                    scope.spawn({
                        let (writer, all) = (&writer, &all);
                        move || writer.write_bytes(row..row + 1, &all[row as usize])
                    })
                };
                let neighbours = [write(middle - 1), write(middle + 1)];
                while neighbours.iter().any(|neighbour| !neighbour.is_finished()) {
                    out.copy_from_slice(&all[middle as usize]);
                }
                out.copy_from_slice(&all[middle as usize]);
                neighbours.into_iter().try_for_each(|neighbour| neighbour.join().unwrap())
            })
        };
        writer.fill_bytes(middle..middle + 1, fill).unwrap();
    }
    assert!(finish(writer).unwrap().as_bytes() == all.concat());
}

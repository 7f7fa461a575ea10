//! Everything is decoded once: chunks of any shape, streams, and joined sources, in every output order and with little memory.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mmconvert::reader::{ChunkGrid, ReadContext, TensorReader, Unit};
use mmconvert::{Budget, CancelToken, Comparison, Converter, Dtype, Error, Layout, Method, Options, Source, TensorSpec, Verified, compare};
use proptest::prelude::*;

use crate::support::{data, names_in, npy};

/// A `uint16` tensor that records how it is read. Each element is the low half of its position in C order.
#[derive(Debug)]
struct Watched {
    spec: TensorSpec,
    layout: Layout,
    grids: Vec<ChunkGrid>,
    /// How often each chunk was read, per grid.
    decoded: Vec<Mutex<Vec<u32>>>,
    /// Where the last read of each stream ended, and how often a read started before that.
    next: Vec<AtomicU64>,
    backwards: AtomicU64,
    /// The position where reading fails.
    bad: Option<u64>,
}

impl Watched {
    fn new(shape: &[u64], grids: Vec<ChunkGrid>, layout: Layout) -> Self {
        let count = |grid: &ChunkGrid| {
            let dims = [&[grid.rows.end - grid.rows.start], &shape[1..]].concat();
            dims.iter().zip(&grid.chunk).map(|(dim, len)| dim.div_ceil(*len)).product::<u64>()
        };
        let decoded =
            grids.iter().map(|grid| Mutex::new(vec![0; if grid.unit == Unit::Chunk { count(grid) as usize } else { 0 }])).collect();
        let spec = TensorSpec::new(Dtype::UInt16, shape.to_vec()).unwrap();
        let next = grids.iter().map(|_| AtomicU64::new(0)).collect();
        Self { spec, layout, grids, decoded, next, backwards: AtomicU64::new(0), bad: None }
    }

    fn axes(&self, axes: &[u64]) -> Vec<u64> {
        if self.layout == Layout::F { axes.iter().rev().copied().collect() } else { axes.to_vec() }
    }

    /// The element at a position in the order of the layout.
    fn element(&self, mut place: u64) -> u16 {
        let stored = self.axes(self.spec.shape());
        let mut index = vec![0; stored.len()];
        for (axis, dim) in stored.iter().enumerate().rev() {
            index[axis] = place % dim;
            place /= dim;
        }
        let index = self.axes(&index);
        index.iter().zip(self.spec.shape()).fold(0, |at, (i, dim)| at * dim + i) as u16
    }

    fn once(&self, chunk_rows: impl Fn(&ChunkGrid, u64) -> bool) {
        for (grid, decoded) in self.grids.iter().zip(&self.decoded) {
            let others: u64 = self.spec.shape()[1..].iter().zip(&grid.chunk[1..]).map(|(dim, len)| dim.div_ceil(*len)).product();
            for (number, times) in decoded.lock().unwrap().iter().enumerate() {
                let wanted = u32::from(chunk_rows(grid, number as u64 / others));
                assert_eq!(*times, wanted, "chunk {number} of {grid:?}");
            }
        }
        assert_eq!(self.backwards.load(Ordering::Relaxed), 0, "a stream was not read in order");
    }
}

impl TensorReader for Watched {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn is_sequential(&self) -> bool {
        self.grids.iter().any(|grid| grid.unit == Unit::Stream)
    }

    fn chunk_grids(&self) -> Vec<ChunkGrid> {
        self.grids.clone()
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<(), Error> {
        context.check_cancelled()?;
        if self.bad.is_some_and(|bad| elements.contains(&bad)) {
            return Err(Error::NotFound { what: "element", detail: "it is bad".into() });
        }
        let width: u64 = self.spec.shape()[1..].iter().product();
        for (grid, next) in self.grids.iter().zip(&self.next).filter(|(grid, _)| grid.unit == Unit::Stream) {
            let own = elements.start.max(grid.rows.start * width)..elements.end.min(grid.rows.end * width);
            if !own.is_empty() && next.swap(own.end, Ordering::Relaxed) > own.start {
                self.backwards.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (place, out) in elements.zip(out.chunks_mut(2)) {
            out.copy_from_slice(&self.element(place).to_le_bytes());
        }
        Ok(())
    }

    fn read_box(&self, start: &[u64], shape: &[u64], out: &mut [u8], context: &mut ReadContext<'_>) -> Result<(), Error> {
        let rows = start[0]..start[0] + shape[0];
        for (grid, decoded) in self.grids.iter().zip(&self.decoded) {
            let own = rows.start.max(grid.rows.start)..rows.end.min(grid.rows.end);
            if grid.unit != Unit::Chunk || own.is_empty() {
                continue;
            }
            let mut numbers = vec![0];
            for axis in 0..start.len() {
                let (from, to, dim) = match axis {
                    0 => (own.start - grid.rows.start, own.end - grid.rows.start, grid.rows.end - grid.rows.start),
                    _ => (start[axis], start[axis] + shape[axis], self.spec.shape()[axis]),
                };
                let (len, count) = (grid.chunk[axis], dim.div_ceil(grid.chunk[axis]));
                numbers = numbers.iter().flat_map(|at| (from / len..to.div_ceil(len)).map(move |step| at * count + step)).collect();
            }
            let mut decoded = decoded.lock().unwrap();
            for &number in &numbers {
                decoded[number as usize] += 1;
            }
        }
        // The runs of the box in the order of the layout.
        let (dims, start, shape) = (self.axes(self.spec.shape()), self.axes(start), self.axes(shape));
        let (last, inner) = (*shape.last().unwrap(), shape.iter().rev().skip(1).product::<u64>());
        for (number, out) in (0..inner).zip(out.chunks_mut(2 * last as usize)) {
            let (mut rest, mut place, mut stride) = (number, *start.last().unwrap(), *dims.last().unwrap());
            for axis in (0..dims.len() - 1).rev() {
                place += (start[axis] + rest % shape[axis]) * stride;
                rest /= shape[axis];
                stride *= dims[axis];
            }
            self.read(place..place + last, out, context)?;
        }
        Ok(())
    }
}

fn shapes() -> impl Strategy<Value = Vec<u64>> {
    let shapes = [
        &[500_000][..],
        &[600, 900],
        &[6000, 90],
        &[90, 6000],
        &[3, 170_000],
        &[170_000, 3],
        &[70, 110, 80],
        &[2000, 1, 250],
        &[9, 8, 7, 1000],
    ];
    prop::sample::select(shapes.map(<[u64]>::to_vec).to_vec())
}

/// A chunk's length along an axis: 1, the whole axis, or anything.
fn chunk_len(dim: u64, index: prop::sample::Index) -> u64 {
    match index.index(4) {
        0 => 1,
        1 => dim,
        _ => 1 + index.index(dim as usize) as u64,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chunks_and_streams_are_read_once_in_every_order(
        shape in shapes(), units in prop::collection::vec((0u64..400, prop::sample::select(vec![Unit::Chunk, Unit::Stream, Unit::Element])), 1..4),
        lens in any::<[prop::sample::Index; 12]>(), stored in any::<bool>(), turned in any::<bool>(), picked in any::<bool>(),
        ends in any::<[prop::sample::Index; 2]>(), threads in 1usize..5, wide in any::<bool>(), portable in any::<bool>(),
    ) {
        let (stored, written) = if stored { (Layout::F, turned) } else { (Layout::C, !turned) };
        let written = if written { Layout::C } else { Layout::F };
        let mut shape = shape;
        let mut grids: Vec<ChunkGrid> = Vec::new();
        let parts = if stored == Layout::F { 1 } else { units.len() };
        for (part, &(rows, unit)) in units[..parts].iter().enumerate() {
            let rows = if part == 0 { shape[0] } else { rows };
            let mut dims = shape.clone();
            dims[0] = rows;
            let lens = &lens[4 * part..];
            let chunk = dims.iter().zip(lens).map(|(&dim, &index)| if unit == Unit::Chunk { chunk_len(dim.max(1), index) } else { 1 }).collect();
            let first = if part == 0 { 0 } else { shape[0] };
            grids.push(ChunkGrid { rows: first..first + rows, chunk, unit });
            if part > 0 {
                shape[0] += rows;
            }
        }
        // Limits the number of chunks, and each must fit in memory.
        let fits = |grid: &ChunkGrid| grid.unit != Unit::Chunk || (64..60_000).contains(&grid.chunk.iter().product::<u64>());
        prop_assume!(grids.iter().all(fits));
        if grids.iter().all(|grid| grid.unit == Unit::Element) {
            grids.clear();
        }
        let reader = Watched::new(&shape, grids.clone(), stored);
        let mut ends = ends.map(|i| i.index(shape[0] as usize + 1) as u64);
        ends.sort_unstable();
        let rows = if picked { ends[0]..ends[1] } else { 0..shape[0] };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.npy");
        let mut options = Options::new().memory(Budget::mib(14)).threads(threads).layout(written);
        if wide {
            options = options.cast(Dtype::UInt32);
        }
        if portable {
            options = options.method(Method::Portable);
        }
        Converter::from_reader(Box::new(&reader)).options(options).rows(rows.clone()).write(&out).unwrap();
        prop_assert_eq!(names_in(dir.path()), ["a.npy"]);
        let (header, found) = npy(&out);
        let is_fortran = header.contains("'fortran_order': True");
        let width: u64 = shape[1..].iter().product();
        let selected = rows.end - rows.start;
        let total = selected * width;
        let itemsize = if wide { 4 } else { 2 };
        prop_assert_eq!(found.len() as u64, itemsize * total);
        for (at, element) in found.chunks(itemsize as usize).enumerate() {
            let mut place = at as u64;
            if is_fortran {
                let (mut rest, mut stride, mut flat) = (place, total, 0);
                for dim in [&[selected], &shape[1..]].concat() {
                    stride /= dim;
                    flat += rest % dim * stride;
                    rest /= dim;
                }
                place = flat;
            }
            prop_assert_eq!(u16::from_le_bytes([element[0], element[1]]), (rows.start * width + place) as u16, "at {}", at);
        }
        // Whether a chunk of a Fortran-ordered tensor starts at the first selected row.
        let is_even = stored == Layout::C || grids.first().is_none_or(|grid| rows.start.is_multiple_of(grid.chunk[0]));
        if is_even && shape.len() > 1 {
            reader.once(|grid, step| {
                let own = grid.rows.start + step * grid.chunk[0]..(grid.rows.start + (step + 1) * grid.chunk[0]).min(grid.rows.end);
                own.start < rows.end && rows.start < own.end && !rows.is_empty()
            });
        }
    }
}

/// A tensor whose chunks are columns, or which is a stream, of 2 MiB.
fn narrow(unit: Unit) -> Watched {
    let chunk = if unit == Unit::Chunk { vec![8192, 1] } else { vec![1, 1] };
    Watched::new(&[8192, 128], vec![ChunkGrid { rows: 0..8192, chunk, unit }], Layout::C)
}

/// The output order for which such a tensor needs a copy.
fn needing_a_copy(unit: Unit) -> Layout {
    if unit == Unit::Chunk { Layout::C } else { Layout::F }
}

#[test]
fn a_failed_or_cancelled_copy_leaves_nothing_and_progress_only_grows() {
    for unit in [Unit::Chunk, Unit::Stream] {
        for method in [None, Some(Method::Portable)] {
            for bad in [None, Some(8000 * 128 + 5)] {
                let dir = tempfile::tempdir().unwrap();
                let reader = Watched { bad, ..narrow(unit) };
                let token = CancelToken::new();
                let seen = Arc::new(AtomicU64::new(0));
                let (cancel, last) = (token.clone(), Arc::clone(&seen));
                let options = Options::new().memory(Budget::mib(14)).threads(1).layout(needing_a_copy(unit)).cancel(token);
                let mut options = options.progress(move |progress| {
                    let before = last.fetch_max(progress.done_bytes, Ordering::Relaxed);
                    assert!(before <= progress.done_bytes && progress.done_bytes <= progress.total_bytes.unwrap());
                    assert!(progress.memory_bytes <= progress.memory_limit);
                    // The second half of the progress reads the copy.
                    if bad.is_none() && 4 * progress.done_bytes > 3 * progress.total_bytes.unwrap() {
                        cancel.cancel();
                    }
                });
                if let Some(method) = method {
                    options = options.method(method);
                }
                let failed = Converter::from_reader(Box::new(&reader)).options(options).write(dir.path().join("a.npy"));
                match bad {
                    Some(_) => assert!(matches!(failed, Err(Error::NotFound { .. })), "{failed:?}"),
                    None => assert!(matches!(failed, Err(Error::Cancelled)), "{failed:?}"),
                }
                assert!(names_in(dir.path()).is_empty());
                assert!(bad.is_some() || seen.load(Ordering::Relaxed) > 1 << 20);
            }
        }
    }
}

#[test]
fn chunks_are_decoded_once_when_rows_are_streamed() {
    let reader = narrow(Unit::Chunk);
    let mut out = Vec::new();
    Converter::from_reader(Box::new(&reader)).options(Options::new().memory(Budget::mib(14))).stream(&mut out).unwrap();
    reader.once(|_, _| true);
    let data = &out[out.len() - 2 * 8192 * 128..];
    assert!(data.chunks(2).enumerate().all(|(at, element)| u16::from_le_bytes([element[0], element[1]]) == at as u16));
}

/// Writes an `.npz` with one deflated member.
fn deflated(path: &Path, name: &str, array: &[u8]) {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(array).unwrap();
    let packed = packed.finish().unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(array);
    let common = |bytes: &mut Vec<u8>| {
        for field in [20u16, 0, 8, 0, 0] {
            bytes.extend(field.to_le_bytes());
        }
        for field in [crc.sum(), packed.len() as u32, array.len() as u32] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend((name.len() as u16).to_le_bytes());
    };
    let mut bytes = b"PK\x03\x04".to_vec();
    common(&mut bytes);
    bytes.extend([0; 2]);
    bytes.extend(name.as_bytes());
    bytes.extend(&packed);
    let start = bytes.len() as u32;
    bytes.extend(b"PK\x01\x02\x14\x00");
    common(&mut bytes);
    bytes.extend([0; 16]);
    bytes.extend(name.as_bytes());
    let len = bytes.len() as u32 - start;
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    bytes.extend(len.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn windows_do_not_hold_memory_that_an_earlier_part_of_a_stream_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("a.npz"), dir.path().join("a.npy"));
    // Rows of nearly 1 MiB: no slice ends at a page boundary.
    let (rows, columns) = (24usize, 1_000_003usize);
    let values: Vec<u8> = (0..rows * columns).map(|at| (at / 999_983) as u8).collect();
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let array = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat();
    deflated(&source, "x.npy", &array);
    for in_flight in [1, 2, 3] {
        let options = Options::new().memory(Budget::mib(64)).method(Method::Map).threads(2).in_flight(in_flight).overwrite(true);
        let source = Source::open(&source).unwrap();
        Converter::new(&source.tensor("x").unwrap()).unwrap().options(options).write(&out).unwrap();
        assert!(npy(&out).1 == values, "{in_flight} in flight");
    }
}

#[test]
fn deflated_arrays_are_transposed_and_compared_with_all_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (rows, columns) = (1700usize, 600usize);
    let element = |i: usize, j: usize| ((i * 31 + j * 7) as u16).to_le_bytes();
    for is_fortran in [false, true] {
        let header =
            format!("{{'descr': '<u2', 'fortran_order': {}, 'shape': ({rows}, {columns}), }}", if is_fortran { "True" } else { "False" });
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((header.len() as u16).to_le_bytes());
        array.extend(header.as_bytes());
        let places = 0..rows * columns;
        array.extend(
            places.clone().flat_map(|at| if is_fortran { element(at % rows, at / rows) } else { element(at / columns, at % columns) }),
        );
        deflated(&at("a.npz"), "x.npy", &array);
        let source = Source::open(at("a.npz")).unwrap();
        let tensor = source.tensor("x").unwrap();
        for layout in [Layout::C, Layout::F] {
            for picked in [0..rows, 5..rows - 3] {
                let options = Options::new().memory(Budget::mib(14)).layout(layout).overwrite(true);
                let rows = picked.start as u64..picked.end as u64;
                let report = Converter::new(&tensor).unwrap().options(options.clone()).rows(rows.clone()).write(at("a.npy")).unwrap();
                let len = picked.len();
                let row = |i: usize| picked.start + i;
                let expected: Vec<u8> = (0..len * columns)
                    .flat_map(
                        |at| if layout == Layout::F { element(row(at % len), at / len) } else { element(row(at / columns), at % columns) },
                    )
                    .collect();
                assert!(npy(&at("a.npy")).1 == expected, "{is_fortran} {layout:?} {picked:?}");
                let compared = compare(at("a.npy"), &tensor, Some(rows.into()), &options).unwrap();
                assert_eq!(compared, Comparison::Equal(report.verified));
                assert_eq!(report.verified == Verified::Full, len == 1700, "{is_fortran} {layout:?} {picked:?}");
                // A differing byte, in the array or in the source, is found.
                let mut other = fs::read(at("a.npy")).unwrap();
                *other.last_mut().unwrap() ^= 1;
                fs::write(at("a.npy"), other).unwrap();
                let compared = compare(at("a.npy"), &tensor, Some((picked.start as u64..picked.end as u64).into()), &options).unwrap();
                assert!(matches!(compared, Comparison::Different(_)));
            }
        }
        let mut damaged = fs::read(at("a.npz")).unwrap();
        // Change the checksum in both places.
        let central = damaged.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
        damaged[14] ^= 1;
        damaged[central + 16] ^= 1;
        fs::write(at("b.npz"), damaged).unwrap();
        let source = Source::open(at("b.npz")).unwrap();
        let tensor = source.tensor("x").unwrap();
        for layout in [Layout::C, Layout::F] {
            let options = Options::new().memory(Budget::mib(14)).layout(layout);
            assert!(matches!(Converter::new(&tensor).unwrap().options(options).write(at("b.npy")), Err(Error::Malformed { .. })));
        }
    }
    assert_eq!(names_in(dir.path()), ["a.npy", "a.npz", "b.npz"]);
}

/// Elements of the datasets in `narrow-h5`.
fn narrow_element(i: u64, j: u64) -> [u8; 2] {
    ((i / 8 * 3 + j * 5) % 251).to_le_bytes()[..2].try_into().unwrap()
}

#[test]
fn narrow_chunks_are_read_in_both_orders_and_joined() {
    let open = |name: &str| Source::open(data("narrow-h5").join(name)).unwrap();
    let (one, joined) = (open("narrow.h5"), Source::concat(vec![open("narrow.h5"), open("narrow2.h5")]).unwrap());
    for (source, name, rows, columns) in
        [(&one, "/columns", 8192, 90u64), (&one, "/rows", 90, 8192), (&joined, "/columns", 8192 + 3000, 90)]
    {
        let tensor = source.tensor(name).unwrap();
        assert_eq!(tensor.info().shape(), [rows, columns]);
        for layout in [Layout::C, Layout::F] {
            for picked in [0..rows, 33..rows - 7] {
                let dir = tempfile::tempdir().unwrap();
                let out = dir.path().join("a.npy");
                let options = Options::new().memory(Budget::mib(15)).layout(layout);
                Converter::new(&tensor).unwrap().options(options.clone()).rows(picked.clone()).write(&out).unwrap();
                let len = picked.end - picked.start;
                // The second file repeats the first.
                let element = |i: u64, j: u64| narrow_element((picked.start + i) % 8192, j);
                let expected: Vec<u8> = (0..len * columns)
                    .flat_map(|at| if layout == Layout::F { element(at % len, at / len) } else { element(at / columns, at % columns) })
                    .collect();
                assert!(npy(&out).1 == expected, "{name} {layout:?} {picked:?}");
                assert_eq!(compare(&out, &tensor, Some(picked.clone().into()), &options).unwrap(), Comparison::Equal(Verified::Not));
                if layout == Layout::C {
                    let mut streamed = Vec::new();
                    Converter::new(&tensor).unwrap().options(options).rows(picked).stream(&mut streamed).unwrap();
                    assert!(streamed[streamed.len() - expected.len()..] == expected, "{name}");
                }
                assert_eq!(names_in(dir.path()), ["a.npy"]);
            }
        }
    }
}

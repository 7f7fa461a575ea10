//! Laws that hold for every tensor, however it is stored, cut and read.

use std::fs;
use std::path::Path;

use mmconvert::reader::MemoryTensor;
use mmconvert::{Budget, Converter, Dtype, Error, Method, Options, Rows, Source, TensorSpec, Verified};
use proptest::prelude::*;

use crate::bundle::{BundleWriter, Extents, Layout};
use crate::support::{Mapped as _, npy, shape_text};

/// A tensor and its way of storage.
#[derive(Debug, Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<u64>,
    pieces: Vec<Extents>,
    layout: Layout,
    bytes: Vec<u8>,
}

/// Cuts boxes at random places along random axes, as often as `choices` says.
fn cut(shape: &[u64], choices: &[(usize, u64)]) -> Vec<Extents> {
    let mut boxes: Vec<Vec<(u64, u64)>> = vec![shape.iter().map(|&dim| (0, dim)).collect()];
    for &(pick, at) in choices.iter().filter(|_| !shape.is_empty()) {
        let i = pick % boxes.len();
        let axis = (pick / 5) % shape.len();
        let (start, len) = boxes[i][axis];
        if len > 1 {
            let at = 1 + at % (len - 1);
            let mut high = boxes[i].clone();
            high[axis] = (start + at, len - at);
            boxes[i][axis] = (start, at);
            boxes.push(high);
        }
    }
    let explicit = choices.len().is_multiple_of(2);
    let extent = |(start, len): (u64, u64), dim| if start == 0 && len == dim && !explicit { (0, None) } else { (start, Some(len)) };
    boxes.into_iter().map(|piece| piece.into_iter().zip(shape).map(|(part, &dim)| extent(part, dim)).collect()).collect()
}

/// The bytes of a box of a C-ordered array, element by element.
fn gather(bytes: &[u8], shape: &[u64], itemsize: usize, piece: &Extents) -> Vec<u8> {
    let mut out = Vec::new();
    let total: u64 = shape.iter().product();
    for flat in 0..total {
        let (mut rest, mut inside) = (flat, true);
        for (&dim, &(start, len)) in shape.iter().zip(piece).rev() {
            let index = rest % dim;
            rest /= dim;
            inside &= index >= start && index < start + len.unwrap_or(dim);
        }
        if inside {
            out.extend(&bytes[flat as usize * itemsize..][..itemsize]);
        }
    }
    out
}

/// Big-endian storage of these little-endian elements.
fn stored_order(mut bytes: Vec<u8>, dtype: Dtype, layout: &Layout) -> Vec<u8> {
    if layout.big_endian {
        bytes.chunks_exact_mut(dtype.component_size() as usize).for_each(<[u8]>::reverse);
    }
    bytes
}

impl Stored {
    fn write(&self, prefix: &Path) {
        let mut writer = BundleWriter::create(prefix, self.layout.clone()).unwrap();
        writer.add(b"a/before", 4, &[3], 0, &[1u8, 2, 3][..]).unwrap();
        let itemsize = self.dtype.itemsize().unwrap() as usize;
        if self.pieces.len() == 1 {
            let bytes = stored_order(self.bytes.clone(), self.dtype, &self.layout);
            writer.add(b"t", self.dtype.code(), &self.shape, self.layout.shards - 1, &bytes[..]).unwrap();
        } else {
            let parts: Vec<Vec<u8>> = self
                .pieces
                .iter()
                .map(|piece| stored_order(gather(&self.bytes, &self.shape, itemsize, piece), self.dtype, &self.layout))
                .collect();
            let shards = self.layout.shards as usize;
            writer
                .add_partitioned(b"t", self.dtype.code(), &self.shape, &self.pieces, |i| ((i * 7 % shards) as u32, &parts[i][..]))
                .unwrap();
        }
        writer.add(b"z/behind", 4, &[1], 0, &[9u8][..]).unwrap();
        writer.finish().unwrap();
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    let dtypes: Vec<Dtype> = Dtype::ALL.iter().copied().filter(|d| d.itemsize().is_some() && *d != Dtype::Bool).collect();
    let layout =
        (1u32..4, any::<bool>(), prop::sample::select(vec![1u64, 8, 64]), any::<bool>(), prop::sample::select(vec![40usize, 300, 262_144]))
            .prop_map(|(shards, big_endian, align, snappy, block_size)| Layout { shards, big_endian, align, snappy, block_size });
    let shape = prop::collection::vec(prop_oneof![4 => 1u64..9, 1 => 0u64..1], 0..5);
    let choices = prop_oneof![Just(vec![]), prop::collection::vec((any::<usize>(), any::<u64>()), 1..9)];
    (prop::sample::select(dtypes), shape, choices, layout, any::<u64>()).prop_map(|(dtype, shape, choices, layout, seed)| {
        let nbytes = shape.iter().product::<u64>() * dtype.itemsize().unwrap();
        let bytes = (0..nbytes).map(|i| ((i + 1).wrapping_mul(seed | 1) >> 29) as u8).collect();
        let pieces = if nbytes == 0 { vec![vec![]] } else { cut(&shape, &choices) };
        Stored { dtype, shape, pieces, layout, bytes }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_storage_any_rows_and_any_threads_give_the_same_bytes(tensor in stored(), threads in 1usize..5, ends in any::<[i8; 2]>(), whole in any::<bool>(), method in prop::sample::select(vec![None, Some(Method::Map), Some(Method::Portable)])) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("c");
        tensor.write(&prefix);
        let source = Source::open(&prefix).unwrap();
        let found = source.tensor("t").unwrap();
        prop_assert_eq!(found.info().spec.shape(), &tensor.shape[..]);

        let rows = if whole || tensor.shape.is_empty() { Rows::default() } else { Rows { start: Some(ends[0].into()), end: Some(ends[1].into()) } };
        let range = rows.resolve(found.info().spec.rows());
        let row_bytes = found.info().spec.row_bytes() as usize;
        let wanted = &tensor.bytes[range.start as usize * row_bytes..range.end as usize * row_bytes];
        let mut converter = Converter::new(&found).unwrap().threads(threads).memory(Budget::mib(16));
        if let Some(method) = method {
            converter = converter.method(method);
        }
        if !tensor.shape.is_empty() {
            converter = converter.rows(rows);
        }
        let done = converter.mapped(dir.path().join("out.npy")).unwrap();
        prop_assert_eq!(done.array.as_bytes(), wanted);
        let (header, bytes) = npy(done.array.path());
        prop_assert_eq!(&bytes[..], wanted, "the file ends with the data");
        let mut shape = tensor.shape.clone();
        if let Some(axis) = shape.first_mut() {
            *axis = range.end - range.start;
        }
        let shape_is_there = header.contains(&format!("'shape': {}, }}", shape_text(&shape)));
        prop_assert!(shape_is_there, "{}", header);
        if range.end - range.start == found.info().spec.rows() {
            prop_assert_eq!(done.report.verified, Verified::Full);
        } else if tensor.pieces.len() == 1 && range.end > range.start && row_bytes > 0 {
            prop_assert_eq!(done.report.verified, Verified::Not, "one checksum covers more than these rows");
        }
    }

    #[test]
    fn any_bool_byte_becomes_zero_or_one(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BundleWriter::create(&dir.path().join("c"), Layout::default()).unwrap();
        writer.add(b"b", 10, &[bytes.len() as u64], 0, &bytes[..]).unwrap();
        writer.finish().unwrap();
        let source = Source::open(dir.path().join("c")).unwrap();
        let done = Converter::new(&source.tensor("b").unwrap()).unwrap().mapped(dir.path().join("b.npy")).unwrap();
        let view = done.array.view::<bool>().unwrap();
        let wanted: Vec<bool> = bytes.iter().map(|&b| b != 0).collect();
        prop_assert_eq!(view.iter().copied().collect::<Vec<_>>(), wanted);
        prop_assert_eq!(done.report.verified, Verified::Full);
    }
}

/// The default method, and each method by name.
fn methods() -> impl Iterator<Item = Option<Method>> {
    [None].into_iter().chain(Method::ALL.map(Some))
}

/// Larger than a slice, so that rows are folded, windows wait for each other, and pieces meet within slices.
#[test]
fn any_budget_and_any_thread_count_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for (case, (shape, cuts)) in [
        (vec![1, 6_000_001], vec![]),
        (vec![3, 2_000_001], vec![(0, 1), (5, 1_000_003), (11, 77)]),
        (vec![2_000_003, 3], vec![(0, 999_999), (5, 1), (6, 0), (12, 3)]),
        (vec![6_000_001], vec![(0, 1), (1, 5), (2, 4_000_000)]),
        (vec![700, 40, 215], vec![(5, 17), (10, 100), (1, 350), (7, 33)]),
    ]
    .into_iter()
    .enumerate()
    {
        let nbytes = shape.iter().product::<u64>();
        let bytes: Vec<u8> = (0..nbytes).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
        let layout = Layout { shards: 2, ..Layout::default() };
        let pieces = cut(&shape, &cuts);
        let prefix = dir.path().join(format!("c{case}"));
        Stored { dtype: Dtype::UInt8, shape: shape.clone(), pieces, layout, bytes: bytes.clone() }.write(&prefix);
        let source = Source::open(&prefix).unwrap();
        let tensor = source.tensor("t").unwrap();
        let resources = [(1, Budget::mib(13)), (2, Budget::mib(14)), (3, Budget::mib(32)), (8, Budget::mib(1000))];
        for ((threads, budget), method) in resources.into_iter().flat_map(|r| methods().map(move |m| (r, m))) {
            let out = dir.path().join("out.npy");
            let mut converter = Converter::new(&tensor).unwrap().threads(threads).memory(budget).overwrite(true);
            if let Some(method) = method {
                converter = converter.method(method);
            }
            let estimate = match converter.estimate(&out) {
                // Some file systems lack some methods.
                Err(Error::Unsupported { .. }) if matches!(method, Some(Method::Clone | Method::Direct | Method::Uncached)) => continue,
                estimate => estimate.unwrap().remove(0),
            };
            assert!(estimate.memory_bytes <= budget.as_bytes());
            let done = converter.mapped(out).unwrap();
            assert_eq!(done.report.method, estimate.method, "what was announced was done");
            assert!(method.is_none_or(|method| method == done.report.method));
            assert!(done.array.as_bytes() == bytes, "shape {shape:?}, {threads} threads, {budget}, {method:?}");
            assert!(done.report.peak_memory <= budget.as_bytes(), "{} of {budget}", done.report.peak_memory);
            assert_eq!(done.report.verified, Verified::Full);
        }
    }
}

#[test]
fn a_tensor_in_memory_is_written_like_one_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    let spec = TensorSpec::new(Dtype::Float32, vec![4, 16]).unwrap();
    let reader = MemoryTensor::new(spec.clone(), &bytes).unwrap();
    let done = Converter::from_reader(Box::new(reader)).options(Options::new()).mapped(dir.path().join("m.npy")).unwrap();
    assert_eq!(fs::read(dir.path().join("m.npy")).unwrap()[4096..], bytes);
    assert_eq!(done.report.verified, Verified::Not, "nothing vouches for memory");
    assert!(MemoryTensor::new(spec, &bytes[1..]).is_err());
}

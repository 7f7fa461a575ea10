//! The forms that arrays can have: another dtype, byte order or layout, and strings.

use std::fs;
use std::path::Path;

use mmconvert::elements::{Float8E4M3Fn, Int4};
use mmconvert::ndarray::{ArrayD, IxDyn};
use mmconvert::reader::MemoryTensor;
use mmconvert::{
    BadRequest, Budget, ByteOrder, Cast, Comparison, Converter, Difference, Dtype, Error, Layout, Method, Options, Rows, Source, Strings,
    TensorSpec, Verified, compare,
};
use proptest::prelude::*;

use crate::bundle::{BundleWriter, Layout as BundleLayout};
use crate::support::{Mapped as _, code, mmconvert, names_in, npy, shape_text, stderr};

fn numeric() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL.iter().copied().filter(|dtype| dtype.itemsize().is_some()).collect::<Vec<_>>())
}

/// Distinct bytes that are valid elements of `dtype`.
fn elements(dtype: Dtype, count: u64) -> Vec<u8> {
    let itemsize = dtype.itemsize().unwrap();
    let bytes = (0..count * itemsize).map(|i| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8);
    let most = match dtype {
        Dtype::Bool => 2,
        Dtype::Int2 | Dtype::UInt2 => 4,
        Dtype::Int4 | Dtype::UInt4 | Dtype::Float4E2M1Fn => 16,
        _ => 256,
    };
    bytes.map(|byte| (u16::from(byte) % most) as u8).collect()
}

/// The elements of a C-ordered array in Fortran order, computed with `ndarray`.
fn in_fortran_order(bytes: &[u8], shape: &[u64], itemsize: u64) -> Vec<u8> {
    let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
    let elements: Vec<&[u8]> = bytes.chunks(itemsize as usize).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), elements).unwrap().t().iter().flat_map(|element| element.iter().copied()).collect()
}

fn reversed(mut bytes: Vec<u8>, dtype: Dtype) -> Vec<u8> {
    bytes.chunks_mut(dtype.component_size() as usize).for_each(<[u8]>::reverse);
    bytes
}

fn orders() -> impl Strategy<Value = ByteOrder> {
    prop::sample::select(vec![ByteOrder::Little, ByteOrder::Big])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_form_of_every_dtype_has_its_elements_cast_swapped_and_transposed(
        from in numeric(), to in prop::option::of(numeric()), stored in orders(), written in orders(), fortran in any::<bool>(),
        shape in prop::collection::vec(0u64..7, 0..5), rows in prop::option::of((-3i64..7, -3i64..7)), pad in 0u64..5,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("c");
        let count: u64 = shape.iter().product();
        let bytes = elements(from, count);
        let layout = BundleLayout { big_endian: stored == ByteOrder::Big, ..BundleLayout::default() };
        let mut writer = BundleWriter::create(&prefix, layout).unwrap();
        writer.add(b"a", 4, &[pad], 0, &vec![1; pad as usize][..]).unwrap();
        let as_stored = if stored == ByteOrder::Big { reversed(bytes.clone(), from) } else { bytes.clone() };
        writer.add(b"t", from.code(), &shape, 0, &as_stored[..]).unwrap();
        writer.finish().unwrap();
        let source = Source::open(&prefix).unwrap();
        let tensor = source.tensor("t").unwrap();

        let rows = rows.filter(|_| !shape.is_empty()).map(|(start, end)| Rows { start: Some(start), end: Some(end) });
        let selected = rows.map_or(0..shape.first().copied().unwrap_or(1), |rows| rows.resolve(shape[0]));
        let row_bytes = (from.itemsize().unwrap() * shape.iter().skip(1).product::<u64>()) as usize;
        let mut wanted_shape = shape.clone();
        if let Some(axis) = wanted_shape.first_mut() {
            *axis = selected.end - selected.start;
        }
        let wanted = &bytes[selected.start as usize * row_bytes..selected.end as usize * row_bytes];

        let mut options = Options::new().byte_order(written).memory(Budget::mib(14)).overwrite(true);
        if fortran {
            options = options.layout(Layout::F);
        }
        if let Some(to) = to {
            options = options.cast(to);
        }
        let dtype = to.unwrap_or(from);
        let out = dir.path().join("out.npy");
        let mut converter = Converter::new(&tensor).unwrap().options(options.clone());
        if let Some(rows) = rows {
            converter = converter.rows(rows);
        }
        let cast = Cast::new(from, dtype);
        let no_such_order = written == ByteOrder::Big && dtype == Dtype::BFloat16;
        let done = match converter.mapped(&out) {
            Err(Error::Unsupported { .. }) if cast.is_err() || no_such_order => return Ok(()),
            done => done.unwrap(),
        };
        prop_assert!(cast.is_ok() && !no_such_order);
        let itemsize = dtype.itemsize().unwrap();
        let mut expected = vec![0; wanted.len() / from.itemsize().unwrap() as usize * itemsize as usize];
        cast.unwrap().run(wanted, &mut expected).unwrap();
        let is_turned = fortran && !wanted_shape.contains(&0) && wanted_shape.iter().filter(|&&dim| dim > 1).count() > 1;
        if is_turned {
            expected = in_fortran_order(&expected, &wanted_shape, itemsize);
        }
        let mut descr = dtype.descr().unwrap().to_owned();
        if written == ByteOrder::Big && dtype.component_size() > 1 {
            expected = reversed(expected, dtype);
            descr.replace_range(..1, ">");
        }
        let (header, data) = npy(&out);
        let order = if is_turned { "True" } else { "False" };
        let start = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {}, }}", shape_text(&wanted_shape));
        prop_assert!(header.starts_with(&start), "{header} and not {start}");
        prop_assert!(data == expected, "{from} {shape:?} to {dtype}");
        prop_assert!(done.array.as_bytes() == expected);
        prop_assert_eq!((done.report.source_dtype, done.report.dtype, &done.report.descr), (from, dtype, &descr));

        let options = to.map_or_else(Options::new, |to| Options::new().cast(to)).memory(Budget::mib(14));
        prop_assert!(matches!(compare(&out, &tensor, rows, &options).unwrap(), Comparison::Equal(_)));
        if data.len() > 1 {
            // The first of two wrong elements in C order is reported, whatever the order of the file.
            let mut file = fs::read(&out).unwrap();
            let start = file.len() - data.len();
            let last = file.len() - 1;
            file[start] ^= 1;
            file[last] ^= 1;
            fs::write(&out, file).unwrap();
            let Comparison::Different(Difference::Element { index, .. }) = compare(&out, &tensor, rows, &options).unwrap() else {
                panic!("two elements differ");
            };
            prop_assert!(index.iter().all(|&i| i == 0));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn large_arrays_are_transposed_within_any_budget(
        dims in prop::collection::vec(1u64..80, 2..5), mib in 13u64..20, dtype in prop::sample::select(vec![Dtype::UInt8, Dtype::Float32, Dtype::Complex128]), pieces in any::<bool>()
    ) {
        // One axis is long enough to reach a few MiB.
        let mut shape = dims;
        let others: u64 = shape.iter().skip(1).product();
        shape[0] = ((3 << 20) / (others * dtype.itemsize().unwrap())).clamp(2, 40_000);
        let at = (mib % shape.len() as u64) as usize;
        shape.swap(0, at);
        let count: u64 = shape.iter().product();
        prop_assume!(count * dtype.itemsize().unwrap() < 8 << 20);
        let bytes = elements(dtype, count);
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.npy");
        let spec = TensorSpec::new(dtype, shape.clone()).unwrap();
        let reader = MemoryTensor::new(spec, &bytes).unwrap();
        let method = if pieces { Method::Portable } else { Method::Uncached };
        let converter = Converter::from_reader(Box::new(reader)).layout(Layout::F).memory(Budget::mib(mib)).method(method);
        match converter.write(&out) {
            Err(Error::Unsupported { .. }) if method == Method::Uncached => return Ok(()),
            done => prop_assert!(done.unwrap().peak_memory <= mib << 20),
        }
        prop_assert!(npy(&out).1 == in_fortran_order(&bytes, &shape, dtype.itemsize().unwrap()), "{shape:?}");
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn strings_of_any_lengths_are_kept_in_every_form(
        lengths in prop::collection::vec(prop_oneof![Just(0usize), 0usize..40, 0usize..3000], 0..300), long in prop::option::of(100_000usize..400_000),
        big_endian in any::<bool>(), width in 1u64..4, rows in prop::option::of((-5i64..20, -5i64..200)), wide in any::<bool>(), threads in 1usize..4,
    ) {
        let alphabet: &[&str] = if wide { &["a", "é", "字", "😀", "\u{0}", "z"] } else { &["a", "b", "c"] };
        let mut texts: Vec<String> = lengths.iter().chain(&long).enumerate().map(|(i, &len)| {
            let text: String = (0..len).map(|j| alphabet[(i * 7 + j * j) % alphabet.len()]).collect();
            text.trim_end_matches('\0').to_owned()
        }).collect();
        if long.is_some() {
            // Limit their number, since all are padded to the longest.
            texts.drain(..texts.len().saturating_sub(9));
        }
        texts.truncate(texts.len() / width as usize * width as usize);
        let shape = [texts.len() as u64 / width, width];
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("c");
        let mut writer = BundleWriter::create(&prefix, BundleLayout { big_endian, ..BundleLayout::default() }).unwrap();
        writer.add(b"a", 4, &[3], 0, &[1u8, 2, 3][..]).unwrap();
        writer.add_strings(b"t", &shape, texts.iter(), 0).unwrap();
        writer.finish().unwrap();
        let source = Source::open(&prefix).unwrap();
        let tensor = source.tensor("t").unwrap();

        let rows = rows.map(|(start, end)| Rows { start: Some(start), end: Some(end) });
        let selected = rows.map_or(0..shape[0], |rows| rows.resolve(shape[0]));
        let wanted = &texts[(selected.start * width) as usize..(selected.end * width) as usize];
        let shape = shape_text(&[selected.end - selected.start, width]);
        let convert = |how, order| {
            let out = dir.path().join("out.npy");
            let options = Options::new().strings(how).byte_order(order).memory(Budget::mib(14)).threads(threads).overwrite(true);
            let converter = Converter::new(&tensor).unwrap().options(options);
            let done = match rows { Some(rows) => converter.rows(rows), None => converter }.write_parts(out).unwrap();
            let whole = selected == (0..tensor.info().spec.rows());
            for (path, report) in &done {
                prop_assert!(matches!(compare(path, &tensor, rows, &Options::new()).unwrap(), Comparison::Equal(_)));
                prop_assert!(!whole || report.verified == Verified::Full);
            }
            Ok(done.into_iter().map(|(path, _)| npy(&path)).collect::<Vec<_>>())
        };
        let longest = wanted.iter().map(String::len).max().unwrap_or(0).max(1);
        let (header, data) = convert(Strings::Pad, ByteOrder::Big)?.remove(0);
        prop_assert!(header.starts_with(&format!("{{'descr': '|S{longest}', 'fortran_order': False, 'shape': {shape}, }}")), "{header}");
        prop_assert_eq!(data.len(), wanted.len() * longest);
        for (element, text) in data.chunks(longest).zip(wanted) {
            prop_assert!(element.starts_with(text.as_bytes()) && element[text.len()..].iter().all(|&byte| byte == 0));
        }

        let parts = convert(Strings::Offsets, ByteOrder::Little)?;
        prop_assert!(parts[0].1 == wanted.concat().as_bytes());
        let mut offset = 0;
        let offsets: Vec<u64> = parts[1].1.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
        prop_assert_eq!(offsets.len(), wanted.len() + 1);
        for (found, text) in offsets.iter().zip(wanted.iter().map(String::as_str).chain([""])) {
            prop_assert_eq!(*found, offset);
            offset += text.len() as u64;
        }

        for order in [ByteOrder::Little, ByteOrder::Big] {
            let longest = wanted.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
            let (header, data) = convert(Strings::Utf8, order)?.remove(0);
            let sign = if order == ByteOrder::Big { '>' } else { '<' };
            prop_assert!(header.starts_with(&format!("{{'descr': '{sign}U{longest}', 'fortran_order': False, 'shape': {shape}, }}")), "{header}");
            let code = |bytes: &[u8]| if order == ByteOrder::Big { u32::from_be_bytes(bytes.try_into().unwrap()) } else { u32::from_le_bytes(bytes.try_into().unwrap()) };
            for (element, text) in data.chunks(4 * longest).zip(wanted) {
                let found: Vec<u32> = element.chunks(4).map(code).collect();
                let mut expected: Vec<u32> = text.chars().map(u32::from).collect();
                expected.resize(longest, 0);
                prop_assert!(found == expected, "{text:?}");
            }
        }
    }
}

/// A bundle with the string tensor `t`.
fn strings(dir: &Path, texts: &[&[u8]]) -> Source {
    let prefix = dir.join("c");
    let mut writer = BundleWriter::create(&prefix, BundleLayout::default()).unwrap();
    writer.add_strings(b"t", &[texts.len() as u64], texts.iter(), 0).unwrap();
    writer.finish().unwrap();
    Source::open(prefix).unwrap()
}

#[test]
fn strings_that_would_lose_something_are_errors_that_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let source = strings(dir.path(), &[b"ab", b"\xff\0", b""]);
    let out = dir.path().join("x.npy");
    let tensor = source.tensor("t").unwrap();
    for (how, what) in [(Strings::Pad, "NUL"), (Strings::Utf8, "0xff")] {
        let error = Converter::new(&tensor).unwrap().strings(how).write(&out).unwrap_err();
        assert!(matches!(&error, Error::Lossy { index, .. } if *index == [1]), "{error:?}");
        assert!(error.to_string().contains(what) && error.to_string().contains("element [1] of t"), "{error}");
    }
    assert!(matches!(
        Converter::new(&tensor).unwrap().strings(Strings::Offsets).write(&out),
        Err(Error::BadRequest(BadRequest::TwoArrays { .. }))
    ));
    assert_eq!(names_in(dir.path()), ["c.data-00000-of-00001", "c.index"]);
    // In an export such a tensor is skipped, the others are converted, and the exit code tells.
    let src = dir.path().join("c");
    let only = mmconvert(["convert", src.to_str().unwrap(), "-o", dir.path().join("d/").to_str().unwrap()]);
    assert_eq!(code(&only), 6, "{}", stderr(&only));
    assert!(!dir.path().join("d").exists());
}

#[test]
fn broken_strings_are_refused_with_their_position() {
    let dir = tempfile::tempdir().unwrap();
    let _ = strings(dir.path(), &[b"first", b"second", b"third"]);
    let shard = dir.path().join("c.data-00000-of-00001");
    let good = fs::read(&shard).unwrap();
    let out = dir.path().join("x.npy");
    // Damaged lengths, their checksum, and string bytes, including ones that then end in NUL or are not UTF-8.
    let last = good.len() - 1;
    let crc = "CRC32C";
    let wrong =
        [(0, 0x10, "bytes"), (1, 0x10, "bytes"), (2, 0x10, "bytes"), (4, 0x10, "CRC32C of the lengths"), (9, 0x10, crc), (9, 0x80, crc)];
    for (at, flip, what) in wrong.into_iter().chain([(last, good[last], crc)]) {
        let mut bad = good.clone();
        bad[at] ^= flip;
        fs::write(&shard, &bad).unwrap();
        let source = Source::open(dir.path().join("c")).unwrap();
        for how in [Strings::Pad, Strings::Offsets, Strings::Utf8] {
            let error = Converter::new(&source.tensor("t").unwrap()).unwrap().strings(how).write_parts(&out).unwrap_err();
            assert!(matches!(error, Error::Malformed { offset: Some(_), .. }), "{at}: {error:?}");
            assert!(error.to_string().contains(what), "{at}: {error}");
        }
    }
    // Two wrong lengths with the right sum.
    let mut bad = good.clone();
    bad[..2].copy_from_slice(&[6, 5]);
    fs::write(&shard, &bad).unwrap();
    let source = Source::open(dir.path().join("c")).unwrap();
    let error = Converter::new(&source.tensor("t").unwrap()).unwrap().write(&out).unwrap_err();
    assert!(error.to_string().contains("CRC32C of the lengths"), "{error}");
    assert_eq!(names_in(dir.path()), ["c.data-00000-of-00001", "c.index"]);
}

#[test]
fn strict_casts_name_the_first_value_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut values: Vec<f32> = (0..100_000).map(|i| (i % 100) as f32).collect();
    values[71_234] = 300.0;
    values[90_000] = 0.5;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let convert = |dtype, strict, layout| {
        let reader = MemoryTensor::new(TensorSpec::new(Dtype::Float32, vec![1000, 100]).unwrap(), &bytes).unwrap();
        let converter = Converter::from_reader(Box::new(reader)).cast(dtype).strict(strict).layout(layout).overwrite(true);
        converter.mapped(dir.path().join("x.npy"))
    };
    assert_eq!(convert(Dtype::UInt8, false, Layout::C).unwrap().array.view::<u8>().unwrap()[[712, 34]], 44);
    fs::remove_file(dir.path().join("x.npy")).unwrap();
    let error = convert(Dtype::UInt8, true, Layout::C).unwrap_err();
    assert!(matches!(&error, Error::Lossy { index, .. } if *index == [712, 34]), "{error:?}");
    assert!(error.to_string().contains("300.0") && error.to_string().contains("44"), "{error}");
    assert!(matches!(convert(Dtype::UInt8, true, Layout::F), Err(Error::Lossy { .. })));
    assert_eq!(names_in(dir.path()), [""; 0]);
    assert_eq!(convert(Dtype::Float16, true, Layout::C).unwrap().report.dtype, Dtype::Float16);
}

#[test]
fn strict_casts_check_values_at_the_limits_of_their_types() {
    let dir = tempfile::tempdir().unwrap();
    let strict = |from, bytes: &[u8], to| {
        let reader = MemoryTensor::new(TensorSpec::new(from, vec![1]).unwrap(), bytes).unwrap();
        Converter::from_reader(Box::new(reader)).cast(to).strict(true).overwrite(true).write(dir.path().join("x.npy"))
    };
    let lossy = |result| assert!(matches!(result, Err(Error::Lossy { .. })), "{result:?}");
    lossy(strict(Dtype::Int32, &i32::MIN.to_le_bytes(), Dtype::Float16));
    lossy(strict(Dtype::Float16, &[0x00, 0xfc], Dtype::Int32));
    lossy(strict(Dtype::Float8E5M2, &[0x7c], Dtype::UInt16));
    lossy(strict(Dtype::Int8, &[0xff], Dtype::UInt64));
    assert!(strict(Dtype::Int32, &i32::MIN.to_le_bytes(), Dtype::Float32).is_ok());
}

#[test]
fn many_strings_and_very_long_ones_convert_within_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut texts: Vec<String> = (0..40_000).map(|i| "é".repeat(i % 7)).collect();
    let prefix = dir.path().join("c");
    let mut writer = BundleWriter::create(&prefix, BundleLayout::default()).unwrap();
    writer.add_strings(b"many", &[40_000], texts.iter(), 0).unwrap();
    texts.truncate(3);
    texts[1] = "字a".repeat(1_500_000);
    writer.add_strings(b"long", &[3], texts.iter(), 0).unwrap();
    writer.finish().unwrap();
    let source = Source::open(&prefix).unwrap();
    for (name, rows, width) in [("many", 31_234..39_999, 6), ("long", 0..3, 3_000_000)] {
        let converter = Converter::new(&source.tensor(name).unwrap()).unwrap().strings(Strings::Utf8).rows(rows.clone());
        let done = converter.memory(Budget::mib(14)).threads(3).overwrite(true).mapped(dir.path().join("x.npy")).unwrap();
        let view = done.array.view_fixed::<u32, mmconvert::ndarray::Ix2>().unwrap();
        assert_eq!(view.shape(), [(rows.end - rows.start) as usize, width]);
        for (row, i) in view.rows().into_iter().zip(rows) {
            let expected = match name {
                "many" => "é".repeat(i as usize % 7),
                _ => texts[i as usize].clone(),
            };
            assert!(row.iter().copied().eq(expected.chars().map(u32::from).chain(std::iter::repeat(0)).take(width)), "{name} {i}");
        }
    }
}

#[test]
fn parts_of_strings_can_have_names_that_are_not_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let source = strings(dir.path(), &[b"ab", b"c"]);
    let out = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.npy"));
    let done = Converter::new(&source.tensor("t").unwrap()).unwrap().strings(Strings::Offsets).write_parts(&out).unwrap();
    assert_eq!(npy(&done[0].0).1, b"abc");
    assert_eq!(npy(&done[1].0).1.len(), 24);
    assert!(done[0].0.as_os_str().as_bytes().ends_with(b"\xff.values.npy"));
}

#[test]
fn two_files_get_both_names_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let source = strings(dir.path(), &[b"ab", b"c"]);
    let out = dir.path().join("x.npy");
    let convert = |overwrite| {
        let converter = Converter::new(&source.tensor("t").unwrap()).unwrap().strings(Strings::Offsets);
        converter.overwrite(overwrite).write_parts(&out)
    };
    let (values, offsets) = (dir.path().join("x.values.npy"), dir.path().join("x.offsets.npy"));
    // The second name is not available: it is taken, or is a directory.
    fs::write(&offsets, "old").unwrap();
    assert!(matches!(convert(false), Err(Error::OutputExists { .. })));
    assert!(!values.exists());
    fs::remove_file(&offsets).unwrap();
    fs::create_dir(&offsets).unwrap();
    fs::write(&values, "old").unwrap();
    assert!(convert(true).is_err());
    assert_eq!(fs::read_to_string(&values).unwrap(), "old");
    fs::remove_dir(&offsets).unwrap();
    convert(true).unwrap();
    assert_eq!(names_in(dir.path()), ["c.data-00000-of-00001", "c.index", "x.offsets.npy", "x.values.npy"]);
    assert_eq!(npy(&values).1, b"abc");
}

#[test]
fn specialised_types_are_viewed_as_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let convert = |dtype, bytes: &[u8]| {
        let spec = TensorSpec::new(dtype, vec![bytes.len() as u64 / dtype.itemsize().unwrap()]).unwrap();
        let reader = MemoryTensor::new(spec, bytes).unwrap();
        Converter::from_reader(Box::new(reader)).overwrite(true).mapped(dir.path().join("x.npy")).unwrap().array
    };
    let array = convert(Dtype::Float8E4M3Fn, &[0x38, 0xb8, 0x7e, 0x7f]);
    let view = array.view::<Float8E4M3Fn>().unwrap();
    assert_eq!((view[[0]].to_f32(), view[[1]].to_f32(), view[[2]].to_f32()), (1.0, -1.0, 448.0));
    assert!(view[[3]].to_f32().is_nan());
    assert_eq!(Float8E4M3Fn::from_f32(448.0), view[[2]]);
    assert!(array.view::<u8>().is_err());
    let array = convert(Dtype::Int4, &[0x0f, 0x08, 0x07]);
    assert_eq!(array.view::<Int4>().unwrap().iter().map(|x| x.get()).collect::<Vec<i8>>(), [-1, -8, 7]);
    let array = convert(Dtype::BFloat16, &[0x80, 0x3f]);
    assert_eq!(array.view::<half::bf16>().unwrap()[[0]].to_f32(), 1.0);
    let array = convert(Dtype::Float16, &[0x00, 0x3c]);
    assert_eq!(array.view::<half::f16>().unwrap()[[0]].to_f32(), 1.0);
    let array = convert(Dtype::Complex64, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
    let one = array.view::<num_complex::Complex<f32>>().unwrap()[[0]];
    assert_eq!((one.re, one.im), (1.0, 2.0));
}

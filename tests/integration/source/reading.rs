//! Rows read into memory equal what a conversion writes.

use std::fs;
use std::sync::mpsc;

use mmconvert::ndarray::ArrayD;
use mmconvert::{ByteOrder, CancelToken, Converter, Dtype, Error, Layout, Options, Source, Tensor, export};

use crate::source::contract::SAMPLES;
use crate::support::{converted, data, json, names_in, sha256};

/// In C order and in the byte order of this machine.
fn plain() -> Options {
    Options::new().layout(Layout::C).byte_order(ByteOrder::NATIVE)
}

#[test]
fn rows_of_every_format_are_what_a_conversion_writes() {
    for (format, path) in SAMPLES {
        let source = Source::open(data(path)).unwrap();
        let tensors = source.all().unwrap();
        let mut seen = 0;
        for tensor in tensors.iter().filter(|tensor| tensor.reader().is_ok()) {
            let expected = converted(tensor, plain());
            let name = &tensor.info().name;
            let mut out = vec![0xaa; expected.len()];
            tensor.read_rows(.., &mut out).unwrap();
            assert!(out == expected, "{format} {name}");
            assert_eq!(tensor.nbytes(), expected.len() as u64, "{format} {name}");
            assert_eq!(source.tensor(tensor.name()).unwrap().shape(), tensor.shape(), "{format} {name}");
            let spec = &tensor.info().spec;
            if spec.shape().is_empty() {
                continue;
            }
            let (rows, row) = (spec.rows(), expected.len() / spec.rows().max(1) as usize);
            for range in [0..0, 0..rows / 2, rows / 3..rows, rows.saturating_sub(1)..rows] {
                let wanted = &expected[range.start as usize * row..range.end as usize * row];
                for threads in [1, 3] {
                    let mut out = vec![0xaa; wanted.len()];
                    tensor.read_rows_with(range.clone(), &mut out, &Options::new().threads(threads)).unwrap();
                    assert!(out == wanted, "{format} {name} {range:?}");
                }
            }
            seen += 1;
        }
        assert!(seen > 0, "{format}");
    }
}

#[test]
fn rows_by_number_are_those_of_the_whole_array_in_any_order() {
    for (format, path) in SAMPLES {
        let source = Source::open(data(path)).unwrap();
        for tensor in source.all().unwrap().iter().filter(|tensor| tensor.reader().is_ok() && !tensor.shape().is_empty()) {
            let whole = converted(tensor, plain());
            let (rows, name) = (tensor.shape()[0], tensor.name());
            let row = whole.len() / rows.max(1) as usize;
            // A fixed walk over the rows that repeats some, and the rows backwards.
            let walk: Vec<u64> = (0..rows.min(1) * 500).map(|i| i * 7919 % rows).collect();
            for wanted in [Vec::new(), walk, (0..rows).rev().collect(), (0..rows).step_by(3).collect()] {
                let expected: Vec<u8> = wanted.iter().flat_map(|&at| &whole[at as usize * row..][..row]).copied().collect();
                for threads in [1, 3] {
                    let mut out = vec![0xaa; expected.len()];
                    tensor.read_at(&wanted, &mut out, &Options::new().threads(threads)).unwrap();
                    assert!(out == expected, "{format} {name} {wanted:?}");
                }
            }
            let beyond = tensor.read_at(&[rows], &mut vec![0; row], &Options::new()).unwrap_err();
            assert_eq!(beyond.code(), "no-such-rows", "{format} {name}: {beyond}");
            let wrong = tensor.read_at(&[], &mut [0], &Options::new()).unwrap_err();
            assert_eq!(wrong.code(), "buffer-length", "{format} {name}: {wrong}");
        }
    }
}

#[test]
fn arrays_have_the_shape_and_the_type_of_the_tensor() {
    let source = Source::open(data("generated/six_shards")).unwrap();
    for tensor in source.all().unwrap().iter().filter(|tensor| tensor.info().spec.dtype() == Dtype::Float32) {
        let array: ArrayD<f32> = tensor.read(..).unwrap();
        let shape: Vec<u64> = array.shape().iter().map(|&axis| axis as u64).collect();
        assert_eq!(shape, tensor.info().shape());
        let bytes: Vec<u8> = array.iter().flat_map(|element| element.to_ne_bytes()).collect();
        assert_eq!(bytes, converted(tensor, plain()));
        assert!(matches!(tensor.read::<f64>(..), Err(Error::WrongDtype { actual: "float32", asked: "f64" })));
        let wrong = tensor.read_rows(.., &mut vec![0; bytes.len() + 1]).unwrap_err();
        assert!(wrong.code() == "buffer-length" && wrong.to_string().contains("the buffer has"), "{wrong}");
    }
}

#[test]
fn booleans_are_bool() {
    let source = Source::open(data("generated/dtypes")).unwrap();
    let tensors = source.all().unwrap();
    let bools: Vec<&Tensor> = tensors.iter().filter(|tensor| tensor.info().spec.dtype() == Dtype::Bool).collect();
    assert!(!bools.is_empty());
    for tensor in bools {
        let array: ArrayD<bool> = tensor.read(..).unwrap();
        assert_eq!(array.iter().map(|&b| u8::from(b)).collect::<Vec<_>>(), converted(tensor, plain()));
    }
}

/// A tensor can move to another thread, and outlives the source handle it was taken from.
#[test]
fn a_tensor_owns_its_source() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<Tensor>();
    check::<Source>();
    let tensor = Source::open(data("npy/generated/f4_be_f.npy")).unwrap().tensors().next().unwrap().unwrap();
    let expected = converted(&tensor, plain());
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut out = vec![0; expected.len()];
        tensor.read_rows(.., &mut out).unwrap();
        send.send(out == expected).unwrap();
    });
    reader.join().unwrap();
    assert!(receive.recv().unwrap());
}

#[test]
fn columns_of_records_are_what_tensorflow_reads() {
    let mut read = 0;
    for case in json("records.json")["cases"].as_array().unwrap() {
        for (name, feature) in case["expected"]["features"].as_object().into_iter().flatten() {
            let Some(wanted) = feature["sha256"].as_str() else { continue };
            let tensor = Source::open(data(case["path"].as_str().unwrap())).unwrap().tensor(name).unwrap();
            let shape: Vec<usize> = feature["shape"].as_array().unwrap().iter().map(|axis| axis.as_u64().unwrap() as usize).collect();
            let (found, bytes) = if feature["dtype"] == "float32" {
                let array = tensor.read::<f32>(..).unwrap();
                (array.shape().to_vec(), array.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>())
            } else {
                let array = tensor.read::<i64>(..).unwrap();
                (array.shape().to_vec(), array.iter().flat_map(|element| element.to_le_bytes()).collect())
            };
            assert_eq!((found, sha256(&bytes)), (shape.clone(), wanted.to_owned()), "{name}");
            let row = bytes.len() / shape[0];
            let mut out = vec![0; row * 2];
            tensor.read_rows(1..3, &mut out).unwrap();
            assert_eq!(out, bytes[row..3 * row], "{name}");
            assert!(tensor.read_rows(1..3, &mut out[..row]).unwrap_err().to_string().contains("buffer"));
            assert!(tensor.read_rows(1..2, &mut out).unwrap_err().to_string().contains("buffer"));
            read += 1;
        }
    }
    assert_eq!(read, 19, "all of them are looked at");
}

#[test]
fn damage_is_found_and_a_token_cancels_a_read() {
    let dir = tempfile::tempdir().unwrap();
    for suffix in [".index", ".data-00000-of-00001"] {
        fs::copy(data(&format!("generated/one_shard{suffix}")), dir.path().join(format!("c{suffix}"))).unwrap();
    }
    let path = dir.path().join("c.data-00000-of-00001");
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    let source = Source::open(dir.path().join("c")).unwrap();
    let read = |options: &Options| -> Vec<Result<(), Error>> {
        let tensors = source.all().unwrap();
        let numbers = tensors.iter().filter(|tensor| tensor.reader().is_ok());
        numbers.map(|tensor| tensor.read_rows_with(.., &mut vec![0; tensor.info().spec.nbytes() as usize], options)).collect()
    };
    assert!(read(&Options::new()).iter().any(|result| matches!(result, Err(Error::Malformed { .. }))));
    assert!(read(&Options::new().verify(false)).iter().all(Result::is_ok));
    let token = CancelToken::new();
    token.cancel();
    assert!(read(&Options::new().cancel(token)).iter().all(|result| matches!(result, Err(Error::Cancelled))));
}

/// A `.npy` of one element without axes.
fn scalar(path: &std::path::Path, descr: &str, element: &[u8]) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (), }}");
    let header = format!("{header:<117}\n");
    fs::write(path, [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), element].concat()).unwrap();
}

#[test]
fn scalars_have_no_rows_whatever_their_elements_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    for (descr, element) in [("<f4", &[0u8; 4][..]), ("|S5", b"hello"), ("<U1", &[65, 0, 0, 0]), ("<M8[D]", &[1; 8]), ("|V3", &[1, 2, 3])] {
        scalar(&path, descr, element);
        let source = Source::open(&path).unwrap();
        let tensor = source.tensors().next().unwrap().unwrap();
        let errors = [
            Converter::new(&tensor).unwrap().rows(0..1).write(dir.path().join("y.npy")).map(drop).unwrap_err(),
            Converter::new(&tensor).unwrap().rows(0..1).estimate(dir.path().join("y.npy")).map(drop).unwrap_err(),
            export(&source.all().unwrap(), Some((0..1).into()), dir.path().join("y"), &Options::new()).map(drop).unwrap_err(),
            tensor.read_rows(0..1, &mut vec![0; element.len()]).unwrap_err(),
            tensor.read_at(&[0], &mut vec![0; element.len()], &Options::new()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), "rows-of-scalar", "{descr}: {error}");
        }
        let mut whole = vec![0; element.len()];
        tensor.read_rows(.., &mut whole).unwrap();
        assert_eq!(whole, element, "{descr}");
        assert_eq!(names_in(dir.path()), ["x.npy"], "{descr}");
    }
}

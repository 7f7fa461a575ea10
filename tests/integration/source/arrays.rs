//! `.npy`, `.npz` and safetensors as sources: they equal what NumPy and the safetensors package hold; joined, cut, several at
//! once.

use std::fs;
use std::path::{Path, PathBuf};

use mmconvert::{
    ArrayWriter, BadRequest, Comparison, Converter, Dtype, Error, Layout, Location, Options, Source, Verified, compare, export, pack,
};
use serde_json::Value;

use crate::support::{code, data, json, mmconvert, names_in, npy, object, sha256, shape_of, stderr};

/// Converts the tensor with this name, or the only one.
fn bytes_of(source: &Source, name: &str, dir: &Path) -> Result<(String, Vec<u8>, Verified), Error> {
    let out = dir.join("a.npy");
    let report = Converter::new(&source.tensor(name)?)?.options(Options::new().overwrite(true)).write(&out)?;
    let bytes = fs::read(&out).unwrap();
    // Version 3 has a length field of four bytes.
    let (prefix, len) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    Ok((String::from_utf8_lossy(&bytes[prefix..prefix + len]).into_owned(), bytes[prefix + len..].to_vec(), report.verified))
}

#[test]
fn arrays_equal_what_numpy_loads() {
    let (mut equal, mut refused) = (0, 0);
    for folder in ["npy", "npy/generated"] {
        let dir = tempfile::tempdir().unwrap();
        for case in json(&format!("{folder}/expected.json"))["cases"].as_array().unwrap() {
            let path = data(folder).join(case["path"].as_str().unwrap());
            let source = Source::open(&path);
            for expected in case["expected"]["tensors"].as_array().unwrap() {
                let name = expected["name"].as_str().unwrap();
                let what = format!("{}: {name}", path.display());
                let Some(wanted) = expected["sha256"].as_str() else {
                    // Pickles, and a header that is too long for NumPy.
                    let error = source
                        .as_ref()
                        .map_or_else(ToString::to_string, |source| bytes_of(source, name, dir.path()).unwrap_err().to_string());
                    assert!(error.contains("pickled") || error.contains("at most 10000"), "{what}: {error}");
                    refused += 1;
                    continue;
                };
                let source = source.as_ref().unwrap_or_else(|error| panic!("{what}: {error}"));
                let (header, bytes, verified) = bytes_of(source, name, dir.path()).unwrap();
                assert_eq!(sha256(&bytes), wanted, "{what}");
                let tensor = source.tensor(name).unwrap();
                assert_eq!(tensor.info().shape(), shape_of(expected), "{what}");
                let descr = match &expected["npy_descr"] {
                    // Types without a TensorFlow dtype keep their descriptor.
                    Value::Null => expected["stored_descr"].as_str().unwrap_or("[(").to_owned(),
                    descr => descr.as_str().unwrap().to_owned(),
                };
                assert!(header.contains(&descr) && header.contains("'fortran_order': False"), "{what}: {header}");
                assert_eq!(verified == Verified::Full, case["kind"] == "npz", "{what}");
                equal += 1;
            }
        }
    }
    assert_eq!((equal, refused), (138, 5), "all arrays of all cases are looked at");
}

#[test]
fn hostile_arrays_end_as_expected() {
    let mut outcomes = [0; 2];
    for name in names_in(&data("hostile-npy")) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out/");
        let run = mmconvert(["convert".as_ref(), data("hostile-npy").join(&name).as_os_str(), "-o".as_ref(), out.as_os_str()]);
        if name == "zip_traversal.npz" {
            assert_eq!(code(&run), 0, "{}", stderr(&run));
            assert!(names_in(dir.path()) == ["out"] && names_in(&out).len() == 3);
            outcomes[0] += 1;
        } else {
            // Python objects are in order as a file, but no tensor.
            assert_eq!(code(&run), if name == "descr_object.npy" { 6 } else { 3 }, "{name}: {}", stderr(&run));
            assert!(stderr(&run).contains(&name) && names_in(dir.path()).is_empty(), "{}", stderr(&run));
            outcomes[1] += 1;
        }
    }
    assert_eq!(outcomes, [1, 5], "ok, error");
}

#[test]
fn safetensors_equal_what_was_saved() {
    let expected = json("safetensors/expected.json");
    let case = &expected["cases"][0];
    let source = Source::open(data("safetensors").join(case["path"].as_str().unwrap())).unwrap();
    let tensors = case["tensors"].as_array().unwrap();
    assert_eq!(source.len().unwrap(), tensors.len());
    let dir = tempfile::tempdir().unwrap();
    for expected in tensors {
        let name = expected["name"].as_str().unwrap();
        assert_eq!(source.tensor(name).unwrap().info().spec.dtype().name(), expected["dtype"].as_str().unwrap());
        assert_eq!(sha256(&bytes_of(&source, name, dir.path()).unwrap().1), expected["sha256"].as_str().unwrap(), "{name}");
    }
    assert_eq!(object(&source.facts())["metadata"]["format"], "np");
}

/// Writes a safetensors file with this header and `len` bytes of data.
fn safetensors(dir: &Path, header: &str, len: usize) -> PathBuf {
    let path = dir.join("x.safetensors");
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; len]].concat();
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn safetensors_that_overlap_or_hide_something_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = |name: &str, shape: &str, begin: u64, end: u64| {
        format!("{name:?}:{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
    };
    let good = format!("{{{},{}}}", tensor("a", "[2]", 0, 8), tensor("b", "[1]", 8, 12));
    assert!(Source::open(safetensors(dir.path(), &good, 12)).is_ok());
    for (parts, len, why) in [
        (vec![tensor("a", "[2]", 0, 8), tensor("b", "[1]", 4, 8)], 8, "overlap"),
        (vec![tensor("a", "[2]", 0, 8), tensor("b", "[1]", 12, 16)], 16, "holes"),
        (vec![tensor("a", "[2]", 0, 8)], 9, "the file has 9"),
        (vec![tensor("a", "[2]", 0, 8)], 7, "the file has 7"),
        (vec![tensor("a", "[3]", 0, 8)], 8, "has 12"),
        (vec![tensor("a", "[4611686018427387904,4]", 0, 8)], 8, "2^63"),
        (vec![tensor("a", "[0]", 0, 0), tensor("a", "[0]", 0, 0)], 0, "twice"),
    ] {
        let path = safetensors(dir.path(), &format!("{{{}}}", parts.join(",")), len);
        let error = Source::open(&path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }) && error.to_string().contains(why), "{why}: {error}");
    }
    fs::write(dir.path().join("x.safetensors"), [&u64::MAX.to_le_bytes()[..], b"{\""].concat()).unwrap();
    assert!(matches!(Source::open(dir.path().join("x.safetensors")), Err(Error::Malformed { .. })));
}

/// Writes an array whose rows count up from `first`.
fn counting(path: &Path, rows: u64, first: u64) {
    let mut writer = ArrayWriter::new(Dtype::UInt64, &[3]).create(path).unwrap();
    let values: Vec<u64> = (first * 3..(first + rows) * 3).collect();
    writer.append(&values).unwrap();
    writer.finish().unwrap();
}

#[test]
fn arrays_are_joined_in_the_order_of_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = 0;
    for (i, rows) in [4, 0, 7, 1, 1, 1, 1, 1, 1, 9, 100_000].into_iter().enumerate() {
        counting(&dir.path().join(format!("part-{i}.npy")), rows, first);
        first += rows;
    }
    let parts = Location::find(dir.path().join("part-*.npy"), None, &Options::new()).unwrap();
    assert!(parts[10].path().ends_with("part-10.npy"));
    let open = || parts.iter().map(|part| part.open(&Options::new()).unwrap()).collect::<Vec<_>>();
    let source = Source::concat(open()).unwrap();
    let tensor = source.tensors().next().unwrap().unwrap();
    assert_eq!(tensor.info().spec.shape(), [first, 3]);
    for rows in [0..first, 2..12, 11..11, first - 3..first] {
        let out = dir.path().join("all.npy");
        Converter::new(&tensor).unwrap().rows(rows.clone()).options(Options::new().overwrite(true)).write(&out).unwrap();
        let expected: Vec<u8> = (rows.start * 3..rows.end * 3).flat_map(u64::to_le_bytes).collect();
        assert_eq!(npy(&out).1, expected);
        assert_eq!(compare(&out, &tensor, Some(rows.into()), &Options::new()).unwrap(), Comparison::Equal(Verified::Not));
    }
    // The program gives the same.
    let (pattern, out) = (dir.path().join("part-*.npy"), dir.path().join("command.npy"));
    let run = mmconvert(["convert".as_ref(), pattern.as_os_str(), "--concat".as_ref(), "-o".as_ref(), out.as_os_str()]);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
    assert_eq!(npy(&out).1.len() as u64, first * 24);
    let run = mmconvert(["verify".as_ref(), out.as_os_str(), "--concat".as_ref(), "--against".as_ref(), pattern.as_os_str()]);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
}

#[test]
fn a_thousand_files_are_joined_with_few_of_them_open() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..1000).map(|i| dir.path().join(format!("{i:04}.npy"))).collect();
    for (i, path) in paths.iter().enumerate() {
        counting(path, 2, 2 * i as u64);
    }
    let source = Source::concat(paths.iter().map(|path| Source::open(path).unwrap()).collect()).unwrap();
    let out = dir.path().join("all.npy");
    Converter::new(&source.tensors().next().unwrap().unwrap()).unwrap().write(&out).unwrap();
    let expected: Vec<u8> = (0..6000u64).flat_map(u64::to_le_bytes).collect();
    assert_eq!(npy(&out).1, expected);
}

#[test]
fn arrays_that_do_not_fit_are_not_joined() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    counting(&at("a.npy"), 4, 0);
    let mut other = ArrayWriter::new(Dtype::UInt64, &[4]).create(at("b.npy")).unwrap();
    other.append(&[0u64; 8]).unwrap();
    other.finish().unwrap();
    let mut other = ArrayWriter::new(Dtype::Int64, &[3]).create(at("c.npy")).unwrap();
    other.append(&[0i64; 6]).unwrap();
    other.finish().unwrap();
    let joined = |names: &[&str]| Source::concat(names.iter().map(|name| Source::open(at(name)).unwrap()).collect());
    for (name, why) in [("b.npy", "only axis 0 may differ"), ("c.npy", "int64")] {
        let both = joined(&["a.npy", name]).unwrap();
        let error = Converter::new(&both.tensor("a").unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(why), "{error}");
    }
    for too_few in [&[][..], &["a.npy"]] {
        assert!(matches!(joined(too_few), Err(Error::BadRequest(BadRequest::NothingToJoin { .. }))));
    }
    assert!(joined(&["a.npy", "a.npy"]).is_ok());
}

#[test]
fn a_file_changed_after_it_was_opened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    counting(&path, 4, 0);
    let source = Source::open(&path).unwrap();
    let tensor = source.tensors().next().unwrap().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    let error = Converter::new(&tensor).unwrap().write(dir.path().join("b.npy")).unwrap_err();
    assert!(error.to_string().contains("written to"), "{error}");
    assert_eq!(names_in(dir.path()), ["a.npy"]);
}

#[test]
fn several_sources_become_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    counting(&at("x.npy"), 4, 0);
    counting(&at("y.npy"), 5, 9);
    let npz = data("npy/generated/stored.npz");
    let (x, y, out) = (at("x.npy"), at("y.npy"), at("out/"));
    let args = ["convert".as_ref(), npz.as_os_str(), x.as_os_str(), y.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let run = mmconvert(args);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
    assert_eq!(npy(&at("out/y.npy")).1.len(), 5 * 24);
    let arrays = Source::open(&npz).unwrap().len().unwrap();
    assert_eq!(names_in(&out).len(), arrays + 2 + 1);
    // The same name in two sources gets the source's name before it.
    fs::create_dir(at("other")).unwrap();
    fs::copy(&x, at("other/x.npy")).unwrap();
    fs::copy(&npz, at("again.npz")).unwrap();
    let both = Source::together(vec![Source::open(&npz).unwrap(), Source::open(at("again.npz")).unwrap()]).unwrap();
    assert!(both.tensor("again/arr1").is_ok() && both.tensor("stored/arr1").is_ok() && both.tensor("arr1").is_err());
    let tensors = both.all().unwrap();
    export(&tensors, None, at("both"), &Options::new()).unwrap();
    // The title contains as many directories as needed to tell the paths apart.
    let both = Source::together(vec![Source::open(&x).unwrap(), Source::open(at("other/x.npy")).unwrap()]).unwrap();
    assert!(both.tensor("other/x").is_ok() && both.tensor("x").is_err());
    let clash = Source::together(vec![Source::open(&x).unwrap(), Source::open(&x).unwrap()]);
    assert!(matches!(clash, Err(Error::BadRequest(BadRequest::SameName { .. }))));
    // A tensor name still selects a tensor if a file has the same name.
    fs::write(at("arr1"), b"no source").unwrap();
    let one = at("one.npy");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mmconvert"));
    command.current_dir(dir.path()).args(["convert", "again.npz", "arr1", "-o"]).arg(&one);
    assert!(command.output().unwrap().status.success());
}

#[test]
fn tensors_that_safetensors_cannot_hold_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::open(data("generated/dtypes")).unwrap();
    let tensors = source.all().unwrap();
    let path = dir.path().join("all.safetensors");
    let done = pack(&tensors, None, &path, &Options::new()).unwrap();
    assert_eq!(done.outputs.len() + done.skipped.len(), tensors.len());
    assert!(done.skipped.iter().any(|skipped| skipped.reason.contains("complex128")));
    let packed = Source::open(&path).unwrap();
    for output in &done.outputs {
        let (own, from) = (packed.tensor(output.name.to_json()).unwrap(), source.tensor(output.name.as_bytes()).unwrap());
        assert_eq!(
            mmconvert::compare_packed(&own, &from, None, &Options::new()).unwrap(),
            Comparison::Equal(Verified::Full),
            "{}",
            output.name
        );
    }
    for options in [Options::new().layout(Layout::F), Options::new().byte_order(mmconvert::ByteOrder::Big)] {
        assert!(matches!(pack(&tensors, None, dir.path().join("no.safetensors"), &options), Err(Error::BadRequest(..))));
    }
    assert!(matches!(pack(&tensors, None, &path, &Options::new()), Err(Error::OutputExists { .. })));
}

#[test]
fn records_become_safetensors_too() {
    let dir = tempfile::tempdir().unwrap();
    let (records, out) = (data("records/penguin_eval.gz"), dir.path().join("r.safetensors"));
    let run = mmconvert(["convert".as_ref(), records.as_os_str(), "-o".as_ref(), out.as_os_str(), "--skip-unsupported".as_ref()]);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
    let run = mmconvert([
        "convert".as_ref(),
        records.as_os_str(),
        "-o".as_ref(),
        dir.path().join("npy/").as_os_str(),
        "--skip-unsupported".as_ref(),
    ]);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
    let packed = Source::open(&out).unwrap();
    assert!(packed.len().unwrap() > 0);
    for tensor in packed.tensors().map(Result::unwrap) {
        let name = tensor.info().name.to_json();
        let (_, expected) = npy(&dir.path().join("npy").join(format!("{name}.npy")));
        assert_eq!(bytes_of(&packed, &name, dir.path()).unwrap().1, expected, "{name}");
    }
    assert_eq!(names_in(dir.path()), ["a.npy", "npy", "r.safetensors"], "nothing is left of what was made on the way");
}

#[test]
fn a_record_whose_checksum_looks_like_json_is_a_record() {
    let dir = tempfile::tempdir().unwrap();
    // The first length whose masked checksum starts with two bytes that could start JSON.
    let masked = |len: u64| crc32c(&len.to_le_bytes()).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let len = (2u64..10_000_000).find(|&len| masked(len)[..2] == *b"{\"").unwrap();
    let payload = vec![7u8; len as usize];
    let sum = crc32c(&payload).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let path = dir.path().join("records");
    fs::write(&path, [&len.to_le_bytes()[..], &masked(len), &payload, &sum].concat()).unwrap();
    assert_eq!(Source::open(&path).unwrap().format(), "tfrecord");
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1))))
}

/// What `numpy.save` writes for little-endian int64 counting from `first`, in C order.
fn saved(shape: &[u64], first: i64) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    let tuple = if dims.len() == 1 { format!("({},)", dims[0]) } else { format!("({})", dims.join(", ")) };
    let mut text = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {tuple}, }}");
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend((first..first + shape.iter().product::<u64>() as i64).flat_map(i64::to_le_bytes));
    bytes
}

#[test]
fn every_array_of_a_file_is_a_tensor_and_trailing_bytes_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("three.npy");
    let parts = [saved(&[2, 3], 0), saved(&[4], 100), saved(&[1, 1, 2], -7)];
    fs::write(&path, parts.concat()).unwrap();
    let source = Source::open(&path).unwrap();
    for (at, (part, shape)) in parts.iter().zip([&[2, 3][..], &[4], &[1, 1, 2]]).enumerate() {
        let tensor = source.tensor(format!("arr_{at}")).unwrap();
        assert_eq!(tensor.info().shape(), shape);
        let out = dir.path().join("one.npy");
        Converter::new(&tensor).unwrap().overwrite(true).write(&out).unwrap();
        assert_eq!(npy(&out).1, part[128..]);
    }
    assert_eq!(source.len().unwrap(), 3);
    // One output file cannot hold all of them.
    let run = mmconvert(["convert".as_ref(), path.as_os_str(), "-o".as_ref(), dir.path().join("all.npy").as_os_str()]);
    assert_eq!(code(&run), 2);

    let out = dir.path().join("out.npy");
    for behind in [&b"x"[..], &[0; 4096], &saved(&[3], 0)[..100]] {
        fs::write(&path, [&parts[0][..], behind].concat()).unwrap();
        let run = mmconvert(["convert".as_ref(), path.as_os_str(), "-o".as_ref(), out.as_os_str()]);
        assert_eq!(code(&run), 3, "{}", stderr(&run));
        assert!(stderr(&run).contains("byte 176") || stderr(&run).contains("byte 184"), "{}", stderr(&run));
        assert!(!out.exists());
    }
}

#[test]
fn rows_of_a_cut_array_are_counted_and_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("cut.npy"), dir.path().join("out.npy"));
    let whole = saved(&[10, 5], 0);
    for (cut, rows) in [(1, 9), (40, 9), (41, 8), (360, 1), (361, 0), (400, 0)] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let convert = |more: &[&str]| {
            let args = ["convert", path.to_str().unwrap(), "-f", "-o", out.to_str().unwrap()];
            mmconvert(args.iter().chain(more))
        };
        let run = convert(&[]);
        assert_eq!(code(&run), 3);
        let told = if rows == 0 { "none of its 10 rows is whole".to_owned() } else { format!("{rows} of its 10 rows are whole") };
        assert!(stderr(&run).contains(&told), "{}", stderr(&run));
        assert!(!out.exists());
        let run = convert(&["--salvage"]);
        if rows == 0 {
            assert_eq!(code(&run), 3);
            continue;
        }
        assert_eq!(code(&run), 0, "{}", stderr(&run));
        assert!(stderr(&run).contains(&format!("{rows} of its 10 rows are kept")), "{}", stderr(&run));
        assert_eq!(npy(&out).1, whole[128..128 + rows * 40]);
        fs::remove_file(&out).unwrap();
    }
}

/// Writes an array with this literal descriptor, whose elements are `bytes`.
fn described(path: &Path, descr: &str, length: usize, bytes: &[u8]) {
    let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({length},), }}\n");
    let len = u16::try_from(text.len()).unwrap().to_le_bytes();
    fs::write(path, [b"\x93NUMPY\x01\x00", &len[..], text.as_bytes(), bytes].concat()).unwrap();
}

#[test]
fn descriptors_are_understood_as_by_numpy_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("a.npy"), dir.path().join("o.npy"));
    let go = |args: &[&str]| {
        mmconvert([&[args[0], if args[0] == "verify" { out.to_str().unwrap() } else { path.to_str().unwrap() }], &args[1..]].concat())
    };
    // What `numpy.save` writes for float8_e5m2 and cannot read back, and type names instead of descriptors.
    for (descr, bytes, written) in
        [("'<f1'", &[60, 0][..], "|V1"), ("'float32'", &[0, 0, 128, 63, 0, 0, 0, 0], "<f4"), ("'bool'", &[0, 1], "|b1")]
    {
        described(&path, descr, 2, bytes);
        let done = go(&["convert", "-fo", out.to_str().unwrap()]);
        assert_eq!(code(&done), 0, "{descr}: {}", stderr(&done));
        let (header, data) = npy(&out);
        assert!(header.contains(&format!("'{written}'")) && data == bytes, "{descr}: {header}");
    }
    for descr in ["'<i3'", "'<f5'", "'<c4'", "'<M8'[", "[('a', '<i4'), ('a', '<i4')]", "[(('t', 'a'), '<i4'), ('a', '<i4')]", "'qint8'"] {
        described(&path, descr, 1, &[0; 8]);
        let done = go(&["convert", "-fo", out.to_str().unwrap()]);
        assert_eq!(code(&done), 3, "{descr}: {}", stderr(&done));
    }
    // Records with both byte orders are compared unchanged.
    described(&path, "[('a', '<i4'), ('b', '>f8')]", 1, &[1, 0, 0, 0, 63, 240, 0, 0, 0, 0, 0, 0]);
    assert_eq!(code(&go(&["convert", "-fo", out.to_str().unwrap()])), 0);
    let same = go(&["verify", "--against", path.to_str().unwrap()]);
    assert_eq!(code(&same), 0, "{}", stderr(&same));
    // A file of nothing but the magic counts as a cut array.
    fs::write(&path, b"\x93NUMPY").unwrap();
    let cut = go(&["convert", "--format", "npy", "-fo", out.to_str().unwrap()]);
    assert!(code(&cut) == 3 && stderr(&cut).contains("was cut"), "{}", stderr(&cut));
}

#[test]
fn errors_of_joining_name_the_array() {
    let dir = tempfile::tempdir().unwrap();
    for (name, descr, bytes) in [("a.npy", "'<i4'", &[1, 0, 0, 0][..]), ("b.npy", "'<f4'", &[0, 0, 128, 63])] {
        described(&dir.path().join(name), descr, 1, bytes);
    }
    let go = |one: &str, other: &str| {
        let paths = [one, other].map(|name| dir.path().join(name));
        let args = [paths[0].as_os_str(), paths[1].as_os_str()];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mmconvert"));
        command.arg("convert").args(args).args(["--concat", "-o"]).arg(dir.path().join("o.npy")).output().unwrap()
    };
    let done = go("a.npy", "b.npy");
    let said = stderr(&done);
    assert!(code(&done) == 6 && said.contains("float32") && said.contains("b.npy"), "{said}");
    assert_eq!(said.matches("is not supported").count(), 1, "{said}");
}

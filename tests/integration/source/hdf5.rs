//! HDF5 and Keras files: every dataset equals what h5py reads; rows equal those of the whole; hostile files end as expected.

use std::fs;

use mmconvert::{Budget, Converter, Error, Layout, Options, Source};

use crate::support::{code, converted, data, json, mmconvert, names_in, npy, object, sha256, shape_of, stderr};

#[test]
fn datasets_equal_what_h5py_reads() {
    let mut equal = [0; 2];
    for (folder, at) in [("keras", 0), ("keras-h5", 1)] {
        for case in json(&format!("{folder}/expected.json"))["cases"].as_array().unwrap() {
            let path = data(folder).join(case["path"].as_str().unwrap());
            let source = Source::open(&path).unwrap();
            let expected = match &case["expected"]["members"]["model.weights.h5"]["tensors"] {
                serde_json::Value::Null => &case["expected"]["tensors"],
                member => member,
            };
            let expected = expected.as_array().unwrap();
            assert_eq!(source.len().unwrap(), expected.len(), "{}", path.display());
            for expected in expected {
                let name = expected["name"].as_str().unwrap();
                let what = format!("{}: {name}", path.display());
                let tensor = source.tensor(name).unwrap();
                assert_eq!(tensor.info().shape(), shape_of(expected), "{what}");
                assert_eq!(tensor.info().spec.dtype().name(), expected["dtype"].as_str().unwrap(), "{what}");
                assert_eq!(sha256(&converted(&tensor, Options::new())), expected["sha256"].as_str().unwrap(), "{what}");
                let facts = object(&tensor.facts().unwrap());
                assert_eq!(facts.get("chunks").unwrap_or(&serde_json::Value::Null), &expected["chunks"], "{what}");
                // The leading slash is optional.
                assert_eq!(source.tensor(&name[1..]).unwrap().info().name, tensor.info().name);
                equal[at] += 1;
            }
        }
    }
    assert_eq!(equal, [134, 200], "all datasets of all cases are looked at");
}

#[test]
fn chunks_are_assembled_in_every_order_and_part() {
    let source = Source::open(data("keras/dk_layouts.h5")).unwrap();
    for name in ["chunked", "gzip", "gzip_shuffle_fletcher", "lzf", "partly_written"] {
        let tensor = source.tensor(format!("deep/er/dk/{name}")).unwrap();
        let spec = tensor.info().spec.clone();
        let whole = converted(&tensor, Options::new());
        for options in [
            Options::new().threads(1).memory(Budget::mib(40)),
            Options::new().method(mmconvert::Method::Map),
            Options::new().method(mmconvert::Method::Portable).in_flight(1),
        ] {
            assert_eq!(converted(&tensor, options), whole, "{name}");
        }
        // Fortran order, transposed back by hand.
        let turned = converted(&tensor, Options::new().layout(Layout::F));
        let (rows, columns, item) = (spec.shape()[0] as usize, spec.shape()[1] as usize, spec.itemsize() as usize);
        let back: Vec<u8> = (0..rows * columns)
            .flat_map(|at| {
                let place = (at % columns * rows + at / columns) * item;
                turned[place..place + item].to_vec()
            })
            .collect();
        assert_eq!(back, whole, "{name}");
        for part in [0..1, 3..17, 30..37, 36..37, 5..5] {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("a.npy");
            Converter::new(&tensor).unwrap().rows(part.clone()).write(&out).unwrap();
            let row = spec.row_bytes();
            assert_eq!(npy(&out).1, whole[(part.start * row) as usize..(part.end * row) as usize], "{name} {part:?}");
        }
    }
}

#[test]
fn hostile_hdf5_files_end_as_expected() {
    for (name, wanted) in [
        ("shape_bomb.h5", 4),
        ("external_link.h5", 6),
        ("hard_link_cycle.h5", 0),
        // Behind a user block, addresses count from its end.
        ("userblock_fill.h5", 0),
        ("userblock_efl.h5", 6),
        ("vlen_bomb.h5", 4),
        ("vlen_bytes.h5", 0),
        ("null.h5", 6),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (data("hostile-h5").join(name), dir.path().join("out/"));
        let run = mmconvert(["convert".as_ref(), path.as_os_str(), "-o".as_ref(), out.as_os_str()]);
        assert_eq!(code(&run), wanted, "{name}: {}", stderr(&run));
        assert!(wanted == 0 || stderr(&run).contains(name), "{}", stderr(&run));
        assert_eq!(names_in(dir.path()).is_empty(), wanted != 0);
    }
}

#[test]
fn links_lead_where_h5py_goes_and_dangling_ones_are_listed_as_skipped() {
    let expected = json("h5-links/expected.json");
    for name in ["old.h5", "new.h5", "tracked.h5"] {
        let source = Source::open(data("h5-links").join(name)).unwrap();
        for expected in expected[name].as_array().unwrap() {
            let path = expected["name"].as_str().unwrap();
            let tensor = source.tensor(path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(tensor.info().shape(), shape_of(expected), "{name}: {path}");
            assert_eq!(sha256(&converted(&tensor, Options::new())), expected["sha256"].as_str().unwrap(), "{name}: {path}");
        }
        // Each dataset is listed once, by its own path; links that lead nowhere in the file are listed, too.
        let listed: Vec<(String, bool)> = source
            .tensors()
            .map(|tensor| tensor.unwrap().info().clone())
            .map(|info| (info.name.to_string(), info.unsupported.is_some()))
            .collect();
        let names = |left_out: bool| listed.iter().filter(move |one| one.1 == left_out).map(|one| one.0.as_str()).collect::<Vec<_>>();
        assert_eq!(names(true), ["/dang", "/ext", "/loop"], "{name}");
        assert_eq!(names(false).len(), 14, "{name}: {:?}", names(false));
        let dir = tempfile::tempdir().unwrap();
        let run =
            mmconvert(["convert".as_ref(), data("h5-links").join(name).as_os_str(), "-o".as_ref(), dir.path().join("out").as_os_str()]);
        assert_eq!(code(&run), 6);
        for left_out in ["/dang", "/ext", "/loop"] {
            assert!(stderr(&run).contains(&format!("skipped {left_out}: ")), "{}", stderr(&run));
        }
        assert_eq!(names_in(&dir.path().join("out")).len(), 14 + 1);
    }
    for (name, whole) in [("userblock_link.h5", 3), ("dense_external.h5", 12)] {
        let source = Source::open(data("hostile-h5").join(name)).unwrap();
        let infos: Vec<_> = source.tensors().map(|tensor| tensor.unwrap().info().clone()).collect();
        assert_eq!(infos.iter().filter(|info| info.unsupported.is_none()).count(), whole, "{name}");
        assert!(infos.iter().any(|info| info.unsupported.as_ref().is_some_and(|reason| reason.contains("other.h5"))), "{name}");
    }
}

#[test]
fn unwritten_elements_are_the_fill_value_also_behind_a_user_block() {
    let source = Source::open(data("hostile-h5/userblock_fill.h5")).unwrap();
    // As h5py reads it.
    let expected = "09df00a2c9f5e964bb81f824fa33e1ca46e8fa26d8dc478ba59be4361c69a0c7";
    assert_eq!(sha256(&converted(&source.tensor("/d").unwrap(), Options::new())), expected);
}

#[test]
fn every_kind_of_file_equals_what_h5py_reads() {
    let (mut equal, mut refused) = (0, 0);
    for (file, entries) in json("h5-kinds/expected.json").as_object().unwrap() {
        let source = Source::open(data("h5-kinds").join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for expected in entries.as_array().unwrap() {
            let name = expected["name"].as_str().unwrap();
            let tensor = source.tensor(name).unwrap_or_else(|error| panic!("{file}: {error}"));
            if expected["refused"].as_bool() == Some(true) {
                assert!(tensor.info().unsupported.is_some(), "{file}: {name}");
                refused += 1;
                continue;
            }
            let bytes = converted(&tensor, Options::new());
            match expected["sha256_strings"].as_str() {
                Some(wanted) => {
                    let elements = tensor.info().spec.elements() as usize;
                    let texts = bytes
                        .chunks(bytes.len() / elements)
                        .map(|text| &text[..text.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1)]);
                    let hashed: Vec<u8> = texts.flat_map(|text| [&(text.len() as u64).to_le_bytes()[..], text].concat()).collect();
                    assert_eq!(sha256(&hashed), wanted, "{file}: {name}");
                }
                None => assert_eq!(sha256(&bytes), expected["sha256"].as_str().unwrap(), "{file}: {name}"),
            }
            equal += 1;
        }
        // Links that lead nowhere in the file are not counted.
        let found = source.tensors().filter(|tensor| tensor.as_ref().unwrap().info().unsupported.is_none()).count();
        assert_eq!(found, entries.as_array().unwrap().iter().filter(|entry| entry["refused"].is_null()).count(), "{file}");
    }
    assert_eq!((equal, refused), (316, 8), "all datasets of all files are looked at");
}

#[test]
fn text_that_is_not_utf_8_is_kept_as_it_is() {
    let source = Source::open(data("hostile-h5/vlen_bytes.h5")).unwrap();
    let tensor = source.tensors().next().unwrap().unwrap();
    // As h5py reads it: these two bytes, "ok", and a string without bytes.
    assert_eq!(converted(&tensor, Options::new()), b"\xff\xfeok\0\0");
}

#[test]
fn a_damaged_compressed_chunk_is_an_error_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(data("keras/dk_layouts.h5")).unwrap();
    let path = dir.path().join("x.h5");
    let mut found = 0;
    // Only the Fletcher checksum covers every bit. Changing its bytes shows which ones it covers.
    let source = Source::open(data("keras/dk_layouts.h5")).unwrap();
    let good = converted(&source.tensor("/deep/er/dk/gzip_shuffle_fletcher").unwrap(), Options::new());
    for at in (0..bytes.len()).step_by(97) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(&path, bad).unwrap();
        let result = Source::open(&path).and_then(|source| {
            let tensor = source.tensor("/deep/er/dk/gzip_shuffle_fletcher")?;
            Converter::new(&tensor)?.options(Options::new().overwrite(true)).write(dir.path().join("a.npy"))
        });
        match result {
            Ok(_) => {}
            Err(Error::Malformed { what, offset, .. }) if what == "HDF5 chunk" => {
                assert!(offset.is_some());
                found += 1;
                continue;
            }
            Err(_) => continue,
        }
        if npy(&dir.path().join("a.npy")).1 != good {
            // Old files have no checksums of metadata: the shape, the fill value, or another object may have changed.
            assert!(at < 40_000, "byte {at}");
        }
    }
    assert!(found > 0);
}

#[test]
fn a_cut_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(data("keras/dk.weights.h5")).unwrap();
    for part in 0..20 {
        let path = dir.path().join("x.h5");
        fs::write(&path, &bytes[..bytes.len() * part / 20]).unwrap();
        assert!(matches!(Source::open_as(&path, Some("hdf5")), Err(Error::Malformed { .. })), "{part}/20");
    }
}

#[test]
fn variables_are_in_the_order_of_their_numbers_and_known_by_their_layers() {
    let source = Source::open(data("keras/dk.weights.h5")).unwrap();
    let names: Vec<String> = source.tensors().map(|tensor| tensor.unwrap().info().name.to_json()).collect();
    let numbers: Vec<u64> =
        names.iter().filter_map(|name| name.strip_prefix("/optimizer/vars/")).map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() > 10 && numbers.is_sorted(), "{names:?}");
    let alias = source.tensors().map(Result::unwrap).find_map(|tensor| Some((tensor.info().alias.clone()?, tensor.info().name.clone())));
    let (alias, name) = alias.unwrap();
    assert_eq!(source.tensor(&alias).unwrap().info().name, name);
}

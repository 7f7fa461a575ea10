//! Every tensor of every fixture equals what TensorFlow read from it.

use mmconvert::{Comparison, Converter, Dtype, Error, Options, Source, Strings, Verified, compare, export};
use serde_json::Value;

use crate::support::{data, json, names_in, npy, object, sha256, shape_of, shape_text};

#[test]
fn exported_tensors_equal_what_tensorflow_reads() {
    let expected = json("expected.json");
    let (mut equal, mut strings) = (0, 0);
    for case in expected["cases"].as_array().unwrap() {
        let path = data(case["path"].as_str().unwrap());
        let source = Source::open(&path).unwrap();
        let mut tensors = source.all().unwrap();
        tensors.truncate(case["tensors"].as_array().unwrap().len());
        let listed: Vec<String> = tensors.iter().map(|tensor| tensor.info().name.to_json()).collect();
        let mut named: Vec<&str> = case["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        named.sort_by_key(|name| name.as_bytes());
        assert_eq!(listed, named, "{}", path.display());

        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let done = export(&tensors, None, &out, &Options::new()).unwrap();
        for tensor in case["tensors"].as_array().unwrap() {
            let name = tensor["name"].as_str().unwrap();
            let dtype = Dtype::from_name(tensor["dtype"].as_str().unwrap()).unwrap();
            let Some(wanted) = tensor["sha256"].as_str() else {
                let left_out = done.skipped.iter().find(|s| s.name.to_json() == name).map(|s| s.reason.as_str());
                strings += check_strings(&source, tensor, left_out);
                continue;
            };
            let output = done.outputs.iter().find(|o| o.name.to_json() == name).unwrap_or_else(|| panic!("{name} is missing"));
            let (header, bytes) = npy(&output.path);
            assert_eq!(sha256(&bytes), wanted, "{name} of {}", path.display());
            let start =
                format!("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", dtype.descr().unwrap(), shape_text(&shape_of(tensor)));
            assert!(header.starts_with(&start) && header.ends_with(" \n"), "{header}");
            assert_eq!((output.report.dtype, output.report.verified), (dtype, Verified::Full), "{name}");
            let again = source.tensor(name).unwrap();
            assert_eq!(compare(&output.path, &again, None, &Options::new()).unwrap(), Comparison::Equal(Verified::Full));
            equal += 1;
        }
    }
    assert_eq!((equal, strings), (605, 28), "all tensors of all cases are looked at");
}

/// Converts a tensor of strings in all ways; `left_out` is the reason if the export skipped it. Returns 1.
fn check_strings(source: &Source, expected: &Value, left_out: Option<&str>) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let tensor = source.tensor(expected["name"].as_str().unwrap()).unwrap();
    let convert = |how, file: &str| Converter::new(&tensor).unwrap().strings(how).write_parts(dir.path().join(file));
    let shape = shape_of(expected);
    let count: u64 = shape.iter().product();

    let parts = convert(Strings::Offsets, "o.npy").unwrap();
    assert_eq!(names_in(dir.path()), ["o.offsets.npy", "o.values.npy"]);
    let values = npy(&parts[0].0).1;
    let offsets: Vec<usize> = npy(&parts[1].0).1.chunks(8).map(|o| u64::from_le_bytes(o.try_into().unwrap()) as usize).collect();
    assert_eq!((offsets.len() as u64, offsets[0], offsets[count as usize]), (count + 1, 0, values.len()));
    let elements: Vec<&[u8]> = offsets.windows(2).map(|w| &values[w[0]..w[1]]).collect();
    let hashed: Vec<u8> = elements.iter().flat_map(|e| [&(e.len() as u64).to_le_bytes()[..], e].concat()).collect();
    assert_eq!(sha256(&hashed), expected["sha256_strings"].as_str().unwrap());

    let longest = elements.iter().map(|element| element.len()).max().unwrap_or(0).max(1);
    let padded: Vec<u8> = elements.iter().flat_map(|e| [*e, &vec![0; longest - e.len()]].concat()).collect();
    let ends_in_nul = elements.iter().any(|element| element.ends_with(&[0]));
    match convert(Strings::Pad, "s.npy") {
        Ok(done) => {
            assert!(!ends_in_nul && left_out.is_none());
            let (header, bytes) = npy(&done[0].0);
            assert!(header.contains(&format!("'|S{longest}'")) && header.contains(&format!("'shape': {}", shape_text(&shape))), "{header}");
            assert_eq!(bytes, padded);
        }
        Err(error) => {
            assert!(ends_in_nul && matches!(error, Error::Lossy { .. }), "{error}");
            assert!(left_out.unwrap().contains("NUL"));
        }
    }

    let text: Result<Vec<Vec<char>>, _> = elements.iter().map(|e| std::str::from_utf8(e).map(|text| text.chars().collect())).collect();
    match (convert(Strings::Utf8, "u.npy"), text) {
        (Ok(done), Ok(text)) => {
            let longest = text.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let (header, bytes) = npy(&done[0].0);
            assert!(header.contains(&format!("'<U{longest}'")), "{header}");
            let padded: Vec<u8> =
                text.iter().flat_map(|e| (0..longest).flat_map(|i| e.get(i).map_or(0, |&c| u32::from(c)).to_le_bytes())).collect();
            assert_eq!(bytes, padded);
        }
        (Err(error), text) => assert!((ends_in_nul || text.is_err()) && matches!(error, Error::Lossy { .. }), "{error}"),
        (Ok(_), Err(error)) => panic!("{error}"),
    }
    for file in names_in(dir.path()) {
        assert_eq!(compare(dir.path().join(file), &tensor, None, &Options::new()).unwrap(), Comparison::Equal(Verified::Full));
    }
    1
}

#[test]
fn facts_about_files_equal_what_tensorflow_says() {
    for case in json("expected.json")["cases"].as_array().unwrap() {
        let facts = object(&Source::open(data(case["path"].as_str().unwrap())).unwrap().facts());
        assert_eq!(facts["num_shards"], case["num_shards"], "{}", case["path"]);
        assert_eq!(facts["index"]["snappy_blocks"], case["index_snappy_blocks"], "{}", case["path"]);
        assert_eq!(facts["shards_present"], case["num_shards"], "{}", case["path"]);
    }
}

#[test]
fn tensors_are_found_by_every_name_that_people_know() {
    let source = Source::open(data("generated/object_graph")).unwrap();
    let key = "model/optimizer/_trainable_variables/2/.ATTRIBUTES/VARIABLE_VALUE";
    for name in [
        key,
        "model/optimizer/_trainable_variables/2",
        "sequential/dense/kernel",
        "model/_functional/_operations/2/_kernel",
        "model/optimizer/_variables/../_trainable_variables/2",
    ] {
        match source.tensor(name) {
            Ok(tensor) => assert_eq!(tensor.info().name.to_string(), key),
            Err(error) => assert!(name.contains(".."), "{name}: {error}"),
        }
    }
    for tensor in source.tensors().map(Result::unwrap) {
        if let Some(alias) = &tensor.info().alias {
            assert_eq!(source.tensor(alias).unwrap().info().name, tensor.info().name, "{alias}");
        }
    }
    let slash = source.tensor("net/layers/0/table/kéy").unwrap();
    assert_eq!(slash.info().alias.as_deref(), Some("net/layers/0/table/kéy"));
}

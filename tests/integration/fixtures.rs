//! Every tensor of every fixture equals what TensorFlow read from it.

use mmconvert::{Comparison, Dtype, Options, Source, Verified, compare, export};

use crate::support::{data, json, npy, sha256, shape_of, shape_text};

#[test]
fn exported_tensors_equal_what_tensorflow_reads() {
    let expected = json("expected.json");
    let (mut equal, mut skipped) = (0, 0);
    for case in expected["cases"].as_array().unwrap() {
        let path = data(case["path"].as_str().unwrap());
        let source = Source::open(&path).unwrap();
        let listed: Vec<String> = source.tensors().map(|t| t.unwrap().info().name.to_json()).collect();
        let mut named: Vec<&str> = case["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        named.sort_by_key(|name| name.as_bytes());
        assert_eq!(listed, named, "{}", path.display());

        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let tensors: Vec<_> = source.tensors().map(Result::unwrap).collect();
        let done = export(&source, &tensors, None, &out, &Options::new()).unwrap();
        for tensor in case["tensors"].as_array().unwrap() {
            let name = tensor["name"].as_str().unwrap();
            let dtype = Dtype::from_name(tensor["dtype"].as_str().unwrap()).unwrap();
            let Some(wanted) = tensor["sha256"].as_str() else {
                assert_eq!(dtype, Dtype::String, "{name}: only strings have no hash");
                assert!(done.skipped.iter().any(|s| s.name.to_json() == name), "{name}: neither written nor listed");
                skipped += 1;
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
    assert_eq!((equal, skipped), (605, 28), "all tensors of all cases are looked at");
}

#[test]
fn facts_about_files_equal_what_tensorflow_says() {
    for case in json("expected.json")["cases"].as_array().unwrap() {
        let facts = Source::open(data(case["path"].as_str().unwrap())).unwrap().facts();
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

//! Tensors in protocol buffers: serialized tensors, constants of graphs, V1 checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use mmconvert::{Converter, Dtype, Error, Options, Part, Rows, Selection, Source, Strings, Verified, export};
use serde_json::Value;

use crate::bundle::varint;
use crate::support::{Mapped as _, code, data, json, mmconvert, names_in, npy, object, sha256, shape_of, shape_text, stderr};

/// Converts tensors of a source and compares them with `expected`. Returns the numbers of arrays and of string tensors.
fn check_tensors(tensors: &Selection, expected: &[Value]) -> (usize, usize) {
    let path = tensors.source().path().display();
    let dir = tempfile::tempdir().unwrap();
    if expected.is_empty() {
        return (0, 0);
    }
    let done = export(tensors, None, dir.path().join("out"), &Options::new().strings(Strings::Offsets)).unwrap();
    assert!(done.skipped.is_empty(), "{path}: {:?}", done.skipped);
    let mut files: BTreeMap<(String, String), _> = BTreeMap::new();
    for output in &done.outputs {
        files.insert((output.name.to_json(), format!("{:?}", output.report.part)), output);
    }
    let (mut arrays, mut strings) = (0, 0);
    for tensor in expected {
        let name = tensor["name"].as_str().unwrap();
        let file = |part: Part| files.get(&(name.to_owned(), format!("{part:?}"))).unwrap_or_else(|| panic!("{path}: {name}"));
        let shape = shape_of(tensor);
        if let Some(wanted) = tensor["sha256"].as_str() {
            arrays += 1;
            let dtype = Dtype::from_name(tensor["dtype"].as_str().unwrap()).unwrap();
            let (header, bytes) = npy(&file(Part::Whole).path);
            let start = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", dtype.descr().unwrap(), shape_text(&shape));
            assert!(header.starts_with(&start), "{path}: {name}: {header}");
            assert_eq!(sha256(&bytes), wanted, "{path}: {name}");
        } else {
            strings += 1;
            let values = npy(&file(Part::Values).path).1;
            let offsets: Vec<usize> =
                npy(&file(Part::Offsets).path).1.chunks(8).map(|o| u64::from_le_bytes(o.try_into().unwrap()) as usize).collect();
            assert_eq!(offsets.len() as u64, shape.iter().product::<u64>() + 1);
            let hashed: Vec<u8> =
                offsets.windows(2).flat_map(|w| [&((w[1] - w[0]) as u64).to_le_bytes()[..], &values[w[0]..w[1]]].concat()).collect();
            assert_eq!(sha256(&hashed), tensor["sha256_strings"].as_str().unwrap(), "{path}: {name}");
        }
    }
    assert_eq!(tensors.len(), arrays + strings, "{path}");
    (arrays, strings)
}

/// Runs all cases of a kind. Returns their number, and the sums of the numbers that `check` returns.
fn all_cases(kind: &str, check: impl Fn(&Source, &Value) -> (usize, usize)) -> [usize; 3] {
    let mut counts = [0; 3];
    for case in json("protos/expected.json")["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == kind) {
        let source = Source::open(data("protos").join(case["path"].as_str().unwrap())).unwrap();
        assert_eq!(source.format(), kind, "{}", source.path().display());
        let (arrays, strings) = check(&source, case);
        counts = [counts[0] + 1, counts[1] + arrays, counts[2] + strings];
    }
    counts
}

fn tensors_of(case: &Value) -> Vec<Value> {
    case["tensors"].as_array().unwrap().clone()
}

#[test]
fn serialized_tensors_equal_what_tensorflow_reads() {
    let counts = all_cases("tensor-proto", |source, case| {
        let mut expected = tensors_of(case);
        // A tensor is named after its file, with or without the extension.
        let file = expected[0]["name"].as_str().unwrap().to_owned();
        let name = file.strip_suffix(".pb").unwrap().to_owned();
        assert_eq!(source.tensor(&file).unwrap().info().name, source.tensor(&name).unwrap().info().name);
        expected[0]["name"] = name.into();
        check_tensors(&source.select::<&str>(&[]).unwrap(), &expected)
    });
    assert_eq!(counts, [160, 154, 6]);
}

#[test]
fn constants_equal_what_tensorflow_reads() {
    let counts = all_cases("graph-def", |source, case| {
        let facts = object(&source.facts());
        let expected = tensors_of(case);
        if !expected.is_empty() {
            assert_eq!((&facts["nodes"], &facts["functions"]), (&case["nodes"], &case["functions"]));
        }
        let tensors = source.all().unwrap();
        assert!(tensors.iter().all(|tensor| tensor.info().group == Some("constants")));
        check_tensors(&tensors, &expected)
    });
    assert_eq!(counts, [4, 523, 15]);
}

#[test]
fn models_have_variables_and_constants() {
    let counts = all_cases("saved-model", |source, case| {
        let all = source.all().unwrap();
        let (mut variables_of, mut constants_of) = (all.clone(), all.clone());
        variables_of.truncate(tensors_of(case).len());
        let mut at = 0..;
        constants_of.retain(|_| at.next() >= Some(tensors_of(case).len()));
        if !constants_of.is_empty() {
            assert!(variables_of.iter().all(|tensor| tensor.info().group == Some("variables")));
        }
        assert!(constants_of.iter().all(|tensor| tensor.info().group == Some("constants")));
        // By default a user's variables are selected, and constants only if there are none.
        let meant = source.select::<&str>(&[]).unwrap();
        let users = variables_of.iter().filter(|tensor| !tensor.info().bookkeeping).count();
        assert_eq!(meant.len(), if users > 0 { users } else { constants_of.len() });
        assert!(meant.iter().all(|tensor| !tensor.info().bookkeeping));
        let first = check_tensors(&variables_of, &tensors_of(case));
        let second = check_tensors(&constants_of, case["constants"].as_array().unwrap());
        for tensor in &all {
            assert_eq!(source.tensor(tensor.info().name.as_bytes()).unwrap().info().group, tensor.info().group);
        }
        (first.0 + second.0, first.1 + second.1)
    });
    assert_eq!(counts, [15, 169, 165]);
}

#[test]
fn checkpoints_of_the_first_version_equal_what_tensorflow_reads() {
    let counts = all_cases("v1-checkpoint", |source, case| {
        assert_eq!(object(&source.facts())["snappy_blocks"], 0);
        let tensors = source.all().unwrap();
        check_tensors(&tensors, &tensors_of(case))
    });
    assert_eq!(counts, [7, 252, 15]);
    // In parts, and by rows.
    let source = Source::open(data("protos/v1/partitioned.ckpt")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["part", "ints", "bools", "cplx"] {
        let tensor = source.tensor(name).unwrap();
        let (whole, some) = (dir.path().join("whole.npy"), dir.path().join("some.npy"));
        Converter::new(&tensor).unwrap().overwrite(true).write(&whole).unwrap();
        Converter::new(&tensor).unwrap().overwrite(true).rows(rows(3, 6)).write(&some).unwrap();
        let row = tensor.info().spec.row_bytes() as usize;
        assert_eq!(npy(&some).1, npy(&whole).1[3 * row..6 * row], "{name}");
        assert!(object(&tensor.facts().unwrap())["pieces"].as_array().unwrap().len() > 1);
    }
    // All bytes read for floats are covered by checksums.
    let report = Converter::new(&source.tensor("part").unwrap()).unwrap().write(dir.path().join("part.npy")).unwrap();
    assert_eq!(report.verified, Verified::Full);
}

#[test]
fn hostile_messages_end_as_expected() {
    let mut outcomes = [0; 2];
    for case in json("protos/hostile/expected.json")["cases"].as_array().unwrap() {
        let path = data("protos").join(case["path"].as_str().unwrap());
        let kind = case["kind"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let out_dir = out.join("");
        let is_string = |tensor: mmconvert::Tensor| tensor.info().spec.dtype() == mmconvert::Dtype::String;
        let has_strings = Source::open(&path).is_ok_and(|source| source.tensors().any(|tensor| tensor.is_ok_and(is_string)));
        for format in [&[][..], &["--format".as_ref(), kind.as_ref()]] {
            let started = Instant::now();
            let args = ["convert".as_ref(), path.as_os_str(), "-f".as_ref(), "-o".as_ref(), out_dir.as_os_str()];
            let strings = "--strings=offsets".as_ref();
            let run = mmconvert(args.iter().chain(format).chain(has_strings.then_some(&strings)));
            let what = format!("{} ({}): {}", path.display(), case["what"], stderr(&run));
            assert!(code(&run) < 64 && started.elapsed().as_secs() < 10, "{what}");
            if case["want"] == "error" {
                outcomes[0] += 1;
                assert_ne!(code(&run), 0, "{what}");
                let named = [path.file_name().unwrap().to_str().unwrap(), "not enough disk space"];
                assert!(named.iter().any(|name| stderr(&run).contains(name)), "{what}");
                assert_eq!(names_in(dir.path()), [""; 0], "{what}");
            } else {
                outcomes[1] += 1;
                assert_eq!(code(&run), 0, "{what}");
                assert_eq!(names_in(dir.path()), ["out"], "{what}");
            }
        }
        if let (Ok(source), Some(tensors)) = (Source::open(&path), case["tensors"].as_array()) {
            let mut tensors = tensors.clone();
            if kind == "tensor-proto" {
                tensors[0]["name"] = path.file_stem().unwrap().to_str().unwrap().into();
            }
            check_tensors(&source.select::<&str>(&[]).unwrap(), &tensors);
        }
    }
    assert_eq!(outcomes, [16, 6], "error, ok");
}

/// A protobuf field of bytes.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(number << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

/// A serialized tensor with these value fields.
fn tensor(dtype: Dtype, shape: &[u64], values: &[u8]) -> Vec<u8> {
    let axes: Vec<u8> = shape.iter().flat_map(|&axis| field(2, &[vec![8], varint(axis)].concat())).collect();
    [vec![8, dtype.code() as u8], field(2, &axes), values.to_vec()].concat()
}

fn constant(name: &str, tensor: &[u8]) -> Vec<u8> {
    let attribute = [field(1, b"value"), field(2, &field(8, tensor))].concat();
    [field(1, name.as_bytes()), field(2, b"Const"), field(5, &attribute)].concat()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn rows(start: i64, end: i64) -> Rows {
    Rows { start: Some(start), end: Some(end) }
}

#[test]
fn a_million_varints_are_read_in_slices() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<u64> = (0..1_000_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 64)).collect();
    let packed = field(17, &values.iter().flat_map(|&value| varint(value)).collect::<Vec<u8>>());
    let source = Source::open(write(dir.path(), "n.pb", &tensor(Dtype::UInt64, &[1000, 1000], &packed))).unwrap();
    let tensor = source.tensor("n").unwrap();
    let whole: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for (number, (start, end)) in [(0, 1000), (500, 501), (999, 1000), (3, 3), (123, 870)].into_iter().enumerate() {
        let out = dir.path().join(format!("{number}.npy"));
        let converter = Converter::new(&tensor).unwrap().rows(rows(start, end)).memory(mmconvert::Budget::mib(16));
        assert_eq!(converter.write(&out).unwrap().verified, Verified::Not);
        assert_eq!(npy(&out).1, whole[start as usize * 8000..end as usize * 8000]);
    }
}

#[test]
fn a_few_bytes_that_declare_many_elements_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let splat = tensor(Dtype::Float32, &[1 << 40], &[0x2d, 0, 0, 0x80, 0x3f]);
    let graph = field(1, &constant("c", &splat));
    for (file, bytes) in [("t.pb", splat), ("g.pb", graph)] {
        let started = Instant::now();
        let source = Source::open(write(dir.path(), file, &bytes)).unwrap();
        let tensors = source.select::<&str>(&[]).unwrap();
        let out = dir.path().join("out.npy");
        let result = Converter::new(&tensors[0]).unwrap().write(&out);
        assert!(matches!(result, Err(Error::Limit { .. })), "{result:?}");
        assert!(!out.exists() && started.elapsed().as_secs() < 5);
        // A few of its rows still fit.
        let end = Converter::new(&tensors[0]).unwrap().rows(Rows { start: Some(-2), end: None }).write(&out);
        assert_eq!((end.unwrap().shape, npy(&out).1), (vec![2], [0, 0, 0x80, 0x3f].repeat(2)));
        fs::remove_file(&out).unwrap();
    }
    let strings = tensor(Dtype::String, &[1 << 40], &[]);
    let source = Source::open(write(dir.path(), "s.pb", &strings)).unwrap();
    let result = Converter::new(&source.tensor("s").unwrap()).map(drop);
    let result = result.and_then(|()| Converter::new(&source.tensor("s").unwrap())?.write(dir.path().join("s.npy")).map(drop));
    assert!(matches!(result, Err(Error::Limit { .. })), "{result:?}");
}

#[test]
fn constants_of_functions_and_those_without_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let one = tensor(Dtype::Int32, &[], &[0x38, 1]);
    let immutable = [
        field(1, b"far"),
        field(2, b"ImmutableConst"),
        field(5, &[field(1, b"dtype"), field(2, &[0x30, 1])].concat()),
        field(5, &[field(1, b"shape"), field(2, &field(7, &field(2, &[8, 3])))].concat()),
    ];
    let reference = [constant("ref", &one), field(5, &[field(1, b"dtype"), field(2, &[0x30, 103])].concat())].concat();
    // Here the signature follows the nodes.
    let function = [field(3, &constant("inner", &one)), field(1, &field(1, b"f"))].concat();
    let nodes = [constant("a", &one), constant("a", &tensor(Dtype::Int32, &[], &[0x38, 2])), immutable.concat(), reference];
    let graph = [nodes.iter().flat_map(|node| field(1, node)).collect::<Vec<u8>>(), field(2, &field(1, &function))].concat();
    let source = Source::open(write(dir.path(), "g.pb", &graph)).unwrap();
    let listed: Vec<String> = source.tensors().map(|tensor| tensor.unwrap().info().name.to_string()).collect();
    assert_eq!(listed, ["a", "far", "ref", "f/inner"]);
    assert!(source.warnings()[0].contains("such as a"), "{:?}", source.warnings());
    let far = source.tensor("far").unwrap();
    assert_eq!((far.info().spec.dtype(), far.info().spec.shape()), (Dtype::Float32, &[3][..]));
    assert!(matches!(Converter::new(&far).map(drop), Err(Error::Unsupported { .. })));
    let out = dir.path().join("a.npy");
    Converter::new(&source.tensor("a").unwrap()).unwrap().write(&out).unwrap();
    assert_eq!(npy(&out).1, [1, 0, 0, 0]);
    // A broken constant fails the whole file, with its name and position.
    for (bad, why) in [
        (tensor(Dtype::Int32, &[2], &[0x22, 1, 0]), "tensor_content"),
        (tensor(Dtype::Int32, &[2], &[0x2d, 0, 0, 0, 0]), "field 5"),
        (vec![], "dtype 0"),
    ] {
        let graph = [field(1, &nodes[0]), field(1, &constant("bad", &bad))].concat();
        match Source::open(write(dir.path(), "bad.pb", &graph)) {
            Err(error @ Error::Malformed { offset: Some(_), .. }) => {
                let text = error.to_string();
                assert!(text.contains("\"bad\"") && text.contains(why) && text.contains("bad.pb"), "{text}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn a_graph_of_many_nodes_is_scanned_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let one = tensor(Dtype::Int32, &[], &[0x38, 1]);
    let mut graph = Vec::new();
    for number in 0..100_000 {
        graph.extend(field(1, &constant(&format!("n{number}"), &one)));
    }
    let source = Source::open(write(dir.path(), "g.pb", &graph)).unwrap();
    assert_eq!(source.len().unwrap(), 100_000);
    assert!(source.tensor("n99999").is_ok() && source.tensor("n100000").is_err());
}

#[test]
fn names_select_constants_or_computed_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let one = tensor(Dtype::Int32, &[], &[0x38, 1]);
    let graph = write(dir.path(), "g.pb", &[field(1, &constant("a", &one)), field(1, &constant("b", &one))].concat());
    let out = dir.path().join("out.npy");
    let run = |name: &str, more: &[&str]| {
        let args = ["convert", graph.to_str().unwrap(), name, "-fo", out.to_str().unwrap()];
        mmconvert([&args[..], more].concat())
    };
    let library = &["--tensorflow=/nowhere"][..];
    for name in ["a", "b*"] {
        assert_eq!(code(&run(name, &[])), 0, "{name}: {}", stderr(&run(name, &[])));
        let done = run(name, library);
        assert!(code(&done) == 2 && stderr(&done).contains("nothing of it is computed"), "{name}: {}", stderr(&done));
    }
    for name in ["a:0", "c", "c*"] {
        assert_eq!(code(&run(name, library)), 6, "{name}: {}", stderr(&run(name, library)));
    }
    let listed = mmconvert(["ls".as_ref(), graph.as_os_str(), "--json".as_ref()]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["tensors"][1]["group"], "constants");
    assert_eq!(listed["signatures"][0]["outputs"][0]["name"], "a:0");
}

#[test]
fn groups_are_listed_under_headings() {
    let run = mmconvert(["ls".as_ref(), data("savedmodel/half_plus_two").as_os_str()]);
    let text = String::from_utf8(run.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "variables:");
    assert_eq!(lines.iter().filter(|line| line.ends_with(':')).collect::<Vec<_>>(), [&"variables:", &"constants:"]);
    let dir = tempfile::tempdir().unwrap();
    let run =
        mmconvert(["convert".as_ref(), data("savedmodel/half_plus_two").as_os_str(), "-o".as_ref(), dir.path().join("o/").as_os_str()]);
    assert_eq!(code(&run), 0, "{}", stderr(&run));
    let constants = lines.iter().position(|line| *line == "constants:").unwrap();
    assert_eq!(names_in(&dir.path().join("o")).len(), constants, "the variables and a manifest");
}

#[test]
fn text_and_chunked_models_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, expected) in
        [("g.pbtxt", &b"# x\n"[..], "text form"), ("g", b"node {\n}\n", "text form"), ("g.cpb", b"r\x00\x00", "chunks")]
    {
        let error = Source::open(write(dir.path(), name, bytes)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn fields_of_a_tensor_may_come_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let shape = field(2, &[field(2, &[8, 2]), field(2, &[8, 3])].concat());
    let content: Vec<u8> = (1..=6u32).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let parts = [vec![8, 1], shape, vec![0x18, 0], field(4, &content)];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [3, 0, 1, 2], [2, 3, 1, 0], [1, 3, 0, 2]] {
        let bytes = order.map(|at: usize| parts[at].clone()).concat();
        let path = write(dir.path(), "t.pb", &bytes);
        let source = Source::open(&path).unwrap();
        assert_eq!(source.format(), "tensor-proto", "{order:?}");
        let tensor = source.tensors().next().unwrap().unwrap();
        let done = Converter::new(&tensor).unwrap().overwrite(true).mapped(dir.path().join("t.npy")).unwrap();
        assert_eq!((done.array.shape(), done.array.as_bytes()), (&[2, 3][..], &content[..]), "{order:?}");
    }
}

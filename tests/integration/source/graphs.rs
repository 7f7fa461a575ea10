//! Graphs and signatures, as far as they work without TensorFlow.

use std::path::Path;

use mmconvert::{Dtype, Error, ModelOptions, Options, Source};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{code, data, mmconvert, names_in, stderr};

fn listed(path: &Path) -> Value {
    let output = mmconvert([Path::new("ls"), path, Path::new("--json"), Path::new("--tensorflow"), Path::new("/nowhere")]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn signatures_of_a_saved_model() {
    let listed = listed(&data("savedmodel/half_plus_two_tf2"));
    // As `saved_model_cli show --all` of TensorFlow 2.21 prints.
    let argument = |name: &str, tensor: &str, shape: Value| json!({"name": name, "tensor": tensor, "dtype": "float32", "shape": shape});
    assert_eq!(
        listed["signatures"].as_array().unwrap()[0],
        json!({
            "name": "classify_x2_to_y3",
            "inputs": [argument("inputs", "classify_x2_to_y3_inputs:0", json!([1]))],
            "outputs": [argument("scores", "StatefulPartitionedCall:0", json!([1]))],
        })
    );
    let names: Vec<&str> = listed["signatures"].as_array().unwrap().iter().map(|signature| signature["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["classify_x2_to_y3", "classify_x_to_y", "regress_x2_to_y3", "regress_x_to_y", "regress_x_to_y2", "serving_default"]);
    assert!(!listed["tensors"].as_array().unwrap().is_empty(), "variables are listed with them");
}

#[test]
fn inputs_of_a_graph() {
    let listed = listed(&data("graph/addition.pb"));
    assert_eq!((&listed["format"], &listed["tensors"]), (&json!("graph-def"), &json!([])));
    let scalar = |name: &str, dtype: Value, shape: Value| json!({"name": name, "tensor": name, "dtype": dtype, "shape": shape});
    assert_eq!(
        listed["signatures"],
        json!([{
            "name": "",
            "inputs": [scalar("x:0", json!("int32"), json!([])), scalar("y:0", json!("int32"), json!([]))],
            "outputs": [scalar("z:0", Value::Null, Value::Null)],
        }])
    );
}

#[test]
fn without_tensorflow_nothing_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("z.npy");
    let model = data("savedmodel/half_plus_two");
    for (source, more) in [(data("graph/addition.pb"), &["z"][..]), (model, &["--signature", "serving_default"])] {
        let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
        let output = mmconvert(["convert", source, "-o", out, "--tensorflow", "/nowhere"].iter().chain(more));
        assert_eq!(code(&output), 6, "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        let hint = if cfg!(feature = "tensorflow") { "pip install" } else { "lacks the feature" };
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
    assert_eq!(names_in(dir.path()), [""; 0]);
}

/// A protobuf field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A graph with one constant of these dimensions and values.
fn graph(dtype: Dtype, dims: &[i64], values: &[u8]) -> Vec<u8> {
    let mut shape = Vec::new();
    for &dim in dims {
        let mut size = vec![8];
        let mut rest = dim.cast_unsigned();
        while rest >= 0x80 {
            size.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        size.push(rest as u8);
        shape.extend(field(2, &size));
    }
    let tensor = [&[8, dtype.code() as u8][..], &field(2, &shape), values].concat();
    let attribute = [field(1, b"value"), field(2, &field(8, &tensor))].concat();
    field(1, &[field(1, b"c"), field(2, b"Const"), field(5, &attribute)].concat())
}

fn open(bytes: &[u8]) -> Result<Source, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.pb");
    std::fs::write(&path, bytes).unwrap();
    // An output of a graph has to be computed, even if it is a constant.
    let wanted = Options::new().model(ModelOptions::new().output("c:0"));
    Source::open_with(path, Some("graph-def"), &wanted)
}

#[test]
fn graphs_that_must_not_reach_tensorflow_are_refused() {
    let four = field(4, &[0; 16]);
    let splat = [0x2d, 0, 0, 0x80, 0x3f];
    assert!(open(&graph(Dtype::Float32, &[4], &four)).is_ok());
    assert!(open(&graph(Dtype::Float32, &[1 << 20], &splat)).is_ok());
    assert!(matches!(open(&graph(Dtype::Float32, &[1 << 40], &splat)), Err(Error::Limit { .. })));
    for (dims, values) in [(&[-3][..], &four[..]), (&[5], &four), (&[i64::MAX, 2], &[]), (&[1], &[0x2d, 0, 0, 0, 0, 0x2d, 0, 0, 0, 0])] {
        assert!(matches!(open(&graph(Dtype::Float32, dims, values)), Err(Error::Malformed { .. })), "{dims:?}");
    }
    assert!(matches!(open(&graph(Dtype::Bool, &[1], &field(4, &[2]))), Err(Error::Malformed { .. })));
    let mut unknown = graph(Dtype::Float32, &[4], &four);
    let at = unknown.windows(2).position(|bytes| bytes == [8, 1]).unwrap();
    unknown[at + 1] = 99;
    assert!(matches!(open(&unknown), Err(Error::Malformed { .. })));
}

#[test]
fn nested_functions_have_a_depth_limit() {
    // AttrValue { func { attr { value: AttrValue { func … } } } }, nested 5000 levels deep.
    let mut attribute = vec![0x18, 1];
    let put = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut len = bytes.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(bytes);
        out
    };
    for _ in 0..5000 {
        attribute = put(10, &put(2, &put(2, &attribute)));
    }
    let node = [put(1, b"n"), put(2, b"Op"), put(5, &put(2, &attribute))].concat();
    let error = open(&put(1, &node)).unwrap_err().to_string();
    assert!(error.contains("deeper"), "{error}");
}

/// Ends of the outermost fields of a message, all of which are of bytes.
fn field_ends(message: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (vec![0], 0);
    while at < message.len() {
        at += 1;
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = message[at];
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        at += len;
        ends.push(at);
    }
    ends
}

#[test]
fn a_graph_that_is_cut_inside_a_field_is_malformed() {
    let bytes = std::fs::read(data("graph/multi_add.pb")).unwrap();
    let ends = field_ends(&bytes);
    assert!(ends.len() > 5 && ends.last() == Some(&bytes.len()));
    for cut in (0..bytes.len()).filter(|cut| !ends.contains(cut)) {
        let error = open(&bytes[..cut]).map(drop).unwrap_err();
        assert!(matches!(error, Error::Malformed { offset: Some(_), .. }), "{cut}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What other bytes mean is not known without TensorFlow: the law is that nothing panics, and that a refusal is about the content.
    #[test]
    fn damaged_graphs_are_refused_for_their_content_if_at_all(damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
        let mut bytes = std::fs::read(data("graph/multi_add.pb")).unwrap();
        for (at, value) in damages {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() * 2));
        match open(&bytes) {
            Ok(source) => drop(source.signatures().to_vec()),
            Err(Error::Malformed { .. } | Error::Limit { .. } | Error::Unsupported { .. } | Error::TensorFlow { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

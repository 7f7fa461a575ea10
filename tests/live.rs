//! A TensorFlow that a program runs itself: its tensors and the outputs of its sessions as sources.
//!
//! These tests need the TensorFlow library. `MMCONVERT_TENSORFLOW` names it, else it is searched for. Without one the tests are
//! reported as ignored.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "tests"
)]

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use mmconvert::tensorflow::tensorflow::{
    BFloat16, DataType, Graph, Operation, QInt8, QInt16, QInt32, QUInt8, QUInt16, Session, SessionOptions, SessionRunArgs, Tensor,
    TensorType,
};
use mmconvert::tensorflow::{LiveTensor, SessionOutput, load};
use mmconvert::{BadRequest, Budget, Converted, Converter, Dtype, Error, Layout, MmapArray, Rows, Strings};
use num_complex::Complex;

type Test = fn() -> Outcome;
type Outcome = Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let library = std::env::var_os("MMCONVERT_TENSORFLOW").map(PathBuf::from);
    // SAFETY: no other thread has been started.
    #[expect(unsafe_code, reason = "the environment is changed before there are threads")]
    let loaded = unsafe { load(library.as_deref(), false) };
    match &loaded {
        Ok(path) => println!("TensorFlow: {}", path.display()),
        Err(error) => println!("SKIPPED: tests of a running TensorFlow: {error}"),
    }
    assert!(loaded.is_ok() || library.is_none(), "MMCONVERT_TENSORFLOW names a library that cannot be loaded");
    let tests: [(&str, Test); 11] = [
        ("tensors_of_every_type", tensors_of_every_type),
        ("strings_of_any_bytes", strings_of_any_bytes),
        ("no_strings", no_strings),
        ("a_variable_that_is_written_to", a_variable_that_is_written_to),
        ("outputs_of_a_session", outputs_of_a_session),
        ("every_run_is_one_evaluation", every_run_is_one_evaluation),
        ("a_value_that_cannot_be_cut", a_value_that_cannot_be_cut),
        ("forms_and_rows", forms_and_rows),
        ("what_tensorflow_refuses", what_tensorflow_refuses),
        ("a_graph_stays_usable", a_graph_stays_usable),
        ("values_are_released", values_are_released),
    ];
    let trials = tests.into_iter().map(|(name, test)| Trial::test(name, test).with_ignored_flag(loaded.is_err())).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(condition: bool, what: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

/// The bytes of an array that was written.
fn written(path: &Path) -> Result<(MmapArray, Vec<u8>), Failed> {
    #[expect(unsafe_code, reason = "a file of the test's own")]
    // SAFETY: nobody else knows the file.
    let array = unsafe { MmapArray::open(path) }?;
    let bytes = array.as_bytes().to_vec();
    Ok((array, bytes))
}

/// Converts and maps the array.
fn mapped(converter: Converter<'_>, path: impl AsRef<Path>) -> Result<Converted, Error> {
    #[expect(unsafe_code, reason = "a file of the test's own")]
    // SAFETY: nobody else knows the file.
    unsafe {
        converter.run(path)
    }
}

/// A session for a graph with these nodes.
fn session(graph: &Graph) -> Result<Session, Failed> {
    Ok(Session::new(&SessionOptions::new(), graph)?)
}

fn placeholder(graph: &mut Graph, name: &str, dtype: DataType) -> Result<Operation, Failed> {
    let mut node = graph.new_operation("Placeholder", name)?;
    node.set_attr_type("dtype", dtype)?;
    Ok(node.finish()?)
}

fn node(graph: &mut Graph, kind: &str, name: &str, inputs: &[&Operation]) -> Result<Operation, Failed> {
    let mut node = graph.new_operation(kind, name)?;
    for input in inputs {
        node.add_input((*input).clone());
    }
    Ok(node.finish()?)
}

fn constant<T: TensorType>(graph: &mut Graph, name: &str, tensor: Tensor<T>) -> Result<Operation, Failed> {
    let mut node = graph.new_operation("Const", name)?;
    node.set_attr_type("dtype", T::data_type())?;
    node.set_attr_tensor("value", tensor)?;
    Ok(node.finish()?)
}

/// Converts a tensor whose element `i` is `make(i)`, and compares the array with the bytes of `bytes(i)`.
fn round_trip<T: TensorType, const N: usize>(dtype: Dtype, make: impl Fn(usize) -> T, bytes: impl Fn(usize) -> [u8; N]) -> Outcome {
    let dir = tempfile::tempdir()?;
    for (at, shape) in [&[][..], &[0, 3], &[70], &[33, 5, 7]].into_iter().enumerate() {
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<T> = (0..count).map(&make).collect();
        let mut tensor = Tensor::<T>::new(shape);
        if count > 0 {
            tensor.clone_from_slice(&values);
        }
        let live = LiveTensor::of_tensor(&tensor)?;
        check(live.spec()?.dtype() == dtype && live.spec()?.shape() == shape, format!("{} is not {dtype} {shape:?}", live.spec()?))?;
        let path = dir.path().join(format!("{dtype}_{at}.npy"));
        live.converter()?.memory(Budget::mib(16)).write(&path)?;
        let wanted: Vec<u8> = (0..count).flat_map(&bytes).collect();
        let npy = std::fs::read(&path)?;
        check(npy.ends_with(&wanted) && npy.len() >= wanted.len() + 64, format!("{dtype} {shape:?} differs"))?;
    }
    Ok(())
}

fn tensors_of_every_type() -> Outcome {
    round_trip(Dtype::Float32, |i| i as f32 / 3.0, |i| (i as f32 / 3.0).to_le_bytes())?;
    round_trip(Dtype::Float64, |i| i as f64 / 3.0, |i| (i as f64 / 3.0).to_le_bytes())?;
    round_trip(Dtype::Float16, |i| half::f16::from_bits((i as u16).wrapping_mul(57)), |i| ((i as u16).wrapping_mul(57)).to_le_bytes())?;
    let single = |i: usize| f32::from_bits(u32::from((i as u16).wrapping_mul(57)) << 16);
    round_trip(Dtype::BFloat16, |i| BFloat16::from(single(i)), |i| ((i as u16).wrapping_mul(57)).to_le_bytes())?;
    round_trip(Dtype::Int8, |i| i as i8, |i| (i as i8).to_le_bytes())?;
    round_trip(Dtype::Int16, |i| -(i as i16), |i| (-(i as i16)).to_le_bytes())?;
    round_trip(Dtype::Int32, |i| -(i as i32), |i| (-(i as i32)).to_le_bytes())?;
    round_trip(Dtype::Int64, |i| -(i as i64), |i| (-(i as i64)).to_le_bytes())?;
    round_trip(Dtype::UInt8, |i| i as u8, |i| (i as u8).to_le_bytes())?;
    round_trip(Dtype::UInt16, |i| i as u16, |i| (i as u16).to_le_bytes())?;
    round_trip(Dtype::UInt32, |i| i as u32, |i| (i as u32).to_le_bytes())?;
    round_trip(Dtype::UInt64, |i| i as u64, |i| (i as u64).to_le_bytes())?;
    round_trip(Dtype::Bool, |i| i % 3 == 0, |i| [u8::from(i % 3 == 0)])?;
    round_trip(Dtype::QInt8, |i| QInt8::from(i as i8), |i| (i as i8).to_le_bytes())?;
    round_trip(Dtype::QUInt8, |i| QUInt8::from(i as u8), |i| (i as u8).to_le_bytes())?;
    round_trip(Dtype::QInt16, |i| QInt16::from(i as i16), |i| (i as i16).to_le_bytes())?;
    round_trip(Dtype::QUInt16, |i| QUInt16::from(i as u16), |i| (i as u16).to_le_bytes())?;
    round_trip(Dtype::QInt32, |i| QInt32::from(i as i32), |i| (i as i32).to_le_bytes())?;
    round_trip(Dtype::Complex64, |i| Complex::new(i as f32, 1.0), |i| (u64::from((i as f32).to_bits()) | 0x3f80_0000 << 32).to_le_bytes())?;
    let one = u128::from(1f64.to_bits()) << 64;
    round_trip(Dtype::Complex128, |i| Complex::new(i as f64, 1.0), |i| (u128::from((i as f64).to_bits()) | one).to_le_bytes())
}

fn strings_of_any_bytes() -> Outcome {
    let dir = tempfile::tempdir()?;
    let words = ["", "a", "größe", "nul\0inside"].map(str::to_owned);
    let tensor = Tensor::<String>::new(&[2, 2]).with_values(&words)?;
    let live = LiveTensor::of_tensor(&tensor)?;
    check(live.spec()?.dtype() == Dtype::String && live.spec()?.shape() == [2, 2], live.spec()?.to_string())?;
    live.converter()?.write(dir.path().join("pad.npy"))?;
    let (array, bytes) = written(&dir.path().join("pad.npy"))?;
    check(array.descr() == "|S10", array.descr())?;
    for (element, word) in bytes.chunks(10).zip(&words) {
        check(element[..word.len()] == *word.as_bytes() && element[word.len()..].iter().all(|&byte| byte == 0), format!("{element:?}"))?;
    }
    // Strings that are not UTF-8, over which the crate would panic, are made in the graph.
    let mut graph = Graph::new();
    let pieces = constant(&mut graph, "encoded", Tensor::from("__8A_w==".replace('=', "")))?;
    node(&mut graph, "DecodeBase64", "bytes", &[&pieces])?;
    let session = session(&graph)?;
    let live = SessionOutput::new(&session, &mut graph, "bytes").scratch(dir.path()).compute()?;
    let parts = live.converter()?.strings(Strings::Offsets).write_parts(dir.path().join("s.npy"))?;
    let (_, bytes) = written(&parts[0].0)?;
    check(bytes == [0xff, 0xff, 0x00, 0xff], format!("{bytes:?}"))?;
    drop(live);
    let left: Vec<_> = std::fs::read_dir(dir.path())?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    check(left.len() == 3, format!("{left:?}"))
}

fn no_strings() -> Outcome {
    let dir = tempfile::tempdir()?;
    let tensor = Tensor::<String>::new(&[0, 3]);
    let live = LiveTensor::of_tensor_in(&tensor, dir.path())?;
    check(live.spec()?.shape() == [0, 3], live.spec()?.to_string())?;
    live.converter()?.write(dir.path().join("none.npy"))?;
    Ok(())
}

fn a_variable_that_is_written_to() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut graph = Graph::new();
    let mut variable = graph.new_operation("VariableV2", "variable")?;
    variable.set_attr_type("dtype", DataType::Float)?;
    variable.set_attr_value_proto("shape", &[7 << 3 | 2, 4, 2 << 3 | 2, 2, 1 << 3, 100])?;
    let variable = variable.finish()?;
    let start = constant(&mut graph, "start", Tensor::<f32>::new(&[100]).with_values(&[1.0; 100])?)?;
    let assign = node(&mut graph, "Assign", "assign", &[&variable, &start])?;
    let add = node(&mut graph, "AssignAdd", "add", &[&variable, &start])?;
    node(&mut graph, "Identity", "read", &[&variable])?;
    let session = session(&graph)?;
    let run = |operation: &Operation| {
        let mut args = SessionRunArgs::new();
        args.add_target(operation);
        session.run(&mut args)
    };
    run(&assign)?;
    let both = SessionOutput::new(&session, &mut graph, "variable").and("read:0").compute_all()?;
    run(&add)?;
    for (at, live) in both.iter().enumerate() {
        let done = mapped(live.converter()?, dir.path().join(format!("{at}.npy")))?;
        check(done.array.view::<f32>()?.iter().all(|&value| value == 1.0), "a value changed after it was computed")?;
    }
    let now = SessionOutput::new(&session, &mut graph, "variable").compute()?;
    let done = mapped(now.converter()?, dir.path().join("now.npy"))?;
    check(done.array.view::<f32>()?.iter().all(|&value| value == 2.0), "not the present value")
}

fn outputs_of_a_session() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut graph = Graph::new();
    let x = placeholder(&mut graph, "x", DataType::Float)?;
    let two = constant(&mut graph, "two", Tensor::from(2f32))?;
    let doubled = node(&mut graph, "Mul", "doubled", &[&x, &two])?;
    let begin = constant(&mut graph, "axis", Tensor::from(1i32))?;
    let mut split = graph.new_operation("Split", "split")?;
    split.add_input(begin);
    split.add_input(doubled);
    split.set_attr_int("num_split", 2)?;
    split.finish()?;
    let session = session(&graph)?;
    let values: Vec<f32> = (0..300_000u32).map(|i| i as f32).collect();
    let input = Tensor::<f32>::new(&[50_000, 6]).with_values(&values)?;
    for (name, column) in [("doubled:0", 0..6), ("doubled", 0..6), ("split", 0..3), ("split:1", 3..6)] {
        let live = SessionOutput::new(&session, &mut graph, name).feed("x:0", &input)?.compute()?;
        let path = dir.path().join("out.npy");
        let done = mapped(live.converter()?.memory(Budget::mib(16)).overwrite(true), &path)?;
        let view = done.array.view::<f32>()?;
        check(view.shape() == [50_000, column.len()], format!("{name}: {:?}", view.shape()))?;
        for (row, found) in view.outer_iter().enumerate() {
            let same = column.clone().zip(found).all(|(at, value)| *value == values[row * 6 + at] * 2.0);
            check(same, format!("{name}: row {row}"))?;
        }
    }
    Ok(())
}

/// A node `random` with another value at each run.
fn random(graph: &mut Graph, shape: &[i32]) -> Outcome {
    let shape = constant(graph, "shape", Tensor::<i32>::from(shape))?;
    let mut random = graph.new_operation("RandomUniform", "random")?;
    random.add_input(shape);
    random.set_attr_type("dtype", DataType::Float)?;
    random.finish()?;
    Ok(())
}

fn every_run_is_one_evaluation() -> Outcome {
    // All slices come from one run: another would give other numbers.
    let dir = tempfile::tempdir()?;
    let mut graph = Graph::new();
    random(&mut graph, &[1000, 1000])?;
    let session = session(&graph)?;
    let live = SessionOutput::new(&session, &mut graph, "random").compute()?;
    let first = mapped(live.converter()?.memory(Budget::mib(16)), dir.path().join("a.npy"))?;
    let second = mapped(live.converter()?.memory(Budget::mib(24)).threads(1), dir.path().join("b.npy"))?;
    check(first.array.as_bytes() == second.array.as_bytes(), "two conversions of one value differ")?;
    let other = SessionOutput::new(&session, &mut graph, "random").compute()?;
    let other = mapped(other.converter()?, dir.path().join("c.npy"))?;
    check(first.array.as_bytes() != other.array.as_bytes(), "two values are the same")
}

fn a_value_that_cannot_be_cut() -> Outcome {
    // float8_e5m2 is number 24: the crate has no name for it.
    const FLOAT8_E5M2: u8 = 24;
    let dir = tempfile::tempdir()?;
    let mut graph = Graph::new();
    let values: Vec<f32> = (0..5000u32).map(|i| (i % 7) as f32).collect();
    let x = constant(&mut graph, "x", Tensor::<f32>::new(&[1000, 5]).with_values(&values)?)?;
    let mut cast = graph.new_operation("Cast", "small")?;
    cast.add_input(x);
    cast.set_attr_value_proto("DstT", &[6 << 3, FLOAT8_E5M2])?;
    cast.finish()?;
    let session = session(&graph)?;
    let live = SessionOutput::new(&session, &mut graph, "small").scratch(dir.path()).compute()?;
    check(live.spec()?.dtype() == Dtype::Float8E5M2, live.spec()?.to_string())?;
    let done = mapped(live.converter()?.cast(Dtype::Float32), dir.path().join("out.npy"))?;
    let found: Vec<f32> = done.array.view::<f32>()?.iter().copied().collect();
    check(found == values, "values differ")
}

fn forms_and_rows() -> Outcome {
    let dir = tempfile::tempdir()?;
    let values: Vec<i64> = (0..120_000).collect();
    let tensor = Tensor::<i64>::new(&[400, 300]).with_values(&values)?;
    let live = LiveTensor::of_tensor(&tensor)?;
    let done = mapped(live.converter()?.layout(Layout::F).cast(Dtype::Int32), dir.path().join("f.npy"))?;
    let view = done.array.view::<i32>()?;
    check(view.iter().copied().eq(0..120_000), "Fortran order")?;
    let done = mapped(live.converter()?.rows(Rows { start: Some(-3), end: None }), dir.path().join("rows.npy"));
    let view = done?.array;
    check(view.view::<i64>()?.iter().copied().eq(397 * 300..120_000), "rows")
}

fn what_tensorflow_refuses() -> Outcome {
    let dir = tempfile::tempdir()?;
    let mut graph = Graph::new();
    placeholder(&mut graph, "x", DataType::Float)?;
    let bad = constant(&mut graph, "bad", Tensor::<f32>::from(&[f32::NAN][..]))?;
    let mut checked = graph.new_operation("CheckNumerics", "checked")?;
    checked.add_input(bad);
    checked.set_attr_string("message", "a NaN was found")?;
    checked.finish()?;
    let mut variable = graph.new_operation("VarHandleOp", "handle")?;
    variable.set_attr_type("dtype", DataType::Float)?;
    variable.set_attr_value_proto("shape", &[7 << 3 | 2, 0])?;
    variable.finish()?;
    let session = session(&graph)?;
    match SessionOutput::new(&session, &mut graph, "checked").compute() {
        Err(Error::TensorFlow { action, detail }) => {
            check(action.contains("checked:0") && detail.contains("a NaN was found"), format!("{action}: {detail}"))?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    match SessionOutput::new(&session, &mut graph, "x").compute() {
        Err(Error::TensorFlow { detail, .. }) => check(detail.contains('x'), detail)?,
        other => return Err(format!("{other:?}").into()),
    }
    let missing = SessionOutput::new(&session, &mut graph, "nothing:0").compute();
    check(matches!(missing, Err(Error::BadRequest(BadRequest::NoSuchOutput { .. }))), format!("{missing:?}"))?;
    let missing = SessionOutput::new(&session, &mut graph, "checked:1").compute();
    check(matches!(missing, Err(Error::BadRequest(BadRequest::NoSuchOutput { .. }))), format!("{missing:?}"))?;
    let handle = SessionOutput::new(&session, &mut graph, "handle").compute();
    check(matches!(handle, Err(Error::Unsupported { .. })), format!("{handle:?}"))?;
    // The session ends while the value is still to be read.
    let mut graph = Graph::new();
    constant(&mut graph, "values", Tensor::<f32>::new(&[100_000]))?;
    let mut own = self::session(&graph)?;
    own.close()?;
    let closed = SessionOutput::new(&own, &mut graph, "values").compute();
    check(matches!(closed, Err(Error::TensorFlow { .. })), format!("{closed:?}"))?;
    check(std::fs::read_dir(dir.path())?.next().is_none(), "something was left")
}

fn a_graph_stays_usable() -> Outcome {
    let mut graph = Graph::new();
    let x = placeholder(&mut graph, "x", DataType::Float)?;
    node(&mut graph, "Neg", "y", &[&x])?;
    let session = session(&graph)?;
    for round in 0..20 {
        let input = Tensor::<f32>::new(&[3]).with_values(&[round as f32; 3])?;
        let live = SessionOutput::new(&session, &mut graph, "y").feed("x", &input)?.compute()?;
        let mut out = [0; 12];
        let path = tempfile::tempdir()?;
        let done = mapped(live.converter()?, path.path().join("y.npy"))?;
        out.copy_from_slice(done.array.as_bytes());
        check(out.chunks(4).all(|value| value == (-(round as f32)).to_le_bytes()), format!("round {round}: {out:?}"))?;
    }
    node(&mut graph, "Neg", "z", &[&x])?;
    Ok(())
}

fn values_are_released() -> Outcome {
    // 64 values of 64 MiB would be 4 GiB. (Constants would not do: TensorFlow computes them beforehand and keeps them.)
    let mut graph = Graph::new();
    random(&mut graph, &[1 << 24])?;
    let session = session(&graph)?;
    for _ in 0..64 {
        let live = SessionOutput::new(&session, &mut graph, "random").compute()?;
        check(live.spec()?.nbytes() == 1 << 26, live.spec()?.to_string())?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    check(resident.is_none_or(|kib| kib < 2 << 20), format!("{resident:?} KiB are resident"))
}

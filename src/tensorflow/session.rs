//! Helpers for sessions: turns statuses and panics into errors, adds nodes to graphs, describes outputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use ::tensorflow::{Code, DataType, Graph, Operation, OperationDescription, Output, SessionOptions, SessionRunArgs, Shape, Status, Tensor};

use crate::error::{Error, Result};
use crate::format::graph_def;
use crate::format::meta_graph::Argument;
use crate::types::dtype::Dtype;

/// The result type of the `tensorflow` crate.
pub(crate) type Outcome<T> = std::result::Result<T, Status>;

/// Runs a call into TensorFlow. A panic in the crate counts as a refusal.
///
/// # Errors
/// [`Error::TensorFlow`] with the action and TensorFlow's message.
pub(crate) fn attempt<T>(action: impl FnOnce() -> String, work: impl FnOnce() -> Outcome<T>) -> Result<T> {
    let _inside = Inside::enter();
    let detail = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        // TensorFlow ran out of disk space while it wrote a tensor that cannot be cut.
        Ok(Err(status)) if status.code() == Code::ResourceExhausted && status.to_string().contains("No space left on device") => {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(Error::Io { action: "let TensorFlow write what it cannot cut to", path: "its folder".into(), source });
        }
        Ok(Err(status)) => with_advice(status.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("without a message"))
        }
    };
    Err(Error::TensorFlow { action: action(), detail })
}

/// Adds the next step to TensorFlow's message, if it is known.
fn with_advice(said: String) -> String {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let advice = if has(&["'PyFunc'", "'EagerPyFunc'", "'PyFuncStateless'"]) {
        "Python code (tf.py_function, tf.numpy_function, Dataset.from_generator) is not in the graph and cannot be exported with it: \
         Dataset.save writes the elements, which are read without TensorFlow"
    } else if has(&["Op type not registered"]) {
        "load the library with this custom operation: `op_library` FILE"
    } else if has(&["Could not find variable", "Attempting to use uninitialized value", "is uninitialized"]) {
        "a graph has no values of variables: a SavedModel restores them; values of a checkpoint become constants by \
         tf.compat.v1.graph_util.convert_variables_to_constants"
    } else if has(&["You must feed a value for placeholder tensor"]) {
        "`feed` NAME:0=ARRAY.npy gives it"
    } else if has(&["able not initialized"]) {
        "a graph does not say how its tables are filled, but a SavedModel does"
    } else {
        return said;
    };
    format!("{}; {advice}", said.trim_end_matches(['.', '\n']))
}

/// Number of threads inside TensorFlow.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether TensorFlow is computing. A [`CancelToken`](crate::CancelToken) takes effect only after it returns, which can take any
/// time. A program that has to end need not wait for that.
#[must_use]
pub fn is_computing() -> bool {
    INSIDE.load(Ordering::Relaxed) > 0
}

struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An output of a node, and its name.
#[derive(Debug, Clone)]
pub(crate) struct NodeOutput {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) index: i32,
}

impl NodeOutput {
    /// The output called `name`, `name:0` or `name:1`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::TensorFlow`].
    pub(crate) fn find(graph: &Graph, name: &str) -> Result<Option<Self>> {
        let (node, index) = match name.rsplit_once(':') {
            Some((node, index)) => match index.parse() {
                Ok(index) => (node, index),
                Err(_) => return Ok(None),
            },
            None => (name, 0),
        };
        let operation = attempt(|| format!("looking for {name}"), || Ok(graph.operation_by_name(node)?))?;
        let has = |operation: &Operation| usize::try_from(index).is_ok_and(|index| index < operation.num_outputs());
        Ok(operation.filter(has).map(|operation| Self { name: format!("{node}:{index}"), operation, index }))
    }

    /// The node of this name, with any outputs.
    ///
    /// # Errors
    /// [`Error::TensorFlow`].
    pub(crate) fn of_node(graph: &Graph, name: &str) -> Result<Option<Self>> {
        let operation = attempt(|| format!("looking for {name}"), || Ok(graph.operation_by_name(name)?))?;
        Ok(operation.map(|operation| Self { name: name.to_owned(), operation, index: 0 }))
    }

    pub(crate) fn output(&self) -> Output {
        Output { operation: self.operation.clone(), index: self.index }
    }

    /// Whether its value shares the memory of a TensorFlow 1 variable, which may be written to after it was computed.
    pub(crate) fn is_of_variable(&self) -> Outcome<bool> {
        /// Operations that pass on the memory of their input.
        const HAND_ON: &[&str] =
            &["Identity", "RefIdentity", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient", "CheckNumerics"];
        const VARIABLES: &[&str] = &["Variable", "VariableV2", "TemporaryVariable", "Assign", "AssignAdd", "AssignSub"];
        const MOST: usize = 1000;
        let mut node = self.operation.clone();
        for _ in 0..MOST {
            let kind = node.op_type()?;
            if VARIABLES.contains(&&kind[..]) || kind.starts_with("Scatter") {
                return Ok(true);
            }
            if !HAND_ON.contains(&&kind[..]) || node.num_inputs() == 0 {
                return Ok(false);
            }
            node = node.input(0).0;
        }
        Ok(true)
    }

    /// The dtype and shape that TensorFlow knows without computing the output.
    ///
    /// # Errors
    /// [`Error::TensorFlow`].
    pub(crate) fn known(&self, graph: &mut Graph) -> Result<Argument> {
        let (shape, dtype) = attempt(
            || format!("asking for dtype and shape of {}", self.name),
            || Ok((graph.tensor_shape(self.output())?, Builder::new(graph).dtype(self.output())?)),
        )?;
        let axes: Option<Vec<Option<i64>>> = Shape::into(shape);
        let axes = axes.map(|axes| axes.into_iter().map(|axis| axis.and_then(|axis| u64::try_from(axis).ok())).collect());
        Ok(Argument::of_graph(self.name.clone(), dtype, axes))
    }
}

/// Adds our own nodes to a graph, under unique names.
#[derive(Debug)]
pub(crate) struct Builder<'g> {
    graph: &'g mut Graph,
}

impl<'g> Builder<'g> {
    pub(crate) fn new(graph: &'g mut Graph) -> Self {
        Self { graph }
    }

    /// Adds a node of this kind.
    pub(crate) fn node(&mut self, kind: &str, describe: impl FnOnce(&mut OperationDescription<'_>) -> Outcome<()>) -> Outcome<Operation> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = loop {
            let name = format!("mmconvert/{kind}_{}", MADE.fetch_add(1, Ordering::Relaxed));
            if self.graph.operation_by_name(&name)?.is_none() {
                break name;
            }
        };
        let mut description = self.graph.new_operation(kind, &name)?;
        let described = describe(&mut description);
        // Finish in any case: the crate leaks an unfinished description.
        let finished = description.finish();
        described.and(finished)
    }

    /// Adds a node of this kind with these inputs; its attributes follow from them.
    pub(crate) fn of(&mut self, kind: &str, inputs: &[Output]) -> Outcome<Operation> {
        self.node(kind, |node| {
            for input in inputs {
                node.add_input(input.clone());
            }
            Ok(())
        })
    }

    /// A tensor that is fed to a run.
    pub(crate) fn placeholder(&mut self, dtype: DataType) -> Outcome<Operation> {
        self.node("Placeholder", |node| Ok(node.set_attr_type("dtype", dtype)?))
    }

    /// A constant.
    pub(crate) fn constant<T: ::tensorflow::TensorType>(&mut self, tensor: Tensor<T>) -> Outcome<Operation> {
        self.node("Const", |node| {
            node.set_attr_type("dtype", T::data_type())?;
            node.set_attr_tensor("value", tensor)
        })
    }

    /// The value reshaped to one axis.
    pub(crate) fn flat(&mut self, value: Output) -> Outcome<Operation> {
        let shape = self.constant(Tensor::<i32>::from(&[-1][..]))?;
        self.of("Reshape", &[value, shape.into()])
    }

    /// The dtype of an output, by TensorFlow's number, since the crate's enum is incomplete.
    pub(crate) fn dtype(&mut self, output: Output) -> Outcome<Option<Dtype>> {
        let identity = self.of("Identity", &[output])?;
        Ok(graph_def::attr_type(&identity.get_attr_value_proto("T")?).and_then(Dtype::from_code))
    }

    /// The bytes of the elements of `value`, of `dtype`: `uint8`, with an extra last axis for elements of more than one byte.
    /// `None` if TensorFlow cannot convert them.
    pub(crate) fn bytes(&mut self, value: Output, dtype: Dtype) -> Outcome<Option<Operation>> {
        let kind = match way_to_bytes(dtype) {
            Way::Bits => "Bitcast",
            Way::Cast => "Cast",
            Way::None => return Ok(None),
        };
        let attribute = if kind == "Cast" { "DstT" } else { "type" };
        let bytes = self.node(kind, |node| {
            node.add_input(value);
            Ok(node.set_attr_type(attribute, DataType::UInt8)?)
        })?;
        Ok(Some(bytes))
    }
}

/// Whether elements of a dtype can be fetched.
pub(crate) fn can_be_fetched(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::Resource | Dtype::Variant)
}

/// How to get the bytes of elements in a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Reinterpret them as `uint8`.
    Bits,
    /// Copy them.
    Cast,
    None,
}

/// `Bitcast` of TensorFlow 2.21 takes no types of less than 8 bits, and none added after `uint64`.
pub(crate) fn way_to_bytes(dtype: Dtype) -> Way {
    match dtype {
        Dtype::Bool => Way::Cast,
        Dtype::String | Dtype::Resource | Dtype::Variant => Way::None,
        dtype if dtype.code() <= Dtype::UInt64.code() => Way::Bits,
        _ => Way::None,
    }
}

/// Options for our own sessions: nodes run on any device that has a kernel, and GPU memory is allocated as needed.
pub(crate) fn options() -> Outcome<SessionOptions> {
    // ConfigProto { gpu_options { allow_growth: true }, allow_soft_placement: true }
    const CONFIG: &[u8] = &[0x32, 0x02, 0x20, 0x01, 0x38, 0x01];
    let mut options = SessionOptions::new();
    options.set_config(CONFIG)?;
    Ok(options)
}

/// A scalar string. Only for our own text, since the crate makes UTF-8 only.
pub(crate) fn text(text: &str) -> Tensor<String> {
    Tensor::from(text.to_owned())
}

/// An input of a run: a tensor and its placeholder.
pub(crate) trait Feed {
    fn add<'l>(&'l self, args: &mut SessionRunArgs<'l>);
}

/// The bytes of a fetched tensor. (An empty one may have a null address, which the crate does not check.)
pub(crate) fn bytes_of(tensor: &Tensor<u8>) -> &[u8] {
    if tensor.dims().contains(&0) { &[] } else { tensor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let panics = || -> Outcome<()> { panic!("on the way to {}", "TensorFlow") };
        match attempt(|| "computing x:0".into(), panics) {
            Err(Error::TensorFlow { action, detail }) => {
                assert_eq!((&action[..], &detail[..]), ("computing x:0", "panic: on the way to TensorFlow"));
            }
            other => panic!("{other:?}"),
        }
        assert!(!is_computing());
    }
}

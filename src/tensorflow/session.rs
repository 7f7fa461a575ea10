//! What every use of a session needs: errors instead of statuses and panics, nodes added to graphs, what is known of an output.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use ::tensorflow::{Code, DataType, Graph, Operation, OperationDescription, Output, SessionOptions, SessionRunArgs, Shape, Status, Tensor};

use crate::error::{Error, Result};
use crate::format::graph_def;
use crate::format::meta_graph::Argument;
use crate::types::dtype::Dtype;

/// What the `tensorflow` crate returns.
pub(crate) type Outcome<T> = std::result::Result<T, Status>;

/// Does what TensorFlow may refuse; a panic in the crate is a refusal, too.
///
/// # Errors
/// [`Error::TensorFlow`] with what was being done and what TensorFlow says.
pub(crate) fn attempt<T>(action: impl FnOnce() -> String, work: impl FnOnce() -> Outcome<T>) -> Result<T> {
    let _inside = Inside::enter();
    let detail = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        // It writes for us what cannot be cut.
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

/// What TensorFlow says, with the next step where that is known.
fn with_advice(said: String) -> String {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let advice = if has(&["'PyFunc'", "'EagerPyFunc'", "'PyFuncStateless'"]) {
        "Python code (tf.py_function, tf.numpy_function, Dataset.from_generator) is not in the graph and cannot be exported with it: \
         Dataset.save writes what the data set gives, which is read without TensorFlow"
    } else if has(&["Op type not registered"]) {
        "an operation that is not TensorFlow's own is in a library that has to be loaded: `op_library` FILE"
    } else if has(&["Could not find variable", "Attempting to use uninitialized value", "is uninitialized"]) {
        "a graph brings no values of variables: those of a SavedModel are restored, those of a checkpoint become constants by \
         tf.compat.v1.graph_util.convert_variables_to_constants"
    } else if has(&["You must feed a value for placeholder tensor"]) {
        "`feed` NAME:0=ARRAY.npy gives it"
    } else if has(&["able not initialized"]) {
        "a graph does not say how its tables are filled: a SavedModel does"
    } else {
        return said;
    };
    format!("{}; {advice}", said.trim_end_matches(['.', '\n']))
}

/// How many threads are inside TensorFlow.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether TensorFlow is at work. What it does is not ended by a [`CancelToken`](crate::CancelToken) before it returns, which can take
/// any time: a program that is told to end need not wait for that.
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

/// An output of a node, and what it is called.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) index: i32,
}

impl Target {
    /// The output that `name`, `name:0` or `name:1` stands for; `None` if there is none.
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

    /// The node of this name, whatever outputs it has.
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

    /// Whether its value lies in the memory of a TensorFlow 1 variable, which others may write to after it was computed.
    pub(crate) fn is_of_variable(&self) -> Outcome<bool> {
        /// What hands on the memory of its input.
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

    /// What TensorFlow knows of it before it is computed: its dtype and its shape.
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

/// Adds nodes of our own to a graph, each under a name that nobody else uses.
#[derive(Debug)]
pub(crate) struct Builder<'g> {
    graph: &'g mut Graph,
}

impl<'g> Builder<'g> {
    pub(crate) fn new(graph: &'g mut Graph) -> Self {
        Self { graph }
    }

    /// A node of this kind.
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
        // One that is not finished is leaked by the crate, so it is finished either way.
        let finished = description.finish();
        described.and(finished)
    }

    /// A node of this kind with these inputs; attributes follow from them.
    pub(crate) fn of(&mut self, kind: &str, inputs: &[Output]) -> Outcome<Operation> {
        self.node(kind, |node| {
            for input in inputs {
                node.add_input(input.clone());
            }
            Ok(())
        })
    }

    /// A tensor that a run is given.
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

    /// The value with one axis.
    pub(crate) fn flat(&mut self, value: Output) -> Outcome<Operation> {
        let shape = self.constant(Tensor::<i32>::from(&[-1][..]))?;
        self.of("Reshape", &[value, shape.into()])
    }

    /// The dtype of an output, by its number in TensorFlow: the crate knows only some of them.
    pub(crate) fn dtype(&mut self, output: Output) -> Outcome<Option<Dtype>> {
        let identity = self.of("Identity", &[output])?;
        Ok(graph_def::attr_type(&identity.get_attr_value_proto("T")?).and_then(Dtype::from_code))
    }

    /// The bytes of the elements of `value`, which is of `dtype`: `uint8` with one axis more, the last one, where elements have more
    /// than one byte. `None` where TensorFlow has no way to them.
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

/// Whether a dtype has elements that can be had.
pub(crate) fn can_be_fetched(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::Resource | Dtype::Variant)
}

/// How the bytes of elements are reached in a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are the same bytes, called `uint8`.
    Bits,
    /// They are copied.
    Cast,
    None,
}

/// `Bitcast` of TensorFlow 2.21 takes none of the types that have less than 8 bits or came after `uint64`.
pub(crate) fn way_to_bytes(dtype: Dtype) -> Way {
    match dtype {
        Dtype::Bool => Way::Cast,
        Dtype::String | Dtype::Resource | Dtype::Variant => Way::None,
        dtype if dtype.code() <= Dtype::UInt64.code() => Way::Bits,
        _ => Way::None,
    }
}

/// Options for sessions of our own: nodes run where there is a kernel for them, and memory of a GPU is taken as it is needed.
pub(crate) fn options() -> Outcome<SessionOptions> {
    // ConfigProto { gpu_options { allow_growth: true }, allow_soft_placement: true }
    const CONFIG: &[u8] = &[0x32, 0x02, 0x20, 0x01, 0x38, 0x01];
    let mut options = SessionOptions::new();
    options.set_config(CONFIG)?;
    Ok(options)
}

/// A scalar string. Only for text of our own: the crate has no others.
pub(crate) fn text(text: &str) -> Tensor<String> {
    Tensor::from(text.to_owned())
}

/// An input of a run: a tensor, and where it goes in.
pub(crate) trait Feed {
    fn add<'l>(&'l self, args: &mut SessionRunArgs<'l>);
}

/// The bytes of a fetched tensor. (An empty one may have no address, which the crate does not look at.)
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

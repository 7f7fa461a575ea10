//! Tensors that are fed to a run.

use std::path::Path;

use ::tensorflow::{DataType, Operation, Session, SessionRunArgs, Tensor, TensorType};

use crate::error::Result;
use crate::error::request::BadRequest;
use crate::format::meta_graph::Argument;
use crate::tensorflow::session::{Builder, Feed, NodeOutput, Outcome, options};
use crate::tensorflow::wire;

/// Checks that an array of this shape fits an input, `batch` rows at a time.
///
/// # Errors
/// [`Error::BadRequest`].
pub(crate) fn check_shape(path: &Path, target: &NodeOutput, shape: &[u64], input: &Argument, batch: Option<u64>) -> Result<()> {
    let Some(expected) = &input.shape else { return Ok(()) };
    let axis_fits = |(at, (&own, &expected)): (usize, (&u64, &Option<u64>))| match (expected, batch) {
        (Some(expected), Some(batch)) if at == 0 => own == 0 || expected == batch && own.is_multiple_of(batch),
        (expected, _) => expected.is_none_or(|expected| expected == own),
    };
    if expected.len() == shape.len() && shape.iter().zip(expected).enumerate().all(axis_fits) {
        return Ok(());
    }
    let request = BadRequest::InputShape { shape: shape.to_vec(), batch, expected: expected.clone() };
    Err(request.of_input(path, &target.name).into())
}

/// A tensor and its input.
pub(crate) struct Fed<'a, T: TensorType> {
    pub(crate) operation: &'a Operation,
    pub(crate) index: i32,
    pub(crate) tensor: Tensor<T>,
}

impl<T: TensorType> Feed for Fed<'_, T> {
    fn add<'l>(&'l self, args: &mut SessionRunArgs<'l>) {
        args.add_feed(self.operation, self.index, &self.tensor);
    }
}

/// TensorFlow makes string tensors, as constants, since the crate makes them from UTF-8 only. Nobody reads the result through the
/// crate.
pub(crate) fn constant(proto: &[u8]) -> Outcome<Tensor<String>> {
    let mut graph = ::tensorflow::Graph::new();
    let constant = Builder::new(&mut graph).node("Const", |node| {
        node.set_attr_type("dtype", DataType::String)?;
        node.set_attr_value_proto("value", &wire::tensor_attribute(proto))
    })?;
    let session = Session::new(&options()?, &graph)?;
    let mut args = SessionRunArgs::new();
    let token = args.request_fetch(&constant, 0);
    session.run(&mut args)?;
    args.fetch(token)
}

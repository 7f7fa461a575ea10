//! A tensor that a session computed once and holds on its device. Elements are fetched slice by slice.

use std::fmt;
use std::ops::{Deref, Range};

use ::tensorflow::{DataType, FetchToken, Graph, Operation, Session, SessionRunArgs, Tensor};

use super::session::{Builder, Feed, NodeOutput, Outcome, Way, attempt, bytes_of, text, way_to_bytes};
use super::spill::{Spill, Spilling};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::model::ModelOptions;
use crate::reader::tensor_reader::{ReadContext, TensorReader};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// A tensor in the memory of a session.
///
/// `GetSessionHandle` keeps the value on its device, `GetSessionTensor` returns it without a copy, and a run returns a `Slice` of
/// it. On a CPU, slices that start at a multiple of 64 bytes share the memory of the whole.
pub(crate) struct SessionTensor<S: Deref<Target = Session>> {
    session: S,
    name: String,
    spec: TensorSpec,
    handle: String,
    nodes: Nodes,
}

/// The nodes that return a slice of the held tensor.
#[derive(Debug)]
struct Nodes {
    handle: Operation,
    begin: Operation,
    size: Operation,
    /// The slice as bytes.
    slice: Operation,
    /// Deletes the tensor.
    delete: Operation,
    /// Bytes of an element, if they are an axis of their own.
    bytes_axis: Option<i64>,
}

impl<S: Deref<Target = Session>> fmt::Debug for SessionTensor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTensor")
            .field("name", &self.name)
            .field("spec", &self.spec)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

/// A computed tensor.
pub(crate) enum Value<S: Deref<Target = Session>> {
    Held(Box<SessionTensor<S>>),
    /// TensorFlow cannot cut it, so it wrote it to a file.
    Spilled(Box<Spill>),
}

/// Computes tensors in one run, and `others` with them. Tensors that can be cut stay on their device; the rest are written to
/// files.
///
/// # Errors
/// [`Error::TensorFlow`]; [`Error::Unsupported`] for resource handles and the like; [`Error::Io`].
pub(crate) fn compute<S>(
    session: &S,
    graph: &mut Graph,
    targets: &[NodeOutput],
    others: &[Operation],
    feeds: &[Box<dyn Feed + '_>],
    options: &ModelOptions,
) -> Result<Vec<Value<S>>>
where
    S: Deref<Target = Session> + Clone,
{
    let names = || format!("computing {}", targets.iter().map(|target| &target.name[..]).collect::<Vec<_>>().join(", "));
    let mut plans = Vec::with_capacity(targets.len());
    for target in targets {
        let mut builder = Builder::new(graph);
        let dtype = attempt(names, || builder.dtype(target.output()))?;
        plans.push(match dtype {
            None | Some(Dtype::Resource | Dtype::Variant) => {
                let what = dtype.map_or("a dtype that this version does not know", Dtype::name);
                return Err(Error::Unsupported { what: target.name.clone(), detail: format!("it is {what}, which no array can hold") });
            }
            Some(dtype) if way_to_bytes(dtype) == Way::None => FetchPlan::Spill(Spilling::new(&mut builder, target, options)?),
            Some(dtype) => attempt(names, || {
                let mut value = target.output();
                if target.is_of_variable()? {
                    value = builder.of("DeepCopy", &[value])?.into();
                }
                let handle = builder.of("GetSessionHandle", std::slice::from_ref(&value))?;
                let shape = builder.node("Shape", |node| {
                    node.add_input(value);
                    Ok(node.set_attr_type("out_type", DataType::Int64)?)
                })?;
                Ok(FetchPlan::Hold { dtype, handle, shape })
            })?,
        });
    }
    let mut args = SessionRunArgs::new();
    for feed in feeds {
        feed.add(&mut args);
    }
    for other in others {
        args.add_target(other);
    }
    let tokens: Vec<Option<(FetchToken, FetchToken)>> = plans
        .iter()
        .map(|plan| match plan {
            FetchPlan::Hold { handle, shape, .. } => Some((args.request_fetch(handle, 0), args.request_fetch(shape, 0))),
            FetchPlan::Spill(spilling) => {
                spilling.add(&mut args);
                None
            }
        })
        .collect();
    attempt(names, || session.run(&mut args))?;
    let mut values = Vec::with_capacity(plans.len());
    for ((plan, target), tokens) in plans.into_iter().zip(targets).zip(tokens) {
        values.push(match (plan, tokens) {
            (FetchPlan::Hold { dtype, .. }, Some((handle, shape))) => {
                let (handle, shape) = attempt(names, || Ok((args.fetch::<String>(handle)?, args.fetch::<i64>(shape)?)))?;
                let shape = if shape.dims() == [0] { Vec::new() } else { shape.to_vec() };
                Value::Held(Box::new(SessionTensor::new(session.clone(), graph, target, dtype, &shape, &handle[0])?))
            }
            (FetchPlan::Spill(spilling), _) => Value::Spilled(Box::new(spilling.open()?)),
            (FetchPlan::Hold { .. }, None) => return Err(BadRequest::impossible(format!("{} was not fetched", target.name)).into()),
        });
    }
    Ok(values)
}

enum FetchPlan {
    Hold { dtype: Dtype, handle: Operation, shape: Operation },
    Spill(Spilling),
}

impl<S: Deref<Target = Session>> SessionTensor<S> {
    fn new(session: S, graph: &mut Graph, target: &NodeOutput, dtype: Dtype, shape: &[i64], handle: &str) -> Result<Self> {
        let refused = |detail: String| Error::Unsupported { what: target.name.clone(), detail };
        let shape =
            shape.iter().map(|&axis| u64::try_from(axis).map_err(|_| refused(format!("an axis of {axis}")))).collect::<Result<_>>()?;
        let spec = TensorSpec::new(dtype, shape).map_err(|request| refused(request.to_string()))?;
        let nodes = attempt(|| format!("cutting {}", target.name), || Nodes::new(&mut Builder::new(graph), handle, dtype))?;
        Ok(Self { session, name: target.name.clone(), spec, handle: handle.to_owned(), nodes })
    }

    pub(crate) fn spec(&self) -> &TensorSpec {
        &self.spec
    }
}

impl Nodes {
    fn new(builder: &mut Builder<'_>, handle: &str, dtype: Dtype) -> Outcome<Self> {
        // "GetSessionHandle;0;/job:localhost/replica:0/task:0/device:CPU:0": fetch the tensor on the device that holds it.
        let device = handle.rsplit(';').next().filter(|device| device.starts_with('/')).unwrap_or_default();
        let handle = builder.placeholder(DataType::String)?;
        let begin = builder.placeholder(DataType::Int64)?;
        let size = builder.placeholder(DataType::Int64)?;
        let held = builder.node("GetSessionTensor", |node| {
            node.add_input(handle.clone());
            node.set_device(device)?;
            // The crate can name this dtype: tensors of others are never held.
            node.set_attr_value_proto("dtype", &[6 << 3, u8::try_from(dtype.code()).unwrap_or(0)])
        })?;
        let delete = builder.of("DeleteSessionTensor", &[handle.clone().into()])?;
        let flat = builder.flat(held.into())?;
        let cut =
            |builder: &mut Builder<'_>, value: Operation| builder.of("Slice", &[value.into(), begin.clone().into(), size.clone().into()]);
        let is_bits = way_to_bytes(dtype) == Way::Bits;
        let bytes_axis = i64::try_from(dtype.item_len()).ok().filter(|&len| is_bits && len > 1);
        let missing = || ::tensorflow::Status::new_set_lossy(::tensorflow::Code::Unimplemented, "there is no way to its bytes");
        // Reinterpret first, so that one kernel cuts every dtype. Types that must be copied are cut first.
        let slice = if is_bits {
            let bytes = builder.bytes(flat.into(), dtype)?.ok_or_else(missing)?;
            cut(builder, bytes)?
        } else {
            let slice = cut(builder, flat)?;
            builder.bytes(slice.into(), dtype)?.ok_or_else(missing)?
        };
        Ok(Self { handle, begin, size, slice, delete, bytes_axis })
    }
}

impl<S: Deref<Target = Session> + Send + Sync> TensorReader for SessionTensor<S> {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::NATIVE
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        context.check_cancelled()?;
        if out.is_empty() {
            return Ok(());
        }
        let action = || format!("fetching elements {} to {} of {}", elements.start, elements.end, self.name);
        let slice = attempt(action, || {
            let with_axis = |first: u64, second: i64| {
                let first = i64::try_from(first).unwrap_or(i64::MAX);
                let both = [first, second];
                Tensor::<i64>::from(&both[..=usize::from(self.nodes.bytes_axis.is_some())])
            };
            let begin = with_axis(elements.start, 0);
            let size = with_axis(elements.end - elements.start, -1);
            let handle = text(&self.handle);
            let mut args = SessionRunArgs::new();
            args.add_feed(&self.nodes.handle, 0, &handle);
            args.add_feed(&self.nodes.begin, 0, &begin);
            args.add_feed(&self.nodes.size, 0, &size);
            let token = args.request_fetch(&self.nodes.slice, 0);
            self.session.run(&mut args)?;
            args.fetch::<u8>(token)
        })?;
        let bytes = bytes_of(&slice);
        if bytes.len() != out.len() {
            let detail = format!("{} bytes were returned, expected {}", bytes.len(), memory_len(out.len() as u64));
            return Err(Error::TensorFlow { action: action(), detail });
        }
        out.copy_from_slice(bytes);
        Ok(())
    }
}

impl<S: Deref<Target = Session>> Drop for SessionTensor<S> {
    fn drop(&mut self) {
        // The session frees it at the latest when it ends.
        let _ = attempt(String::new, || {
            let handle = text(&self.handle);
            let mut args = SessionRunArgs::new();
            args.add_feed(&self.nodes.handle, 0, &handle);
            args.add_target(&self.nodes.delete);
            self.session.run(&mut args)
        });
    }
}

//! Tensors that come one after the other, of a data set or of batches, as a stream of records: a part for each component.

use std::collections::VecDeque;
use std::io::{self, Read};

use ::tensorflow::{DataType, FetchToken, Operation, SessionRunArgs, Tensor};

use super::session::{Builder, Outcome, Target, Way, attempt, bytes_of, way_to_bytes};
use super::spill::Spilling;
use super::wire;
use crate::cancel::CancelToken;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::model_options::ModelOptions;
use crate::source::{Container, ReadContext};
use crate::os::Calls;
use crate::spec::memory_len;

/// How a component is fetched.
pub(super) enum Fetch {
    /// As bytes of its elements.
    Bytes { dtype: Dtype, name: String, node: Operation },
    /// As a serialized tensor: strings.
    Proto { node: Operation },
    /// By a file.
    Spill { dtype: Dtype, spilling: Box<Spilling> },
}

/// A component of an element: a serialized tensor in two parts. Empty for what is no plain tensor.
#[derive(Default)]
pub(super) struct Component {
    front: Vec<u8>,
    content: Option<Tensor<u8>>,
}

impl Fetch {
    /// A way to the values of an output of `dtype`.
    ///
    /// # Errors
    /// [`Error::TensorFlow`], [`Error::Io`].
    pub(super) fn new(builder: &mut Builder<'_>, target: &Target, dtype: Dtype, options: &ModelOptions) -> Result<Self> {
        let action = || format!("preparing to fetch {}", target.name);
        if way_to_bytes(dtype) != Way::None {
            let node = attempt(action, || builder.bytes(target.output(), dtype))?;
            if let Some(node) = node {
                return Ok(Self::Bytes { dtype, name: target.name.clone(), node });
            }
        }
        if dtype != Dtype::String {
            return Ok(Self::Spill { dtype, spilling: Box::new(Spilling::new(builder, target, options)?) });
        }
        let node = attempt(action, || -> Outcome<Operation> {
            let serialized = builder.of("SerializeTensor", &[target.output()])?;
            builder.node("DecodeRaw", |node| {
                node.add_input(serialized);
                Ok(node.set_attr_type("out_type", DataType::UInt8)?)
            })
        })?;
        Ok(Self::Proto { node })
    }

    /// Asks a run for it.
    pub(super) fn request(&self, args: &mut SessionRunArgs<'_>) -> Option<FetchToken> {
        match self {
            Self::Bytes { node, .. } | Self::Proto { node } => Some(args.request_fetch(node, 0)),
            Self::Spill { spilling, .. } => {
                spilling.add(args);
                None
            }
        }
    }

    /// What a run gave for it.
    pub(super) fn take(&self, args: &mut SessionRunArgs<'_>, token: Option<FetchToken>) -> Result<Component> {
        let fetched = |args: &mut SessionRunArgs<'_>| match token {
            Some(token) => attempt(|| "taking what was computed".into(), || args.fetch::<u8>(token)),
            None => Err(Error::bad_request("nothing was fetched")),
        };
        match self {
            Self::Bytes { dtype, name, .. } => {
                let content = fetched(args)?;
                let mut shape = content.dims().to_vec();
                if dtype.item_len() > 1 && shape.pop() != Some(dtype.item_len() as u64) {
                    let detail = format!("elements of {dtype} came with shape {:?}", content.dims());
                    return Err(Error::TensorFlow { action: format!("fetching {name}"), detail });
                }
                Ok(Component { front: wire::before_content(*dtype, &shape, bytes_of(&content).len()), content: Some(content) })
            }
            Self::Proto { .. } => Ok(Component { front: Vec::new(), content: Some(fetched(args)?) }),
            Self::Spill { dtype, spilling } => {
                let bundle = spilling.bundle()?;
                let reader = bundle.reader(0)?;
                let spec = reader.spec();
                let mut content = vec![0; memory_len(spec.nbytes())];
                let cancel = CancelToken::new();
                let mut context = ReadContext::new(1 << 20, None, &cancel, Calls::Standard);
                reader.read(0..spec.elements(), &mut content, &mut context)?;
                let mut front = wire::before_content(*dtype, spec.shape(), content.len());
                front.append(&mut content);
                Ok(Component { front, content: None })
            }
        }
    }
}

/// Gives the next element, until there is none.
pub(super) type Step = Box<dyn FnMut() -> Result<Option<Vec<Component>>> + Send>;

/// Elements as bytes: before each component the length of what follows, as 64 bits.
pub(super) struct Elements {
    step: Step,
    waiting: VecDeque<Component>,
    /// How much of the first one has been read, its length included.
    at: usize,
    cancel: CancelToken,
}

impl Elements {
    pub(super) fn new(step: Step, cancel: &CancelToken) -> Self {
        Self { step, waiting: VecDeque::new(), at: 0, cancel: cancel.clone() }
    }
}

impl Read for Elements {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(first) = self.waiting.front() {
                let content = first.content.as_ref().map_or(&[][..], bytes_of);
                let len = (first.front.len() as u64 + content.len() as u64).to_le_bytes();
                let mut skip = self.at;
                for part in [&len[..], &first.front, content] {
                    if skip < part.len() && !buf.is_empty() {
                        let read = buf.len().min(part.len() - skip);
                        buf[..read].copy_from_slice(&part[skip..skip + read]);
                        self.at += read;
                        return Ok(read);
                    }
                    skip = skip.saturating_sub(part.len());
                }
                if buf.is_empty() {
                    return Ok(0);
                }
                self.waiting.pop_front();
                self.at = 0;
                continue;
            }
            if self.cancel.is_cancelled() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            // What goes wrong has been said as one of our own errors.
            match (self.step)().map_err(io::Error::other)? {
                Some(components) => self.waiting.extend(components),
                None => return Ok(0),
            }
        }
    }
}

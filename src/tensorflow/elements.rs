//! Sequences of tensors, from a data set or from batches, as a stream of records with one part per component.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::tensorflow::{Code, DataType, FetchToken, Operation, Session, SessionRunArgs, Tensor};

use super::session::{Builder, NodeOutput, Outcome, Way, attempt, bytes_of, can_be_fetched, way_to_bytes};
use super::spill::Spilling;
use super::wire;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::Argument;
use crate::format::tensor_proto::TensorProto;
use crate::options::Options;
use crate::options::model::ModelOptions;
use crate::os::SystemCalls;
use crate::reader::tensor_reader::ReadContext;
use crate::records::container::RecordContainer;
use crate::records::feature::{Declared, Encoding, Feature, Key};
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::framing::Framing;
use crate::records::stream::inputs::{Claim, Wanted};
use crate::source::container::Container;
use crate::types::cancel::CancelToken;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

/// A part of every element: a node's output that is computed repeatedly.
#[derive(Debug, Clone)]
pub(crate) struct ComponentSource {
    /// Its name, its dtype, and its shape within an element.
    pub(crate) output: Argument,
    /// `None` for values other than plain tensors.
    pub(crate) target: Option<NodeOutput>,
    /// Whether elements are concatenated along axis 0; otherwise each becomes a row.
    pub(crate) is_joined: bool,
}

impl ComponentSource {
    fn feature(&self, number: usize) -> Feature {
        let Argument { name, dtype, shape, .. } = &self.output;
        let unsupported = match dtype {
            Some(dtype) if can_be_fetched(*dtype) && self.target.is_some() => None,
            Some(dtype) => Some(no_plain_tensor(*dtype)),
            None => Some("it is not a plain tensor".to_owned()),
        };
        // Row splits and indices count from the start of each batch.
        let unsupported = match &self.output.part_of {
            Some(whole) if self.is_joined => Some(format!(
                "it is a part of {whole}, which is ragged or sparse and cannot be joined from batches: convert it without `batch`"
            )),
            _ => unsupported,
        };
        let row = shape.iter().flatten().skip(usize::from(self.is_joined)).copied().collect();
        let has_rank = shape.is_some();
        let declared = Declared { flat: self.is_joined, has_rank, ..Declared::new(dtype.unwrap_or(Dtype::Variant), row, Encoding::Tensor) };
        Feature {
            name: name.clone().into_bytes(),
            alias: self.output.alias(),
            declared: Some(declared),
            unsupported,
            ..Feature::found(Key::Part(number))
        }
    }
}

/// Why values of `dtype` cannot be fetched.
pub(crate) fn no_plain_tensor(dtype: Dtype) -> String {
    match dtype {
        Dtype::Variant => {
            "it is a variant, a TensorFlow object (a ragged or sparse tensor, an Optional, a data set): output its tensors instead, \
                           (r.flat_values, *r.nested_row_splits) of a ragged r, (s.indices, s.values, s.dense_shape) of a sparse s"
                .to_owned()
        }
        dtype => format!("it is a {dtype}, whose values cannot leave TensorFlow"),
    }
}

/// The number of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cardinality {
    Elements(u64),
    /// Infinitely many.
    Endless,
    Unknown,
}

/// Elements as a source whose tensors are their parts. `start` begins to compute them and may be called repeatedly.
pub(crate) fn container(
    format: &'static str,
    path: &Path,
    parts: &[ComponentSource],
    start: impl Fn(&CancelToken) -> Result<Step> + Send + Sync + 'static,
    cardinality: Cardinality,
    options: &Options,
) -> RecordContainer {
    let begun: Begun = Arc::default();
    let joined: Arc<[bool]> = parts.iter().map(|part| part.is_joined && part.target.is_some()).collect();
    let start = move |wanted: &Wanted<'_>| -> Result<Box<dyn Read + Send>> {
        let kept = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (step, first) = match kept {
            Some((step, first)) => (step, first),
            None => (start(wanted.cancel)?, Vec::new()),
        };
        Ok(Box::new(ElementStream::new(step, first, &begun, wanted, &joined)))
    };
    let claim = if let Cardinality::Elements(count) = cardinality { Some(Arc::new(move || Some(count)) as Claim) } else { None };
    let claim = claim.filter(|_| !parts.iter().any(|part| part.is_joined));
    let set = RecordSet {
        group: parts.len(),
        features: parts.iter().enumerate().map(|(number, part)| part.feature(number)).collect(),
        discovers: false,
        framing: Framing::Length,
        first_look: 1,
        ..RecordSet::undescribed(Inputs::program(path, start, (None, claim)).endless(cardinality == Cardinality::Endless))
    };
    RecordContainer::new(format, path, vec![set], options)
}

/// How to fetch each part; `None` for values other than plain tensors.
pub(crate) struct Fetches(Vec<Option<Fetch>>);

impl Fetches {
    /// Adds the needed nodes to a graph.
    ///
    /// # Errors
    /// [`Error::TensorFlow`], [`Error::Io`].
    pub(crate) fn new(builder: &mut Builder<'_>, parts: &[ComponentSource], options: &ModelOptions) -> Result<Self> {
        let fetch = |part: &ComponentSource| match (&part.target, part.output.dtype.filter(|&dtype| can_be_fetched(dtype))) {
            (Some(target), Some(dtype)) => Fetch::new(builder, target, dtype, options).map(Some),
            _ => Ok(None),
        };
        parts.iter().map(fetch).collect::<Result<_>>().map(Self)
    }

    /// Computes an element. Returns `None` at the end, which is only recognised for a data set (`ends`).
    ///
    /// # Errors
    /// [`Error::TensorFlow`].
    pub(crate) fn run(
        &self,
        session: &Session,
        mut args: SessionRunArgs<'_>,
        ends: bool,
        action: impl FnOnce() -> String,
    ) -> Result<Option<Vec<Component>>> {
        let tokens: Vec<_> = self.0.iter().map(|fetch| fetch.as_ref().and_then(|fetch| fetch.request(&mut args))).collect();
        let is_there = attempt(action, || match session.run(&mut args) {
            // Functions in a data set may fail with the same code; the message identifies the end.
            Err(status) if ends && status.code() == Code::OutOfRange && status.to_string().contains("End of sequence") => Ok(false),
            done => done.map(|()| true),
        })?;
        if !is_there {
            return Ok(None);
        }
        let taken = self.0.iter().zip(tokens).map(|(fetch, token)| match fetch {
            Some(fetch) => fetch.take(&mut args, token),
            None => Ok(Component::default()),
        });
        taken.collect::<Result<_>>().map(Some)
    }
}

/// How a component is fetched.
enum Fetch {
    /// As the bytes of its elements.
    Bytes { dtype: Dtype, name: String, node: Operation },
    /// As a serialized tensor, for strings.
    Proto { node: Operation },
    /// Through a file.
    Spill { dtype: Dtype, spilling: Box<Spilling> },
}

/// A component of an element: a serialized tensor in two parts. Empty for values other than plain tensors.
#[derive(Default, Clone)]
pub(crate) struct Component {
    front: Vec<u8>,
    content: Option<Arc<Tensor<u8>>>,
    /// The length of its axis 0, if known.
    rows: Option<u64>,
}

impl Fetch {
    /// How to fetch an output of `dtype`.
    ///
    /// # Errors
    /// [`Error::TensorFlow`], [`Error::Io`].
    fn new(builder: &mut Builder<'_>, target: &NodeOutput, dtype: Dtype, options: &ModelOptions) -> Result<Self> {
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

    /// Adds it to the request of a run.
    fn request(&self, args: &mut SessionRunArgs<'_>) -> Option<FetchToken> {
        match self {
            Self::Bytes { node, .. } | Self::Proto { node } => Some(args.request_fetch(node, 0)),
            Self::Spill { spilling, .. } => {
                spilling.add(args);
                None
            }
        }
    }

    /// Takes the result of a run.
    fn take(&self, args: &mut SessionRunArgs<'_>, token: Option<FetchToken>) -> Result<Component> {
        let fetched = |args: &mut SessionRunArgs<'_>| match token {
            Some(token) => attempt(|| "taking the computed value".into(), || args.fetch::<u8>(token)),
            None => Err(BadRequest::impossible("nothing was fetched").into()),
        };
        match self {
            Self::Bytes { dtype, name, .. } => {
                let content = fetched(args)?;
                let mut shape = content.dims().to_vec();
                if dtype.item_len() > 1 && shape.pop() != Some(dtype.item_len() as u64) {
                    let detail = format!("elements of {dtype} were returned with shape {:?}", content.dims());
                    return Err(Error::TensorFlow { action: format!("fetching {name}"), detail });
                }
                let front = wire::before_content(*dtype, &shape, bytes_of(&content).len());
                Ok(Component { front, content: Some(Arc::new(content)), rows: shape.first().copied() })
            }
            Self::Proto { .. } => {
                let content = fetched(args)?;
                let rows = TensorProto::parse(bytes_of(&content), 0).ok().and_then(|proto| proto.spec.shape().first().copied());
                Ok(Component { front: Vec::new(), content: Some(Arc::new(content)), rows })
            }
            Self::Spill { dtype, spilling } => {
                let bundle = spilling.bundle()?;
                let reader = bundle.reader(0)?;
                let spec = reader.spec();
                let mut bytes = vec![0; memory_len(spec.nbytes())];
                reader.read(0..spec.elements(), &mut bytes, &mut ReadContext::new(1 << 20, None, &SystemCalls::default()))?;
                let mut front = wire::before_content(*dtype, spec.shape(), bytes.len());
                front.append(&mut bytes);
                Ok(Component { front, content: None, rows: spec.shape().first().copied() })
            }
        }
    }
}

/// Returns the next element, or `None` at the end.
pub(crate) type Step = Box<dyn FnMut() -> Result<Option<Vec<Component>>> + Send>;

/// Elements as bytes: each component is preceded by its length in 64 bits.
///
/// A reader that wanted only the first element leaves it and the iteration to the next reader. Nothing is computed twice that
/// way, which matters since computing may change variables.
struct ElementStream {
    step: Option<Step>,
    /// Number of elements computed.
    made: u64,
    /// The first element.
    first: Vec<Component>,
    waiting: VecDeque<Component>,
    /// How much of the first waiting component has been read, its length included.
    at: usize,
    begun: Begun,
    cancel: CancelToken,
    /// Limit on elements,
    most: u64,
    /// and on rows of each concatenated part: how many are still wanted.
    rows: Vec<Option<u64>>,
}

/// The iteration and the first element, left by a reader that computed at most one element.
type Begun = Arc<Mutex<Option<(Step, Vec<Component>)>>>;

impl Drop for ElementStream {
    fn drop(&mut self) {
        if let Some(step) = self.step.take().filter(|_| self.made <= 1) {
            *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, std::mem::take(&mut self.first)));
        }
    }
}

impl ElementStream {
    fn new(step: Step, first: Vec<Component>, begun: &Begun, wanted: &Wanted<'_>, joined: &[bool]) -> Self {
        let rows = joined.iter().map(|&is_joined| is_joined.then_some(wanted.rows)).collect();
        let mut elements = Self {
            step: Some(step),
            made: u64::from(!first.is_empty()),
            waiting: VecDeque::new(),
            first: Vec::new(),
            at: 0,
            begun: Arc::clone(begun),
            cancel: wanted.cancel.clone(),
            most: wanted.records,
            rows,
        };
        elements.hand_out(first.clone());
        elements.first = first;
        elements
    }

    /// Queues an element for reading.
    fn hand_out(&mut self, components: Vec<Component>) {
        for (left, component) in self.rows.iter_mut().zip(&components) {
            if let (Some(left), Some(rows)) = (left, component.rows) {
                *left = left.saturating_sub(rows);
            }
        }
        self.waiting.extend(components);
    }

    /// Whether enough has been computed.
    fn is_over(&self) -> bool {
        let mut rows = self.rows.iter().flatten().peekable();
        self.made >= self.most || rows.peek().is_some() && rows.all(|&left| left == 0)
    }
}

impl Read for ElementStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(first) = self.waiting.front() {
                let content = first.content.as_deref().map_or(&[][..], bytes_of);
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
            self.cancel.check().map_err(io::Error::other)?;
            if self.is_over() {
                return Ok(0);
            }
            // Errors were reported as our own before.
            let Some(step) = &mut self.step else { return Ok(0) };
            let made = match step() {
                Ok(made) => made,
                Err(error) => {
                    self.step = None;
                    return Err(io::Error::other(error));
                }
            };
            let Some(components) = made else { return Ok(0) };
            self.made += 1;
            self.first = if self.made == 1 { components.clone() } else { Vec::new() };
            self.hand_out(components);
        }
    }
}

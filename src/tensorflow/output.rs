//! Tensors from a TensorFlow that the caller runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ::tensorflow::{Graph, Session, Tensor, TensorType};

use super::feed::lend;
use super::session::{Builder, Feed, NodeOutput, attempt, options as session_options};
use super::session_tensor::{Value, compute};
use super::spill::Spill;
use crate::convert::Converter;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::model::ModelOptions;
use crate::output::staging::hidden::ScratchDir;
use crate::reader::tensor_reader::TensorReader;
use crate::source::opened::Source;
use crate::source::origin::Origin;
use crate::types::spec::TensorSpec;

/// Outputs to be computed in the caller's session.
///
/// The library is loaded by [`load`](super::load), or by the program through the `tensorflow` crate. Each computed output adds
/// about ten nodes to the graph, which stay there. So feed values that change from run to run instead of adding outputs.
///
/// ```no_run
/// use mmconvert::tensorflow::{SessionOutput, tensorflow::{Graph, Session, SessionOptions, Tensor}};
///
/// tensorflow_is_loaded()?;
/// let mut graph = Graph::new();
/// # let def: Vec<u8> = Vec::new();
/// graph.import_graph_def(&def, &Default::default())?;
/// let session = Session::new(&SessionOptions::new(), &graph)?;
/// let images = Tensor::<f32>::new(&[64, 224, 224, 3]);
/// let logits = SessionOutput::new(&session, &mut graph, "logits:0").feed("images:0", &images)?.compute()?;
/// logits.converter()?.write("logits.npy")?;
/// # fn tensorflow_is_loaded() -> Result<(), String> { mmconvert::tensorflow::tensorflow::library::load() }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SessionOutput<'a, 'g> {
    session: &'a Session,
    graph: &'g mut Graph,
    names: Vec<String>,
    feeds: Vec<Box<dyn Feed + 'a>>,
    options: ModelOptions,
}

impl fmt::Debug for SessionOutput<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOutput").field("names", &self.names).field("feeds", &self.feeds.len()).finish_non_exhaustive()
    }
}

impl<'a, 'g> SessionOutput<'a, 'g> {
    /// Starts with the output `name` of a node of `graph`: `logits:0`, or `logits` for its first. `graph` must be the graph of
    /// `session`. Nodes whose names start with `mmconvert/` are added to it.
    #[must_use]
    pub fn new(session: &'a Session, graph: &'g mut Graph, name: impl Into<String>) -> Self {
        Self { session, graph, names: vec![name.into()], feeds: Vec::new(), options: ModelOptions::new() }
    }

    /// Feeds a tensor to a placeholder, `x:0` or `x`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the graph has no such output, [`Error::TensorFlow`].
    pub fn feed<T: TensorType>(mut self, name: &str, tensor: &'a Tensor<T>) -> Result<Self> {
        let target = find(self.graph, name)?;
        self.feeds.push(lend(target, tensor)?);
        Ok(self)
    }

    /// Sets the folder in which TensorFlow may write tensors that it cannot cut: see [`ModelOptions::scratch`].
    #[must_use]
    pub fn scratch(mut self, dir: impl AsRef<Path>) -> Self {
        self.options = self.options.scratch(dir);
        self
    }

    /// Adds another output of the same run: see [`compute_all`](Self::compute_all).
    #[must_use]
    pub fn and(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Computes the output in one run of the session. The value stays on its device, for example a GPU, until it is dropped.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the graph has no such output, [`Error::TensorFlow`] with TensorFlow's message, [`Error::Unsupported`] for
    /// resources and variants, [`Error::Io`] if a tensor that cannot be cut cannot be written.
    pub fn compute(self) -> Result<LiveTensor<'a>> {
        self.compute_all()?.into_iter().next().ok_or_else(|| BadRequest::impossible("there is no output").into())
    }

    /// Computes all outputs in one run of the session, in the order in which they were added.
    ///
    /// # Errors
    /// Those of [`compute`](Self::compute).
    pub fn compute_all(self) -> Result<Vec<LiveTensor<'a>>> {
        let targets = self.names.iter().map(|name| find(self.graph, name)).collect::<Result<Vec<_>>>()?;
        let values = compute(&self.session, self.graph, &targets, &[], &self.feeds, &self.options)?;
        Ok(values.into_iter().zip(&self.names).map(|(value, name)| LiveTensor::of(value, name)).collect())
    }
}

fn find(graph: &Graph, name: &str) -> Result<NodeOutput> {
    NodeOutput::find(graph, name)?.ok_or_else(|| Error::from(BadRequest::NoSuchOutput { name: name.to_owned() }))
}

/// A tensor that TensorFlow holds. Its elements are fetched slice by slice while others are written.
#[derive(Debug)]
pub struct LiveTensor<'a> {
    value: Live<'a>,
}

#[derive(Debug)]
enum Live<'a> {
    Held(Box<dyn TensorReader + 'a>),
    Spilled { source: Source, _dir: ScratchDir },
}

impl<'a> LiveTensor<'a> {
    fn of<S>(value: Value<S>, name: &str) -> Self
    where
        S: std::ops::Deref<Target = Session> + Send + Sync + 'a,
    {
        let value = match value {
            Value::Held(held) => Live::Held(held),
            Value::Spilled(spill) => {
                let Spill { bundle, dir } = *spill;
                Live::Spilled { source: Source::new(Path::new(name), Box::new(bundle), Origin::none()), _dir: dir }
            }
        };
        Self { value }
    }

    /// A tensor in memory. Numbers are not copied. Strings are written to a private folder in the system's temporary directory
    /// and read from there.
    ///
    /// # Errors
    /// [`Error::TensorFlow`], [`Error::Io`].
    pub fn of_tensor<T: TensorType>(tensor: &'a Tensor<T>) -> Result<Self> {
        Self::with_scratch(tensor, &ModelOptions::new())
    }

    /// As [`of_tensor`](Self::of_tensor), with the private folder in `scratch`.
    ///
    /// # Errors
    /// Those of [`of_tensor`](Self::of_tensor).
    pub fn of_tensor_in<T: TensorType>(tensor: &'a Tensor<T>, scratch: impl AsRef<Path>) -> Result<Self> {
        Self::with_scratch(tensor, &ModelOptions::new().scratch(scratch))
    }

    fn with_scratch<T: TensorType>(tensor: &'a Tensor<T>, options: &ModelOptions) -> Result<Self> {
        const NAME: &str = "tensor";
        let mut graph = Graph::new();
        let (session, operation) = attempt(
            || "making a session for a tensor".into(),
            || {
                let input = Builder::new(&mut graph).placeholder(T::data_type())?;
                Ok((Session::new(&session_options()?, &graph)?, input))
            },
        )?;
        let target = NodeOutput { name: NAME.into(), operation, index: 0 };
        let feeds = [lend(target.clone(), tensor)?];
        let values = compute(&Arc::new(session), &mut graph, &[target], &[], &feeds, options)?;
        let value = values.into_iter().next().ok_or_else(|| BadRequest::impossible("nothing was computed"))?;
        Ok(Self::of(value, NAME))
    }

    /// Dtype and shape.
    ///
    /// # Errors
    /// [`Error::Malformed`] when its temporary file has been damaged.
    pub fn spec(&self) -> Result<TensorSpec> {
        match &self.value {
            Live::Held(reader) => Ok(reader.spec().clone()),
            Live::Spilled { source, .. } => Ok(source.container().info(0)?.spec),
        }
    }

    /// A conversion of the tensor.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a dtype that no array can have.
    pub fn converter(&self) -> Result<Converter<'_>> {
        match &self.value {
            Live::Held(reader) => Ok(Converter::from_reader(Box::new(reader.as_ref()))),
            Live::Spilled { source, .. } => Converter::new(&source.at(0)?),
        }
    }

    /// A reader of the elements.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for strings, which have no fixed size.
    pub fn reader(&self) -> Result<Box<dyn TensorReader + '_>> {
        match &self.value {
            Live::Held(reader) => Ok(Box::new(reader.as_ref())),
            Live::Spilled { source, .. } => source.reader_of(0),
        }
    }
}

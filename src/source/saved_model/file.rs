//! Reads `saved_model.pb`: graphs with their tags and signatures.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::meta_graph::{self, Saver, Signature};
use crate::options::Options;
use crate::reader::proto_index::{FieldValue, FieldWalker, OuterField};
use crate::source::bundle::names::{names_in, shard_prefix};
use crate::source::bundle::{self, Bundle};
use crate::source::container::Container;
use crate::source::graph::constants::{NodeSurvey, WHAT as GRAPH};
use crate::source::graph::file::check_graph;
use crate::storage::blob::{Blob, Storage};
use crate::storage::paths::parent_of;
use crate::types::size::memory_len;

/// The tag of the graph for serving.
const SERVE: &str = "serve";
/// The default signature.
const DEFAULT_SIGNATURE: &str = "serving_default";
const WHAT: &str = "SavedModel message";
/// The signature that names the initialisation node of a model.
const INIT_OP: &str = "__saved_model_init_op";
/// Longest signature: names and shapes.
const MOST_SIGNATURE: u64 = 16 << 20;

/// The content of the `saved_model.pb` in a directory.
#[derive(Debug)]
pub(crate) struct SavedModel {
    pub(crate) dir: PathBuf,
    pub(crate) pb: PathBuf,
    pub(crate) file: Arc<dyn Blob>,
    storage: Arc<dyn Storage>,
    graphs: Vec<MetaGraph>,
    /// The chosen graph; `None` if the tags do not decide.
    chosen: Option<usize>,
}

/// One of its graphs.
#[derive(Debug, Default)]
struct MetaGraph {
    tags: Vec<String>,
    signatures: Vec<Signature>,
    /// The places of its `GraphDef`.
    graphs: Vec<Range<u64>>,
    startup: Startup,
}

/// What a graph needs before it can be used.
#[derive(Debug, Default)]
pub(crate) struct Startup {
    pub(crate) saver: Option<Saver>,
    /// The node to run once after restoring variables.
    pub(crate) init: Option<String>,
    /// Tensors to be fed the paths of files in `assets`, and the names of these files.
    pub(crate) assets: Vec<(String, String)>,
}

impl SavedModel {
    /// Scans the fields of `saved_model.pb`. Graphs, which can have gigabytes, are skipped.
    ///
    /// Field 1 is the schema version, field 2 a graph (`tensorflow/core/protobuf/saved_model.proto`).
    ///
    /// With `tag_set`, the chosen graph has exactly these tags. Without, it is the only graph, or the one tagged `serve` alone. Source:
    /// `FindMetaGraph` in `tensorflow/cc/saved_model/reader.cc`, which takes no other either.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if no graph has these tags, [`Error::Unsupported`] for other forms of the file, [`Error::Malformed`],
    /// [`Error::Io`].
    pub(crate) fn open(dir: &Path, tag_set: Option<&[String]>, storage: &Arc<dyn Storage>) -> Result<Self> {
        let pb = dir.join(PB);
        if !storage.is_file(&pb)? {
            let is_there = |name: &str| storage.is_file(&dir.join(name)).unwrap_or(false);
            let what = OTHER_FORMS.iter().find(|(name, _)| is_there(name)).map_or("a SavedModel", |(_, what)| what);
            return Err(Error::Unsupported { what: what.into(), detail: format!("{} has no {PB}", dir.display()) });
        }
        let file = storage.open(&pb)?;
        let mut outline = FieldWalker::of_file(&*file, WHAT);
        let mut graphs = Vec::new();
        while let Some(field) = outline.next_field()? {
            match field {
                OuterField { number: 1, value: FieldValue::Varint(version), offset, .. } if version != 1 => {
                    return Err(outline.malformed(offset, format!("schema version is {version}, expected 1")));
                }
                OuterField { number: 2, value: FieldValue::Bytes(range), .. } => graphs.push(MetaGraph::read(&*file, range)?),
                _ => {}
            }
        }
        if graphs.is_empty() {
            return Err(Error::malformed(&pb, WHAT, format!("no graph in {} bytes", file.len())));
        }
        let mut model = Self { dir: dir.to_owned(), pb, file, storage: Arc::clone(storage), graphs, chosen: None };
        model.chosen = match tag_set {
            Some(tags) => Some(model.tagged(tags.iter().map(String::as_str)).ok_or_else(|| model.no_such_tags(tags))?),
            None if model.graphs.len() == 1 => Some(0),
            None => model.tagged([SERVE]),
        };
        Ok(model)
    }

    /// The first graph with exactly these tags.
    fn tagged<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Option<usize> {
        let wanted: BTreeSet<&str> = tags.into_iter().collect();
        self.graphs.iter().position(|graph| graph.tags.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted)
    }

    fn no_such_tags(&self, tags: &[String]) -> BadRequest {
        BadRequest::NoSuchTags { path: self.dir.clone(), tags: tags.to_vec(), known: self.tag_sets() }
    }

    /// The tags of each graph.
    pub(crate) fn tag_sets(&self) -> Vec<Vec<String>> {
        self.graphs.iter().map(|graph| graph.tags.clone()).collect()
    }

    /// Why no graph is chosen, if none is.
    pub(crate) fn ambiguity(&self) -> Option<BadRequest> {
        self.chosen.is_none().then(|| self.several_graphs())
    }

    fn several_graphs(&self) -> BadRequest {
        BadRequest::SeveralGraphs { path: self.dir.clone(), tags: self.tag_sets() }
    }

    /// The constants of the chosen graph. Constants of other graphs follow if they are missing there or differ, with their
    /// graph's tags before the name.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    pub(crate) fn survey(&self) -> Result<NodeSurvey> {
        let look = |graph: &MetaGraph| -> Result<NodeSurvey> {
            let mut survey = NodeSurvey::default();
            for range in &graph.graphs {
                survey.graph(&mut FieldWalker::new(&*self.file, GRAPH, range.clone()))?;
            }
            Ok(survey)
        };
        let mut survey = self.chosen.map(|own| look(&self.graphs[own])).transpose()?.unwrap_or_default();
        for (_, other) in self.graphs.iter().enumerate().filter(|(number, _)| Some(*number) != self.chosen) {
            survey.add_others(look(other)?, other.tags.join(",").as_bytes(), |one, other| same_bytes(&*self.file, one, other))?;
        }
        self.file.check_unchanged()?;
        Ok(survey)
    }

    /// The prefix of the variables, if there are any.
    ///
    /// # Errors
    /// [`Error::NotFound`] if their data exist without an index, [`Error::Io`].
    pub(crate) fn variables(&self) -> Result<Option<PathBuf>> {
        let prefix = self.prefix();
        let index = bundle::index_path(&prefix);
        if self.storage.is_file(&index)? {
            return Ok(Some(prefix));
        }
        let stem = prefix.file_name().unwrap_or_default().as_bytes();
        match names_in(parent_of(&prefix), &self.storage).iter().find(|name| shard_prefix(name.as_bytes()) == Some(stem)) {
            Some(shard) => {
                let detail = format!("{} is missing, although {} is there", index.display(), shard.to_string_lossy());
                Err(Error::NotFound { what: "variables", detail })
            }
            None => Ok(None),
        }
    }

    /// Where the variables would be.
    pub(crate) fn prefix(&self) -> PathBuf {
        self.dir.join("variables").join("variables")
    }

    /// The chosen graph.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if the tags do not decide.
    fn graph(&self) -> Result<&MetaGraph> {
        let graph = self.chosen.map(|number| &self.graphs[number]);
        graph.ok_or_else(|| self.several_graphs().into())
    }

    /// What the chosen graph needs before it can be used.
    ///
    /// # Errors
    /// [`Error::BadRequest`] if no graph is chosen, here and in the functions below.
    pub(crate) fn startup(&self) -> Result<&Startup> {
        Ok(&self.graph()?.startup)
    }

    /// The chosen graph, as a `GraphDef`.
    ///
    /// # Errors
    /// [`Error::Limit`] for a graph that exceeds the memory, [`Error::Malformed`] if the file was written to since it was opened,
    /// [`Error::Io`].
    pub(crate) fn read_graph(&self, options: &Options) -> Result<Vec<u8>> {
        let mut graph = Vec::new();
        // A field in several parts is merged, and concatenating protobuf messages merges them.
        for range in &self.graph()?.graphs {
            let part = self.file.read_range(range, options.budget().as_bytes())?;
            if graph.is_empty() { graph = part } else { graph.extend_from_slice(&part) }
        }
        self.file.check_unchanged()?;
        Ok(graph)
    }

    /// The signatures of the chosen graph; empty if none is chosen.
    pub(crate) fn signatures(&self) -> &[Signature] {
        self.graph().map_or(&[], |graph| &graph.signatures)
    }

    /// The signature called `name`, or the default one.
    ///
    /// # Errors
    /// [`Error::BadRequest`] with the existing names.
    pub(crate) fn signature(&self, name: Option<&str>) -> Result<&Signature> {
        let name = name.unwrap_or(DEFAULT_SIGNATURE);
        self.graph()?.signatures.iter().find(|signature| signature.name == name).ok_or_else(|| {
            let known = self.signatures().iter().map(|signature| signature.name.clone()).collect();
            BadRequest::NoSuchSignature { path: self.dir.clone(), name: name.to_owned(), known }.into()
        })
    }

    /// The files of the model.
    pub(crate) fn files(&self, variables: Option<&Bundle>) -> Vec<PathBuf> {
        std::iter::once(self.pb.clone()).chain(variables.map(Bundle::files).unwrap_or_default()).collect()
    }

    /// Checks the whole chosen graph. `most` limits the memory for a node and the total that constants may declare.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    pub(crate) fn check_graph(&self, most: u64) -> Result<()> {
        let mut claimed = 0u64;
        for range in &self.graph()?.graphs {
            check_graph(&mut FieldWalker::new(&*self.file, GRAPH, range.clone()), most, &mut claimed, |_, _| ())?;
        }
        Ok(())
    }
}

impl MetaGraph {
    fn read(file: &dyn Blob, range: Range<u64>) -> Result<Self> {
        let mut outline = FieldWalker::new(file, WHAT, range);
        let mut graph = Self::default();
        let (mut main_op, mut legacy) = (None, None);
        while let Some(field) = outline.next_field()? {
            let FieldValue::Bytes(range) = field.value else { continue };
            let base = memory_len(range.start);
            match field.number {
                1 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.tags.append(&mut meta_graph::tags(&bytes, base).map_err(|error| error.in_file(file.path()))?);
                }
                2 => graph.graphs.push(range),
                3 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.startup.saver = meta_graph::saver(&bytes, base).map_err(|error| error.in_file(file.path()))?;
                }
                4 => {
                    // Collections of TensorFlow 1 may be long. Only these two matter.
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    let (name, nodes) = meta_graph::collection(&bytes, base).map_err(|error| error.in_file(file.path()))?;
                    match &name[..] {
                        "saved_model_main_op" => main_op = nodes.into_iter().next(),
                        "legacy_init_op" => legacy = nodes.into_iter().next(),
                        _ => {}
                    }
                }
                5 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    let signature = Signature::parse(&bytes, base).map_err(|error| error.in_file(file.path()))?;
                    // TensorFlow's own signature for initialising a model.
                    if signature.name == INIT_OP {
                        graph.startup.init = signature.outputs.into_iter().next().map(|output| output.tensor);
                    } else {
                        graph.signatures.push(signature);
                    }
                }
                6 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.startup.assets.push(meta_graph::asset(&bytes, base).map_err(|error| error.in_file(file.path()))?);
                }
                _ => {}
            }
        }
        graph.startup.init = graph.startup.init.or(main_op).or(legacy);
        graph.signatures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(graph)
    }
}

/// Whether two ranges of a file have the same bytes.
fn same_bytes(file: &dyn Blob, one: &Range<u64>, other: &Range<u64>) -> Result<bool> {
    const CHUNK: u64 = 1 << 20;
    let len = one.end - one.start;
    if len != other.end - other.start {
        return Ok(false);
    }
    for at in (0..len).step_by(memory_len(CHUNK)) {
        let chunk = |range: &Range<u64>| file.read_range(&(range.start + at..range.start + len.min(at + CHUNK)), CHUNK);
        if chunk(one)? != chunk(other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file that makes a directory a SavedModel.
pub(crate) const PB: &str = "saved_model.pb";

/// Unsupported forms of that file.
pub(crate) const OTHER_FORMS: &[(&str, &str)] =
    &[("saved_model.pbtxt", "a SavedModel in text form"), ("saved_model.cpb", "a chunked SavedModel")];

//! SavedModel directories: the variables are a bundle under `variables/`, graphs with constants and signatures stand in
//! `saved_model.pb`.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::bundle::{self, Bundle};
use super::constants::{Constants, Survey, WHAT as GRAPH};
use super::driver::Driver;
use super::graph::{Listing, check_graph};
use super::outline::{Outer, OuterValue, Outline, read_range};
use super::strings::StoredStrings;
use super::{Container, TensorInfo, TensorReader, live};
use crate::budget::Limits;
use crate::error::{Error, Result};
use crate::format::meta_graph::{self, Saver, Signature};
use crate::options::Options;
use crate::paths::{Stamp, is_file, parent_of};
use crate::spec::memory_len;

/// The file that makes a directory a SavedModel.
pub(crate) const PB: &str = "saved_model.pb";
/// Other forms of that file.
pub(crate) const OTHER_FORMS: &[(&str, &str)] =
    &[("saved_model.pbtxt", "a SavedModel in text form"), ("saved_model.cpb", "a chunked SavedModel")];
/// The tag of the graph that is meant for use.
const SERVE: &str = "serve";
/// The signature that is taken where none is named.
const DEFAULT_SIGNATURE: &str = "serving_default";
const WHAT: &str = "SavedModel message";
/// The signature that has the node to be run before a model is used.
const INIT_OP: &str = "__saved_model_init_op";
/// A signature is names and shapes.
const MOST_SIGNATURE: u64 = 16 << 20;

/// A SavedModel directory, or the `saved_model.pb` in it.
pub(crate) struct SavedModelDir;

impl Driver for SavedModelDir {
    fn name(&self) -> &'static str {
        "saved-model"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        if path.file_name().is_some_and(|name| name == PB) && is_file(path)? {
            return Ok(Some(parent_of(path).to_owned()));
        }
        for name in [PB].iter().chain(OTHER_FORMS.iter().map(|(name, _)| name)) {
            if is_file(&path.join(name))? {
                return Ok(Some(path.to_owned()));
            }
        }
        Ok(None)
    }

    fn needs_tensorflow(&self, _: &Path, options: &Options) -> bool {
        options.model.wants_model()
    }

    fn open(&self, dir: &Path, options: &Options) -> Result<Box<dyn Container>> {
        let model = SavedModel::open(dir)?;
        let variables = model.variables().map(|prefix| Bundle::open(&prefix, self.name(), &Limits::default())).transpose()?;
        if options.model.wants_model() {
            return open_signature(model, variables.as_ref(), options);
        }
        let mut survey = model.survey()?;
        if let Some(bundle) = &variables {
            survey.leave_out(|name| bundle.find(name).is_ok_and(|found| found.is_some()));
        }
        Ok(match (variables, survey.has_constants()) {
            (Some(bundle), false) => Box::new(bundle.with_signatures(model.signatures())),
            (None, false) => Box::new(Listing::of_model(self.name(), &model)?),
            (variables, true) => {
                let signatures = model.signatures().to_vec();
                Box::new(Grouped { variables, constants: Constants::new(self.name(), &model.pb, survey, signatures)? })
            }
        })
    }
}

/// The outputs of a signature of a model, of which TensorFlow is given nothing that is not as it should be.
fn open_signature(model: SavedModel, variables: Option<&Bundle>, options: &Options) -> Result<Box<dyn Container>> {
    model.signature(options.model.signature.as_deref())?;
    model.check_graph(options.budget().as_bytes())?;
    variables.map(Bundle::check_all).transpose()?;
    let files = model.files(variables);
    live::open_signature(model, files, options)
}

/// What stands in the `saved_model.pb` of a directory.
#[derive(Debug)]
pub(crate) struct SavedModel {
    pub(crate) dir: PathBuf,
    pub(crate) pb: PathBuf,
    stamp: Stamp,
    graphs: Vec<MetaGraph>,
}

/// One of its graphs.
#[derive(Debug, Default)]
struct MetaGraph {
    tags: Vec<String>,
    signatures: Vec<Signature>,
    /// Where its `GraphDef` lies.
    graphs: Vec<Range<u64>>,
    startup: Startup,
}

/// What makes a graph ready to be used.
#[derive(Debug, Default)]
pub(crate) struct Startup {
    pub(crate) saver: Option<Saver>,
    /// The node that is run once, after variables have been restored.
    pub(crate) init: Option<String>,
    /// Tensors that are fed the paths of files in `assets`, and the names of these.
    pub(crate) assets: Vec<(String, String)>,
}

impl SavedModel {
    /// Looks through the fields of `saved_model.pb`; graphs, which can have gigabytes, are skipped.
    ///
    /// Field 1 is the schema version, field 2 a graph (`tensorflow/core/protobuf/saved_model.proto`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other forms of the file, [`Error::Malformed`], [`Error::Io`].
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let pb = dir.join(PB);
        if !pb.is_file() {
            let what = OTHER_FORMS.iter().find(|(name, _)| dir.join(name).is_file()).map_or("a SavedModel", |(_, what)| what);
            return Err(Error::Unsupported { what: what.into(), detail: format!("{} has no {PB}", dir.display()) });
        }
        let file = File::open(&pb).map_err(Error::io("open", &pb))?;
        let mut outline = Outline::of_file(&file, &pb, WHAT)?;
        let mut graphs = Vec::new();
        while let Some(field) = outline.next_field()? {
            match field {
                Outer { number: 1, value: OuterValue::Varint(version), offset, .. } if version != 1 => {
                    return Err(outline.malformed(offset, format!("schema version is {version}, expected 1")));
                }
                Outer { number: 2, value: OuterValue::Bytes(range), .. } => graphs.push(MetaGraph::read(&file, &pb, range)?),
                _ => {}
            }
        }
        if graphs.is_empty() {
            let len = file.metadata().map_or(0, |metadata| metadata.len());
            return Err(Error::malformed(&pb, WHAT, format!("no graph in {len} bytes")));
        }
        let stamp = Stamp::of(&file).map_err(Error::io("look at", &pb))?;
        Ok(Self { dir: dir.to_owned(), pb, stamp, graphs })
    }

    /// The constants of its graph; those of its other graphs that are not in it have the tags of theirs in front.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    fn survey(&self) -> Result<Survey> {
        let file = File::open(&self.pb).map_err(Error::io("open", &self.pb))?;
        let look = |graph: &MetaGraph| -> Result<Survey> {
            let mut survey = Survey::default();
            for range in &graph.graphs {
                survey.graph(&mut Outline::new(&file, &self.pb, GRAPH, range.clone()))?;
            }
            Ok(survey)
        };
        let own = self.graph();
        let mut survey = look(own)?;
        for other in self.graphs.iter().filter(|graph| !std::ptr::eq(*graph, own)) {
            survey.add_others(look(other)?, other.tags.join(",").as_bytes());
        }
        self.stamp.check(&file, &self.pb)?;
        Ok(survey)
    }

    /// The prefix of its variables, if it has any.
    pub(crate) fn variables(&self) -> Option<PathBuf> {
        let prefix = self.prefix();
        bundle::index_path(&prefix).is_file().then_some(prefix)
    }

    /// Where its variables would be.
    pub(crate) fn prefix(&self) -> PathBuf {
        self.dir.join("variables").join("variables")
    }

    /// The graph for use, else the first one.
    fn graph(&self) -> &MetaGraph {
        self.graphs.iter().find(|graph| graph.tags.iter().any(|tag| tag == SERVE)).unwrap_or(&self.graphs[0])
    }

    /// What makes its graph ready to be used.
    pub(crate) fn startup(&self) -> &Startup {
        &self.graph().startup
    }

    /// Its graph, as a `GraphDef`.
    ///
    /// # Errors
    /// [`Error::Limit`] for one that is larger than the memory, [`Error::Malformed`] if the file was written to since it was opened,
    /// [`Error::Io`].
    pub(crate) fn read_graph(&self, options: &Options) -> Result<Vec<u8>> {
        let file = File::open(&self.pb).map_err(Error::io("open", &self.pb))?;
        let mut graph = Vec::new();
        // What comes in parts is merged, and a message is merged by what follows it.
        for range in &self.graph().graphs {
            let part = read_range(&file, &self.pb, range, options.budget().as_bytes())?;
            if graph.is_empty() { graph = part } else { graph.extend_from_slice(&part) }
        }
        self.stamp.check(&file, &self.pb)?;
        Ok(graph)
    }

    pub(crate) fn signatures(&self) -> &[Signature] {
        &self.graph().signatures
    }

    /// The signature called `name`; without a name the usual one.
    ///
    /// # Errors
    /// [`Error::BadRequest`] with the names that there are.
    pub(crate) fn signature(&self, name: Option<&str>) -> Result<&Signature> {
        let name = name.unwrap_or(DEFAULT_SIGNATURE);
        self.signatures().iter().find(|signature| signature.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.signatures().iter().map(|signature| &signature.name[..]).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::bad_request(format!("{} has no signature {name:?}; it has {names}", self.dir.display()))
        })
    }

    /// The files that it is read from.
    pub(crate) fn files(&self, variables: Option<&Bundle>) -> Vec<PathBuf> {
        std::iter::once(self.pb.clone()).chain(variables.map(Bundle::files).unwrap_or_default()).collect()
    }

    /// Checks all of what is in its graph; `most` is the memory that there is for a node, and that constants may claim.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Limit`], [`Error::Io`].
    pub(crate) fn check_graph(&self, most: u64) -> Result<()> {
        let file = File::open(&self.pb).map_err(Error::io("open", &self.pb))?;
        let mut claimed = 0u64;
        for range in &self.graph().graphs {
            check_graph(&mut Outline::new(&file, &self.pb, GRAPH, range.clone()), most, &mut claimed, |_, _| ())?;
        }
        Ok(())
    }
}

impl MetaGraph {
    fn read(file: &File, path: &Path, range: Range<u64>) -> Result<Self> {
        let mut outline = Outline::new(file, path, WHAT, range);
        let mut graph = Self::default();
        let (mut main_op, mut legacy) = (None, None);
        while let Some(field) = outline.next_field()? {
            let OuterValue::Bytes(range) = field.value else { continue };
            let base = memory_len(range.start);
            match field.number {
                1 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.tags.append(&mut meta_graph::tags(&bytes, base).map_err(|error| error.in_file(path))?);
                }
                2 => graph.graphs.push(range),
                3 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.startup.saver = meta_graph::saver(&bytes, base).map_err(|error| error.in_file(path))?;
                }
                4 => {
                    // Collections of TensorFlow 1 may be long, and only these matter.
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    let (name, nodes) = meta_graph::collection(&bytes, base).map_err(|error| error.in_file(path))?;
                    match &name[..] {
                        "saved_model_main_op" => main_op = nodes.into_iter().next(),
                        "legacy_init_op" => legacy = nodes.into_iter().next(),
                        _ => {}
                    }
                }
                5 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    let signature = Signature::parse(&bytes, base).map_err(|error| error.in_file(path))?;
                    // TensorFlow's own, which makes a model ready.
                    if signature.name == INIT_OP {
                        graph.startup.init = signature.outputs.into_iter().next().map(|output| output.tensor);
                    } else {
                        graph.signatures.push(signature);
                    }
                }
                6 => {
                    let bytes = outline.read(&range, MOST_SIGNATURE)?;
                    graph.startup.assets.push(meta_graph::asset(&bytes, base).map_err(|error| error.in_file(path))?);
                }
                _ => {}
            }
        }
        graph.startup.init = graph.startup.init.or(main_op).or(legacy);
        graph.signatures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(graph)
    }
}

/// Variables, if there are any, and constants behind them.
#[derive(Debug)]
struct Grouped {
    variables: Option<Bundle>,
    constants: Constants,
}

/// A tensor of one of both.
type Part<'a> = (&'a dyn Container, usize);

impl Grouped {
    /// Whether it has variables that are more than bookkeeping.
    fn has_meant_variables(&self) -> Result<bool> {
        let Some(bundle) = &self.variables else { return Ok(false) };
        // Bookkeeping is a few tensors at most.
        const MOST_BOOKKEEPING: usize = 8;
        for index in 0..bundle.len()?.min(MOST_BOOKKEEPING) {
            if bundle.is_meant(index)? {
                return Ok(true);
            }
        }
        Ok(bundle.len()? > MOST_BOOKKEEPING)
    }

    /// How many of the first tensors are variables.
    fn variables(&self) -> Result<usize> {
        self.variables.as_ref().map_or(Ok(0), Container::len)
    }

    fn part(&self, index: usize) -> Result<Part<'_>> {
        let variables = self.variables()?;
        Ok(match &self.variables {
            Some(bundle) if index < variables => (bundle, index),
            _ => (&self.constants, index - variables),
        })
    }
}

impl Container for Grouped {
    fn format(&self) -> &'static str {
        self.constants.format()
    }

    fn len(&self) -> Result<usize> {
        Ok(self.variables()? + self.constants.len()?)
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        // Constants only where there is nothing else.
        let (part, at) = self.part(index)?;
        Ok(part.is_meant(at)? && (index < self.variables()? || !self.has_meant_variables()?))
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let (part, at) = self.part(index)?;
        let info = part.info(at)?;
        Ok(TensorInfo { group: info.group.or(Some("variables")), ..info })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        match self.variables.as_ref().map(|bundle| bundle.find(name)).transpose()?.flatten() {
            Some(index) => Ok(Some(index)),
            None => Ok(self.constants.find(name)?.zip(Some(self.variables()?)).map(|(at, variables)| variables + at)),
        }
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        self.variables.as_ref()?.find_alias(alias)
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (part, at) = self.part(index)?;
        part.reader(at)
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let (part, at) = self.part(index)?;
        part.strings(at)
    }

    fn heap_bytes(&self) -> u64 {
        self.variables.as_ref().map_or(0, Container::heap_bytes) + self.constants.heap_bytes()
    }

    fn files(&self) -> Vec<PathBuf> {
        [self.constants.files(), self.variables.as_ref().map(Container::files).unwrap_or_default()].concat()
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.variables.as_ref().map(Container::facts).unwrap_or_default();
        facts.extend(self.constants.facts());
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (part, at) = self.part(index)?;
        part.tensor_facts(at)
    }

    fn warnings(&self) -> Vec<String> {
        [self.variables.as_ref().map(Container::warnings).unwrap_or_default(), self.constants.warnings()].concat()
    }

    fn signatures(&self) -> &[Signature] {
        self.constants.signatures()
    }
}

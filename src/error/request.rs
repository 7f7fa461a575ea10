//! Requests that make no sense: one kind for each reason, with the data that its text shows.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use strum::VariantNames;

use super::texts::{Arrays, AtATime, Axes, Before, Listed, Only, Or, Pipe, RowsOf, ShapeText, Tags, Takes, Twice, WithoutEffect};

/// Why a request makes no sense. Every text says what was found, and what is possible instead where that is not obvious.
///
/// Names of options are in backquotes, as the library spells them.
#[derive(Debug, Clone, PartialEq, thiserror::Error, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum BadRequest {
    // Where it happened.
    /// The request for one of several tensors. The code is that of the request inside.
    #[error("tensor {name}: {request}")]
    OfTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        request: Box<BadRequest>,
    },
    /// The request for a feature of records. The code is that of the request inside.
    #[error("feature {name:?}: {request}")]
    OfFeature {
        /// The feature.
        name: String,
        /// What is wrong with it.
        request: Box<BadRequest>,
    },
    /// A file that is fed to an input of a model. The code is that of the request inside.
    #[error("{path} as {input}: {request}")]
    OfInput {
        /// The file.
        path: PathBuf,
        /// The input.
        input: String,
        /// What is wrong with it.
        request: Box<BadRequest>,
    },

    // Rows and shapes.
    /// Rows of a tensor without axes.
    #[error("a scalar has no rows to choose from")]
    RowsOfScalar,
    /// Rows of one of the tensors that a ragged or sparse one consists of.
    #[error("`rows` of {name}: it is a part of {whole}, which is ragged or sparse: rows of its parts have no meaning")]
    RowsOfPart {
        /// The tensor.
        name: String,
        /// The ragged or sparse tensor.
        whole: String,
    },
    /// Rows within batches, of something that has one value per batch.
    #[error("`rows` counts rows within batches, but {name} has one value per batch: convert it on its own")]
    RowsOfBatches {
        /// What has one value per batch.
        name: String,
    },
    /// Rows within batches, of something that becomes two arrays.
    #[error("`rows` of {name}, which becomes values and offsets: rows within batches need a single array")]
    RowsOfTwoArrays {
        /// What becomes two arrays.
        name: String,
    },
    /// Rows counted from an end that is not known when they have to be found.
    #[error(
        "{}`rows` counts from the end, which is only known after everything has been read or computed: count from the start",
        Before(path.as_ref())
    )]
    UnknownEnd {
        /// The source, where it is a file or a stream.
        path: Option<PathBuf>,
    },
    /// All rows of a source without an end.
    #[error("{path} has no end: choose rows with `rows` A:B")]
    Endless {
        /// The source.
        path: PathBuf,
    },
    /// A shape whose bytes cannot be counted, or not by NumPy. Axes of length 0 count as 1.
    #[error("shape {} of {itemsize}-byte elements exceeds 2^63 - 1 bytes", ShapeText(shape))]
    ShapeTooLarge {
        /// The shape.
        shape: Vec<u64>,
        /// Bytes of an element.
        itemsize: u64,
    },
    /// More rows, elements or bytes than can be counted.
    #[error("there are 2^64 {what} or more")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
    },
    /// More dimensions than NumPy has.
    #[error("{dimensions} dimensions, NumPy arrays have at most {most}")]
    TooManyDimensions {
        /// The dimensions that are asked for.
        dimensions: usize,
        /// The most that are possible.
        most: usize,
    },
    /// A negative length other than -1, which stands for an unknown one.
    #[error("an axis of {axis} in the shape for {name:?}")]
    NegativeAxis {
        /// The feature.
        name: String,
        /// The length that is asked for.
        axis: i64,
    },

    // Bytes and elements in memory.
    /// The bytes to cast and the place for the result do not hold the same number of elements.
    #[error("{from_bytes} bytes of {from} elements cannot be cast into {to_bytes} bytes of {to}")]
    CastLength {
        /// Bytes that are given.
        from_bytes: u64,
        /// The dtype that they have.
        from: &'static str,
        /// Bytes of the result.
        to_bytes: u64,
        /// The dtype of the result.
        to: &'static str,
    },
    /// A buffer that has another length than the array.
    #[error("{dtype} {} has {needed} bytes, but the buffer has {given}", ShapeText(shape))]
    BufferLength {
        /// The dtype of the array.
        dtype: &'static str,
        /// The shape of the array.
        shape: Vec<u64>,
        /// Bytes of the array.
        needed: u64,
        /// Bytes of the buffer.
        given: u64,
    },
    /// A buffer that is full before all rows have been read; how many there are was not known before.
    #[error("the selected rows have more than the {given} bytes of the buffer")]
    BufferTooShort {
        /// Bytes of the buffer.
        given: u64,
    },
    /// A view with another number of dimensions than the array.
    #[error("{dtype} {} has {} dimensions, but a view of {asked} dimensions was asked for", ShapeText(shape), shape.len())]
    ViewDimensions {
        /// The dtype of the array.
        dtype: &'static str,
        /// The shape of the array.
        shape: Vec<u64>,
        /// The number of dimensions that was asked for.
        asked: usize,
    },
    /// A file with elements that cannot be taken for what they should be.
    #[error("{path} holds {found}, which cannot be {wanted}")]
    NotOfDtype {
        /// The file.
        path: PathBuf,
        /// NumPy's descriptor of the elements.
        found: String,
        /// The dtype or the descriptor that was asked for.
        wanted: String,
    },

    // Arrays that a program writes.
    /// Bytes that end inside an element.
    #[error("{given} bytes are not a whole number of {dtype} elements")]
    PartialElement {
        /// Bytes that are given.
        given: u64,
        /// The dtype of the array.
        dtype: &'static str,
    },
    /// Elements for an array whose rows have none.
    #[error("elements for {}, which have none", RowsOf(*of, shape))]
    NoElements {
        /// The rows of the array, if their number is fixed.
        of: Option<u64>,
        /// The shape of a row.
        shape: Vec<u64>,
    },
    /// Another number of bytes than the rows have.
    #[error("{given} bytes for rows {}:{}, each of which has {row_bytes}", rows.start, rows.end)]
    RowBytes {
        /// Bytes that are given.
        given: u64,
        /// The rows that they are for.
        rows: Range<u64>,
        /// Bytes of a row.
        row_bytes: u64,
    },
    /// Rows that the array does not have.
    #[error("rows {}:{} of an array of {}", rows.start, rows.end, RowsOf(*of, shape))]
    NoSuchRows {
        /// The rows.
        rows: Range<u64>,
        /// The rows of the array, if their number is fixed.
        of: Option<u64>,
        /// The shape of a row.
        shape: Vec<u64>,
    },
    /// Rows that have been written before.
    #[error("some of the rows {}:{} have been written already", rows.start, rows.end)]
    RowsWritten {
        /// The rows.
        rows: Range<u64>,
    },
    /// An array with a gap.
    #[error("row {row} was never written")]
    RowMissing {
        /// The first row that is missing.
        row: u64,
    },
    /// An array that ends too early.
    #[error("{written} of {of} rows were written")]
    RowsMissing {
        /// The rows that were written.
        written: u64,
        /// The rows of the array.
        of: u64,
    },
    /// An array that ends inside a row.
    #[error("the last row has {given} of {row_bytes} bytes")]
    PartialRow {
        /// Bytes of the last row.
        given: u64,
        /// Bytes of every other row.
        row_bytes: u64,
    },
    /// An array with a part that could not be written.
    #[error("an earlier write of a part of the array failed")]
    EarlierFailure,

    // Paths and sources.
    /// An output that ends in `..` or `/`.
    #[error("{path} is not a file name")]
    NotAFileName {
        /// The path.
        path: PathBuf,
    },
    /// A directory, a pipe or a device where a file is needed.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// An output that is a file of the source.
    #[error("{path} is a file of the source itself and cannot be replaced")]
    OwnFile {
        /// The file.
        path: PathBuf,
    },
    /// The name of a format that does not exist.
    #[error("there is no format {name:?}, only {}", Listed(known))]
    NoSuchFormat {
        /// The name.
        name: String,
        /// The formats that exist.
        known: Vec<&'static str>,
    },
    /// A pattern of files that do not belong together.
    #[error("{path} stands for files of several formats: {file} is {format}, others are {others}. Name each on its own")]
    SeveralFormats {
        /// The pattern.
        path: PathBuf,
        /// A file.
        file: PathBuf,
        /// Its format.
        format: &'static str,
        /// The format of other files.
        others: &'static str,
    },
    /// Several files as one source of a format that has no sets of files.
    #[error("{path}: in this format, each file is a separate source")]
    SeparateSources {
        /// The path that stands for the files.
        path: PathBuf,
    },
    /// A pattern with too many braces.
    #[error("the pattern {pattern} expands to more than {most} patterns: use fewer braces")]
    TooManyPatterns {
        /// The pattern.
        pattern: String,
        /// The most that are possible.
        most: usize,
    },
    /// A set of no shards, or of too many.
    #[error("{path}: a set has 1 to {most} shards")]
    NumberOfShards {
        /// The set, as `NAME@NUMBER`.
        path: PathBuf,
        /// The most that are possible.
        most: u64,
    },
    /// A source, or a shard of a set, that is given twice.
    #[error("{}", Twice(path, again.as_ref()))]
    GivenTwice {
        /// The source; `-` is standard input.
        path: PathBuf,
        /// The file that is the same shard.
        again: Option<PathBuf>,
    },
    /// A pipe that has been read.
    #[error("{}{} can be read only once, and has been", Before(manifest.as_ref()), Pipe(path))]
    ReadOnce {
        /// The pipe; `-` is standard input.
        path: PathBuf,
        /// The manifest of arrays that were made from it, if they are the reason to read it again.
        manifest: Option<PathBuf>,
    },
    /// The sources of arrays whose manifest names none.
    #[error("{manifest} does not say what the arrays were made from: name it with `against` SRC")]
    UnnamedSource {
        /// The manifest of the arrays.
        manifest: PathBuf,
    },
    /// Fewer than two sources to join.
    #[error("joining (`concat`) needs several sources{}", Only(only.as_ref(), *are_files_joined))]
    NothingToJoin {
        /// The only source, if there is one.
        only: Option<PathBuf>,
        /// Whether it consists of several files, which follow each other anyway.
        are_files_joined: bool,
    },
    /// A source to join that has been shared before.
    #[error("{path} is still in use elsewhere: join sources before taking tensors from them")]
    StillInUse {
        /// The source.
        path: PathBuf,
    },
    /// Records joined to something else.
    #[error("{path} cannot be joined to {other}: only one of them is of records")]
    OnlyOneOfRecords {
        /// One source.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// Two tensors of sources side by side that would have the same name.
    #[error("two tensors would be called {name}, the second of {path}: convert it on its own")]
    SameName {
        /// The name.
        name: String,
        /// The source of the second one.
        path: PathBuf,
    },

    // Models.
    /// Tags that no graph of a SavedModel has.
    #[error("{path} has no graph tagged {}; its graphs are tagged {}", Tags(std::slice::from_ref(tags)), Tags(known))]
    NoSuchTags {
        /// The SavedModel.
        path: PathBuf,
        /// The tags.
        tags: Vec<String>,
        /// The tags of each graph.
        known: Vec<Vec<String>>,
    },
    /// A SavedModel with several graphs, none of which is chosen.
    #[error("{path} has {} graphs, tagged {}: none is tagged serve and nothing else. `tag_set` chooses one", tags.len(), Tags(tags))]
    SeveralGraphs {
        /// The SavedModel.
        path: PathBuf,
        /// The tags of each graph.
        tags: Vec<Vec<String>>,
    },
    /// The name of a signature that does not exist.
    #[error("{path} has no signature {name:?}; it has {}", Listed(known))]
    NoSuchSignature {
        /// The SavedModel.
        path: PathBuf,
        /// The name.
        name: String,
        /// The signatures that exist.
        known: Vec<String>,
    },
    /// A signature of a graph.
    #[error("{path} is a graph, which has no signatures")]
    SignatureOfGraph {
        /// The graph.
        path: PathBuf,
    },
    /// Choices for a model, made for a data set.
    #[error("{path} is a data set: it has no signature and no inputs, and makes its own batches")]
    InputOfDataSet {
        /// The data set.
        path: PathBuf,
    },
    /// The name of an input that does not exist.
    #[error("{path} has no input {name:?}; it has {}", Listed(known))]
    NoSuchInput {
        /// The model.
        path: PathBuf,
        /// The name.
        name: String,
        /// The inputs that exist.
        known: Vec<String>,
    },
    /// An output that a graph does not have.
    #[error("the graph has no output {name:?}")]
    NoSuchOutput {
        /// The output.
        name: String,
    },
    /// An input that is fed twice.
    #[error("the input {name:?} is fed twice")]
    FedTwice {
        /// The input.
        name: String,
    },
    /// An input that is needed and not fed.
    #[error("the input {name} ({dtype}) is missing: `feed` {name}=ARRAY.npy")]
    InputMissing {
        /// The input.
        name: String,
        /// Its dtype; `?` if this version does not know it.
        dtype: &'static str,
    },
    /// Batches without any rows.
    #[error("a batch must have at least one row")]
    EmptyBatch,
    /// Batches of a model whose inputs have no axis.
    #[error("there is no input with an axis to cut into batches: `feed` NAME=ARRAY.npy")]
    NothingToBatch,
    /// Inputs with different numbers of rows.
    #[error("{path} has {rows} rows, but {other} has {other_rows}: batches need the same number")]
    UnequalInputs {
        /// One file.
        path: PathBuf,
        /// Its rows.
        rows: u64,
        /// The other file.
        other: PathBuf,
        /// Its rows.
        other_rows: u64,
    },
    /// An input that would be fed from several sources.
    #[error("{path}: an input is fed from one source, but the path stands for {sources}")]
    SeveralSources {
        /// The path.
        path: PathBuf,
        /// How many sources it stands for.
        sources: usize,
    },
    /// Elements that an input does not take.
    #[error("the array has {found}, but the input takes {}", Takes(*dtype, *descr))]
    InputDtype {
        /// NumPy's descriptor of the elements.
        found: String,
        /// The dtype of the input, if this version knows it.
        dtype: Option<&'static str>,
        /// NumPy's descriptor of that dtype, if it has one.
        descr: Option<&'static str>,
    },
    /// Values and offsets for an input that takes no strings.
    #[error("values and offsets are strings, but the input takes {}", dtype.unwrap_or("something else"))]
    InputNotStrings {
        /// The dtype of the input, if this version knows it.
        dtype: Option<&'static str>,
    },
    /// Pickled Python objects for an input.
    #[error(
        "its elements are pickled Python objects, which are never loaded: {}",
        if *takes_strings {
            "numpy.array(array.tolist()) turns it into strings; records or values and offsets would keep their NULs"
        } else {
            "array.astype turns it into numbers"
        }
    )]
    InputPickled {
        /// Whether the input takes strings.
        takes_strings: bool,
    },
    /// Elements in the byte order of other machines for an input.
    #[error(
        "the array has {found}, which is not this machine's byte order: array.astype('{}')",
        found.trim_start_matches(['<', '>'])
    )]
    InputByteOrder {
        /// NumPy's descriptor of the elements.
        found: String,
    },
    /// An array in Fortran order for an input.
    #[error("the array is in Fortran order, where rows are not contiguous: use numpy.ascontiguousarray")]
    InputFortranOrder,
    /// An array whose shape an input does not take.
    #[error("the array has shape {}{}, but the input takes {}", ShapeText(shape), AtATime(*batch), Axes(expected))]
    InputShape {
        /// The shape of the array.
        shape: Vec<u64>,
        /// The rows that are fed at a time.
        batch: Option<u64>,
        /// The shape that the input takes, as far as it is known.
        expected: Vec<Option<u64>>,
    },
    /// Strings of which the longest may have ended in NUL, which their array does not show.
    #[error(
        "no element is as long as {kind}{size} allows. Either the longest ended in NUL, which NumPy takes for padding: values and offsets \
         keep it (convert `strings` offsets writes them, `feed` takes them), and so do records. Or the array is wider than it need be: \
         numpy.array(array.tolist()) is not"
    )]
    InputPadded {
        /// `S` or `U`.
        kind: char,
        /// The length of an element.
        size: u64,
    },
    /// Values or offsets with several axes.
    #[error("{path}: {axes} axes, but values and offsets have one")]
    InputAxes {
        /// The file.
        path: PathBuf,
        /// Its axes.
        axes: usize,
    },
    /// A path for TensorFlow that is not UTF-8.
    #[error("{path}: TensorFlow takes only paths in UTF-8")]
    PathNotUtf8 {
        /// The path.
        path: PathBuf,
    },

    // Records, images, videos.
    /// A start behind the end of the file.
    #[error("{path}: it has {len} bytes, but records should start at byte {start}")]
    StartBehindEnd {
        /// The file.
        path: PathBuf,
        /// Bytes of the file.
        len: u64,
        /// The start.
        start: u64,
    },
    /// A stream of frames without something that has to be known to cut it.
    #[error("{path}: a stream of frames needs {missing}, for example `raw` uint8 `shape` 480,640,3")]
    UnknownFrames {
        /// The stream.
        path: PathBuf,
        /// The choice that is missing.
        missing: &'static str,
    },
    /// A video stream that does not exist.
    #[error("{path} has no video stream {stream}, its streams are 0 to {last}")]
    NoSuchStream {
        /// The video.
        path: PathBuf,
        /// The number that was asked for.
        stream: usize,
        /// The number of the last stream.
        last: usize,
    },
    /// A number of channels that images or frames cannot have.
    #[error("{what} have {} channels, not {asked}", Or(possible))]
    NoSuchChannels {
        /// What was to have them.
        what: &'static str,
        /// What is possible.
        possible: &'static [u8],
        /// The number that was asked for.
        asked: u8,
    },
    /// Raw bytes as a dtype whose elements have no fixed size.
    #[error("raw bytes cannot be {dtype}")]
    RawDtype {
        /// The dtype.
        dtype: &'static str,
    },
    /// A shape for steps that have another number of values.
    #[error("shape {} has {elements} elements, a step has {values}", ShapeText(shape))]
    StepShape {
        /// The shape.
        shape: Vec<u64>,
        /// Its elements.
        elements: u64,
        /// The values of a step.
        values: u64,
    },
    /// A text for missing values that is longer than all values.
    #[error("{text:?} is longer than its longest string, which has {longest}")]
    MissingTooLong {
        /// The text.
        text: String,
        /// The length of the longest string.
        longest: u64,
    },
    /// A text for missing values that is no value of their dtype, or would be changed.
    #[error("{text:?} is not a value of {dtype}")]
    NotAValue {
        /// The text.
        text: String,
        /// The dtype.
        dtype: &'static str,
    },

    // Arrays that are made.
    /// Strings that make an array too large, because all elements are as long as the longest.
    #[error("{name}, the longest of its strings has {longest} {unit}: {request}")]
    StringsTooLong {
        /// The tensor.
        name: String,
        /// The length of the longest string.
        longest: u64,
        /// Bytes or characters.
        unit: &'static str,
        /// Why the array is not possible.
        request: Box<BadRequest>,
    },
    /// Two arrays where one is needed.
    #[error("values and offsets are two arrays, and {taker} takes one: {instead}")]
    TwoArrays {
        /// What takes one array: a method of `Converter`, or a stream.
        taker: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A stream of an array whose length is not known when it starts.
    #[error("its number of rows is only known after everything has been read or computed, and a stream starts with it: write a file")]
    StreamLength,
    /// Elements that change their order, in a stream or by a method of writing that keep it.
    #[error("an array whose order of elements changes cannot be {way}: {instead}, or keep the source's order (`layout`)")]
    OrderChanges {
        /// How it was to be written: `streamed`, or by which method.
        way: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A safetensors file in Fortran order or big-endian.
    #[error("safetensors files are in C order and little-endian: leave out `layout` and `byte_order`, or write `.npy` files")]
    PackedForm,
    /// Arrays of an export that would have the same file name.
    #[error("{} would both become {file}: convert them into two directories", Arrays(arrays))]
    SameFile {
        /// The tensor of each, and the part of it that the array holds.
        arrays: Vec<(String, String)>,
        /// The file name.
        file: String,
    },
    /// An array to compare whose strings were made in another way than said.
    #[error("{path} has strings as `strings` {found} makes them, not as `strings` {asked} does")]
    StringsMadeAs {
        /// The array.
        path: PathBuf,
        /// How it was made.
        found: String,
        /// How it is said to be made.
        asked: String,
    },
    /// Choices that would change nothing.
    #[error("{}", WithoutEffect(options))]
    WithoutEffect {
        /// The options, each with what it applies to.
        options: Vec<(String, &'static str)>,
    },

    // Others.
    /// A refusal by a caller's own code: a [`TensorReader`](crate::reader::TensorReader) of its own, or a program. The library makes none.
    #[error("{detail}")]
    Custom {
        /// What was requested, and what would be possible.
        detail: String,
    },
    /// A state that the library's own checks exclude.
    #[error("{what}: this is a mistake in mmconvert, please report it")]
    Impossible {
        /// The state.
        what: String,
    },
}

impl BadRequest {
    /// Variants around another request, whose code they have.
    const AROUND: [&'static str; 3] = ["of-tensor", "of-feature", "of-input"];

    /// The code of this kind, in lower case with hyphens. Codes stay the same between versions; texts may change.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OfTensor { request, .. } | Self::OfFeature { request, .. } | Self::OfInput { request, .. } => request.code(),
            kind => kind.into(),
        }
    }

    /// All codes.
    pub(super) fn codes() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().copied().filter(|code| !Self::AROUND.contains(code))
    }

    /// The same, for one of several tensors.
    pub(crate) fn of_tensor(self, name: impl fmt::Display) -> Self {
        Self::OfTensor { name: name.to_string(), request: Box::new(self) }
    }

    /// The same, for a feature of records.
    pub(crate) fn of_feature(self, name: &str) -> Self {
        Self::OfFeature { name: name.to_owned(), request: Box::new(self) }
    }

    /// The same, for a file that is fed to an input.
    pub(crate) fn of_input(self, path: &Path, input: &str) -> Self {
        Self::OfInput { path: path.to_owned(), input: input.to_owned(), request: Box::new(self) }
    }

    pub(crate) fn impossible(what: impl Into<String>) -> Self {
        Self::Impossible { what: what.into() }
    }
}

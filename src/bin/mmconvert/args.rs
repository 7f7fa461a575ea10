//! The command line, as `mmconvert --help` shows it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mmconvert::records::{Jpeg, Missing, Ragged, ReadAs};
use mmconvert::{Budget, ByteOrder, Dtype, Layout, Method, Rows, Strings};

/// Streams TensorFlow tensors that are bigger than memory into memory-mapped .npy arrays.
#[derive(Debug, Parser)]
#[command(name = "mmconvert", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the environment failed, 2 usage, 3 the input is corrupt, 4 not enough memory or disk space, \
5 verify found a difference, 6 not supported or would lose something, 130 and 143 interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List tensors: name, dtype, shape, size.
    Ls(Ls),
    /// Show the format, shards, pieces and checksums, and what a conversion would cost.
    Info(Info),
    /// Convert tensors to .npy.
    Convert(Convert),
    /// Compare every element of an array with its source.
    Verify(Verify),
    /// Print a script that completes mmconvert's arguments.
    Completions {
        /// The shell it is for.
        shell: Shell,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Common {
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more of what is done.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// How progress is shown; auto is a bar on a terminal and lines elsewhere.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// Whether messages are coloured; auto also follows `NO_COLOR`.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: ColorMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    #[default]
    Auto,
    Plain,
    Json,
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorMode {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArgs {
    /// A checkpoint prefix, its .index, a directory with a checkpoint state file, a SavedModel directory; an HDF5 or Keras file, an
    /// .npy, .npz or safetensors file; a file of records; a folder that tf.data or TFDS wrote; a video; a graph; a serialized tensor; a
    /// pattern or base@N for several files, where nothing has that name; - for frames on standard input.
    #[arg(value_name = "SRC")]
    pub(crate) path: PathBuf,
    /// Take SRC for this format whatever it looks like.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(mmconvert::formats()))]
    pub(crate) format: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Only these names; * matches any run of characters, and ?, […] and {a,b} are as in a shell.
    #[arg(value_name = "GLOB")]
    pub(crate) names: Vec<OsString>,
    /// One JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) streams: Streams,
    #[command(flatten)]
    pub(crate) model: Model,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The tensor; without it the source as a whole.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<OsString>,
    /// One JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) resources: Resources,
    #[command(flatten)]
    pub(crate) records: Records,
    #[command(flatten)]
    pub(crate) model: Model,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Resources {
    /// The most memory to use, dirty page cache included: 512MiB, 1.5GB, 65536 [default: a quarter of what is
    /// available to this process, at most 1GiB; up to half where that is less than 16MiB].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Budget>,
    /// The most threads to use [default: all cores; from 4 to 8 where bytes are only copied, because they wait for the disk].
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Write in this way and no other: clone, uncached, portable, or map [default: the first of them that can be had].
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// The most slices being filled or on their way to the disk at once [default: as many as the memory allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: Option<u16>,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Tensors by name, alias or glob; without any, all of them. Further sources come before names.
    #[arg(value_name = "SRC|NAME|GLOB")]
    pub(crate) names: Vec<OsString>,
    /// The .npy file for one tensor; a directory for several, which ends in / or has no suffix; a .safetensors file for any number; - for
    /// one tensor as .npy on standard output.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// All tensors that ls shows, bookkeeping and constants included.
    #[arg(long)]
    pub(crate) all: bool,
    /// Join tensors of the same name, or the only ones there are, along axis 0 over all sources.
    #[arg(long)]
    pub(crate) concat: bool,
    /// Only this range of axis 0, as in Python: 10:20, :-1. Of records it is a range of these, whatever number of rows each one has.
    #[arg(long, value_name = "A:B", allow_hyphen_values = true)]
    pub(crate) rows: Option<Rows>,
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(flatten)]
    pub(crate) resources: Resources,
    #[command(flatten)]
    pub(crate) records: Records,
    #[command(flatten)]
    pub(crate) model: Model,
    /// Do not check stored checksums.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Replace an existing OUT, in one step once the new one is complete.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Say what would be read, written and used, and stop.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Exit with 0 even if tensors were skipped because they are not supported.
    #[arg(long)]
    pub(crate) skip_unsupported: bool,
    /// The result as one JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A value for one feature, `NAME=VALUE`, or for all that it makes sense for, `VALUE`.
#[derive(Debug, Clone)]
pub(crate) struct For<T> {
    pub(crate) feature: Option<String>,
    pub(crate) value: T,
}

/// Reads `VALUE` or `NAME=VALUE`; names may have `=` in them, values do not.
fn for_feature<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<For<T>, String> {
    match text.rsplit_once('=') {
        Some((feature, value)) => Ok(For { feature: Some(feature.to_owned()), value: read(value)? }),
        None => Ok(For { feature: None, value: read(text)? }),
    }
}

fn shape(text: &str) -> Result<For<Shape>, String> {
    for_feature(text, |text| {
        let axes = text.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        let axes =
            axes.map(|axis| axis.parse().map_err(|_| format!("{axis:?} is no length of an axis"))).collect::<Result<Vec<i64>, _>>()?;
        if axes.iter().any(|&axis| axis < -1) || axes.iter().filter(|&&axis| axis == -1).count() > 1 {
            return Err("at most one axis may be -1, and the others have lengths".into());
        }
        Ok(Shape(axes))
    })
}

/// A shape as it is given.
#[derive(Debug, Clone)]
pub(crate) struct Shape(pub(crate) Vec<i64>);

/// What frames, images and bytes of a stream are.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Records and streams")]
pub(crate) struct Streams {
    /// The shape of a record's row, one axis may be -1; '' for one value. With --raw it is that of the raw bytes.
    #[arg(long, value_name = "[NAME=]D,D,…", value_parser = shape, allow_hyphen_values = true)]
    pub(crate) shape: Vec<For<Shape>>,
    /// Bytes are elements of this dtype. In front of it < says little-endian and > big-endian; without them they are in the order
    /// that --byte-order says, which is little-endian without that.
    #[arg(long, value_name = "[NAME=]DTYPE", value_parser = |text: &str| for_feature(text, raw))]
    pub(crate) raw: Vec<For<RawElements>>,
    /// Raw frames start behind so many bytes: a header.
    #[arg(long, value_name = "BYTES")]
    pub(crate) offset: Option<u64>,
    /// The channels of images and videos: 1, 3 or 4, of PNG and videos also 2 [default: as in the file].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) channels: Option<u8>,
    /// The video stream of a file with several, from 0 [default: all of them].
    #[arg(long, value_name = "N")]
    pub(crate) stream: Option<usize>,
    /// Convert the whole records, frames or rows before a damage, and say what was lost.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// What is wanted of records: TFRecord files, tf.data files, streams of frames.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Records and streams")]
pub(crate) struct Records {
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// What bytes are, whatever they look like: string, image, or tensor (a serialized TensorProto).
    #[arg(long = "as", value_name = "[NAME=]KIND", value_parser = |text: &str| for_feature(text, str::parse::<ReadAs>))]
    pub(crate) read_as: Vec<For<ReadAs>>,
    /// Lists whose lengths differ: pad, pad:VALUE (rows as long as the longest) or offsets (NAME.values.npy and
    /// NAME.offsets.npy) [default: an error].
    #[arg(long, value_name = "[NAME=]HOW", value_parser = |text: &str| for_feature(text, str::parse::<Ragged>))]
    pub(crate) ragged: Vec<For<Ragged>>,
    /// Records without the feature: fill:VALUE or skip (the record, for all features of the pass) [default: an error].
    #[arg(long, value_name = "[NAME=]HOW", value_parser = |text: &str| for_feature(text, str::parse::<Missing>))]
    pub(crate) missing: Vec<For<Missing>>,
    /// A row for each step or value of a list, instead of one for each record.
    #[arg(long)]
    pub(crate) flatten: bool,
    /// The JPEG decoder: builtin, or (in builds with libjpeg-turbo) tf-fast or tf-accurate, byte for byte as TensorFlow [default: builtin].
    #[arg(long, value_name = "DECODER")]
    pub(crate) jpeg: Option<Jpeg>,
}

/// A dtype, and the order of its bytes if it is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawElements {
    pub(crate) dtype: Dtype,
    pub(crate) order: Option<ByteOrder>,
}

/// Reads `uint16`, `<uint16`, `>u2`: TensorFlow's names, and NumPy's short ones.
fn raw(text: &str) -> Result<RawElements, String> {
    let (order, name) = match text.split_at_checked(1) {
        Some(("<", name)) => (Some(ByteOrder::Little), name),
        Some((">", name)) => (Some(ByteOrder::Big), name),
        _ => (None, text),
    };
    Ok(RawElements { dtype: name.parse()?, order })
}

/// What a running TensorFlow computes: a frozen graph, a signature of a SavedModel, a data set.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Computed by TensorFlow")]
pub(crate) struct Model {
    /// The array for an input: of a signature by its name, of a graph by its tensor (x:0). A .npy file; for strings also records,
    /// or the stem of NAME.values.npy and NAME.offsets.npy.
    #[arg(long, value_name = "NAME=FILE", value_parser = feed)]
    pub(crate) feed: Vec<Feed>,
    /// The graph of a SavedModel that has these tags and no others, with commas between them; '' for one without tags
    /// [default: the one tagged serve].
    #[arg(long, value_name = "TAGS")]
    pub(crate) tag_set: Option<String>,
    /// Compute this signature of a SavedModel instead of reading its variables [default: `serving_default` where there is
    /// --feed, --output or --batch].
    #[arg(long, value_name = "NAME")]
    pub(crate) signature: Option<String>,
    /// An output to compute, like NAME; several make several arrays [default: all].
    #[arg(long = "output", value_name = "NAME")]
    pub(crate) outputs: Vec<OsString>,
    /// Feed so many rows of axis 0 at a time, and put the outputs together along axis 0.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch: Option<u64>,
    /// Load a library with operations that TensorFlow lacks (TensorFlow Text, custom operations) before the graph.
    #[arg(long, value_name = "FILE")]
    pub(crate) op_library: Vec<PathBuf>,
    /// Where the TensorFlow library is, if one is needed: itself, or the directory or Python package that has it [default: `TENSORFLOW_DIR`, the system's library
    /// path, the package of python3].
    #[arg(long, value_name = "PATH")]
    pub(crate) tensorflow: Option<PathBuf>,
}

/// An array for an input.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) input: String,
    pub(crate) path: PathBuf,
}

fn feed(text: &str) -> Result<Feed, String> {
    match text.split_once('=') {
        Some((input, path)) if !input.is_empty() && !path.is_empty() => Ok(Feed { input: input.to_owned(), path: path.into() }),
        _ => Err("expected the name of an input and a .npy file, as in x=array.npy".into()),
    }
}

/// What the arrays are to be like.
#[derive(Debug, ClapArgs)]
pub(crate) struct Form {
    /// Cast to this dtype, as `ndarray.astype` does.
    #[arg(long, value_name = "DT")]
    pub(crate) dtype: Option<Dtype>,
    /// Fail at the first value that the cast changes.
    #[arg(long)]
    pub(crate) strict: bool,
    /// The byte order of outputs, and of raw bytes that are not said to be in another: little, big, or native [default: little].
    #[arg(long, value_name = "ORDER")]
    pub(crate) byte_order: Option<ByteOrder>,
    /// The order of elements in outputs: C, or F for Fortran.
    #[arg(long, value_name = "LAYOUT", default_value = "C")]
    pub(crate) layout: Layout,
    /// What becomes of strings: pad (|S<n>, zeros behind each), offsets (two arrays, NAME.values.npy and NAME.offsets.npy), or
    /// utf8 (<U<n>) [default: pad].
    #[arg(long, value_name = "HOW")]
    pub(crate) strings: Option<Strings>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// A .npy file, or a directory or a .safetensors file that convert made.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// What it was converted from; several times for several sources [default: what the manifest of a directory says].
    #[arg(long, value_name = "SRC")]
    pub(crate) against: Vec<PathBuf>,
    /// Take SRC for this format whatever it looks like.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(mmconvert::formats()))]
    pub(crate) format: Option<String>,
    /// The sources were joined along axis 0.
    #[arg(long)]
    pub(crate) concat: bool,
    /// The tensor; not needed where the source has only one, or OUT is a directory.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<OsString>,
    /// The range of axis 0 that was converted.
    #[arg(long, value_name = "A:B", allow_hyphen_values = true)]
    pub(crate) rows: Option<Rows>,
    /// What became of strings, where the array is of numbers or there are several; the manifest of a directory knows this and all
    /// other choices.
    #[arg(long, value_name = "HOW")]
    pub(crate) strings: Option<Strings>,
    /// The dtype it was cast to.
    #[arg(long, value_name = "DT")]
    pub(crate) dtype: Option<Dtype>,
    /// Do not check the checksums of the source; where it was converted so, the manifest of a directory knows.
    #[arg(long = "no-verify")]
    pub(crate) unchecked: bool,
    /// The byte order that raw bytes were read in, where --raw does not say: little, big, or native.
    #[arg(long, value_name = "ORDER")]
    pub(crate) byte_order: Option<ByteOrder>,
    #[command(flatten)]
    pub(crate) resources: Resources,
    #[command(flatten)]
    pub(crate) records: Records,
    #[command(flatten)]
    pub(crate) model: Model,
    /// The result as one JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

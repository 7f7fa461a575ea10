//! The command line as `mmconvert --help` shows it.

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
    /// Print a shell completion script for mmconvert.
    Completions {
        /// The shell to complete in.
        shell: Shell,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Common {
    /// Print errors only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more details.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// How to show progress; auto is a bar on a terminal and lines elsewhere.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// Whether to colour messages; auto also follows `NO_COLOR`.
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
    /// A checkpoint prefix, its .index, a directory with a checkpoint state file, a SavedModel directory; an HDF5 or Keras file,
    /// an .npy, .npz or safetensors file; a file of records; a folder written by tf.data or TFDS; a video; a graph; a serialized
    /// tensor; for several files a pattern or base@N, unless a file has that name; - for frames on standard input.
    #[arg(value_name = "SRC")]
    pub(crate) path: PathBuf,
    /// Treat SRC as this format, whatever its content.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(mmconvert::formats()))]
    pub(crate) format: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Only these names; * matches any run of characters; ?, […] and {a,b} work as in a shell.
    #[arg(value_name = "GLOB")]
    pub(crate) names: Vec<OsString>,
    /// Print one JSON object on stdout.
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
    /// The tensor; without it, the source as a whole.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<OsString>,
    /// Print one JSON object on stdout.
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
    /// Maximum memory, dirty page cache included: 512MiB, 1.5GB, 65536 [default: a quarter of the memory available to this
    /// process, at most 1GiB; up to half if that is less than 16MiB].
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Budget>,
    /// Maximum number of threads [default: all cores; 4 to 8 where bytes are only copied, because they wait for the disk].
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Write only in this way: clone, direct, uncached, portable, or map [default: the first of them that works].
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Maximum number of slices that are filled or written at once [default: as many as memory allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: Option<u16>,
}

#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub(crate) struct Convert {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Tensors by name, alias or glob; without any, all tensors. More sources go before the names.
    #[arg(value_name = "SRC|NAME|GLOB")]
    pub(crate) names: Vec<OsString>,
    /// A .npy file for one tensor; a directory for several, if it ends in / or has no suffix; a .safetensors file for any
    /// number; - for one tensor as .npy on standard output.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Convert all tensors that ls shows, including bookkeeping and constants.
    #[arg(long)]
    pub(crate) all: bool,
    /// Join tensors of the same name, or the only tensor of each source, along axis 0 over all sources.
    #[arg(long)]
    pub(crate) concat: bool,
    /// Convert only this range of axis 0, as in Python: 10:20, :-1. For records it counts records, however many rows each one
    /// has.
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
    /// Replace an existing OUT, atomically once the new one is complete.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print what would be read, written and used, and stop.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Exit with 0 even if unsupported tensors were skipped.
    #[arg(long)]
    pub(crate) skip_unsupported: bool,
    /// Print the result as one JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A value for one feature, `NAME=VALUE`, or for every compatible feature, `VALUE`.
#[derive(Debug, Clone)]
pub(crate) struct For<T> {
    pub(crate) feature: Option<String>,
    pub(crate) value: T,
}

/// Parses `VALUE` or `NAME=VALUE`; names may contain `=`, values may not.
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
            axes.map(|axis| axis.parse().map_err(|_| format!("{axis:?} is not the length of an axis"))).collect::<Result<Vec<i64>, _>>()?;
        if axes.iter().any(|&axis| axis < -1) || axes.iter().filter(|&&axis| axis == -1).count() > 1 {
            return Err("at most one axis may be -1, and the others must have lengths".into());
        }
        Ok(Shape(axes))
    })
}

/// A shape as given by the user.
#[derive(Debug, Clone)]
pub(crate) struct Shape(pub(crate) Vec<i64>);

/// The frames, images and bytes of a stream.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Records and streams")]
pub(crate) struct Streams {
    /// Shape of a record's row; one axis may be -1; '' for a single value. With --raw, the shape of the raw bytes.
    #[arg(long, value_name = "[NAME=]D,D,…", value_parser = shape, allow_hyphen_values = true)]
    pub(crate) shape: Vec<For<Shape>>,
    /// Read bytes as elements of this dtype. A leading < means little-endian and > big-endian; without them --byte-order decides,
    /// and without that they are little-endian.
    #[arg(long, value_name = "[NAME=]DTYPE", value_parser = |text: &str| for_feature(text, raw))]
    pub(crate) raw: Vec<For<RawElements>>,
    /// Skip this many bytes, such as a header, before the raw frames.
    #[arg(long, value_name = "BYTES")]
    pub(crate) offset: Option<u64>,
    /// Channels of images and videos: 1, 3 or 4, for PNG and videos also 2 [default: as in the file].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) channels: Option<u8>,
    /// Select one video stream of a file with several, from 0 [default: all of them].
    #[arg(long, value_name = "N")]
    pub(crate) stream: Option<usize>,
    /// Convert the whole records, frames or rows before damage, and report what was lost.
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// Options for records: TFRecord files, tf.data files, streams of frames.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Records and streams")]
pub(crate) struct Records {
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// Read bytes as string, image, or tensor (a serialized TensorProto), whatever their content.
    #[arg(long = "as", value_name = "[NAME=]KIND", value_parser = |text: &str| for_feature(text, str::parse::<ReadAs>))]
    pub(crate) read_as: Vec<For<ReadAs>>,
    /// How to write lists whose lengths differ: pad, pad:VALUE (rows as long as the longest) or offsets (NAME.values.npy and
    /// NAME.offsets.npy) [default: an error].
    #[arg(long, value_name = "[NAME=]HOW", value_parser = |text: &str| for_feature(text, str::parse::<Ragged>))]
    pub(crate) ragged: Vec<For<Ragged>>,
    /// What to do with records without the feature: fill:VALUE, or skip (for all features of the pass) [default: an error].
    #[arg(long, value_name = "[NAME=]HOW", value_parser = |text: &str| for_feature(text, str::parse::<Missing>))]
    pub(crate) missing: Vec<For<Missing>>,
    /// Make one row for each step or list item, instead of one for each record.
    #[arg(long)]
    pub(crate) flatten: bool,
    /// JPEG decoder: builtin, or (in builds with libjpeg-turbo) tf-fast or tf-accurate, byte for byte as TensorFlow [default:
    /// builtin].
    #[arg(long, value_name = "DECODER")]
    pub(crate) jpeg: Option<Jpeg>,
}

/// A dtype, and the byte order if given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawElements {
    pub(crate) dtype: Dtype,
    pub(crate) order: Option<ByteOrder>,
}

/// Parses `uint16`, `<uint16`, `>u2`: TensorFlow's names, and NumPy's short ones.
fn raw(text: &str) -> Result<RawElements, String> {
    let (order, name) = match text.split_at_checked(1) {
        Some(("<", name)) => (Some(ByteOrder::Little), name),
        Some((">", name)) => (Some(ByteOrder::Big), name),
        _ => (None, text),
    };
    Ok(RawElements { dtype: name.parse()?, order })
}

/// A computation by TensorFlow: a frozen graph, a signature of a SavedModel, a dataset.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Computed by TensorFlow")]
pub(crate) struct Model {
    /// The array for an input, given by its name in a signature, or its tensor in a graph (x:0). A .npy file; for strings also
    /// records, or the stem of NAME.values.npy and NAME.offsets.npy.
    #[arg(long, value_name = "NAME=FILE", value_parser = feed)]
    pub(crate) feed: Vec<Feed>,
    /// Use the graph of a SavedModel with exactly these tags, separated by commas; '' for one without tags [default: the one
    /// tagged serve].
    #[arg(long, value_name = "TAGS")]
    pub(crate) tag_set: Option<String>,
    /// Compute this signature of a SavedModel instead of reading its variables [default: `serving_default` if there is --feed,
    /// --output or --batch].
    #[arg(long, value_name = "NAME")]
    pub(crate) signature: Option<String>,
    /// An output to compute, like NAME; repeat for several arrays [default: all].
    #[arg(long = "output", value_name = "NAME")]
    pub(crate) outputs: Vec<OsString>,
    /// Feed this many rows of axis 0 at a time, and concatenate the outputs along axis 0.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch: Option<u64>,
    /// Load a library with operations that TensorFlow lacks (TensorFlow Text, custom operations) before the graph.
    #[arg(long, value_name = "FILE")]
    pub(crate) op_library: Vec<PathBuf>,
    /// Where to find the TensorFlow library, if needed: the file, or the directory or Python package that contains it [default:
    /// `TENSORFLOW_DIR`, the system's library path, the package of python3].
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

/// The form of the arrays.
#[derive(Debug, ClapArgs)]
pub(crate) struct Form {
    /// Cast to this dtype, like `ndarray.astype`.
    #[arg(long, value_name = "DT")]
    pub(crate) dtype: Option<Dtype>,
    /// Fail at the first value that the cast changes.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Byte order of outputs, and of raw bytes unless given for them: little, big, or native [default: little].
    #[arg(long, value_name = "ORDER")]
    pub(crate) byte_order: Option<ByteOrder>,
    /// Element order of outputs: C, or F for Fortran.
    #[arg(long, value_name = "LAYOUT", default_value = "C")]
    pub(crate) layout: Layout,
    /// How to write strings: pad (NumPy's S, zero-padded), offsets (two arrays, NAME.values.npy and NAME.offsets.npy), or utf8
    /// (NumPy's U) [default: pad].
    #[arg(long, value_name = "HOW")]
    pub(crate) strings: Option<Strings>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// A .npy file, or a directory or a .safetensors file made by convert.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// The source that it was converted from; repeat for several [default: as in the manifest of a directory].
    #[arg(long, value_name = "SRC")]
    pub(crate) against: Vec<PathBuf>,
    /// Treat SRC as this format, whatever its content.
    #[arg(long, value_name = "FORMAT", value_parser = clap::builder::PossibleValuesParser::new(mmconvert::formats()))]
    pub(crate) format: Option<String>,
    /// The sources were joined along axis 0.
    #[arg(long)]
    pub(crate) concat: bool,
    /// The tensor; not needed if the source has only one, or OUT is a directory.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<OsString>,
    /// The range of axis 0 that was converted.
    #[arg(long, value_name = "A:B", allow_hyphen_values = true)]
    pub(crate) rows: Option<Rows>,
    /// How strings were written, if the array has numbers or there are several arrays; the manifest of a directory records this
    /// and all other options.
    #[arg(long, value_name = "HOW")]
    pub(crate) strings: Option<Strings>,
    /// The dtype it was cast to.
    #[arg(long, value_name = "DT")]
    pub(crate) dtype: Option<Dtype>,
    /// Do not check the checksums of the source; for a directory, the manifest records whether convert checked them.
    #[arg(long = "no-verify")]
    pub(crate) unchecked: bool,
    /// The byte order used for raw bytes, unless --raw gives it: little, big, or native.
    #[arg(long, value_name = "ORDER")]
    pub(crate) byte_order: Option<ByteOrder>,
    #[command(flatten)]
    pub(crate) resources: Resources,
    #[command(flatten)]
    pub(crate) records: Records,
    #[command(flatten)]
    pub(crate) model: Model,
    /// Print the result as one JSON object on stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

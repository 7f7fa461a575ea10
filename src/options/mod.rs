//! The caller's options, and progress reports to the caller.
//!
//! This room knows no formats and does no conversions. It notes which options were used, so that an option without effect can be
//! refused. Start with [`Options`]; `records.rs` and `model.rs` have the options for records and for TensorFlow, `budget.rs` has
//! memory.

pub(crate) mod budget;
pub(crate) mod method;
pub(crate) mod model;
pub(crate) mod records;
pub(crate) mod used;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;
use crate::os::SystemCalls;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::types::byte_order::ByteOrder;
use crate::types::cancel::CancelToken;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;

use budget::Budget;
use method::Method;
use model::ModelOptions;
use records::RecordOptions;
use used::{Choice, Unused};

/// Options for any number of conversions.
///
/// Defaults: memory as in [`Budget::detect`], one thread per core (4 to 8 where bytes are only copied through buffers), checksums
/// verified, existing outputs kept, the fastest possible method.
#[derive(Clone)]
pub struct Options {
    pub(crate) memory: Option<Budget>,
    pub(crate) threads: Option<usize>,
    pub(crate) verify: bool,
    pub(crate) overwrite: bool,
    pub(crate) cast: Option<Dtype>,
    pub(crate) strict: bool,
    pub(crate) byte_order: Choice<ByteOrder>,
    pub(crate) layout: Layout,
    pub(crate) strings: Choice<Strings>,
    pub(crate) effect: Effect,
    pub(crate) records: RecordOptions,
    pub(crate) model: ModelOptions,
    pub(crate) method: Option<Method>,
    pub(crate) in_flight: Option<usize>,
    pub(crate) cancel: CancelToken,
    pub(crate) progress: Option<Arc<ProgressFn>>,
}

/// What to do about an option that has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Optional,
    /// It is an error.
    Required,
}

type ProgressFn = dyn Fn(&Progress) + Send + Sync;

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: None,
            threads: None,
            verify: true,
            overwrite: false,
            cast: None,
            strict: false,
            byte_order: Choice::default(),
            layout: Layout::C,
            strings: Choice::default(),
            effect: Effect::Optional,
            records: RecordOptions::default(),
            model: ModelOptions::default(),
            method: None,
            in_flight: None,
            cancel: CancelToken::new(),
            progress: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("memory", &self.memory)
            .field("threads", &self.threads)
            .field("verify", &self.verify)
            .field("overwrite", &self.overwrite)
            .field("cast", &self.cast)
            .field("strict", &self.strict)
            .field("byte_order", &self.byte_order)
            .field("layout", &self.layout)
            .field("strings", &self.strings)
            .field("records", &self.records)
            .field("model", &self.model)
            .field("method", &self.method)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The most memory to use, including output pages that are not yet on disk.
    #[must_use]
    pub fn memory(mut self, budget: Budget) -> Self {
        self.memory = Some(budget);
        self
    }

    /// The maximum number of threads; at least one is used.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Whether to verify stored checksums while the bytes pass through.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Whether to replace an existing output. This is one atomic step, after the new output is complete.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Converts elements to another dtype like `numpy.ndarray.astype`; see [`Cast`](crate::Cast).
    #[must_use]
    pub fn cast(mut self, dtype: Dtype) -> Self {
        self.cast = Some(dtype);
        self
    }

    /// Whether a value that a cast would change is an error, [`Error::Lossy`](crate::Error::Lossy). All `NaN`s count as equal,
    /// and 0.0 equals -0.0.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The byte order of outputs; the default is little-endian.
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.byte_order.set(order);
        self
    }

    /// The element order of outputs.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// How string tensors are written.
    #[must_use]
    pub fn strings(mut self, strings: Strings) -> Self {
        self.strings.set(strings);
        self
    }

    /// What a running TensorFlow should compute; only for sources that it computes.
    #[must_use]
    pub fn model(mut self, model: ModelOptions) -> Self {
        self.model = model;
        self.model.cancel = self.cancel.clone();
        self
    }

    /// Options for sources of records.
    #[must_use]
    pub fn records(mut self, records: RecordOptions) -> Self {
        self.records = records;
        self
    }

    /// The method for writing outputs; an error if it is impossible.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// The maximum number of slices that are being filled or written at once; by default as many as memory allows.
    #[must_use]
    pub fn in_flight(mut self, slices: usize) -> Self {
        self.in_flight = Some(slices);
        self
    }

    /// A token whose [`cancel`](CancelToken::cancel) ends the work with [`Error::Cancelled`](crate::Error::Cancelled) and leaves
    /// no output.
    ///
    /// A source that was opened with these options keeps the token; after a cancellation, open the source again.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.model.cancel = token.clone();
        self.cancel = token;
        self
    }

    /// Whether an option that applies to nothing converted is [`Error::BadRequest`](crate::Error::BadRequest), before anything is
    /// written: a shape without lists, feeds where nothing is computed. By default such options are ignored.
    #[must_use]
    pub fn must_apply(mut self, must_apply: bool) -> Self {
        self.effect = if must_apply { Effect::Required } else { Effect::Optional };
        self
    }

    /// Fails for options that had no effect so far, if options [must apply](Self::must_apply).
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`](crate::Error::BadRequest) with the options and what they apply to.
    pub fn check_applied(&self) -> crate::error::Result<()> {
        if self.effect == Effect::Optional {
            return Ok(());
        }
        let mut unused = self.records.unused();
        unused.extend(self.model.unused());
        unused.extend(self.strings.unused("`strings`", "tensors of strings"));
        unused.extend(self.byte_order.unused("`byte_order`", "arrays or raw bytes in another byte order"));
        if self.strict && self.cast.is_none() {
            unused.push(Unused::new("`strict`", None, "casts (`cast`)"));
        }
        refuse(&unused)
    }

    /// Refuses options for TensorFlow computations if no opened source is computed and options [must apply](Self::must_apply).
    ///
    /// # Errors
    /// Returns the errors of [`check_applied`](Self::check_applied).
    pub fn check_model_applied(&self) -> crate::error::Result<()> {
        if self.effect == Effect::Required { refuse(&self.model.unused()) } else { Ok(()) }
    }

    /// Marks the options as used that a tensor would have used, had it not been skipped for another reason.
    pub(crate) fn note_skipped(&self, dtype: Dtype) {
        if dtype == Dtype::String {
            self.strings.note();
        }
    }

    /// Registers a callback that worker threads call after every slice, so a tensor of one slice gives one call, at its end.
    ///
    /// Several workers may call it at once, and then in any order. Workers wait for it, so it should be short.
    #[must_use]
    pub fn progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(report));
        self
    }

    /// The options so far for computations by TensorFlow.
    #[must_use]
    pub fn chosen_model(&self) -> &ModelOptions {
        &self.model
    }

    /// The byte order of outputs, and of raw bytes whose order is not given. Marks the option as used.
    pub(crate) fn order(&self) -> ByteOrder {
        self.byte_order.get().unwrap_or(ByteOrder::Little)
    }

    /// The requested byte order, without marking the option as used.
    pub(crate) fn asked_order(&self) -> Option<ByteOrder> {
        self.byte_order.peek()
    }

    /// The same options for an array that must have this byte order. If it was requested, the option counts as used.
    pub(crate) fn as_ordered(&self, order: ByteOrder) -> Self {
        if self.byte_order.peek() == Some(order) {
            self.byte_order.note();
        }
        self.clone().byte_order(order)
    }

    pub(crate) fn budget(&self) -> Budget {
        self.memory.unwrap_or_default()
    }

    /// The same options with the default budget resolved, for work whose parts must agree on it.
    pub(crate) fn resolved(&self) -> Self {
        self.clone().memory(self.budget())
    }

    /// Which system calls are allowed.
    pub(crate) fn calls(&self) -> SystemCalls {
        if self.method == Some(Method::Portable) { SystemCalls::standard(&self.cancel) } else { SystemCalls::all(&self.cancel) }
    }

    /// The storage that holds sources.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(LocalStorage::new(self.calls()))
    }

    pub(crate) fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Keep }
    }
}

/// How a string tensor is written. Elements of NumPy arrays have one fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strings {
    /// `|S<n>`: byte strings, zero-padded to the length of the longest. A string that ends in NUL is an error, since NumPy drops
    /// it.
    #[default]
    Pad,
    /// Two arrays without loss: the bytes of all elements in sequence (`uint8`), and the start of each, followed by the end of
    /// the last (`int64`, one more than elements).
    Offsets,
    /// `<U<n>`: the elements decoded from UTF-8, as code points of four bytes.
    Utf8,
}

impl fmt::Display for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pad => "pad",
            Self::Offsets => "offsets",
            Self::Utf8 => "utf8",
        })
    }
}

impl FromStr for Strings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pad" => Ok(Self::Pad),
            "offsets" => Ok(Self::Offsets),
            "utf8" => Ok(Self::Utf8),
            _ => Err(format!("strings cannot be written as {text:?}, only as pad, offsets or utf8")),
        }
    }
}

/// The progress of a conversion.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress {
    /// Filled bytes of the output. If the source is first copied to a temporary file, that is half of the work.
    pub done_bytes: u64,
    /// Total bytes of the output; `None` if unknown until the source has been read.
    pub total_bytes: Option<u64>,
    /// Memory in use according to the plan: buffers, and output pages not yet on disk.
    pub memory_bytes: u64,
    /// The budget.
    pub memory_limit: u64,
}

/// The error for options without effect, if there are any.
fn refuse(unused: &[Unused]) -> crate::error::Result<()> {
    if unused.is_empty() {
        return Ok(());
    }
    // Options with the same purpose are reported together.
    let mut by_needs: Vec<(&str, Vec<&str>)> = Vec::new();
    for Unused { flag, needs } in unused {
        match by_needs.iter_mut().find(|(known, _)| known == needs) {
            Some((_, flags)) => flags.push(flag),
            None => by_needs.push((needs, vec![flag])),
        }
    }
    let each = by_needs.iter().map(|(needs, flags)| match &flags[..] {
        [flag] => format!("{flag} has no effect on the selection: it applies to {needs}"),
        flags => format!("{} have no effect on the selection: they apply to {needs}", flags.join(", ")),
    });
    Err(Error::bad_request(each.collect::<Vec<_>>().join("; ")))
}

/// What may exist at the final name of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing: an existing file is kept, and is an error.
    Keep,
    /// A regular file, which is replaced atomically.
    Replace,
}

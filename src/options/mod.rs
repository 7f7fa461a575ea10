//! The choices a caller has, and what a caller is told meanwhile.

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

/// Choices that hold for any number of conversions.
///
/// Defaults: memory as [`Budget::detect`] finds it, threads as many as cores (from 4 to 8 where bytes are only copied
/// through buffers), checksums verified, existing outputs kept, the method that fits.
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

/// What is made of a choice that nothing makes use of.
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

    /// The most memory to use, output pages that are not on disk yet included.
    #[must_use]
    pub fn memory(mut self, budget: Budget) -> Self {
        self.memory = Some(budget);
        self
    }

    /// The most threads to use; at least one is.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Whether stored checksums are verified while the bytes pass through.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Whether an existing output is replaced, in one step, once the new one is complete.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Elements of another dtype, as `numpy.ndarray.astype` makes them: see [`Cast`](crate::Cast).
    #[must_use]
    pub fn cast(mut self, dtype: Dtype) -> Self {
        self.cast = Some(dtype);
        self
    }

    /// Whether a value that a cast would change is [`Error::Lossy`](crate::Error::Lossy). `NaN` is as good as another, and 0.0 as
    /// -0.0.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The byte order of outputs; little is the default.
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.byte_order.set(order);
        self
    }

    /// The order of elements in outputs.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// What becomes of string tensors.
    #[must_use]
    pub fn strings(mut self, strings: Strings) -> Self {
        self.strings.set(strings);
        self
    }

    /// What a running TensorFlow is to compute; only for sources that it computes.
    #[must_use]
    pub fn model(mut self, model: ModelOptions) -> Self {
        self.model = model;
        self.model.cancel = self.cancel.clone();
        self
    }

    /// Choices for sources of records.
    #[must_use]
    pub fn records(mut self, records: RecordOptions) -> Self {
        self.records = records;
        self
    }

    /// How outputs are written, whatever would be chosen; an error where it cannot be done.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// The most slices that are filled or on their way to the disk at once; as many as the memory allows is the default.
    #[must_use]
    pub fn in_flight(mut self, slices: usize) -> Self {
        self.in_flight = Some(slices);
        self
    }

    /// A token whose [`cancel`](CancelToken::cancel) ends the work with [`Error::Cancelled`](crate::Error::Cancelled) and no output.
    ///
    /// A source that was opened with these options keeps the token: once it was used, open the source again.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.model.cancel = token.clone();
        self.cancel = token;
        self
    }

    /// Whether a choice that applies to nothing that is converted is [`Error::BadRequest`](crate::Error::BadRequest), before anything is
    /// written: a shape where there are no lists, feeds where nothing is computed. Without this, choices that do not apply are let pass.
    #[must_use]
    pub fn must_apply(mut self, must_apply: bool) -> Self {
        self.effect = if must_apply { Effect::Required } else { Effect::Optional };
        self
    }

    /// Fails for a choice that nothing has made use of yet, where choices [must apply](Self::must_apply).
    ///
    /// # Errors
    /// [`Error::BadRequest`](crate::Error::BadRequest) with the choices, and what they are for.
    pub fn check_applied(&self) -> crate::error::Result<()> {
        if self.effect == Effect::Optional {
            return Ok(());
        }
        let mut unused = self.records.unused();
        unused.extend(self.model.unused());
        unused.extend(self.strings.unused("`strings`", "tensors of strings"));
        unused.extend(self.byte_order.unused("`byte_order`", "what is written in another byte order, or read in that"));
        if self.strict && self.cast.is_none() {
            unused.push(Unused::new("`strict`", None, "casts (`cast`)"));
        }
        refuse(&unused)
    }

    /// Refuses choices for what TensorFlow computes, if [none may be without effect](Self::must_apply) and nothing that has been opened is
    /// computed.
    ///
    /// # Errors
    /// As [`check_applied`](Self::check_applied).
    pub fn check_model_applied(&self) -> crate::error::Result<()> {
        if self.effect == Effect::Required { refuse(&self.model.unused()) } else { Ok(()) }
    }

    /// Notes the choices that a tensor would have made use of that is left out for another reason.
    pub(crate) fn note_skipped(&self, dtype: Dtype) {
        if dtype == Dtype::String {
            self.strings.note();
        }
    }

    /// Called after every slice, from the threads that do the work.
    #[must_use]
    pub fn progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(report));
        self
    }

    /// What is to be computed by a running TensorFlow, as far as that has been chosen.
    #[must_use]
    pub fn chosen_model(&self) -> &ModelOptions {
        &self.model
    }

    /// The byte order of outputs, and of raw bytes that are not said to be in another.
    pub(crate) fn order(&self) -> ByteOrder {
        self.byte_order.get().unwrap_or(ByteOrder::Little)
    }

    /// The byte order that was asked for, where that is asked without making anything of it.
    pub(crate) fn asked_order(&self) -> Option<ByteOrder> {
        self.byte_order.peek()
    }

    /// The same choices for what has to become an array of this byte order. What was asked for is made use of where it is that.
    pub(crate) fn as_ordered(&self, order: ByteOrder) -> Self {
        if self.byte_order.peek() == Some(order) {
            self.byte_order.note();
        }
        self.clone().byte_order(order)
    }

    pub(crate) fn budget(&self) -> Budget {
        self.memory.unwrap_or_default()
    }

    /// The same choices with the default budget settled, for work of several parts that has to agree on it.
    pub(crate) fn resolved(&self) -> Self {
        self.clone().memory(self.budget())
    }

    /// Which system calls may be made.
    pub(crate) fn calls(&self) -> SystemCalls {
        if self.method == Some(Method::Portable) { SystemCalls::standard(&self.cancel) } else { SystemCalls::all(&self.cancel) }
    }

    /// Where sources lie.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(LocalStorage::new(self.calls()))
    }

    pub(crate) fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Keep }
    }
}

/// What becomes of a string tensor. NumPy has elements of one length only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strings {
    /// `|S<n>`: byte strings, with zeros up to the length of the longest. One that ends in NUL is an error: NumPy would lose it.
    #[default]
    Pad,
    /// Two arrays: the bytes of all elements one after the other (`uint8`), and where each starts, with the end of the last
    /// (`int64`, one more than elements). Nothing is lost.
    Offsets,
    /// `<U<n>`: the text that the elements are in UTF-8, as code points of four bytes.
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
            _ => Err(format!("there is no way {text:?} to write strings, only pad, offsets and utf8")),
        }
    }
}

/// Where a conversion stands.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the output that are filled. Where a temporary copy of the source is made first, that is half of the work.
    pub done_bytes: u64,
    /// All bytes of the output; `None` where that is not known before the source has been read.
    pub total_bytes: Option<u64>,
    /// Memory in use by the plan's account: buffers and output pages not on disk yet.
    pub memory_bytes: u64,
    /// The budget.
    pub memory_limit: u64,
}

/// The error for choices that have no effect, if there are any.
fn refuse(unused: &[Unused]) -> crate::error::Result<()> {
    if unused.is_empty() {
        return Ok(());
    }
    // Those that are for the same are told together.
    let mut by_needs: Vec<(&str, Vec<&str>)> = Vec::new();
    for Unused { flag, needs } in unused {
        match by_needs.iter_mut().find(|(known, _)| known == needs) {
            Some((_, flags)) => flags.push(flag),
            None => by_needs.push((needs, vec![flag])),
        }
    }
    let each = by_needs.iter().map(|(needs, flags)| match &flags[..] {
        [flag] => format!("{flag} has no effect on what is selected: it is for {needs}"),
        flags => format!("{} have no effect on what is selected: they are for {needs}", flags.join(", ")),
    });
    Err(Error::bad_request(each.collect::<Vec<_>>().join("; ")))
}

/// What may stand at an output's final name before it gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing: what stands there is left as it is and is an error.
    Keep,
    /// A regular file, which is replaced in one step.
    Replace,
}

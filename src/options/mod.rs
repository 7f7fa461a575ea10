//! The caller's options, and progress reports to the caller.
//!
//! This room knows no formats and does no conversions. It notes which options were used, so that an option without effect can be
//! refused. Start with [`Options`]; `records.rs` and `model.rs` have the options for records and for TensorFlow, `budget.rs` has
//! memory.

pub(crate) mod budget;
pub(crate) mod method;
pub(crate) mod model;
pub(crate) mod progress;
pub(crate) mod records;
pub(crate) mod request;
pub(crate) mod strings;
pub(crate) mod used;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::request::BadRequest;
use crate::os::SystemCalls;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::types::byte_order::ByteOrder;
use crate::types::cancel::CancelToken;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;

use budget::Budget;
use method::Method;
use model::ModelOptions;
use progress::{Progress, ProgressFn, Tally};
use records::RecordOptions;
use request::{Existing, Form, Request, Run};
use strings::Strings;
use used::Unused;

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
    pub(crate) form: Form,
    /// Whether options without effect are an error.
    pub(crate) must_apply: bool,
    pub(crate) records: RecordOptions,
    pub(crate) model: ModelOptions,
    pub(crate) method: Option<Method>,
    pub(crate) in_flight: Option<usize>,
    pub(crate) cancel: CancelToken,
    pub(crate) progress: Option<Arc<ProgressFn>>,
    /// A storage in place of the local file system.
    #[cfg(test)]
    pub(crate) storage: Option<Arc<dyn Storage>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: None,
            threads: None,
            verify: true,
            overwrite: false,
            form: Form::default(),
            must_apply: false,
            records: RecordOptions::default(),
            model: ModelOptions::default(),
            method: None,
            in_flight: None,
            cancel: CancelToken::new(),
            progress: None,
            #[cfg(test)]
            storage: None,
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
            .field("form", &self.form)
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
        self.form.cast = Some(dtype);
        self
    }

    /// Whether a value that a cast would change is an error, [`Error::Lossy`](crate::Error::Lossy). All `NaN`s count as equal,
    /// and 0.0 equals -0.0.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.form.strict = strict;
        self
    }

    /// The byte order of outputs; the default is little-endian.
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.form.byte_order.set(order);
        self
    }

    /// The element order of outputs.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.form.layout = layout;
        self
    }

    /// How string tensors are written.
    #[must_use]
    pub fn strings(mut self, strings: Strings) -> Self {
        self.form.strings.set(strings);
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
        self.must_apply = must_apply;
        self
    }

    /// Fails for options that had no effect so far, if options [must apply](Self::must_apply).
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`](crate::Error::BadRequest) with the options and what they apply to.
    pub fn check_applied(&self) -> crate::error::Result<()> {
        if !self.must_apply {
            return Ok(());
        }
        let mut unused = self.records.unused();
        unused.extend(self.model.unused());
        unused.extend(self.form.strings.unused("`strings`", "tensors of strings"));
        unused.extend(self.form.byte_order.unused("`byte_order`", "arrays or raw bytes in another byte order"));
        if self.form.strict && self.form.cast.is_none() {
            unused.push(Unused::new("`strict`", None, "casts (`cast`)"));
        }
        refuse(&unused)
    }

    /// Refuses options for TensorFlow computations if no opened source is computed and options [must apply](Self::must_apply).
    ///
    /// # Errors
    /// Returns the errors of [`check_applied`](Self::check_applied).
    pub fn check_model_applied(&self) -> crate::error::Result<()> {
        if self.must_apply { refuse(&self.model.unused()) } else { Ok(()) }
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

    pub(crate) fn budget(&self) -> Budget {
        self.memory.unwrap_or_default()
    }

    /// What to do with `rows` of each tensor of a source that takes `heap_bytes` of heap. The default budget is resolved here, so
    /// that all parts of the work agree on it.
    pub(crate) fn request(&self, rows: Option<Rows>, heap_bytes: u64) -> Request {
        let run = Run {
            budget: self.budget(),
            threads: self.threads,
            in_flight: self.in_flight,
            method: self.method,
            verify: self.verify,
            salvage: self.records.salvage.clone(),
            calls: self.calls(),
            cancel: self.cancel.clone(),
            existing: self.existing(),
            heap_bytes,
            progress: Tally::new(self.progress.as_ref()),
        };
        Request { rows, form: self.form.clone(), records: self.records.clone(), run }
    }

    /// Which system calls are allowed.
    pub(crate) fn calls(&self) -> SystemCalls {
        if self.method == Some(Method::Portable) { SystemCalls::standard(&self.cancel) } else { SystemCalls::all(&self.cancel) }
    }

    /// The storage that holds the source at a path: the local file system.
    pub(crate) fn storage(&self, _path: &Path) -> Arc<dyn Storage> {
        #[cfg(test)]
        if let Some(storage) = &self.storage {
            return Arc::clone(storage);
        }
        Arc::new(LocalStorage::new(self.calls()))
    }

    pub(crate) fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Keep }
    }
}

/// The error for options without effect, if there are any.
fn refuse(unused: &[Unused]) -> crate::error::Result<()> {
    if unused.is_empty() {
        return Ok(());
    }
    let options = unused.iter().map(|unused| (unused.flag.clone(), unused.needs)).collect();
    Err(BadRequest::WithoutEffect { options }.into())
}

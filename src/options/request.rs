//! What a conversion has to do, resolved from the caller's [`Options`](super::Options) once, where the work starts. Planning turns a
//! [`Request`] into decoders, headers and shares of memory; what comes after it needs only the [`Run`].

use std::fmt;

use super::budget::Budget;
use super::method::Method;
use super::progress::Tally;
use super::records::RecordOptions;
use super::strings::Strings;
use super::used::Choice;
use crate::os::SystemCalls;
use crate::types::byte_order::ByteOrder;
use crate::types::cancel::CancelToken;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;

/// What is asked of every tensor of a conversion.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The rows of axis 0; `None` for all, also of a scalar.
    pub(crate) rows: Option<Rows>,
    pub(crate) form: Form,
    pub(crate) records: RecordOptions,
    pub(crate) run: Run,
}

impl Request {
    /// The same for a selection of one column of records, or of several.
    pub(crate) fn for_columns(&self, is_one: bool) -> Self {
        Self { records: self.records.for_one(is_one), ..self.clone() }
    }
}

/// What elements become.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    pub(crate) cast: Option<Dtype>,
    pub(crate) strict: bool,
    pub(crate) byte_order: Choice<ByteOrder>,
    pub(crate) layout: Layout,
    pub(crate) strings: Choice<Strings>,
}

impl Form {
    /// The byte order of outputs, and of raw bytes whose order is not given. Marks the option as used.
    pub(crate) fn order(&self) -> ByteOrder {
        self.byte_order.get().unwrap_or(ByteOrder::Little)
    }

    /// The same for an array that must have this byte order. If it was requested, the option counts as used.
    pub(crate) fn in_order(&self, order: ByteOrder) -> Self {
        if self.byte_order.peek() == Some(order) {
            self.byte_order.note();
        }
        let mut form = self.clone();
        form.byte_order.set(order);
        form
    }

    /// Marks the options as used that a tensor would have used, had it not been skipped for another reason.
    pub(crate) fn note_skipped(&self, dtype: Dtype) {
        if dtype == Dtype::String {
            self.strings.note();
        }
    }
}

/// How the work is done, whatever the tensor.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) budget: Budget,
    pub(crate) threads: Option<usize>,
    pub(crate) in_flight: Option<usize>,
    pub(crate) method: Option<Method>,
    pub(crate) verify: bool,
    /// Whether damage only loses the records behind it.
    pub(crate) salvage: Choice<bool>,
    pub(crate) calls: SystemCalls,
    pub(crate) cancel: CancelToken,
    /// What may exist at the final names.
    pub(crate) existing: Existing,
    /// Heap that the source and the lists of its tensors take.
    pub(crate) heap_bytes: u64,
    pub(crate) progress: Tally,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("budget", &self.budget).field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// What may exist at the final name of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing: an existing file is kept, and is an error.
    Keep,
    /// A regular file, which is replaced atomically.
    Replace,
}

//! A running TensorFlow as a source: graphs, models and data sets that it computes, and values of the caller's session. Formats
//! and outputs do not know this room. Callers start at [`load`] and [`SessionOutput`], readers of the code at `open.rs`.
//!
//! ```text
//!  a session's output ──one run──▶ held on its device ──slice by slice──▶ the plan, as for any tensor    session_tensor.rs
//!  what cannot be cut ──one run──▶ a checkpoint in a private folder ────▶ our own reader                 spill.rs
//!  batches, data sets ──run by run──▶ elements, a part for each output ─▶ records                        elements.rs
//! ```
//!
//! The library is loaded at run time (`library.rs`), and every call goes through the `tensorflow` crate. Its dtype enum ends at
//! number 23. Therefore dtypes are read from attributes of nodes, and only `uint8`, `int64` and strings are fetched.

pub(crate) mod batches;
pub(crate) mod computed;
pub(crate) mod dataset;
pub(crate) mod elements;
pub(crate) mod feed;
pub(crate) mod library;
pub(crate) mod loading;
pub(crate) mod model;
pub(crate) mod open;
pub(crate) mod operations;
pub(crate) mod output;
pub(crate) mod session;
pub(crate) mod session_tensor;
pub(crate) mod spill;
pub(crate) mod wire;

pub use tensorflow;

pub use library::{assume_loaded, load};
pub use output::{LiveTensor, SessionOutput};
pub use session::is_computing;

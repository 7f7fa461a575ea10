//! Records joined to arrays: one pass over them, for any number of columns.
//!
//! Batches are taken in order and worked on in parallel. Where every record is a row, its number says where the row goes. Where
//! records have any number of rows, each batch counts its own first and waits for those before it to have counted theirs.

pub(crate) mod array;
pub(crate) mod done;
pub(crate) mod dropouts;
pub(crate) mod failure;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod sequencer;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use dropouts::Dropouts;
use sequencer::{Sequencer, Turn};

//! One pass over records writes them as arrays, for any number of columns.
//!
//! Workers pull batches in order and process them in parallel. If every record is a row, its number gives the row's place. If
//! records have any number of rows, each batch first counts its own and waits until earlier batches have counted theirs.
//!
//! This module does not decode values (`columns`) or find frames (`stream`). Start with [`plan::Pass`], then its `run`.

pub(crate) mod array;
pub(crate) mod done;
pub(crate) mod dropped_columns;
pub(crate) mod failure;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod sequencer;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use dropped_columns::Dropouts;
use sequencer::{Sequencer, Turn};

//! The results of a pass.

use super::dropped_columns::Dropout;
use crate::error::Error;
use crate::output::report::Report;

/// The result of a pass.
pub(crate) struct Done {
    /// Rows of each array.
    pub(crate) rows: Vec<u64>,
    /// What was lost, one sentence each.
    pub(crate) lost: Vec<String>,
    /// The columns that dropped out, ordered by the record that revealed it.
    pub(crate) dropouts: Vec<Dropout>,
    /// Whether the other columns must be made again without these; the error if that is impossible.
    pub(crate) repeat: Option<Error>,
}

impl Done {
    /// Whether the column dropped out.
    pub(crate) fn lacks(&self, column: usize) -> bool {
        self.dropouts.iter().any(|dropout| dropout.column == column)
    }
}

/// The result of a pass that made arrays.
pub(crate) struct Filled {
    /// A report for each array; `None` for those of columns that dropped out. Empty if the pass must be repeated.
    pub(crate) reports: Vec<Option<Report>>,
    /// As [`Done::dropouts`].
    pub(crate) dropouts: Vec<Dropout>,
    /// As [`Done::repeat`].
    pub(crate) repeat: Option<Error>,
}

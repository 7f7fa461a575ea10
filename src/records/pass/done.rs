//! What a pass gave.

use super::dropouts::Dropout;
use crate::error::Error;

/// What a pass gave.
pub(crate) struct Done {
    /// Rows of each array.
    pub(crate) rows: Vec<u64>,
    /// What had to be given up.
    pub(crate) lost: Vec<String>,
    /// The columns that are no arrays, in the order of the records that show it.
    pub(crate) dropouts: Vec<Dropout>,
    /// Whether the others have to be made again without these, and what is wrong where that cannot be.
    pub(crate) repeat: Option<Error>,
}

impl Done {
    /// Whether the column is no array.
    pub(crate) fn lacks(&self, column: usize) -> bool {
        self.dropouts.iter().any(|dropout| dropout.column == column)
    }
}

//! The outputs of one tensor in an export.

use std::path::Path;

use super::array::Array;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::output::part::Part;
use crate::output::report::Report;
use crate::source::opened::Tensor;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::rows::Rows;

/// One file of an export.
#[derive(Debug)]
pub(crate) struct TensorOutputs<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) part: Part,
    pub(crate) file: String,
    /// Bytes of its elements.
    pub(crate) nbytes: u64,
    /// Whether it is in Fortran order.
    pub(crate) changes_order: bool,
}

impl<'a> TensorOutputs<'a> {
    /// The source, for messages.
    pub(crate) fn source_path(&self) -> &Path {
        self.tensor.source().path()
    }

    pub(crate) fn name(&self) -> &Name {
        &self.tensor.info().name
    }

    /// The array that goes into the file.
    pub(crate) fn array(&self, rows: Option<Rows>, options: &Options) -> Result<Array<'a>> {
        let arrays = Array::of_tensor(self.tensor, rows, options)?;
        let array = arrays.into_iter().find(|array| array.part == self.part);
        array.ok_or_else(|| Error::bad_request(format!("tensor {} has no {}", self.name(), self.part)))
    }

    /// Splits a result: the report, or the reason to skip the tensor, or the error that ends the whole export.
    pub(crate) fn or_left_out(&self, result: Result<Report>) -> Result<Result<Report, String>> {
        match result {
            Ok(report) => Ok(Ok(report)),
            Err(error) if is_lossy(self.tensor, &error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// Whether `tensor` has strings that no array can hold unchanged.
pub(crate) fn is_lossy(tensor: &Tensor, error: &Error) -> bool {
    matches!(error, Error::Lossy { .. }) && tensor.info().spec.dtype() == Dtype::String
}

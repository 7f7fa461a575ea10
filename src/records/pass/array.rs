//! The arrays that a column becomes.

use crate::cast::decoder::Decoder;
use crate::error::Result;
use crate::error::request::BadRequest;
use crate::format::npy::Header;
use crate::options::request::Form;
use crate::output::part::Part;
use crate::records::columns::items::Units;
use crate::records::columns::{Arrange, Column, unsupported};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::spec::{MAX_NDIM, TensorSpec};

/// One output array of a pass.
#[derive(Debug, Clone)]
pub(crate) struct RecordArray {
    /// Index of its column.
    pub(crate) column: usize,
    pub(crate) part: Part,
    /// The feature's name, for messages.
    pub(crate) name: String,
    /// The dtypes in the report.
    pub(crate) dtype: Dtype,
    pub(crate) source_dtype: Dtype,
    /// A row before the cast.
    pub(crate) row: TensorSpec,
    /// The dtype of elements in the file.
    pub(crate) written: Dtype,
    pub(crate) decoder: Decoder,
    pub(crate) is_text: bool,
    /// Rows beyond those of records: the final offset of an offsets array.
    pub(crate) extra: u64,
    /// NumPy's descriptor of an element.
    pub(crate) descr: String,
}

impl RecordArray {
    /// The arrays of a column.
    pub(crate) fn of_column(index: usize, column: &Column, form: &Form) -> Result<Vec<Self>> {
        let source = column.spec.dtype();
        let written = form.cast.unwrap_or(source);
        let make = |part, dtype, source_dtype, row: TensorSpec, written, is_text, extra| -> Result<Self> {
            let stored = if part == Part::Offsets || extra > 0 { ByteOrder::Little } else { column.order };
            let decoder = Decoder::new((row.dtype(), stored), (written, form.order()), form.strict)?;
            let descr = written.descr_in(form.order())?;
            let descr = match row.shape().last() {
                Some(width) if is_text && row.dtype() == Dtype::UInt8 => format!("|S{width}"),
                Some(width) if is_text => format!("{}U{width}", &descr[..1]),
                _ => descr,
            };
            Ok(Self { column: index, part, name: column.name.clone(), dtype, source_dtype, row, written, decoder, is_text, extra, descr })
        };
        let row = TensorSpec::new(source, column.row_shape())?;
        if row.shape().len() + usize::from(!column.is_text) > MAX_NDIM {
            return Err(unsupported(&column.name, format!("it has more than the {MAX_NDIM} dimensions of NumPy arrays")));
        }
        let dtype = if column.is_text || column.dtype == Dtype::String { column.dtype } else { written };
        if !matches!(column.arrange, Arrange::Offsets(_)) {
            return Ok(vec![make(Part::Whole, dtype, column.dtype, row, written, column.is_text, 0)?]);
        }
        let offset = TensorSpec::new(Dtype::Int64, Vec::new())?;
        if column.only_offsets {
            return Ok(vec![make(Part::Whole, written, Dtype::Int64, offset, written, false, 1)?]);
        }
        let values = if column.dtype == Dtype::String && !column.is_text { Dtype::UInt8 } else { dtype };
        Ok(vec![
            make(Part::Values, values, column.dtype, row, written, column.is_text, 0)?,
            make(
                Part::Offsets,
                Dtype::Int64,
                if column.dtype == Dtype::String { column.dtype } else { Dtype::Int64 },
                offset,
                Dtype::Int64,
                false,
                1,
            )?,
        ])
    }

    /// Bytes of a row in the file.
    pub(crate) fn written_row(&self) -> u64 {
        self.row.elements().saturating_mul(self.written.itemsize().unwrap_or(1))
    }

    /// Converts bytes before the cast to bytes in the file.
    pub(crate) fn written_bytes(&self, stored: u64) -> u64 {
        stored / self.row.dtype().item_len() as u64 * self.written.item_len() as u64
    }

    /// The dtype of elements in the file.
    pub(crate) fn element(&self) -> Dtype {
        self.written
    }

    /// Bytes of `rows` rows in the file.
    ///
    /// # Errors
    /// Returns [`Error::BadRequest`] if that is 2^64 or more.
    pub(crate) fn nbytes(&self, rows: u64) -> Result<u64> {
        let too_large = || {
            let shape = [&[rows], self.row.shape()].concat();
            BadRequest::ShapeTooLarge { shape, itemsize: self.written.itemsize().unwrap_or(1) }.of_feature(&self.name).into()
        };
        rows.checked_mul(self.written_row()).ok_or_else(too_large)
    }

    /// The header of an array of `rows` rows.
    pub(crate) fn header(&self, rows: u64) -> Header {
        let row = self.row.shape();
        let axes = if self.is_text { &row[..row.len().saturating_sub(1)] } else { row };
        Header::new(&self.descr, &[&[rows], axes].concat())
    }

    /// Whether it has one offset for each record.
    pub(crate) fn is_record_offsets(&self, columns: &[Column]) -> bool {
        columns[self.column].arrange == Arrange::Offsets(Units::Records)
    }
}

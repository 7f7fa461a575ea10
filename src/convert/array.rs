//! The arrays that a tensor becomes: one, or two for strings with their offsets.

use std::sync::Arc;

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::Header;
use crate::options::request::{Form, Request};
use crate::options::strings::Strings as StringMode;
use crate::output::part::Part;
use crate::reader::strings::Strings;
use crate::reader::strings::offsets::{Offsets, Values};
use crate::reader::strings::padded::Padded;
use crate::reader::strings::text::Text;
use crate::reader::tensor_reader::TensorReader;
use crate::reader::transposed::ReversedAxes;
use crate::source::opened::Tensor;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::spec::TensorSpec;

/// An array to be made: the reader of its elements, and how they become elements of the array.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    pub(crate) part: Part,
    pub(crate) reader: Box<dyn TensorReader + 'a>,
    /// The tensor's dtype. The reader's differs where it turns strings into bytes.
    pub(crate) source_dtype: Dtype,
    /// The type of an array element that spans the reader's last axis.
    pub(crate) item: Option<ArrayItem>,
    /// Whether the array has the reader's axes in reverse order, since the source is in Fortran order.
    pub(crate) is_reversed: bool,
    /// The tensor's name, for messages.
    pub(crate) name: Option<String>,
    /// Bytes read from the source, where that differs from the size of the reader's elements.
    pub(crate) read_bytes: Option<u64>,
    /// Whether the reader has the selected rows only.
    pub(crate) is_selected: bool,
    /// Parts of the tensor that had to be given up.
    pub(crate) lost: Vec<String>,
}

/// An element of an array that consists of several elements of the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArrayItem {
    /// Bytes of text, padded.
    Bytes,
    /// Code points of text, padded.
    CodePoints,
    /// The type that the source names, in NumPy's spelling.
    Stored(String),
}

impl<'a> Array<'a> {
    /// The array of `rows` of the reader's elements.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar.
    pub(crate) fn of_reader(reader: Box<dyn TensorReader + 'a>, rows: Option<Rows>) -> Result<Self> {
        let spec = reader.spec();
        let source_dtype = spec.dtype();
        // With one axis, both orders are the same.
        let is_reversed = reader.layout() == Layout::F && spec.shape().len() > 1;
        let selected = spec.select(rows)?;
        let reader = if is_reversed { Box::new(ReversedAxes::new(reader, selected)?) } else { reader };
        let (part, item, name, read_bytes) = (Part::Whole, None, None, None);
        Ok(Self { part, source_dtype, reader, item, is_reversed, name, read_bytes, is_selected: is_reversed, lost: Vec::new() })
    }

    /// The arrays of a tensor. For strings they hold `rows`, and the lengths of these are read.
    pub(crate) fn of_tensor(tensor: &'a Tensor, request: &Request) -> Result<Vec<Self>> {
        Self::look_at(tensor, request).map_err(|error| request.run.cancel.unless_cancelled(error))
    }

    fn look_at(tensor: &'a Tensor, request: &Request) -> Result<Vec<Self>> {
        let Request { rows, form, run, .. } = request;
        let rows = *rows;
        let name = Some(tensor.info().name.to_string());
        check_rows(tensor, rows)?;
        if tensor.info().spec.dtype() != Dtype::String {
            let array = Self::of_reader(tensor.reader()?, rows)?;
            let item = tensor.info().item.clone().map(ArrayItem::Stored);
            if let Some(ArrayItem::Stored(descr)) = &item {
                check_as_stored(descr, form)?;
            }
            return Ok(vec![Self { item, name, lost: tensor.info().lost.clone(), ..array }]);
        }
        if let Some(dtype) = form.cast {
            // The refusal is about the cast: `strings` counts as used.
            form.strings.note();
            let detail = "strings are not numbers".into();
            return Err(Error::Unsupported { what: format!("a cast from string to {dtype}"), detail });
        }
        let stored = tensor.strings()?;
        let has_orders = stored.shape.iter().filter(|&&axis| axis > 1).count() > 1;
        if form.layout == Layout::F && form.strings.peek() == Some(StringMode::Offsets) && has_orders {
            let what = format!("Fortran order for {} as offsets", tensor.info().name);
            let detail = "strings are written in the order in which they are read: `layout` C".into();
            return Err(Error::Unsupported { what, detail });
        }
        // A computed tensor has its shape only now.
        let spec = TensorSpec::new(Dtype::String, stored.shape.clone())?;
        let range = spec.select(rows)?;
        let strings = Arc::new(Strings::open(stored, &range, run.verify, &run.calls)?);
        let read_bytes = |part| if part == Part::Offsets { strings.lengths_bytes() } else { strings.stored_bytes() };
        let array = |part, reader, item| Self {
            part,
            reader,
            source_dtype: Dtype::String,
            item,
            is_reversed: false,
            name: name.clone(),
            read_bytes: Some(read_bytes(part)),
            is_selected: true,
            lost: Vec::new(),
        };
        Ok(match form.strings.get().unwrap_or_default() {
            StringMode::Pad => vec![array(Part::Whole, Box::new(Padded::new(Arc::clone(&strings))?), Some(ArrayItem::Bytes))],
            StringMode::Utf8 => {
                vec![array(Part::Whole, Box::new(Text::new(Arc::clone(&strings), &run.calls)?), Some(ArrayItem::CodePoints))]
            }
            StringMode::Offsets => vec![
                array(Part::Values, Box::new(Values::new(Arc::clone(&strings))?), None),
                array(Part::Offsets, Box::new(Offsets::new(Arc::clone(&strings))?), None),
            ],
        })
    }

    /// The header for the reader's selected rows, which have this shape.
    pub(crate) fn header(&self, dtype: Dtype, shape: &[u64], form: &Form) -> Result<Header> {
        let descr = dtype.descr_in(form.order())?;
        let header = match (&self.item, shape.split_last()) {
            (Some(ArrayItem::Bytes), Some((width, shape))) => Header::new(&format!("|S{width}"), shape),
            (Some(ArrayItem::CodePoints), Some((width, shape))) => Header::new(&format!("{}U{width}", &descr[..1]), shape),
            (Some(ArrayItem::Stored(descr)), Some((_, shape))) => Header::new(descr, shape),
            _ if self.is_reversed => Header::new(&descr, &shape.iter().rev().copied().collect::<Vec<_>>()),
            _ => Header::new(&descr, shape),
        };
        Ok(if form.layout == Layout::F { header.fortran_ordered() } else { header })
    }
}

/// Refuses `rows` for parts of a ragged or sparse tensor, and for scalars.
///
/// # Errors
/// [`Error::BadRequest`].
pub(crate) fn check_rows(tensor: &Tensor, rows: Option<Rows>) -> Result<()> {
    match (&tensor.info().part_of, rows) {
        (Some(whole), Some(_)) => Err(BadRequest::RowsOfPart { name: tensor.info().name.to_string(), whole: whole.clone() }.into()),
        (None, Some(_)) if tensor.info().is_scalar() => Err(BadRequest::RowsOfScalar.into()),
        _ => Ok(()),
    }
}

/// Refuses options that cannot apply to elements copied as they are stored: structured records, text, dates.
fn check_as_stored(descr: &str, form: &Form) -> Result<()> {
    if let Some(dtype) = form.cast {
        let detail = "its elements are not numbers".into();
        return Err(Error::Unsupported { what: format!("a cast from {descr} to {dtype}"), detail });
    }
    let is_other = |order| descr.contains(if order == ByteOrder::Big { '<' } else { '>' });
    match form.byte_order.peek().filter(|&order| is_other(order)) {
        Some(order) => {
            let detail = "such elements are copied as they are stored: leave out `byte_order`".into();
            Err(Error::Unsupported { what: format!("{descr} in {order}-endian order"), detail })
        }
        None => Ok(()),
    }
}

//! The arrays that a tensor becomes: one, or two for strings with their offsets.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::npy::Header;
use crate::options::{Options, Strings as StringMode};
use crate::output::part::Part;
use crate::reader::strings::Strings;
use crate::reader::strings::offsets::{Offsets, Values};
use crate::reader::strings::padded::Padded;
use crate::reader::strings::text::Text;
use crate::reader::tensor_reader::TensorReader;
use crate::reader::transposed::Reversed;
use crate::source::opened::Tensor;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::spec::TensorSpec;

/// An array in the making: where its elements come from, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    pub(crate) part: Part,
    pub(crate) reader: Box<dyn TensorReader + 'a>,
    /// The tensor's dtype, which is not the reader's where the reader makes bytes of strings.
    pub(crate) source_dtype: Dtype,
    /// What an element of the array is, where it is the reader's last axis.
    pub(crate) item: Option<Item>,
    /// Whether the reader's axes are the array's the other way round: the source is in Fortran order.
    pub(crate) is_reversed: bool,
    /// The tensor's name, for messages.
    pub(crate) name: Option<String>,
    /// What is read of the source, where that is not the elements that the reader has.
    pub(crate) read_bytes: Option<u64>,
    /// Whether the reader has only the rows that are wanted.
    pub(crate) is_selected: bool,
    /// What of the tensor had to be given up.
    pub(crate) lost: Vec<String>,
}

/// An element that several of the reader's make up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes of text, padded.
    Bytes,
    /// Code points of text, padded.
    CodePoints,
    /// What the source says it is, in NumPy's words.
    Stored(String),
}

impl<'a> Array<'a> {
    /// The array of `rows` of what `reader` reads.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar.
    pub(crate) fn of_reader(reader: Box<dyn TensorReader + 'a>, rows: Option<Rows>) -> Result<Self> {
        let spec = reader.spec();
        let source_dtype = spec.dtype();
        // With one axis both orders are the same.
        let is_reversed = reader.layout() == Layout::F && spec.shape().len() > 1;
        let selected = spec.select(rows)?;
        let reader = if is_reversed { Box::new(Reversed::new(reader, selected)?) } else { reader };
        let (part, item, name, read_bytes) = (Part::Whole, None, None, None);
        Ok(Self { part, source_dtype, reader, item, is_reversed, name, read_bytes, is_selected: is_reversed, lost: Vec::new() })
    }

    /// The arrays of a tensor; of strings those of `rows`, of which the lengths are read.
    pub(crate) fn of_tensor(tensor: &'a Tensor, rows: Option<Rows>, options: &Options) -> Result<Vec<Self>> {
        Self::look_at(tensor, rows, options).map_err(|error| options.cancel.unless_cancelled(error))
    }

    fn look_at(tensor: &'a Tensor, rows: Option<Rows>, options: &Options) -> Result<Vec<Self>> {
        let name = Some(tensor.info().name.to_string());
        check_rows(tensor, rows)?;
        if tensor.info().spec.dtype() != Dtype::String {
            let array = Self::of_reader(tensor.reader()?, rows)?;
            let item = tensor.info().item.clone().map(Item::Stored);
            if let Some(Item::Stored(descr)) = &item {
                check_as_stored(descr, options)?;
            }
            return Ok(vec![Self { item, name, lost: tensor.info().lost.clone(), ..array }]);
        }
        if let Some(dtype) = options.cast {
            // It is no fault of this choice's.
            options.strings.note();
            let detail = "strings are no numbers".into();
            return Err(Error::Unsupported { what: format!("a cast from string to {dtype}"), detail });
        }
        let stored = tensor.strings()?;
        let has_orders = stored.shape.iter().filter(|&&axis| axis > 1).count() > 1;
        if options.layout == Layout::F && options.strings.peek() == Some(StringMode::Offsets) && has_orders {
            let what = format!("Fortran order for {} as offsets", tensor.info().name);
            let detail = "strings are written in the order in which they are read: `layout` C".into();
            return Err(Error::Unsupported { what, detail });
        }
        // What is computed has a shape only now.
        let spec = TensorSpec::new(Dtype::String, stored.shape.clone()).map_err(Error::bad_request)?;
        let range = spec.select(rows)?;
        let strings = Arc::new(Strings::open(stored, &range, options.verify, &options.calls())?);
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
        Ok(match options.strings.get().unwrap_or_default() {
            StringMode::Pad => vec![array(Part::Whole, Box::new(Padded::new(Arc::clone(&strings))?), Some(Item::Bytes))],
            StringMode::Utf8 => {
                vec![array(Part::Whole, Box::new(Text::new(Arc::clone(&strings), &options.calls())?), Some(Item::CodePoints))]
            }
            StringMode::Offsets => vec![
                array(Part::Values, Box::new(Values::new(Arc::clone(&strings))?), None),
                array(Part::Offsets, Box::new(Offsets::new(Arc::clone(&strings))?), None),
            ],
        })
    }

    /// The header for the selected rows of the reader, of this shape.
    pub(crate) fn header(&self, dtype: Dtype, shape: &[u64], options: &Options) -> Result<Header> {
        let descr = dtype.descr_in(options.order())?;
        let header = match (&self.item, shape.split_last()) {
            (Some(Item::Bytes), Some((width, shape))) => Header::new(&format!("|S{width}"), shape),
            (Some(Item::CodePoints), Some((width, shape))) => Header::new(&format!("{}U{width}", &descr[..1]), shape),
            (Some(Item::Stored(descr)), Some((_, shape))) => Header::new(descr, shape),
            _ if self.is_reversed => Header::new(&descr, &shape.iter().rev().copied().collect::<Vec<_>>()),
            _ => Header::new(&descr, shape),
        };
        Ok(if options.layout == Layout::F { header.fortran_ordered() } else { header })
    }
}

/// Refuses rows of parts of a ragged or sparse tensor.
///
/// # Errors
/// [`Error::BadRequest`].
pub(crate) fn check_rows(tensor: &Tensor, rows: Option<Rows>) -> Result<()> {
    match (&tensor.info().part_of, rows) {
        (Some(whole), Some(_)) => {
            let name = &tensor.info().name;
            let detail =
                format!("`rows` of {name}: it is a part of {whole}, which is ragged or sparse, and rows of its parts mean nothing");
            Err(Error::bad_request(detail))
        }
        _ => Ok(()),
    }
}

/// Refuses choices for elements that are written as they are stored: records, text, dates.
fn check_as_stored(descr: &str, options: &Options) -> Result<()> {
    if let Some(dtype) = options.cast {
        let detail = "its elements are no numbers".into();
        return Err(Error::Unsupported { what: format!("a cast from {descr} to {dtype}"), detail });
    }
    let is_other = |order| descr.contains(if order == ByteOrder::Big { '<' } else { '>' });
    match options.asked_order().filter(|&order| is_other(order)) {
        Some(order) => {
            let detail = "such elements are written as they are stored, without `byte_order`".into();
            Err(Error::Unsupported { what: format!("{descr} in {order}-endian order"), detail })
        }
        None => Ok(()),
    }
}

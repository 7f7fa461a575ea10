//! The messages in a V1 checkpoint: a table of contents, and a record for each slice.
//!
//! Source: `tensorflow/core/util/saved_tensor_slice.proto`, `tensor_slice_reader.cc`.

use std::ops::Range;

use crate::error::{ParseError, Result};
use crate::format::bundle::{Extent, parse_shape, parse_slice, parse_version};
use crate::format::proto::Fields;
use crate::reader::proto_index::{FieldValue, FieldWalker};
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

pub(crate) const WHAT: &str = "saved tensor slices";
/// Longest name, shape or slice.
const MOST_SMALL: u64 = 64 << 10;

/// A tensor in the table of contents.
#[derive(Debug)]
pub(crate) struct SlicedTensor {
    pub(crate) name: Vec<u8>,
    pub(crate) spec: TensorSpec,
    pub(crate) slices: Vec<Vec<Extent>>,
}

/// Yields the tensors of the table of contents in the record at `outline`. Returns `false` if it has none.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed), [`Error::Io`](crate::Error::Io), those of `each`.
pub(crate) fn table_of_contents(outline: &mut FieldWalker<'_>, mut each: impl FnMut(SlicedTensor) -> Result<()>) -> Result<bool> {
    let mut is_there = false;
    while let Some(field) = outline.next_field()? {
        let (1, FieldValue::Bytes(meta)) = (field.number, &field.value) else { continue };
        is_there = true;
        outline.within(meta, |meta| {
            while let Some(part) = meta.next_field()? {
                match (part.number, &part.value) {
                    (1, FieldValue::Bytes(tensor)) => each(meta.within(tensor, listed)?)?,
                    (2, FieldValue::Bytes(version)) => {
                        small(meta, version, parse_version)?;
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
    }
    Ok(is_there)
}

/// Reads and parses a small message.
fn small<T>(outline: &mut FieldWalker<'_>, at: &Range<u64>, parse: impl FnOnce(Fields<'_>) -> Result<T, ParseError>) -> Result<T> {
    let path = outline.path();
    let bytes = outline.read(at, MOST_SMALL)?;
    parse(Fields::new(&bytes, memory_len(at.start), WHAT)).map_err(|error| error.in_file(path))
}

/// Reads a `SavedSliceMeta`.
fn listed(outline: &mut FieldWalker<'_>) -> Result<SlicedTensor> {
    let start = outline.rest().start;
    let (mut name, mut shape, mut code, mut slices) = (Vec::new(), Vec::new(), 0, Vec::new());
    while let Some(field) = outline.next_field()? {
        match (field.number, &field.value) {
            (1, FieldValue::Bytes(at)) => name = outline.read(at, MOST_SMALL)?,
            (2, FieldValue::Bytes(at)) => small(outline, at, |fields| parse_shape(fields, &mut shape))?,
            (3, FieldValue::Varint(value)) => code = *value,
            (4, FieldValue::Bytes(at)) => slices.push(small(outline, at, parse_slice)?),
            (1..=4, _) => return Err(outline.malformed(field.offset, format!("field {} has another wire type", field.number))),
            _ => {}
        }
    }
    let dtype = Dtype::from_code(code).ok_or_else(|| outline.malformed(start, format!("dtype {code} does not exist in stored tensors")))?;
    let spec = TensorSpec::new(dtype, shape).map_err(|request| outline.malformed(start, request.to_string()))?;
    Ok(SlicedTensor { name, spec, slices })
}

/// The place of the values in the record at `outline`, which must be the record of the slice `extents` of the tensor `name`.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed), [`Error::Io`](crate::Error::Io).
pub(crate) fn values(outline: &mut FieldWalker<'_>, name: &[u8], extents: &[Extent]) -> Result<Range<u64>> {
    let start = outline.rest().start;
    let mut found = None;
    while let Some(field) = outline.next_field()? {
        let (2, FieldValue::Bytes(data)) = (field.number, &field.value) else { continue };
        if found.is_some() {
            return Err(outline.malformed(field.offset, "a record has two slices"));
        }
        found = Some(outline.within(data, saved_slice)?);
    }
    let Some((own_name, own_extents, Some(values))) = found else { return Err(outline.malformed(start, "a record has no data")) };
    if own_name != name || own_extents != extents {
        let own = String::from_utf8_lossy(&own_name);
        return Err(outline.malformed(start, format!("the record belongs to another slice than its key, to {own:?}")));
    }
    Ok(values)
}

/// The tensor name and the slice in a `SavedSlice`, and the place of its `TensorProto`.
type Saved = (Vec<u8>, Vec<Extent>, Option<Range<u64>>);

fn saved_slice(outline: &mut FieldWalker<'_>) -> Result<Saved> {
    let (mut name, mut extents, mut values) = (Vec::new(), Vec::new(), None);
    while let Some(field) = outline.next_field()? {
        match (field.number, &field.value) {
            (1, FieldValue::Bytes(at)) => name = outline.read(at, MOST_SMALL)?,
            (2, FieldValue::Bytes(at)) => extents = small(outline, at, parse_slice)?,
            (3, FieldValue::Bytes(_)) if values.is_some() => return Err(outline.malformed(field.offset, "a slice has two tensors")),
            (3, FieldValue::Bytes(at)) => values = Some(at.clone()),
            _ => {}
        }
    }
    Ok((name, extents, values))
}

//! Decodes the values of a feature into items.

use flate2::{Decompress, FlushDecompress, Status};

use super::inflate::{inflate_all, inflated_len};
use super::problem::Problem;
use crate::cast::elements::Cast;
use crate::error::ParseError;
use crate::error::texts::ShapeText;
use crate::format::example::{self, FeatureValues, Kind};
use crate::format::tensor_proto::{TensorProto, int_fits};
use crate::image::ImageChoices;
use crate::image::form::ImageForm;
use crate::records::locate::FeatureBytes;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Limit in bytes for one tensor with repeated values in a list.
const MOST_REPEATED: usize = 64 << 20;

/// What an offsets array has the starts of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Units {
    /// The items of each record.
    Records,
    /// The bytes of each string; `Some` if every record must have that many strings.
    Values(Option<u64>),
}

/// How the values of a feature become items.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    /// Numbers of a list, `per_item` each; in a feature list an item is a step.
    Numbers {
        kind: Kind,
        per_item: u64,
        cast: Option<Cast>,
        narrow: Option<Dtype>,
        steps: bool,
    },
    /// Raw elements in a bytes value, maybe compressed with zlib.
    Raw {
        is_zlib: bool,
    },
    /// Any number of rows of raw elements in a bytes value.
    RawRows {
        is_zlib: bool,
        row_bytes: u64,
    },
    Image {
        choices: ImageChoices,
        form: ImageForm,
    },
    /// A `TensorProto`.
    Tensor,
    /// The rows of a `TensorProto`.
    TensorRows,
    /// Strings.
    Text(Text),
}

/// How strings become items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    pub(crate) form: TextForm,
    /// Whether a value is a `TensorProto` of strings.
    pub(crate) in_tensors: bool,
    /// Number of strings in an item.
    pub(crate) per_item: u64,
}

impl Text {
    /// Adds alternatives to a problem with strings. Tensors already have elements, so they need none.
    fn told(self, problem: Problem) -> Problem {
        match problem {
            Problem::Lossy(detail) if !self.in_tensors => {
                Problem::Lossy(format!("{detail} (with `flatten` where records have different numbers of them), `raw` reads elements"))
            }
            other => other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextForm {
    /// Padded with zeros.
    Padded,
    /// Code points, padded with zeros.
    Utf8,
    /// Their bytes, without padding.
    Bytes,
}

impl Item {
    /// Whether a record has no values, as if it lacked the feature.
    pub(crate) fn is_empty(&self, stored: &FeatureBytes<'_>) -> Result<bool, ParseError> {
        match (self, stored) {
            (Self::Numbers { .. }, FeatureBytes::Feature(feature, base)) => Ok(Numbers::count(feature, *base)? == 0),
            _ => Ok(self.count(stored)? == 0),
        }
    }

    /// Whether items are the rows inside a value.
    pub(crate) fn is_of_rows(&self) -> bool {
        matches!(self, Self::TensorRows | Self::RawRows { .. })
    }

    /// Whether the values of a record can only decode to little data.
    pub(crate) fn is_small(&self, stored: &FeatureBytes<'_>) -> bool {
        const LITTLE: usize = 64 << 10;
        let len = match stored {
            FeatureBytes::Missing => 0,
            FeatureBytes::Feature(bytes, _) | FeatureBytes::List(bytes, _) | FeatureBytes::Value(bytes) => bytes.len(),
        };
        matches!(self, Self::Numbers { .. }) && len <= LITTLE
    }

    /// The number of items in a record.
    pub(crate) fn count(&self, stored: &FeatureBytes<'_>) -> Result<u64, ParseError> {
        match (self, stored) {
            (_, FeatureBytes::Missing) => Ok(0),
            (Self::Numbers { per_item, .. }, FeatureBytes::Feature(feature, base)) => {
                FeatureValues::parse(feature, *base)?.map_or(Ok(0), |values| values.count().map(|count| count / (*per_item).max(1)))
            }
            (Self::Numbers { .. }, FeatureBytes::List(list, base)) => Ok(example::steps(list, *base).count() as u64),
            (Self::TensorRows, _) => {
                let mut rows = 0;
                each_value(stored, |value, base| {
                    rows += TensorProto::parse(value, base)?.spec.shape().first().copied().unwrap_or(1);
                    Ok(())
                })?;
                Ok(rows)
            }
            (Self::RawRows { is_zlib, row_bytes }, _) => {
                let mut rows = 0;
                each_value(stored, |value, base| {
                    let len = if *is_zlib { inflated_len(value) } else { Some(value.len() as u64) };
                    rows += len.ok_or_else(|| ParseError::new(base, "value", "no zlib stream that can be read"))? / (*row_bytes).max(1);
                    Ok(())
                })?;
                Ok(rows)
            }
            (Self::Text(text), _) if text.in_tensors => {
                let mut count = 0;
                each_value(stored, |value, base| {
                    let spec = TensorProto::parse(value, base)?.spec;
                    // Rows may have no strings at all.
                    let rows = spec.elements().checked_div(text.per_item);
                    count += rows.unwrap_or_else(|| spec.shape().first().copied().unwrap_or(0));
                    Ok(())
                })?;
                Ok(count)
            }
            _ => {
                let mut count = 0;
                each_value(stored, |_, _| {
                    count += 1;
                    Ok(())
                })?;
                Ok(count)
            }
        }
    }

    /// The number of strings in a record, and of their bytes.
    pub(crate) fn count_bytes(&self, stored: &FeatureBytes<'_>) -> Result<(u64, u64), ParseError> {
        let (mut values, mut bytes) = (0, 0);
        self.each_string(stored, |string| {
            values += 1;
            bytes += string.len() as u64;
            Ok(())
        })?;
        Ok((values, bytes))
    }

    fn each_string<E: From<ParseError>>(&self, stored: &FeatureBytes<'_>, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let in_tensors = matches!(self, Self::Text(text) if text.in_tensors);
        let mut failure = None;
        let mut keep = |result: Result<(), E>| {
            result.map_err(|error| {
                failure = Some(error);
                // Ends the walk; its text is not used.
                ParseError::new(0, "string", "")
            })
        };
        let walked = each_value(stored, |value, base| {
            if in_tensors {
                let proto = TensorProto::parse(value, base)?;
                if proto.spec.dtype() != Dtype::String {
                    return Err(ParseError::new(base, "TensorProto", format!("it is {}, expected strings", proto.spec)));
                }
                return proto.strings(|string| keep(each(string)));
            }
            keep(each(value))
        });
        match (failure, walked) {
            (Some(error), _) => Err(error),
            (None, walked) => Ok(walked?),
        }
    }

    /// Appends the items of a record as elements; returns their number. For [`TextForm::Bytes`], string lengths go to `units`.
    pub(crate) fn decode(
        &self,
        stored: &FeatureBytes<'_>,
        spec: &TensorSpec,
        out: &mut Vec<u8>,
        units: &mut Vec<u64>,
    ) -> Result<u64, Problem> {
        let item_bytes = memory_len(spec.nbytes());
        match self {
            Self::Numbers { kind, per_item, cast, narrow, steps } => {
                let numbers = Numbers { kind: *kind, cast: cast.as_ref(), narrow: *narrow, itemsize: spec.dtype().item_len() };
                match stored {
                    FeatureBytes::Feature(feature, base) if !steps => {
                        let count = numbers.decode(feature, *base, out)?;
                        if *per_item == 0 || !count.is_multiple_of(*per_item) {
                            return Err(Problem::Odd(format!(
                                "has {count} values, which is not a whole number of items of shape {}",
                                ShapeText(spec.shape())
                            )));
                        }
                        Ok(count / per_item)
                    }
                    FeatureBytes::List(list, base) => {
                        let mut items = 0;
                        for step in example::steps(list, *base) {
                            let (feature, base) = step?;
                            let is_long = feature.len() as u64 / 10 > *per_item;
                            let count = if is_long { Numbers::count(feature, base)? } else { numbers.decode(feature, base, out)? };
                            if count != *per_item {
                                return Err(Problem::Odd(format!(
                                    "has {count} values in step {items}, {per_item} expected as in the first"
                                )));
                            }
                            items += 1;
                        }
                        Ok(items)
                    }
                    _ => Err(Problem::Odd("has no list of numbers".into())),
                }
            }
            Self::Raw { is_zlib } => Self::each_item(stored, |value| {
                if *is_zlib {
                    return inflate(value, item_bytes, out);
                }
                if value.len() != item_bytes {
                    let detail = format!(
                        "has {} bytes, {spec} has {item_bytes}: `shape` with -1 together with `ragged` accepts rows of different lengths",
                        value.len()
                    );
                    return Err(Problem::Odd(detail));
                }
                out.extend_from_slice(value);
                Ok(())
            }),
            Self::RawRows { is_zlib, .. } => {
                let mut rows = 0;
                Self::each_item(stored, |value| {
                    let before = out.len();
                    if *is_zlib {
                        inflate_all(value, out)?;
                    } else {
                        out.extend_from_slice(value);
                    }
                    let len = out.len() - before;
                    if item_bytes == 0 || !len.is_multiple_of(item_bytes) {
                        return Err(Problem::Odd(format!("has {len} bytes, which is not a whole number of rows of {spec}")));
                    }
                    rows += (len / item_bytes) as u64;
                    Ok(())
                })?;
                Ok(rows)
            }
            Self::Image { choices, form } => Self::each_item(stored, |value| {
                let found = choices.look(value).map_err(Problem::Bad)?;
                if found != *form {
                    return Err(Problem::Odd(format!(
                        "has an image of {found}, {form} expected as in the first: an array has one size; `rows` converts those of one size, and \
                         tf.image.resize or an image tool makes them equal before"
                    )));
                }
                let start = out.len();
                out.resize(start + item_bytes, 0);
                choices.decode(value, form, &mut out[start..]).map_err(Problem::Bad)
            }),
            Self::Tensor | Self::TensorRows => self.decode_tensors(stored, spec, out),
            Self::Text(text) => self.decode_text(*text, stored, item_bytes, out, units),
        }
    }

    fn decode_tensors(&self, stored: &FeatureBytes<'_>, spec: &TensorSpec, out: &mut Vec<u8>) -> Result<u64, Problem> {
        let mut rows = 0;
        let items = Self::each_item(stored, |value| {
            let proto = TensorProto::parse(value, 0)?;
            let is_rows = matches!(self, Self::TensorRows);
            let fits = match proto.spec.shape().split_first() {
                Some((_, rest)) if is_rows => rest == spec.shape(),
                _ => !is_rows && proto.spec.shape() == spec.shape(),
            };
            if !fits || proto.spec.dtype() != spec.dtype() {
                let rows = if is_rows { "rows of " } else { "" };
                let is_ragged = !is_rows && !spec.shape().is_empty() && proto.spec.shape().get(1..) == spec.shape().get(1..);
                let hint = if is_ragged { ": `ragged` takes axes 0 of different lengths" } else { "" };
                return Err(Problem::Odd(format!("has a tensor {}, {rows}{spec} expected as in the first{hint}", proto.spec)));
            }
            let len = memory_len(proto.spec.nbytes());
            rows += proto.spec.shape().first().copied().unwrap_or(1);
            let start = out.len();
            // A few bytes can stand for any number of repeated elements.
            if is_rows && len > value.len().max(MOST_REPEATED) {
                return Err(Problem::Bad(format!("has a tensor {}, which is too large for a list", proto.spec)));
            }
            out.resize(start + len, 0);
            Ok(proto.fill(&mut out[start..])?)
        })?;
        Ok(if matches!(self, Self::TensorRows) { rows } else { items })
    }

    fn decode_text(
        &self,
        text: Text,
        stored: &FeatureBytes<'_>,
        item_bytes: usize,
        out: &mut Vec<u8>,
        units: &mut Vec<u64>,
    ) -> Result<u64, Problem> {
        let (mut strings, mut bytes) = (0u64, 0);
        let width = item_bytes / memory_len(text.per_item.max(1));
        self.each_string(stored, |string| -> Result<(), Problem> {
            strings += 1;
            match text.form {
                TextForm::Bytes => {
                    out.extend_from_slice(string);
                    units.push(string.len() as u64);
                    bytes += string.len() as u64;
                    return Ok(());
                }
                TextForm::Padded => pad(string, width, out).map_err(|problem| text.told(problem))?,
                TextForm::Utf8 => pad_code_points(string, width, out)?,
            }
            Ok(())
        })?;
        match strings.checked_div(text.per_item) {
            _ if text.form == TextForm::Bytes => Ok(bytes),
            Some(items) => Ok(items),
            None => Ok(self.count(stored)?),
        }
    }

    /// Calls `each` with every value; returns their number.
    fn each_item(stored: &FeatureBytes<'_>, mut each: impl FnMut(&[u8]) -> Result<(), Problem>) -> Result<u64, Problem> {
        let mut items = 0;
        let mut failure = None;
        let walked = each_value(stored, |value, base| {
            items += 1;
            each(value).map_err(|problem| {
                let place = ParseError::new(base, "value", "");
                failure = Some(match problem {
                    // Its offset is relative to the value.
                    Problem::Broken(error) => Problem::Broken(error.shifted(base as u64)),
                    problem => problem,
                });
                place
            })
        });
        match (failure, walked) {
            (Some(problem), _) => Err(problem),
            (None, walked) => walked.map(|()| items).map_err(Problem::Broken),
        }
    }

    /// The only value of a record, if its bytes are the item.
    pub(crate) fn stored<'a>(&self, stored: &FeatureBytes<'a>) -> Option<&'a [u8]> {
        match (self, stored) {
            (Self::Raw { is_zlib: false }, FeatureBytes::Value(value)) => Some(value),
            (Self::Raw { is_zlib: false }, FeatureBytes::Feature(feature, base)) => {
                let values = FeatureValues::parse(feature, *base).ok().flatten().filter(|values| values.kind() == Kind::Bytes)?;
                let mut only = None;
                let mut count = 0;
                values
                    .bytes(|value, _| {
                        count += 1;
                        only = Some(value);
                        Ok(())
                    })
                    .ok()?;
                only.filter(|_| count == 1)
            }
            _ => None,
        }
    }
}

/// Number of bytes values in a record.
pub(crate) fn values_in(stored: &FeatureBytes<'_>) -> Result<u64, ParseError> {
    let mut values = 0;
    each_value(stored, |_, _| {
        values += 1;
        Ok(())
    })?;
    Ok(values)
}

/// Calls `each` with every bytes value and its offset in its part of the record.
fn each_value<'a>(stored: &FeatureBytes<'a>, mut each: impl FnMut(&'a [u8], usize) -> Result<(), ParseError>) -> Result<(), ParseError> {
    let mut of_feature = |feature: &'a [u8], base: usize| match FeatureValues::parse(feature, base)? {
        Some(values) if values.kind() == Kind::Bytes => values.bytes(&mut each),
        Some(values) => {
            Err(ParseError::new(base, "Feature", format!("it is a {}, expected a bytes_list as in the first record", values.kind().name())))
        }
        None => Ok(()),
    };
    match stored {
        FeatureBytes::Missing => Ok(()),
        FeatureBytes::Feature(feature, base) => of_feature(feature, *base),
        FeatureBytes::List(list, base) => {
            for step in example::steps(list, *base) {
                let (feature, base) = step?;
                of_feature(feature, base)?;
            }
            Ok(())
        }
        FeatureBytes::Value(value) => each(value, 0),
    }
}

/// How numbers of a list become elements.
struct Numbers<'a> {
    kind: Kind,
    cast: Option<&'a Cast>,
    narrow: Option<Dtype>,
    itemsize: usize,
}

impl Numbers<'_> {
    /// Number of values in a `Feature`.
    fn count(feature: &[u8], base: usize) -> Result<u64, ParseError> {
        FeatureValues::parse(feature, base)?.map_or(Ok(0), |values| values.count())
    }

    /// Appends the numbers of a `Feature`; returns how many there were.
    fn decode(&self, feature: &[u8], base: usize, out: &mut Vec<u8>) -> Result<u64, Problem> {
        let Some(values) = FeatureValues::parse(feature, base)? else { return Ok(0) };
        if values.kind() != self.kind {
            return Err(Problem::Odd(format!("has a {}, a {} is expected as in the first", values.kind().name(), self.kind.name())));
        }
        let start = out.len();
        let mut wrong = None;
        match (self.kind, self.cast) {
            (Kind::Floats, None) => values.floats(|run| out.extend_from_slice(run))?,
            (Kind::Floats, Some(cast)) => values.floats(|run| {
                let start = out.len();
                out.resize(start + run.len() / 4 * self.itemsize, 0);
                cast.run_matching(run, &mut out[start..]);
            })?,
            (_, _) => match self.narrow {
                None => values.ints(|value| example::push_int(out, value))?,
                Some(dtype) => values.ints(|value| {
                    if !int_fits(dtype, value) && dtype != Dtype::UInt64 {
                        wrong.get_or_insert(value);
                    }
                    out.extend_from_slice(&value.to_le_bytes()[..self.itemsize]);
                })?,
            },
        }
        match (wrong, self.narrow) {
            (Some(value), Some(dtype)) => Err(Problem::Bad(format!("has the value {value}, which is not a {dtype}"))),
            _ => Ok(((out.len() - start) / self.itemsize) as u64),
        }
    }
}

/// Appends the decompressed `bytes`, which must have length `len`.
fn inflate(bytes: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    let start = out.len();
    out.resize(start + len, 0);
    let mut state = Decompress::new(true);
    let status = state
        .decompress(bytes, &mut out[start..], FlushDecompress::Finish)
        .map_err(|error| Problem::Bad(format!("has bytes that are not zlib: {error}")))?;
    if status == Status::StreamEnd && state.total_out() == len as u64 && state.total_in() == bytes.len() as u64 {
        return Ok(());
    }
    Err(Problem::Odd(match status {
        Status::StreamEnd if state.total_in() < bytes.len() as u64 => {
            format!("has {} bytes after its zlib stream", bytes.len() as u64 - state.total_in())
        }
        Status::StreamEnd => {
            format!("has {} bytes in its zlib stream, and an item has {len}: if items differ, `ragged`", state.total_out())
        }
        _ => format!("has more than the {len} bytes of an item in its zlib stream: if items differ, `ragged`"),
    }))
}

/// Appends a string, padded with zeros.
fn pad(string: &[u8], width: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    if string.len() > width {
        return Err(Problem::Odd(format!("has a string of {} bytes, the longest seen before has {width}", string.len())));
    }
    if string.last() == Some(&0) {
        return Err(Problem::Lossy("ends in NUL, which NumPy's |S strings lose: `strings` offsets keeps it".into()));
    }
    let end = out.len() + width;
    out.extend_from_slice(string);
    out.resize(end, 0);
    Ok(())
}

/// Appends the code points of a string, padded with zeros.
fn pad_code_points(string: &[u8], width: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    let text = std::str::from_utf8(string).map_err(|error| {
        Problem::Lossy(format!("is not UTF-8 at its byte {}: `strings` pad or offsets keeps its bytes", error.valid_up_to()))
    })?;
    if text.ends_with('\0') {
        return Err(Problem::Lossy("ends in NUL, which NumPy's <U strings lose: `strings` offsets keeps it".into()));
    }
    let end = out.len() + width;
    for c in text.chars() {
        out.extend_from_slice(&u32::from(c).to_le_bytes());
    }
    if out.len() > end {
        return Err(Problem::Odd(format!("has a string of {} bytes, which is longer than any seen before", string.len())));
    }
    out.resize(end, 0);
    Ok(())
}

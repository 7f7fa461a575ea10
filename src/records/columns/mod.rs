//! Turns the values of a feature into rows of an array: plans columns, and decodes each record.
//!
//! Where records come from and where rows go belong to `stream` and `pass`. Start with [`Column`]; `resolve` makes it from a
//! feature and the options, `items` decodes values.

pub(crate) mod fill;
pub(crate) mod inflate;
pub(crate) mod items;
pub(crate) mod problem;
pub(crate) mod resolve;

use std::sync::Arc;

use serde::Serialize;

use super::feature::{Encoding, Feature, Key};
use super::locate::FeatureBytes;
use super::survey::{BytesKind, Stats, Survey, Widths};
use crate::error::{Error, ParseError};
use crate::format::example::{FeatureValues, Kind};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

use items::{Item, Units};
use problem::Problem;

/// What is known of a feature of records.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FeatureInfo {
    /// `float_list`, `int64_list`, `bytes_list`, `tensor` or `bytes`.
    pub kind: &'static str,
    /// The fewest and the most values in a record, or steps in a feature list; a record without the feature counts as 0.
    pub lengths: (u64, u64),
    /// The content of bytes values.
    pub encoding: Option<String>,
    /// Number of records without it.
    pub missing: u64,
}

/// How the items of a record make rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrange {
    /// A record has one item, which is a row.
    Single,
    /// This many items are a row.
    Fixed(u64),
    /// At most this many items are a row, padded to that number.
    Padded(u64),
    /// Each item is a row.
    Flat,
    /// Each item is a row, and another array has the starts of units.
    Offsets(Units),
}

/// What to do with a record that lacks the feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Treat it as an empty list, which is an error where a row needs items.
    Empty,
    /// Refuse it.
    Refused,
    /// Leave it out of all arrays.
    Skipped,
    /// Fill its row with this element.
    Filled(Vec<u8>),
}

/// How the array of one feature is made.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Index of its key in the locator.
    pub(crate) index: usize,
    pub(crate) item: Item,
    /// An item, as little-endian elements.
    pub(crate) spec: TensorSpec,
    /// The byte order of raw elements; little-endian otherwise.
    pub(crate) order: ByteOrder,
    pub(crate) arrange: Arrange,
    /// The dtype in the report.
    pub(crate) dtype: Dtype,
    /// Whether the last axis of an item is one element of the array: a string.
    pub(crate) is_text: bool,
    pub(crate) absent: Absent,
    /// The element that pads short rows.
    pub(crate) padding: Vec<u8>,
    /// Index of the feature that holds the shape of this one, and the shape that every record must have.
    pub(crate) shape_is: Option<(usize, Arc<[i64]>)>,
    /// The axes that the items of a row form, if several.
    pub(crate) fold: Vec<u64>,
    /// Whether only the offsets are requested, without the items.
    pub(crate) only_offsets: bool,
}

impl Column {
    /// A column of a feature's items: missing values are an error, nothing is padded.
    pub(crate) fn new(name: String, index: usize, item: Item, spec: TensorSpec, arrange: Arrange, dtype: Dtype) -> Self {
        Self {
            name,
            index,
            item,
            spec,
            order: ByteOrder::Little,
            arrange,
            dtype,
            is_text: false,
            absent: Absent::Empty,
            padding: Vec::new(),
            shape_is: None,
            fold: Vec::new(),
            only_offsets: false,
        }
    }

    /// Whether records without it are skipped.
    pub(crate) fn skips(&self) -> bool {
        self.absent == Absent::Skipped
    }

    /// Number of items in a row, if fixed.
    fn items_in_row(&self) -> u64 {
        match self.arrange {
            Arrange::Single | Arrange::Flat | Arrange::Offsets(_) => 1,
            Arrange::Fixed(items) | Arrange::Padded(items) => items,
        }
    }

    /// The shape of a row.
    pub(crate) fn row_shape(&self) -> Vec<u64> {
        let items = match self.arrange {
            Arrange::Single | Arrange::Flat | Arrange::Offsets(_) => Vec::new(),
            Arrange::Fixed(_) if !self.fold.is_empty() => self.fold.clone(),
            Arrange::Fixed(items) | Arrange::Padded(items) => vec![items],
        };
        [&items, self.spec.shape()].concat()
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.spec.nbytes().saturating_mul(self.items_in_row())
    }

    /// Whether decoding rows needs extra memory.
    pub(crate) fn needs_decoder(&self) -> bool {
        matches!(self.item, Item::Image { .. })
    }

    /// Whether rows are stored exactly as they are written.
    pub(crate) fn is_stored(&self) -> bool {
        self.arrange == Arrange::Single && matches!(self.item, Item::Raw { is_zlib: false })
    }

    /// Whether each record has exactly one row.
    pub(crate) fn is_row_per_record(&self) -> bool {
        !matches!(self.arrange, Arrange::Flat | Arrange::Offsets(_))
    }

    /// Whether a record has the values that the column needs.
    pub(crate) fn is_present(&self, stored: &FeatureBytes<'_>) -> Result<bool, ParseError> {
        match (stored, &self.arrange) {
            (FeatureBytes::Missing, _) => Ok(false),
            // An empty list cannot make a row.
            (_, Arrange::Single | Arrange::Fixed(_)) => Ok(!self.item.is_empty(stored)?),
            // Elsewhere an empty list is a value, but a feature without a kind is missing.
            (FeatureBytes::Feature(feature, base), _) => Ok(FeatureValues::parse(feature, *base)?.is_some()),
            _ => Ok(true),
        }
    }

    /// What a record adds to an array of unknown length: units whose starts are noted, and items.
    pub(crate) fn count(&self, stored: &FeatureBytes<'_>) -> Result<(u64, u64), Problem> {
        match &self.arrange {
            Arrange::Offsets(Units::Values(per_record)) => {
                let (values, bytes) = self.item.count_bytes(stored)?;
                match per_record {
                    Some(expected) if *expected != values => Err(Problem::Odd(format!(
                        "has {values} strings, {expected} expected as in the first, which as offsets would make three arrays: `strings` pad or `flatten`"
                    ))),
                    _ => Ok((values, bytes)),
                }
            }
            _ => Ok((1, self.item.count(stored)?)),
        }
    }

    fn odd_count(found: u64, expected: u64) -> Problem {
        Problem::Odd(format!(
            "has {found} values for it, {expected} expected as in the first: `ragged` pad or `ragged` offsets takes them as they are"
        ))
    }

    /// Refuses a record whose items do not make a row.
    fn check_count(&self, items: u64) -> Result<(), Problem> {
        let expected = self.items_in_row();
        match self.arrange {
            Arrange::Single | Arrange::Fixed(_) if items != expected && items > 0 => Err(Self::odd_count(items, expected)),
            Arrange::Padded(most) if items > most => Err(Problem::Odd(format!("has {items} items, at most {most} were seen before"))),
            _ => Ok(()),
        }
    }

    /// Appends the row or rows of a record to `out`, and the lengths of its units to `units`.
    pub(crate) fn decode(&self, stored: &FeatureBytes<'_>, out: &mut Vec<u8>, units: &mut Vec<u64>) -> Result<(), Problem> {
        let start = out.len();
        let filler = match &self.absent {
            Absent::Refused if !self.is_present(stored)? => return Err(Problem::Missing),
            Absent::Filled(element) => Some(element.as_slice()),
            Absent::Empty | Absent::Refused | Absent::Skipped => None,
        };
        let item_bytes = memory_len(self.spec.nbytes());
        if self.item.is_of_rows() && self.arrange != Arrange::Flat && items::values_in(stored)? > 1 {
            let detail = "has several values, whose rows would run together: use `flatten`, or drop `ragged` if all have one length";
            return Err(Problem::Odd(detail.into()));
        }
        // Refuses a wrong count before decoding: a few bytes can stand for many elements.
        if !self.item.is_small(stored) {
            self.check_count(self.item.count(stored)?)?;
        }
        let items = match stored {
            FeatureBytes::Missing => 0,
            _ => self.item.decode(stored, &self.spec, out, units)?,
        };
        self.check_count(items)?;
        match self.arrange {
            Arrange::Offsets(Units::Records) => units.push(items),
            Arrange::Single | Arrange::Fixed(_) if items == 0 && self.items_in_row() > 0 => {
                let element = filler.ok_or(Problem::Missing)?;
                fill(out, element, item_bytes * memory_len(self.items_in_row()));
            }
            Arrange::Single | Arrange::Fixed(_) | Arrange::Flat | Arrange::Offsets(Units::Values(_)) => {}
            Arrange::Padded(most) => {
                let element = match filler {
                    Some(element) if !self.is_present(stored)? => element,
                    _ => &self.padding,
                };
                fill(out, element, item_bytes * memory_len(most.saturating_sub(items)));
            }
        }
        debug_assert!(!self.is_row_per_record() || (out.len() - start) as u64 == self.row_bytes());
        Ok(())
    }

    /// The whole row, if it is stored exactly as it is written.
    pub(crate) fn stored_row<'a>(&self, stored: &FeatureBytes<'a>) -> Option<&'a [u8]> {
        let row = if self.arrange == Arrange::Single { self.item.stored(stored) } else { None };
        row.filter(|row| row.len() as u64 == self.row_bytes())
    }
}

/// Appends `len` bytes of repeated `element`.
fn fill(out: &mut Vec<u8>, element: &[u8], len: usize) {
    let end = out.len() + len;
    while out.len() < end {
        out.extend_from_slice(&element[..element.len().min(end - out.len())]);
    }
}

/// The dtype and row shape that the feature has without options, as far as known.
pub(crate) fn natural_row(feature: &Feature, stats: Option<&Stats>, survey: Option<&Survey>) -> (Dtype, Vec<Option<u64>>) {
    let survey = survey.filter(|survey| survey.is_complete);
    let complete = stats.zip(survey);
    let same = |first: &Option<super::survey::Uniform<u64>>| first.as_ref().filter(|first| first.odd.is_none()).map(|first| first.value);
    let list = complete.and_then(|(stats, _)| same(&stats.counts));
    if let Some(declared) = &feature.declared {
        let mut shape = declared.shape.clone();
        if let Some(tensor) = stats
            .and_then(|stats| stats.tensor.as_ref())
            .filter(|_| declared.encoding == Encoding::Tensor && shape.is_empty() && !declared.flat)
        {
            shape = tensor.value.shape().iter().map(|&axis| tensor.odd.is_none().then_some(axis)).collect();
        }
        if declared.encoding == Encoding::Image
            && let Some(form) = complete.and_then(|(stats, _)| stats.form.as_ref()).filter(|form| form.odd.is_none())
        {
            shape = vec![Some(form.value.height), Some(form.value.width), Some(form.value.channels)];
        }
        if declared.items.is_list() && !declared.flat {
            shape.insert(0, declared.items.length());
        }
        return (declared.dtype, shape);
    }
    let Some(stats) = stats else { return (Dtype::String, Vec::new()) };
    if let Some(kind @ (Kind::Floats | Kind::Ints)) = stats.kind.as_ref().map(|kind| kind.value) {
        let dtype = if kind == Kind::Floats { Dtype::Float32 } else { Dtype::Int64 };
        let steps = matches!(feature.key, Key::List(_)).then(|| complete.and_then(|(stats, _)| same(&stats.per_step)));
        return (dtype, [list].into_iter().chain(steps).collect());
    }
    let is_whole = matches!(feature.key, Key::Part(_));
    let look = stats.look.as_ref().filter(|look| look.odd.is_none()).map(|look| look.value);
    let (dtype, item) = match (look, &stats.form, &stats.tensor) {
        (Some(BytesKind::Image), Some(form), _) if form.odd.is_none() => {
            (form.value.dtype, vec![Some(form.value.height), Some(form.value.width), Some(form.value.channels)])
        }
        (Some(BytesKind::Image), Some(form), _) => (form.value.dtype, vec![None, None, None]),
        (Some(BytesKind::Tensor), _, Some(tensor)) => {
            let same = tensor.odd.is_none();
            (tensor.value.dtype(), tensor.value.shape().iter().map(|&axis| same.then_some(axis)).collect())
        }
        _ if is_whole => (Dtype::String, vec![]),
        _ => return (Dtype::String, vec![list]),
    };
    let is_list = list != Some(1) && !is_whole || matches!(feature.key, Key::List(_));
    (dtype, is_list.then_some(list).into_iter().chain(item).collect())
}

/// The description of a feature in `ls`.
pub(crate) fn describe(feature: &Feature, stats: &Stats, survey: &Survey) -> FeatureInfo {
    let kind = match (&feature.key, &stats.kind) {
        (_, Some(kind)) if kind.odd.is_some() => "lists of several kinds",
        (_, Some(kind)) => kind.value.name(),
        (Key::Part(_), None) if stats.tensor.is_some() => "tensor",
        _ => "bytes",
    };
    let lengths = survey.lengths(stats);
    let encoding = stats.look.as_ref().map(|look| match (look.value, look.odd.is_some()) {
        (_, true) => "bytes of several kinds".to_owned(),
        (BytesKind::Image, _) => match &stats.file_kind {
            Some(kind) if kind.odd.is_none() => kind.value.to_string(),
            _ => "JPEG and PNG".to_owned(),
        },
        (BytesKind::OtherImage(kind), _) => kind.to_string(),
        (BytesKind::Tensor, _) => match &stats.tensor {
            Some(tensor) if tensor.odd.is_none() => format!("TensorProto {}", tensor.value),
            _ => "TensorProto".to_owned(),
        },
        (BytesKind::Text, _) => "text".to_owned(),
        (BytesKind::Bytes, _) => match stats.widths {
            Some(Widths { shortest, longest, .. }) if shortest != longest => format!("{shortest} to {longest} bytes"),
            widths => format!("{} bytes", widths.map_or(0, |widths| widths.longest)),
        },
    });
    FeatureInfo { kind, lengths: (*lengths.start(), *lengths.end()), encoding, missing: survey.records - stats.present }
}

/// The error for a feature that does not fit an array.
pub(crate) fn unsupported(name: &str, detail: impl Into<String>) -> Error {
    Error::Unsupported { what: format!("feature {name:?} as one array"), detail: detail.into() }
}

//! Makes a column from a feature, its survey and the options.

use std::path::Path;
use std::sync::Arc;

use super::fill::{element, text_element};
use super::items::{Item, Text, TextForm, Units};
use super::{Absent, Arrange, Column, unsupported};
use crate::error::request::BadRequest;
use crate::error::texts::ShapeText;
use crate::error::{Error, Result};
use crate::format::example::Kind;
use crate::format::tensor_proto::float_cast;
use crate::image::{FileKind, ImageChoices};
use crate::options::records::{Called, Lists, Missing, Ragged, ReadAs, RecordOptions};
use crate::options::request::Request;
use crate::options::strings::Strings;
use crate::records::feature::{Declared, Encoding, Feature, Items, Key};
use crate::records::survey::{BytesKind, Stats, Survey, Uniform};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Makes columns.
pub(crate) struct Resolver<'a> {
    pub(crate) request: &'a Request,
    pub(crate) survey: &'a Survey,
    /// The source's path, for messages.
    pub(crate) path: &'a Path,
}

/// Whether the column needs a survey of all records, such as for the longest value.
pub(crate) fn needs_survey(feature: &Feature, first: &Survey, request: &Request) -> bool {
    let Some(stats) = first.features.get(&feature.key).filter(|stats| stats.present > 0 || feature.declared.is_some()) else { return true };
    let (wanted, name) = (&request.records, String::from_utf8_lossy(&feature.name));
    let called = feature.called(&name);
    // Which lists differ is only known after all records.
    match wanted.ragged_of(called, Lists::Differ) {
        Some(Ragged::Pad(_)) => return true,
        Some(Ragged::Offsets) if feature.declared.is_none() && wanted.ragged_of(called, Lists::Alike).is_none() => return true,
        _ => {}
    }
    match bytes_as(feature, stats, wanted, called) {
        Some(BytesAs::Strings { .. }) => request.form.strings.peek() != Some(Strings::Offsets),
        _ => false,
    }
}

/// How bytes values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BytesAs {
    /// Byte order `None` means unspecified: that of the outputs is used.
    Raw {
        dtype: Dtype,
        order: Option<ByteOrder>,
        is_zlib: bool,
    },
    Image,
    Tensor,
    Strings {
        in_tensors: bool,
    },
}

/// How the bytes of a feature are read: by options, else by declaration, else by content. `None` for numbers.
fn bytes_as(feature: &Feature, stats: &Stats, wanted: &RecordOptions, called: Called<'_>) -> Option<BytesAs> {
    let is_numbers = stats.kind.as_ref().is_some_and(|kind| kind.value != Kind::Bytes)
        || feature.declared.as_ref().is_some_and(|d| d.encoding == Encoding::Values);
    if is_numbers {
        return None;
    }
    let of_tensors = |stats: &Stats| stats.tensor.as_ref().is_some_and(|tensor| tensor.value.dtype() == Dtype::String);
    let is_tensor = feature.declared.as_ref().is_some_and(|d| d.encoding == Encoding::Tensor);
    let are_strings =
        of_tensors(stats) || stats.tensor.is_none() && is_tensor && feature.declared.as_ref().is_some_and(|d| d.dtype == Dtype::String);
    let tensor = if are_strings { BytesAs::Strings { in_tensors: true } } else { BytesAs::Tensor };
    if is_tensor {
        return Some(tensor);
    }
    // Frames follow the declaration of the opener.
    if let (Key::Part(_), Some(Declared { encoding: Encoding::Raw, dtype, order, .. })) = (&feature.key, &feature.declared) {
        return Some(BytesAs::Raw { dtype: *dtype, order: Some(*order), is_zlib: false });
    }
    if let Some(raw) = wanted.raw_of(called) {
        return Some(BytesAs::Raw { dtype: raw.dtype, order: raw.order, is_zlib: false });
    }
    if let Some(read_as) = wanted.read_as_of(called) {
        return Some(match read_as {
            ReadAs::String => BytesAs::Strings { in_tensors: false },
            ReadAs::Image => BytesAs::Image,
            ReadAs::Tensor => tensor,
        });
    }
    if let Some(declared) = &feature.declared {
        return Some(match declared.encoding {
            Encoding::Raw => BytesAs::Raw { dtype: declared.dtype, order: Some(declared.order), is_zlib: false },
            Encoding::Zlib => BytesAs::Raw { dtype: declared.dtype, order: Some(declared.order), is_zlib: true },
            Encoding::Image => BytesAs::Image,
            _ => BytesAs::Strings { in_tensors: false },
        });
    }
    Some(match stats.look.as_ref().map(|look| look.value) {
        // Other image formats are refused later.
        Some(BytesKind::Image | BytesKind::OtherImage(_)) => BytesAs::Image,
        Some(BytesKind::Tensor) => tensor,
        _ => BytesAs::Strings { in_tensors: false },
    })
}

/// Items before they are arranged into rows.
struct Shaped {
    item: Item,
    spec: TensorSpec,
    /// Whether an item by itself is a row.
    is_row: bool,
    /// Number of items in the first record.
    first: u64,
    /// The most items in a record.
    most: u64,
}

/// One feature, with its survey and the options.
struct One<'a> {
    request: &'a Request,
    survey: &'a Survey,
    path: &'a Path,
    feature: &'a Feature,
    stats: &'a Stats,
    name: String,
}

impl Resolver<'_> {
    /// The column of `feature`, whose key has index `index` in the locator.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] for a feature that fits no array, with the first record that reveals it;
    /// [`Error::BadRequest`] for options that do not fit the feature.
    pub(crate) fn column(&self, feature: &Feature, index: usize) -> Result<Column> {
        let Self { request, survey, path } = *self;
        let empty = Stats::default();
        let found = survey.features.get(&feature.key);
        let name = String::from_utf8_lossy(&feature.name).into_owned();
        let one = One { request, survey, path, feature, stats: found.unwrap_or(&empty), name };
        if let Some(reason) = &feature.unsupported {
            return Err(one.refused(reason));
        }
        if found.is_none() && feature.declared.is_none() && survey.records > 0 {
            return Err(one.refused("no record has it"));
        }
        one.column(index)
    }

    /// The shape that another feature states for this one in the first record.
    pub(crate) fn shape_beside(&self, feature: &Feature) -> Option<(Key, Arc<[i64]>)> {
        let key = Key::Context(feature.declared.as_ref()?.shape_in.clone()?);
        let found = self.survey.features.get(&key)?.ints.as_ref()?;
        Some((key, found.value.as_slice().into()))
    }
}

impl One<'_> {
    fn refused(&self, detail: impl std::fmt::Display) -> Error {
        unsupported(&self.name, format!("{}: {detail}", self.path.display()))
    }

    fn called(&self) -> Called<'_> {
        self.feature.called(&self.name)
    }

    /// The option for records without the feature, if set.
    fn missing(&self) -> Option<&Missing> {
        // A part of a record is never missing.
        if matches!(self.feature.key, Key::Part(_)) { None } else { self.wanted().missing_of(self.called()) }
    }

    /// What to do with records without the feature, for this arrangement. `element` parses the text of a fill value.
    fn absent(&self, arrange: &Arrange, element: impl FnOnce(&str) -> Result<Vec<u8>>) -> Result<Absent> {
        let absent = match self.missing() {
            None => return Ok(Absent::Empty),
            // It has no effect here, which is an error if it has none on any feature.
            Some(Missing::Fill(_)) if matches!(arrange, Arrange::Flat | Arrange::Offsets(_)) => return Ok(Absent::Empty),
            Some(Missing::Fill(value)) => match element(value) {
                Ok(element) => Absent::Filled(element),
                // A fill value for all features applies only to those that can hold it.
                Err(_) if !self.wanted().names_missing(self.called()) && self.stats.present >= self.survey.records => {
                    return Ok(Absent::Empty);
                }
                Err(error) => return Err(error),
            },
            Some(Missing::Refuse) => Absent::Refused,
            Some(Missing::Skip) => Absent::Skipped,
        };
        self.wanted().note_missing(self.called());
        Ok(absent)
    }

    /// The option for its lists, if lengths differ or the option names the feature.
    fn ragged(&self) -> Option<&Ragged> {
        self.wanted().ragged_of(self.called(), self.lists())
    }

    fn lists(&self) -> Lists {
        let differs = match &self.feature.declared {
            Some(declared) if declared.flat => return Lists::Joined,
            Some(declared) => {
                !declared.items.is_list() && declared.shape.contains(&None) || matches!(declared.items, Items::Any | Items::Nested)
            }
            None => {
                let lengths = self.survey.lengths(self.stats);
                // If all are empty, or their shape is left to options, they may have any length.
                *lengths.end() == 0
                    || lengths.start() != lengths.end()
                    || self.stats.tensor.as_ref().is_some_and(|tensor| tensor.odd.is_some())
                    || self.wanted().has_open_shape(self.called())
            }
        };
        if differs { Lists::Differ } else { Lists::Alike }
    }

    /// Whether every item of the feature is a row.
    fn is_flat(&self) -> bool {
        self.feature.declared.as_ref().is_some_and(|declared| declared.flat)
    }

    fn flattens(&self) -> bool {
        self.wanted().flatten.peek().is_some()
    }

    fn wanted(&self) -> &RecordOptions {
        &self.request.records
    }

    fn column(&self, index: usize) -> Result<Column> {
        self.check_kind()?;
        self.check_steps()?;
        if self.feature.declared.as_ref().is_some_and(|declared| declared.only_offsets) {
            return self.offsets(index);
        }
        let mut order = ByteOrder::Little;
        let shaped = match bytes_as(self.feature, self.stats, self.wanted(), self.called()) {
            None => self.numbers()?,
            Some(BytesAs::Raw { dtype, order: said, is_zlib }) => {
                order = said.unwrap_or_else(|| self.request.form.order());
                self.raw(dtype, is_zlib)?
            }
            Some(BytesAs::Image) => self.image()?,
            Some(BytesAs::Tensor) => self.tensor()?,
            Some(BytesAs::Strings { in_tensors }) => return self.strings(index, in_tensors),
        };
        let arrange = self.arrange(&shaped)?;
        let dtype = shaped.spec.dtype();
        let ordered = |mut element: Vec<u8>| {
            if order == ByteOrder::Big {
                element.chunks_exact_mut(memory_len(dtype.component_size())).for_each(<[u8]>::reverse);
            }
            element
        };
        // The value must also fit the dtype that is cast to.
        let target = self.request.form.cast.filter(|cast| *cast != Dtype::Bool && cast.descr().is_some());
        let made = |value: &str| -> Result<Vec<u8>> {
            target.map(|target| element(target, value, &self.name)).transpose()?;
            element(dtype, value, &self.name).map(ordered)
        };
        let absent = self.absent(&arrange, made)?;
        let padding = match self.ragged() {
            Some(Ragged::Pad(Some(value))) => made(value)?,
            _ => vec![0; dtype.item_len()],
        };
        let column = Column::new(self.name.clone(), index, shaped.item, shaped.spec, arrange, dtype);
        Ok(Column { order, absent, padding, ..column })
    }

    fn check_kind(&self) -> Result<()> {
        match &self.stats.kind {
            Some(Uniform { value, record, odd: Some((odd, other)) }) => {
                let detail = format!("it is a {} in record {record} and a {} in record {odd}", value.name(), other.name());
                Err(self.refused(detail))
            }
            _ => Ok(()),
        }
    }

    fn spec(name: &str, dtype: Dtype, shape: Vec<u64>) -> Result<TensorSpec> {
        TensorSpec::new(dtype, shape).map_err(|request| request.of_feature(name).into())
    }

    /// Refuses steps with several bytes values, which would need an extra axis.
    fn check_steps(&self) -> Result<()> {
        let (feature, stats) = (self.feature, self.stats);
        let is_bytes = matches!(feature.key, Key::List(_)) && stats.kind.as_ref().is_some_and(|kind| kind.value == Kind::Bytes);
        let several =
            stats.per_step.as_ref().and_then(|values| if values.value == 1 { values.odd } else { Some((values.record, values.value)) });
        match several.filter(|_| is_bytes && !self.flattens()) {
            Some((record, count)) => {
                Err(self
                    .refused(format!("a step of record {record} has {count} values, expected one: `flatten` makes a row of each value")))
            }
            None => Ok(()),
        }
    }

    /// The shape from options or the declaration; `None` for an axis as long as needed.
    fn shape(&self, is_raw: bool) -> Result<Option<Vec<Option<u64>>>> {
        let (feature, name) = (self.feature, &self.name);
        // A part of a record has the shape that its opener declared.
        let is_open = !matches!(feature.key, Key::Part(_)) || feature.declared.is_none();
        if is_open && let Some(shape) = self.wanted().shape_of(self.called(), is_raw) {
            let axis = |&axis: &i64| match axis {
                -1 => Ok(None),
                axis => u64::try_from(axis).map(Some).map_err(|_| BadRequest::NegativeAxis { name: name.clone(), axis }.into()),
            };
            return shape.iter().map(axis).collect::<Result<_>>().map(Some);
        }
        let Some(declared) = &feature.declared else { return Ok(None) };
        let Some(other) = &declared.shape_in else { return Ok(Some(declared.shape.clone())) };
        let found = self.survey.features.get(&Key::Context(other.clone())).and_then(|stats| stats.ints.as_ref());
        let Some(found) = found else { return Ok(Some(declared.shape.clone())) };
        if let Some((record, odd)) = &found.odd {
            let detail = format!("the tensor of record {record} has shape {odd:?}, that of record {} {:?}", found.record, found.value);
            return Err(self.refused(detail));
        }
        Ok(Some(found.value.iter().map(|&axis| u64::try_from(axis).ok()).collect()))
    }

    /// The item for a shape with at most one unknown axis, given the number of values in the first record; and whether it is a
    /// row.
    fn shaped(&self, shape: &[Option<u64>], values: u64) -> Result<(Vec<u64>, bool)> {
        let known = shape.iter().flatten().try_fold(1u64, |product, &axis| product.checked_mul(axis));
        let name = &self.name;
        let known = known.ok_or_else(|| BadRequest::TooMany { what: "elements" }.of_feature(name))?;
        match shape.iter().filter(|axis| axis.is_none()).count() {
            0 => Ok((shape.iter().flatten().copied().collect(), true)),
            // Any number of rows.
            1 if shape[0].is_none() => Ok((shape[1..].iter().flatten().copied().collect(), false)),
            1 if known > 0 && values.is_multiple_of(known) => Ok((shape.iter().map(|axis| axis.unwrap_or(values / known)).collect(), true)),
            1 => {
                Err(self
                    .refused(format!("{values} values in the first record do not make a shape with {known} elements in its known axes")))
            }
            unknown => Err(self.refused(format!("{unknown} axes of unknown length: state them with `shape`"))),
        }
    }

    fn numbers(&self) -> Result<Shaped> {
        let (feature, stats, name) = (self.feature, self.stats, &self.name[..]);
        let declared = feature.declared.as_ref();
        let found = stats.kind.as_ref().map(|kind| kind.value);
        let kind = found.unwrap_or_else(|| {
            match declared.map(|declared| declared.dtype.is_signed_int().is_some() || declared.dtype == Dtype::Bool) {
                Some(true) => Kind::Ints,
                _ => Kind::Floats,
            }
        });
        let stored = if kind == Kind::Floats { Dtype::Float32 } else { Dtype::Int64 };
        let dtype = declared.map_or(stored, |declared| declared.dtype);
        let (mut cast, mut narrow) = (None, None);
        if dtype != stored {
            match kind {
                Kind::Floats => cast = Some(float_cast(dtype)?),
                _ if dtype.is_signed_int().is_some() || dtype == Dtype::Bool => narrow = Some(dtype),
                _ => return Err(self.refused(format!("it is said to be {dtype}, the records have a {}", kind.name()))),
            }
        }
        let steps = matches!(feature.key, Key::List(_));
        let (first, most) = (stats.counts.as_ref().map_or(0, |counts| counts.value), stats.most);
        let item = |per_item| Item::Numbers { kind, per_item, cast: cast.clone(), narrow, steps };
        if steps {
            let per_step = stats.per_step.as_ref().map_or(1, |values| values.value);
            if let Some((record, odd)) = stats.per_step.as_ref().and_then(|values| values.odd) {
                let detail = format!(
                    "a step of record {record} has {odd} values, {per_step} expected as in the first: lists in lists of different lengths make no array"
                );
                return Err(self.refused(detail));
            }
            let shape = match self.shape(false)? {
                Some(shape) => self.shaped(&shape, per_step)?.0,
                None => vec![per_step],
            };
            let spec = Self::spec(name, dtype, shape)?;
            if spec.elements() != per_step {
                let (shape, elements) = (spec.shape().to_vec(), spec.elements());
                return Err(BadRequest::StepShape { shape, elements, values: per_step }.of_feature(name).into());
            }
            return Ok(Shaped { item: item(per_step), spec, is_row: false, first, most });
        }
        let (shape, is_row) = match self.shape(false)? {
            Some(shape) if declared.is_some_and(|declared| declared.items.is_list()) => (self.shaped(&shape, first)?.0, false),
            Some(shape) => self.shaped(&shape, first)?,
            None => (Vec::new(), false),
        };
        let spec = Self::spec(name, dtype, shape)?;
        let per_item = spec.elements();
        if per_item == 0 {
            return Err(self.refused(format!("its items have shape {} and so no values", ShapeText(spec.shape()))));
        }
        Ok(Shaped { item: item(per_item), spec, is_row, first: first / per_item, most: most / per_item })
    }

    fn raw(&self, dtype: Dtype, is_zlib: bool) -> Result<Shaped> {
        let (stats, name) = (self.stats, &self.name[..]);
        let itemsize = dtype.itemsize().ok_or_else(|| BadRequest::RawDtype { dtype: dtype.name() }.of_feature(name))?;
        let lengths = if is_zlib { &stats.inflated } else { &stats.lengths };
        let longest = if is_zlib { stats.longest_inflated } else { stats.widths.map_or(0, |widths| widths.longest) };
        let length = lengths.as_ref().map_or(0, |length| length.value);
        let shape = match self.shape(true)? {
            Some(shape) => shape,
            None if length.is_multiple_of(itemsize) => vec![Some(length / itemsize)],
            None => return Err(self.refused(format!("{length} bytes in the first record are not a whole number of {dtype}"))),
        };
        let (first, most) = (stats.counts.as_ref().map_or(1, |counts| counts.value), stats.most);
        if shape.first() == Some(&None) && self.ragged().is_some() && most > 1 {
            return Err(
                self.refused("records have several bytes values, whose rows would run together: use `shape` without -1, or `flatten`")
            );
        }
        if shape.first() == Some(&None) && self.ragged().is_some() {
            let (shape, _) = self.shaped(&shape, length / itemsize)?;
            let spec = Self::spec(name, dtype, shape)?;
            let rows = |bytes: u64| bytes.checked_div(spec.nbytes()).unwrap_or(0);
            return Ok(Shaped {
                first: rows(length),
                most: rows(longest),
                item: Item::RawRows { is_zlib, row_bytes: spec.nbytes() },
                spec,
                is_row: false,
            });
        }
        // As many elements as in the first record.
        let known: u64 = shape.iter().flatten().product();
        let values = length / itemsize;
        let shape = shape.iter().map(|axis| axis.unwrap_or(values.checked_div(known).unwrap_or(0))).collect();
        let spec = Self::spec(name, dtype, shape)?;
        Ok(Shaped { item: Item::Raw { is_zlib }, spec, is_row: self.is_one(), first, most })
    }

    /// Whether a record has one value, which is its row.
    fn is_one(&self) -> bool {
        let (feature, stats) = (self.feature, self.stats);
        let is_list = match (&feature.declared, &feature.key) {
            (Some(Declared { items, .. }), _) => items.is_list(),
            (None, Key::List(_)) => true,
            (None, _) => {
                self.flattens()
                    || stats.counts.as_ref().is_some_and(|counts| counts.value != 1 || counts.odd.is_some_and(|(_, odd)| odd > 1))
            }
        };
        !is_list
    }

    fn image(&self) -> Result<Shaped> {
        let (feature, stats, name) = (self.feature, self.stats, &self.name[..]);
        let dtype = feature.declared.as_ref().filter(|declared| declared.encoding == Encoding::Image).map(|declared| declared.dtype);
        let channels = self.wanted().channels.get().or(Self::declared_channels(feature));
        let choices = ImageChoices { channels, jpeg: self.wanted().jpeg.peek().unwrap_or_default(), dtype };
        let Some(first) = &stats.form else {
            let detail = match stats.look.as_ref().map(|look| look.value) {
                Some(BytesKind::OtherImage(kind)) => {
                    format!("its values are {kind} images; JPEG and PNG are decoded, `read_as` string keeps the bytes")
                }
                Some(BytesKind::Image) => "the first image cannot be read".to_owned(),
                None => "no record has an image, and nothing else states their size".to_owned(),
                _ => "its values are not JPEG or PNG images".to_owned(),
            };
            return Err(self.refused(detail));
        };
        let is_jpeg = stats.file_kind.as_ref().is_some_and(|kind| kind.value == FileKind::Jpeg || kind.odd.is_some());
        if is_jpeg {
            self.wanted().jpeg.note();
        }
        if is_jpeg && choices.channels == Some(2) {
            return Err(BadRequest::NoSuchChannels { what: "JPEGs", possible: &[1, 3, 4], asked: 2 }.of_feature(name).into());
        }
        let form = choices.form(first.value);
        if let Some((record, odd)) = first.odd.map(|(record, odd)| (record, choices.form(odd))).filter(|(_, odd)| *odd != form) {
            let detail = format!(
                "the image of record {record} has {odd}, that of record {} {form}: {}",
                first.record,
                if odd.dtype != form.dtype {
                    "samples of 8 and of 16 bits make no array: `rows` converts those of one depth, an image tool makes them equal before"
                } else if (odd.height, odd.width) == (form.height, form.width) {
                    "`channels` N gives all the same channels"
                } else {
                    "an array has one size: `rows` converts those of one size; tf.image.resize or an image tool makes them equal before"
                }
            );
            return Err(self.refused(detail));
        }
        let spec = Self::spec(name, form.dtype, vec![form.height, form.width, form.channels])?;
        let item = Item::Image { choices, form };
        Ok(Shaped { item, spec, is_row: self.is_one(), first: stats.counts.as_ref().map_or(1, |counts| counts.value), most: stats.most })
    }

    /// The number of channels that an image is declared to have.
    fn declared_channels(feature: &Feature) -> Option<u8> {
        let declared = feature.declared.as_ref().filter(|declared| declared.encoding == Encoding::Image)?;
        (*declared.shape.last()?).and_then(|channels| u8::try_from(channels).ok())
    }

    fn tensor(&self) -> Result<Shaped> {
        let (stats, name) = (self.stats, &self.name[..]);
        let Some(tensor) = &stats.tensor else { return self.no_tensors() };
        let is_single = stats.most <= 1;
        let by_rows = self.ragged().is_some() && is_single || self.flattens() || self.is_flat();
        if let Some(rest) = if by_rows { self.rest()? } else { None } {
            let spec = Self::spec(name, tensor.value.dtype(), rest)?;
            let first = tensor.value.shape().first().copied().unwrap_or(1);
            return Ok(Shaped { item: Item::TensorRows, spec, is_row: false, first, most: stats.most_rows });
        }
        if let Some((record, odd)) = &tensor.odd {
            let hint = if is_single {
                "`ragged` takes axes 0 of different lengths"
            } else {
                "records have several tensors; only `flatten` accepts different lengths of axis 0, and gives the rows of all"
            };
            let detail = format!("the tensor of record {record} is {odd}, that of record {} {}: {hint}", tensor.record, tensor.value);
            return Err(self.refused(detail));
        }
        let first = stats.counts.as_ref().map_or(1, |counts| counts.value);
        Ok(Shaped { item: Item::Tensor, spec: tensor.value.clone(), is_row: first == 1 && is_single, first, most: stats.most })
    }

    /// Tensors of an empty source, by their declaration.
    fn no_tensors(&self) -> Result<Shaped> {
        let (feature, name) = (self.feature, &self.name[..]);
        let Some(declared) = feature.declared.as_ref().filter(|declared| self.survey.records == 0 && declared.encoding == Encoding::Tensor)
        else {
            return Err(self.refused("its values are not serialized tensors"));
        };
        let shape: Option<Vec<u64>> = declared.shape.iter().copied().collect();
        let shape = shape.ok_or_else(|| self.refused("there are no elements, and nothing else states the lengths of all axes"))?;
        let spec = Self::spec(name, declared.dtype, shape)?;
        let item = if declared.flat { Item::TensorRows } else { Item::Tensor };
        Ok(Shaped { item, spec, is_row: !declared.flat, first: 0, most: 0 })
    }

    /// The row shape of tensors; `None` for tensors without axes.
    fn rest(&self) -> Result<Option<Vec<u64>>> {
        let Some(rest) = &self.stats.tensor_rest else { return Ok(None) };
        if let Some((record, odd)) = &rest.odd {
            let (odd, first) = (ShapeText(odd), ShapeText(&rest.value));
            return Err(self.refused(format!("rows of the tensor of record {record} have shape {odd}, {first} expected as in the first")));
        }
        Ok(Some(rest.value.clone()))
    }

    fn arrange(&self, shaped: &Shaped) -> Result<Arrange> {
        let (feature, name) = (self.feature, &self.name);
        if shaped.is_row {
            return Ok(Arrange::Single);
        }
        self.wanted().note_lists(self.called(), self.lists());
        let declared = feature.declared.as_ref();
        if self.flattens() || declared.is_some_and(|declared| declared.flat && self.ragged().is_none()) {
            return Ok(Arrange::Flat);
        }
        let is_nested = declared.is_some_and(|declared| declared.items == Items::Nested);
        match self.ragged() {
            Some(Ragged::Pad(_)) if !is_nested => return Ok(Arrange::Padded(shaped.most)),
            Some(Ragged::Offsets) => return Ok(Arrange::Offsets(Units::Records)),
            Some(Ragged::Pad(_)) | None => {}
        }
        if is_nested {
            let detail = format!(
                "it has lists in lists: `flatten` gives all values, `ragged` offsets where those of each record start; \
                 {name}/ragged_row_lengths_0 tells how they are cut"
            );
            return Err(self.refused(detail));
        }
        if let Some(length) = declared.and_then(|declared| declared.items.length()) {
            return Ok(Arrange::Fixed(length));
        }
        self.check_even()?;
        Ok(Arrange::Fixed(shaped.first))
    }

    /// Refuses lists of different lengths, as far as they are known.
    fn check_even(&self) -> Result<()> {
        let Some(counts) = &self.stats.counts else { return Ok(()) };
        if let Some((record, odd)) = counts.odd.filter(|_| self.survey.is_complete) {
            // An empty list counts as a missing feature, which is handled elsewhere.
            if odd > 0 && counts.value > 0 {
                let detail = format!(
                    "record {record} has {odd} values, record {} has {}: `ragged` pad or `ragged` offsets takes them as they are",
                    counts.record, counts.value
                );
                return Err(self.refused(detail));
            }
        }
        Ok(())
    }

    /// The column of the start of each record's items.
    fn offsets(&self, index: usize) -> Result<Column> {
        let name = self.name.clone();
        let item = match self.feature.declared.as_ref().map(|declared| (declared.encoding, declared.dtype, &declared.shape)) {
            Some((Encoding::Values, dtype, shape)) => {
                let kind = if dtype.is_signed_int().is_some() || dtype == Dtype::Bool { Kind::Ints } else { Kind::Floats };
                Item::Numbers { kind, per_item: shape.iter().flatten().product(), cast: None, narrow: None, steps: false }
            }
            _ => Item::Text(Text { form: TextForm::Padded, in_tensors: false, per_item: 1 }),
        };
        let spec = Self::spec(&name, Dtype::Int64, Vec::new())?;
        Ok(Column { only_offsets: true, ..Column::new(name, index, item, spec, Arrange::Offsets(Units::Records), Dtype::Int64) })
    }

    /// The requested shape of a record's strings, given their number in the first. A shape for all features applies only where it
    /// fits.
    fn strings_shape(&self, count: u64) -> Result<Option<Vec<u64>>> {
        let Some((shape, is_own)) = self.wanted().shape_if(self.called(), |shape| fitting(shape, count).is_some()) else { return Ok(None) };
        match fitting(shape, count) {
            Some(shape) => Ok(Some(shape)),
            None if is_own => Err(self.refused(format!("the first record has {count} strings, which do not make the shape {shape:?}"))),
            None => Ok(None),
        }
    }

    fn strings(&self, index: usize, in_tensors: bool) -> Result<Column> {
        let (feature, stats, name) = (self.feature, self.stats, self.name.clone());
        if let Some(dtype) = self.request.form.cast {
            // This option is not to blame.
            self.request.form.strings.note();
            return Err(Error::Unsupported { what: format!("a cast from string to {dtype}"), detail: "strings are not numbers".into() });
        }
        let declared = feature.declared.as_ref();
        let of_tensor = stats.tensor.as_ref().filter(|_| in_tensors).map(|tensor| &tensor.value);
        let first = match (&feature.key, of_tensor) {
            (_, Some(spec)) => spec.elements(),
            (Key::Part(_), None) => 1,
            _ => stats.counts.as_ref().map_or(1, |counts| counts.value),
        };
        let is_single = match (&feature.key, declared, of_tensor) {
            (_, _, Some(spec)) => spec.shape().is_empty(),
            (_, Some(declared), _) => !declared.items.is_list() && declared.shape.is_empty(),
            (Key::Part(_), None, None) => true,
            _ => false,
        };
        let asked = self.strings_shape(first)?;
        let is_single = is_single || asked.as_ref().is_some_and(Vec::is_empty);
        // The row shape, if each row of a tensor has several strings.
        let mut row = Vec::new();
        if of_tensor.is_some_and(|spec| spec.shape().len() > 1) {
            if self.ragged().is_some() {
                return Err(self.refused(
                    "tensors of strings with several axes are rows of one shape only, not `ragged`; `flatten` gives all strings",
                ));
            }
            if self.flattens() || self.is_flat() {
                row = self.rest()?.unwrap_or_default();
            }
        }
        let form = match self.request.form.strings.get().unwrap_or_default() {
            Strings::Pad => TextForm::Padded,
            Strings::Utf8 => TextForm::Utf8,
            Strings::Offsets => TextForm::Bytes,
        };
        let widths = if in_tensors { stats.inner_widths } else { stats.widths };
        let width = match form {
            TextForm::Padded => widths.map_or(0, |widths| widths.longest).max(1),
            TextForm::Bytes => 0,
            TextForm::Utf8 => {
                let lossy = |record: u64| Error::Lossy {
                    what: format!("feature {name:?}"),
                    index: vec![record.saturating_sub(self.survey.start)],
                    detail: format!("(record {record} of {}) is not UTF-8: `strings` pad or offsets keeps its bytes", self.path.display()),
                };
                widths.map_or(Ok(0), |widths| widths.most_chars).map_err(lossy)?.max(1)
            }
        };
        let item = Item::Text(Text { form, in_tensors, per_item: row.iter().product() });
        if form == TextForm::Bytes {
            if !is_single {
                self.wanted().flatten.note();
            }
            let is_free = self.flattens() || self.is_flat();
            if !is_single && !is_free {
                self.wanted().note_lists(self.called(), self.lists());
            }
            if !is_free && self.check_even().is_err() {
                let detail =
                    "its records have different numbers of strings, which as offsets would make three arrays: `strings` pad or `flatten`";
                return Err(self.refused(detail));
            }
            let units = Units::Values((!is_free).then_some(first));
            let spec = Self::spec(&name, Dtype::UInt8, Vec::new())?;
            let arrange = Arrange::Offsets(units);
            let absent = self.absent(&arrange, |value| text_element(value, form, width, &name))?;
            return Ok(Column { absent, ..Column::new(name, index, item, spec, arrange, Dtype::String) });
        }
        let element = if form == TextForm::Utf8 { Dtype::UInt32 } else { Dtype::UInt8 };
        let spec = Self::spec(&name, element, [&row[..], &[width]].concat())?;
        let shaped = Shaped { item, spec, is_row: is_single, first, most: if in_tensors { stats.most_rows } else { stats.most } };
        let arrange = self.arrange(&shaped)?;
        // Strings with several axes are concatenated in a record.
        let axes = match (of_tensor, declared) {
            _ if asked.is_some() => asked,
            (Some(spec), _) => Some(spec.shape().to_vec()),
            (None, Some(declared)) if !declared.items.is_list() => declared.shape.iter().copied().collect(),
            _ => None,
        };
        let fold = axes.filter(|axes| axes.len() > 1 && arrange == Arrange::Fixed(axes.iter().product())).unwrap_or_default();
        let absent = self.absent(&arrange, |value| text_element(value, form, width, &name))?;
        let padding = match self.ragged() {
            Some(Ragged::Pad(Some(value))) => text_element(value, form, width, &name)?,
            _ => vec![0],
        };
        let column = Column::new(name, index, shaped.item, shaped.spec, arrange, Dtype::String);
        Ok(Column { is_text: true, absent, padding, fold, ..column })
    }
}

/// Fits `count` items to a shape with at most one open axis; returns the axes.
fn fitting(shape: &[i64], count: u64) -> Option<Vec<u64>> {
    let known = shape.iter().filter_map(|&axis| u64::try_from(axis).ok()).try_fold(1u64, u64::checked_mul)?;
    let open = if shape.contains(&-1) { count.checked_div(known)? } else { 1 };
    let axes: Vec<u64> = shape.iter().map(|&axis| u64::try_from(axis).unwrap_or(open)).collect();
    (known.checked_mul(open) == Some(count)).then_some(axes)
}

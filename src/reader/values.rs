//! The values of a `TensorProto` in a file: read in place if they are stored as raw elements, else decoded piece by piece.
//!
//! Memory does not grow with the tensor: one pass over encoded values leaves marks, from which any element is found. Source:
//! `tensorflow/core/framework/tensor.proto`, and `Tensor::FromProto` in `tensor.cc`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checksums::Region;
use super::proto_index::{FieldValue, FieldWalker};
use super::stored::{Check, StoredArray};
use super::strings::stored::StoredStrings;
use super::tensor_reader::{ReadContext, TensorReader};
use crate::error::{Error, ParseError, Result};
use crate::format::bundle::parse_shape;
use crate::format::proto::Fields;
use crate::format::tensor_proto::{
    CONTENT, ElementBuilder, PresentFields, STRINGS, TYPED, ValueForm, WHAT, check_content, content_strings, most_values, spec_of,
    too_many, value_field, wrong_wire,
};
use crate::storage::blob::Blob;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Limit for a shape: a few numbers, which may have names.
const MOST_SHAPE: u64 = 64 << 10;
/// Bytes of the longest value.
const MOST_VALUE: usize = 10;
/// Limit for strings held in memory.
const MOST_STRINGS: u64 = 64 << 20;
/// Initial number of elements between marks; at [`MOST_MARKS`] marks it doubles and every second mark is dropped.
const FIRST_STEP: u64 = if cfg!(test) { 2 } else { 1024 };
const MOST_MARKS: usize = if cfg!(test) { 8 } else { 16 << 10 };
/// Elements between checks for cancellation.
const CANCEL_STEP: u64 = 64 << 10;

/// How many values a message must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The last value is repeated for the rest; no values at all mean zeros.
    Repeat,
    /// One value per element, one by one: V1 checkpoints.
    Exact,
}

/// A message whose fields were scanned. Its values have not been read.
#[derive(Debug, Clone)]
pub(crate) struct Proto {
    pub(crate) spec: TensorSpec,
    /// Place of the message.
    range: Range<u64>,
    /// Place of the raw elements.
    content: Option<Range<u64>>,
    /// Place of the packed values, if one field holds all of them.
    packed: Option<Range<u64>>,
}

impl Proto {
    /// Scans the message that `outline` is at; `known` is a spec known from elsewhere.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] for an invalid tensor, as far as that shows without reading values; [`Error::Io`].
    pub(crate) fn look(outline: &mut FieldWalker<'_>, known: Option<TensorSpec>) -> Result<Self> {
        let range = outline.rest();
        let base = memory_len(range.start);
        let path = outline.path();
        let in_file = |error: ParseError| error.in_file(path);
        let (mut code, mut shape, mut content, mut filled) = ((0, base), Vec::new(), None, PresentFields::default());
        // For each values field: how often it occurs, and its place if packed.
        let mut runs: [(u32, Option<Range<u64>>); 32] = Default::default();
        while let Some(field) = outline.next_field()? {
            match (field.number, &field.value) {
                (1, FieldValue::Varint(value)) => code = (*value, memory_len(field.offset)),
                (2, FieldValue::Bytes(at)) => {
                    let bytes = outline.read(at, MOST_SHAPE)?;
                    parse_shape(Fields::new(&bytes, memory_len(at.start), WHAT), &mut shape).map_err(in_file)?;
                }
                (1 | 2, _) => return Err(outline.malformed(field.offset, format!("field {} has another wire type", field.number))),
                (number, value) => {
                    let Some(number) = u32::try_from(number).ok().filter(|number| *number == CONTENT || TYPED.contains(number)) else {
                        continue;
                    };
                    match value {
                        FieldValue::Bytes(at) if number == CONTENT => content = Some(at.clone()).filter(|at| !at.is_empty()),
                        _ if number == CONTENT => return Err(outline.malformed(field.offset, "tensor_content is no bytes")),
                        FieldValue::Bytes(at) if at.is_empty() && number != STRINGS => {}
                        value => {
                            filled.add(number);
                            let packed = if let FieldValue::Bytes(at) = value { Some(at.clone()) } else { None };
                            let (count, known) = &mut runs[number as usize];
                            (*count, *known) = (count.saturating_add(1), packed);
                        }
                    }
                }
            }
        }
        let spec = known.map_or_else(|| spec_of(code, shape, base).map_err(in_file), Ok)?;
        match &content {
            Some(content) => check_content(&spec, content.end - content.start, memory_len(content.start)).map_err(in_file)?,
            // Handles and variants have their own kinds of values, which no array holds.
            None if value_field(spec.dtype()).is_none() => {}
            None => filled.check(spec.dtype(), base).map_err(in_file)?,
        }
        let packed = value_field(spec.dtype()).and_then(|number| match &mut runs[number as usize] {
            (1, packed) => packed.take(),
            _ => None,
        });
        Ok(Self { spec, range, content, packed })
    }

    /// As [`look`](Self::look), for a message in a range of a file.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) fn look_at(file: &dyn Blob, range: &Range<u64>, known: Option<TensorSpec>) -> Result<Self> {
        Self::look(&mut FieldWalker::new(file, WHAT, range.clone()), known)
    }

    /// How the values are stored, for display.
    pub(crate) fn encoding(&self) -> &'static str {
        match (&self.content, &self.packed) {
            (Some(_), _) => "tensor_content",
            (None, Some(_)) => "packed values",
            (None, None) => "values",
        }
    }

    /// Place of the message.
    pub(crate) fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// Place of raw elements that can be read in place.
    pub(crate) fn in_place(&self) -> Option<&Range<u64>> {
        let form = ValueForm::of(value_field(self.spec.dtype())?);
        let is_whole = |packed: &&Range<u64>| form.size().is_some() && packed.end - packed.start == self.spec.nbytes();
        self.content.as_ref().or_else(|| self.packed.as_ref().filter(is_whole))
    }

    /// A reader of the elements. Values that cannot be read in place are all checked first.
    ///
    /// # Errors
    /// Returns [`Error::Malformed`] for values that do not fit, [`Error::Io`].
    pub(crate) fn reader(&self, file: &Arc<dyn Blob>, rule: Rule) -> Result<Box<dyn TensorReader>> {
        self.reader_in(file, rule, |_| Ok(None))
    }

    /// The same; `region` returns the checksum, if any, of elements that are read in place.
    ///
    /// # Errors
    /// As [`reader`](Self::reader), and those of `region`.
    pub(crate) fn reader_in(
        &self,
        file: &Arc<dyn Blob>,
        rule: Rule,
        region: impl FnOnce(&Range<u64>) -> Result<Option<Region>>,
    ) -> Result<Box<dyn TensorReader>> {
        let dtype = self.spec.dtype();
        let Some(number) = value_field(dtype) else {
            let detail = format!("{dtype} has no elements of a fixed size");
            return Err(Error::malformed_at(file.path(), WHAT, self.range.start, detail));
        };
        if let (Rule::Exact, Some(content)) = (rule, &self.content) {
            let detail = "there are raw elements (tensor_content), expected values one by one";
            return Err(Error::malformed_at(file.path(), WHAT, content.start, detail));
        }
        if let Some(at) = self.in_place() {
            let check = if self.content.is_some() { Check::of_tensor_content(dtype) } else { Check::Nothing };
            return self.in_file(file, at, check, region);
        }
        let (values, is_plain) = DecodedValues::scan(file, self, number, rule)?;
        // Bools of one byte each can be read in place.
        if let (Some(packed), true) = (&self.packed, dtype == Dtype::Bool && is_plain)
            && packed.end - packed.start == self.spec.elements()
        {
            return self.in_file(file, packed, Check::Bools, region);
        }
        Ok(Box::new(values))
    }

    /// A reader of elements in place.
    fn in_file(
        &self,
        file: &Arc<dyn Blob>,
        at: &Range<u64>,
        check: Check,
        region: impl FnOnce(&Range<u64>) -> Result<Option<Region>>,
    ) -> Result<Box<dyn TensorReader>> {
        let array = StoredArray::new(file, at.start, self.spec.clone(), WHAT)?.checked(check);
        Ok(Box::new(match region(at)? {
            Some(region) => array.in_region(region),
            None => array,
        }))
    }

    /// Its strings, as [`StoredStrings`].
    ///
    /// # Errors
    /// Returns [`Error::Malformed`], [`Error::Limit`] for more than fit in memory, [`Error::Io`].
    pub(crate) fn strings(&self, file: &Arc<dyn Blob>, name: &Name, rule: Rule) -> Result<StoredStrings<'static>> {
        let path = file.path();
        let count = self.spec.elements();
        if let (Rule::Exact, Some(content)) = (rule, &self.content) {
            let detail = "there are raw strings (tensor_content), expected values one by one";
            return Err(Error::malformed_at(path, WHAT, content.start, detail));
        }
        StoredStrings::held(path, name, self.spec.shape(), |each| {
            let mut outline = FieldWalker::new(&**file, WHAT, self.range.clone());
            if let Some(at) = &self.content {
                let content = outline.read(at, MOST_STRINGS)?;
                let mut failed = None;
                let read = content_strings(&content, memory_len(at.start), count, |string| {
                    each(string).map_err(|error| {
                        failed = Some(error);
                        ParseError::new(0, WHAT, "the string is refused")
                    })
                });
                return read.map_err(|error| failed.unwrap_or_else(|| error.in_file(path)));
            }
            let (mut found, mut last) = (0, Vec::new());
            let most = if rule == Rule::Exact { count } else { most_values(count) };
            while let Some(field) = outline.next_field()? {
                match &field.value {
                    _ if field.number != u64::from(STRINGS) => {}
                    FieldValue::Bytes(_) if found == most => {
                        return Err(too_many(memory_len(field.offset), count).in_file(path));
                    }
                    FieldValue::Bytes(at) => {
                        last = outline.read(at, MOST_STRINGS)?;
                        if count > 0 {
                            each(&last)?;
                        }
                        found += 1;
                    }
                    _ => return Err(wrong_wire(STRINGS, memory_len(field.offset)).in_file(path)),
                }
            }
            check_count(path, &self.range, rule, found, count)?;
            (found..count).try_for_each(|_| each(&last))
        })
    }
}

fn check_count(path: &Path, message: &Range<u64>, rule: Rule, found: u64, count: u64) -> Result<()> {
    if rule == Rule::Exact && found != count {
        let detail = format!("{found} values for {count} elements");
        return Err(Error::malformed_at(path, WHAT, message.start, detail));
    }
    Ok(())
}

/// A place where decoding can resume.
#[derive(Debug, Clone)]
struct Mark {
    /// The next element.
    element: u64,
    /// The rest of the field that holds its first value.
    run: Range<u64>,
    /// Start of the next field.
    field_at: u64,
}

/// Decodes elements one after the other.
struct Cursor<'a> {
    outline: FieldWalker<'a>,
    number: u32,
    next: Mark,
    elements: ElementBuilder,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a dyn Blob, end: u64, number: u32, dtype: Dtype, next: Mark) -> Self {
        let outline = FieldWalker::new(file, WHAT, next.field_at..end);
        Self { outline, number, next, elements: ElementBuilder::new(dtype) }
    }

    /// Moves to the next field of values; `false` at the end.
    fn next_run(&mut self) -> Result<bool> {
        let form = ValueForm::of(self.number);
        while let Some(field) = self.outline.next_field()? {
            self.next.field_at = self.outline.at();
            if field.number != u64::from(self.number) {
                continue;
            }
            let in_file = |error: ParseError| error.in_file(self.outline.path());
            self.next.run = match field.value {
                FieldValue::Bytes(at) => {
                    form.check_run(at.end - at.start, memory_len(at.start)).map_err(in_file)?;
                    at
                }
                FieldValue::Fixed(at) if form.size().is_some_and(|size| size > 1 && at.end - at.start == size as u64) => at,
                FieldValue::Varint(_) if form == ValueForm::Varint => field.start..self.next.field_at,
                _ => return Err(in_file(wrong_wire(self.number, memory_len(field.offset)))),
            };
            return Ok(true);
        }
        Ok(false)
    }

    /// Calls `each` with the mark before every element, the place and bits of its last value, and the element, until `each`
    /// returns `false`.
    fn walk(&mut self, mut each: impl FnMut(&Mark, (u64, u64), &[u8; 16]) -> Result<bool>) -> Result<()> {
        let form = ValueForm::of(self.number);
        let mut begun = self.next.clone();
        loop {
            if self.next.run.is_empty() {
                if !self.next_run()? {
                    return Ok(());
                }
                continue;
            }
            let path = self.outline.path();
            let Range { start, end } = self.next.run;
            let window = self.outline.window(start, end, MOST_VALUE as u64)?;
            let is_last = start + window.len() as u64 == end;
            let mut used = 0;
            while used < window.len() && (is_last || window.len() - used >= MOST_VALUE) {
                let at = start + used as u64;
                if self.elements.is_between() {
                    begun.element = self.next.element;
                    begun.run = at..end;
                    begun.field_at = self.next.field_at;
                }
                let (bits, len) = form.first(&window[used..], memory_len(at)).map_err(|error| error.in_file(path))?;
                used += len;
                if let Some(element) = self.elements.push(bits, memory_len(at)).map_err(|error| error.in_file(path))? {
                    self.next.element += 1;
                    if !each(&begun, (at, bits), element)? {
                        self.next.run.start = start + used as u64;
                        return Ok(());
                    }
                }
            }
            self.next.run.start = start + used as u64;
        }
    }
}

/// Elements that are decoded from values.
#[derive(Debug)]
struct DecodedValues {
    file: Arc<dyn Blob>,
    spec: TensorSpec,
    /// Place of the message.
    message: Range<u64>,
    number: u32,
    /// Number of decoded elements; all further elements equal the last.
    count: u64,
    last: [u8; 16],
    /// Elements between marks.
    step: u64,
    marks: Vec<Mark>,
}

impl DecodedValues {
    /// Scans all values; also returns whether each is 0 or 1.
    fn scan(file: &Arc<dyn Blob>, proto: &Proto, number: u32, rule: Rule) -> Result<(Self, bool)> {
        let (path, spec) = (file.path(), &proto.spec);
        let elements = spec.elements();
        let most = if rule == Rule::Exact { elements } else { most_values(elements) };
        let start = Mark { element: 0, run: 0..0, field_at: proto.range.start };
        let mut cursor = Cursor::new(&**file, proto.range.end, number, spec.dtype(), start.clone());
        let (mut step, mut marks, mut last, mut is_plain) = (FIRST_STEP, vec![start], [0; 16], true);
        cursor.walk(|mark, (at, bits), element| {
            if mark.element == most {
                return Err(too_many(memory_len(at), elements).in_file(path));
            }
            is_plain &= bits <= 1;
            last = *element;
            if mark.element > 0 && mark.element.is_multiple_of(step) {
                if marks.len() == MOST_MARKS {
                    step *= 2;
                    marks.retain(|mark: &Mark| mark.element.is_multiple_of(step));
                }
                if mark.element.is_multiple_of(step) {
                    marks.push(mark.clone());
                }
            }
            Ok(true)
        })?;
        let count = cursor.next.element;
        if rule == Rule::Exact && !cursor.elements.is_between() {
            return Err(Error::malformed_at(path, WHAT, proto.range.start, "the last complex value has no imaginary part"));
        }
        check_count(path, &proto.range, rule, count, elements)?;
        marks.shrink_to_fit();
        let values = Self { file: Arc::clone(file), spec: spec.clone(), message: proto.range.clone(), number, count, last, step, marks };
        Ok((values, is_plain))
    }

    /// The last mark at or before `element`.
    fn mark(&self, element: u64) -> &Mark {
        &self.marks[memory_len(element / self.step).min(self.marks.len() - 1)]
    }

    /// Place of the values that `elements` are decoded from.
    fn place(&self, elements: &Range<u64>) -> Range<u64> {
        let place = |mark: &Mark| if mark.run.is_empty() { mark.field_at } else { mark.run.start };
        let behind = self.marks.get(memory_len(elements.end / self.step) + 1);
        place(self.mark(elements.start))..behind.map_or(self.message.end, place)
    }
}

impl TensorReader for DecodedValues {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn read(&self, elements: Range<u64>, out: &mut [u8], context: &mut ReadContext<'_>) -> Result<()> {
        let itemsize = memory_len(self.spec.itemsize());
        let wanted = elements.start..elements.end.min(self.count);
        let stored = memory_len(wanted.end.saturating_sub(wanted.start)) * itemsize;
        let (values, rest) = out.split_at_mut(stored);
        if !values.is_empty() {
            self.file.check_unchanged()?;
            let mut places = values.chunks_exact_mut(itemsize);
            let from = self.mark(wanted.start).clone();
            Cursor::new(&*self.file, self.message.end, self.number, self.spec.dtype(), from).walk(|mark, _, element| {
                if mark.element.is_multiple_of(CANCEL_STEP) {
                    context.check_cancelled()?;
                }
                if mark.element >= wanted.start
                    && let Some(place) = places.next()
                {
                    place.copy_from_slice(&element[..itemsize]);
                }
                Ok(mark.element + 1 < wanted.end)
            })?;
            if places.len() > 0 {
                return Err(Error::malformed_at(self.file.path(), WHAT, self.message.start, "there are fewer values than before"));
            }
        }
        context.check_cancelled()?;
        repeat(&self.last[..itemsize], rest);
        Ok(())
    }

    fn evict(&self, elements: Range<u64>, context: &ReadContext<'_>) {
        self.file.evict(&self.place(&elements), &context.calls);
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn heap_bytes(&self) -> u64 {
        self.file.heap_bytes() + (self.marks.capacity() * size_of::<Mark>()) as u64
    }
}

/// Fills `out` with copies of `element`.
fn repeat(element: &[u8], out: &mut [u8]) {
    if element.iter().all(|&byte| byte == 0) {
        out.fill(0);
        return;
    }
    let mut filled = element.len().min(out.len());
    out[..filled].copy_from_slice(&element[..filled]);
    while filled < out.len() {
        let more = filled.min(out.len() - filled);
        out.copy_within(..more, filled);
        filled += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tensor_proto::TensorProto;
    use crate::format::varint;
    use crate::os::SystemCalls;
    use crate::storage::local::LocalFile;
    use crate::storage::memory::HeldBytes;
    use proptest::prelude::*;

    fn bytes_field(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
        varint::push(out, u64::from(number) << 3 | 2);
        varint::push(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }

    /// A message with this dtype and shape, followed by fields of values.
    fn message(dtype: Dtype, shape: &[u64], values: &[u8]) -> Vec<u8> {
        let mut out = vec![8, dtype.code() as u8];
        let mut axes = Vec::new();
        for &axis in shape {
            let mut size = vec![8];
            varint::push(&mut size, axis);
            bytes_field(2, &size, &mut axes);
        }
        bytes_field(2, &axes, &mut out);
        out.extend_from_slice(values);
        out
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, Arc<dyn Blob>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.pb");
        std::fs::write(&path, bytes).unwrap();
        let file = LocalFile::open(&path, &SystemCalls::default()).unwrap();
        (dir, file)
    }

    fn read(reader: &dyn TensorReader, elements: Range<u64>) -> Result<Vec<u8>> {
        let mut out = vec![9; memory_len((elements.end - elements.start) * reader.spec().itemsize())];
        reader.read(elements, &mut out, &mut ReadContext::new(1 << 16, None, &SystemCalls::default()))?;
        Ok(out)
    }

    fn reader(bytes: &[u8], rule: Rule) -> Result<Box<dyn TensorReader>> {
        let (_dir, medium) = file(bytes);
        Proto::look_at(&*medium, &(0..bytes.len() as u64), None)?.reader(&medium, rule)
    }

    /// A value that fits the dtype, on the wire: packed, and by itself with its tag.
    fn value(dtype: Dtype, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let number = value_field(dtype).unwrap();
        let (mut packed, mut single) = (Vec::new(), Vec::new());
        let tag = |wire: u64, out: &mut Vec<u8>| varint::push(out, u64::from(number) << 3 | wire);
        match ValueForm::of(number) {
            ValueForm::Four => {
                packed.extend_from_slice(&seed.to_le_bytes()[..4]);
                tag(5, &mut single);
            }
            ValueForm::Eight => {
                packed.extend_from_slice(&seed.to_le_bytes());
                tag(1, &mut single);
            }
            ValueForm::Byte => {
                packed.push(seed as u8);
                tag(2, &mut single);
                single.push(1);
            }
            ValueForm::Varint => {
                let value = match dtype {
                    Dtype::Int8 => i64::from(seed as i8).cast_unsigned(),
                    Dtype::Int4 => (seed.cast_signed() % 8).cast_unsigned(),
                    Dtype::Float16 => seed & 0xffff,
                    Dtype::Bool => seed % 4,
                    _ => seed,
                };
                varint::push(&mut packed, value);
                tag(0, &mut single);
            }
        }
        single.extend_from_slice(&packed);
        (packed, single)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_mix_of_fields_is_read_as_in_memory(
            dtype in prop::sample::select(vec![
                Dtype::Float32, Dtype::Float64, Dtype::Int8, Dtype::Int64, Dtype::UInt64, Dtype::Bool, Dtype::Complex64,
                Dtype::Complex128, Dtype::Float16, Dtype::Int4, Dtype::Float8E5M2,
            ]),
            runs in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u64>().prop_map(|seed| seed >> (seed % 64)), 0..40)), 0..6),
            more in prop_oneof![Just(0u64), 0u64..60],
            picks in any::<[prop::sample::Index; 2]>(),
        ) {
            let (number, is_complex) = (value_field(dtype).unwrap(), matches!(dtype, Dtype::Complex64 | Dtype::Complex128));
            let mut values = Vec::new();
            let mut count = 0;
            for (is_packed, seeds) in &runs {
                let mut packed = Vec::new();
                for &seed in seeds {
                    let (inside, single) = value(dtype, seed);
                    if *is_packed { packed.extend(inside) } else { values.extend(single) }
                    count += 1;
                }
                if *is_packed {
                    bytes_field(number, &packed, &mut values);
                }
                // An unknown group, with such a field in it.
                values.extend([0xfb, 0x01, 0x08, 1, 0xfc, 0x01]);
            }
            let count = if is_complex { count / 2 } else { count };
            let bytes = message(dtype, &[count + more], &values);
            let naive = TensorProto::parse(&bytes, 0).unwrap();
            let mut wanted = vec![9; naive.spec.nbytes() as usize];
            naive.fill(&mut wanted).unwrap();
            let (_dir, medium) = file(&bytes);
            let proto = Proto::look_at(&*medium, &(0..bytes.len() as u64), None).unwrap();
            let held: Arc<dyn Blob> = HeldBytes::new(&Path::new("t").into(), bytes.clone());
            for medium in [&medium, &held] {
                let reader = proto.reader(medium, Rule::Repeat).unwrap();
                prop_assert_eq!(&read(&*reader, 0..count + more).unwrap(), &wanted);
                let mut cut = picks.map(|pick| pick.index((count + more + 1) as usize) as u64);
                cut.sort_unstable();
                let item = reader.spec().itemsize();
                prop_assert_eq!(&read(&*reader, cut[0]..cut[1]).unwrap()[..], &wanted[(cut[0] * item) as usize..(cut[1] * item) as usize]);
                let is_lone = is_complex && runs.iter().map(|(_, seeds)| seeds.len()).sum::<usize>() % 2 == 1;
                prop_assert_eq!(proto.reader(medium, Rule::Exact).is_ok(), more == 0 && !is_lone);
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = message(Dtype::Int32, &[4], &bytes);
            let (_dir, medium) = file(&bytes);
            let read_piecewise = || {
                let proto = Proto::look_at(&*medium, &(0..bytes.len() as u64), None)?;
                if proto.spec.dtype() == Dtype::String || proto.spec.nbytes() > 1 << 20 {
                    return Ok(None);
                }
                let reader = proto.reader(&medium, Rule::Repeat)?;
                read(&*reader, 0..reader.spec().elements()).map(Some)
            };
            let naive = TensorProto::parse(&bytes, 0).and_then(|naive| {
                let mut out = vec![0; if naive.spec.nbytes() > 1 << 20 { 0 } else { naive.spec.nbytes() as usize }];
                naive.fill(&mut out).map(|()| out)
            });
            match read_piecewise() {
                Ok(Some(read)) => prop_assert_eq!(Ok(read), naive),
                Ok(None) => {}
                Err(_) => prop_assert!(naive.is_err()),
            }
        }
    }

    #[test]
    fn a_tensor_that_is_there_is_read_in_place() {
        let floats = [0u8, 0, 0x80, 0x3f, 0, 0, 0, 0x40];
        let mut packed = Vec::new();
        bytes_field(5, &floats, &mut packed);
        let mut raw = Vec::new();
        bytes_field(4, &floats, &mut raw);
        for values in [&packed, &raw] {
            let (_dir, medium) = file(&message(Dtype::Float32, &[2], values));
            let len = medium.len();
            let reader = Proto::look_at(&*medium, &(0..len), None).unwrap().reader(&medium, Rule::Repeat).unwrap();
            let run = reader.stored_run(0).unwrap().unwrap();
            assert_eq!((run.elements, run.offset), (0..2, len - 8));
        }
        let mut bools = Vec::new();
        bytes_field(11, &[1, 0, 1], &mut bools);
        let (_dir, medium) = file(&message(Dtype::Bool, &[3], &bools));
        let len = medium.len();
        let proto = Proto::look_at(&*medium, &(0..len), None).unwrap();
        assert!(proto.reader(&medium, Rule::Exact).unwrap().stored_run(0).unwrap().is_some());
        // Every nonzero value is true.
        let two = message(Dtype::Bool, &[3], &[0x5a, 3, 1, 0, 2]);
        let (_dir, medium) = file(&two);
        let reader = Proto::look_at(&*medium, &(0..two.len() as u64), None).unwrap().reader(&medium, Rule::Repeat).unwrap();
        assert_eq!(read(&*reader, 0..3).unwrap(), [1, 0, 1]);
    }

    #[test]
    fn what_is_no_value_of_the_tensor_is_an_error() {
        let check = |values: &[u8], expected: &str| {
            let error = reader(&message(Dtype::Int8, &[2], values), Rule::Repeat).unwrap_err();
            assert!(matches!(error, Error::Malformed { offset: Some(_), .. }) && error.to_string().contains(expected), "{error}");
        };
        check(&[0x3a, 2, 0xac, 2], "300");
        check(&[0x3a, 3, 1, 2, 3], "more values");
        check(&[0x38, 1, 0x38, 1, 0x38, 1], "more values");
        check(&[0x2a, 4, 0, 0, 0, 0], "field 5");
        check(&[0x3d, 0, 0, 0, 0], "wire type");
        check(&[0x22, 1, 0], "tensor_content has 1 bytes");
        check(&[0x3a, 1, 0x80], "truncated");
        check(&[0x3a, 9, 0x80], "left");
        assert!(reader(&message(Dtype::Int8, &[2], &[0x22, 2, 0, 0]), Rule::Exact).is_err());
        assert!(reader(&message(Dtype::Int8, &[2], &[0x3a, 1, 5]), Rule::Exact).is_err());
    }

    #[test]
    fn few_bytes_stand_for_many_elements() {
        let reader = reader(&message(Dtype::Float32, &[1 << 40], &[0x2d, 0, 0, 0x80, 0x3f]), Rule::Repeat).unwrap();
        // The file is gone by now; the repeated value is known.
        let far = (1 << 40) - 3..1 << 40;
        assert_eq!(read(&*reader, far).unwrap(), [0, 0, 0x80, 0x3f].repeat(3));
        assert!(reader.heap_bytes() < 4096);
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let (dir, medium) = file(&message(Dtype::Int64, &[3], &[0x52, 3, 1, 2, 3]));
        let len = medium.len();
        let reader = Proto::look_at(&*medium, &(0..len), None).unwrap().reader(&medium, Rule::Repeat).unwrap();
        assert!(reader.check_unchanged().is_ok());
        std::fs::write(dir.path().join("t.pb"), b"other").unwrap();
        assert!(read(&*reader, 0..3).is_err() && reader.check_unchanged().is_err());
    }
}

//! What tf.data writes beside its elements: the metadata of a snapshot, and the structure of an element.
//!
//! Source: `tensorflow/core/protobuf/snapshot.proto` and `struct.proto`.

use super::bundle::parse_shape_with_unknown;
use super::proto::{Fields, Value};
use super::varint;
use crate::error::ParseError;
use crate::types::size::memory_len;

/// Structures nest no deeper than messages may.
const MAX_DEPTH: usize = 100;

/// `SnapshotMetadataRecord`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The folder with the elements.
    pub(crate) run_id: String,
    pub(crate) version: i64,
    /// TensorFlow's numbers of the components' dtypes.
    pub(crate) dtypes: Vec<u64>,
    /// How many elements there are; negative or 0 where that was not known.
    pub(crate) num_elements: i64,
    /// Whether the write came to its end.
    pub(crate) finalized: bool,
}

impl Metadata {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "snapshot metadata";
        let mut metadata = Self::default();
        for field in Fields::new(bytes, 0, WHAT) {
            let field = field?;
            match (field.number, field.value) {
                (2, Value::Bytes(id, at)) => {
                    let id = std::str::from_utf8(id).map_err(|_| ParseError::new(at, WHAT, "run_id is no UTF-8"))?;
                    id.clone_into(&mut metadata.run_id);
                }
                (4, _) => metadata.version = field.int64(WHAT)?,
                (5, Value::Bytes(packed, at)) => {
                    let mut pos = 0;
                    while pos < packed.len() {
                        let (code, len) = varint::read_u64(&packed[pos..], at + pos, WHAT)?;
                        metadata.dtypes.push(code);
                        pos += len;
                    }
                }
                (5, _) => metadata.dtypes.push(field.varint(WHAT)?),
                (6, _) => metadata.num_elements = field.int64(WHAT)?,
                (1000, _) => metadata.finalized = field.varint(WHAT)? != 0,
                _ => {}
            }
        }
        Ok(metadata)
    }
}

/// A component of an element, in the order in which components are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    /// The way to it: keys and positions, joined by `/`. Empty for an element that is one tensor.
    pub(crate) path: String,
    /// TensorFlow's number of its dtype; `None` for what is no plain tensor.
    pub(crate) dtype: Option<u64>,
    /// Its shape, as far as that is known; `None` where not even the rank is.
    pub(crate) shape: Option<Vec<Option<u64>>>,
    /// What it is, where it is no plain tensor.
    pub(crate) composite: Option<Composite>,
}

/// What is stored as an object of TensorFlow's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Composite {
    /// Rows of lengths of their own; nested so deep, not at all where it is one row of a batch.
    Ragged {
        rank: u64,
    },
    Sparse,
    Optional,
    /// A data set: what `window` makes.
    Dataset,
    /// Of this class.
    Other(String),
}

impl Composite {
    /// What it is, and how it becomes plain tensors.
    pub(crate) fn advice(&self) -> String {
        let (what, map) = match self {
            Self::Ragged { rank: 0 } => ("a row of a RaggedTensor", "tf.convert_to_tensor"),
            Self::Ragged { .. } => ("a RaggedTensor", "lambda r: (r.flat_values, *r.nested_row_splits)"),
            Self::Sparse => ("a SparseTensor", "lambda s: (s.indices, s.values, s.dense_shape)"),
            Self::Optional => ("an Optional", "lambda o: o.get_value()"),
            Self::Dataset => return "it is a data set in itself, as Dataset.window makes them, which TensorFlow does not load again: save what Dataset.batch makes instead".to_owned(),
            Self::Other(class) => return format!("it is a {class}, an object of TensorFlow's: save the tensors that it is made of, with Dataset.map before Dataset.save"),
        };
        format!("it is {what}, stored as an object of TensorFlow's: save its tensors instead, with Dataset.map({map}) before Dataset.save")
    }
}

/// The components of a serialized `StructuredValue`: tuples and lists in order, dicts by their sorted keys, as `tf.nest` has them.
pub(crate) fn components(bytes: &[u8]) -> Result<Vec<Component>, ParseError> {
    let mut found = Vec::new();
    flatten(bytes, 0, "", 0, &mut found)?;
    Ok(found)
}

fn flatten(bytes: &[u8], base: usize, path: &str, depth: usize, found: &mut Vec<Component>) -> Result<(), ParseError> {
    const WHAT: &str = "element spec";
    if depth > MAX_DEPTH {
        return Err(ParseError::new(base, WHAT, format!("structures nest deeper than {MAX_DEPTH}")));
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    // A oneof: the last one counts.
    let Some(field) = Fields::new(bytes, base, WHAT).last().transpose()? else { return Ok(()) };
    match field.number {
        // A tensor, and one whose values are bounded.
        33 | 35 => {
            let mut component = Component { path: path.to_owned(), dtype: None, shape: Some(Vec::new()), composite: None };
            for part in field.message(WHAT)? {
                let part = part?;
                match part.number {
                    2 => component.shape = parse_shape_with_unknown(part.message(WHAT)?)?,
                    3 => component.dtype = Some(part.varint(WHAT)?),
                    _ => {}
                }
            }
            found.push(component);
        }
        34 => {
            // One object in files where TensorFlow makes it one, however many components it says; `None` has none.
            let (composite, parts) = type_spec(field.message(WHAT)?)?;
            let component = |path: String, composite| Component { path, dtype: None, shape: None, composite };
            if parts.is_empty() {
                found.extend(composite.map(|composite| component(path.to_owned(), Some(composite))));
            }
            found.extend(parts.iter().map(|part| component(below(part), None)));
        }
        51 | 52 => {
            for (index, value) in field.message(WHAT)?.filter(|value| value.as_ref().map_or(true, |value| value.number == 1)).enumerate() {
                let Value::Bytes(value, at) = value?.value else { continue };
                flatten(value, at, &below(&index.to_string()), depth + 1, found)?;
            }
        }
        53 | 54 => {
            let entries_are = if field.number == 53 { 1 } else { 2 };
            let mut entries = Vec::new();
            for entry in field.message(WHAT)? {
                let entry = entry?;
                if entry.number != entries_are {
                    continue;
                }
                let (mut key, mut value): (&[u8], (&[u8], usize)) = (b"", (b"", entry.offset));
                for part in entry.message(WHAT)? {
                    match part.map(|part| (part.number, part.value))? {
                        (1, Value::Bytes(bytes, _)) => key = bytes,
                        (2, Value::Bytes(bytes, at)) => value = (bytes, at),
                        _ => {}
                    }
                }
                entries.push((key, value));
            }
            if field.number == 53 {
                entries.sort_by_key(|(key, _)| *key);
            }
            for (key, (value, at)) in entries {
                flatten(value, at, &below(&String::from_utf8_lossy(key)), depth + 1, found)?;
            }
        }
        // `None` without a type of its own.
        1 => {}
        number => return Err(ParseError::new(field.offset, WHAT, format!("a part of kind {number}, which is no tensor and no structure"))),
    }
    Ok(())
}

/// What a `TypeSpecProto` stands for, nothing for `None`; and the names of its parts where they are stored as tensors.
fn type_spec(fields: Fields<'_>) -> Result<(Option<Composite>, Vec<String>), ParseError> {
    const WHAT: &str = "element spec";
    const MOST_PARTS: usize = 1024;
    let (mut class, mut name, mut state, mut count) = (0, String::new(), None, 0);
    for field in fields {
        let field = field?;
        match (field.number, field.value) {
            (1, _) => class = field.varint(WHAT)?,
            (2, Value::Bytes(bytes, at)) => state = Some((bytes, at)),
            (3, Value::Bytes(bytes, _)) => name = String::from_utf8_lossy(bytes).into_owned(),
            (4, _) => count = field.count(WHAT, "num_flat_components")?,
            _ => {}
        }
    }
    let composite = match class {
        1 => Composite::Sparse,
        2 => {
            let parts = ["values", "indices", "dense_shape"];
            return Ok((None, parts.iter().take(memory_len(count)).map(|&part| part.to_owned()).collect()));
        }
        3 => Composite::Ragged { rank: state.map_or(Ok(1), |(bytes, at)| ragged_rank(bytes, at))? },
        5 => Composite::Dataset,
        7 => Composite::Optional,
        _ if name.rsplit('.').next() == Some("NoneTensorSpec") => return Ok((None, Vec::new())),
        _ if count > 1 => return Ok((None, (0..memory_len(count).min(MOST_PARTS)).map(|part| part.to_string()).collect())),
        _ => Composite::Other(if name.is_empty() { "composite".to_owned() } else { name }),
    };
    Ok((Some(composite), Vec::new()))
}

/// The third value of a tuple of shape, dtype, ragged rank and dtype of the row splits.
fn ragged_rank(state: &[u8], base: usize) -> Result<u64, ParseError> {
    const WHAT: &str = "element spec";
    let mut values = Vec::new();
    for tuple in Fields::new(state, base, WHAT) {
        for value in tuple?.message(WHAT)? {
            let value = value?;
            values.extend((value.number == 1).then_some(value));
        }
    }
    let Some(rank) = values.into_iter().nth(2) else { return Ok(1) };
    let mut zigzag = 2;
    for number in rank.message(WHAT)? {
        let number = number?;
        if number.number == 12 {
            zigzag = number.varint(WHAT)?;
        }
    }
    Ok(zigzag >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_tensorflow() {
        let bytes = b"\x12\x1414325127870831603782\x18\x07\x20\x02\x2a\x03\x01\x09\x07\x30\x03\xc0\x3e\x01";
        let metadata = Metadata::parse(bytes).unwrap();
        assert_eq!(metadata.run_id, "14325127870831603782");
        assert_eq!((metadata.version, metadata.dtypes, metadata.num_elements, metadata.finalized), (2, vec![1, 9, 7], 3, true));
    }

    /// A field of bytes.
    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let tag = number << 3 | 2;
        let mut out = if tag < 128 { vec![tag as u8] } else { vec![(tag & 127) as u8 | 128, (tag >> 7) as u8] };
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn dicts_are_flattened_by_key_and_tuples_in_order() {
        let tensor = |dtype: u8| field(33, &[&field(2, &field(2, &[8, 3])), &[0x18, dtype][..]].concat());
        let entry = |key: &str, value: &[u8]| field(1, &[field(1, key.as_bytes()), field(2, value)].concat());
        let dict = field(53, &[entry("s", &tensor(7)), entry("a", &tensor(1))].concat());
        let tuple = field(52, &[field(1, &dict), field(1, &tensor(9))].concat());
        let found = components(&tuple).unwrap();
        let paths: Vec<_> = found.iter().map(|component| (component.path.as_str(), component.dtype)).collect();
        assert_eq!(paths, [("0/a", Some(1)), ("0/s", Some(7)), ("1", Some(9))]);
        assert_eq!(found[0].shape, Some(vec![Some(3)]));
    }
}

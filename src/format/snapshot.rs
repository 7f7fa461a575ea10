//! Files that tf.data writes beside its elements: the metadata of a snapshot, and the structure of an element.
//!
//! Source: `tensorflow/core/protobuf/snapshot.proto` and `struct.proto`.

use super::bundle::parse_shape_with_unknown;
use super::proto::{Fields, Value};
use super::varint;
use crate::error::ParseError;
use crate::types::size::memory_len;

/// Nesting limit for structures; messages have the same limit.
const MAX_DEPTH: usize = 100;

/// `SnapshotMetadataRecord`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The folder with the elements.
    pub(crate) run_id: String,
    pub(crate) version: i64,
    /// TensorFlow's dtype numbers of the components.
    pub(crate) dtypes: Vec<u64>,
    /// Number of elements; 0 or negative if it was unknown.
    pub(crate) num_elements: i64,
    /// Whether the write was completed.
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
                    let id = std::str::from_utf8(id).map_err(|_| ParseError::new(at, WHAT, "run_id is not UTF-8"))?;
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

/// A component of an element. Components are listed in the order in which they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    /// Its path: keys and positions joined by `/`. Empty if the element is a single tensor.
    pub(crate) path: String,
    /// TensorFlow's dtype number; `None` unless it is a plain tensor.
    pub(crate) dtype: Option<u64>,
    /// Its shape, as far as known; `None` if the rank is unknown.
    pub(crate) shape: Option<Vec<Option<u64>>>,
    /// What it is instead of a plain tensor.
    pub(crate) composite: Option<Composite>,
}

/// Something stored as a TensorFlow object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Composite {
    /// Rows of varying lengths, with `rank` levels of nesting; 0 for a single row of a batch.
    Ragged {
        rank: u64,
    },
    Sparse,
    Optional,
    /// A dataset, as `window` makes them.
    Dataset,
    /// An object of this class.
    Other(String),
}

impl Composite {
    /// Describes it, and says how to turn it into plain tensors.
    pub(crate) fn advice(&self) -> String {
        let (what, map) = match self {
            Self::Ragged { rank: 0 } => ("a row of a RaggedTensor", "tf.convert_to_tensor"),
            Self::Ragged { .. } => ("a RaggedTensor", "lambda r: (r.flat_values, *r.nested_row_splits)"),
            Self::Sparse => ("a SparseTensor", "lambda s: (s.indices, s.values, s.dense_shape)"),
            Self::Optional => ("an Optional", "lambda o: o.get_value()"),
            Self::Dataset => return "it is itself a dataset, as Dataset.window makes them, and TensorFlow cannot load it again: use Dataset.batch instead before saving".to_owned(),
            Self::Other(class) => return format!("it is a {class}, a TensorFlow object: save its tensors instead, with Dataset.map before Dataset.save"),
        };
        format!("it is {what}, stored as a TensorFlow object: save its tensors instead, with Dataset.map({map}) before Dataset.save")
    }
}

/// Lists the components of a serialized `StructuredValue`. Like `tf.nest`: tuples and lists in order, dicts by sorted keys.
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
    // A oneof: the last field counts.
    let Some(field) = Fields::new(bytes, base, WHAT).last().transpose()? else { return Ok(()) };
    match field.number {
        // A tensor, or a tensor with bounded values.
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
            // TensorFlow stores a composite object as one object, however many components it declares; `None` has no object.
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
        // `None`, which has no type of its own.
        1 => {}
        number => return Err(ParseError::new(field.offset, WHAT, format!("a part of kind {number}, neither a tensor nor a structure"))),
    }
    Ok(())
}

/// Parses a `TypeSpecProto`: the composite, if any (`None` has none), and the names of parts stored as plain tensors.
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

/// The ragged rank: the third value of a tuple of shape, dtype, ragged rank and row-splits dtype.
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

//! The header of a safetensors file: its length, then a JSON object of tensors.
//!
//! Source: the description in the README of <https://github.com/huggingface/safetensors>; dtype names and the order of tensors
//! are from `safetensors/src/tensor.rs`.

use std::cmp::Reverse;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::types::dtype::Dtype;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Bytes before the JSON, which hold its length.
pub(crate) const PREFIX_LEN: usize = 8;
/// The longest header that other readers accept.
pub(crate) const MAX_HEADER: u64 = 100_000_000;
/// Headers are padded so that tensors start at a multiple of this.
const ALIGN: usize = 8;
const METADATA: &str = "__metadata__";

/// Reads the length of the JSON from the first [`PREFIX_LEN`] bytes.
pub(crate) fn prefix(front: &[u8]) -> u64 {
    front.iter().take(PREFIX_LEN).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// One tensor of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// Where its bytes start, relative to the end of the header.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

/// The contents of a header.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) entries: Vec<Entry>,
    /// Free-form metadata, or null.
    pub(crate) metadata: Value,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ListedTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Parses the JSON of a header. Errors are plain text.
pub(crate) fn parse(text: &[u8]) -> Result<Header, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

impl<'de> Deserialize<'de> for Header {
    /// Written by hand because duplicate names must be refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;

        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                use serde::de::Error as _;
                let (mut entries, mut metadata, mut names) = (Vec::new(), Value::Null, std::collections::HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{name:?} occurs twice")));
                    }
                    if name == METADATA {
                        metadata = Value::Object(map.next_value::<Map<String, Value>>()?);
                        continue;
                    }
                    let ListedTensor { dtype, shape, data_offsets: (begin, end) } = map.next_value()?;
                    if end < begin {
                        return Err(A::Error::custom(format!("{name:?} ends at {end}, before it starts at {begin}")));
                    }
                    entries.push(Entry { name, dtype, shape, begin, end });
                }
                Ok(Header { entries, metadata })
            }
        }

        deserializer.deserialize_map(Tensors)
    }
}

/// The format's name for a dtype; `None` if it has none.
pub(crate) fn name_of(dtype: Dtype) -> Option<&'static str> {
    NAMES.iter().find(|(own, _)| *own == dtype).map(|(_, name)| *name)
}

/// The dtype with this name; `None` if TensorFlow lacks it.
pub(crate) fn dtype(name: &str) -> Option<Dtype> {
    NAMES.iter().find(|(_, own)| *own == name).map(|(dtype, _)| *dtype)
}

const NAMES: &[(Dtype, &str)] = &[
    (Dtype::Bool, "BOOL"),
    (Dtype::UInt8, "U8"),
    (Dtype::Int8, "I8"),
    (Dtype::Float8E5M2, "F8_E5M2"),
    (Dtype::Float8E4M3Fn, "F8_E4M3"),
    (Dtype::Int16, "I16"),
    (Dtype::UInt16, "U16"),
    (Dtype::Float16, "F16"),
    (Dtype::BFloat16, "BF16"),
    (Dtype::Int32, "I32"),
    (Dtype::UInt32, "U32"),
    (Dtype::Float32, "F32"),
    (Dtype::Complex64, "C64"),
    (Dtype::Float64, "F64"),
    (Dtype::Int64, "I64"),
    (Dtype::UInt64, "U64"),
];

/// The layout of a new file: where each tensor will be, computed before any data is written.
#[derive(Debug)]
pub(crate) struct FileLayout {
    /// The header, preceded by its length.
    pub(crate) header: Vec<u8>,
    /// Where each tensor starts in the file, in the caller's order.
    pub(crate) offsets: Vec<u64>,
    /// The length of the file.
    pub(crate) len: u64,
}

impl FileLayout {
    /// Lays out tensors by falling element size, which keeps all of them aligned, and then by name.
    ///
    /// # Errors
    /// Returns the reason if the format cannot hold them: duplicate names, a header that is too long, an unknown dtype.
    pub(crate) fn new(tensors: &[(&str, TensorSpec)], metadata: &[(&str, String)]) -> Result<Self, String> {
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by_key(|&i| (Reverse(tensors[i].1.itemsize()), tensors[i].0));
        let (mut begins, mut next) = (vec![0; tensors.len()], 0u64);
        let mut listed = Map::with_capacity(tensors.len() + 1);
        if !metadata.is_empty() {
            listed.insert(METADATA.into(), metadata.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect());
        }
        for i in order {
            let (name, spec) = &tensors[i];
            begins[i] = next;
            let end = next.checked_add(spec.nbytes()).ok_or_else(|| "the tensors have 2^64 bytes or more in total".to_owned())?;
            let dtype = name_of(spec.dtype()).ok_or_else(|| format!("the format has no dtype {}", spec.dtype()))?.to_owned();
            let entry = ListedTensor { dtype, shape: spec.shape().to_vec(), data_offsets: (next, end) };
            let entry = serde_json::to_value(entry).map_err(|error| error.to_string())?;
            if *name == METADATA || listed.insert((*name).to_owned(), entry).is_some() {
                return Err(format!("two tensors would have the name {name:?}"));
            }
            next = end;
        }
        let mut text = serde_json::to_vec(&listed).map_err(|error| error.to_string())?;
        text.resize(text.len().next_multiple_of(ALIGN), b' ');
        if text.len() as u64 > MAX_HEADER {
            return Err(format!("a header of {} bytes, readers accept at most {MAX_HEADER}", text.len()));
        }
        let start = (PREFIX_LEN + text.len()) as u64;
        let len = start.checked_add(next).ok_or_else(|| "the tensors have 2^64 bytes or more in total".to_owned())?;
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.append(&mut text);
        Ok(Self { header, offsets: begins.into_iter().map(|begin| start + begin).collect(), len })
    }

    /// The same with a header that is padded with blanks to end at byte `start`.
    ///
    /// # Errors
    /// Returns the reason if the header is longer.
    pub(crate) fn padded(self, start: u64) -> Result<Self, String> {
        let Self { mut header, offsets, len } = self;
        let own = header.len() as u64;
        let more = start.checked_sub(own).ok_or_else(|| format!("a header of {own} bytes, but there is room for {start}"))?;
        header.resize(memory_len(start), b' ');
        header[..PREFIX_LEN].copy_from_slice(&(start - PREFIX_LEN as u64).to_le_bytes());
        Ok(Self { header, offsets: offsets.into_iter().map(|offset| offset + more).collect(), len: len + more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_headers_are_refused() {
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}"#;
        let header = parse(good.as_bytes()).unwrap();
        assert_eq!((header.entries.len(), header.metadata["k"].as_str()), (1, Some("v")));
        for bad in [
            "",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}"#,
            r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_laid_out_is_read_back(
            sizes in prop::collection::btree_map("[a-z/é\"\\\\]{0,8}", (prop::sample::select(NAMES), prop::collection::vec(0u64..5, 0..4)), 0..8)
        ) {
            let tensors: Vec<(&str, TensorSpec)> =
                sizes.iter().map(|(name, ((dtype, _), shape))| (name.as_str(), TensorSpec::new(*dtype, shape.clone()).unwrap())).collect();
            let plan = FileLayout::new(&tensors, &[("format", "np".into())]).unwrap();
            prop_assert!(plan.header.len().is_multiple_of(8));
            prop_assert_eq!(prefix(&plan.header) as usize + PREFIX_LEN, plan.header.len());
            let header = parse(&plan.header[PREFIX_LEN..]).unwrap();
            let mut next = 0;
            for entry in &header.entries {
                let at = tensors.iter().position(|(name, _)| *name == entry.name).unwrap();
                prop_assert_eq!(dtype(&entry.dtype), Some(tensors[at].1.dtype()));
                prop_assert_eq!(&entry.shape[..], tensors[at].1.shape());
                prop_assert_eq!((entry.begin, entry.end - entry.begin), (next, tensors[at].1.nbytes()));
                prop_assert_eq!(plan.offsets[at], plan.header.len() as u64 + entry.begin);
                prop_assert!(plan.offsets[at].is_multiple_of(tensors[at].1.dtype().component_size()));
                next = entry.end;
            }
            prop_assert_eq!(plan.len, plan.header.len() as u64 + next);
            let (start, offsets) = (plan.header.len() as u64, plan.offsets.clone());
            let padded = plan.padded(start + 24).unwrap();
            prop_assert_eq!(parse(&padded.header[PREFIX_LEN..]).unwrap().entries, header.entries);
            prop_assert_eq!((prefix(&padded.header), padded.header.len() as u64, padded.len), (start + 16, start + 24, start + 24 + next));
            prop_assert!(padded.offsets.iter().zip(&offsets).all(|(new, old)| *new == old + 24));
            prop_assert!(padded.padded(start).is_err());
        }
    }
}

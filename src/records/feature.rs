//! A feature of records: where it is stored, and what metadata or options declare about it.

use crate::options::records::Called;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// The name of the tensor of unparsed records.
pub(crate) const RECORDS: &[u8] = b"records";

/// Where a feature is found in a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// By its name, in an Example or the context of a SequenceExample.
    Context(Vec<u8>),
    /// By its name, among the feature lists of a SequenceExample.
    List(Vec<u8>),
    /// This part of the record, as a value by itself.
    Part(usize),
}

/// How the values of a feature are declared to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Lists of numbers.
    Values,
    /// Little-endian elements in bytes.
    Raw,
    /// The same, compressed with zlib.
    Zlib,
    /// JPEG or PNG files.
    Image,
    /// Byte strings.
    Strings,
    /// Serialized `TensorProto`s.
    Tensor,
}

/// Number of items of a feature in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Items {
    /// One, which is a row.
    One,
    /// A list of this many.
    Exactly(u64),
    /// A list of any number.
    Any,
    /// The concatenated items of nested lists; another feature has the lengths.
    Nested,
}

impl Items {
    /// A list whose length may be known.
    pub(crate) fn of_length(length: Option<u64>) -> Self {
        length.map_or(Self::Any, Self::Exactly)
    }

    /// The length of the list, if known.
    pub(crate) fn length(self) -> Option<u64> {
        if let Self::Exactly(length) = self { Some(length) } else { None }
    }

    pub(crate) fn is_list(self) -> bool {
        self != Self::One
    }
}

/// A feature as declared by metadata beside the records, or by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) dtype: Dtype,
    /// The shape of an item; `None` for unknown lengths.
    pub(crate) shape: Vec<Option<u64>>,
    /// Whether the number of axes of an item is known.
    pub(crate) has_rank: bool,
    pub(crate) encoding: Encoding,
    /// The byte order of raw elements.
    pub(crate) order: ByteOrder,
    /// Number of items in a record.
    pub(crate) items: Items,
    /// Whether every item is a row.
    pub(crate) flat: bool,
    /// Whether its array is the start of each record's items.
    pub(crate) only_offsets: bool,
    /// The name of the feature that holds the shape of this one.
    pub(crate) shape_in: Option<Vec<u8>>,
}

impl Declared {
    /// One item in every record, which is a row.
    pub(crate) fn new(dtype: Dtype, shape: Vec<Option<u64>>, encoding: Encoding) -> Self {
        let (order, items) = (ByteOrder::Little, Items::One);
        Self { dtype, shape, has_rank: true, encoding, order, items, flat: false, only_offsets: false, shape_in: None }
    }
}

/// A feature of records.
#[derive(Debug, Clone)]
pub(crate) struct Feature {
    pub(crate) name: Vec<u8>,
    /// The name it is listed by, if that has a prefix.
    pub(crate) title: Option<String>,
    pub(crate) alias: Option<String>,
    pub(crate) key: Key,
    pub(crate) declared: Option<Declared>,
    /// Why it cannot be converted.
    pub(crate) unsupported: Option<String>,
}

impl Feature {
    /// A feature of which only the place is known.
    pub(crate) fn found(key: Key) -> Self {
        let name = match &key {
            Key::Context(name) | Key::List(name) => name.clone(),
            Key::Part(part) => part.to_string().into_bytes(),
        };
        Self { name, title: None, alias: None, key, declared: None, unsupported: None }
    }

    /// Its names in options, where `own` is its name.
    pub(crate) fn called<'a>(&'a self, own: &'a str) -> Called<'a> {
        Called { own, title: self.title.as_deref().unwrap_or(own) }
    }

    /// Its name, dtype and shape, for messages.
    pub(crate) fn describe(&self) -> String {
        let name = String::from_utf8_lossy(&self.name);
        let Some(declared) = &self.declared else { return format!("the feature {name:?}") };
        let axes: Vec<String> = declared.shape.iter().map(|axis| axis.map_or_else(|| "?".to_owned(), |axis| axis.to_string())).collect();
        format!("{name:?} of {} [{}]", declared.dtype, axes.join(", "))
    }
}

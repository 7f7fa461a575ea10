//! A writer of record files that shares only the checksum with the reader it tests.

#![allow(dead_code, clippy::pedantic, reason = "included by several tests, each of which uses another part")]

use std::io::Write;

use crate::bundle::{mask, varint};

/// A field of bytes.
pub(crate) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// The values of a feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Bytes(Vec<Vec<u8>>),
}

impl Values {
    /// A `Feature`; `packed` stores numbers as all current writers do.
    pub(crate) fn feature(&self, packed: bool) -> Vec<u8> {
        match self {
            Self::Bytes(values) => field(1, &values.iter().flat_map(|value| field(1, value)).collect::<Vec<_>>()),
            Self::Floats(values) if packed => field(2, &field(1, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())),
            Self::Floats(values) => field(2, &values.iter().flat_map(|v| [&[0x0d][..], &v.to_le_bytes()].concat()).collect::<Vec<_>>()),
            Self::Ints(values) if packed => field(3, &field(1, &values.iter().flat_map(|v| varint(*v as u64)).collect::<Vec<_>>())),
            Self::Ints(values) => field(3, &values.iter().flat_map(|v| [vec![8], varint(*v as u64)].concat()).collect::<Vec<_>>()),
        }
    }
}

/// An `Example`.
pub(crate) fn example(features: &[(&str, Values)], packed: bool) -> Vec<u8> {
    let entry = |(name, values): &(&str, Values)| field(1, &[field(1, name.as_bytes()), field(2, &values.feature(packed))].concat());
    field(1, &features.iter().flat_map(entry).collect::<Vec<_>>())
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    mask(crc32c::crc32c(bytes)).to_le_bytes()
}

/// A record in its frame.
pub(crate) fn frame(record: &[u8]) -> Vec<u8> {
    let len = (record.len() as u64).to_le_bytes();
    [&len[..], &masked(&len), record, &masked(record)].concat()
}

/// A file of records.
pub(crate) fn frames<R: AsRef<[u8]>>(records: &[R]) -> Vec<u8> {
    records.iter().flat_map(|record| frame(record.as_ref())).collect()
}

/// Compresses in one of TensorFlow's ways.
pub(crate) fn compress(way: usize, bytes: &[u8]) -> Vec<u8> {
    match way {
        1 => {
            // Two members, split anywhere.
            let member = |bytes: &[u8]| {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            };
            let (one, other) = bytes.split_at(bytes.len() / 3);
            [member(one), member(other)].concat()
        }
        2 => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        3 => bytes
            .chunks(70_001)
            .flat_map(|block| {
                let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
                [&(block.len() as u32).to_be_bytes()[..], &block].concat()
            })
            .collect(),
        _ => bytes.to_vec(),
    }
}

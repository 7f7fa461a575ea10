//! What scanning records found out about their features.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::columns::inflate::inflated_len;
use super::feature::{Declared, Encoding, Key};
use super::set::RecordSet;
use super::stream::batch::Batch;
use crate::error::ParseError;
use crate::format::example::{self, FeatureValues, Kind, Place};
use crate::format::tensor_proto::TensorProto;
use crate::image::form::ImageForm;
use crate::image::{FileKind, ImageChoices};
use crate::types::spec::TensorSpec;

/// Lists of integers up to this length may be shapes.
const MOST_INTS: u64 = 64;

/// The value in the first record that has one, and the first record with a different value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uniform<T> {
    pub(crate) value: T,
    pub(crate) record: u64,
    pub(crate) odd: Option<(u64, T)>,
}

impl<T: PartialEq + Clone> Uniform<T> {
    fn see(first: &mut Option<Self>, record: u64, value: T) {
        Self::merge(first, Some(Self { value, record, odd: None }));
    }

    /// Adds what another worker saw of other records, in any order.
    fn merge(first: &mut Option<Self>, other: Option<Self>) {
        let Some(other) = other else { return };
        *first = Some(match first.take() {
            None => other,
            Some(own) => {
                let (mut early, late) = if own.record <= other.record { (own, other) } else { (other, own) };
                let candidate = if late.value == early.value { late.odd } else { Some((late.record, late.value)) };
                if let Some(candidate) = candidate.filter(|(_, value)| *value != early.value)
                    && early.odd.as_ref().is_none_or(|(record, _)| candidate.0 < *record)
                {
                    early.odd = Some(candidate);
                }
                early
            }
        });
    }
}

/// The kind of content that a bytes value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesKind {
    /// JPEG or PNG, with its size.
    Image,
    /// An image of a format that is not decoded.
    OtherImage(FileKind),
    Tensor,
    Text,
    Bytes,
}

/// Lengths of bytes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Widths {
    /// Bytes of the shortest and of the longest.
    pub(crate) shortest: u64,
    pub(crate) longest: u64,
    /// The most characters in one; if some are not UTF-8, the first record with one of those.
    pub(crate) most_chars: Result<u64, u64>,
}

impl Widths {
    fn of(record: u64, bytes: &[u8]) -> Self {
        let len = bytes.len() as u64;
        let most_chars = std::str::from_utf8(bytes).map(|text| text.chars().count() as u64).map_err(|_| record);
        Self { shortest: len, longest: len, most_chars }
    }

    /// Adds the lengths that others saw.
    fn merge(widths: &mut Option<Self>, other: Option<Self>) {
        let both = |(own, other): (Self, Self)| Self {
            shortest: own.shortest.min(other.shortest),
            longest: own.longest.max(other.longest),
            most_chars: match (own.most_chars, other.most_chars) {
                (Ok(own), Ok(other)) => Ok(own.max(other)),
                (Err(own), Err(other)) => Err(own.min(other)),
                (Err(record), Ok(_)) | (Ok(_), Err(record)) => Err(record),
            },
        };
        *widths = widths.zip(other).map(both).or(*widths).or(other);
    }
}

/// What is known of one feature.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stats {
    /// Records that have values for it.
    pub(crate) present: u64,
    pub(crate) kind: Option<Uniform<Kind>>,
    /// The number of values, or steps, in a record.
    pub(crate) counts: Option<Uniform<u64>>,
    pub(crate) fewest: u64,
    pub(crate) most: u64,
    /// The number of values in a step.
    pub(crate) per_step: Option<Uniform<u64>>,
    /// The length of a value in bytes.
    pub(crate) lengths: Option<Uniform<u64>>,
    /// The same after decompression if values are compressed, and the largest.
    pub(crate) inflated: Option<Uniform<u64>>,
    pub(crate) longest_inflated: u64,
    /// Lengths of bytes values, and of strings in tensors.
    pub(crate) widths: Option<Widths>,
    pub(crate) inner_widths: Option<Widths>,
    /// The integers of a short list.
    pub(crate) ints: Option<Uniform<Vec<i64>>>,
    pub(crate) look: Option<Uniform<BytesKind>>,
    pub(crate) file_kind: Option<Uniform<FileKind>>,
    pub(crate) form: Option<Uniform<ImageForm>>,
    pub(crate) tensor: Option<Uniform<TensorSpec>>,
    /// The shape of the tensors without axis 0, and the largest axis 0.
    pub(crate) tensor_rest: Option<Uniform<Vec<u64>>>,
    pub(crate) most_rows: u64,
}

/// What is known of all features.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// Number of records scanned.
    pub(crate) records: u64,
    /// Whether these are all records.
    pub(crate) is_complete: bool,
    pub(crate) features: BTreeMap<Key, Stats>,
    /// What was lost.
    pub(crate) lost: Vec<String>,
    /// The number of the first selected record.
    pub(crate) start: u64,
    /// Why records are read as plain bytes although some are Examples.
    pub(crate) mixed: Option<String>,
    /// Features with compressed values, whose decompressed lengths are measured, too.
    pub(crate) compressed: Arc<HashSet<Key>>,
}

impl Stats {
    fn merge(&mut self, other: Self) {
        let is_first = self.counts.is_none();
        self.fewest = if is_first {
            other.fewest
        } else if other.counts.is_none() {
            self.fewest
        } else {
            self.fewest.min(other.fewest)
        };
        self.most = self.most.max(other.most);
        Widths::merge(&mut self.widths, other.widths);
        Widths::merge(&mut self.inner_widths, other.inner_widths);
        self.present += other.present;
        self.most_rows = self.most_rows.max(other.most_rows);
        Uniform::merge(&mut self.kind, other.kind);
        Uniform::merge(&mut self.counts, other.counts);
        Uniform::merge(&mut self.per_step, other.per_step);
        Uniform::merge(&mut self.lengths, other.lengths);
        Uniform::merge(&mut self.inflated, other.inflated);
        self.longest_inflated = self.longest_inflated.max(other.longest_inflated);
        Uniform::merge(&mut self.ints, other.ints);
        Uniform::merge(&mut self.look, other.look);
        Uniform::merge(&mut self.file_kind, other.file_kind);
        Uniform::merge(&mut self.form, other.form);
        Uniform::merge(&mut self.tensor, other.tensor);
        Uniform::merge(&mut self.tensor_rest, other.tensor_rest);
    }

    fn see_count(&mut self, record: u64, count: u64) {
        self.fewest = if self.counts.is_none() { count } else { self.fewest.min(count) };
        self.most = self.most.max(count);
        // A record without values lacks the feature, so it says nothing of the count.
        if count > 0 {
            self.present += 1;
            Uniform::see(&mut self.counts, record, count);
        }
    }

    /// Adds the values of a `Feature`; returns their number.
    fn see_values(&mut self, record: u64, feature: &[u8], base: usize, is_compressed: bool) -> Result<u64, ParseError> {
        let Some(values) = FeatureValues::parse(feature, base)? else { return Ok(0) };
        Uniform::see(&mut self.kind, record, values.kind());
        if values.kind() == Kind::Bytes {
            values.bytes(|bytes, _| {
                if is_compressed {
                    // Conversion reports why a value cannot be read.
                    let len = inflated_len(bytes).unwrap_or(0);
                    self.longest_inflated = self.longest_inflated.max(len);
                    Uniform::see(&mut self.inflated, record, len);
                }
                self.see_bytes(record, bytes);
                Ok(())
            })?;
        }
        let count = values.count()?;
        if values.kind() == Kind::Ints && count <= MOST_INTS {
            let mut ints = Vec::new();
            values.ints(|value| ints.push(value))?;
            Uniform::see(&mut self.ints, record, ints);
        }
        Ok(count)
    }

    fn see_bytes(&mut self, record: u64, bytes: &[u8]) {
        let widths = Widths::of(record, bytes);
        self.see_widths(record, widths);
        let look = match FileKind::sniff(bytes) {
            Some(kind @ (FileKind::Jpeg | FileKind::Png)) => {
                Uniform::see(&mut self.file_kind, record, kind);
                // Conversion reports why an image cannot be read.
                if let Ok(form) = ImageChoices::default().look(bytes) {
                    Uniform::see(&mut self.form, record, form);
                }
                BytesKind::Image
            }
            Some(other) => BytesKind::OtherImage(other),
            None if TensorProto::is_likely(bytes) && self.see_tensor(record, bytes).is_ok() => BytesKind::Tensor,
            None if widths.most_chars.is_ok() && !bytes.iter().any(|&byte| byte < b'\t') => BytesKind::Text,
            None => BytesKind::Bytes,
        };
        Uniform::see(&mut self.look, record, look);
    }

    fn see_widths(&mut self, record: u64, widths: Widths) {
        Widths::merge(&mut self.widths, Some(widths));
        Uniform::see(&mut self.lengths, record, widths.longest);
    }

    fn see_tensor(&mut self, record: u64, bytes: &[u8]) -> Result<(), ParseError> {
        let proto = TensorProto::parse(bytes, 0)?;
        if let Some((rows, rest)) = proto.spec.shape().split_first() {
            self.most_rows = self.most_rows.max(*rows);
            Uniform::see(&mut self.tensor_rest, record, rest.to_vec());
        }
        if proto.spec.dtype() == crate::types::dtype::Dtype::String {
            proto.strings(|string| {
                Widths::merge(&mut self.inner_widths, Some(Widths::of(record, string)));
                Ok(())
            })?;
        }
        Uniform::see(&mut self.tensor, record, proto.spec);
        Ok(())
    }
}

impl Survey {
    /// Whether no scanned record has a value of a feature.
    pub(crate) fn lacks(&self, key: &Key) -> bool {
        self.features.get(key).is_none_or(|stats| stats.present == 0)
    }

    /// The same, with features that these records lack described from `all` records. Their lists in these records still count as
    /// empty.
    pub(crate) fn told_by<'a>(&self, all: &Self, keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut told = self.clone();
        for key in keys.filter(|key| self.lacks(key)) {
            let Some(stats) = all.features.get(key) else { continue };
            let (fewest, most) = if self.records == 0 { (stats.fewest, stats.most) } else { (0, 0) };
            told.features.insert(key.clone(), Stats { fewest, most, ..stats.clone() });
        }
        if self.records == 0 {
            told.mixed.clone_from(&all.mixed);
        }
        told
    }

    /// Adds what was seen of other records.
    pub(crate) fn merge(&mut self, other: Self) {
        self.records += other.records;
        for (key, stats) in other.features {
            self.features.entry(key).or_default().merge(stats);
        }
    }

    /// Scans all features of an Example.
    pub(crate) fn see_example(&mut self, record: u64, payload: &[u8]) -> Result<(), ParseError> {
        self.records += 1;
        let mut found = BTreeMap::new();
        example::entries(payload, |place, key, value, base| {
            // If a key occurs several times, the last one counts.
            found.insert((place, key), (value, base));
        })?;
        for ((place, key), (value, base)) in found {
            let key = match place {
                Place::Context => Key::Context(key.to_vec()),
                Place::Lists => Key::List(key.to_vec()),
            };
            let is_compressed = self.compressed.contains(&key);
            let stats = self.features.entry(key).or_default();
            if place == Place::Context {
                let count = stats.see_values(record, value, base, is_compressed)?;
                stats.see_count(record, count);
                continue;
            }
            let mut count = 0;
            for step in example::steps(value, base) {
                let (feature, base) = step?;
                let values = stats.see_values(record, feature, base, is_compressed)?;
                Uniform::see(&mut stats.per_step, record, values);
                count += 1;
            }
            stats.see_count(record, count);
        }
        Ok(())
    }

    /// Scans a part of a record that is a value by itself.
    pub(crate) fn see_part(&mut self, record: u64, part: usize, payload: &[u8], declared: Option<&Declared>) -> Result<(), ParseError> {
        let stats = self.features.entry(Key::Part(part)).or_default();
        match declared.map(|declared| declared.encoding) {
            // A value that is declared a tensor must parse as one.
            Some(Encoding::Tensor) => stats.see_tensor(record, payload)?,
            Some(Encoding::Raw) => {}
            _ => stats.see_bytes(record, payload),
        }
        stats.see_count(record, 1);
        Ok(())
    }

    /// The range of list lengths of a feature, counting 0 for records without it.
    pub(crate) fn lengths(&self, stats: &Stats) -> RangeInclusive<u64> {
        let is_everywhere = stats.counts.is_some() && stats.present == self.records;
        if is_everywhere { stats.fewest..=stats.most } else { 0..=stats.most }
    }
}

/// Scans the records of a batch; the first selected record has number `start` in the source.
pub(crate) fn look_at_batch(
    set: &RecordSet,
    batch: &Batch,
    as_examples: bool,
    start: u64,
    survey: &mut Survey,
) -> crate::error::Result<()> {
    for record in 0..batch.len() {
        let number = start + batch.first + record as u64;
        let at = |part| move |error: ParseError| (part, error);
        let seen = if as_examples {
            survey.see_example(number, batch.part(record, 0)).map_err(at(0))
        } else {
            survey.records += 1;
            let parts: Vec<_> = set
                .features
                .iter()
                .filter(|feature| feature.unsupported.is_none())
                .filter_map(|feature| if let Key::Part(part) = feature.key { Some((part, feature)) } else { None })
                .collect();
            if parts.is_empty() {
                survey.see_part(number, 0, batch.part(record, 0), None).map_err(at(0))
            } else {
                parts.iter().try_for_each(|(part, feature)| {
                    survey.see_part(number, *part, batch.part(record, *part), feature.declared.as_ref()).map_err(at(*part))
                })
            }
        };
        seen.map_err(|(part, error)| batch.error(record, part, &error))?;
    }
    Ok(())
}

/// Whether records are Examples: all of them parse, and one has a feature. If only some parse, returns why they count as plain
/// bytes.
pub(crate) fn are_examples(batch: &Batch) -> Result<bool, String> {
    let is_example = |record: usize| -> Option<u64> {
        let mut features = 0;
        let parsed = example::entries(batch.part(record, 0), |_, _, value, base| {
            features += u64::from(example::FeatureValues::parse(value, base).is_ok());
        });
        parsed.ok().map(|()| features)
    };
    let mut features = 0;
    for record in 0..batch.len() {
        match is_example(record) {
            Some(own) => features += own,
            None if features == 0 => return Ok(false),
            None => {
                let place = batch.describe(record);
                return Err(format!("{place} is no Example, unlike those before it: records are read as plain bytes, not by features"));
            }
        }
    }
    Ok(features > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_workers_saw_adds_up_to_what_one_would_have_seen(values in prop::collection::vec(0u64..3, 1..40), owners in prop::collection::vec(0usize..4, 40)) {
            let mut one = None;
            let mut many: [Option<Uniform<u64>>; 4] = [None, None, None, None];
            for (record, &value) in values.iter().enumerate() {
                Uniform::see(&mut one, record as u64, value);
                Uniform::see(&mut many[owners[record]], record as u64, value);
            }
            let mut merged = None;
            for other in many.into_iter().rev() {
                Uniform::merge(&mut merged, other);
            }
            let (one, merged) = (one.unwrap(), merged.unwrap());
            prop_assert_eq!(one.odd.as_ref().map(|(record, _)| *record), values.iter().position(|value| *value != values[0]).map(|at| at as u64));
            prop_assert_eq!(one, merged);
        }
    }
}

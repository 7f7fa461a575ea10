//! Finds the requested features in a record.

use std::collections::HashMap;

use super::feature::Key;
use super::stream::batch::Batch;
use crate::error::{ParseError, Result};
use crate::format::example::{self, Place};

/// Finds the requested features in a record.
#[derive(Debug)]
pub(crate) struct Locator {
    keys: Vec<Key>,
    context: HashMap<Vec<u8>, Vec<usize>>,
    lists: HashMap<Vec<u8>, Vec<usize>>,
    /// The only key, which then needs no lookup.
    only: Option<(Place, Vec<u8>)>,
}

/// A byte range within a part of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: usize,
    len: usize,
}

impl Span {
    /// Marks a missing feature.
    pub(crate) const MISSING: Self = Self { start: 0, len: usize::MAX };
}

/// The stored bytes of a feature in a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FeatureBytes<'a> {
    Missing,
    /// A `Feature` message, and its offset in its part.
    Feature(&'a [u8], usize),
    /// A `FeatureList` message.
    List(&'a [u8], usize),
    /// A value by itself.
    Value(&'a [u8]),
}

impl Locator {
    pub(crate) fn new(keys: Vec<Key>) -> Self {
        let (mut context, mut lists): (HashMap<_, Vec<usize>>, HashMap<_, Vec<usize>>) = Default::default();
        for (index, key) in keys.iter().enumerate() {
            match key {
                Key::Context(name) => context.entry(name.clone()).or_default().push(index),
                Key::List(name) => lists.entry(name.clone()).or_default().push(index),
                Key::Part(_) => {}
            }
        }
        let only = match &keys[..] {
            [Key::Context(name)] => Some((Place::Context, name.clone())),
            [Key::List(name)] => Some((Place::Lists, name.clone())),
            _ => None,
        };
        Self { keys, context, lists, only }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Finds the features of record `record`: one span for each key.
    pub(crate) fn locate(&self, batch: &Batch, record: usize, spans: &mut [Span]) -> Result<()> {
        spans.fill(Span::MISSING);
        if let Some((wanted, name)) = &self.only {
            let found = example::entries(batch.part(record, 0), |place, key, value, start| {
                if place == *wanted && key == name {
                    spans[0] = Span { start, len: value.len() };
                }
            });
            return found.map_err(|error| batch.error(record, 0, &error));
        }
        if !self.context.is_empty() || !self.lists.is_empty() {
            let found = example::entries(batch.part(record, 0), |place, key, value, start| {
                let wanted = if place == Place::Context { &self.context } else { &self.lists };
                for &index in wanted.get(key).into_iter().flatten() {
                    spans[index] = Span { start, len: value.len() };
                }
            });
            found.map_err(|error| batch.error(record, 0, &error))?;
        }
        for (key, span) in self.keys.iter().zip(spans) {
            if let Key::Part(part) = key {
                *span = Span { start: 0, len: batch.part(record, *part).len() };
            }
        }
        Ok(())
    }

    /// The stored bytes of key `index` in a record.
    pub(crate) fn stored<'a>(&self, batch: &'a Batch, record: usize, index: usize, span: Span) -> FeatureBytes<'a> {
        if span.len == usize::MAX {
            return FeatureBytes::Missing;
        }
        let part = batch.part(record, self.part(index));
        let bytes = &part[span.start..span.start + span.len];
        match &self.keys[index] {
            Key::Context(_) => FeatureBytes::Feature(bytes, span.start),
            Key::List(_) => FeatureBytes::List(bytes, span.start),
            Key::Part(_) => FeatureBytes::Value(bytes),
        }
    }

    /// The part of a record that a key is in.
    pub(crate) fn part(&self, index: usize) -> usize {
        if let Key::Part(part) = self.keys[index] { part } else { 0 }
    }
}

impl FeatureBytes<'_> {
    /// The integers, if it is a list of integers.
    pub(crate) fn ints(&self) -> Result<Vec<i64>, ParseError> {
        let mut ints = Vec::new();
        if let Self::Feature(feature, base) = self
            && let Some(values) = example::FeatureValues::parse(feature, *base)?.filter(|values| values.kind() == example::Kind::Ints)
        {
            values.ints(|value| ints.push(value))?;
        }
        Ok(ints)
    }
}

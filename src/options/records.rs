//! Options for records.

use std::fmt;
use std::str::FromStr;

use super::used::{Choice, Unused, Used};
use crate::image::Jpeg;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// How to read bytes in a record when their content does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
#[non_exhaustive]
pub enum ReadAs {
    /// Byte strings: see [`Strings`](crate::Strings).
    String,
    /// JPEG or PNG files.
    Image,
    /// Serialized `TensorProto`s.
    Tensor,
}

impl FromStr for ReadAs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::String),
            "image" => Ok(Self::Image),
            "tensor" => Ok(Self::Tensor),
            _ => Err(format!("bytes cannot be read as {text:?}, only as string, image or tensor (or with `raw` DTYPE)")),
        }
    }
}

/// How to write lists whose length differs between records.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ragged {
    /// Pads rows to the length of the longest, with this value (default zero).
    Pad(Option<String>),
    /// Two arrays: all values in sequence, and the start of each record's, followed by the end of the last (`int64`, one more
    /// than records).
    Offsets,
}

impl fmt::Display for Ragged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pad(None) => f.write_str("pad"),
            Self::Pad(Some(value)) => write!(f, "pad:{value}"),
            Self::Offsets => f.write_str("offsets"),
        }
    }
}

impl FromStr for Ragged {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "pad" => Ok(Self::Pad(None)),
            None if text == "offsets" => Ok(Self::Offsets),
            Some(("pad", value)) => Ok(Self::Pad(Some(value.to_owned()))),
            _ => Err(format!("lists of different lengths cannot be written as {text:?}, expected pad, pad:VALUE or offsets")),
        }
    }
}

/// What to do with records that lack a feature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Missing {
    /// Fails and names the first such record.
    #[default]
    Refuse,
    /// Writes a row of this value.
    Fill(String),
    /// Writes no row: drops the record from all arrays of the same pass.
    Skip,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Fill(value) => write!(f, "fill:{value}"),
            Self::Skip => f.write_str("skip"),
        }
    }
}

impl FromStr for Missing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "skip" => Ok(Self::Skip),
            None if text == "refuse" => Ok(Self::Refuse),
            Some(("fill", value)) => Ok(Self::Fill(value.to_owned())),
            _ => Err(format!("{text:?} is not a rule for missing features, expected fill:VALUE or skip")),
        }
    }
}

/// Options for sources of records: `TFRecord` files, tf.data files, streams of frames, videos.
///
/// An option with a name applies to that feature only. The name is the listed one, with or without the split or the source in
/// front. Without a name the option applies to every compatible feature.
#[derive(Debug, Clone, Default)]
pub struct RecordOptions {
    pub(crate) shapes: Vec<For<Vec<i64>>>,
    pub(crate) raw: Vec<For<Raw>>,
    pub(crate) read_as: Vec<For<ReadAs>>,
    pub(crate) ragged: Vec<For<Ragged>>,
    pub(crate) missing: Vec<For<Missing>>,
    pub(crate) channels: Choice<u8>,
    pub(crate) jpeg: Choice<Jpeg>,
    pub(crate) flatten: Choice<bool>,
    pub(crate) salvage: Choice<bool>,
    pub(crate) offset: Choice<u64>,
    pub(crate) stream: Choice<usize>,
    skipped_with: Vec<String>,
    /// Whether a single feature is selected, so that options without a name apply to it.
    is_for_one: bool,
}

/// An option for one feature, or for all.
#[derive(Debug, Clone)]
pub(crate) struct For<T> {
    pub(crate) feature: Option<String>,
    pub(crate) value: T,
    pub(crate) used: Used,
}

/// The element type of raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) dtype: Dtype,
    /// Their byte order, if given.
    pub(crate) order: Option<ByteOrder>,
}

/// The names of a feature: its own, and the listed one, with its split and its source in front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Called<'a> {
    pub(crate) own: &'a str,
    pub(crate) title: &'a str,
}

impl<'a> Called<'a> {
    pub(crate) fn only(name: &'a str) -> Self {
        Self { own: name, title: name }
    }

    fn is(self, name: &str) -> bool {
        // Any number of leading parts may be omitted.
        let is_end = self.title.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('/'));
        is_end && name.len() >= self.own.len() || name == self.own
    }
}

/// The option for a feature: the last one with its name, else the last one for all.
fn chosen<'a, T>(choices: &'a [For<T>], called: Called<'_>) -> Option<&'a For<T>> {
    let own = choices.iter().rev().find(|choice| choice.feature.as_deref().is_some_and(|name| called.is(name)));
    own.or_else(|| choices.iter().rev().find(|choice| choice.feature.is_none()))
}

/// The same, and marks it as used.
fn used<'a, T>(choices: &'a [For<T>], called: Called<'_>) -> Option<&'a T> {
    chosen(choices, called).map(|choice| {
        choice.used.note();
        &choice.value
    })
}

fn with<T>(choices: &mut Vec<For<T>>, feature: Option<&str>, value: T) {
    choices.push(For { feature: feature.map(str::to_owned), value, used: Used::default() });
}

/// What is known about the lists of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// Their lengths differ or may differ.
    Differ,
    /// All have the same length.
    Alike,
    /// Their items become consecutive rows by default: steps of episodes.
    Joined,
}

impl RecordOptions {
    /// The defaults: shapes and encodings as found; ragged or missing values are errors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The shape of a record's row; one axis may be -1 and is as long as needed. Without a name it applies to a stream, to raw
    /// bytes if there are any, else to every feature.
    #[must_use]
    pub fn shape(mut self, feature: Option<&str>, shape: &[i64]) -> Self {
        with(&mut self.shapes, feature, shape.to_vec());
        self
    }

    /// Reads bytes as elements of `dtype`, in the byte order of outputs ([`Options::byte_order`](crate::Options::byte_order)).
    #[must_use]
    pub fn raw(mut self, feature: Option<&str>, dtype: Dtype) -> Self {
        with(&mut self.raw, feature, Raw { dtype, order: None });
        self
    }

    /// Reads bytes as elements of `dtype` in this byte order, independent of that of outputs.
    #[must_use]
    pub fn raw_in(mut self, feature: Option<&str>, dtype: Dtype, order: ByteOrder) -> Self {
        with(&mut self.raw, feature, Raw { dtype, order: Some(order) });
        self
    }

    /// Skips this many bytes, such as a header, before the raw frames of a file or a stream.
    #[must_use]
    pub fn offset(mut self, bytes: u64) -> Self {
        self.offset.set(bytes);
        self
    }

    /// How to read bytes, regardless of their content.
    #[must_use]
    pub fn read_as(mut self, feature: Option<&str>, read_as: ReadAs) -> Self {
        with(&mut self.read_as, feature, read_as);
        self
    }

    /// The channels of images and video frames: 1, 3 or 4, and 2 for PNG and videos. The default is the number in the file.
    #[must_use]
    pub fn channels(mut self, channels: u8) -> Self {
        self.channels.set(channels);
        self
    }

    /// Selects one video stream of a file with several, counted from 0.
    #[must_use]
    pub fn stream(mut self, stream: usize) -> Self {
        self.stream.set(stream);
        self
    }

    /// Selects the JPEG decoder.
    #[must_use]
    pub fn jpeg(mut self, jpeg: Jpeg) -> Self {
        self.jpeg.set(jpeg);
        self
    }

    /// How to write lists whose lengths differ; the default is an error. Without a name it applies to lists that are not all of
    /// one length.
    #[must_use]
    pub fn ragged(mut self, feature: Option<&str>, ragged: Ragged) -> Self {
        with(&mut self.ragged, feature, ragged);
        self
    }

    /// What to do with records that lack the feature.
    #[must_use]
    pub fn missing(mut self, feature: Option<&str>, missing: Missing) -> Self {
        with(&mut self.missing, feature, missing);
        self
    }

    /// Names other features converted in the same pass. [`Missing::Skip`] dropped records that lack any of them, and a comparison
    /// of one array has to account for that.
    #[must_use]
    pub fn skipped_with(mut self, features: impl IntoIterator<Item = String>) -> Self {
        self.skipped_with = features.into_iter().collect();
        self
    }

    /// Makes one row for every step or list item, instead of one for every record.
    #[must_use]
    pub fn flatten(mut self, flatten: bool) -> Self {
        self.flatten.set_if(flatten);
        self
    }

    /// Whether to convert the whole records before damage; the report says what was lost.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.salvage.set_if(salvage);
        self
    }

    /// These options combined with `other`, which takes precedence.
    pub(crate) fn overridden_by(mut self, other: &Self) -> Self {
        self.shapes.extend(other.shapes.iter().cloned());
        self.raw.extend(other.raw.iter().cloned());
        self.read_as.extend(other.read_as.iter().cloned());
        self.ragged.extend(other.ragged.iter().cloned());
        self.missing.extend(other.missing.iter().cloned());
        self.channels.override_with(&other.channels);
        self.jpeg.override_with(&other.jpeg);
        self.flatten.override_with(&other.flatten);
        self.salvage.override_with(&other.salvage);
        self.offset.override_with(&other.offset);
        self.stream.override_with(&other.stream);
        self
    }

    /// Whether a feature has a raw dtype, without marking the option as used.
    pub(crate) fn has_raw(&self, called: Called<'_>) -> bool {
        chosen(&self.raw, called).is_some()
    }

    /// The raw dtype of a feature, marked as used.
    pub(crate) fn raw_of(&self, called: Called<'_>) -> Option<Raw> {
        used(&self.raw, called).copied()
    }

    /// The option for ragged lists of a feature, not marked as used. Without a name it applies only to lists whose lengths
    /// differ, unless there is a single feature.
    pub(crate) fn ragged_of(&self, called: Called<'_>, lists: Lists) -> Option<&Ragged> {
        let is_meant = |choice: &&For<Ragged>| {
            choice.feature.is_some()
                || match lists {
                    Lists::Differ => true,
                    Lists::Alike => self.is_for_one,
                    Lists::Joined => false,
                }
        };
        chosen(&self.ragged, called).filter(is_meant).map(|choice| &choice.value)
    }

    /// The same options for one feature, or for several.
    pub(crate) fn for_one(&self, is_for_one: bool) -> Self {
        Self { is_for_one, ..self.clone() }
    }

    /// Whether `missing` names this feature.
    pub(crate) fn names_missing(&self, called: Called<'_>) -> bool {
        chosen(&self.missing, called).is_some_and(|choice| choice.feature.is_some())
    }

    /// Notes that a feature has lists. If each value is a row, their lengths do not matter; if their items are joined in any
    /// case, `ragged` has to name them.
    pub(crate) fn note_lists(&self, called: Called<'_>, lists: Lists) {
        if self.flatten.peek().is_none() && (lists != Lists::Joined || self.ragged_of(called, lists).is_some()) {
            used(&self.ragged, called);
        }
        self.flatten.note();
    }

    /// What to do with records that lack a feature, if specified.
    pub(crate) fn missing_of(&self, called: Called<'_>) -> Option<&Missing> {
        chosen(&self.missing, called).map(|choice| &choice.value)
    }

    /// Marks the option for a feature that records may lack as used.
    pub(crate) fn note_missing(&self, called: Called<'_>) {
        used(&self.missing, called);
    }

    /// Whether records may be dropped.
    pub(crate) fn skips(&self) -> bool {
        self.missing.iter().any(|choice| choice.value == Missing::Skip)
    }

    /// The other features for which records were dropped.
    pub(crate) fn others_skipped(&self) -> &[String] {
        &self.skipped_with
    }

    pub(crate) fn read_as_of(&self, called: Called<'_>) -> Option<ReadAs> {
        used(&self.read_as, called).copied()
    }

    /// The shape for a feature, which may have raw bytes; marked as used.
    pub(crate) fn shape_of(&self, called: Called<'_>, is_raw: bool) -> Option<&[i64]> {
        self.shape_choice(called, is_raw).map(|choice| {
            choice.used.note();
            &choice.value[..]
        })
    }

    /// Whether the shape for a feature starts with an open axis (-1).
    pub(crate) fn has_open_shape(&self, called: Called<'_>) -> bool {
        self.shape_choice(called, self.has_raw(called)).is_some_and(|choice| choice.value.first() == Some(&-1))
    }

    fn shape_choice(&self, called: Called<'_>, is_raw: bool) -> Option<&For<Vec<i64>>> {
        let is_for_raw = self.raw.iter().any(|choice| choice.feature.is_none());
        chosen(&self.shapes, called).filter(|choice| choice.feature.is_some() || is_raw || !is_for_raw)
    }

    /// The shape for a feature, and whether it names the feature. A shape for all features must satisfy `fits`.
    pub(crate) fn shape_if(&self, called: Called<'_>, fits: impl Fn(&[i64]) -> bool) -> Option<(&[i64], bool)> {
        let choice = chosen(&self.shapes, called)?;
        let is_own = choice.feature.is_some();
        let is_for_raw = self.raw.iter().any(|choice| choice.feature.is_none());
        let is_used = is_own || !is_for_raw && fits(&choice.value);
        is_used.then(|| {
            choice.used.note();
            (&choice.value[..], is_own)
        })
    }

    /// Options that were not used, as the program spells them, with what they apply to.
    pub(crate) fn unused(&self) -> Vec<Unused> {
        fn of<T>(flag: &str, choices: &[For<T>], needs: &'static str) -> Vec<Unused> {
            let unused = choices.iter().filter(|choice| !choice.used.is_noted());
            unused.map(|choice| Unused::new(flag, choice.feature.as_deref(), needs)).collect()
        }
        let mut unused = of("`shape`", &self.shapes, "lists of numbers, raw bytes or strings");
        unused.extend(of("`raw`", &self.raw, "bytes without another option for how to read them"));
        unused.extend(of("`read_as`", &self.read_as, "bytes without another option for how to read them"));
        unused.extend(of(
            "`ragged`",
            &self.ragged,
            "lists in records, without `flatten`; lists of steps, which become rows by default, must be named: NAME=HOW",
        ));
        unused.extend(of("`missing`", &self.missing, "features that records may lack; fill applies to those with one row per record"));
        unused.extend(self.channels.unused("`channels`", "images or videos"));
        unused.extend(self.jpeg.unused("`jpeg`", "JPEG images in records"));
        unused.extend(self.flatten.unused("`flatten`", "lists in records"));
        unused.extend(self.salvage.unused("`salvage`", "files that can be truncated: records, videos and .npy files"));
        unused.extend(self.offset.unused("`offset`", "raw frames (`raw`)"));
        unused.extend(self.stream.unused("`stream`", "videos"));
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_for_a_feature_wins_over_one_for_all() {
        let options = RecordOptions::new().shape(None, &[4]).shape(Some("b"), &[2, -1]).raw(None, Dtype::UInt8);
        assert_eq!(options.shape_of(Called::only("a"), true), Some(&[4][..]));
        assert_eq!(options.shape_of(Called::only("b"), false), Some(&[2, -1][..]));
        assert_eq!(options.shape_of(Called::only("a"), false), None, "the shape is for what is raw");
    }

    #[test]
    fn a_feature_is_called_by_as_much_of_its_name_as_tells_it_apart() {
        let called = Called { own: "steps/action", title: "a/train/steps/action" };
        for (name, expected) in [
            ("steps/action", true),
            ("train/steps/action", true),
            ("a/train/steps/action", true),
            ("action", false),
            ("rain/steps/action", false),
            ("b/train/steps/action", false),
        ] {
            assert_eq!(called.is(name), expected, "{name}");
        }
    }

    #[test]
    fn a_choice_that_nothing_asked_for_is_told() {
        let options = RecordOptions::new().shape(Some("a"), &[4]).ragged(None, Ragged::Offsets).flatten(false).salvage(true);
        let flags = |options: &RecordOptions| options.unused().into_iter().map(|unused| unused.flag).collect::<Vec<_>>();
        assert_eq!(flags(&options), ["`shape` a=…", "`ragged`", "`salvage`"]);
        options.clone().shape_of(Called::only("a"), false);
        options.note_lists(Called::only("b"), Lists::Alike);
        assert_eq!(flags(&options), ["`salvage`"], "clones share what was used");
    }

    #[test]
    fn ways_are_read() {
        assert_eq!("pad:-1".parse(), Ok(Ragged::Pad(Some("-1".into()))));
        assert_eq!("offsets".parse(), Ok(Ragged::Offsets));
        assert_eq!("fill:".parse(), Ok(Missing::Fill(String::new())));
        assert!("pads".parse::<Ragged>().is_err() && "fill".parse::<Missing>().is_err() && "raw".parse::<ReadAs>().is_err());
    }
}

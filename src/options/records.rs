//! The choices there are for records.

use std::fmt;
use std::str::FromStr;

use super::used::{Choice, Unused, Used};
use crate::image::Jpeg;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;

/// What bytes in a record are, where that is not to be told from their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAs {
    /// Byte strings: see [`Strings`](crate::Strings).
    String,
    /// JPEG or PNG files.
    Image,
    /// Serialized `TensorProto`s.
    Tensor,
}

impl fmt::Display for ReadAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::String => "string",
            Self::Image => "image",
            Self::Tensor => "tensor",
        })
    }
}

impl FromStr for ReadAs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::String),
            "image" => Ok(Self::Image),
            "tensor" => Ok(Self::Tensor),
            _ => Err(format!("there is no way {text:?} to read bytes, only string, image and tensor (and `raw` DTYPE)")),
        }
    }
}

/// What becomes of lists whose length differs from record to record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ragged {
    /// Rows as long as the longest, with this value behind shorter ones (zero without).
    Pad(Option<String>),
    /// Two arrays: all values one after the other, and where each record's start, with the end of the last (`int64`, one more
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
            _ => Err(format!("{text:?} is no way for lists of different lengths, expected pad, pad:VALUE or offsets")),
        }
    }
}

/// What becomes of records that lack a feature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Missing {
    /// An error that names the first one.
    #[default]
    Refuse,
    /// A row of this value.
    Fill(String),
    /// No row: the record is left out of all arrays that are made in the same pass.
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
            _ => Err(format!("{text:?} is no way for missing features, expected fill:VALUE or skip")),
        }
    }
}

/// Choices for sources of records: `TFRecord` files, tf.data files, streams of frames, videos.
///
/// Those that take a name hold for that feature only, by the name that it is listed by or without the split or the source in front;
/// without one they hold for every feature that they make sense for.
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
    /// Whether only one feature is wanted, so that choices for all are for it.
    is_for_one: bool,
}

/// A choice for one feature, or for all.
#[derive(Debug, Clone)]
pub(crate) struct For<T> {
    pub(crate) feature: Option<String>,
    pub(crate) value: T,
    pub(crate) used: Used,
}

/// What raw bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) dtype: Dtype,
    /// The order of their bytes, if it is said.
    pub(crate) order: Option<ByteOrder>,
}

/// The names of a feature: its own, and the one that it is listed by, with its split and its source in front.
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
        // As much as there is in front may be left out.
        let is_end = self.title.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('/'));
        is_end && name.len() >= self.own.len() || name == self.own
    }
}

/// The choice for a feature: the last of its own, else the last one for all.
fn chosen<'a, T>(choices: &'a [For<T>], called: Called<'_>) -> Option<&'a For<T>> {
    let own = choices.iter().rev().find(|choice| choice.feature.as_deref().is_some_and(|name| called.is(name)));
    own.or_else(|| choices.iter().rev().find(|choice| choice.feature.is_none()))
}

/// The same, which is made use of.
fn used<'a, T>(choices: &'a [For<T>], called: Called<'_>) -> Option<&'a T> {
    chosen(choices, called).map(|choice| {
        choice.used.note();
        &choice.value
    })
}

fn with<T>(choices: &mut Vec<For<T>>, feature: Option<&str>, value: T) {
    choices.push(For { feature: feature.map(str::to_owned), value, used: Used::default() });
}

/// The lists of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// They are, or may be, of different lengths.
    Differ,
    /// All are of one length.
    Alike,
    /// Their items are rows one behind the other, as nobody says otherwise: steps of episodes.
    Joined,
}

impl RecordOptions {
    /// The defaults: shapes and encodings as found, anything ragged or missing an error.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The shape of a record's row; one axis may be -1, and is as long as needed. Without a name it is that of a stream, of raw
    /// bytes if there are any, else of every feature.
    #[must_use]
    pub fn shape(mut self, feature: Option<&str>, shape: &[i64]) -> Self {
        with(&mut self.shapes, feature, shape.to_vec());
        self
    }

    /// Bytes are elements of `dtype`, in the byte order that outputs are to have ([`Options::byte_order`](crate::Options::byte_order)).
    #[must_use]
    pub fn raw(mut self, feature: Option<&str>, dtype: Dtype) -> Self {
        with(&mut self.raw, feature, Raw { dtype, order: None });
        self
    }

    /// Bytes are elements of `dtype` in this byte order, whatever that of outputs is.
    #[must_use]
    pub fn raw_in(mut self, feature: Option<&str>, dtype: Dtype, order: ByteOrder) -> Self {
        with(&mut self.raw, feature, Raw { dtype, order: Some(order) });
        self
    }

    /// Raw frames start so many bytes into a file or a stream: behind a header.
    #[must_use]
    pub fn offset(mut self, bytes: u64) -> Self {
        self.offset.set(bytes);
        self
    }

    /// What bytes are, whatever they look like.
    #[must_use]
    pub fn read_as(mut self, feature: Option<&str>, read_as: ReadAs) -> Self {
        with(&mut self.read_as, feature, read_as);
        self
    }

    /// The channels of images and of frames of videos: 1, 3 or 4, and 2 of PNG and videos; those of the file without.
    #[must_use]
    pub fn channels(mut self, channels: u8) -> Self {
        self.channels.set(channels);
        self
    }

    /// Only this video stream of a file with several, counted from 0.
    #[must_use]
    pub fn stream(mut self, stream: usize) -> Self {
        self.stream.set(stream);
        self
    }

    /// Which JPEG decoder is used.
    #[must_use]
    pub fn jpeg(mut self, jpeg: Jpeg) -> Self {
        self.jpeg.set(jpeg);
        self
    }

    /// What becomes of lists whose lengths may differ; without, a difference is an error. Without a name it is for lists that are not
    /// all of one length.
    #[must_use]
    pub fn ragged(mut self, feature: Option<&str>, ragged: Ragged) -> Self {
        with(&mut self.ragged, feature, ragged);
        self
    }

    /// What becomes of records without the feature.
    #[must_use]
    pub fn missing(mut self, feature: Option<&str>, missing: Missing) -> Self {
        with(&mut self.missing, feature, missing);
        self
    }

    /// Other features that were converted in the same pass: [`Missing::Skip`] left out records without any of them, which a comparison
    /// of one array has to know.
    #[must_use]
    pub fn skipped_with(mut self, features: impl IntoIterator<Item = String>) -> Self {
        self.skipped_with = features.into_iter().collect();
        self
    }

    /// One row for every step or value of a list, instead of one for every record.
    #[must_use]
    pub fn flatten(mut self, flatten: bool) -> Self {
        self.flatten.set_if(flatten);
        self
    }

    /// Whether whole records before a damage are converted; the report says what was lost.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.salvage.set_if(salvage);
        self
    }

    /// The same choices, and those of `other`, which win.
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

    /// What raw bytes of a feature are, where that is asked without making anything of it.
    pub(crate) fn has_raw(&self, called: Called<'_>) -> bool {
        chosen(&self.raw, called).is_some()
    }

    /// What raw bytes of a feature are, which are read as that.
    pub(crate) fn raw_of(&self, called: Called<'_>) -> Option<Raw> {
        used(&self.raw, called).copied()
    }

    /// What becomes of lists of a feature, whatever that is. Choices for all features are for those whose lists differ, unless there is
    /// only one feature.
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

    /// The same choices for one feature, or for several.
    pub(crate) fn for_one(&self, is_for_one: bool) -> Self {
        Self { is_for_one, ..self.clone() }
    }

    /// Whether `--missing` names a feature.
    pub(crate) fn names_missing(&self, called: Called<'_>) -> bool {
        chosen(&self.missing, called).is_some_and(|choice| choice.feature.is_some())
    }

    /// Notes that a feature has lists. Where each value is a row, it is nothing to them that they differ; where their items are put
    /// together in any case, `--ragged` has to name them.
    pub(crate) fn note_lists(&self, called: Called<'_>, lists: Lists) {
        if self.flatten.peek().is_none() && (lists != Lists::Joined || self.ragged_of(called, lists).is_some()) {
            used(&self.ragged, called);
        }
        self.flatten.note();
    }

    /// What becomes of records without a feature, where that is said.
    pub(crate) fn missing_of(&self, called: Called<'_>) -> Option<&Missing> {
        chosen(&self.missing, called).map(|choice| &choice.value)
    }

    /// Notes that records may lack a feature, and something becomes of them.
    pub(crate) fn note_missing(&self, called: Called<'_>) {
        used(&self.missing, called);
    }

    /// Whether records may be left out.
    pub(crate) fn skips(&self) -> bool {
        self.missing.iter().any(|choice| choice.value == Missing::Skip)
    }

    /// The other features that records were left out for.
    pub(crate) fn others_skipped(&self) -> &[String] {
        &self.skipped_with
    }

    pub(crate) fn read_as_of(&self, called: Called<'_>) -> Option<ReadAs> {
        used(&self.read_as, called).copied()
    }

    /// The shape for a feature, which has raw bytes or not.
    pub(crate) fn shape_of(&self, called: Called<'_>, is_raw: bool) -> Option<&[i64]> {
        self.shape_choice(called, is_raw).map(|choice| {
            choice.used.note();
            &choice.value[..]
        })
    }

    /// Whether the shape for a feature has an axis at its front that is as long as needed.
    pub(crate) fn has_open_shape(&self, called: Called<'_>) -> bool {
        self.shape_choice(called, self.has_raw(called)).is_some_and(|choice| choice.value.first() == Some(&-1))
    }

    fn shape_choice(&self, called: Called<'_>, is_raw: bool) -> Option<&For<Vec<i64>>> {
        let is_for_raw = self.raw.iter().any(|choice| choice.feature.is_none());
        chosen(&self.shapes, called).filter(|choice| choice.feature.is_some() || is_raw || !is_for_raw)
    }

    /// The shape for a feature, and whether it is its own; one for all features where it `fits`.
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

    /// The choices that nothing has made use of, as the program spells them, each with what it is for.
    pub(crate) fn unused(&self) -> Vec<Unused> {
        fn of<T>(flag: &str, choices: &[For<T>], needs: &'static str) -> Vec<Unused> {
            let unused = choices.iter().filter(|choice| !choice.used.is_noted());
            unused.map(|choice| Unused::new(flag, choice.feature.as_deref(), needs)).collect()
        }
        let mut unused = of("`shape`", &self.shapes, "lists of numbers, raw bytes or strings");
        unused.extend(of("`raw`", &self.raw, "bytes that are not said to be something else"));
        unused.extend(of("`read_as`", &self.read_as, "bytes that are not said to be something else"));
        unused.extend(of(
            "`ragged`",
            &self.ragged,
            "lists in records, without `flatten`; where their items are rows in any case (steps), NAME=HOW names one",
        ));
        unused.extend(of("`missing`", &self.missing, "features that records may lack, and fill for those with a row a record"));
        unused.extend(self.channels.unused("`channels`", "images or videos"));
        unused.extend(self.jpeg.unused("`jpeg`", "JPEG images in records"));
        unused.extend(self.flatten.unused("`flatten`", "lists in records"));
        unused.extend(self.salvage.unused("`salvage`", "files that can be cut short: records, videos and .npy files"));
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

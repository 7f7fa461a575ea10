//! The choices there are for records.

use std::str::FromStr;

use crate::decode::image::Jpeg;
use crate::dtype::Dtype;

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

impl FromStr for ReadAs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::String),
            "image" => Ok(Self::Image),
            "tensor" => Ok(Self::Tensor),
            _ => Err(format!("there is no way {text:?} to read bytes, only string, image and tensor (and --raw DTYPE)")),
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

impl FromStr for Missing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "skip" => Ok(Self::Skip),
            Some(("fill", value)) => Ok(Self::Fill(value.to_owned())),
            _ => Err(format!("{text:?} is no way for missing features, expected fill:VALUE or skip")),
        }
    }
}

/// Choices for sources of records: `TFRecord` files, tf.data files, streams of frames.
///
/// Those that take a name hold for that feature only; without one they hold for every feature that they make sense for.
#[derive(Debug, Clone, Default)]
pub struct RecordOptions {
    shapes: Vec<(Option<String>, Vec<i64>)>,
    raw: Vec<(Option<String>, Dtype)>,
    read_as: Vec<(Option<String>, ReadAs)>,
    pub(crate) channels: Option<u8>,
    pub(crate) jpeg: Jpeg,
    ragged: Vec<(Option<String>, Ragged)>,
    missing: Vec<(Option<String>, Missing)>,
    pub(crate) skipped_with: Vec<String>,
    pub(crate) flatten: bool,
    pub(crate) salvage: bool,
}

/// The choice for `name`: the last of its own, else the last one for all.
fn chosen<'a, T>(choices: &'a [(Option<String>, T)], name: &str) -> Option<&'a T> {
    let last = |wanted: Option<&str>| choices.iter().rev().find(|(name, _)| name.as_deref() == wanted).map(|(_, value)| value);
    last(Some(name)).or_else(|| last(None))
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
        self.shapes.push((feature.map(str::to_owned), shape.to_vec()));
        self
    }

    /// Bytes are little-endian elements of `dtype`.
    #[must_use]
    pub fn raw(mut self, feature: Option<&str>, dtype: Dtype) -> Self {
        self.raw.push((feature.map(str::to_owned), dtype));
        self
    }

    /// What bytes are, whatever they look like.
    #[must_use]
    pub fn read_as(mut self, feature: Option<&str>, read_as: ReadAs) -> Self {
        self.read_as.push((feature.map(str::to_owned), read_as));
        self
    }

    /// The channels of images: 1, 3 or 4, and 2 of PNG; those of the file without.
    #[must_use]
    pub fn channels(mut self, channels: u8) -> Self {
        self.channels = Some(channels);
        self
    }

    /// Which JPEG decoder is used.
    #[must_use]
    pub fn jpeg(mut self, jpeg: Jpeg) -> Self {
        self.jpeg = jpeg;
        self
    }

    /// What becomes of lists, whose lengths may differ; without, a difference is an error.
    #[must_use]
    pub fn ragged(mut self, feature: Option<&str>, ragged: Ragged) -> Self {
        self.ragged.push((feature.map(str::to_owned), ragged));
        self
    }

    /// What becomes of records without the feature.
    #[must_use]
    pub fn missing(mut self, feature: Option<&str>, missing: Missing) -> Self {
        self.missing.push((feature.map(str::to_owned), missing));
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
        self.flatten = flatten;
        self
    }

    /// Whether whole records before a damage are converted; the report says what was lost.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }

    /// The dtype of raw bytes of a feature.
    pub(crate) fn raw_of(&self, name: &str) -> Option<Dtype> {
        chosen(&self.raw, name).copied()
    }

    /// What becomes of lists of a feature.
    pub(crate) fn ragged_of(&self, name: &str) -> Option<&Ragged> {
        chosen(&self.ragged, name)
    }

    /// What becomes of records without a feature.
    pub(crate) fn missing_of(&self, name: &str) -> &Missing {
        chosen(&self.missing, name).unwrap_or(&Missing::Refuse)
    }

    /// Whether records may be left out.
    pub(crate) fn skips(&self) -> bool {
        self.missing.iter().any(|(_, missing)| *missing == Missing::Skip)
    }

    pub(crate) fn read_as_of(&self, name: &str) -> Option<ReadAs> {
        chosen(&self.read_as, name).copied()
    }

    /// The shape for a feature, which has raw bytes or not.
    pub(crate) fn shape_of(&self, name: &str, is_raw: bool) -> Option<&[i64]> {
        let is_for_raw = self.raw.iter().any(|(name, _)| name.is_none());
        let own = self.shapes.iter().rev().find(|(feature, _)| feature.as_deref() == Some(name));
        let general = || self.shapes.iter().rev().find(|(feature, _)| feature.is_none() && (is_raw || !is_for_raw));
        own.or_else(general).map(|(_, shape)| &shape[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_for_a_feature_wins_over_one_for_all() {
        let options = RecordOptions::new().shape(None, &[4]).shape(Some("b"), &[2, -1]).raw(None, Dtype::UInt8);
        assert_eq!(options.shape_of("a", true), Some(&[4][..]));
        assert_eq!(options.shape_of("b", false), Some(&[2, -1][..]));
        assert_eq!(options.shape_of("a", false), None, "the shape is for what is raw");
    }

    #[test]
    fn ways_are_read() {
        assert_eq!("pad:-1".parse(), Ok(Ragged::Pad(Some("-1".into()))));
        assert_eq!("offsets".parse(), Ok(Ragged::Offsets));
        assert_eq!("fill:".parse(), Ok(Missing::Fill(String::new())));
        assert!("pads".parse::<Ragged>().is_err() && "fill".parse::<Missing>().is_err() && "raw".parse::<ReadAs>().is_err());
    }
}

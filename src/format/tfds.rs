//! Parsers for `features.json` and `dataset_info.json` of TensorFlow Datasets: what the records of a folder contain, and in which
//! files they are.
//!
//! Source: `tensorflow_datasets/core/proto/feature.proto` and `dataset_info.proto`, and for the older forms `FeatureConnector.from_json`
//! in `core/features/feature.py`.

use serde_json::{Map, Value};

use crate::types::dtype::Dtype;

/// Nesting limit for features.
const MAX_DEPTH: usize = 64;

/// How the values of a leaf are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafEncoding {
    /// As a list of numbers.
    Values,
    /// As little-endian elements in bytes.
    Bytes,
    /// As little-endian elements in zlib-compressed bytes.
    Zlib,
    /// As image files.
    Image,
    /// As byte strings.
    Text,
}

/// A list around a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Number of items, if known.
    pub(crate) length: Option<u64>,
    /// Whether this is a dataset of steps.
    pub(crate) is_steps: bool,
}

/// A feature that holds values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Names from the root, joined by `/`.
    pub(crate) path: String,
    pub(crate) dtype: Dtype,
    /// The shape, with `None` for unknown lengths.
    pub(crate) shape: Vec<Option<u64>>,
    pub(crate) storage: LeafEncoding,
    /// The lists that contain it, outermost first.
    pub(crate) levels: Vec<Level>,
}

/// The features of a folder.
#[derive(Debug, Default)]
pub(crate) struct Features {
    pub(crate) leaves: Vec<Leaf>,
    /// The paths of datasets of steps, each with a leaf that has one value per step, if there is one.
    pub(crate) steps: Vec<(String, Option<usize>)>,
    /// The paths and kinds of unsupported features.
    pub(crate) unknown: Vec<(String, String)>,
}

impl Features {
    /// Reads a `features.json`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let root: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let mut features = Self::default();
        features.node(&root, "", &[], 0)?;
        features.leaves.sort_by(|a, b| a.path.cmp(&b.path));
        for (steps, leaf) in &mut features.steps {
            let prefix = format!("{steps}/");
            let counts = |leaf: &Leaf| {
                leaf.path.starts_with(&prefix)
                    && leaf.levels.len() == 1
                    && (!leaf.shape.contains(&None) || leaf.storage != LeafEncoding::Values)
            };
            *leaf = features.leaves.iter().position(counts);
        }
        Ok(features)
    }

    fn node(&mut self, node: &Value, path: &str, levels: &[Level], depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("features nest deeper than {MAX_DEPTH}"));
        }
        let depth = depth + 1;
        let text = |key: &str| node.get(key).and_then(Value::as_str);
        // An older form wraps this one, as an object or as text.
        if text("proto_cls").is_some() {
            let inner = match node.get("content") {
                Some(Value::String(text)) => &serde_json::from_str(text).map_err(|error| error.to_string())?,
                Some(inner) => inner,
                None => return Err(format!("{path:?} has no content")),
            };
            // It is either the message of its own kind, or one that names its kind.
            return match inner.get("features").and_then(Value::as_object) {
                Some(children) => self.children(children, path, levels, depth),
                None => self.kind(inner, "", path, levels, depth),
            };
        }
        match (text("type"), node.get("content")) {
            // In the oldest form the class names the kind.
            (Some(class), Some(content)) => self.content(last_word(class), content, path, levels, depth),
            _ => self.kind(node, text("pythonClassName").map_or("", last_word), path, levels, depth),
        }
    }

    fn children(&mut self, children: &Map<String, Value>, path: &str, levels: &[Level], depth: usize) -> Result<(), String> {
        children.iter().try_for_each(|(name, child)| self.node(child, &below(path, name), levels, depth))
    }

    /// Reads a node whose key names its kind.
    fn kind(&mut self, node: &Value, class: &str, path: &str, levels: &[Level], depth: usize) -> Result<(), String> {
        const KINDS: [(&str, &str); 9] = [
            ("tensor", "Tensor"),
            ("audio", "Audio"),
            ("image", "Image"),
            ("video", "Video"),
            ("text", "Text"),
            ("classLabel", "ClassLabel"),
            ("boundingBox", "BBoxFeature"),
            ("translation", "Translation"),
            ("sequence", "Sequence"),
        ];
        if let Some(dict) = node.get("featuresDict") {
            return match dict.get("features").and_then(Value::as_object) {
                Some(children) => self.children(children, path, levels, depth),
                None => Ok(()),
            };
        }
        let found = KINDS.iter().find_map(|(key, kind)| Some((*kind, node.get(key).filter(|content| content.is_object())?)));
        match found {
            Some(("Sequence", content)) if class == "Dataset" => self.content("Dataset", content, path, levels, depth),
            Some((kind, content)) => self.content(kind, content, path, levels, depth),
            None => {
                let what = if class.is_empty() { "a feature of unknown kind".to_owned() } else { format!("a {class}") };
                self.unknown.push((path.to_owned(), what));
                Ok(())
            }
        }
    }

    /// Reads the content of a node of a class. Only the oldest form has names with `_` and plain lists of axes.
    fn content(&mut self, class: &str, content: &Value, path: &str, levels: &[Level], depth: usize) -> Result<(), String> {
        let word = |key: &str| content.get(key).and_then(Value::as_str);
        let axes = content.get("shape").map(|axes| axes.get("dimensions").unwrap_or(axes)).map(shape).unwrap_or_default();
        match class {
            "FeaturesDict" => return content.as_object().map_or(Ok(()), |children| self.children(children, path, levels, depth)),
            "Sequence" | "Dataset" => {
                let is_steps = class == "Dataset";
                let length = length(content.get("length").unwrap_or(&Value::Null)).filter(|_| !is_steps);
                let inner = content.get("feature").ok_or_else(|| format!("the sequence {path:?} has no feature"))?;
                return self.list(inner, Level { length, is_steps }, path, levels, depth);
            }
            "Tensor" | "Scalar" => self.tensor(path, word("dtype").unwrap_or(""), axes, word("encoding"), levels),
            "Audio" => self.tensor(path, word("dtype").unwrap_or("int64"), axes, word("encoding"), levels),
            "Image" | "LabeledImage" => self.image(path, word("dtype"), axes, false, levels),
            "Video" => self.image(path, word("dtype"), axes, true, levels),
            "Text" => self.tensor(path, "string", Vec::new(), None, levels),
            "ClassLabel" => self.tensor(path, "int64", Vec::new(), None, levels),
            "BBoxFeature" => self.tensor(path, "float32", vec![Some(4)], None, levels),
            "Translation" | "TranslationVariableLanguages" => {
                let varies = class != "Translation" || content.get("variableLanguagesPerExample").and_then(Value::as_bool) == Some(true);
                self.translation(content.get("languages"), varies, path, levels);
            }
            other => self.unknown.push((path.to_owned(), format!("a {other}"))),
        }
        Ok(())
    }

    fn list(&mut self, inner: &Value, level: Level, path: &str, levels: &[Level], depth: usize) -> Result<(), String> {
        if level.is_steps && levels.is_empty() {
            self.steps.push((path.to_owned(), None));
        }
        self.node(inner, path, &[levels, &[level]].concat(), depth)
    }

    fn translation(&mut self, languages: Option<&Value>, varies: bool, path: &str, levels: &[Level]) {
        if varies {
            let levels = [levels, &[Level { length: None, is_steps: false }]].concat();
            for name in ["language", "translation"] {
                self.tensor(&below(path, name), "string", Vec::new(), None, &levels);
            }
            return;
        }
        for name in languages.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.tensor(&below(path, name), "string", Vec::new(), None, levels);
        }
    }

    fn tensor(&mut self, path: &str, dtype: &str, shape: Vec<Option<u64>>, encoding: Option<&str>, levels: &[Level]) {
        let Some(dtype) = Dtype::from_name(dtype) else {
            return self.unknown.push((path.to_owned(), format!("a tensor of {dtype:?}")));
        };
        let storage = match encoding.unwrap_or_default().to_ascii_lowercase().as_str() {
            _ if dtype == Dtype::String => LeafEncoding::Text,
            "bytes" => LeafEncoding::Bytes,
            "zlib" => LeafEncoding::Zlib,
            _ => LeafEncoding::Values,
        };
        self.leaves.push(Leaf { path: path.to_owned(), dtype, shape, storage, levels: levels.to_vec() });
    }

    fn image(&mut self, path: &str, dtype: Option<&str>, mut shape: Vec<Option<u64>>, is_video: bool, levels: &[Level]) {
        let dtype = dtype.and_then(Dtype::from_name).unwrap_or(Dtype::UInt8);
        let mut levels = levels.to_vec();
        if is_video {
            levels.push(Level { length: if shape.is_empty() { None } else { shape.remove(0) }, is_steps: false });
        }
        if shape.is_empty() {
            shape = vec![None; 3];
        }
        self.leaves.push(Leaf { path: path.to_owned(), dtype, shape, storage: LeafEncoding::Image, levels });
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The class name at the end of a Python module path.
fn last_word(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

/// A length as a number or text; `None` for missing, null, 0 and negative ones.
fn length(value: &Value) -> Option<u64> {
    let number = match value {
        Value::String(text) => text.parse::<i64>().ok(),
        value => value.as_i64(),
    };
    number.and_then(|number| u64::try_from(number).ok()).filter(|&length| length > 0)
}

/// The lengths of axes; 0 is valid here.
fn shape(value: &Value) -> Vec<Option<u64>> {
    let axis = |axis: &Value| match axis {
        Value::String(text) => text.parse::<u64>().ok(),
        axis => axis.as_u64(),
    };
    value.as_array().map(|axes| axes.iter().map(axis).collect()).unwrap_or_default()
}

/// A split of a dataset, and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) name: String,
    /// The path of each file relative to the folder, and its number of records.
    pub(crate) files: Vec<(String, Option<u64>)>,
}

/// Reads a `dataset_info.json`: the file format, and the splits.
pub(crate) fn splits(text: &[u8]) -> Result<(String, Vec<Split>), String> {
    const TEMPLATE: &str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}";
    let info: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let word = |value: &Value, keys: &[&str]| keys.iter().find_map(|key| value.get(key)).and_then(Value::as_str).map(str::to_owned);
    let format = word(&info, &["fileFormat", "file_format"]).unwrap_or_else(|| "tfrecord".into()).to_ascii_lowercase();
    let dataset = word(&info, &["name"]).unwrap_or_default();
    let mut found = Vec::new();
    for split in info.get("splits").and_then(Value::as_array).into_iter().flatten() {
        let name = word(split, &["name"]).ok_or("a split has no name")?;
        let lengths = ["shardLengths", "shard_lengths"].iter().find_map(|key| split.get(key)).and_then(Value::as_array);
        let lengths: Vec<Option<u64>> = if let Some(lengths) = lengths {
            shape(&Value::Array(lengths.clone())).into_iter().map(|length| Some(length.unwrap_or(0))).collect()
        } else {
            let count = ["numShards", "num_shards"].iter().find_map(|key| split.get(key)).and_then(length).unwrap_or(0);
            vec![None; usize::try_from(count).unwrap_or(0).min(MOST_SHARDS)]
        };
        let template = word(split, &["filepathTemplate", "filepath_template"])
            .filter(|template| !template.is_empty())
            .unwrap_or_else(|| TEMPLATE.into());
        let count = lengths.len();
        let file = |(index, length): (usize, Option<u64>)| {
            let path = template
                .replace("{DATASET}", &dataset)
                .replace("{SPLIT}", &name)
                .replace("{FILEFORMAT}", &format)
                .replace("{SHARD_X_OF_Y}", &format!("{index:05}-of-{count:05}"))
                .replace("{SHARD_INDEX}", &format!("{index:05}"))
                .replace("{NUM_SHARDS}", &format!("{count:05}"));
            (path, length)
        };
        let files: Vec<_> = lengths.into_iter().enumerate().map(file).collect();
        if let Some((path, _)) = files.iter().find(|(path, _)| path.starts_with('/') || path.split('/').any(|part| part == "..")) {
            return Err(format!("the split {name:?} has a file {path:?} outside of the folder"));
        }
        found.push(Split { name, files });
    }
    Ok((format, found))
}

const MOST_SHARDS: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_all_three_ages_are_the_same() {
        let new = r#"{"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {
            "steps": {"pythonClassName": "x.Dataset", "sequence": {"length": "-1", "feature": {"featuresDict": {"features": {
                "action": {"pythonClassName": "x.Tensor", "tensor": {"dtype": "float32", "encoding": "zlib", "shape": {"dimensions": ["7"]}}},
                "is_last": {"tensor": {"dtype": "bool", "shape": {}}}}}}}},
            "clip": {"video": {"dtype": "uint8", "shape": {"dimensions": ["-1", "4", "6", "3"]}}}}}}"#;
        let oldest = r#"{"type": "a.FeaturesDict", "content": {
            "steps": {"type": "b.Dataset", "content": {"length": null, "feature": {"type": "a.FeaturesDict", "content": {
                "action": {"type": "c.Tensor", "content": {"dtype": "float32", "encoding": "zlib", "shape": [7]}},
                "is_last": {"type": "c.Tensor", "content": {"dtype": "bool", "shape": []}}}}}},
            "clip": {"type": "d.Video", "content": {"dtype": "uint8", "shape": [null, 4, 6, 3]}}}}"#;
        let dict = serde_json::from_str::<Value>(new).unwrap()["featuresDict"].to_string();
        let middle = format!(r#"{{"type": "x", "proto_cls": "y", "content": {}}}"#, serde_json::to_string(&dict).unwrap());
        let new = Features::parse(new.as_bytes()).unwrap();
        for other in [oldest, &middle] {
            let other = Features::parse(other.as_bytes()).unwrap();
            assert_eq!((&other.leaves, &other.steps), (&new.leaves, &new.steps));
        }
        let paths: Vec<_> = new.leaves.iter().map(|leaf| leaf.path.as_str()).collect();
        assert_eq!(paths, ["clip", "steps/action", "steps/is_last"]);
        assert_eq!(new.leaves[0].levels, [Level { length: None, is_steps: false }]);
        assert_eq!(new.leaves[1].storage, LeafEncoding::Zlib);
        assert_eq!(new.steps, [("steps".to_owned(), Some(1))]);
    }

    #[test]
    fn files_are_named_by_their_template() {
        let info = br#"{"name": "ds", "splits": [{"name": "train", "shardLengths": ["3", "2"]},
            {"name": "test", "shardLengths": ["1"], "filepathTemplate": "{SPLIT}/{DATASET}.{FILEFORMAT}-{SHARD_INDEX}"}]}"#;
        let (format, splits) = splits(info).unwrap();
        assert_eq!(format, "tfrecord");
        assert_eq!(splits[0].files[1], ("ds-train.tfrecord-00001-of-00002".to_owned(), Some(2)));
        assert_eq!(splits[1].files, [("test/ds.tfrecord-00000".to_owned(), Some(1))]);
        assert!(super::splits(br#"{"splits": [{"name": "x", "shardLengths": [1], "filepathTemplate": "../{SPLIT}"}]}"#).is_err());
    }
}

//! Facts that formats report about sources and tensors beyond names, dtypes and shapes.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Named facts, such as the shards of a checkpoint or the offsets of pieces. Each format has its own.
///
/// They serialize as an object; [`to_json`](Self::to_json) gives the same as text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts(Map<String, Value>);

impl Facts {
    pub(crate) fn new(facts: Map<String, Value>) -> Self {
        Self(facts)
    }

    /// Whether there are no facts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the facts, in the format's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// One fact as JSON, with quotes around text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(Value::to_string)
    }

    /// All facts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

//! Friendlier names for the tensors of an object-based checkpoint.
//!
//! TensorFlow stores an object that several paths lead to once, under the path that a breadth-first walk meets first. Its key may
//! thus differ from the name a person knows. A tensor is found by, in this order: its key without the suffix, any path through
//! the object graph, the variable's own name if it is unique. The first of these needs no graph.

use std::collections::{HashMap, HashSet};

use crate::format::object_graph::ObjectGraph;

/// Separates the path of an object from the name of its attribute.
const ATTRIBUTES: &[u8] = b"/.ATTRIBUTES/";
const VALUE: &[u8] = b"VARIABLE_VALUE";

/// Names other than keys, for display and lookup.
#[derive(Debug)]
pub(crate) struct Aliases {
    graph: ObjectGraph,
    /// Variables' own names, if unique, with their keys.
    full_names: HashMap<Vec<u8>, Vec<u8>>,
    /// Keys with their variables' own names.
    by_key: HashMap<Vec<u8>, Vec<u8>>,
}

impl Aliases {
    pub(crate) fn new(graph: ObjectGraph) -> Self {
        let mut names: HashMap<&[u8], Option<&[u8]>> = HashMap::new();
        for attribute in graph.nodes.iter().flat_map(|node| &node.attributes) {
            if !attribute.full_name.is_empty() {
                names
                    .entry(&attribute.full_name)
                    .and_modify(|key| *key = key.filter(|key| *key == attribute.key))
                    .or_insert(Some(&attribute.key));
            }
        }
        let unique = || names.iter().filter_map(|(name, key)| Some((name.to_vec(), key.as_ref()?.to_vec())));
        let full_names: HashMap<_, _> = unique().collect();
        let by_key = unique().map(|(name, key)| (key, name)).collect();
        Self { graph, full_names, by_key }
    }

    /// Approximate heap bytes.
    pub(crate) fn heap_bytes(&self) -> u64 {
        // Both maps repeat names and keys.
        3 * self.graph.heap_bytes
    }

    /// The name to show beside `key`: the path of its object, or the variable's own name if the path contains a private part (a
    /// name with a leading underscore).
    pub(crate) fn of_key(&self, key: &[u8]) -> Option<String> {
        let path = strip_suffix(key)?;
        let private = path.split(|&b| b == b'/').any(|part| part.starts_with(b"_"));
        let own = self.by_key.get(key).filter(|name| private && name.contains(&b'/'));
        let alias = match own {
            Some(name) => name.clone(),
            None => unescape(path),
        };
        String::from_utf8(alias).ok()
    }

    /// The keys that `alias` may stand for, in the order to try them.
    pub(crate) fn candidates(&self, alias: &[u8]) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.walk(alias).into_iter().collect();
        keys.extend(self.full_names.get(alias).cloned());
        keys
    }

    /// The key of the object at the end of `path`: local names joined by slashes, escaped or not.
    fn walk(&self, path: &[u8]) -> Option<Vec<u8>> {
        let mut seen = HashSet::new();
        let mut open = vec![(0usize, 0usize)];
        while let Some((node, at)) = open.pop() {
            if !seen.insert((node, at)) {
                continue;
            }
            let node = self.graph.nodes.get(node)?;
            let rest = &path[at..];
            let attribute = match rest {
                b"" => node.attributes.iter().find(|a| a.name == VALUE).or(node.attributes.first().filter(|_| node.attributes.len() == 1)),
                _ => node.attributes.iter().find(|a| a.name == rest),
            };
            if let Some(attribute) = attribute.filter(|_| at > 0) {
                return Some(attribute.key.clone());
            }
            for child in &node.children {
                for name in [&child.name, &escape(&child.name)] {
                    match rest.strip_prefix(name.as_slice()) {
                        Some(b"") => open.push((child.node, path.len())),
                        Some(tail) if tail[0] == b'/' => open.push((child.node, path.len() - tail.len() + 1)),
                        _ => {}
                    }
                }
            }
        }
        None
    }
}

/// The key of the variable at this path.
pub(crate) fn value_key(path: &[u8]) -> Vec<u8> {
    [path, ATTRIBUTES, VALUE].concat()
}

fn strip_suffix(key: &[u8]) -> Option<&[u8]> {
    key.strip_suffix(VALUE)?.strip_suffix(ATTRIBUTES)
}

/// Escapes `.` as `..` and `/` as `.S` in a local name.
fn escape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'.' => out.extend(b".."),
            b'/' => out.extend(b".S"),
            _ => out.push(byte),
        }
    }
    out
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'.', Some(b'.')) => {
                bytes.next();
                out.push(b'.');
            }
            (b'.', Some(b'S')) => {
                bytes.next();
                out.push(b'/');
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::object_graph::{Attribute, Child, Node};

    fn graph() -> Aliases {
        let child = |node, name: &str| Child { node, name: name.into() };
        let value = |full: &str, key: &str| Attribute { name: VALUE.to_vec(), full_name: full.into(), key: key.into() };
        let node = |children, attributes| Node { children, attributes };
        Aliases::new(ObjectGraph {
            heap_bytes: 0,
            nodes: vec![
                node(vec![child(1, "model"), child(2, "opt"), child(0, "self")], vec![]),
                node(vec![child(3, "a/b"), child(4, "x.y"), child(0, "parent")], vec![]),
                node(vec![child(3, "_vars"), child(5, "n")], vec![]),
                node(vec![], vec![value("dense/kernel", "opt/_vars/.ATTRIBUTES/VARIABLE_VALUE")]),
                node(vec![], vec![value("Variable", "model/x..y/.ATTRIBUTES/VARIABLE_VALUE")]),
                node(vec![], vec![value("Variable", "opt/n/.ATTRIBUTES/VARIABLE_VALUE")]),
            ],
        })
    }

    #[test]
    fn every_path_through_the_graph_is_a_name() {
        let aliases = graph();
        let kernel = b"opt/_vars/.ATTRIBUTES/VARIABLE_VALUE".to_vec();
        for name in ["model/a/b", "model/a.Sb", "opt/_vars", "self/self/model/parent/opt/_vars", "dense/kernel", "model/a/b/VARIABLE_VALUE"]
        {
            assert!(aliases.candidates(name.as_bytes()).contains(&kernel), "{name}");
        }
        assert!(aliases.candidates(b"model/x.y").contains(&b"model/x..y/.ATTRIBUTES/VARIABLE_VALUE".to_vec()));
        assert!(aliases.candidates(b"Variable").is_empty(), "an ambiguous name leads nowhere");
        assert!(aliases.candidates(b"model/nothing").is_empty());
    }

    #[test]
    fn the_name_shown_is_the_one_people_know() {
        let aliases = graph();
        assert_eq!(aliases.of_key(b"opt/_vars/.ATTRIBUTES/VARIABLE_VALUE").as_deref(), Some("dense/kernel"));
        assert_eq!(aliases.of_key(b"model/x..y/.ATTRIBUTES/VARIABLE_VALUE").as_deref(), Some("model/x.y"));
        assert_eq!(aliases.of_key(b"global_step"), None);
    }
}

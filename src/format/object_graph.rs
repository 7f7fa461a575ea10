//! Parser for `TrackableObjectGraph`, which maps the objects of a program to checkpoint keys.
//!
//! Source: `tensorflow/core/protobuf/trackable_object_graph.proto`.

use super::proto::Fields;
use crate::error::ParseError;

const WHAT: &str = "object graph";

/// The parts of the graph that make up names. Node 0 is the root.
#[derive(Debug, Default)]
pub(crate) struct ObjectGraph {
    pub(crate) nodes: Vec<Node>,
    /// Approximate memory use.
    pub(crate) heap_bytes: u64,
}

/// One object.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) children: Vec<Child>,
    pub(crate) attributes: Vec<Attribute>,
}

/// An edge to another object.
#[derive(Debug, Default)]
pub(crate) struct Child {
    pub(crate) node: usize,
    pub(crate) name: Vec<u8>,
}

/// A value that an object stores in the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Attribute {
    pub(crate) name: Vec<u8>,
    pub(crate) full_name: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl ObjectGraph {
    /// Parses the graph and checks that every edge leads to an existing node. Refuses graphs that take over `most_bytes` of
    /// memory.
    pub(crate) fn parse(bytes: &[u8], most_bytes: u64) -> Result<Self, ParseError> {
        let mut graph = Self::default();
        for field in Fields::new(bytes, 0, WHAT) {
            let field = field?;
            if field.number == 1 {
                let node = Node::parse(field.message(WHAT)?)?;
                graph.heap_bytes += node.heap_bytes();
                graph.nodes.push(node);
            }
            if graph.heap_bytes > most_bytes {
                return Err(ParseError::new(field.offset, WHAT, format!("takes more than {most_bytes} bytes of memory")));
            }
        }
        let count = graph.nodes.len();
        for (i, node) in graph.nodes.iter().enumerate() {
            if let Some(child) = node.children.iter().find(|child| child.node >= count) {
                let detail = format!("node {i} has a child {}, but there are only {count} nodes", child.node);
                return Err(ParseError::new(0, WHAT, detail));
            }
        }
        Ok(graph)
    }
}

impl Node {
    fn heap_bytes(&self) -> u64 {
        let children = self.children.iter().map(|child| size_of::<Child>() + child.name.len());
        let attributes = self.attributes.iter().map(|a| size_of::<Attribute>() + a.name.len() + a.full_name.len() + a.key.len());
        (size_of::<Self>() + children.sum::<usize>() + attributes.sum::<usize>()) as u64
    }

    fn parse(fields: Fields<'_>) -> Result<Self, ParseError> {
        let mut node = Self::default();
        for field in fields {
            let field = field?;
            match field.number {
                1 => {
                    let mut child = Child::default();
                    for part in field.message(WHAT)? {
                        let part = part?;
                        match part.number {
                            1 => child.node = usize::try_from(part.count(WHAT, "node_id")?).unwrap_or(usize::MAX),
                            2 => child.name = part.bytes(WHAT)?.to_vec(),
                            _ => {}
                        }
                    }
                    node.children.push(child);
                }
                2 => {
                    let mut attribute = Attribute::default();
                    for part in field.message(WHAT)? {
                        let part = part?;
                        match part.number {
                            1 => attribute.name = part.bytes(WHAT)?.to_vec(),
                            2 => attribute.full_name = part.bytes(WHAT)?.to_vec(),
                            3 => attribute.key = part.bytes(WHAT)?.to_vec(),
                            _ => {}
                        }
                    }
                    node.attributes.push(attribute);
                }
                _ => {}
            }
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_of_many_empty_nodes_is_refused_before_it_takes_much_memory() {
        let bytes = [0x0a, 0x00].repeat(100_000);
        assert!(ObjectGraph::parse(&bytes, 1 << 20).unwrap_err().detail.contains("memory"));
        assert_eq!(ObjectGraph::parse(&bytes, 1 << 30).unwrap().nodes.len(), 100_000);
    }

    #[test]
    fn edges_to_nowhere_are_errors() {
        // nodes { children { node_id: 1 local_name: "w" } }, then the same with a second node.
        let one = [0x0a, 0x07, 0x0a, 0x05, 0x08, 0x01, 0x12, 0x01, b'w'];
        assert!(ObjectGraph::parse(&one, 1 << 20).is_err());
        let two = [&one[..], &[0x0a, 0x00]].concat();
        let graph = ObjectGraph::parse(&two, 1 << 20).unwrap();
        assert_eq!((graph.nodes.len(), graph.nodes[0].children[0].node), (2, 1));
        assert!(ObjectGraph::parse(&two[..4], 1 << 20).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..60)) {
            let _ = ObjectGraph::parse(&bytes, 1 << 20);
        }
    }
}

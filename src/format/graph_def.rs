//! Parser and checks for `GraphDef` messages: their nodes, and whether every part is consistent.
//!
//! Source: `tensorflow/core/framework/graph.proto`, `node_def.proto`, `attr_value.proto`, `function.proto`.

use std::collections::{HashMap, HashSet};

use super::bundle::parse_shape_with_unknown;
use super::proto::{Field, Fields, Value};
use super::tensor_proto::TensorProto;
use crate::error::ParseError;
use crate::types::dtype::Dtype;

const NODE: &str = "graph node";
const ATTR: &str = "attribute of a graph node";
const FUNCTION: &str = "graph function";
/// Nesting limit for functions in attributes; protobuf has the same limit for messages.
const MAX_DEPTH: usize = 100;
/// The dtype number of a reference is that of its target plus this.
const REFERENCE: u64 = 100;

/// Operations whose value comes from the caller.
pub(crate) const PLACEHOLDERS: [&str; 3] = ["Placeholder", "PlaceholderV2", "PlaceholderWithDefault"];

/// A node of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) op: &'a str,
    /// `name`, `name:1`, or `^name` for a control input.
    pub(crate) inputs: Vec<&'a str>,
    attrs: Vec<(&'a str, Fields<'a>, &'a [u8])>,
}

impl<'a> Node<'a> {
    /// Parses a `NodeDef` that starts at `base`.
    ///
    /// # Errors
    /// Returns what is wrong with the message.
    pub(crate) fn parse(bytes: &'a [u8], base: usize) -> Result<Self, ParseError> {
        let mut node = Self { name: "", op: "", inputs: Vec::new(), attrs: Vec::new() };
        for field in Fields::new(bytes, base, NODE) {
            let field = field?;
            match field.number {
                1 => node.name = text(&field, NODE)?,
                2 => node.op = text(&field, NODE)?,
                3 => node.inputs.push(text(&field, NODE)?),
                5 => {
                    let (name, value) = entry(&field, ATTR)?;
                    if let Some((value, at)) = value {
                        node.attrs.push((name, Fields::new(value, at, ATTR), value));
                    }
                }
                _ => {}
            }
        }
        // TensorFlow has more rules for names, and its own messages about them are clear.
        let is_text = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !is_text(node.name) || !is_text(node.op) {
            return Err(ParseError::new(base, NODE, format!("name {:?} and op {:?}, expected text", node.name, node.op)));
        }
        if node.op == "Abort" {
            return Err(ParseError::new(base, NODE, format!("{:?} is an Abort operation, which ends the process", node.name)));
        }
        Ok(node)
    }

    /// The value of an attribute: the bytes of an `AttrValue`.
    pub(crate) fn attr(&self, name: &str) -> Option<&'a [u8]> {
        self.attrs.iter().rev().find(|(own, ..)| *own == name).map(|(_, _, bytes)| *bytes)
    }

    /// Whether the caller provides the value.
    pub(crate) fn is_placeholder(&self) -> bool {
        PLACEHOLDERS.contains(&self.op)
    }

    /// The dtype and shape that a placeholder declares.
    pub(crate) fn placeholder(&self) -> (Option<Dtype>, Option<Vec<Option<u64>>>) {
        let dtype = self.attr("dtype").and_then(attr_type).and_then(Dtype::from_code);
        (dtype, self.attr("shape").and_then(attr_shape))
    }

    /// The functions named in its attributes.
    fn functions(&self) -> Result<Vec<&'a str>, ParseError> {
        let mut names = Vec::new();
        let mut add = |function: &Field<'a>| -> Result<(), ParseError> {
            for part in function.message(ATTR)? {
                let part = part?;
                if part.number == 1 {
                    names.push(text(&part, ATTR)?);
                }
            }
            Ok(())
        };
        for (_, value, _) in &self.attrs {
            for field in value.clone() {
                let field = field?;
                match field.number {
                    10 => add(&field)?,
                    1 => {
                        for item in field.message(ATTR)? {
                            let item = item?;
                            if item.number == 9 {
                                add(&item)?;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(names)
    }

    /// Checks its attributes; returns the number of bytes that its constants declare.
    ///
    /// # Errors
    /// Returns an error for an inconsistent attribute: a tensor whose values do not fit its shape, or an impossible shape.
    pub(crate) fn check(&self) -> Result<u64, ParseError> {
        self.attrs.iter().try_fold(0u64, |sum, (_, value, _)| Ok(sum.saturating_add(check_attr(value.clone(), 0)?)))
    }
}

/// The dtype number in an `AttrValue` that is a type.
pub(crate) fn attr_type(attr: &[u8]) -> Option<u64> {
    last_of(attr, 6)?.varint(ATTR).ok().map(referred)
}

/// The dtype number of a reference's target.
pub(crate) fn referred(code: u64) -> u64 {
    if code > REFERENCE { code - REFERENCE } else { code }
}

/// The dtype numbers in an `AttrValue` that is a list of types.
pub(crate) fn attr_types(attr: &[u8]) -> Result<Vec<u64>, ParseError> {
    let mut types = Vec::new();
    for field in list_of(attr)? {
        match (field.number, field.value) {
            (6, Value::Varint(code)) => types.push(code),
            (6, Value::Bytes(packed, at)) => {
                let mut pos = 0;
                while pos < packed.len() {
                    let (code, len) = super::varint::read_u64(&packed[pos..], at + pos, ATTR)?;
                    types.push(code);
                    pos += len;
                }
            }
            _ => {}
        }
    }
    Ok(types)
}

/// The shapes in an `AttrValue` that is a list of shapes.
pub(crate) fn attr_shapes(attr: &[u8]) -> Result<Vec<Option<Vec<Option<u64>>>>, ParseError> {
    list_of(attr)?.into_iter().filter(|field| field.number == 7).map(|field| parse_shape_with_unknown(field.message(ATTR)?)).collect()
}

/// The shape in an `AttrValue` that is a shape.
pub(crate) fn attr_shape(attr: &[u8]) -> Option<Vec<Option<u64>>> {
    parse_shape_with_unknown(last_of(attr, 7)?.message(ATTR).ok()?).ok()?
}

/// The function name in an `AttrValue` that is a function.
pub(crate) fn attr_function(attr: &[u8]) -> Option<&[u8]> {
    let name = last_of(attr, 10)?.message(ATTR).ok()?.filter_map(Result::ok).filter(|field| field.number == 1).last()?;
    match name.value {
        Value::Bytes(name, _) => Some(name),
        _ => None,
    }
}

/// The `TensorProto` in an `AttrValue` that is a tensor.
pub(crate) fn attr_tensor(attr: &[u8]) -> Option<&[u8]> {
    match last_of(attr, 8)?.value {
        Value::Bytes(tensor, _) => Some(tensor),
        _ => None,
    }
}

fn last_of(attr: &[u8], number: u32) -> Option<Field<'_>> {
    Fields::new(attr, 0, ATTR).filter_map(Result::ok).filter(|field| field.number == number).last()
}

fn list_of(attr: &[u8]) -> Result<Vec<Field<'_>>, ParseError> {
    let mut fields = Vec::new();
    for field in Fields::new(attr, 0, ATTR) {
        let field = field?;
        if field.number == 1 {
            fields.extend(field.message(ATTR)?.collect::<Result<Vec<_>, _>>()?);
        }
    }
    Ok(fields)
}

pub(crate) fn text<'a>(field: &Field<'a>, what: &'static str) -> Result<&'a str, ParseError> {
    let bytes = field.bytes(what)?;
    std::str::from_utf8(bytes).map_err(|_| ParseError::new(field.offset, what, format!("field {} is not UTF-8", field.number)))
}

/// The key and the value of a map entry, and the offset of the value.
pub(crate) type Entry<'a> = (&'a str, Option<(&'a [u8], usize)>);

pub(crate) fn entry<'a>(field: &Field<'a>, what: &'static str) -> Result<Entry<'a>, ParseError> {
    let (mut key, mut value) = ("", None);
    for part in field.message(what)? {
        let part = part?;
        match (part.number, part.value) {
            (1, _) => key = text(&part, what)?,
            (2, Value::Bytes(..)) if value.is_some() => return Err(ParseError::new(part.offset, what, "an entry of a map has two values")),
            (2, Value::Bytes(bytes, at)) => value = Some((bytes, at)),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Checks an `AttrValue`; returns the number of bytes that its constants declare.
fn check_attr(fields: Fields<'_>, depth: usize) -> Result<u64, ParseError> {
    let (mut claimed, mut seen) = (0u64, [false; 11]);
    for field in fields {
        let field = field?;
        // Protobuf would merge repeated messages into one that has not been checked.
        if matches!(field.number, 1 | 7 | 8 | 10) && std::mem::replace(&mut seen[field.number as usize], true) {
            return Err(ParseError::new(field.offset, ATTR, format!("field {} comes twice", field.number)));
        }
        claimed = claimed.saturating_add(match field.number {
            1 => check_list(field.message(ATTR)?, deeper(depth, &field)?)?,
            7 => check_shape(&field)?,
            8 => check_tensor(&field, deeper(depth, &field)?)?,
            10 => check_function_name(field.message(ATTR)?, deeper(depth, &field)?)?,
            _ => 0,
        });
    }
    Ok(claimed)
}

/// Checks the list in an `AttrValue`, where functions are field 9.
fn check_list(fields: Fields<'_>, depth: usize) -> Result<u64, ParseError> {
    fields.into_iter().try_fold(0u64, |claimed, field| {
        let field = field?;
        Ok(claimed.saturating_add(match field.number {
            7 => check_shape(&field)?,
            8 => check_tensor(&field, deeper(depth, &field)?)?,
            9 => check_function_name(field.message(ATTR)?, deeper(depth, &field)?)?,
            _ => 0,
        }))
    })
}

/// Goes one level deeper; fails at the limit.
fn deeper(depth: usize, field: &Field<'_>) -> Result<usize, ParseError> {
    if depth == MAX_DEPTH {
        return Err(ParseError::new(field.offset, ATTR, format!("attributes nest deeper than {MAX_DEPTH}")));
    }
    Ok(depth + 1)
}

/// Checks a `NameAttrList`.
fn check_function_name(fields: Fields<'_>, depth: usize) -> Result<u64, ParseError> {
    fields.into_iter().try_fold(0u64, |claimed, field| {
        let field = field?;
        let checked = if field.number == 2 { check_entry(&field, depth)? } else { 0 };
        Ok(claimed.saturating_add(checked))
    })
}

/// Checks an entry of an attribute map.
fn check_entry(field: &Field<'_>, depth: usize) -> Result<u64, ParseError> {
    match entry(field, ATTR)? {
        (_, Some((value, at))) => check_attr(Fields::new(value, at, ATTR), deeper(depth, field)?),
        (_, None) => Ok(0),
    }
}

fn check_shape(field: &Field<'_>) -> Result<u64, ParseError> {
    let mut elements = 1u64;
    for part in field.message(ATTR)? {
        let part = part?;
        if part.number == 2 {
            for size in part.message(ATTR)? {
                let size = size?;
                if size.number == 1 {
                    let axis = size.int64(ATTR)?;
                    let refused = |why: &str| ParseError::new(size.offset, ATTR, format!("a shape has an axis of {axis}, {why}"));
                    if axis < -1 {
                        return Err(refused("expected at least 0, or -1 if unknown"));
                    }
                    let length = u64::try_from(axis).unwrap_or(1).max(1);
                    elements = elements
                        .checked_mul(length)
                        .filter(|&elements| i64::try_from(elements).is_ok())
                        .ok_or_else(|| refused("which makes at least 2^63 elements"))?;
                }
            }
        }
    }
    parse_shape_with_unknown(field.message(ATTR)?).map(|_| 0)
}

fn check_tensor(field: &Field<'_>, depth: usize) -> Result<u64, ParseError> {
    let Value::Bytes(bytes, at) = field.value else {
        return Err(ParseError::new(field.offset, ATTR, "a tensor is not a message"));
    };
    let dtype = Fields::new(bytes, at, ATTR).filter_map(Result::ok).filter(|field| field.number == 1).last();
    let dtype = dtype.and_then(|dtype| dtype.varint(ATTR).ok()).and_then(Dtype::from_code);
    // An empty tensor in an attribute means that there is none.
    if bytes.is_empty() {
        return Ok(0);
    }
    // Handles store their own kinds of values; variants contain tensors.
    if let Some(Dtype::Resource | Dtype::Variant) = dtype {
        let mut claimed = 0u64;
        for part in Fields::new(bytes, at, ATTR) {
            let part = part?;
            match part.number {
                2 => claimed = claimed.saturating_add(check_shape(&part)?),
                15 => {
                    for inner in part.message(ATTR)? {
                        let inner = inner?;
                        if inner.number == 3 {
                            claimed = claimed.saturating_add(check_tensor(&inner, deeper(depth, &inner)?)?);
                        }
                    }
                }
                _ => {}
            }
        }
        return Ok(claimed);
    }
    let tensor = TensorProto::parse(bytes, at)?;
    tensor.check_values()?;
    Ok(tensor.spec.nbytes().max(tensor.spec.elements()))
}

/// Checks a `FunctionDefLibrary`; returns the number of bytes that its constants declare.
///
/// # Errors
/// Returns the errors of [`Node::check`].
pub(crate) fn check_library(bytes: &[u8], base: usize) -> Result<u64, ParseError> {
    let mut claimed = 0u64;
    // The names of the functions that each function calls.
    let mut calls: HashMap<&str, Vec<&str>> = HashMap::new();
    for function in Fields::new(bytes, base, FUNCTION) {
        let function = function?;
        if function.number != 1 {
            continue;
        }
        let (mut name, mut called) = ("", Vec::new());
        for part in function.message(FUNCTION)? {
            let part = part?;
            match (part.number, part.value) {
                (3, Value::Bytes(node, at)) => {
                    let node = Node::parse(node, at)?;
                    claimed = claimed.saturating_add(node.check()?);
                    called.push(node.op);
                    called.extend(node.functions()?);
                }
                (5, Value::Bytes(..)) => claimed = claimed.saturating_add(check_entry(&part, 0)?),
                // Arguments are a map from numbers to attribute maps.
                (7, Value::Bytes(..)) => {
                    for argument in part.message(FUNCTION)?.filter(|field| field.as_ref().map_or(true, |field| field.number == 2)) {
                        for attr in argument?.message(FUNCTION)? {
                            claimed = claimed.saturating_add(check_entry(&attr?, 0)?);
                        }
                    }
                }
                (1, Value::Bytes(..)) => {
                    for field in part.message(FUNCTION)? {
                        let field = field?;
                        if field.number == 1 {
                            name = text(&field, FUNCTION)?;
                        }
                    }
                    claimed = claimed.saturating_add(check_op(part.message(FUNCTION)?)?);
                }
                _ => {}
            }
        }
        calls.insert(name, called);
    }
    match circle(&calls) {
        // TensorFlow would inline such a function into itself until the stack overflows.
        Some(name) => Err(ParseError::new(base, FUNCTION, format!("the function {name:?} calls itself"))),
        None => Ok(claimed),
    }
}

/// Finds a function that calls itself, directly or through others.
fn circle<'a>(calls: &HashMap<&'a str, Vec<&'a str>>) -> Option<&'a str> {
    let mut ended: HashSet<&str> = HashSet::new();
    for &start in calls.keys() {
        // The functions being visited, each with its position in its list of calls.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        let mut is_open: HashSet<&str> = HashSet::from([start]);
        while let Some((name, at)) = path.last_mut() {
            let Some(&next) = calls.get(name).and_then(|called| called.get(*at)) else {
                is_open.remove(name);
                ended.insert(name);
                path.pop();
                continue;
            };
            *at += 1;
            if is_open.contains(next) {
                return Some(next);
            }
            if calls.contains_key(next) && !ended.contains(next) {
                is_open.insert(next);
                path.push((next, 0));
            }
        }
    }
    None
}

/// Checks an `OpDef`: the default and allowed values of its attributes.
fn check_op(fields: Fields<'_>) -> Result<u64, ParseError> {
    let mut claimed = 0u64;
    for attr in fields.filter(|field| field.as_ref().map_or(true, |field| field.number == 4)) {
        for part in attr?.message(FUNCTION)? {
            let part = part?;
            if matches!(part.number, 3 | 7) {
                claimed = claimed.saturating_add(check_attr(part.message(FUNCTION)?, 0)?);
            }
        }
    }
    Ok(claimed)
}

//! Encodes the few protobuf messages that TensorFlow or our own decoders get.
//!
//! Source: `tensorflow/core/framework/tensor.proto` and `attr_value.proto`.

use crate::types::dtype::Dtype;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The tag and length of a bytes field.
fn put_length(out: &mut Vec<u8>, number: u8, len: usize) {
    out.push(number << 3 | 2);
    put_varint(out, len as u64);
}

fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    put_length(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// A `TensorProto` without values.
pub(crate) fn tensor(dtype: Dtype, shape: &[u64]) -> Vec<u8> {
    let mut axes = Vec::new();
    for &axis in shape {
        let mut size = vec![1 << 3];
        put_varint(&mut size, axis);
        put_bytes(&mut axes, 2, &size);
    }
    let mut out = vec![1 << 3];
    put_varint(&mut out, dtype.code());
    put_bytes(&mut out, 2, &axes);
    out
}

/// The part of a `TensorProto` before `len` bytes of elements.
pub(crate) fn before_content(dtype: Dtype, shape: &[u64], len: usize) -> Vec<u8> {
    let mut out = tensor(dtype, shape);
    put_length(&mut out, 4, len);
    out
}

/// Adds a string to a `TensorProto`.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_bytes(out, 8, string);
}

/// The value of an attribute that is this tensor.
pub(crate) fn tensor_attribute(tensor: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(tensor.len() + 11);
    put_bytes(&mut out, 8, tensor);
    out
}

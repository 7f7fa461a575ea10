//! A file with one serialized `TensorProto`, as `tf.io.serialize_tensor` makes it.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use crate::error::Result;
use crate::format::tensor_proto::{CONTENT, TYPED, WHAT};
use crate::options::Options;
use crate::reader::proto_index::{FieldValue, FieldWalker};
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::reader::values::{Proto, Rule};
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::{MAX_NDIM, TensorSpec};

/// A serialized tensor.
pub(crate) struct TensorProto;

impl Driver for TensorProto {
    fn name(&self) -> &'static str {
        "tensor-proto"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? {
            return Ok(None);
        }
        let file = probe.open()?;
        let mut outline = FieldWalker::of_file(&*file, WHAT);
        // Read errors are reported by whichever format opens the file.
        Ok(is_likely(&mut outline).unwrap_or(false).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let file = place.open()?;
        let len = file.len();
        let proto = Proto::look_at(&*file, &(0..len), None)?;
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Ok(Box::new(Single { name: Name::new(name.as_bytes()), file, proto }))
    }
}

/// Whether a message has a tensor's dtype and shape and no fields that tensors lack, in any order. Damage behind these makes it a
/// broken tensor.
fn is_likely(outline: &mut FieldWalker<'_>) -> Result<bool> {
    let (mut has_dtype, mut has_shape) = (false, false);
    while let Ok(Some(field)) = outline.next_field() {
        let is_known = match field.value {
            FieldValue::Varint(code) if field.number == 1 => {
                has_dtype = true;
                Dtype::from_code(code).is_some()
            }
            FieldValue::Bytes(shape) if field.number == 2 => {
                has_shape = true;
                outline.within(&shape, is_shape)?
            }
            _ => u32::try_from(field.number).is_ok_and(|number| (3..=CONTENT).contains(&number) || TYPED.contains(&number)),
        };
        if !is_known {
            return Ok(false);
        }
    }
    Ok(has_dtype && has_shape)
}

/// Whether a message is a `TensorShapeProto`: a number for each axis, with an optional name.
fn is_shape(outline: &mut FieldWalker<'_>) -> Result<bool> {
    while let Some(field) = outline.next_field()? {
        let is_axis = match field.value {
            FieldValue::Bytes(axis) if field.number == 2 => outline.within(&axis, |axis| {
                while let Some(part) = axis.next_field()? {
                    if !matches!((part.number, part.value), (1, FieldValue::Varint(_)) | (2, FieldValue::Bytes(_))) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?,
            FieldValue::Varint(_) => field.number == 3,
            _ => false,
        };
        if !is_axis {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why no array can hold a tensor of this spec; `None` if one can.
pub(crate) fn unsupported(spec: &TensorSpec) -> Option<String> {
    if spec.dtype() != Dtype::String && spec.dtype().descr().is_none() {
        Some(format!("dtype {} has no elements of fixed size", spec.dtype()))
    } else if spec.shape().len() > MAX_NDIM {
        Some(format!("{} dimensions, NumPy arrays have at most {MAX_NDIM}", spec.shape().len()))
    } else {
        None
    }
}

/// Facts about a message: its place, and how its values are encoded.
pub(crate) fn proto_facts(proto: &Proto) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("encoding".into(), json!(proto.encoding()));
    let place = proto.in_place().unwrap_or(proto.range());
    facts.insert("offset".into(), json!(place.start));
    facts.insert("stored_bytes".into(), json!(place.end - place.start));
    facts
}

/// The tensor of a file.
#[derive(Debug)]
struct Single {
    name: Name,
    file: Arc<dyn Blob>,
    proto: Proto,
}

impl Container for Single {
    fn format(&self) -> &'static str {
        TensorProto.name()
    }

    fn len(&self) -> Result<usize> {
        Ok(1)
    }

    fn info(&self, _: usize) -> Result<TensorInfo> {
        let spec = self.proto.spec.clone();
        Ok(TensorInfo { unsupported: unsupported(&spec), ..TensorInfo::new(self.name.clone(), spec) })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok((name == self.name.as_bytes()).then_some(0))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        (self.file.path().file_name().map(OsStrExt::as_bytes) == Some(alias)).then_some(0)
    }

    fn reader(&self, _: usize) -> Result<Box<dyn TensorReader + '_>> {
        self.proto.reader(&self.file, Rule::Repeat)
    }

    fn strings(&self, _: usize) -> Result<StoredStrings<'_>> {
        self.proto.strings(&self.file, &self.name, Rule::Repeat)
    }

    fn heap_bytes(&self) -> u64 {
        (size_of::<Self>() + self.name.as_bytes().len()) as u64
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![Arc::clone(self.file.path()).to_path_buf()]
    }

    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }

    fn tensor_facts(&self, _: usize) -> Result<Map<String, Value>> {
        Ok(proto_facts(&self.proto))
    }
}

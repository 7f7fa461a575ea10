//! safetensors: a JSON header that gives the place of each tensor, then the tensors.
//!
//! Source: the format's description in the README of <https://github.com/huggingface/safetensors>.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::table::{TensorPlace, TensorTable};
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::safetensors::{Entry, MAX_HEADER, PREFIX_LEN, parse, prefix};
use crate::options::Options;
use crate::reader::stored::{Check, StoredArray};
use crate::reader::tensor_reader::TensorReader;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

const WHAT: &str = "safetensors header";

/// A safetensors file.
pub(crate) struct SafeTensors;

impl Driver for SafeTensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? {
            return Ok(None);
        }
        let file = probe.open()?;
        let mut front = [0; PREFIX_LEN + 2];
        let is_one = file.len() >= front.len() as u64 && file.read(0, &mut front, file.calls()).is_ok() && {
            let len = prefix(&front);
            let fits = len > 1 && len <= file.len() - PREFIX_LEN as u64;
            let [.., open, next] = front;
            let is_object = open == b'{' && matches!(next, b'"' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
            is_object && (fits || probe.path().extension().is_some_and(|extension| extension == self.name()))
        };
        Ok(is_one.then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, _: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let file = place.open()?;
        let malformed = |offset: u64, detail: String| Error::malformed_at(path, WHAT, offset, detail);
        let mut front = [0; PREFIX_LEN];
        if file.len() < PREFIX_LEN as u64 {
            return Err(malformed(0, format!("{} bytes, expected at least {PREFIX_LEN}", file.len())));
        }
        file.read(0, &mut front, file.calls())?;
        let (len, most) = (prefix(&front), file.len() - PREFIX_LEN as u64);
        if len > most {
            return Err(malformed(0, format!("a header of {len} bytes, the file has {most} more")));
        }
        let start = PREFIX_LEN as u64 + len;
        let text = file.read_range(&(PREFIX_LEN as u64..start), MAX_HEADER)?;
        let header = parse(&text).map_err(|detail| malformed(PREFIX_LEN as u64, detail))?;
        let (mut tensors, mut spans) = (Vec::with_capacity(header.entries.len()), Vec::with_capacity(header.entries.len()));
        for entry in header.entries {
            let tensor =
                tensor(&file, start, &entry).map_err(|detail| malformed(PREFIX_LEN as u64, format!("{:?}: {detail}", entry.name)))?;
            spans.push(entry.begin..entry.end);
            tensors.push((entry.begin, tensor));
        }
        // Every byte must belong to exactly one tensor, so that nothing can hide between them.
        spans.sort_by_key(|span| (span.start, span.end));
        let mut next = 0;
        for span in &spans {
            if span.start != next {
                return Err(malformed(
                    PREFIX_LEN as u64,
                    format!("data at {}, expected at {next}: tensors overlap or leave holes", span.start),
                ));
            }
            next = span.end;
        }
        if start + next != file.len() {
            return Err(malformed(start, format!("{next} bytes of tensors, the file has {}", file.len() - start)));
        }
        tensors.sort_by_key(|(begin, _)| *begin);
        let facts = Map::from_iter([("header_bytes".to_owned(), json!(len)), ("metadata".to_owned(), header.metadata)]);
        Ok(Box::new(TensorTable::new(self.name(), vec![path.to_owned()], tensors.into_iter().map(|(_, tensor)| tensor).collect(), facts)))
    }
}

/// A tensor in the header, or what is wrong with it.
fn tensor(file: &Arc<dyn Blob>, start: u64, entry: &Entry) -> Result<(TensorInfo, InFile), String> {
    let name = Name::new(entry.name.as_bytes());
    let too_large = |request: BadRequest| request.to_string();
    let Some(dtype) = crate::format::safetensors::dtype(&entry.dtype) else {
        let spec = TensorSpec::new(Dtype::Variant, entry.shape.clone()).map_err(too_large)?;
        let unsupported = Some(format!("elements of {} are not read", entry.dtype));
        let place = InFile { file: Arc::clone(file), offset: start + entry.begin, spec: spec.clone() };
        return Ok((TensorInfo { unsupported, ..TensorInfo::new(name, spec) }, place));
    };
    let spec = TensorSpec::new(dtype, entry.shape.clone()).map_err(too_large)?;
    if entry.end - entry.begin != spec.nbytes() {
        return Err(format!("{} bytes, {spec} has {}", entry.end - entry.begin, spec.nbytes()));
    }
    let offset = start.checked_add(entry.begin).ok_or_else(|| format!("it starts at {}", entry.begin))?;
    Ok((TensorInfo::new(name, spec.clone()), InFile { file: Arc::clone(file), offset, spec }))
}

#[derive(Debug)]
struct InFile {
    file: Arc<dyn Blob>,
    offset: u64,
    spec: TensorSpec,
}

impl TensorPlace for InFile {
    fn reader<'a>(&'a self, _: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        let stored = StoredArray::new(&self.file, self.offset, self.spec.clone(), "safetensors data")?;
        let check = if self.spec.dtype() == Dtype::Bool { Check::Bools } else { Check::Nothing };
        Ok(Box::new(stored.checked(check)))
    }

    fn facts(&self) -> Map<String, Value> {
        Map::from_iter([("offset".to_owned(), json!(self.offset))])
    }
}

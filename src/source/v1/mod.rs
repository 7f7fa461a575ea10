//! Checkpoints of TensorFlow 1: one table, or several, with names, shapes and values.
//!
//! Opening reads the table of contents. Values are located in the tables and read in place, unless they are varints or in a
//! compressed block. Source: `tensorflow/core/util/tensor_slice_reader.cc`.

pub(crate) mod files;
pub(crate) mod slices;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bundle::extents_text;
use super::bundle::state::{Newest, newest};
use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::tensor_proto::unsupported;
use crate::error::{Error, Result};
use crate::format::bundle::Extent;
use crate::format::ordered_code::piece_key;
use crate::options::Options;
use crate::options::budget::Limits;
use crate::reader::pieces::{PieceBox, PieceReader, Tiling};
use crate::reader::proto_index::FieldWalker;
use crate::reader::strings::stored::StoredStrings;
use crate::reader::tensor_reader::TensorReader;
use crate::reader::values::{Proto, Rule};
use crate::storage::blob::Blob;
use crate::storage::paths::Found;
use crate::storage::probe::Probe;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

use files::files;
use table::{Contents, Table};

/// A V1 checkpoint.
pub(crate) struct V1Checkpoint;

impl Driver for V1Checkpoint {
    fn name(&self) -> &'static str {
        "v1-checkpoint"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if probe.found()? == Found::Directory {
            let state = probe.path().join("checkpoint");
            if !probe.storage().is_file(&state)? {
                return Ok(None);
            }
            return Ok(match newest(probe.path(), &state, probe.storage())? {
                Newest::V1(path) => Some(probe.at(path)),
                Newest::Bundle(_) => None,
            });
        }
        // All files of a checkpoint lead to its first one.
        Ok(files(probe)?.and_then(|files| files.into_iter().next()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let files = files(place)?.unwrap_or_else(|| vec![place.clone()]);
        Ok(Box::new(Checkpoint::open(&files, options)?))
    }
}

/// A slice of a tensor, and its table.
#[derive(Debug)]
struct Slice {
    table: usize,
    extents: Vec<Extent>,
}

/// A tensor in the table of contents.
#[derive(Debug)]
struct Entry {
    name: Name,
    spec: TensorSpec,
    slices: Vec<Slice>,
}

/// The record of a slice.
struct LocatedSlice<'a> {
    table: &'a Table,
    block: usize,
    file: Arc<dyn Blob>,
    proto: Proto,
}

#[derive(Debug)]
struct Checkpoint {
    tables: Vec<Table>,
    /// Sorted by name.
    entries: Vec<Entry>,
    held: u64,
}

impl Checkpoint {
    fn open(files: &[Probe], options: &Options) -> Result<Self> {
        let mut tables = Vec::with_capacity(files.len());
        let mut entries: BTreeMap<Vec<u8>, (TensorSpec, Vec<Slice>)> = BTreeMap::new();
        let (mut held, most) = (0u64, Limits::default().index_bytes);
        for probe in files {
            let path = probe.path();
            let table = Table::open(probe, options.verify)?;
            let number = tables.len();
            let Some((block, (file, range))) = table.find(b"")? else {
                let detail = "there is no table of contents: the first key is not empty";
                return Err(Error::malformed(path, slices::WHAT, detail));
            };
            table.check(block)?;
            let is_there = {
                let mut outline = FieldWalker::new(&*file, slices::WHAT, range.clone());
                slices::table_of_contents(&mut outline, |listed| {
                    let axes: usize = listed.slices.iter().map(Vec::len).sum();
                    held += (listed.name.len() + 8 * listed.spec.shape().len() + size_of::<Entry>()) as u64;
                    held += (listed.slices.len() * size_of::<Slice>() + axes * size_of::<Extent>()) as u64;
                    if held > most {
                        let what = format!("memory for the names in {}", path.display());
                        return Err(Error::Limit { what, asked: held, allowed: Some(most) });
                    }
                    let slices = listed.slices.into_iter().map(|extents| Slice { table: number, extents });
                    match entries.get_mut(&listed.name) {
                        None => {
                            entries.insert(listed.name, (listed.spec, slices.collect()));
                        }
                        Some((spec, known)) if *spec == listed.spec => known.extend(slices),
                        Some((spec, _)) => {
                            let detail = format!("{:?} is {}, and {spec} before", Name::new(listed.name).to_string(), listed.spec);
                            return Err(Error::malformed(path, slices::WHAT, detail));
                        }
                    }
                    Ok(())
                })?
            };
            if !is_there {
                let at = range.start;
                let detail = "the first record has no table of contents; this may be the index of a V2 checkpoint: name its prefix";
                return Err(Error::malformed_at(path, slices::WHAT, at, detail));
            }
            tables.push(table);
        }
        let entries = entries.into_iter().map(|(name, (spec, slices))| Entry { name: Name::new(name), spec, slices }).collect();
        Ok(Self { tables, entries, held })
    }

    fn malformed(&self, entry: &Entry, slice: Option<&Slice>, detail: impl Into<String>) -> Error {
        let table = slice.map_or(0, |slice| slice.table);
        Error::malformed(self.tables[table].path(), format!("slices of {:?}", entry.name.to_string()), detail)
    }

    /// The boxes of a tensor's slices, which must tile it.
    fn boxes(&self, entry: &Entry) -> Result<Vec<PieceBox>> {
        let shape = entry.spec.shape();
        let mut tiling = Tiling::default();
        let mut boxes = Vec::with_capacity(entry.slices.len());
        for slice in &entry.slices {
            let extent = PieceBox::of_extents(&slice.extents, shape).map_err(|detail| self.malformed(entry, Some(slice), detail))?;
            tiling.add(&extent);
            boxes.push(extent);
        }
        if boxes.is_empty() || !tiling.is_exact(shape) {
            let detail =
                format!("{} slices do not cover the {} elements of {} exactly once", boxes.len(), entry.spec.elements(), entry.spec);
            return Err(self.malformed(entry, entry.slices.first(), detail));
        }
        Ok(boxes)
    }

    /// Finds the record of a slice with the box `extent`.
    fn look(&self, entry: &Entry, slice: &Slice, extent: &PieceBox) -> Result<LocatedSlice<'_>> {
        let table = &self.tables[slice.table];
        let key = piece_key(entry.name.as_bytes(), &slice.extents);
        let Some((block, (file, record))): Option<(usize, Contents)> = table.find(&key)? else {
            let detail = format!("{} is listed but has no record: there is no key {}", extents_text(extent), Name::new(key));
            return Err(self.malformed(entry, Some(slice), detail));
        };
        let spec = TensorSpec::new(entry.spec.dtype(), extent.shape.clone())
            .map_err(|request| self.malformed(entry, Some(slice), request.to_string()))?;
        let values = slices::values(&mut FieldWalker::new(&*file, slices::WHAT, record), entry.name.as_bytes(), &slice.extents)?;
        let proto = Proto::look_at(&*file, &values, Some(spec))?;
        Ok(LocatedSlice { table, block, file, proto })
    }

    fn slice_reader(&self, entry: &Entry, slice: &Slice, extent: &PieceBox) -> Result<Box<dyn TensorReader>> {
        let LocatedSlice { table, block, file, proto } = self.look(entry, slice, extent)?;
        if proto.in_place().is_none() {
            // Decoding walks through the values once, so check their block first.
            table.check(block)?;
        }
        proto.reader_in(&file, Rule::Exact, |payload| table.region(block, payload))
    }
}

impl Container for Checkpoint {
    fn format(&self) -> &'static str {
        V1Checkpoint.name()
    }

    fn len(&self) -> Result<usize> {
        Ok(self.entries.len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let Entry { name, spec, slices } = &self.entries[index];
        let unsupported = if spec.dtype() == Dtype::String && slices.len() > 1 {
            Some("its strings are stored in slices".to_owned())
        } else {
            unsupported(spec)
        };
        Ok(TensorInfo { unsupported, ..TensorInfo::new(name.clone(), spec.clone()) })
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name)).ok())
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let entry = &self.entries[index];
        let boxes = self.boxes(entry)?;
        if let ([extent], [slice]) = (&boxes[..], &entry.slices[..]) {
            return self.slice_reader(entry, slice, extent);
        }
        let mut parts: Vec<(PieceBox, Box<dyn TensorReader>)> = Vec::with_capacity(boxes.len());
        for (extent, slice) in boxes.into_iter().zip(&entry.slices) {
            let reader = self.slice_reader(entry, slice, &extent)?;
            parts.push((extent, reader));
        }
        Ok(Box::new(PieceReader::of_readers(entry.spec.clone(), parts)))
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        let entry = &self.entries[index];
        let boxes = self.boxes(entry)?;
        let ([extent], [slice]) = (&boxes[..], &entry.slices[..]) else {
            return Err(self.malformed(entry, None, "its strings are stored in slices"));
        };
        let LocatedSlice { table, block, file, proto } = self.look(entry, slice, extent)?;
        table.check(block)?;
        proto.strings(&file, &entry.name, Rule::Exact)
    }

    fn heap_bytes(&self) -> u64 {
        self.held + self.tables.iter().map(Table::heap_bytes).sum::<u64>()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.tables.iter().map(|table| table.path().to_owned()).collect()
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        let files: Vec<Value> =
            self.tables.iter().map(|table| json!({"path": table.path().to_string_lossy(), "bytes": table.file.len()})).collect();
        facts.insert("num_shards".into(), json!(files.len()));
        facts.insert("shards".into(), json!(files));
        facts.insert("blocks".into(), json!(self.tables.iter().map(Table::blocks).sum::<usize>()));
        facts.insert("snappy_blocks".into(), json!(self.tables.iter().map(Table::snappy_blocks).sum::<usize>()));
        facts.insert("checksums".into(), json!("crc32c"));
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let entry = &self.entries[index];
        let mut listed = Vec::new();
        for (slice, extent) in entry.slices.iter().zip(self.boxes(entry)?) {
            let LocatedSlice { table, proto, .. } = self.look(entry, slice, &extent)?;
            let mut facts = super::tensor_proto::proto_facts(&proto);
            facts.insert("start".into(), json!(extent.start));
            facts.insert("shape".into(), json!(extent.shape));
            facts.insert("path".into(), json!(table.path().to_string_lossy()));
            listed.push(Value::Object(facts));
        }
        Ok(Map::from_iter([("pieces".to_owned(), json!(listed))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SystemCalls;
    use crate::reader::checksums::RegionChecksums;
    use crate::reader::tensor_reader::ReadContext;
    use crate::types::size::memory_len;
    use std::path::Path;

    fn data(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/protos/v1").join(name)
    }

    fn probe(path: &Path) -> Probe {
        Probe::new(&Options::default().storage(path), path)
    }

    /// The bytes of all tensors, checked as in a conversion; strings in Rust's debug form.
    fn read_all(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
        let checkpoint = Checkpoint::open(&[probe(path)], &Options::default())?;
        let mut all = Vec::new();
        for index in 0..checkpoint.len()? {
            let info = checkpoint.info(index)?;
            let bytes = if info.spec.dtype() == Dtype::String {
                format!("{:?}", checkpoint.strings(index)?.bytes).into_bytes()
            } else {
                let reader = checkpoint.reader(index)?;
                let checksums = RegionChecksums::new(reader.regions());
                let mut out = vec![0; memory_len(info.spec.nbytes())];
                reader.read(0..info.spec.elements(), &mut out, &mut ReadContext::new(64, Some(&checksums), &SystemCalls::default()))?;
                checksums.verify()?;
                reader.check_unchanged()?;
                out
            };
            all.push((format!("{} {}", info.name, info.spec), bytes));
        }
        Ok(all)
    }

    #[test]
    fn a_changed_byte_is_found_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (name, step) in [("partitioned.ckpt", 1), ("dtypes.ckpt", 997)] {
            let path = dir.path().join(name);
            let bytes = std::fs::read(data(name)).unwrap();
            let wanted = read_all(&data(name)).unwrap();
            for at in (0..bytes.len()).step_by(step) {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << (at % 8);
                std::fs::write(&path, &bad).unwrap();
                if let Ok(found) = read_all(&path) {
                    assert!(found == wanted, "byte {at} of {name}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_checkpoint_of_this_kind_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/generated/dtypes.index");
        let error = V1Checkpoint.open(&probe(&index), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("V2"), "{error}");
        let missing = dir.path().join("s-00000-of-00002");
        std::fs::copy(data("dtypes.ckpt"), &missing).unwrap();
        assert!(matches!(files(&probe(&missing)), Err(Error::NotFound { .. })));
    }
}

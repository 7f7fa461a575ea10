//! TensorFlow V2 checkpoints (TensorBundle): `P.index` and `P.data-SSSSS-of-NNNNN`.

pub(crate) mod aliases;
pub(crate) mod driver;
pub(crate) mod index;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod state;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use crate::error::{Error, ParseError, Result};
use crate::format::bundle::{BundleEntry, BundleHeader, Extent, slices};
use crate::format::crc;
use crate::format::crc::Checksum;
use crate::format::object_graph::ObjectGraph;
use crate::format::ordered_code::{is_piece_key, piece_key};
use crate::options::budget::Limits;
use crate::os::SystemCalls;
use crate::reader::checksums::Region;
use crate::reader::pieces::{Piece, PieceBox, PieceReader, Tiling};
use crate::reader::strings::Strings;
use crate::reader::strings::stored::{StoredStrings, StringBytes};
use crate::reader::tensor_reader::TensorReader;
use crate::storage::blob::Storage;
use crate::storage::shards::ShardSet;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::{MAX_NDIM, TensorSpec};

use aliases::{Aliases, value_key};
use index::Index;

/// The key of the object graph in TF2 checkpoints.
const OBJECT_GRAPH_KEY: &[u8] = b"_CHECKPOINTABLE_OBJECT_GRAPH";
/// The key of the counter that `tf.train.Checkpoint.save` keeps in its files: `tensorflow/python/checkpoint/checkpoint.py`.
const SAVE_COUNTER_KEY: &[u8] = b"save_counter/.ATTRIBUTES/VARIABLE_VALUE";

/// A header may claim two billion shards: only the first ones are listed.
const MOST_SHARDS_NAMED: u32 = 1000;

/// An opened bundle. Its index is in memory; no shard has been read.
#[derive(Debug)]
pub(crate) struct Bundle {
    format: &'static str,
    index_path: PathBuf,
    index: Index,
    header: BundleHeader,
    shards: ShardSet,
    /// Positions of tensors in the index; the header and the pieces come before them.
    tensors: Range<usize>,
    limits: Limits,
    aliases: OnceLock<Result<Option<Aliases>, String>>,
}

/// The place of a tensor's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardPlace {
    pub(crate) shard: u32,
    pub(crate) offset: u64,
}

/// The index file of a prefix.
pub(crate) fn index_path(prefix: &Path) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

impl Bundle {
    /// Opens the bundle of `prefix`: reads the whole index and checks each entry.
    pub(crate) fn open(prefix: &Path, format: &'static str, limits: &Limits, storage: &Arc<dyn Storage>) -> Result<Self> {
        let index_path = index_path(prefix);
        let file = storage.open(&index_path)?;
        let index = Index::read(&*file, limits)?;
        if index.len() == 0 || !index.key(0).is_empty() {
            let found = if index.len() == 0 {
                "the index is empty".to_owned()
            } else {
                format!("the first key is {:?}", Name::new(index.key(0)).to_string())
            };
            return Err(Error::malformed(&index_path, "bundle header", format!("{found}, expected the empty key of the header")));
        }
        let header = BundleHeader::parse(index.value(0)).map_err(|e| e.in_file(&index_path))?;
        let first = index.partition_point(|key| key.is_empty() || is_piece_key(key));
        let bundle = Self {
            format,
            tensors: first..index.len(),
            shards: ShardSet::new(prefix.to_owned(), header.num_shards, storage, file.calls()),
            index,
            index_path,
            header,
            limits: limits.clone(),
            aliases: OnceLock::new(),
        };
        for i in bundle.tensors.clone() {
            bundle.checked_entry(i)?;
        }
        Ok(bundle)
    }

    /// Makes every check that needs no data, so that errors are reported before TensorFlow reads the bundle.
    pub(crate) fn check_all(&self) -> Result<()> {
        for index in 0..self.tensors.len() {
            match self.info(index)?.spec.dtype() {
                Dtype::String => drop(self.strings(index)?),
                Dtype::Resource | Dtype::Variant => {}
                _ => drop(self.reader(index)?),
            }
        }
        Ok(())
    }

    /// The key of tensor `index`.
    pub(crate) fn key(&self, index: usize) -> &[u8] {
        self.index.key(self.tensors.start + index)
    }

    pub(crate) fn index_path(&self) -> &Path {
        &self.index_path
    }

    /// The data files.
    pub(crate) fn shards(&self) -> &ShardSet {
        &self.shards
    }

    pub(crate) fn byte_order(&self) -> ByteOrder {
        if self.header.big_endian { ByteOrder::Big } else { ByteOrder::Little }
    }

    /// The place of tensor `index`, which must not be stored in pieces.
    pub(crate) fn place(&self, index: usize) -> Result<(TensorSpec, ShardPlace, Region)> {
        let key = self.key(index);
        let (entry, spec) = self.checked_entry(self.tensors.start + index)?;
        if entry.slices > 0 {
            return Err(self.malformed(key, "it is stored in pieces"));
        }
        Ok((spec, ShardPlace { shard: entry.shard_id, offset: entry.offset }, self.region(key, &entry)?))
    }

    /// Fills `buf` from `at` bytes behind a place.
    pub(crate) fn read(&self, place: ShardPlace, at: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        self.shards.read(place.shard, place.offset + at, buf, calls)
    }

    /// The tensor with this key.
    fn position(&self, key: &[u8]) -> Option<usize> {
        self.index.find(key)?.checked_sub(self.tensors.start)
    }

    fn malformed(&self, key: &[u8], detail: impl Into<String>) -> Error {
        let what =
            if is_piece_key(key) { "a piece's bundle entry".to_owned() } else { format!("bundle entry {:?}", Name::new(key).to_string()) };
        Error::malformed(&self.index_path, what, detail)
    }

    fn malformed_entry(&self, key: &[u8], error: &ParseError) -> Error {
        self.malformed(key, format!("{} at byte {}: {}", error.what, error.offset, error.detail))
    }

    /// Entry `i` of the index and its spec. Makes every check that does not need its shard.
    fn checked_entry(&self, i: usize) -> Result<(BundleEntry, TensorSpec)> {
        let key = self.index.key(i);
        let entry = BundleEntry::parse(self.index.value(i)).map_err(|e| self.malformed_entry(key, &e))?;
        let dtype = Dtype::from_code(entry.dtype)
            .ok_or_else(|| self.malformed(key, format!("dtype {} does not exist in stored tensors", entry.dtype)))?;
        let spec = TensorSpec::new(dtype, entry.shape.clone()).map_err(|request| self.malformed(key, request.to_string()))?;
        if entry.slices == 0 {
            if entry.shard_id >= self.header.num_shards {
                return Err(
                    self.malformed(key, format!("shard_id is {}, the header says {} shards", entry.shard_id, self.header.num_shards))
                );
            }
            if entry.offset.checked_add(entry.size).is_none() {
                return Err(self.malformed(key, format!("{} bytes at offset {} reach beyond 2^64", entry.size, entry.offset)));
            }
            if dtype.itemsize().is_some() && entry.size != spec.nbytes() {
                return Err(self.malformed(key, format!("size is {}, {spec} has {} bytes", entry.size, spec.nbytes())));
            }
        }
        Ok((entry, spec))
    }

    /// The bytes that `entry` describes, in a shard that exists and is long enough.
    fn region(&self, key: &[u8], entry: &BundleEntry) -> Result<Region> {
        let shard = self.shards.open(entry.shard_id)?;
        let (len, path) = (shard.len(), Arc::clone(shard.path()));
        if entry.offset + entry.size > len {
            let detail = format!("{} bytes at offset {} of {}, which has {len} bytes", entry.size, entry.offset, path.display());
            return Err(self.malformed(key, detail));
        }
        Ok(Region::new(path, entry.offset, entry.size, Checksum::Crc32c(crc::unmask(entry.masked_crc))))
    }

    /// The bytes of tensor `i`: one piece, or several that tile it.
    fn pieces(&self, i: usize) -> Result<(TensorSpec, Vec<Piece>, Vec<Region>)> {
        let key = self.index.key(i);
        let (entry, spec) = self.checked_entry(i)?;
        if entry.slices == 0 {
            let region = self.region(key, &entry)?;
            let piece = Piece { extent: PieceBox::whole(spec.shape()), shard: entry.shard_id, offset: entry.offset };
            return Ok((spec, vec![piece], vec![region]));
        }
        // Check the whole declaration before looking up any piece: a hostile one may name very many.
        let declared = || slices(self.index.value(i)).map(|extents| extents.map_err(|e| self.malformed_entry(key, &e)));
        let mut tiling = Tiling::default();
        let mut covered = 0u128;
        for extents in declared() {
            let extent = self.piece_box(key, spec.shape(), &extents?)?;
            tiling.add(&extent);
            covered += u128::from(extent.elements());
        }
        if !tiling.is_exact(spec.shape()) {
            let (pieces, elements) = (entry.slices, spec.elements());
            let detail = format!("{pieces} pieces with {covered} elements do not cover the {elements} elements of {spec} exactly once");
            return Err(self.malformed(key, detail));
        }
        let mut pieces = Vec::new();
        let mut regions = Vec::new();
        for extents in declared() {
            let extents = extents?;
            let extent = self.piece_box(key, spec.shape(), &extents)?;
            let stored_key = piece_key(key, &extents);
            let describe = || format!("piece {}", extents_text(&extent));
            let at = self.index.find(&stored_key);
            let at = at.ok_or_else(|| self.malformed(key, format!("{} is declared but has no entry", describe())))?;
            let (stored, stored_spec) = self.checked_entry(at)?;
            if stored_spec.dtype() != spec.dtype() || stored_spec.shape() != extent.shape || stored.slices != 0 {
                let detail = format!("{} is stored as {stored_spec}, the tensor is {spec}", describe());
                return Err(self.malformed(key, detail));
            }
            regions.push(self.region(&stored_key, &stored)?);
            pieces.push(Piece { extent, shard: stored.shard_id, offset: stored.offset });
        }
        Ok((spec, pieces, regions))
    }

    fn piece_box(&self, key: &[u8], shape: &[u64], extents: &[Extent]) -> Result<PieceBox> {
        PieceBox::of_extents(extents, shape).map_err(|detail| self.malformed(key, detail))
    }

    /// The strings of tensor `i`.
    fn stored_strings(&self, i: usize) -> Result<StoredStrings<'_>> {
        let key = self.index.key(i);
        let (entry, spec) = self.checked_entry(i)?;
        Ok(StoredStrings {
            bytes: StringBytes::Shard(&self.shards, entry.shard_id),
            big_endian: self.header.big_endian,
            name: Name::new(key).to_string(),
            region: self.region(key, &entry)?,
            shape: spec.shape().to_vec(),
        })
    }

    /// The aliases, read from the object graph when first needed.
    fn aliases(&self) -> Result<Option<&Aliases>, &str> {
        self.aliases.get_or_init(|| self.read_aliases().map_err(|e| e.to_string())).as_ref().map(Option::as_ref).map_err(String::as_str)
    }

    /// Whether TensorFlow added this key to an object-based checkpoint for its own use.
    fn is_bookkeeping(&self, key: &[u8]) -> bool {
        key == OBJECT_GRAPH_KEY || key == SAVE_COUNTER_KEY && self.index.find(OBJECT_GRAPH_KEY).is_some()
    }

    fn read_aliases(&self) -> Result<Option<Aliases>> {
        let Some(i) = self.index.find(OBJECT_GRAPH_KEY) else {
            return Ok(None);
        };
        let (entry, spec) = self.checked_entry(i)?;
        if spec.dtype() != Dtype::String || !spec.shape().is_empty() || entry.slices != 0 {
            return Ok(None);
        }
        if entry.size > self.limits.object_graph_bytes {
            let what = format!("memory for the object graph of {}", self.index_path.display());
            return Err(Error::Limit { what, asked: entry.size, allowed: Some(self.limits.object_graph_bytes) });
        }
        let strings = self.stored_strings(i)?;
        let path = Arc::clone(&strings.region.path);
        let (offset, graph) = Strings::read_scalar(strings, self.shards.calls())?;
        let graph = ObjectGraph::parse(&graph, self.limits.object_graph_bytes).map_err(|e| e.shifted(offset).in_file(&path))?;
        Ok(Some(Aliases::new(graph)))
    }
}

/// A box in readable form: `[0:2, 3:9]`.
pub(crate) fn extents_text(extent: &PieceBox) -> String {
    let parts: Vec<String> = extent.start.iter().zip(&extent.shape).map(|(start, len)| format!("{start}:{}", start + len)).collect();
    format!("[{}]", parts.join(", "))
}

impl Container for Bundle {
    fn format(&self) -> &'static str {
        self.format
    }

    fn len(&self) -> Result<usize> {
        Ok(self.tensors.len())
    }

    fn info(&self, index: usize) -> Result<TensorInfo> {
        let i = self.tensors.start + index;
        let key = self.index.key(i);
        let (entry, spec) = self.checked_entry(i)?;
        let unsupported = if spec.dtype() == Dtype::String && entry.slices > 0 {
            Some("it is stored in pieces, which TensorFlow does not read either".to_owned())
        } else if spec.dtype() != Dtype::String && spec.dtype().descr().is_none() {
            Some(match spec.dtype() {
                Dtype::Variant => {
                    "it is a variant, a TensorFlow object (a ragged or sparse tensor, an Optional, a data set), which is not \
                                   read: save or cache its tensors other_checkpoints: tf.convert_to_tensor of a row of a ragged tensor, (r.flat_values, *r.nested_row_splits) of \
                                   a whole one"
                        .to_owned()
                }
                dtype => format!("dtype {dtype} has no elements of fixed size"),
            })
        } else if spec.shape().len() > MAX_NDIM {
            Some(format!("{} dimensions, NumPy arrays have at most {MAX_NDIM}", spec.shape().len()))
        } else {
            None
        };
        // Show an alias only if looking it up finds this tensor.
        let alias = self.aliases().ok().flatten().and_then(|aliases| aliases.of_key(key));
        let alias = alias.filter(|alias| self.position(alias.as_bytes()).or_else(|| self.find_alias(alias.as_bytes())) == Some(index));
        let bookkeeping = self.is_bookkeeping(key);
        Ok(TensorInfo { alias, bookkeeping, unsupported, ..TensorInfo::new(Name::new(key), spec) })
    }

    fn is_meant(&self, index: usize) -> Result<bool> {
        Ok(!self.is_bookkeeping(self.key(index)))
    }

    fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.position(name))
    }

    fn find_alias(&self, alias: &[u8]) -> Option<usize> {
        // A variable's path needs no object graph.
        self.position(&value_key(alias)).or_else(|| {
            let aliases = self.aliases().ok().flatten()?;
            aliases.candidates(alias).iter().find_map(|key| self.position(key))
        })
    }

    fn reader(&self, index: usize) -> Result<Box<dyn TensorReader + '_>> {
        let (spec, pieces, regions) = self.pieces(self.tensors.start + index)?;
        Ok(Box::new(PieceReader::new(&self.shards, spec, self.byte_order(), pieces, regions)))
    }

    fn strings(&self, index: usize) -> Result<StoredStrings<'_>> {
        self.stored_strings(self.tensors.start + index)
    }

    fn heap_bytes(&self) -> u64 {
        let aliases = self.aliases.get().and_then(|aliases| aliases.as_ref().ok()).and_then(Option::as_ref);
        self.index.heap_bytes() + aliases.map_or(0, Aliases::heap_bytes)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.shards.present();
        files.push(self.index_path.clone());
        files
    }

    fn facts(&self) -> Map<String, Value> {
        let mut shards = Vec::new();
        let mut present = 0;
        for shard in 0..self.shards.num_shards().min(MOST_SHARDS_NAMED) {
            let path = self.shards.path(shard);
            let length = self.shards.len_of(shard);
            present += u64::from(length.is_some());
            shards.push(json!({"path": path.to_string_lossy(), "bytes": length}));
        }
        let mut facts = Map::new();
        facts.insert(
            "index".into(),
            json!({
                "path": self.index_path.to_string_lossy(),
                "bytes": self.index.file_len,
                "blocks": self.index.blocks,
                "snappy_blocks": self.index.snappy_blocks,
            }),
        );
        facts.insert("producer".into(), json!(self.header.producer));
        facts.insert("byte_order".into(), json!(if self.header.big_endian { "big" } else { "little" }));
        facts.insert("num_shards".into(), json!(self.shards.num_shards()));
        facts.insert("shards_present".into(), json!(present));
        facts.insert("shards".into(), json!(shards));
        facts.insert("compression".into(), json!("none"));
        facts.insert("checksums".into(), json!("crc32c"));
        facts.insert("object_graph".into(), json!(matches!(self.aliases(), Ok(Some(_)))));
        facts
    }

    fn tensor_facts(&self, index: usize) -> Result<Map<String, Value>> {
        let (_, pieces, regions) = self.pieces(self.tensors.start + index)?;
        let listed: Vec<Value> = pieces
            .iter()
            .zip(&regions)
            .map(|(piece, region)| {
                json!({
                    "start": piece.extent.start,
                    "shape": piece.extent.shape,
                    "path": region.path.to_string_lossy(),
                    "offset": region.offset,
                    "nbytes": region.nbytes,
                    "crc32c": format!("{:#010x}", region.checksum.value()),
                })
            })
            .collect();
        let mut facts = Map::new();
        facts.insert("pieces".into(), json!(listed));
        Ok(facts)
    }

    fn warnings(&self) -> Vec<String> {
        self.aliases().err().map(|why| format!("no aliases: {why}")).into_iter().collect()
    }
}

//! `.npy` files as sources: for slices, casts, other orders and joins.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::{Container, TensorInfo};
use super::driver::Driver;
use super::table::{TensorPlace, TensorTable};
use crate::error::{Error, Result};
use crate::format::npy::{Elements, Header, MAX_TEXT_LEN};
use crate::options::Options;
use crate::reader::stored::{Check, StoredArray};
use crate::reader::tensor_reader::TensorReader;
use crate::storage::blob::Blob;
use crate::storage::probe::Probe;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::name::Name;
use crate::types::size::memory_len;
use crate::types::spec::{MAX_NDIM, TensorSpec};

/// The first bytes of every array.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header, with the bytes before its text.
pub(crate) const MOST_HEADER: u64 = MAX_TEXT_LEN as u64 + 12;
/// The file extension of arrays.
pub(crate) const EXTENSION: &str = ".npy";
const WHAT: &str = ".npy data";
/// Most arrays that are listed in a file.
const MOST_ARRAYS: usize = 1 << 20;

/// A file of one or more arrays.
pub(crate) struct Npy;

impl Driver for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        Ok(probe.starts_with(MAGIC)?.then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let file = place.open()?;
        let salvage = options.records.salvage.get().unwrap_or_default();
        let mut arrays = Vec::new();
        let mut at = 0;
        while at < file.len() || arrays.is_empty() {
            if arrays.len() == MOST_ARRAYS {
                let what = format!("{}: more than {MOST_ARRAYS} arrays in a file", path.display());
                return Err(Error::Unsupported { what, detail: "save them with numpy.savez".into() });
            }
            let found = array_at(&file, at, salvage)?;
            let end = found.end;
            arrays.push(found);
            // Pickled objects have no known end.
            let Some(end) = end else { break };
            at = end;
        }
        let names: Vec<(Name, Option<String>)> = match &arrays[..] {
            [_] => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let alias = path.file_name().map(|name| name.to_string_lossy().into_owned());
                vec![(Name::new(stem.clone()), alias.filter(|alias| *alias != stem))]
            }
            // The names that `numpy.savez` gives to unnamed arrays.
            several => (0..several.len()).map(|number| (Name::new(format!("arr_{number}")), None)).collect(),
        };
        let tensor = |((name, alias), Found { place, lost, .. }): ((Name, Option<String>), Found)| {
            (TensorInfo { alias, lost: lost.into_iter().collect(), ..place.array.info(name) }, place)
        };
        let tensors: Vec<(TensorInfo, InFile)> = names.into_iter().zip(arrays).map(tensor).collect();
        let lost = tensors.iter().flat_map(|(info, _)| info.lost.clone()).collect();
        Ok(Box::new(TensorTable::new(self.name(), vec![path.to_owned()], tensors, Map::new()).with_warnings(lost)))
    }
}

/// An array found in a file.
struct Found {
    place: InFile,
    /// What was lost of it.
    lost: Option<String>,
    /// Where it ends, if known.
    end: Option<u64>,
}

/// The array whose header starts at byte `at`.
fn array_at(file: &Arc<dyn Blob>, at: u64, salvage: bool) -> Result<Found> {
    let path = file.path();
    let mut front = vec![0; memory_len((file.len() - at).min(MOST_HEADER))];
    file.read(at, &mut front, file.calls())?;
    if at > 0 && !front.starts_with(MAGIC) {
        let detail = format!(
            "{} bytes follow the array, and they do not start another array: a part of another file, or of an older and longer one; \
             where they are not needed, cut the file at byte {at}",
            file.len() - at
        );
        return Err(Error::malformed_at(path, WHAT, at, detail));
    }
    let (header, start) = Header::parse(&front).map_err(|error| error.shifted(at).in_file(path))?;
    let offset = at + start;
    let mut array = NpyArray::new(&header).map_err(|detail| Error::malformed_at(path, ".npy header", at, detail))?;
    let place = |array| InFile { file: Arc::clone(file), offset, array };
    if array.is_objects() {
        return Ok(Found { place: place(array), lost: None, end: None });
    }
    let have = file.len() - offset;
    let lost = if have < array.spec.nbytes() {
        Some(array.cut(have, salvage).map_err(|detail| Error::malformed_at(path, WHAT, offset, detail))?)
    } else {
        None
    };
    let end = if lost.is_some() { file.len() } else { offset + array.spec.nbytes() };
    let lost = lost.map(|lost| format!("{}: {lost}", path.display()));
    Ok(Found { place: place(array), lost, end: Some(end) })
}

/// What an array's header says about its elements.
#[derive(Debug, Clone)]
pub(crate) struct NpyArray {
    pub(crate) spec: TensorSpec,
    pub(crate) order: ByteOrder,
    pub(crate) layout: Layout,
    item: Option<String>,
    unsupported: Option<String>,
    descr: String,
}

impl NpyArray {
    /// # Errors
    /// What is wrong with the header: an unknown descriptor, or a shape that no array has.
    pub(crate) fn new(header: &Header) -> Result<Self, String> {
        let layout = if header.fortran_order && header.orders_differ() { Layout::F } else { Layout::C };
        let elements = Elements::of(&header.descr).ok_or_else(|| format!("{:?} is not a known descriptor", header.descr))?;
        let mut shape = header.shape.clone();
        let (mut item, mut unsupported) = (None, None);
        let (dtype, order) = match elements {
            Elements::Plain(dtype, order) => (dtype, order),
            Elements::Items(bytes) => {
                shape.push(bytes);
                item = Some(header.descr.clone());
                if layout == Layout::F {
                    unsupported =
                        Some(format!("its elements ({}) are in Fortran order, which is supported for numbers only", header.descr));
                }
                (Dtype::UInt8, ByteOrder::Little)
            }
            Elements::Objects => {
                unsupported = Some("its elements are pickled Python objects, which are never loaded".to_owned());
                (Dtype::Variant, ByteOrder::Little)
            }
        };
        if header.shape.len() > MAX_NDIM {
            return Err(format!("{} dimensions, NumPy arrays have at most {MAX_NDIM}", header.shape.len()));
        }
        let spec = TensorSpec::new(dtype, shape).map_err(|request| request.to_string())?;
        Ok(Self { spec, order, layout, item, unsupported, descr: header.descr.clone() })
    }

    pub(crate) fn info(&self, name: Name) -> TensorInfo {
        TensorInfo { item: self.item.clone(), unsupported: self.unsupported.clone(), ..TensorInfo::new(name, self.spec.clone()) }
    }

    /// Whether its elements are pickled objects, whose end is unknown.
    fn is_objects(&self) -> bool {
        self.spec.dtype() == Dtype::Variant
    }

    /// If only `have` bytes exist, cuts the array to its complete rows for `salvage`. Returns what was lost.
    ///
    /// # Errors
    /// What exists and what is missing.
    fn cut(&mut self, have: u64, salvage: bool) -> Result<String, String> {
        let spec = &self.spec;
        let missing = format!("{} has {} bytes, {have} are there: its end is missing", spec, spec.nbytes());
        let Some((&rows, _)) = spec.shape().split_first().filter(|_| self.layout == Layout::C) else {
            let detail = if self.layout == Layout::F { "no row is whole, since it is in Fortran order" } else { "it has no rows" };
            return Err(format!("{missing}, and {detail}"));
        };
        let whole = have / spec.row_bytes();
        match whole {
            0 => Err(format!("{missing}, and none of its {rows} rows is whole")),
            _ if !salvage => Err(format!("{missing}; {whole} of its {rows} rows are whole, and `salvage` converts them")),
            _ => {
                self.spec = spec.with_rows(&(0..whole));
                Ok(format!("{missing}; {whole} of its {rows} rows are kept"))
            }
        }
    }

    pub(crate) fn facts(&self) -> Map<String, Value> {
        let order = if self.layout == Layout::F { "F" } else { "C" };
        Map::from_iter([("stored_descr".to_owned(), json!(self.descr)), ("stored_order".to_owned(), json!(order))])
    }
}

/// An array whose elements are in a file, not packed.
#[derive(Debug)]
pub(crate) struct InFile {
    pub(crate) file: Arc<dyn Blob>,
    pub(crate) offset: u64,
    pub(crate) array: NpyArray,
}

impl InFile {
    pub(crate) fn stored(&self) -> Result<StoredArray> {
        let NpyArray { spec, order, layout, .. } = &self.array;
        let stored = StoredArray::new(&self.file, self.offset, spec.clone(), WHAT)?;
        Ok(stored.byte_ordered(*order).laid_out(*layout).checked(Check::OddBools))
    }
}

impl TensorPlace for InFile {
    fn reader<'a>(&'a self, _: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        Ok(Box::new(self.stored()?))
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.array.facts();
        facts.insert("offset".into(), json!(self.offset));
        facts
    }
}

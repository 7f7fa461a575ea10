//! `.npy` files as sources: to be cut, cast, put into another order, or joined.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::driver::Driver;
use super::listed::{Listed, Place};
use super::stored::{Check, StoredArray, StoredFile};
use super::{Container, Name, TensorInfo, TensorReader};
use crate::decode::ByteOrder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::format::npy::{Elements, Header, MAX_TEXT_LEN};
use crate::options::{Layout, Options};
use crate::os::Calls;
use crate::paths::is_file;
use crate::spec::{MAX_NDIM, TensorSpec, memory_len};

/// What every array starts with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The most bytes of a header, with what stands before its text.
pub(super) const MOST_HEADER: u64 = MAX_TEXT_LEN as u64 + 12;
/// What names of arrays end in.
pub(super) const EXTENSION: &str = ".npy";
const WHAT: &str = ".npy data";

/// One array in a file.
pub(crate) struct Npy;

impl Driver for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }

    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>> {
        Ok((is_file(path)? && super::driver::starts_with(path, MAGIC)?).then(|| path.to_owned()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, _: &Options) -> Result<Box<dyn Container>> {
        let file = StoredFile::open(path)?;
        let mut front = vec![0; memory_len(file.len().min(MOST_HEADER))];
        file.read(0, &mut front, Calls::Native)?;
        let (header, offset) = Header::parse(&front).map_err(|error| error.in_file(path))?;
        let array = NpyArray::new(&header).map_err(|detail| Error::malformed(path, ".npy header", detail))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let alias = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let info = TensorInfo { alias: alias.filter(|alias| *alias != stem), ..array.info(Name::new(stem)) };
        let place = InFile { file, offset, array };
        // A file that is cut is told before anything is asked of it.
        if info.unsupported.is_none() {
            place.reader(&info)?;
        }
        Ok(Box::new(Listed::new(self.name(), vec![path.to_owned()], vec![(info, place)], Map::new())))
    }
}

/// What the header of an array says of its elements.
#[derive(Debug, Clone)]
pub(super) struct NpyArray {
    pub(super) spec: TensorSpec,
    pub(super) order: ByteOrder,
    pub(super) layout: Layout,
    item: Option<String>,
    unsupported: Option<String>,
    descr: String,
}

impl NpyArray {
    /// # Errors
    /// What is wrong with the header: a descriptor that means nothing, a shape that no array has.
    pub(super) fn new(header: &Header) -> Result<Self, String> {
        let layout = if header.fortran_order && header.orders_differ() { Layout::F } else { Layout::C };
        let elements = Elements::of(&header.descr).ok_or_else(|| format!("{:?} is no descriptor that is known", header.descr))?;
        let mut shape = header.shape.clone();
        let (mut item, mut unsupported) = (None, None);
        let (dtype, order) = match elements {
            Elements::Plain(dtype, order) => (dtype, order),
            Elements::Items(bytes) => {
                shape.push(bytes);
                item = Some(header.descr.clone());
                if layout == Layout::F {
                    unsupported = Some(format!("its elements ({}) are in Fortran order, in which only numbers are read", header.descr));
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
        Ok(Self { spec: TensorSpec::new(dtype, shape)?, order, layout, item, unsupported, descr: header.descr.clone() })
    }

    pub(super) fn info(&self, name: Name) -> TensorInfo {
        TensorInfo { item: self.item.clone(), unsupported: self.unsupported.clone(), ..TensorInfo::new(name, self.spec.clone()) }
    }

    pub(super) fn facts(&self) -> Map<String, Value> {
        let order = if self.layout == Layout::F { "F" } else { "C" };
        Map::from_iter([("stored_descr".to_owned(), json!(self.descr)), ("stored_order".to_owned(), json!(order))])
    }
}

/// An array whose elements lie in a file as they are.
#[derive(Debug)]
pub(super) struct InFile {
    pub(super) file: Arc<StoredFile>,
    pub(super) offset: u64,
    pub(super) array: NpyArray,
}

impl InFile {
    pub(super) fn stored(&self) -> Result<StoredArray> {
        let NpyArray { spec, order, layout, .. } = &self.array;
        let stored = StoredArray::new(&self.file, self.offset, spec.clone(), WHAT)?;
        Ok(stored.byte_ordered(*order).laid_out(*layout).checked(Check::OddBools))
    }
}

impl Place for InFile {
    fn reader<'a>(&'a self, _: &TensorInfo) -> Result<Box<dyn TensorReader + 'a>> {
        Ok(Box::new(self.stored()?))
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.array.facts();
        facts.insert("offset".into(), json!(self.offset));
        facts
    }
}

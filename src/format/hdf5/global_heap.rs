//! Global heaps (III.E): storage for text of variable length.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::cursor::Cursor;
use super::failure::Result;
use super::image::{Block, Image};
use crate::types::size::memory_len;

const WHAT: &str = "global heap";

/// A reference to a text of variable length (IV.B), stored in place of the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextPlace {
    /// The address of the collection.
    pub(crate) collection: u64,
    /// The number of the object in it.
    pub(crate) object: u32,
    /// The length of the text.
    pub(crate) len: u32,
}

impl TextPlace {
    /// Bytes that a reference takes in a file.
    pub(crate) fn nbytes(image: &Image) -> u64 {
        8 + u64::from(image.sizes().address)
    }

    /// Reads a reference; `None` for an empty text.
    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<Option<Self>> {
        let len = cursor.u32()?;
        let (collection, object) = (cursor.address()?, cursor.u32()?);
        // The library writes zeros for an empty text.
        Ok(collection.filter(|&address| address != 0 && len > 0).map(|collection| Self { collection, object, len }))
    }
}

/// Parses consecutive references.
pub(crate) fn places(image: &Image, bytes: &[u8]) -> Result<Vec<Option<TextPlace>>> {
    let each = memory_len(TextPlace::nbytes(image));
    let parse = |bytes| TextPlace::parse(&mut Cursor::new(bytes, image.place(0), image.sizes(), "place of a text"));
    bytes.chunks(each).map(parse).collect()
}

/// Caches the last collection: consecutive texts are often in the same one.
#[derive(Debug, Default)]
pub(crate) struct LastCollection(Mutex<Option<(u64, Arc<Collection>)>>);

impl LastCollection {
    /// The collection at an address.
    pub(crate) fn get(&self, image: &Image, address: u64) -> Result<Arc<Collection>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = lock().as_ref().filter(|(known, _)| *known == address) {
            return Ok(Arc::clone(known));
        }
        let collection = Arc::new(Collection::read(image, address)?);
        *lock() = Some((address, Arc::clone(&collection)));
        Ok(collection)
    }
}

/// Objects that are stored together.
#[derive(Debug)]
pub(crate) struct Collection {
    block: Block,
    objects: HashMap<u32, Range<usize>>,
}

impl Collection {
    pub(crate) fn read(image: &Image, address: u64) -> Result<Self> {
        const FREE: u16 = 0;
        // Headers and objects both take multiples of 8 bytes.
        let front_len = (8 + u64::from(image.sizes().length)).next_multiple_of(8);
        let front = image.read(address, front_len, WHAT)?;
        let mut cursor = front.cursor(WHAT);
        cursor.signature(*b"GCOL")?;
        cursor.version(1..=1)?;
        cursor.skip(3)?;
        let block = image.read(address, cursor.length()?, WHAT)?;
        let mut cursor = block.cursor(WHAT);
        let (mut objects, front_len) = (HashMap::new(), memory_len(front_len));
        cursor.skip(front_len)?;
        while cursor.left() >= front_len {
            let mut front = cursor.part(front_len)?;
            let number = front.u16()?;
            front.skip(6)?;
            let len = front.length()?;
            if number == FREE {
                break;
            }
            let start = cursor.pos();
            cursor.skip(memory_len(len))?;
            objects.insert(number.into(), start..cursor.pos());
            let padding = cursor.pos().next_multiple_of(8) - cursor.pos();
            cursor.skip(padding.min(cursor.left()))?;
        }
        Ok(Self { block, objects })
    }

    /// Bytes of the collection in the file.
    pub(crate) fn nbytes(&self) -> u64 {
        self.block.bytes().len() as u64
    }

    /// The bytes of a text, up to the first NUL.
    pub(crate) fn text(&self, place: &TextPlace) -> Result<&[u8]> {
        let failure = |detail| self.block.cursor(WHAT).failure(detail);
        let range = self.objects.get(&place.object).ok_or_else(|| failure(format!("it has no object {}", place.object)))?;
        let object = &self.block.bytes()[range.clone()];
        let bytes = object.get(..memory_len(place.len.into()));
        let bytes =
            bytes.ok_or_else(|| failure(format!("object {} has {} bytes, a text in it {}", place.object, object.len(), place.len)))?;
        Ok(bytes.split(|&byte| byte == 0).next().unwrap_or(bytes))
    }
}

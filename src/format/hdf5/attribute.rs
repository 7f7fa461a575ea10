//! Text attributes (IV.A.2.m), the only ones that are read here.

use super::btree_v2;
use super::cursor::Cursor;
use super::cursor::text as text_of;
use super::datatype::{Class, Datatype};
use super::failure::Result;
use super::fractal_heap::Heap;
use super::global_heap::{LastCollection, TextPlace};
use super::image::Image;
use super::lookup3::lookup3;
use super::object_header::{Message, ObjectHeader};
use super::shared::{SharedHeaps, resolve};
use crate::types::size::memory_len;

const WHAT: &str = "attribute";

/// The structures that attributes are looked up in.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) image: &'a Image,
    pub(crate) heaps: &'a SharedHeaps,
    pub(crate) texts: &'a LastCollection,
}

/// An attribute that was found.
struct Attribute<'a> {
    datatype: Datatype,
    data: Cursor<'a>,
}

/// The text of the attribute `name` of an object; `None` if there is no such attribute, or it is not text.
pub(crate) fn text(places: Places<'_>, header: &ObjectHeader, name: &str) -> Result<Option<String>> {
    let Places { image, heaps, .. } = places;
    for message in header.all(Message::ATTRIBUTE) {
        let cursor = message.cursor(image.sizes(), WHAT);
        let shared = if message.is_shared() { Some(resolve(image, heaps, Message::ATTRIBUTE, cursor)?) } else { None };
        let message = shared.as_ref().unwrap_or(message);
        if let Some(found) = named(places, message.cursor(image.sizes(), WHAT), name)? {
            return found.text(places);
        }
    }
    match header.find(Message::ATTRIBUTE_INFO) {
        Some(info) => dense(places, info.cursor(image.sizes(), "attribute info"), name),
        None => Ok(None),
    }
}

/// Searches the attributes in a heap, which an attribute info message names (IV.A.2.v).
fn dense(places: Places<'_>, mut info: Cursor<'_>, name: &str) -> Result<Option<String>> {
    const HAS_ORDER: u8 = 1;
    const ID_LEN: usize = 8;
    const ORDER_LEN: usize = 4;
    const IS_SHARED: u8 = 2;
    info.version(0..=0)?;
    let flags = info.u8()?;
    info.skip(if flags & HAS_ORDER != 0 { 2 } else { 0 })?;
    let Some(heap) = info.address()? else { return Ok(None) };
    let index = info.known_address("the index of attributes")?;
    let mut ids = Vec::new();
    btree_v2::for_each(places.image, index, &[btree_v2::ATTRIBUTE_NAMES], |_, mut record| {
        let id = record.take(ID_LEN)?;
        let flags = record.u8()?;
        record.skip(ORDER_LEN)?;
        // Shared attributes are in another heap.
        if record.u32()? == lookup3(name.as_bytes()) && flags & IS_SHARED == 0 {
            ids.push(id.to_vec());
        }
        Ok(())
    })?;
    let mut found = None;
    if !ids.is_empty() {
        Heap::open(places.image, heap)?.objects(ids, |object| {
            if let Some(attribute) = named(places, object.named(WHAT), name)? {
                found = attribute.text(places)?;
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// The attribute at `cursor`, if its name is `name`.
fn named<'a>(places: Places<'_>, mut cursor: Cursor<'a>, name: &str) -> Result<Option<Attribute<'a>>> {
    const SHARED_DATATYPE: u8 = 1;
    let version = cursor.version(1..=3)?;
    let flags = cursor.u8()?;
    let [name_len, type_len, space_len] = [cursor.u16()?, cursor.u16()?, cursor.u16()?].map(usize::from);
    cursor.skip(usize::from(version == 3))?;
    let padded = |len: usize| if version == 1 { len.next_multiple_of(8) } else { len };
    let found = cursor.take(padded(name_len))?;
    if found.split(|&byte| byte == 0).next() != Some(name.as_bytes()) {
        return Ok(None);
    }
    let datatype = cursor.part(padded(type_len))?.named("datatype");
    cursor.skip(padded(space_len))?;
    let datatype = if version > 1 && flags & SHARED_DATATYPE != 0 {
        let message = resolve(places.image, places.heaps, Message::DATATYPE, datatype)?;
        Datatype::parse(message.cursor(places.image.sizes(), "datatype"))?
    } else {
        Datatype::parse(datatype)?
    };
    Ok(Some(Attribute { datatype, data: cursor }))
}

impl Attribute<'_> {
    fn text(mut self, places: Places<'_>) -> Result<Option<String>> {
        match self.datatype.class {
            Class::AnyText if self.data.left() > 0 => match TextPlace::parse(&mut self.data)? {
                Some(place) => Ok(Some(text_of(places.texts.get(places.image, place.collection)?.text(&place)?))),
                None => Ok(Some(String::new())),
            },
            Class::Text { .. } => {
                let bytes = self.data.rest().get(..memory_len(self.datatype.size.into()));
                Ok(bytes.and_then(|bytes| self.datatype.fixed_text(bytes)))
            }
            _ => Ok(None),
        }
    }
}

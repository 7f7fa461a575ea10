//! Attributes (IV.A.2.m) that are one text: all that is asked of them here.

use super::btree_v2;
use super::cursor::Cursor;
use super::datatype::{Class, Datatype};
use super::failure::Result;
use super::fractal_heap::Heap;
use super::global_heap::{Collection, TextPlace};
use super::image::Image;
use super::lookup3::lookup3;
use super::object_header::{Message, ObjectHeader};
use super::shared::{SharedHeaps, resolve};

/// The text of the attribute `name` of an object; `None` where there is no such attribute, or it is no text.
pub(crate) fn text(image: &Image, heaps: &SharedHeaps, header: &ObjectHeader, name: &str) -> Result<Option<String>> {
    const WHAT: &str = "attribute";
    for message in header.all(Message::ATTRIBUTE) {
        let cursor = message.cursor(image.sizes(), WHAT);
        let found = if message.is_shared() {
            let message = resolve(image, heaps, Message::ATTRIBUTE, cursor)?;
            parse(image, heaps, message.cursor(image.sizes(), WHAT), name)?
        } else {
            parse(image, heaps, cursor, name)?
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    match header.find(Message::ATTRIBUTE_INFO) {
        Some(info) => dense(image, heaps, info.cursor(image.sizes(), "attribute info"), name),
        None => Ok(None),
    }
}

/// Looks among the attributes in a heap, which an attribute info message names (IV.A.2.v).
fn dense(image: &Image, heaps: &SharedHeaps, mut info: Cursor<'_>, name: &str) -> Result<Option<String>> {
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
    btree_v2::for_each(image, index, &[btree_v2::ATTRIBUTE_NAMES], |_, mut record| {
        let id = record.take(ID_LEN)?;
        let flags = record.u8()?;
        record.skip(ORDER_LEN)?;
        // One that objects share lies in another heap.
        if record.u32()? == lookup3(name.as_bytes()) && flags & IS_SHARED == 0 {
            ids.push(id.to_vec());
        }
        Ok(())
    })?;
    let mut found = None;
    if !ids.is_empty() {
        Heap::open(image, heap)?.objects(ids, |object| {
            found = found.take().or(parse(image, heaps, object.named("attribute"), name)?);
            Ok(())
        })?;
    }
    Ok(found.flatten())
}

/// Parses an attribute if it is called `name`; its text, if it is one.
fn parse(image: &Image, heaps: &SharedHeaps, mut cursor: Cursor<'_>, name: &str) -> Result<Option<Option<String>>> {
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
        let message = resolve(image, heaps, Message::DATATYPE, datatype)?;
        Datatype::parse(message.cursor(image.sizes(), "datatype"))?
    } else {
        Datatype::parse(datatype)?
    };
    let text = match datatype.class {
        Class::AnyText => match cursor.rest() {
            [] => None,
            _ => match TextPlace::parse(&mut cursor)? {
                Some(place) => Some(super::cursor::text(Collection::read(image, place.collection)?.text(&place)?)),
                None => Some(String::new()),
            },
        },
        Class::Text { .. } => {
            cursor.rest().get(..usize::try_from(datatype.size).unwrap_or(usize::MAX)).and_then(|bytes| datatype.fixed_text(bytes))
        }
        _ => None,
    };
    Ok(Some(text))
}

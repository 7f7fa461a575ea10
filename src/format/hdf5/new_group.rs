//! Groups of the new form: links in header messages, or in a fractal heap that a link info message names (IV.A.2.c).

use super::btree_v2;
use super::cursor::Cursor;
use super::failure::Result;
use super::fractal_heap::Heap;
use super::image::Image;
use super::link::Link;

/// Adds the links that a link info message names, which are outside the header.
pub(crate) fn dense_links(image: &Image, mut info: Cursor<'_>, links: &mut Vec<Link>) -> Result<()> {
    /// The hash of the name, which precedes the identifier in the heap.
    const HASH: usize = 4;
    const HAS_ORDER: u8 = 1;
    info.version(0..=0)?;
    let flags = info.u8()?;
    info.skip(if flags & HAS_ORDER != 0 { 8 } else { 0 })?;
    let Some(heap) = info.address()? else { return Ok(()) };
    let index = info.known_address("the index of links")?;
    let mut ids = Vec::new();
    btree_v2::for_each(image, index, &[btree_v2::LINK_NAMES], |_, mut record| {
        record.skip(HASH)?;
        ids.push(record.rest().to_vec());
        Ok(())
    })?;
    Heap::open(image, heap)?.objects(ids, |object| {
        links.push(Link::parse(object.named("link"))?);
        Ok(())
    })
}

//! An HDF5 file: its objects by their addresses, and what their headers say.

use std::borrow::Cow;
use std::sync::Arc;

use super::attribute;
use super::dataspace::Dataspace;
use super::datatype::Datatype;
use super::failure::{Failure, Result};
use super::filter_pipeline::{self, Filter};
use super::image::{Image, Storage};
use super::layout::Layout;
use super::link::Link;
use super::object_header::{Message, ObjectHeader};
use super::shared::{SharedHeaps, resolve};
use super::superblock::{self, Superblock};
use super::{fill_value, new_group, old_group};

/// An HDF5 file whose superblock has been read.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) image: Image,
    pub(crate) superblock: Superblock,
    heaps: SharedHeaps,
}

impl File {
    /// Opens the file whose superblock lies at byte `at` of a storage.
    pub(crate) fn open(storage: Arc<dyn Storage>, at: u64) -> Result<Self> {
        let (image, superblock) = superblock::open(storage, at)?;
        let have = image.len();
        if superblock.end > have {
            let detail = format!("it says that the file ends at byte {}, {have} bytes are there: it was cut", superblock.end);
            return Err(Failure::broken(at, "superblock", detail));
        }
        let mut heaps = SharedHeaps::default();
        if let Some(extension) = superblock.extension {
            let header = ObjectHeader::read(&image, extension)?;
            if let Some(message) = header.find(Message::SHARED_MESSAGES) {
                heaps = SharedHeaps::read(&image, message.cursor(image.sizes(), "shared message table message"))?;
            }
        }
        Ok(Self { image, superblock, heaps })
    }

    /// The header of the object at an address.
    pub(crate) fn header(&self, address: u64) -> Result<ObjectHeader> {
        ObjectHeader::read(&self.image, address)
    }

    /// The links of a group.
    pub(crate) fn links(&self, header: &ObjectHeader) -> Result<Vec<Link>> {
        let sizes = self.image.sizes();
        if let Some(table) = header.find(Message::SYMBOL_TABLE) {
            return old_group::links(&self.image, table.cursor(sizes, "symbol table message"));
        }
        let messages = header.all(Message::LINK).map(|message| Link::parse(message.cursor(sizes, "link message")));
        let mut links = messages.collect::<Result<Vec<_>>>()?;
        if let Some(info) = header.find(Message::LINK_INFO) {
            new_group::dense_links(&self.image, info.cursor(sizes, "link info message"), &mut links)?;
        }
        Ok(links)
    }

    /// The shape of a dataset.
    pub(crate) fn dataspace(&self, header: &ObjectHeader) -> Result<Dataspace> {
        const WHAT: &str = "dataspace message";
        Dataspace::parse(self.needed(header, Message::DATASPACE, WHAT)?.cursor(self.image.sizes(), WHAT))
    }

    /// What the elements of a dataset are.
    pub(crate) fn datatype(&self, header: &ObjectHeader) -> Result<Datatype> {
        const WHAT: &str = "datatype message";
        Datatype::parse(self.needed(header, Message::DATATYPE, WHAT)?.cursor(self.image.sizes(), WHAT))
    }

    /// Where the elements of a dataset lie.
    pub(crate) fn layout(&self, header: &ObjectHeader) -> Result<Layout> {
        const WHAT: &str = "layout message";
        Layout::parse(self.needed(header, Message::LAYOUT, WHAT)?.cursor(self.image.sizes(), WHAT))
    }

    /// What an element of a dataset is that was never written; `None` for zeros.
    pub(crate) fn fill_value(&self, header: &ObjectHeader) -> Result<Option<Vec<u8>>> {
        const WHAT: &str = "fill value message";
        let sizes = self.image.sizes();
        if let Some(message) = self.message(header, Message::FILL_VALUE, WHAT)? {
            return fill_value::parse(message.cursor(sizes, WHAT));
        }
        match self.message(header, Message::OLD_FILL_VALUE, WHAT)? {
            Some(message) => fill_value::parse_old(message.cursor(sizes, WHAT)),
            None => Ok(None),
        }
    }

    /// What chunks of a dataset went through, in this order.
    pub(crate) fn filters(&self, header: &ObjectHeader) -> Result<Vec<Filter>> {
        const WHAT: &str = "filter pipeline message";
        match self.message(header, Message::FILTER_PIPELINE, WHAT)? {
            Some(message) => filter_pipeline::parse(message.cursor(self.image.sizes(), WHAT)),
            None => Ok(Vec::new()),
        }
    }

    /// The text of an attribute; `None` where there is no such attribute, or it is no text.
    pub(crate) fn text_attribute(&self, header: &ObjectHeader, name: &str) -> Result<Option<String>> {
        attribute::text(&self.image, &self.heaps, header, name)
    }

    /// The first message of a kind, from wherever it is stored.
    fn message<'h>(&self, header: &'h ObjectHeader, kind: u16, what: &'static str) -> Result<Option<Cow<'h, Message>>> {
        match header.find(kind) {
            Some(message) if message.is_shared() => {
                Ok(Some(Cow::Owned(resolve(&self.image, &self.heaps, kind, message.cursor(self.image.sizes(), what))?)))
            }
            message => Ok(message.map(Cow::Borrowed)),
        }
    }

    fn needed<'h>(&self, header: &'h ObjectHeader, kind: u16, what: &'static str) -> Result<Cow<'h, Message>> {
        self.message(header, kind, what)?.ok_or_else(|| Failure::broken(header.at, what, "the object has none"))
    }
}

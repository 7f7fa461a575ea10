//! An HDF5 file: objects by address, and the content of their headers.

use std::borrow::Cow;
use std::sync::Arc;

use super::attribute::{self, Places};
use super::dataspace::Dataspace;
use super::datatype::Datatype;
use super::failure::{Failure, Result};
use super::filter_pipeline::{self, Filter};
use super::global_heap::LastCollection;
use super::image::{Image, ImageBytes};
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
    texts: LastCollection,
}

impl File {
    /// Opens the file whose superblock lies at byte `at` of a storage.
    pub(crate) fn open(storage: Arc<dyn ImageBytes>, at: u64) -> Result<Self> {
        let (image, superblock) = superblock::open(storage, at)?;
        let have = image.len();
        if superblock.end > have {
            let detail = format!("the file should end at byte {}, it has {have} bytes: it was cut", superblock.end);
            return Err(Failure::broken(at, "superblock", detail));
        }
        let mut heaps = SharedHeaps::default();
        if let Some(extension) = superblock.extension {
            let header = ObjectHeader::read(&image, extension)?;
            if let Some(message) = header.find(Message::SHARED_MESSAGES) {
                heaps = SharedHeaps::read(&image, message.cursor(image.sizes(), "shared message table message"))?;
            }
        }
        Ok(Self { image, superblock, heaps, texts: LastCollection::default() })
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

    /// The element type of a dataset.
    pub(crate) fn datatype(&self, header: &ObjectHeader) -> Result<Datatype> {
        const WHAT: &str = "datatype message";
        Datatype::parse(self.needed(header, Message::DATATYPE, WHAT)?.cursor(self.image.sizes(), WHAT))
    }

    /// The storage layout of a dataset.
    pub(crate) fn layout(&self, header: &ObjectHeader) -> Result<Layout> {
        const WHAT: &str = "layout message";
        Layout::parse(self.needed(header, Message::LAYOUT, WHAT)?.cursor(self.image.sizes(), WHAT))
    }

    /// The value of elements that were never written; `None` for zeros.
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

    /// The filters of a dataset's chunks, in the order of writing.
    pub(crate) fn filters(&self, header: &ObjectHeader) -> Result<Vec<Filter>> {
        const WHAT: &str = "filter pipeline message";
        match self.message(header, Message::FILTER_PIPELINE, WHAT)? {
            Some(message) => filter_pipeline::parse(message.cursor(self.image.sizes(), WHAT)),
            None => Ok(Vec::new()),
        }
    }

    /// The text of an attribute; `None` if there is no such attribute, or it is not text.
    pub(crate) fn text_attribute(&self, header: &ObjectHeader, name: &str) -> Result<Option<String>> {
        attribute::text(Places { image: &self.image, heaps: &self.heaps, texts: &self.texts }, header, name)
    }

    /// The first message of a kind, resolved if it is shared.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;
    use crate::format::hdf5::chunk_index;
    use crate::format::hdf5::image::tests::LETS_CHECKSUMS_PASS;
    use crate::format::hdf5::link::LinkTarget;
    use crate::format::hdf5::object_header::Kind;
    use proptest::prelude::*;

    /// Reads everything, each object once; returns the numbers of datasets and chunks.
    fn look(bytes: Vec<u8>, at: u64) -> Result<(usize, usize)> {
        let file = File::open(Arc::new(bytes), at)?;
        let (mut open, mut seen, mut datasets, mut chunks) = (vec![file.superblock.root], HashSet::new(), 0, 0);
        while let Some(address) = open.pop() {
            if !seen.insert(address) {
                continue;
            }
            let header = file.header(address)?;
            file.text_attribute(&header, "dtype")?;
            match header.kind() {
                Some(Kind::Group) => open.extend(file.links(&header)?.iter().filter_map(|link| match link.target {
                    LinkTarget::Object(address) => Some(address),
                    _ => None,
                })),
                Some(Kind::Dataset) => {
                    datasets += 1;
                    let space = file.dataspace(&header)?;
                    file.datatype(&header)?;
                    file.fill_value(&header)?;
                    file.filters(&header)?;
                    if let Layout::Chunked(layout) = file.layout(&header)? {
                        chunk_index::for_each(&file.image, &layout, &space, |place, _| {
                            assert_eq!(place.len(), space.shape.len());
                            chunks += 1;
                            Ok(())
                        })?;
                    }
                }
                _ => {}
            }
        }
        Ok((datasets, chunks))
    }

    fn fixtures() -> Vec<(Vec<u8>, u64)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/h5-kinds");
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "h5"));
        paths.sort();
        let start = |bytes: &[u8]| bytes.windows(8).position(|window| window == superblock::SIGNATURE).unwrap() as u64;
        paths.iter().map(|path| std::fs::read(path).unwrap()).map(|bytes| (start(&bytes), bytes)).map(|(at, bytes)| (bytes, at)).collect()
    }

    /// Offsets of structures.
    fn structures(bytes: &[u8]) -> Vec<usize> {
        const SIGNATURES: &[u8] = b"OHDROCHKFAHDFADBEAHDEAIBEASBEADBBTHDBTINBTLFFRHPFHIBFHDBTREESNODGCOLSMTBHEAP\x89HDF";
        let is_one = |at: &usize| SIGNATURES.chunks(4).any(|signature| bytes[*at..].starts_with(signature));
        (0..bytes.len()).filter(is_one).collect()
    }

    #[test]
    fn everything_in_the_fixtures_is_found() {
        let found: Vec<_> = fixtures().into_iter().map(|(bytes, at)| look(bytes, at).unwrap()).collect();
        // The numbers that h5py reports.
        assert_eq!(found.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1)), (324, 1599));
    }

    #[test]
    fn damage_in_any_place_is_an_error_or_something_else() {
        let fixtures: Vec<_> = fixtures().into_iter().map(|(bytes, at)| (structures(&bytes), bytes, at)).collect();
        LETS_CHECKSUMS_PASS.set(true);
        let damage =
            (any::<prop::sample::Index>(), 0usize..300, prop_oneof![Just(0u64), Just(u64::MAX), 0u64..600, any::<u64>()], 0usize..9);
        let strategy = (any::<prop::sample::Index>(), prop::collection::vec(damage, 1..5));
        proptest!(|((which, damages) in strategy)| {
            let (places, bytes, at) = which.get(&fixtures);
            let mut bytes = bytes.clone();
            for (place, behind, value, width) in damages {
                let start = (place.get(places) + behind).min(bytes.len());
                let end = (start + width).min(bytes.len());
                // Width 0 writes the address of another place.
                if width == 0 && bytes.len() - start > 8 {
                    let other = place.index(bytes.len()) as u64;
                    bytes[start..start + 8].copy_from_slice(&other.to_le_bytes());
                }
                bytes[start..end].copy_from_slice(&value.to_le_bytes()[..end - start]);
            }
            let _ = look(bytes, *at);
        });
        LETS_CHECKSUMS_PASS.set(false);
    }

    #[test]
    fn a_cut_file_is_an_error() {
        for (bytes, at) in fixtures() {
            for part in 1..8 {
                assert!(look(bytes[..bytes.len() * part / 8].to_vec(), at).is_err());
            }
        }
    }
}

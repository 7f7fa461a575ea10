//! Shared messages (IV.A.2, "Shared Message"): stored in the header of a named datatype, or in a heap of the file.

use super::cursor::Cursor;
use super::failure::Result;
use super::fractal_heap::Heap;
use super::image::Image;
use super::object_header::{Message, ObjectHeader};

/// The heaps of shared messages, with a bit mask of the message kinds in each.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedHeaps(Vec<(u16, u64)>);

impl SharedHeaps {
    /// Reads the table (III.I) that a message in the superblock extension points to (IV.A.2.p).
    pub(crate) fn read(image: &Image, mut message: Cursor<'_>) -> Result<Self> {
        const WHAT: &str = "table of shared messages";
        message.version(0..=0)?;
        let address = message.known_address(WHAT)?;
        let count = u64::from(message.u8()?);
        let table = image.read(address, 8 + count * (14 + 2 * u64::from(image.sizes().address)), WHAT)?;
        let mut cursor = table.checked(WHAT)?;
        cursor.signature(*b"SMTB")?;
        let mut heaps = Vec::new();
        for _ in 0..count {
            cursor.version(0..=0)?;
            cursor.skip(1)?;
            let kinds = cursor.u16()?;
            cursor.skip(10)?;
            cursor.address()?;
            heaps.extend(cursor.address()?.map(|heap| (kinds, heap)));
        }
        Ok(Self(heaps))
    }

    /// The heap with messages of a kind.
    fn of(&self, kind: u16) -> Option<u64> {
        let bit = 1u16.checked_shl(kind.into()).unwrap_or(0);
        self.0.iter().find(|(kinds, _)| kinds & bit != 0).map(|&(_, heap)| heap)
    }
}

/// The message of kind `kind` that the reference at `cursor` points to.
pub(crate) fn resolve(image: &Image, heaps: &SharedHeaps, kind: u16, mut cursor: Cursor<'_>) -> Result<Message> {
    const IN_HEAP: u8 = 1;
    const ID_LEN: usize = 8;
    let place = cursor.clone();
    let version = cursor.version(1..=3)?;
    let place_kind = cursor.u8()?;
    if version == 3 && place_kind == IN_HEAP {
        let heap = heaps.of(kind).ok_or_else(|| place.failure(format!("no heap has shared messages of kind {kind}")))?;
        let mut found = None;
        Heap::open(image, heap)?.object(cursor.take(ID_LEN)?, |object| {
            found = Some(Message { kind, flags: 0, at: object.place(), body: object.rest().to_vec() });
            Ok(())
        })?;
        return found.ok_or_else(|| place.failure("a shared message is not in its heap"));
    }
    if version == 1 {
        // The address is preceded by what once was a name in a symbol table entry.
        cursor.skip(6)?;
        cursor.length()?;
    }
    let address = cursor.known_address("a shared message")?;
    let message = ObjectHeader::read(image, address)?.messages.into_iter().find(|message| message.kind == kind);
    // Refuses a message that is itself shared, which could be an endless chain.
    message
        .filter(|message| !message.is_shared())
        .ok_or_else(|| place.failure(format!("the object at {address} has no message of kind {kind} of its own")))
}

//! Links of a group (IV.A.2.g).

use super::cursor::{Cursor, text};
use super::failure::Result;

/// A link of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) target: LinkTarget,
}

/// The target of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// The object whose header has this address.
    Object(u64),
    /// A path in the file, from the root or from the link's group. It may not exist.
    Path(String),
    /// An object of another file.
    File { file: String, path: String },
    /// A user-defined link, which only the writing program understands: its link type.
    Own(u8),
}

impl Link {
    pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Self> {
        const HARD: u8 = 0;
        const SOFT: u8 = 1;
        const EXTERNAL: u8 = 64;
        const HAS_ORDER: u8 = 4;
        const HAS_KIND: u8 = 8;
        const HAS_CHARACTER_SET: u8 = 0x10;
        cursor.version(1..=1)?;
        let flags = cursor.u8()?;
        let kind = if flags & HAS_KIND != 0 { cursor.u8()? } else { HARD };
        cursor.skip(if flags & HAS_ORDER != 0 { 8 } else { 0 })?;
        cursor.skip(usize::from(flags & HAS_CHARACTER_SET != 0))?;
        let len = cursor.uint(1 << (flags & 3))?;
        let name = text(cursor.take(usize::try_from(len).unwrap_or(usize::MAX))?);
        if kind == HARD {
            return Ok(Self { name, target: LinkTarget::Object(cursor.known_address("a linked object")?) });
        }
        let len = cursor.u16()?;
        let mut value = cursor.part(len.into())?;
        let target = match kind {
            SOFT => LinkTarget::Path(text(value.rest())),
            EXTERNAL => {
                // A byte of version and flags, both 0 so far.
                value.skip(1)?;
                LinkTarget::File { file: value.text(false)?, path: value.text(false)? }
            }
            kind => LinkTarget::Own(kind),
        };
        Ok(Self { name, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::hdf5::cursor::Sizes;

    fn parsed(bytes: &[u8]) -> Result<Link> {
        Link::parse(Cursor::new(bytes, 0, Sizes { address: 4, length: 4 }, "link"))
    }

    #[test]
    fn every_kind_of_link_says_where_it_leads() {
        let hard = [&[1, 0, 1][..], b"a", &[9, 0, 0, 0]].concat();
        assert_eq!(parsed(&hard).unwrap(), Link { name: "a".into(), target: LinkTarget::Object(9) });
        let soft = [&[1, 8 | 4 | 1, 1][..], &[0; 8], &[1, 0], b"b", &[2, 0], b"/a"].concat();
        assert_eq!(parsed(&soft).unwrap(), Link { name: "b".into(), target: LinkTarget::Path("/a".into()) });
        let external = [&[1, 8 | 0x10, 64, 1, 1][..], b"c", &[9, 0, 0], b"o.h5\0/x\0"].concat();
        assert_eq!(parsed(&external).unwrap().target, LinkTarget::File { file: "o.h5".into(), path: "/x".into() });
        let own = [&[1, 8, 70, 1][..], b"d", &[1, 0, 5]].concat();
        assert_eq!(parsed(&own).unwrap().target, LinkTarget::Own(70));
    }

    #[test]
    fn a_cut_link_or_one_to_nowhere_is_refused() {
        assert!(parsed(&[1, 0, 5, b'a']).is_err(), "cut");
        assert!(parsed(&[1, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff]).is_err(), "nowhere");
    }
}

//! Arrays that share blocks with their source.
//!
//! A file system shares whole blocks only, so source and output must hold the data at offsets that are equal modulo the
//! block size. The output's header has room to be padded to that.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::private_file::PrivateFile;
use crate::format::npy::Header;
use crate::os;
use crate::types::size::memory_len;

/// How an output can share the blocks of a run of bytes of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The source range that becomes the array's data.
    source: Range<u64>,
    /// Where the data start in the output.
    pub(crate) data_start: u64,
    /// The part of the source whose blocks are shared; less than a block is copied before and after it.
    shared: Range<u64>,
    block: u64,
}

impl Sharing {
    /// Plans to share bytes `source` of a file of `source_len` bytes as the data of an array with `header`, in blocks of `block`.
    ///
    /// Returns `None` if no header puts the data at a multiple of `itemsize` and in step with the source, or if `source` contains
    /// no whole block.
    pub(crate) fn fit(source: Range<u64>, source_len: u64, header: &Header, itemsize: u64, block: u64) -> Option<Self> {
        let starts = header.data_starts();
        if block == 0 || itemsize == 0 {
            return None;
        }
        let steps = starts.start.saturating_sub(source.start % block).div_ceil(block);
        let data_start = (source.start % block).checked_add(steps.checked_mul(block)?)?;
        if !starts.contains(&data_start) || !data_start.is_multiple_of(itemsize) {
            return None;
        }
        // The last block of a file may be shared although it is not full.
        let end = if source.end == source_len { source.end } else { source.end / block * block };
        let shared = source.start.next_multiple_of(block)..end;
        (shared.start < shared.end).then_some(Self { source, data_start, shared, block })
    }

    /// Maps an offset of the source to the output.
    fn target(&self, at: u64) -> u64 {
        at - self.source.start + self.data_start
    }

    /// Tries to share one block with an empty file; returns whether that works. The caller must empty the file again.
    pub(crate) fn probe(&self, from: &File, to: &PrivateFile) -> io::Result<bool> {
        let first = self.shared.start..self.shared.end.min(self.shared.start + self.block);
        answer(to.share_blocks(from, &first, self.target(first.start)))
    }

    /// Puts all data into an empty file; `false` if the file systems cannot share or differ. Then the caller must empty the file
    /// again.
    pub(crate) fn apply(&self, from: &File, to: &PrivateFile) -> io::Result<bool> {
        if !answer(to.share_blocks(from, &self.shared, self.target(self.shared.start)))? {
            return Ok(false);
        }
        for edge in [self.source.start..self.shared.start, self.shared.end..self.source.end] {
            let mut bytes = vec![0; memory_len(edge.end - edge.start)];
            to.calls().read_exact_at(from, &mut bytes, edge.start)?;
            to.write_at(&bytes, self.target(edge.start))?;
        }
        Ok(true)
    }

    /// The block size for sharing with an output.
    pub(crate) fn block_bytes(to: &PrivateFile) -> io::Result<u64> {
        os::block_bytes(to.file())
    }
}

/// Whether a call worked; `false` if it is unsupported.
fn answer(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if os::is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shared_blocks_are_in_step_and_the_edges_are_the_rest(
            start in 0u64..100_000, len in 1u64..1_000_000, behind in 0u64..3, item in 0u32..5, block in prop::sample::select(vec![512u64, 1024, 4096, 16384, 65536])
        ) {
            let header = Header::new("<f4", &[len]);
            let source = start..start + len;
            let Some(sharing) = Sharing::fit(source.clone(), source.end + behind, &header, 1 << item, block) else {
                // Nothing fits: the offset is no multiple of the item size modulo a block, the longest header that numpy.load
                // reads is too short, or there is no whole block.
                let no_item = start % block % (1 << item) != 0;
                let no_header = header.data_starts().all(|at| at % block != start % block);
                let no_block = start.next_multiple_of(block) + block > source.end;
                prop_assert!(no_item || no_header || no_block);
                return Ok(());
            };
            prop_assert_eq!(sharing.data_start % (1 << item), 0);
            prop_assert!(header.data_starts().contains(&sharing.data_start));
            prop_assert_eq!(sharing.target(sharing.shared.start) % block, 0);
            prop_assert_eq!(sharing.shared.start % block, 0);
            prop_assert!(sharing.shared.end % block == 0 || behind == 0);
            prop_assert!(sharing.shared.start - source.start < block && source.end - sharing.shared.end < block);
        }
    }
}

//! From positions in files to lengths in memory.

/// A length of memory as `usize`, the one place where 64-bit file lengths become lengths of memory.
///
/// Callers pass lengths that a budget has bounded; where an address space cannot hold them anyway, the result is
/// `usize::MAX`, which no allocation or mapping accepts.
#[must_use]
pub(crate) fn memory_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

//! Conversion of 64-bit file lengths to memory lengths.

/// Converts a byte count to `usize`. This is the only place where a 64-bit file length becomes a length of memory.
///
/// Callers pass lengths that a budget has bounded. If the address space cannot hold the length anyway, the result is
/// `usize::MAX`, which every allocation or mapping rejects.
#[must_use]
pub(crate) fn memory_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

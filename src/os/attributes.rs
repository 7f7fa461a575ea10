//! What a file system says of a file or a directory, beside its permissions.

/// What a file system says of a file or a directory, beside its permissions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    /// Immutable or append-only (`chattr +i`, `+a`): it cannot be replaced or removed, nor can what is in it.
    pub(crate) is_fixed: bool,
    pub(crate) is_mount_point: bool,
}

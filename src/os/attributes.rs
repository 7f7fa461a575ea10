//! Attributes that a file system reports for a file or directory, beyond its permissions.

/// Attributes of a file or directory, beyond its permissions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    /// Immutable or append-only (`chattr +i`, `+a`): neither it nor its entries can be replaced or removed.
    pub(crate) is_fixed: bool,
    pub(crate) is_mount_point: bool,
}

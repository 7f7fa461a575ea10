//! The ways of writing an output.

use std::fmt;
use std::str::FromStr;

/// How an output is written. By default the fastest one that the file system and the tensor allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The output shares the source's blocks, so nothing is copied. Needs one contiguous run of bytes without decoding, a file
    /// system with block sharing (XFS, Btrfs), and an offset to which the header can be padded.
    Clone,
    /// Writes straight from memory to the disk (`O_DIRECT`). For arrays that are long enough to gain from it, on file systems that do not
    /// put such writes into the page cache.
    Direct,
    /// Buffered writes that bypass the page cache (`RWF_DONTCACHE`; Linux 6.14 and a file system that supports it).
    Uncached,
    /// Buffers and plain writes, which work on every Unix and every file system. If chosen by default, Linux-only calls still
    /// reserve space and start writeback; if requested, no such call is made.
    Portable,
    /// Reads directly into mapped windows of the output. Only on request: buffers are as fast and more even.
    /// [`ArrayWriter`](crate::ArrayWriter) works this way, and here it can be measured.
    Map,
}

impl Method {
    /// All methods. By default the first of the first four that works is used; the last one must be requested.
    pub const ALL: [Self; 5] = [Self::Clone, Self::Direct, Self::Uncached, Self::Portable, Self::Map];

    /// The name in reports and in `--method`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Direct => "direct",
            Self::Uncached => "uncached",
            Self::Map => "map",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| format!("there is no method {text:?}, only {names}"))
    }
}

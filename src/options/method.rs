//! The ways in which bytes can get into an output.

use std::fmt;
use std::str::FromStr;

/// How an output is written. The fastest one that the file system and the tensor allow is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// The output shares the source's blocks: nothing is copied. For one contiguous run of bytes that need no decoding,
    /// on a file system that can do it (XFS, Btrfs), at an offset to which a header can be fitted.
    Clone,
    /// Buffers, written past the page cache (`RWF_DONTCACHE`, Linux 6.14, file systems that know it).
    Uncached,
    /// Buffers and plain writes: what every Unix and every file system can do. Where it is chosen, calls that only Linux
    /// has still reserve space and push pages out; where it is asked for, none of them is made.
    Portable,
    /// Read straight into mapped windows of the output. Only on request: buffers are as fast and more even, but this is the
    /// way of [`ArrayWriter`](crate::ArrayWriter), to be measured here.
    Map,
}

impl Method {
    /// All of them: the first of three that can be had is taken, the last on request.
    pub const ALL: [Self; 4] = [Self::Clone, Self::Uncached, Self::Portable, Self::Map];

    /// The name that reports and `--method` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
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

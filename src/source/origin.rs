//! How a source was specified, so that it can be opened again.

use std::path::PathBuf;

/// How a source was specified: its paths, and whether they are joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) parts: Vec<GivenPart>,
    /// Whether the parts were joined along axis 0.
    pub(crate) is_joined: bool,
}

/// Paths that make one source, and the requested format.
#[derive(Debug, Clone)]
pub(crate) struct GivenPart {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) format: Option<&'static str>,
}

impl Origin {
    pub(crate) fn of(paths: &[PathBuf], format: Option<&'static str>) -> Self {
        Self { parts: vec![GivenPart { paths: paths.to_vec(), format }], is_joined: false }
    }

    pub(crate) fn of_all<'a>(origins: impl Iterator<Item = &'a Self>, is_joined: bool) -> Self {
        Self { parts: origins.flat_map(|origin| origin.parts.clone()).collect(), is_joined }
    }

    /// The origin of a source without a path.
    #[cfg_attr(not(feature = "tensorflow"), expect(dead_code, reason = "all other sources have paths"))]
    pub(crate) fn none() -> Self {
        Self::default()
    }
}

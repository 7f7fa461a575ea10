//! [`Selection`]: tensors of one source that are converted together.

use std::ops::Deref;

use super::opened::{Source, Tensor};
use crate::error::Result;
use crate::storage::glob::{Glob, alternatives, is_pattern};

/// Tensors of one [`Source`], for [`export`](crate::export) and [`pack`](crate::pack). [`Source::select`] makes it.
///
/// It reads like a slice. Tensors can be removed but not added, so all of them belong to the same source.
///
/// ```no_run
/// use mmconvert::{Options, Source, export};
///
/// let source = Source::open("model.ckpt-1000")?;
/// let mut tensors = source.select(&["dense*"])?;
/// tensors.retain(|tensor| tensor.info().spec.nbytes() > 0);
/// export(&tensors, None, "arrays", &Options::new())?;
/// # Ok::<(), mmconvert::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Selection {
    source: Source,
    tensors: Vec<Tensor>,
}

impl Selection {
    /// Wraps tensors that the caller has just taken from `source`.
    pub(crate) fn new(source: &Source, tensors: Vec<Tensor>) -> Self {
        debug_assert!(tensors.iter().all(|tensor| tensor.source().is_same(source)));
        Self { source: source.clone(), tensors }
    }

    /// The source of the tensors.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Keeps the tensors for which `keep` returns true, in their order.
    pub fn retain(&mut self, keep: impl FnMut(&Tensor) -> bool) {
        self.tensors.retain(keep);
    }

    /// Keeps the first `len` tensors.
    pub fn truncate(&mut self, len: usize) {
        self.tensors.truncate(len);
    }
}

impl From<Tensor> for Selection {
    /// One tensor of its source.
    fn from(tensor: Tensor) -> Self {
        Self { source: tensor.source().clone(), tensors: vec![tensor] }
    }
}

impl Deref for Selection {
    type Target = [Tensor];

    fn deref(&self) -> &Self::Target {
        &self.tensors
    }
}

impl IntoIterator for Selection {
    type Item = Tensor;
    type IntoIter = std::vec::IntoIter<Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl<'s> IntoIterator for &'s Selection {
    type Item = &'s Tensor;
    type IntoIter = std::slice::Iter<'s, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.iter()
    }
}

impl Source {
    /// The tensors that `patterns` select, each once, in the order of the source. Without a pattern: the variables of a
    /// SavedModel that has any, the components of a tf.data cache, else all tensors but TensorFlow's bookkeeping
    /// ([`TensorInfo::bookkeeping`](crate::TensorInfo::bookkeeping)).
    ///
    /// A pattern is a name, an alias, or a glob: `*` matches any run of characters, including `/`; `?`, `[…]` and `{a,b}` work as
    /// in a shell. An exact name wins over a pattern. Each alternative of `{a,b}` must select something. A glob selects
    /// bookkeeping only if it matches nothing else.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`](crate::Error::NoSuchTensor) for a pattern that selects nothing.
    pub fn select<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Result<Selection> {
        if !patterns.is_empty() {
            return self.named(patterns, false);
        }
        let mut chosen = Vec::new();
        for index in 0..self.len()? {
            if self.container().is_meant(index)? {
                chosen.push(self.at(index)?);
            }
        }
        Ok(Selection::new(self, chosen))
    }

    /// The tensors that patterns select. Globs select bookkeeping always, or only if they match nothing else.
    fn named<P: AsRef<[u8]>>(&self, patterns: &[P], with_bookkeeping: bool) -> Result<Selection> {
        let mut chosen = std::collections::BTreeSet::new();
        let mut globs = Vec::new();
        let mut open: Vec<Vec<u8>> = patterns.iter().rev().map(|pattern| pattern.as_ref().to_vec()).collect();
        while let Some(pattern) = open.pop() {
            if let Some(index) = self.find(&pattern)? {
                chosen.insert(index);
                continue;
            }
            if !is_pattern(&pattern) {
                return Err(self.no_such_tensor(&pattern));
            }
            let alternatives = alternatives(&pattern)?;
            if alternatives.len() > 1 {
                open.extend(alternatives.into_iter().rev());
                continue;
            }
            globs.push(WantedNames { glob: Glob::new(&pattern)?, pattern, matched: false, bookkeeping: Vec::new() });
        }
        if !globs.is_empty() {
            for index in 0..self.len()? {
                let info = self.container().info(index)?;
                for wanted in &mut globs {
                    // The leading slash of a path-like name is optional, as in lookups by name.
                    let name = info.name.as_bytes();
                    let names = [Some(name), name.strip_prefix(b"/"), info.alias.as_deref().map(str::as_bytes)];
                    if !names.into_iter().flatten().any(|name| wanted.glob.matches(name)) {
                        continue;
                    }
                    if info.bookkeeping && !with_bookkeeping {
                        wanted.bookkeeping.push(index);
                    } else {
                        wanted.matched = true;
                        chosen.insert(index);
                    }
                }
            }
        }
        for wanted in globs.iter().filter(|wanted| !wanted.matched) {
            if wanted.bookkeeping.is_empty() {
                return Err(self.no_such_tensor(&wanted.pattern));
            }
            chosen.extend(&wanted.bookkeeping);
        }
        let chosen = chosen.into_iter().map(|index| self.at(index)).collect::<Result<_>>()?;
        Ok(Selection::new(self, chosen))
    }

    /// As [`select`](Self::select), including bookkeeping: without a pattern all tensors, and globs match bookkeeping, too.
    ///
    /// # Errors
    /// Those of [`select`](Self::select).
    pub fn select_all<P: AsRef<[u8]>>(&self, patterns: &[P]) -> Result<Selection> {
        if patterns.is_empty() { self.all() } else { self.named(patterns, true) }
    }

    /// All tensors, in the order of the source.
    ///
    /// # Errors
    /// Those of [`tensors`](Self::tensors).
    pub fn all(&self) -> Result<Selection> {
        Ok(Selection::new(self, self.tensors().collect::<Result<_>>()?))
    }
}

/// A glob of the selection.
pub(crate) struct WantedNames {
    pattern: Vec<u8>,
    glob: Glob,
    /// Whether it matched anything but bookkeeping.
    matched: bool,
    bookkeeping: Vec<usize>,
}

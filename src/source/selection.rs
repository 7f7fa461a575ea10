//! Tensors of one source, chosen to be converted together.

use std::ops::Deref;

use super::{Source, Tensor};

/// Tensors of one [`Source`], for [`export`](crate::export) and [`pack`](crate::pack). [`Source::select`] makes it.
///
/// It reads like a slice of tensors, and tensors can only be taken out of it: all that are in it belong to the same source.
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
pub struct Selection<'a> {
    source: &'a Source,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Selection<'a> {
    /// Tensors that all are of `source`: whoever calls this has just taken them from it.
    pub(crate) fn new(source: &'a Source, tensors: Vec<Tensor<'a>>) -> Self {
        debug_assert!(tensors.iter().all(|tensor| std::ptr::eq(tensor.source(), source)));
        Self { source, tensors }
    }

    /// The source of the tensors.
    #[must_use]
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Keeps the tensors for which `keep` returns true, in their order.
    pub fn retain(&mut self, keep: impl FnMut(&Tensor<'a>) -> bool) {
        self.tensors.retain(keep);
    }

    /// Keeps the first `len` tensors.
    pub fn truncate(&mut self, len: usize) {
        self.tensors.truncate(len);
    }
}

impl<'a> From<Tensor<'a>> for Selection<'a> {
    /// One tensor of its source.
    fn from(tensor: Tensor<'a>) -> Self {
        Self { source: tensor.source(), tensors: vec![tensor] }
    }
}

impl<'a> Deref for Selection<'a> {
    type Target = [Tensor<'a>];

    fn deref(&self) -> &Self::Target {
        &self.tensors
    }
}

impl<'a> IntoIterator for Selection<'a> {
    type Item = Tensor<'a>;
    type IntoIter = std::vec::IntoIter<Tensor<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl<'s, 'a> IntoIterator for &'s Selection<'a> {
    type Item = &'s Tensor<'a>;
    type IntoIter = std::slice::Iter<'s, Tensor<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.iter()
    }
}

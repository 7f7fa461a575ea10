//! Sources that are records one after the other: TFRecord files, tf.data files, streams of frames.
//!
//! Their tensors are columns: axis 0 is the record. Records are read from front to back, once, for any number of columns.

pub(crate) mod columns;
pub(crate) mod container;
pub(crate) mod feature;
pub(crate) mod locate;
pub(crate) mod pass;
pub(crate) mod scan;
pub(crate) mod set;
pub(crate) mod stream;
pub(crate) mod survey;

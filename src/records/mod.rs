//! Sources that are records one after the other: TFRecord files, tf.data files, streams of frames; and the choices for them.
//!
//! Their tensors are columns: axis 0 is the record. Records are read from front to back, once, for any number of columns.
//! [`RecordOptions`](crate::RecordOptions) holds the choices.

pub(crate) mod columns;
pub(crate) mod container;
pub(crate) mod feature;
pub(crate) mod locate;
pub(crate) mod pass;
pub(crate) mod scan;
pub(crate) mod set;
pub(crate) mod stream;
pub(crate) mod survey;

pub use crate::image::Jpeg;
pub use crate::options::records::{Missing, Ragged, ReadAs};
pub use columns::FeatureInfo;

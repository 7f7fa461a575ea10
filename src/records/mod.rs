//! Sources of records: TFRecord files, tf.data files, streams of frames; and the options for them.
//!
//! Their tensors are columns: axis 0 is the record. One pass reads the records front to back for any number of columns. Wire
//! formats belong to `format`, the opening of files to `storage` and `source`. [`RecordOptions`](crate::RecordOptions) has the
//! options.
//!
//! Start with `container` (an opened source); then `stream` (bytes to batches), `survey` (features), `columns` (rows) and `pass`
//! (arrays).

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

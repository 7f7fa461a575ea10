pub(crate) mod batch;
pub(crate) mod batches;
pub(crate) mod bytes;
pub(crate) mod files;
pub(crate) mod framing;
pub(crate) mod inputs;
pub(crate) mod interleaved;
pub(crate) mod memory_pool;

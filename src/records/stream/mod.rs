//! Reads the bytes of records: opens inputs, decompresses them, finds frames and groups them into batches within a memory limit.
//!
//! This module does not parse records or know features. Start with [`batches::Batches`], the trait that hands out batches;
//! `interleaved` implements it for shards.

pub(crate) mod ahead;
pub(crate) mod batch;
pub(crate) mod batches;
pub(crate) mod bytes;
pub(crate) mod compression;
pub(crate) mod files;
pub(crate) mod framing;
pub(crate) mod inputs;
pub(crate) mod interleaved;
pub(crate) mod memory_pool;
#[cfg(test)]
mod tests;

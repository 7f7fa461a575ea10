pub(crate) mod archive;
pub(crate) mod glob;
pub(crate) mod paths;
pub(crate) mod shards;

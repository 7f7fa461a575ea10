pub(crate) mod dtype;
pub(crate) mod element;
pub(crate) mod rows;
pub(crate) mod spec;

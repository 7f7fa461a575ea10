//! Parsers of HDF5 metadata: finds objects and reads their headers and chunk indexes.
//!
//! This module never opens files: bytes come through [`ImageBytes`](image::ImageBytes). It does not read elements into tensors; its
//! callers do.
//!
//! Source: HDF5 File Format Specification 3.0, <https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html>. Numerals
//! such as IV.A.2.d are its sections. Complex numbers and layout version 5 are from version 4.0. Reads are bounded by the file's
//! content, and checksums are verified where the format has them.
//!
//! Start with [`File`](file::File).

pub(crate) mod attribute;
pub(crate) mod btree_v1;
pub(crate) mod btree_v2;
pub(crate) mod chunk_entries;
pub(crate) mod chunk_index;
pub(crate) mod cursor;
pub(crate) mod dataspace;
pub(crate) mod datatype;
pub(crate) mod extensible_array;
pub(crate) mod failure;
pub(crate) mod file;
pub(crate) mod fill_value;
pub(crate) mod filter_pipeline;
pub(crate) mod filters;
pub(crate) mod fixed_array;
pub(crate) mod fractal_heap;
pub(crate) mod global_heap;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod link;
pub(crate) mod lookup3;
pub(crate) mod new_group;
pub(crate) mod object_header;
pub(crate) mod old_group;
pub(crate) mod shared;
pub(crate) mod superblock;

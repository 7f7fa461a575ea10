//! Records: their columns and their streams.

mod columns;
mod lists;

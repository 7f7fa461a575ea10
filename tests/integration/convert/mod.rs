//! Conversions: one tensor, many, one file of many.

mod forms;
mod laws;
mod packed;
mod passes;

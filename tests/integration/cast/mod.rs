//! Casts: elements as NumPy casts them.

mod numpy;

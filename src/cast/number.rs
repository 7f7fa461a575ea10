//! Numbers and their bytes in memory.

use bytemuck::Pod;

/// A number and its little-endian bytes.
pub(crate) trait Number: Copy + 'static {
    type Bytes: Pod;
    fn load(bytes: Self::Bytes) -> Self;
    fn store(self) -> Self::Bytes;
}

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Number for $type {
            type Bytes = [u8; size_of::<$type>()];
            #[inline(always)]
            fn load(bytes: Self::Bytes) -> Self {
                Self::from_le_bytes(bytes)
            }
            #[inline(always)]
            fn store(self) -> Self::Bytes {
                self.to_le_bytes()
            }
        }
    )*};
}

numbers! { u8 i8 u16 i16 u32 i32 u64 i64 u128 f32 f64 }

//! One loop over elements, compiled for several vector units. The widest available one is selected at run time.
#![expect(clippy::inline_always, reason = "only inlined code is compiled for the vector unit of its caller")]
#![expect(unsafe_code, reason = "a function compiled for a vector unit may only be called where there is one")]

use super::kernels::Op;
use super::number::Number;

/// `to[i] = O::apply(from[i])` for little-endian elements at any address.
pub(crate) fn map<O: Op>(from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<O: Op>(from: &[u8], to: &mut [u8]) {
            each::<O>(from, to);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<O: Op>(from: &[u8], to: &mut [u8]) {
            each::<O>(from, to);
        }
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if has_avx512 {
            // SAFETY: the processor has the features that the function was compiled for.
            return unsafe { avx512::<O>(from, to) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2::<O>(from, to) };
        }
    }
    each::<O>(from, to);
}

/// Inlined into each of its callers, so that it is compiled for their vector unit.
#[inline(always)]
fn each<O: Op>(from: &[u8], to: &mut [u8]) {
    let from: &[<O::From as Number>::Bytes] = bytemuck::cast_slice(from);
    let to: &mut [<O::To as Number>::Bytes] = bytemuck::cast_slice_mut(to);
    for (to, from) in to.iter_mut().zip(from) {
        *to = O::apply(O::From::load(*from)).store();
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{
        As, BfloatOfSingle, Cut, CutToI64, CutToU32, CutToU64, DoubleOfHalf, E4M3FnOfSingle, HalfOfDouble, HalfOfSingle, IsNonZero,
        SingleOfHalf, Swap32,
    };
    use super::*;
    use proptest::prelude::*;

    /// The widest vector unit of this processor gives the same bytes as the baseline that every processor has.
    fn check<O: Op>(bytes: &[u8]) {
        let (from, to) = (size_of::<<O::From as Number>::Bytes>(), size_of::<<O::To as Number>::Bytes>());
        let count = bytes.len() / from;
        let (mut by_vectors, mut plain) = (vec![1; count * to], vec![2; count * to]);
        map::<O>(&bytes[..count * from], &mut by_vectors);
        each::<O>(&bytes[..count * from], &mut plain);
        assert_eq!(by_vectors, plain, "{}", std::any::type_name::<O>());
    }

    proptest! {
        #[test]
        fn every_vector_unit_gives_the_same(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            check::<As<f32, f64>>(&bytes);
            check::<As<f64, f32>>(&bytes);
            check::<As<i64, f32>>(&bytes);
            check::<As<u64, f64>>(&bytes);
            check::<BfloatOfSingle>(&bytes);
            check::<Cut<f32, u8>>(&bytes);
            check::<Cut<f64, u16>>(&bytes);
            check::<CutToI64<f32>>(&bytes);
            check::<CutToU32<f64>>(&bytes);
            check::<CutToU64<f64>>(&bytes);
            check::<DoubleOfHalf>(&bytes);
            check::<E4M3FnOfSingle>(&bytes);
            check::<HalfOfDouble>(&bytes);
            check::<HalfOfSingle>(&bytes);
            check::<IsNonZero<f32>>(&bytes);
            check::<SingleOfHalf>(&bytes);
            check::<Swap32>(&bytes);
        }
    }
}

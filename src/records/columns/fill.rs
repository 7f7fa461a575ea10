//! Parses fill and padding values that options give as text.

use super::items::TextForm;
use crate::cast::elements::Cast;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::tensor_proto::int_fits;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

/// The text as an element of an array of strings.
pub(crate) fn text_element(text: &str, form: TextForm, width: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = match form {
        TextForm::Utf8 => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        _ => text.as_bytes().to_vec(),
    };
    let len = memory_len(width) * if form == TextForm::Utf8 { 4 } else { 1 };
    if bytes.len() > len {
        return Err(BadRequest::MissingTooLong { text: text.to_owned(), longest: width }.of_feature(name).into());
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

/// The value of a text, as a little-endian element.
pub(crate) fn element(dtype: Dtype, text: &str, name: &str) -> Result<Vec<u8>> {
    let wrong = || Error::from(BadRequest::NotAValue { text: text.to_owned(), dtype: dtype.name() }.of_feature(name));
    let mut out = vec![0; dtype.item_len()];
    if dtype.is_signed_int().is_some() || dtype == Dtype::Bool {
        let value: i128 = match text {
            "true" | "True" if dtype == Dtype::Bool => 1,
            "false" | "False" if dtype == Dtype::Bool => 0,
            text => text.parse().map_err(|_| wrong())?,
        };
        let fits = match dtype {
            Dtype::UInt64 => u64::try_from(value).is_ok(),
            _ => i64::try_from(value).is_ok_and(|value| int_fits(dtype, value)),
        };
        if !fits {
            return Err(wrong());
        }
        let len = out.len();
        out.copy_from_slice(&value.to_le_bytes()[..len]);
        return Ok(out);
    }
    let value: f64 = text.parse().map_err(|_| wrong())?;
    let from_double = |dtype| Cast::ordered((Dtype::Float64, ByteOrder::Little), (dtype, ByteOrder::Little));
    from_double(dtype)?.run_matching(&value.to_le_bytes(), &mut out);
    // For complex numbers, the real part is checked like a real number.
    let real = match dtype {
        Dtype::Complex64 => Dtype::Float32,
        Dtype::Complex128 => Dtype::Float64,
        other => other,
    };
    let (mut narrowed, mut back) = (vec![0; real.item_len()], [0; 8]);
    from_double(real)?.run_matching(&value.to_le_bytes(), &mut narrowed);
    Cast::ordered((real, ByteOrder::Little), (Dtype::Float64, ByteOrder::Little))?.run_matching(&narrowed, &mut back);
    if is_kept(text, value, f64::from_le_bytes(back)) { Ok(out) } else { Err(wrong()) }
}

/// Whether `stored` keeps the value of `text`, parsed as `read`: numbers never become infinite or zero, whole numbers stay exact,
/// and others are rounded.
fn is_kept(text: &str, read: f64, stored: f64) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_number = mantissa.contains(|c: char| c.is_ascii_digit());
    if !is_number {
        return read.is_nan() == stored.is_nan() && (read.is_nan() || read.total_cmp(&stored).is_eq());
    }
    let is_zero = !mantissa.contains(|c: char| ('1'..='9').contains(&c));
    let is_rounded = stored.is_finite() && (stored == 0.0) == is_zero;
    match text.parse::<i128>() {
        // Below 2^127, whole floating-point numbers convert to integers exactly.
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and is compared")]
        Ok(whole) => is_rounded && stored as i128 == whole,
        Err(_) => is_rounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_their_text_says_or_refused() {
        for (dtype, kept, refused) in [
            (
                Dtype::Float32,
                &["16777216", "0.1", "-0", "1e38", "inf", "-inf", "nan", "1e-40"][..],
                &["16777217", "1e39", "1e400", "1e-60", "x"][..],
            ),
            (Dtype::Float64, &["9007199254740992", "1e308", "0e5"], &["9007199254740993", "1e309", "1e-400"]),
            (Dtype::Float16, &["2048", "65504"], &["2049", "1e5"]),
            (Dtype::BFloat16, &["256", "3e38"], &["257"]),
            (Dtype::Float8E4M3Fn, &["448"], &["449", "1000", "inf"]),
            (Dtype::Complex64, &["16777216"], &["16777217", "1e39"]),
            (Dtype::UInt8, &["255"], &["256", "-1", "1.5", "1e2"]),
            (Dtype::UInt64, &["18446744073709551615"], &["18446744073709551616"]),
        ] {
            for text in kept {
                assert!(element(dtype, text, "x").is_ok(), "{dtype} {text}");
            }
            for text in refused {
                assert!(element(dtype, text, "x").is_err(), "{dtype} {text}");
            }
        }
        assert_eq!(element(Dtype::Float32, "0.1", "x").unwrap(), 0.1f32.to_le_bytes());
    }
}

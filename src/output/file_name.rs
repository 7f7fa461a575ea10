//! File names for tensors: reversible, and safe on any file system.
//!
//! A name becomes `<stem>.npy`. `a` to `z`, `0` to `9`, `_`, `-` and `.` are kept in the stem, the last two except at its start.
//! `/` becomes `+`. `^` switches between lower and upper case for the letters that follow. Every other byte becomes `%` and two
//! lower-case hexadecimal digits. So a file name is ASCII, without separators or upper-case letters: no name can leave the
//! directory, and no two collide by case or Unicode form. A first letter that would make a device name of Windows (`con`, `nul`,
//! `com1`) is written as `%..` too.
//!
//! A stem that is too long for a file system is cut and ends in `%~` and 32 hexadecimal digits of the name's SHA-256; only for
//! those is the manifest needed to get the name back.

use sha2::{Digest, Sha256};

/// The extension of every array's file.
pub(crate) const EXTENSION: &str = ".npy";
/// File systems allow 255 bytes; the rest is room for what other programs append.
const MOST_STEM: usize = 200;
const HASH_DIGITS: usize = 32;

/// The file name for a tensor's name.
pub(crate) fn encode(name: &[u8]) -> String {
    let mut stem = String::with_capacity(name.len() + 8);
    let mut upper = false;
    let reserved = is_device(name);
    for (i, &byte) in name.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' if !(reserved && i == 0) => {
                if byte.is_ascii_uppercase() != upper {
                    upper = !upper;
                    stem.push('^');
                }
                stem.push(char::from(byte.to_ascii_lowercase()));
            }
            b'0'..=b'9' | b'_' => stem.push(char::from(byte)),
            b'-' | b'.' if i > 0 => stem.push(char::from(byte)),
            b'/' => stem.push('+'),
            _ => stem += &format!("%{byte:02x}"),
        }
        if stem.len() > MOST_STEM {
            return cut(stem, name);
        }
    }
    stem + EXTENSION
}

fn cut(mut stem: String, name: &[u8]) -> String {
    stem.truncate(MOST_STEM - HASH_DIGITS - 2);
    stem += "%~";
    for byte in &Sha256::digest(name)[..HASH_DIGITS / 2] {
        stem += &format!("{byte:02x}");
    }
    stem + EXTENSION
}

/// Whether Windows would treat `name`, up to its first dot, as a device.
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|&b| b == b'.').next().unwrap_or_default();
    let numbered = |device: &[u8]| stem.len() == 4 && stem.starts_with(device) && stem[3].is_ascii_digit();
    matches!(stem, b"con" | b"prn" | b"aux" | b"nul") || numbered(b"com") || numbered(b"lpt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(file: &str) -> Option<Vec<u8>> {
        let stem = file.strip_suffix(EXTENSION)?;
        let mut name = Vec::new();
        let mut upper = false;
        let mut bytes = stem.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'^' => upper = !upper,
                b'+' => name.push(b'/'),
                b'%' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                }
                _ if upper => name.push(byte.to_ascii_uppercase()),
                _ => name.push(byte),
            }
        }
        Some(name)
    }

    #[test]
    fn names_stay_readable() {
        for (name, file) in [
            ("encoder/dense/kernel", "encoder+dense+kernel.npy"),
            ("w/.ATTRIBUTES/VARIABLE_VALUE", "w+.^attributes+variable_value.npy"),
            ("Variable:0", "^v^ariable%3a0.npy"),
            ("../../escape", "%2e.+..+escape.npy"),
            ("..", "%2e..npy"),
            ("-rf", "%2drf.npy"),
            ("con", "%63on.npy"),
            ("é", "%c3%a9.npy"),
        ] {
            assert_eq!(encode(name.as_bytes()), file);
        }
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        let names = ["a/b", "a_b", "A/b", "a\\b", "a+b", "e\u{301}", "\u{e9}", "a%2fb", "a", "a.npy", "^a", "a^b"];
        let files: std::collections::HashSet<_> = names.iter().map(|name| encode(name.as_bytes()).to_lowercase()).collect();
        assert_eq!(files.len(), names.len());
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (one, two) = ([b'n'; 65536], [b'n'; 65535]);
        assert_ne!(encode(&one), encode(&two));
        assert!(encode(&one).len() <= 204);
        assert_eq!(decode(&encode(&one)), None, "a cut name does not pass for another");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in prop::collection::vec(any::<u8>(), 1..60), text in "[ -~]{1,60}") {
            for name in [&name[..], text.as_bytes()] {
                let file = encode(name);
                prop_assert_eq!(decode(&file), Some(name.to_vec()));
                prop_assert!(file.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !b"/\\:*?\"<>|".contains(&b)));
                prop_assert!(!file.starts_with(['.', '-']) && file.len() <= 255);
            }
        }
    }
}

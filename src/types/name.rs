//! Tensor names: arbitrary bytes in files, escaped text for people.

use std::fmt;

/// A tensor's name: any bytes, in practice UTF-8.
///
/// `Display` escapes control characters, direction overrides, invalid UTF-8 and backslashes (`\x00`, `\u{202e}`, `\\`), so that a
/// name can neither move a terminal's cursor nor imitate another name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Makes a name of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes as stored in the file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name for JSON: exact if it is UTF-8, otherwise escaped as displayed.
    #[must_use]
    pub fn to_json(&self) -> String {
        std::str::from_utf8(&self.0).map_or_else(|_| self.to_string(), str::to_owned)
    }
}

/// So that [`Source::tensor`](crate::Source::tensor) and [`select`](crate::Source::select) take names as they are.
impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a character changes how the text around it is displayed.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(text) = std::str::from_utf8(&self.0)
            && !text.chars().any(|c| c == '\\' || is_unsafe(c))
        {
            return f.pad(text);
        }
        let mut text = String::new();
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\\' {
                    text.push_str("\\\\");
                } else if c.is_ascii() && is_unsafe(c) {
                    text += &format!("\\x{:02x}", u32::from(c));
                } else if is_unsafe(c) {
                    text += &format!("\\u{{{:x}}}", u32::from(c));
                } else {
                    text.push(c);
                }
            }
            for byte in chunk.invalid() {
                text += &format!("\\x{byte:02x}");
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_deceive_are_escaped() {
        for (bytes, shown) in [
            (&b"a/b:0"[..], "a/b:0"),
            ("é/雪".as_bytes(), "é/雪"),
            (b"a\0b", "a\\x00b"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"\x1b[2J", "\\x1b[2J"),
            ("\u{202e}gnp".as_bytes(), "\\u{202e}gnp"),
            (b"..\\win", "..\\\\win"),
        ] {
            assert_eq!(Name::new(bytes).to_string(), shown);
        }
    }
}

//! The `checkpoint` file: a `CheckpointState` in protocol buffer text format.
//!
//! Source: `tensorflow/python/training/checkpoint_state.proto`.

use crate::error::ParseError;

const WHAT: &str = "checkpoint state";

/// Returns the prefix of the newest checkpoint (`model_checkpoint_path`) as the bytes of a path.
pub(crate) fn parse_latest(text: &[u8]) -> Result<Vec<u8>, ParseError> {
    let mut pos = 0;
    let mut latest = None;
    while let Some(name_at) = skip_space(text, pos) {
        let len = text[name_at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        let name = &text[name_at..name_at + len];
        let colon = skip_space(text, name_at + len).filter(|&at| len > 0 && text[at] == b':');
        let value_at = colon.and_then(|at| skip_space(text, at + 1));
        let Some(value_at) = value_at else {
            return Err(ParseError::new(name_at, WHAT, "expected a line `field: value`"));
        };
        match name {
            b"model_checkpoint_path" | b"all_model_checkpoint_paths" => {
                let (value, end) = parse_strings(text, value_at)?;
                if name == b"model_checkpoint_path" {
                    latest = Some(value);
                }
                pos = end;
            }
            b"all_model_checkpoint_timestamps" | b"last_preserved_timestamp" => {
                pos = value_at + text[value_at..].iter().take_while(|b| !b.is_ascii_whitespace()).count();
            }
            _ => {
                let name = String::from_utf8_lossy(name);
                return Err(ParseError::new(name_at, WHAT, format!("CheckpointState has no field {name:?}")));
            }
        }
    }
    latest.filter(|path| !path.is_empty()).ok_or_else(|| ParseError::new(0, WHAT, "model_checkpoint_path is missing"))
}

/// The offset of the next character outside spaces and comments.
fn skip_space(text: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        match text.get(pos)? {
            b'#' => pos += text[pos..].iter().take_while(|b| **b != b'\n').count(),
            b if b.is_ascii_whitespace() => pos += 1,
            _ => return Some(pos),
        }
    }
}

/// Parses adjacent quoted strings and joins them, as text format does; also returns the offset after them.
fn parse_strings(text: &[u8], start: usize) -> Result<(Vec<u8>, usize), ParseError> {
    let mut value = Vec::new();
    let mut end = start;
    let mut next = Some(start);
    while let Some(at) = next.filter(|&at| matches!(text[at], b'"' | b'\'')) {
        end = parse_string(text, at, &mut value)?;
        next = skip_space(text, end);
    }
    if end == start {
        return Err(ParseError::new(start, WHAT, "expected a quoted string"));
    }
    Ok((value, end))
}

fn parse_string(text: &[u8], start: usize, value: &mut Vec<u8>) -> Result<usize, ParseError> {
    let quote = text[start];
    let unfinished = || ParseError::new(start, WHAT, "the closing quote of the string is missing");
    let mut pos = start + 1;
    loop {
        let byte = *text.get(pos).ok_or_else(unfinished)?;
        pos += 1;
        match byte {
            b'\n' => return Err(unfinished()),
            b'\\' => {}
            _ if byte == quote => return Ok(pos),
            _ => {
                value.push(byte);
                continue;
            }
        }
        let escape = *text.get(pos).ok_or_else(unfinished)?;
        pos += 1;
        let simple = match escape {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' | b'?' => escape,
            b'0'..=b'7' | b'x' | b'X' => {
                let (radix, most) = if escape.is_ascii_digit() { (8, 3) } else { (16, 2) };
                let from = if radix == 8 { pos - 1 } else { pos };
                let digits = text[from..].iter().take(most).take_while(|b| char::from(**b).is_digit(radix)).count();
                let number = text[from..from + digits].iter().fold(0, |n, &b| n * radix + char::from(b).to_digit(radix).unwrap_or(0));
                pos = from + digits;
                u8::try_from(number)
                    .ok()
                    .filter(|_| digits > 0)
                    .ok_or_else(|| ParseError::new(from, WHAT, format!("escape of value {number} and {digits} digits is not a byte")))?
            }
            _ => return Err(ParseError::new(pos - 1, WHAT, format!("escape \\{} does not exist", char::from(escape)))),
        };
        value.push(simple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_path_is_found_among_all_fields() {
        let text = b"model_checkpoint_path: \"ckpt-3\"\nall_model_checkpoint_paths: \"ckpt-2\"\n# note\nall_model_checkpoint_paths: \"ckpt-3\"\nall_model_checkpoint_timestamps: 1.5e9\nlast_preserved_timestamp: 1\n";
        assert_eq!(parse_latest(text).unwrap(), b"ckpt-3");
    }

    #[test]
    fn escapes_and_adjacent_strings_are_resolved() {
        let text = br#"model_checkpoint_path: "a\"b\\\303\251" 'c\x41\n'"#;
        assert_eq!(parse_latest(text).unwrap(), "a\"b\\\u{e9}cA\n".as_bytes());
    }

    #[test]
    fn broken_text_is_an_error() {
        for bad in [
            &b""[..],
            b"model_checkpoint_path",
            b"model_checkpoint_path: ",
            b"model_checkpoint_path: \"x",
            b"model_checkpoint_path: x",
            b"what: 1",
            b"\xff\xfe",
            b"model_checkpoint_path: \"\\q\"",
            b"model_checkpoint_path: \"\\x\"",
            b"model_checkpoint_path: \"\\777\"",
            b"model_checkpoint_path: \"\"",
        ] {
            assert!(parse_latest(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..60)) {
            let _ = parse_latest(&bytes);
        }
    }
}

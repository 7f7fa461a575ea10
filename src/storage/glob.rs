//! Patterns of names and paths: `*`, `?`, `[…]` and `{a,b}`, over any bytes.
//!
//! The rules are those of a shell: `[!a-z]` and `[^a-z]` match any other character; an unmatched bracket or brace is literal. In
//! names `*` also matches `/`. In paths it does not, `**` matches any number of directories, and names that start with a dot are
//! matched only by patterns that do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::blob::Storage;
use super::paths::Found;
use crate::error::Result;
use crate::error::request::BadRequest;

/// Maximum number of alternatives of one pattern: braces multiply them.
const MOST_ALTERNATIVES: usize = 1024;
/// Bytes that are not UTF-8 become units of their own, above the last code point.
const BYTE_UNIT: u32 = 0x11_0000;

/// Whether bytes contain a pattern character.
pub(crate) fn is_pattern(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| b"*?[{".contains(byte))
}

/// A pattern for names.
#[derive(Debug)]
pub(crate) struct Glob(Vec<Vec<Token>>);

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Any run of characters.
    Run,
    /// Any character.
    Any,
    /// This very character.
    One(u32),
    /// A character in one of these ranges, or outside all of them.
    Class { ranges: Vec<(u32, u32)>, is_negated: bool },
}

impl Token {
    fn matches(&self, unit: u32) -> bool {
        match self {
            Self::Run | Self::Any => true,
            Self::One(own) => *own == unit,
            Self::Class { ranges, is_negated } => ranges.iter().any(|(first, last)| (*first..=*last).contains(&unit)) != *is_negated,
        }
    }
}

impl Glob {
    /// # Errors
    /// Returns [`Error::BadRequest`] for too many alternatives.
    pub(crate) fn new(pattern: &[u8]) -> Result<Self> {
        alternatives(pattern).map(|all| Self(all.iter().map(|pattern| tokens(pattern)).collect()))
    }

    /// Takes the file-name part of a path pattern.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new).
    pub(crate) fn of_file_names(path: &Path) -> Result<Self> {
        let last = |pattern: &Vec<u8>| tokens(pattern.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
        alternatives(path.as_os_str().as_bytes()).map(|all| Self(all.iter().map(last).collect()))
    }

    /// Whether the pattern matches all of `text`.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let text = units(text);
        self.0.iter().any(|pattern| matches(pattern, &text))
    }
}

/// Splits bytes into code points, and single bytes where they are not UTF-8.
fn units(bytes: &[u8]) -> Vec<u32> {
    let chunk = |chunk: std::str::Utf8Chunk<'_>| {
        let chars: Vec<u32> = chunk.valid().chars().map(u32::from).collect();
        chars.into_iter().chain(chunk.invalid().iter().map(|&byte| BYTE_UNIT + u32::from(byte)).collect::<Vec<_>>())
    };
    bytes.utf8_chunks().flat_map(chunk).collect()
}

/// Whether `pattern` matches all of `text`.
///
/// On a mismatch it goes back to the last run and extends it by one character, so the time is at most the product of both
/// lengths.
fn matches(pattern: &[Token], text: &[u32]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Run) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(token) if token.matches(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((run, taken)) = retry else { return false };
                retry = Some((run, taken + 1));
                (p, t) = (run + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|token| *token == Token::Run)
}

/// Parses a pattern without braces.
fn tokens(pattern: &[u8]) -> Vec<Token> {
    let units = units(pattern);
    let mut tokens = Vec::with_capacity(units.len());
    let mut at = 0;
    while let Some(&unit) = units.get(at) {
        at += 1;
        tokens.push(match u8::try_from(unit) {
            Ok(b'*') => Token::Run,
            Ok(b'?') => Token::Any,
            Ok(b'[') => match class(&units[at..]) {
                Some((class, len)) => {
                    at += len;
                    class
                }
                None => Token::One(unit),
            },
            _ => Token::One(unit),
        });
    }
    tokens
}

/// Parses a class, starting after its opening bracket; also returns the number of units used. `None` if it is not closed.
fn class(units: &[u32]) -> Option<(Token, usize)> {
    const CLOSE: u32 = b']' as u32;
    const DASH: u32 = b'-' as u32;
    let is_negated = units.first().is_some_and(|&unit| unit == u32::from(b'!') || unit == u32::from(b'^'));
    let start = usize::from(is_negated);
    // A closing bracket right after the opening one is a member.
    let end = start + 1 + units.get(start + 1..)?.iter().position(|&unit| unit == CLOSE)?;
    let (mut ranges, mut members) = (Vec::new(), &units[start..end]);
    while let [first, rest @ ..] = members {
        (ranges, members) = match rest {
            [dash, last, others @ ..] if *dash == DASH => {
                ranges.push((*first, *last));
                (ranges, others)
            }
            _ => {
                ranges.push((*first, *first));
                (ranges, rest)
            }
        };
    }
    Some((Token::Class { ranges, is_negated }, end + 1))
}

/// Expands braces: all patterns that a pattern stands for, in order.
///
/// # Errors
/// Returns [`Error::BadRequest`] for too many.
pub(crate) fn alternatives(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut open = vec![pattern.to_vec()];
    let mut done = Vec::new();
    while let Some(next) = open.pop() {
        let Some((start, end, parts)) = braces(&next) else {
            done.push(next);
            continue;
        };
        // Pushed in reverse, so that the first one is popped first.
        for part in parts.iter().rev() {
            open.push([&next[..start], &next[part.clone()], &next[end..]].concat());
        }
        if open.len() + done.len() > MOST_ALTERNATIVES {
            let pattern = String::from_utf8_lossy(pattern).into_owned();
            return Err(BadRequest::TooManyPatterns { pattern, most: MOST_ALTERNATIVES }.into());
        }
    }
    Ok(done)
}

/// Finds the first group of alternatives in braces: its start, its end, and its parts.
fn braces(pattern: &[u8]) -> Option<(usize, usize, Vec<std::ops::Range<usize>>)> {
    for start in (0..pattern.len()).filter(|&at| pattern[at] == b'{') {
        let (mut depth, mut from, mut parts) = (0, start + 1, Vec::new());
        for (at, byte) in pattern.iter().enumerate().skip(start) {
            match byte {
                b'{' => depth += 1,
                b',' if depth == 1 => {
                    parts.push(from..at);
                    from = at + 1;
                }
                b'}' => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                parts.push(from..at);
                // Braces with a single alternative are literal.
                if parts.len() > 1 {
                    return Some((start, at + 1, parts));
                }
                break;
            }
        }
    }
    None
}

/// Expands the path pattern `pattern`, sorted. A part of the path that exists literally is not expanded. Braces are literal here;
/// [`alternatives_of_path`] expands them.
///
/// # Errors
/// Returns [`Error::Io`] for a directory that cannot be listed.
pub(crate) fn expand(pattern: &Path, storage: &dyn Storage) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let pattern = pattern.as_os_str().as_bytes();
    let is_absolute = pattern.first() == Some(&b'/');
    let parts: Vec<&[u8]> = pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
    let root = if is_absolute { PathBuf::from("/") } else { PathBuf::new() };
    walk(root, &parts, storage, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Expands the braces of a path, in order. The longest leading part that exists literally is not expanded.
///
/// # Errors
/// Returns the errors of [`alternatives`].
pub(crate) fn alternatives_of_path(pattern: &Path, storage: &dyn Storage) -> Result<Vec<PathBuf>> {
    let bytes = pattern.as_os_str().as_bytes();
    let is_there = |end: usize| storage.look_at(Path::new(OsStr::from_bytes(&bytes[..end]))).is_ok_and(|found| found != Found::Nothing);
    // The longest leading part that exists.
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'/' && at > 0);
    let kept = ends.rev().find(|&end| is_pattern(&bytes[..end]) && is_there(end)).unwrap_or(0);
    let alternatives = alternatives(&bytes[kept..])?;
    Ok(alternatives.into_iter().map(|rest| PathBuf::from(OsStr::from_bytes(&[&bytes[..kept], &rest].concat()))).collect())
}

fn walk(base: PathBuf, parts: &[&[u8]], storage: &dyn Storage, found: &mut Vec<PathBuf>) -> Result<()> {
    let [part, rest @ ..] = parts else {
        found.push(base);
        return Ok(());
    };
    let below = |name: &[u8]| base.join(OsStr::from_bytes(name));
    let literal = below(part);
    if storage.is_link(&literal) || storage.look_at(&literal).is_ok_and(|found| found != Found::Nothing) {
        return walk(literal, rest, storage, found);
    }
    if !is_pattern(part) {
        return Ok(());
    }
    let dir = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
    if storage.look_at(dir)? != Found::Directory {
        return Ok(());
    }
    if *part == b"**" {
        walk(base.clone(), rest, storage, found)?;
        for name in names(dir, storage)?.iter().filter(|name| name[0] != b'.') {
            // Symbolic links are skipped, because they may form cycles.
            let dir = below(name);
            if !storage.is_link(&dir) && storage.look_at(&dir).is_ok_and(|found| found == Found::Directory) {
                walk(dir, parts, storage, found)?;
            }
        }
        return Ok(());
    }
    let pattern = tokens(part);
    for name in names(dir, storage)? {
        if (name[0] != b'.' || part[0] == b'.') && matches(&pattern, &units(&name)) {
            walk(below(&name), rest, storage, found)?;
        }
    }
    Ok(())
}

/// The names of a directory's entries.
fn names(dir: &Path, storage: &dyn Storage) -> Result<Vec<Vec<u8>>> {
    let entries = storage.list(dir)?;
    Ok(entries.iter().filter_map(|path| path.file_name()).map(|name| name.as_bytes().to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SystemCalls;
    use crate::storage::local::LocalStorage;

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("a*", "a", true),
            ("*kernel", "dense/kernel", true),
            ("*kernel", "dense/kernel/m", false),
            ("a*b*c", "a/b/b/c", true),
            ("a*b*c", "a/c/b", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("", "", true),
            ("part_?", "part_7", true),
            ("part_?", "part_10", false),
            ("?", "é", true),
            ("?", "雪", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[a-]", "-", true),
            ("[é-ü]", "ö", true),
            ("w[0", "w[0", true),
            ("{dense,conv}/kernel", "conv/kernel", true),
            ("{a,b{c,d}}", "bd", true),
            ("{a,b{c,d}}", "b", false),
            ("{a}", "{a}", true),
            ("a{,b}", "a", true),
            ("{", "{", true),
            ("{{a,b},c", "{b,c", true),
        ] {
            assert_eq!(Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes()), expected, "{pattern} on {text}");
        }
        assert!(Glob::new(b"\xff?").unwrap().matches(b"\xff\xfe"), "bytes that are not UTF-8 are characters");
        assert!(Glob::new(&b"{a,b}".repeat(11)).is_err());
    }

    #[test]
    fn an_existing_path_is_not_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["run[1]/w", "run1/w", "a", "b", "ab", ".hidden", "deep/er/a", "{x,y}/a", "x/a", "star/*", "star/b"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let odd = OsStr::from_bytes(b"\xff1");
        std::fs::write(dir.path().join(odd), b"").unwrap();
        let found = |pattern: &[u8]| -> Vec<Vec<u8>> {
            let storage = LocalStorage::new(SystemCalls::default());
            let paths = alternatives_of_path(&dir.path().join(OsStr::from_bytes(pattern)), &storage).unwrap();
            let found: Vec<PathBuf> = paths.iter().flat_map(|path| expand(path, &storage).unwrap()).collect();
            found.iter().map(|path| path.strip_prefix(dir.path()).unwrap().as_os_str().as_bytes().to_vec()).collect()
        };
        for (pattern, expected) in [
            ("run[1]/*", &["run[1]/w"][..]),
            ("run[12]/w", &["run1/w"]),
            ("?", &["a", "b", "x"]),
            ("a?", &["ab"]),
            ("[!b-z]", &["a"]),
            ("star/*", &["star/*"]),
            ("star/?", &["star/*", "star/b"]),
            ("**/a", &["a", "deep/er/a", "x/a", "{x,y}/a"]),
            ("{x,y}/?", &["{x,y}/a"]),
            ("{b,a}", &["b", "a"]),
            (".h*", &[".hidden"]),
            ("c*", &[]),
            ("a/*", &[]),
        ] {
            let names: Vec<String> = found(pattern.as_bytes()).into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
            assert_eq!(names, expected, "{pattern}");
        }
        assert_eq!(found(b"\xff?"), [b"\xff1"]);
    }
}

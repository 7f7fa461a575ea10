//! Patterns of names and paths: `*`, `?`, `[…]` and `{a,b}`, over any bytes.
//!
//! The rules are those of a shell: `[!a-z]` and `[^a-z]` stand for any other character, a bracket or a brace without its partner for
//! itself. In names `*` matches `/` too; in paths it does not, `**` stands for any number of directories, and names that start with a
//! dot are matched only by patterns that do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::paths::{Found, list, look_at};
use crate::error::{Error, Result};

/// Alternatives of one pattern: braces multiply them.
const MOST_ALTERNATIVES: usize = 1024;
/// A byte that is not part of UTF-8 is a unit of its own, behind the last code point.
const BYTE_UNIT: u32 = 0x11_0000;

/// Whether bytes have a character that patterns are made of.
pub(crate) fn is_pattern(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| b"*?[{".contains(byte))
}

/// A pattern for names.
#[derive(Debug)]
pub(crate) struct Glob(Vec<Vec<Token>>);

/// What matches a part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Any run of characters.
    Run,
    /// Any character.
    Any,
    /// This character.
    One(u32),
    /// A character in one of these ranges, or in none of them.
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
    /// [`Error::BadRequest`] for more alternatives than anybody needs.
    pub(crate) fn new(pattern: &[u8]) -> Result<Self> {
        alternatives(pattern).map(|all| Self(all.iter().map(|pattern| tokens(pattern)).collect()))
    }

    /// The part of a pattern of paths that is for names of files.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_file_names(path: &Path) -> Result<Self> {
        let last = |pattern: &Vec<u8>| tokens(pattern.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
        alternatives(path.as_os_str().as_bytes()).map(|all| Self(all.iter().map(last).collect()))
    }

    /// Whether it matches all of `text`.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let text = units(text);
        self.0.iter().any(|pattern| matches(pattern, &text))
    }
}

/// Code points, and single bytes where there are none.
fn units(bytes: &[u8]) -> Vec<u32> {
    let chunk = |chunk: std::str::Utf8Chunk<'_>| {
        let chars: Vec<u32> = chunk.valid().chars().map(u32::from).collect();
        chars.into_iter().chain(chunk.invalid().iter().map(|&byte| BYTE_UNIT + u32::from(byte)).collect::<Vec<_>>())
    };
    bytes.utf8_chunks().flat_map(chunk).collect()
}

/// Whether `pattern` matches all of `text`.
///
/// On a mismatch it goes back to the last run and lets that have one character more, so that no pattern takes longer than the product of both lengths.
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

/// The tokens of a pattern without braces.
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

/// The class whose opening bracket `units` are behind, and how many of them it takes; `None` if it is not closed.
fn class(units: &[u32]) -> Option<(Token, usize)> {
    const CLOSE: u32 = b']' as u32;
    const DASH: u32 = b'-' as u32;
    let is_negated = units.first().is_some_and(|&unit| unit == u32::from(b'!') || unit == u32::from(b'^'));
    let start = usize::from(is_negated);
    // A bracket right behind the opening one is a member.
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

/// All patterns without braces that a pattern with braces stands for, in their order.
///
/// # Errors
/// [`Error::BadRequest`] for more than anybody needs.
pub(crate) fn alternatives(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut open = vec![pattern.to_vec()];
    let mut done = Vec::new();
    while let Some(next) = open.pop() {
        let Some((start, end, parts)) = braces(&next) else {
            done.push(next);
            continue;
        };
        // The first one is to come out first.
        for part in parts.iter().rev() {
            open.push([&next[..start], &next[part.clone()], &next[end..]].concat());
        }
        if open.len() + done.len() > MOST_ALTERNATIVES {
            let text = String::from_utf8_lossy(pattern).into_owned();
            return Err(Error::bad_request(format!(
                "the pattern {text} stands for more than {MOST_ALTERNATIVES} others: use fewer braces"
            )));
        }
    }
    Ok(done)
}

/// The first group of alternatives in braces: where it starts, where it ends, and its parts.
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
                // One alternative is none: such braces are characters.
                if parts.len() > 1 {
                    return Some((start, at + 1, parts));
                }
                break;
            }
        }
    }
    None
}

/// What lies at the paths that `pattern` matches, sorted. A part of the path that is there as it is written stands for itself only, and
/// braces do: [`alternatives_of_path`] takes them apart.
///
/// # Errors
/// [`Error::Io`] for a directory that cannot be listed.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let pattern = pattern.as_os_str().as_bytes();
    let is_absolute = pattern.first() == Some(&b'/');
    let parts: Vec<&[u8]> = pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
    let root = if is_absolute { PathBuf::from("/") } else { PathBuf::new() };
    walk(root, &parts, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// The paths without braces that a path with braces stands for, in their order. A name with braces that is there as it is written is not
/// taken apart.
///
/// # Errors
/// As [`alternatives`].
pub(crate) fn alternatives_of_path(pattern: &Path) -> Result<Vec<PathBuf>> {
    let bytes = pattern.as_os_str().as_bytes();
    let is_there = |end: usize| look_at(Path::new(OsStr::from_bytes(&bytes[..end]))).is_ok_and(|found| found != Found::Nothing);
    // The longest front that is there.
    let ends = (0..bytes.len()).filter(|&at| bytes[at] == b'/' && at > 0);
    let kept = ends.rev().find(|&end| is_pattern(&bytes[..end]) && is_there(end)).unwrap_or(0);
    let alternatives = alternatives(&bytes[kept..])?;
    Ok(alternatives.into_iter().map(|rest| PathBuf::from(OsStr::from_bytes(&[&bytes[..kept], &rest].concat()))).collect())
}

fn walk(base: PathBuf, parts: &[&[u8]], found: &mut Vec<PathBuf>) -> Result<()> {
    let [part, rest @ ..] = parts else {
        found.push(base);
        return Ok(());
    };
    let below = |name: &[u8]| base.join(OsStr::from_bytes(name));
    let literal = below(part);
    if std::fs::symlink_metadata(&literal).is_ok() {
        return walk(literal, rest, found);
    }
    if !is_pattern(part) {
        return Ok(());
    }
    let dir = if base.as_os_str().is_empty() { Path::new(".") } else { &base };
    if look_at(dir)? != Found::Directory {
        return Ok(());
    }
    if *part == b"**" {
        walk(base.clone(), rest, found)?;
        for name in names(dir)?.iter().filter(|name| name[0] != b'.') {
            // Links to directories may lead back.
            if std::fs::symlink_metadata(below(name)).is_ok_and(|metadata| metadata.is_dir()) {
                walk(below(name), parts, found)?;
            }
        }
        return Ok(());
    }
    let pattern = tokens(part);
    for name in names(dir)? {
        if (name[0] != b'.' || part[0] == b'.') && matches(&pattern, &units(&name)) {
            walk(below(&name), rest, found)?;
        }
    }
    Ok(())
}

/// The names in a directory.
fn names(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = list(dir)?;
    Ok(entries.iter().filter_map(|path| path.file_name()).map(|name| name.as_bytes().to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_there_as_it_is_written_is_no_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["run[1]/w", "run1/w", "a", "b", "ab", ".hidden", "deep/er/a", "{x,y}/a", "x/a", "star/*", "star/b"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let odd = OsStr::from_bytes(b"\xff1");
        std::fs::write(dir.path().join(odd), b"").unwrap();
        let found = |pattern: &[u8]| -> Vec<Vec<u8>> {
            let paths = alternatives_of_path(&dir.path().join(OsStr::from_bytes(pattern))).unwrap();
            let found: Vec<PathBuf> = paths.iter().flat_map(|path| expand(path).unwrap()).collect();
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

//! A range of rows on axis 0, with Python's slicing rules.

use std::fmt;
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};
use std::str::FromStr;

/// Rows `start:end` of axis 0. As in Python, an omitted bound is open, a negative one counts from the end, and both are clamped
/// to the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// The first row.
    pub start: Option<i64>,
    /// One past the last row.
    pub end: Option<i64>,
}

impl Rows {
    /// All rows.
    pub const ALL: Self = Self { start: None, end: None };

    /// Resolves the range for an axis of length `len`.
    #[must_use]
    pub fn resolve(self, len: u64) -> Range<u64> {
        let place = |position: i64| match u64::try_from(position) {
            Ok(from_front) => from_front.min(len),
            Err(_) => len.saturating_sub(position.unsigned_abs()),
        };
        let start = self.start.map_or(0, place);
        let end = self.end.map_or(len, place);
        start..end.max(start)
    }
}

/// End of an open range when the length is unknown.
pub(crate) const NO_END: u64 = i64::MAX.unsigned_abs();

impl From<Range<u64>> for Rows {
    fn from(range: Range<u64>) -> Self {
        let place = |row: u64| Some(i64::try_from(row).unwrap_or(i64::MAX));
        Self { start: place(range.start), end: place(range.end) }
    }
}

impl From<RangeFull> for Rows {
    fn from(_: RangeFull) -> Self {
        Self::ALL
    }
}

impl From<RangeFrom<u64>> for Rows {
    fn from(range: RangeFrom<u64>) -> Self {
        Self { end: None, ..Self::from(range.start..0) }
    }
}

impl From<RangeTo<u64>> for Rows {
    fn from(range: RangeTo<u64>) -> Self {
        Self::from(0..range.end)
    }
}

impl FromStr for Rows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range of rows: expected A:B, each a whole number, negative or left out");
        let (start, end) = text.split_once(':').ok_or_else(wrong)?;
        let number = |part: &str| match part.trim() {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| wrong()),
        };
        Ok(Self { start: number(start)?, end: number(end)? })
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |end: Option<i64>| end.map_or(String::new(), |n| n.to_string());
        write!(f, "{}:{}", text(self.start), text(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_follow_python() {
        // Each expectation is list(range(10))[text] of CPython 3.11.
        for (text, expected) in [
            (":", 0..10),
            ("2:5", 2..5),
            ("-3:", 7..10),
            (":-3", 0..7),
            ("8:99", 8..10),
            ("-99:2", 0..2),
            ("5:2", 5..5),
            ("10:", 10..10),
            ("99:", 10..10),
        ] {
            let rows: Rows = text.parse().unwrap();
            assert_eq!(rows.resolve(10), expected, "{text}");
            assert_eq!(rows.to_string(), text);
        }
        for text in ["", "3", "a:b", "1:2:3", "1.5:"] {
            assert!(text.parse::<Rows>().is_err(), "{text}");
        }
        let extreme = Rows { start: Some(i64::MIN), end: Some(i64::MAX) };
        assert_eq!(extreme.resolve(u64::MAX), (u64::MAX - (1 << 63))..i64::MAX as u64);
    }
}

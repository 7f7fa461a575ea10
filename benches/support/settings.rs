//! Settings from the environment. docs/benchmarks.md lists them.

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;

/// A setting as text, unless it is unset or empty.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// A setting of any type that can be parsed. What cannot be parsed ends the bench.
pub fn parsed<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    text(name).map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error:?}")))
}

pub fn number(name: &str, default: u64) -> u64 {
    parsed(name, default)
}

/// Whether `NAME=1` is set.
pub fn is_on(name: &str) -> bool {
    number(name, 0) > 0
}

/// `ROUNDS`, at least one.
pub fn rounds(default: u64) -> u64 {
    number("ROUNDS", default).max(1)
}

/// `DIR`, the directory for inputs and outputs.
pub fn dir() -> Option<PathBuf> {
    text("DIR").map(PathBuf::from)
}

/// The parts of a list separated by commas.
pub fn list(name: &str, default: &str) -> Vec<String> {
    text(name).unwrap_or_else(|| default.into()).split(',').map(str::to_owned).collect()
}

/// Those of `known` that a list names, in the order of `known`; all if it is unset. An unknown name ends the bench.
pub fn chosen<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let wanted = list(name, &known.join(","));
    if let Some(unknown) = wanted.iter().find(|word| !known.contains(&word.as_str())) {
        panic!("{name}: {unknown} is unknown; known are {}", known.join(", "));
    }
    known.iter().copied().filter(|known| wanted.iter().any(|word| word == known)).collect()
}

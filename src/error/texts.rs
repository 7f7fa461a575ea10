//! How errors show shapes, names and paths.

use std::fmt;
use std::path::{Path, PathBuf};

/// Displays a shape in the usual notation: `[30011, 24]`.
#[derive(Debug, Clone, Copy)]
pub struct ShapeText<'a>(pub &'a [u64]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i == 16 && self.0.len() > 17 {
                return write!(f, ", … {} dimensions]", self.0.len());
            }
            write!(f, "{}{dim}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// A shape in which some lengths are not known: `[?, 3]`.
pub(super) struct Axes<'a>(pub(super) &'a [Option<u64>]);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.0.iter().map(|axis| axis.map_or_else(|| "?".to_owned(), |axis| axis.to_string())).collect();
        write!(f, "[{}]", axes.join(", "))
    }
}

/// Some rows of an array, or an unknown number of them: `5 rows of shape [3]`.
pub(super) struct RowsOf<'a>(pub(super) Option<u64>, pub(super) &'a [u64]);

impl fmt::Display for RowsOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rows) = self.0 {
            write!(f, "{rows} ")?;
        }
        write!(f, "rows of shape {}", ShapeText(self.1))
    }
}

/// What is there, or that there is nothing.
pub(super) struct Listed<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", if i == 0 { "" } else { ", " }))
    }
}

/// Alternatives: `1, 3 or 4`.
pub(super) struct Or<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Or<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            let before = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{before}{item}")?;
        }
        Ok(())
    }
}

/// The tags of graphs: `"train", "serve,gpu"`.
pub(super) struct Tags<'a>(pub(super) &'a [Vec<String>]);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, tags)| write!(f, "{}{:?}", if i == 0 { "" } else { ", " }, tags.join(",")))
    }
}

/// A path before what is said about it, if one is known.
pub(super) struct Before<'a>(pub(super) Option<&'a PathBuf>);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |path| write!(f, "{}: ", path.display()))
    }
}

/// A pipe; `-` is standard input.
pub(super) struct Pipe<'a>(pub(super) &'a Path);

impl fmt::Display for Pipe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Path::new("-") { f.write_str("standard input (-)") } else { write!(f, "{}", self.0.display()) }
    }
}

/// A source that is given twice, the second time perhaps by another name.
pub(super) struct Twice<'a>(pub(super) &'a Path, pub(super) Option<&'a PathBuf>);

impl fmt::Display for Twice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            _ if self.0 == Path::new("-") => write!(f, "{} is given twice, but can be read only once", Pipe(self.0)),
            Some(again) => write!(f, "{} is given twice, as {}", self.0.display(), again.display()),
            None => write!(f, "{} is given twice: `concat` joins a source to itself", self.0.display()),
        }
    }
}

/// The only one of the sources to join, if there is one, and whether it consists of files that are joined anyway.
pub(super) struct Only<'a>(pub(super) Option<&'a PathBuf>, pub(super) bool);

impl fmt::Display for Only<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = self.0 else { return Ok(()) };
        let joined = if self.1 { ", whose files follow each other without it" } else { "" };
        write!(f, ", and {} is one{joined}", path.display())
    }
}

/// Options without an effect, each with what it applies to. Those with the same purpose are named together.
pub(super) struct WithoutEffect<'a>(pub(super) &'a [(String, &'static str)]);

impl fmt::Display for WithoutEffect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_needs: Vec<(&str, Vec<&str>)> = Vec::new();
        for (option, needs) in self.0 {
            match by_needs.iter_mut().find(|(known, _)| known == needs) {
                Some((_, options)) => options.push(option),
                None => by_needs.push((needs, vec![option])),
            }
        }
        for (i, (needs, options)) in by_needs.iter().enumerate() {
            let (have, they) = if options.len() == 1 { ("has", "it applies") } else { ("have", "they apply") };
            let before = if i == 0 { "" } else { "; " };
            write!(f, "{before}{} {have} no effect on the selection: {they} to {needs}", options.join(", "))?;
        }
        Ok(())
    }
}

/// Arrays: the part of a tensor that each holds, and the tensor.
pub(super) struct Arrays<'a>(pub(super) &'a [(String, String)]);

impl fmt::Display for Arrays<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, part)) in self.0.iter().enumerate() {
            write!(f, "{}the {part} of {name}", if i == 0 { "" } else { " and " })?;
        }
        Ok(())
    }
}

/// The number of rows that are fed at a time, if they are fed in batches.
pub(super) struct AtATime(pub(super) Option<u64>);

impl fmt::Display for AtATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |batch| write!(f, ", {batch} rows at a time"))
    }
}

/// What an input of a model takes: its dtype, with NumPy's descriptor where there is one, and how to get there.
pub(super) struct Takes(pub(super) Option<&'static str>, pub(super) Option<&'static str>);

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(dtype) = self.0 else { return f.write_str("a dtype that is not known to this version") };
        f.write_str(dtype)?;
        if let Some(descr) = self.1 {
            write!(f, " ({descr})")?;
        }
        f.write_str(": convert it with array.astype")
    }
}

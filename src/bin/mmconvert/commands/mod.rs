//! The commands of the program, one function each.
//!
//! A command turns arguments into calls of the library and prints the results; it knows no formats. Start with `convert.rs`;
//! `sources.rs` tells paths from names, `target.rs` decides about the output, and `choices.rs` fills in the options.

mod choices;
mod convert;
mod info;
mod ls;
mod sources;
mod stdout;
mod target;
mod verify;

use clap::CommandFactory;
use mmconvert::{BadRequest, Error, Result};

use crate::Outcome;
use crate::args::Args;
use crate::render::Stdout;

pub(crate) use convert::convert;
pub(crate) use info::info;
pub(crate) use ls::ls;
pub(crate) use verify::verify;

/// The error for arguments that make no sense.
fn usage(detail: impl Into<String>) -> Error {
    BadRequest::Custom { detail: detail.into() }.into()
}

/// `mmconvert completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "mmconvert", &mut script);
    let mut out = Stdout::new();
    out.write(String::from_utf8_lossy(&script))?;
    out.finish()?;
    Ok(Outcome::Done)
}

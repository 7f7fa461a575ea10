//! The `mmconvert` program: arguments in, exit code out. The library does the work.

mod args;
mod commands;
mod flags;
mod progress;
mod render;
mod signals;

use std::io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
use std::process::ExitCode;

use clap::Parser;
use mmconvert::Error;

/// The result of a command that did not fail.
enum Outcome {
    Done,
    /// A comparison found a difference, which has been shown.
    Different,
    /// Unsupported tensors were skipped, and have been listed.
    Skipped,
}

fn main() -> ExitCode {
    let args = args::Args::parse();
    let result = match &args.command {
        args::Command::Ls(ls) => commands::ls(ls, &args.common),
        args::Command::Info(info) => commands::info(info, &args.common),
        args::Command::Convert(convert) => commands::convert(convert, &args.common),
        args::Command::Verify(verify) => commands::verify(verify, &args.common),
        args::Command::Completions { shell } => commands::completions(*shell),
    };
    render::notices(&args.common);
    let code = match &result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Different) => 5,
        Ok(Outcome::Skipped) => 6,
        // The reader of our output has closed it, which is not a failure.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            render::error(error, args.common.color);
            exit_code(error)
        }
    };
    ExitCode::from(code)
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::BadRequest(..) | Error::NoSuchTensor { .. } | Error::WrongDtype { .. } => 2,
        Error::Malformed { .. } => 3,
        Error::Limit { .. } => 4,
        Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory) => 4,
        Error::Unsupported { .. } | Error::Lossy { .. } => 6,
        Error::Cancelled => signals::received().map_or(1, |signal| 128 + signal),
        _ => 1,
    }
}

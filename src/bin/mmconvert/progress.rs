//! Progress on stderr: a bar, lines, JSON lines, or nothing.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mmconvert::{HumanBytes, Options, Progress};
use serde_json::json;

use crate::args::{Common, ProgressMode};
use crate::render::note;

/// Interval between lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Attaches the requested progress display; the caller clears the bar, if any, at the end.
pub(crate) fn attach(options: Options, common: &Common) -> (Options, Option<ProgressBar>) {
    let mode = match common.progress {
        _ if common.quiet => ProgressMode::Never,
        ProgressMode::Auto if !io::stderr().is_terminal() => ProgressMode::Plain,
        mode => mode,
    };
    match mode {
        ProgressMode::Never => (options, None),
        ProgressMode::Auto => {
            let bar = bar();
            let shown = bar.clone();
            let options = options.progress(move |p| {
                match p.total_bytes {
                    Some(total) => shown.set_length(total.max(p.done_bytes)),
                    None => shown.set_style(growing()),
                }
                shown.set_position(p.done_bytes);
                shown.set_message(memory(p));
            });
            (options, Some(bar))
        }
        ProgressMode::Plain | ProgressMode::Json => {
            let started = Instant::now();
            let last = Mutex::new(started);
            let options = options.progress(move |p| {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let seconds = started.elapsed().as_secs_f64();
                    note(&if mode == ProgressMode::Json { json_line(p, seconds) } else { plain_line(p, seconds) });
                }
            });
            (options, None)
        }
    }
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{percent:>3}% {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// Style for an unknown total.
fn growing() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {binary_bytes} {binary_bytes_per_sec} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn memory(p: &Progress) -> String {
    format!("memory {}/{}", HumanBytes(p.memory_bytes), HumanBytes(p.memory_limit))
}

/// Bytes per second so far, and the estimated remaining seconds if the total is known.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate for people")]
fn rate(p: &Progress, seconds: f64) -> (u64, Option<f64>) {
    let rate = p.done_bytes as f64 / seconds.max(1e-9);
    (rate as u64, p.total_bytes.map(|total| total.saturating_sub(p.done_bytes) as f64 / rate.max(1.0)))
}

fn plain_line(p: &Progress, seconds: f64) -> String {
    let (rate, eta) = rate(p, seconds);
    let (Some(total), Some(eta)) = (p.total_bytes, eta) else {
        return format!("{} {}/s {}", HumanBytes(p.done_bytes), HumanBytes(rate), memory(p));
    };
    let percent = p.done_bytes.saturating_mul(100) / total.max(1);
    format!("{percent:>3}% {}/{} {}/s ETA {eta:.0} s {}", HumanBytes(p.done_bytes), HumanBytes(total), HumanBytes(rate), memory(p))
}

fn json_line(p: &Progress, seconds: f64) -> String {
    let (rate, eta) = rate(p, seconds);
    json!({
        "done_bytes": p.done_bytes,
        "total_bytes": p.total_bytes,
        "bytes_per_second": rate,
        "eta_seconds": eta,
        "memory_bytes": p.memory_bytes,
        "memory_limit": p.memory_limit,
    })
    .to_string()
}

//! What benches share.
#![allow(unreachable_pub, missing_docs, dead_code, reason = "not part of the crate; each bench uses another part")]

pub mod cgroup;

use std::time::Duration;

/// The middle one.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

//! `make_bundle PREFIX NAME DTYPE D0,D1,... [--pieces N] [--shards N] [--align N] [--big-endian] [--snappy] [--sparse N]`
//!
//! Writes a checkpoint with one tensor of any size, whose bytes follow a fixed pattern: the little-endian 64-bit word `i` is
//! `i * 0x9e3779b97f4a7c15`. `--pieces` cuts the tensor along axis 0. `--sparse` makes it a hole except for N runs of 64 KiB. With
//! dtype `string`, elements have 0 to 200 letters.

#[path = "bundle.rs"]
mod bundle;

use std::error::Error;
use std::io::Read;
use std::path::Path;

use bundle::{BundleWriter, Layout, Pattern};
use mmconvert::Dtype;

const USAGE: &str =
    "usage: make_bundle PREFIX NAME DTYPE D0,D1,... [--pieces N] [--shards N] [--align N] [--big-endian] [--snappy] [--sparse RUNS]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut positional = Vec::new();
    let mut layout = Layout::default();
    let mut pieces = 1u64;
    let mut sparse = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or(USAGE)?.parse::<u64>().map_err(|_| USAGE);
        match arg.as_str() {
            "--pieces" => pieces = number()?.max(1),
            "--shards" => layout.shards = number()?.try_into()?,
            "--align" => layout.align = number()?.max(1),
            "--big-endian" => layout.big_endian = true,
            "--snappy" => layout.snappy = true,
            "--sparse" => sparse = Some(number()?),
            _ if arg.starts_with("--") => return Err(USAGE.into()),
            _ => positional.push(arg),
        }
    }
    let [prefix, name, dtype, shape] = positional.as_slice() else { return Err(USAGE.into()) };
    let dtype = Dtype::from_name(dtype).filter(|dtype| dtype.itemsize().is_some() || *dtype == Dtype::String).ok_or("that is no dtype")?;
    let shape: Vec<u64> = shape.split(',').filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let row_bytes = shape.iter().skip(1).product::<u64>() * dtype.itemsize().unwrap_or(0);
    let rows = shape.first().copied().unwrap_or(1);

    let mut writer = BundleWriter::create(Path::new(prefix), layout.clone())?;
    if dtype == Dtype::String {
        writer.add_strings(name.as_bytes(), &shape, (0..shape.iter().product()).map(text), 0)?;
    } else if let Some(runs) = sparse {
        // Runs of 64 KiB with the usual pattern, at equal distances that align with nothing; the rest is holes.
        const RUN: u64 = 64 << 10;
        let nbytes = rows * row_bytes;
        let run = |i: u64| {
            let at = (i * (nbytes / runs) + 12_345).min(nbytes);
            let mut bytes = Vec::new();
            Pattern::part(at..(at + RUN).min(nbytes)).read_to_end(&mut bytes).map(|_| (at, bytes))
        };
        let runs = (0..runs).map(run).collect::<Result<Vec<_>, _>>()?;
        writer.add_sparse(name.as_bytes(), dtype.code(), &shape, nbytes, &runs)?;
    } else if pieces == 1 {
        writer.add(name.as_bytes(), dtype.code(), &shape, 0, Pattern::new(rows * row_bytes))?;
    } else {
        let cuts: Vec<u64> = (0..=pieces).map(|i| rows * i / pieces).collect();
        let extents: Vec<_> = cuts
            .windows(2)
            .map(|w| std::iter::once((w[0], Some(w[1] - w[0]))).chain(shape.iter().skip(1).map(|_| (0, None))).collect())
            .collect();
        writer.add_partitioned(name.as_bytes(), dtype.code(), &shape, &extents, |i| {
            (u32::try_from(i).unwrap_or(0) % layout.shards, Pattern::part(cuts[i] * row_bytes..cuts[i + 1] * row_bytes))
        })?;
    }
    writer.finish()?;
    Ok(())
}

/// String `i`: letters, from 0 to 200 of them.
fn text(i: u64) -> Vec<u8> {
    let word = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..(word >> 32) % 201).map(|j| b'a' + ((word >> 8).wrapping_add(j) % 26) as u8).collect()
}

//! Writes a video that does not fit into memory as one `[frames, height, width, 3]` array, in 64 MiB of memory.
//!
//! `cargo run --release --example huge_video -- video.npy 2000`
//!
//! The frames are drawn here; a decoder would stand in the place of `draw`.

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::time::Instant;

use mmconvert::ndarray::{Axis, Ix4};
use mmconvert::{ArrayWriter, Budget, Dtype, HumanBytes};
use rayon::prelude::*;

const HEIGHT: usize = 480;
const WIDTH: usize = 640;

/// A bright bar that moves to the right by a pixel a frame.
fn draw(frame: u64, pixels: &mut [u8]) {
    for (i, rgb) in pixels.chunks_exact_mut(3).enumerate() {
        let near_bar = (i % WIDTH).abs_diff(usize::try_from(frame).unwrap_or(0) % WIDTH) < 20;
        rgb.copy_from_slice(if near_bar { &[255, 200, 0] } else { &[0, 0, 40] });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "video.npy".into());
    let frames: u64 = args.next().map_or(Ok(500), |n| n.parse())?;
    let frame_shape = [HEIGHT as u64, WIDTH as u64, 3];
    let memory = Budget::mib(64);

    // The number of frames is known: every thread fills the frames it gets, in any order.
    let started = Instant::now();
    let writer = ArrayWriter::new(Dtype::UInt8, &frame_shape).rows(frames).memory(memory).overwrite(true).create(&path)?;
    (0..frames).into_par_iter().try_for_each(|frame| {
        writer.fill(frame..frame + 1, |pixels: &mut [u8]| {
            draw(frame, pixels);
            Ok::<(), mmconvert::Error>(())
        })
    })?;
    // SAFETY: nobody shortens or writes to the file while the example looks at it.
    #[expect(unsafe_code, reason = "the file is this example's own")]
    let video = unsafe { writer.finish_mapped() }?;
    let bytes = video.as_bytes().len() as u64;
    println!("{path}: {:?}, {} in {:.2} s", video.shape(), HumanBytes(bytes), started.elapsed().as_secs_f64());

    // The array is a view over the file: a look at one frame reads that frame.
    let view = video.view_fixed::<u8, Ix4>()?;
    let last = view.index_axis(Axis(0), view.len_of(Axis(0)) - 1);
    let red = last.index_axis(Axis(2), 0);
    let bar = red.row(0).iter().position(|&value| value == 255);
    println!("the bar of the last frame starts at column {bar:?}");

    // A camera that runs until somebody stops it: rows are appended and the array is as long as what came.
    let mut writer = ArrayWriter::new(Dtype::UInt8, &frame_shape).memory(memory).overwrite(true).create(format!("{path}.camera.npy"))?;
    let mut pixels = vec![0; HEIGHT * WIDTH * 3];
    for frame in 0..frames / 10 {
        draw(frame, &mut pixels);
        writer.append(&pixels)?;
    }
    println!("{path}.camera.npy: {:?}", writer.finish()?.shape());
    Ok(())
}

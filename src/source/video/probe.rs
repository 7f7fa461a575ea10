//! Lists the streams of a file with `ffprobe`, or with `ffmpeg` if that is missing.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::program::{PROBE, PROGRAM, ended_by, run};
use crate::error::{Error, Result};
use crate::types::cancel::CancelToken;

/// A video stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Its number among all streams of the file.
    pub(crate) index: u64,
    pub(crate) codec: String,
    /// Its pixel format, by FFmpeg's name.
    pub(crate) pixels: String,
    pub(crate) width: u64,
    pub(crate) height: u64,
    /// The number of frames according to the container.
    pub(crate) frames: Option<u64>,
    /// Whether its alpha is a second picture, which some decoders ignore.
    pub(crate) has_alpha_beside: bool,
    /// Degrees by which frames are rotated for display. FFmpeg does that.
    pub(crate) rotation: i64,
}

/// The streams of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) videos: Vec<Stream>,
    /// The kinds of other streams and still pictures: `audio (aac)`.
    pub(crate) others: Vec<String>,
    /// The container, by FFmpeg's name.
    pub(crate) container: String,
}

/// Lists the streams of a file.
///
/// # Errors
/// [`Error::Malformed`] with FFmpeg's message for a file it cannot read; [`Error::NotFound`] if FFmpeg is missing;
/// [`Error::Cancelled`].
pub(crate) fn streams(path: &Path, cancel: &CancelToken) -> Result<Streams> {
    const ENTRIES: &str = "stream=index,codec_type,codec_name,pix_fmt,width,height,nb_frames:stream_disposition=attached_pic:stream_tags=alpha_mode:stream_side_data=rotation:format=format_name";
    let args = ["-v", "error", "-protocol_whitelist", "file,pipe", "-show_entries", ENTRIES, "-of", "json", "-i"];
    // If ffprobe is missing or broken, ask ffmpeg instead.
    if let Ok(Output { status, stdout, .. }) = run(PROBE, &args, path, cancel)
        && status.success()
        && let Some(streams) = of_json(&stdout)
    {
        return Ok(streams);
    }
    let said = run(PROGRAM, &["-nostdin", "-hide_banner", "-protocol_whitelist", "file,pipe", "-i"], path, cancel)?;
    let text = String::from_utf8_lossy(&said.stderr);
    let streams = of_text(&text);
    if let Some(signal) = said.status.signal() {
        return Err(ended_by(path, signal, text.trim()));
    }
    if streams.container.is_empty() {
        let why: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let why = why[why.len().saturating_sub(3)..].join("; ");
        return Err(Error::malformed(path, "video", format!("ffmpeg cannot open it: {why}")));
    }
    Ok(streams)
}

/// Parses the output of `ffprobe -of json`.
fn of_json(text: &[u8]) -> Option<Streams> {
    let all: Value = serde_json::from_slice(text).ok()?;
    let mut found = Streams { container: all["format"]["format_name"].as_str()?.to_owned(), ..Streams::default() };
    for stream in all["streams"].as_array()? {
        let text = |key: &str| stream[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| stream[key].as_u64().or_else(|| stream[key].as_str()?.parse().ok());
        let is_still = stream["disposition"]["attached_pic"].as_u64() == Some(1);
        if text("codec_type") != "video" || is_still {
            let kind = if is_still { "picture".to_owned() } else { text("codec_type") };
            found.others.push(format!("{kind} ({})", text("codec_name")));
            continue;
        }
        found.videos.push(Stream {
            index: number("index")?,
            codec: text("codec_name"),
            pixels: text("pix_fmt"),
            width: number("width").unwrap_or(0),
            height: number("height").unwrap_or(0),
            frames: number("nb_frames").filter(|&frames| frames > 0),
            has_alpha_beside: stream["tags"]["alpha_mode"].as_str() == Some("1"),
            rotation: stream["side_data_list"].as_array().into_iter().flatten().find_map(|data| data["rotation"].as_i64()).unwrap_or(0),
        });
    }
    Some(found)
}

/// Parses the text that `ffmpeg -i` prints.
fn of_text(text: &str) -> Streams {
    let mut found = Streams::default();
    let mut is_video = false;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Input #0, ") {
            rest.split(", from").next().unwrap_or_default().clone_into(&mut found.container);
        } else if let Some((index, kind, rest)) = stream_line(line) {
            let mut parts = parts(rest).into_iter();
            let codec = parts.next().and_then(|codec| codec.split(' ').next()).unwrap_or_default().to_owned();
            is_video = kind == "Video" && !rest.contains("(attached pic)");
            if !is_video {
                let kind = if kind == "Video" { "picture".to_owned() } else { kind.to_ascii_lowercase() };
                found.others.push(format!("{kind} ({codec})"));
                continue;
            }
            let pixels = parts.next().and_then(|pixels| pixels.split('(').next()).unwrap_or_default().trim().to_owned();
            let size = parts.next().and_then(|size| size.split(' ').next()?.split_once('x'));
            let size = size.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
            let (width, height) = size.unwrap_or((0, 0));
            found.videos.push(Stream { index, codec, pixels, width, height, frames: None, has_alpha_beside: false, rotation: 0 });
        } else if let (true, Some((_, rotation))) = (is_video, line.split_once(": rotation of "))
            && let Some(stream) = found.videos.last_mut()
        {
            stream.rotation = rotation.split('.').next().and_then(|degrees| degrees.parse().ok()).unwrap_or(0);
        } else if let (true, Some((key, value))) = (is_video, line.split_once(':'))
            && key.trim() == "alpha_mode"
            && value.trim() == "1"
            && let Some(stream) = found.videos.last_mut()
        {
            stream.has_alpha_beside = true;
        }
    }
    found
}

/// Splits a stream line into number, kind and details: `Stream #0:1[0x2](eng): Video: h264 (High), yuv420p, 64x48`.
fn stream_line(line: &str) -> Option<(u64, &str, &str)> {
    let rest = line.strip_prefix("Stream #0:")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (index, rest) = rest.split_at(digits);
    let (_, rest) = rest.split_once(": ")?;
    let (kind, rest) = rest.split_once(": ")?;
    Some((index.parse().ok()?, kind, rest))
}

/// Splits at commas outside brackets.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// Number of frames to expect, counted by packets: those that are not empty and not hidden by an edit list. `None` if that is
/// unknown.
///
/// # Errors
/// [`Error::Cancelled`].
pub(crate) fn count_packets(path: &Path, stream: u64, cancel: &CancelToken) -> Result<Option<u64>> {
    let number = stream.to_string();
    let args = [
        "-v",
        "error",
        "-protocol_whitelist",
        "file,pipe",
        "-select_streams",
        &number,
        "-show_entries",
        "packet=size,flags",
        "-of",
        "csv=p=0",
        "-i",
    ];
    let said = match run(PROBE, &args, path, cancel) {
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Ok(said) if said.status.success() => said,
        _ => return Ok(None),
    };
    let is_shown = |line: &&str| {
        let mut fields = line.split(',');
        let is_empty = fields.next().is_none_or(|size| size == "0" || size.is_empty());
        !is_empty && !fields.next().unwrap_or_default().contains('D')
    };
    Ok(Some(String::from_utf8_lossy(&said.stdout).lines().filter(is_shown).count() as u64))
}

/// Whether a container holds still pictures.
pub(crate) fn is_of_pictures(container: &str) -> bool {
    container.split(',').any(|name| name.ends_with("_pipe") || name.starts_with("image2") || name == "ico")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_say_the_same() {
        // Output of ffprobe and ffmpeg, versions 5.1 and 9.0.
        let json = br#"{"programs": [], "streams": [
            {"index": 0, "codec_name": "h264", "codec_type": "video", "width": 64, "height": 48, "pix_fmt": "yuv420p", "nb_frames": "20", "disposition": {"attached_pic": 0}, "side_data_list": [{"rotation": -90}]},
            {"index": 1, "codec_name": "aac", "codec_type": "audio", "nb_frames": "88", "disposition": {"attached_pic": 0}},
            {"index": 2, "codec_name": "vp9", "codec_type": "video", "width": 32, "height": 24, "pix_fmt": "yuv420p", "disposition": {"attached_pic": 0}, "tags": {"alpha_mode": "1"}},
            {"index": 3, "codec_name": "mjpeg", "codec_type": "video", "width": 8, "height": 8, "pix_fmt": "yuvj420p", "disposition": {"attached_pic": 1}}],
            "format": {"format_name": "mov,mp4,m4a,3gp,3g2,mj2"}}"#;
        let text = "Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:a, b.mp4':
  Metadata:
    alpha_mode      : 1
  Duration: 00:00:02.00, start: 0.000000, bitrate: 12 kb/s
  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv, bt709, progressive), 64x48 [SAR 1:1 DAR 4:3], 10 kb/s, 5 fps (default)
    Metadata:
      handler_name    : VideoHandler
    Side data:
      displaymatrix: rotation of -90.00 degrees
  Stream #0:1(eng): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 69 kb/s
  Stream #0:2: Video: vp9 (Profile 0), yuv420p(tv, progressive), 32x24, SAR 1:1 DAR 4:3, 10 fps
    Metadata:
      alpha_mode      : 1
  Stream #0:3: Video: mjpeg, yuvj420p(pc), 8x8, 90k tbr (attached pic)
At least one output file must be specified";
        let (from_json, mut from_text) = (of_json(json).unwrap(), of_text(text));
        from_text.videos[0].frames = Some(20);
        assert_eq!(from_json, from_text);
        assert_eq!(from_json.videos[0].rotation, -90);
        assert_eq!(from_json.others, ["audio (aac)", "picture (mjpeg)"]);
        assert!(from_json.videos[1].has_alpha_beside && !from_json.videos[0].has_alpha_beside);
        let raw = of_text("Input #0, avi, from 'x':\n  Stream #0:0: Video: rawvideo (BGR[24] / 0x18524742), bgr24, 64x48, 745 kb/s");
        assert_eq!((&raw.videos[0].pixels[..], raw.videos[0].width), ("bgr24", 64));
        assert_eq!(of_text("x.mp4: Invalid data found when processing input"), Streams::default());
    }
}

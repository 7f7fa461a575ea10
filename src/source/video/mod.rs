//! Video files, decoded by the installed `ffmpeg`.

pub(crate) mod pixels;
pub(crate) mod probe;
pub(crate) mod program;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::container::Container;
use super::driver::Driver;
use super::raw_stream::of_frames;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::image::FileKind;
use crate::options::Options;
use crate::records::container::RecordContainer;
use crate::records::set::{Inputs, RecordSet};
use crate::records::stream::bytes::read_error;
use crate::records::stream::framing::{Framing, pam_header};
use crate::records::stream::inputs::{CheckCount, Claim, Wanted};
use crate::storage::probe::Probe;
use crate::types::byte_order::ByteOrder;
use crate::types::cancel::CancelToken;
use crate::types::spec::TensorSpec;

use pixels::{FrameForm, Pixels};
use probe::{Stream, Streams};
use program::Decoding;

/// Videos in containers with known first bytes.
pub(crate) struct Video;

impl Driver for Video {
    fn name(&self) -> &'static str {
        "video"
    }

    fn resolve(&self, probe: &Probe) -> Result<Option<Probe>> {
        if !probe.is_file()? {
            return Ok(None);
        }
        Ok(is_video(probe.front()?).then(|| probe.clone()))
    }

    fn takes_any_file(&self) -> bool {
        true
    }

    fn open(&self, place: &Probe, options: &Options) -> Result<Box<dyn Container>> {
        let path = place.path();
        let streams = probe::streams(path, &options.cancel)?;
        check_moves(place, &streams)?;
        let wanted = chosen(path, &streams, options)?;
        let is_alone = wanted.len() == 1;
        let (mut sets, mut facts, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for (number, stream) in wanted {
            let decoding = decoding(path, stream, options)?;
            facts.push(stream_facts(number, stream, &decoding.form));
            notes.extend(note(number, stream, &decoding.form, is_alone));
            let set = frames(decoding, stream, options)?;
            let split = (!is_alone).then(|| format!("stream{number}"));
            sets.push(RecordSet { split, ..set });
        }
        if !streams.others.is_empty() {
            notes.push(format!("only frames are read; other streams are ignored: {}", streams.others.join(", ")));
        }
        let facts = Map::from_iter([
            ("container".to_owned(), json!(streams.container)),
            ("video_streams".to_owned(), json!(facts)),
            ("other_streams".to_owned(), json!(streams.others)),
        ]);
        Ok(Box::new(
            RecordContainer::new(self.name(), path, sets, options).with_facts(facts, cut(place)?.into_iter().collect()).with_notes(notes),
        ))
    }
}

/// A warning about a transport stream that ends within a packet, which FFmpeg does not report.
fn cut(place: &Probe) -> Result<Option<String>> {
    let Some(packet) = packet_len(place.front()?) else { return Ok(None) };
    let last = place.open()?.len() % packet;
    Ok((last > 0).then(|| {
        format!(
            "{}: the last packet has {last} of {packet} bytes: the file was cut, and the last frame may be damaged or missing",
            place.path().display()
        )
    }))
}

/// The packet length of a transport stream. All packets start with the same byte, some with a time before it (ISO/IEC 13818-1,
/// 2.4.3.2).
fn packet_len(front: &[u8]) -> Option<u64> {
    let has_packets = |start: usize, len: usize| (0..2).all(|number| front.get(start + number * len) == Some(&0x47));
    [(0, 188), (4, 192)].into_iter().find(|&(start, len)| has_packets(start, len)).map(|(_, len)| len as u64)
}

/// Recognises MP4 and QuickTime, AVI, Matroska and WebM, MPEG program and transport streams, MPEG video, Flash, Ogg, Windows
/// Media, GIF, YUV4MPEG2, IVF, MXF, NUT.
fn is_video(front: &[u8]) -> bool {
    const MAGICS: &[&[u8]] = &[
        b"\x1a\x45\xdf\xa3",
        b"\x00\x00\x01\xba",
        b"\x00\x00\x01\xb3",
        b"FLV\x01",
        b"OggS",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        b"GIF87a",
        b"GIF89a",
        b"YUV4MPEG2 ",
        b"DKIF\x00\x00",
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01",
        b"nut/multimedia container\x00",
    ];
    // A QuickTime box has its type behind its length.
    let is_quicktime = matches!(front.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"pnot"));
    let is_avi = front.starts_with(b"RIFF") && front.get(8..12) == Some(b"AVI ");
    is_quicktime || is_avi || packet_len(front).is_some() || MAGICS.iter().any(|magic| front.starts_with(magic))
}

/// Refuses files without moving pictures: still images, sound alone.
fn check_moves(place: &Probe, streams: &Streams) -> Result<()> {
    let refused = |what: String, detail: String| {
        Err(Error::Unsupported { what: format!("{} as a video", place.path().display()), detail: format!("it is {what}: {detail}") })
    };
    let kind = FileKind::sniff(place.front()?).filter(|kind| *kind != FileKind::Gif);
    if kind.is_some() || probe::is_of_pictures(&streams.container) {
        let what = kind.map_or_else(|| format!("of still pictures ({})", streams.container), |kind| format!("a {kind} image"));
        return refused(what, picture_hint(kind).into());
    }
    if streams.videos.is_empty() {
        let others = if streams.others.is_empty() { "none".to_owned() } else { streams.others.join(", ") };
        return refused("without a video stream".into(), format!("its streams are {others}"));
    }
    Ok(())
}

/// What to do with an image instead.
pub(crate) fn picture_hint(kind: Option<FileKind>) -> &'static str {
    match kind {
        Some(FileKind::Tiff) => "read its pages with tifffile (tifffile.memmap where they are not compressed) and save them as .npy",
        _ => {
            "JPEG and PNG are read in records (TFRecord, TFDS); a folder of images of one size becomes frames by \
             ffmpeg -f image2 -pattern_type glob -i 'DIR/*.EXT' -f rawvideo -pix_fmt rgb24 - | \
             mmconvert convert - --raw uint8 --shape H,W,3 -o OUT.npy (of 16 bits: -pix_fmt rgb48le, --raw uint16)"
        }
    }
}

/// The selected streams, each with its number among the video streams.
fn chosen<'a>(path: &Path, streams: &'a Streams, options: &Options) -> Result<Vec<(usize, &'a Stream)>> {
    let Some(wanted) = options.records.stream.get() else { return Ok(streams.videos.iter().enumerate().collect()) };
    if let Some(stream) = streams.videos.get(wanted) {
        return Ok(vec![(wanted, stream)]);
    }
    let last = streams.videos.len().saturating_sub(1);
    Err(BadRequest::NoSuchStream { path: path.to_owned(), stream: wanted, last }.into())
}

/// How to decode the frames of a stream.
fn decoding(path: &Path, stream: &Stream, options: &Options) -> Result<Decoding> {
    let refused = |detail: String| Error::Unsupported { what: format!("the pixel format {} of {}", stream.pixels, path.display()), detail };
    let (asked, cast) = (options.records.channels.get(), options.form.cast);
    let mut decoder = None;
    let pixels = match Pixels::of(&stream.pixels) {
        // Only the decoder of the codec's own library reads alpha that is stored beside the frames.
        Ok(pixels) if stream.has_alpha_beside => {
            if asked.is_none_or(|channels| channels.is_multiple_of(2)) {
                decoder = alpha_decoder(path, stream, &options.cancel)?;
            }
            Pixels { channels: 4, ..pixels }
        }
        Ok(pixels) => pixels,
        // If a cast to integers is requested, ffmpeg may convert the samples to integers.
        Err(_) if cast.is_some_and(|dtype| [crate::types::dtype::Dtype::UInt8, crate::types::dtype::Dtype::UInt16].contains(&dtype)) => {
            Pixels { channels: asked.unwrap_or(3), depth: 16, is_converted: true }
        }
        Err(why) => {
            return Err(refused(format!("{why}, which ffmpeg gives as whole numbers only where that is asked for: `cast` uint16")));
        }
    };
    let form = FrameForm::of(pixels, asked, cast)?;
    if options.form.strict && form.lost.depth {
        let detail = format!("`strict`: frames of {} have {} bits a sample, which `cast` uint8 would cut", stream.pixels, pixels.depth);
        return Err(Error::Unsupported { what: format!("{} without a loss", path.display()), detail });
    }
    Ok(Decoding { path: path.to_owned(), stream: stream.index, decoder, form })
}

/// The decoder that also reads the alpha of a stream; `None` if the default one does.
fn alpha_decoder(path: &Path, stream: &Stream, cancel: &CancelToken) -> Result<Option<&'static str>> {
    let name = match &stream.codec[..] {
        "vp8" => "libvpx",
        "vp9" => "libvpx-vp9",
        _ => return Ok(None),
    };
    if program::has_decoder(name.as_ref(), cancel) {
        return Ok(Some(name));
    }
    let detail = format!("it has alpha, which this ffmpeg cannot read (it lacks {name}); `channels` 3 gives the frames without it");
    Err(Error::Unsupported { what: format!("the {} of {}", stream.codec, path.display()), detail })
}

/// The frames of a stream as records.
fn frames(decoding: Decoding, stream: &Stream, options: &Options) -> Result<RecordSet> {
    let path = decoding.path.clone();
    let frame = first_frame(&decoding, &options.cancel)?;
    let check = stream.frames.map(|claimed| check_count(&path, stream.index, claimed, &options.cancel));
    let shift = decoding.form.shift;
    let start = move |wanted: &Wanted<'_>| -> Result<Box<dyn Read + Send>> { Ok(Box::new(decoding.start(false, wanted.cancel)?)) };
    let (claimed, file, index, cancel) = (stream.frames, path.clone(), stream.index, options.cancel.clone());
    let claim: Claim = Arc::new(move || claimed.or_else(|| probe::count_packets(&file, index, &cancel).ok().flatten()));
    let set = of_frames(Inputs::program(&path, start, (check, Some(claim))), &frame, ByteOrder::Big);
    Ok(RecordSet { framing: Framing::Pam { shift }, ..set })
}

/// The shape of the frames.
fn first_frame(decoding: &Decoding, cancel: &CancelToken) -> Result<TensorSpec> {
    let path = &decoding.path;
    let mut frames = decoding.start(true, cancel)?;
    let mut front = Vec::new();
    let header = loop {
        if let Some(header) = pam_header(&front).map_err(|detail| Error::malformed(path, "video", detail))? {
            break header;
        }
        let mut next = [0];
        match frames.read(&mut next).map_err(|error| read_error(path, 0, error))? {
            0 => return Err(Error::malformed(path, "video", "ffmpeg found no frame in it")),
            _ => front.push(next[0]),
        }
    };
    let shape = vec![header.height, header.width, header.channels];
    TensorSpec::new(decoding.form.dtype, shape).map_err(|request| Error::malformed(path, "video", request.to_string()))
}

/// Compares the number of frames with the container's: some versions of `ffmpeg` succeed without the last frames of a damaged
/// file.
fn check_count(path: &Path, stream: u64, claimed: u64, cancel: &CancelToken) -> CheckCount {
    let (path, cancel) = (path.to_owned(), cancel.clone());
    Arc::new(move |found| {
        // An edit list may hide frames that the container counts. The packets show how many remain.
        if found >= claimed || probe::count_packets(&path, stream, &cancel)?.is_some_and(|packets| packets <= found) {
            return Ok(());
        }
        let detail = format!(
            "ffmpeg gave {found} frames, the container says {claimed}: it is damaged, or its end is missing; `salvage` keeps the frames that came, of which some may be damaged"
        );
        Err(Error::malformed(&path, "video", detail))
    })
}

fn stream_facts(number: usize, stream: &Stream, form: &FrameForm) -> Value {
    json!({
        "stream": number,
        "codec": stream.codec,
        "pixel_format": stream.pixels,
        "width": stream.width,
        "height": stream.height,
        "frames": stream.frames,
        "read_as": form.name,
    })
}

/// How the samples of frames are changed, if they are.
fn note(number: usize, stream: &Stream, form: &FrameForm, is_alone: bool) -> Option<String> {
    if !form.lost.anything() && stream.rotation == 0 {
        return None;
    }
    let title = if is_alone { "frames".to_owned() } else { format!("stream{number}/frames") };
    let kind = match form.channels {
        1 => "gray",
        2 => "gray and alpha",
        3 => "RGB",
        _ => "RGB and alpha",
    };
    let turned = if stream.rotation == 0 { String::new() } else { format!("turned by {} degrees, as the file says", stream.rotation) };
    if !form.lost.anything() {
        return Some(format!("{title} are {turned}"));
    }
    let mut text = format!("{title} are {} in the file and become {kind} ({})", stream.pixels, form.dtype);
    if stream.rotation != 0 {
        text += &format!(", {turned}");
    }
    for (is_lost, what) in [(form.lost.alpha, "alpha"), (form.lost.colour, "colour"), (form.lost.depth, "lower bits")] {
        if is_lost {
            text += &format!(", without their {what}");
        }
    }
    Some(text)
}

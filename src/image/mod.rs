//! Decoders for JPEG and PNG files. The output is samples in rows of pixels.
//!
//! This room knows neither records nor tensors: it takes the bytes of one image. Start with [`ImageChoices`]: `look` reads the
//! header, `decode` the pixels. `turbo.rs` is the optional libjpeg-turbo.

pub(crate) mod form;
#[cfg(feature = "libjpeg-turbo")]
mod turbo;

use std::io::Cursor;
use std::str::FromStr;

use png::{BitDepth, ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::types::dtype::Dtype;
use crate::types::size::memory_len;

use form::ImageForm;

/// Most memory that a decoder may use beyond the image.
const DECODER_BYTES: usize = 64 << 20;
/// JPEG stores each side in 16 bits.
const MOST_JPEG_SIDE: usize = 65_535;

/// The JPEG decoder to use. Decoders round differently: a few samples differ by a few levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::Display)]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum Jpeg {
    /// The built-in decoder in pure Rust; its results are close to [`TfAccurate`](Self::TfAccurate).
    #[default]
    Builtin,
    /// Gives the same bytes as `tf.io.decode_jpeg`. Needs a build with the feature `libjpeg-turbo`.
    TfFast,
    /// Gives the same bytes as `tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")`. Needs a build with the feature
    /// `libjpeg-turbo`.
    TfAccurate,
}

impl FromStr for Jpeg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let jpeg = match text {
            "builtin" => Self::Builtin,
            "tf-fast" => Self::TfFast,
            "tf-accurate" => Self::TfAccurate,
            _ => return Err(format!("there is no JPEG decoder {text:?}, only builtin, tf-fast and tf-accurate")),
        };
        if jpeg != Self::Builtin && !cfg!(feature = "libjpeg-turbo") {
            return Err(format!("{text} needs a build with the feature libjpeg-turbo: cargo build --features libjpeg-turbo"));
        }
        Ok(jpeg)
    }
}

/// The file type that the first bytes indicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display)]
#[strum(serialize_all = "UPPERCASE")]
pub(crate) enum FileKind {
    Jpeg,
    Png,
    Gif,
    Bmp,
    #[strum(to_string = "WebP")]
    WebP,
    Tiff,
}

impl FileKind {
    /// Recognises an image file by its first bytes.
    pub(crate) fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', ..] => Some(Self::Gif),
            // The file length follows, then four zero bytes.
            [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(Self::Bmp),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            // 43 is BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            _ => None,
        }
    }
}

/// The user's options for images.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImageChoices {
    /// 1, 3 or 4; `None` keeps the channels of the file.
    pub(crate) channels: Option<u8>,
    pub(crate) jpeg: Jpeg,
    /// `uint8`, `uint16`, or `float32` whose bytes are the four channels of a PNG; `None` keeps the file's type.
    pub(crate) dtype: Option<Dtype>,
}

impl ImageChoices {
    /// Reads the form of the image from its header.
    ///
    /// # Errors
    /// Returns the reason if it cannot be decoded.
    pub(crate) fn look(self, bytes: &[u8]) -> Result<ImageForm, String> {
        fenced(|| self.look_unfenced(bytes))
    }

    fn look_unfenced(self, bytes: &[u8]) -> Result<ImageForm, String> {
        let form = match FileKind::sniff(bytes) {
            Some(FileKind::Jpeg) => jpeg_form(bytes)?,
            Some(FileKind::Png) => png_form(&png_reader(bytes)?),
            Some(other) => return Err(format!("it is a {other} image; JPEG and PNG are decoded, `read_as` string keeps the bytes")),
            None => return Err(format!("it starts with {:02x?} and is neither JPEG nor PNG", &bytes[..bytes.len().min(8)])),
        };
        Ok(self.form(form))
    }

    /// The form of the output for an image whose own form is `form`.
    pub(crate) fn form(self, form: ImageForm) -> ImageForm {
        ImageForm { channels: self.channels.map_or(form.channels, u64::from), dtype: self.dtype.unwrap_or(form.dtype), ..form }
    }

    /// Decodes an image into `out` as `form` says: `height × width × channels` samples, little-endian.
    ///
    /// # Errors
    /// Returns the reason if it cannot be decoded.
    pub(crate) fn decode(self, bytes: &[u8], form: &ImageForm, out: &mut [u8]) -> Result<(), String> {
        fenced(|| self.decode_unfenced(bytes, form, out))
    }

    fn decode_unfenced(self, bytes: &[u8], form: &ImageForm, out: &mut [u8]) -> Result<(), String> {
        if form.dtype == Dtype::Float32 {
            // Each `float32` sample has the size of the four byte channels it was stored as.
            return self.decode_unfenced(bytes, &ImageForm { channels: 4, dtype: Dtype::UInt8, ..*form }, out);
        }
        match FileKind::sniff(bytes) {
            Some(FileKind::Png) => decode_png(bytes, form, out),
            _ if form.dtype == Dtype::UInt16 => {
                let mut narrow = vec![0; out.len() / 2];
                self.decode_unfenced(bytes, &ImageForm { dtype: Dtype::UInt8, ..*form }, &mut narrow)?;
                widen(&narrow, out);
                Ok(())
            }
            _ if self.jpeg != Jpeg::Builtin => decode_with_turbo(bytes, form, out, self.jpeg),
            _ => decode_jpeg(bytes, form, out),
        }
    }
}

/// Turns a panic of a decoder into an error: the bytes come from files, and a bad one must only fail its own conversion.
fn fenced<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the image decoder crashed on it".into()))
}

fn jpeg_options() -> DecoderOptions {
    // A truncated image is an error; it is not filled up with grey.
    DecoderOptions::default().set_strict_mode(true).set_max_width(MOST_JPEG_SIDE).set_max_height(MOST_JPEG_SIDE)
}

fn jpeg_form(bytes: &[u8]) -> Result<ImageForm, String> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), jpeg_options());
    decoder.decode_headers().map_err(|error| format!("JPEG: {error:?}"))?;
    let info = decoder.info().ok_or("JPEG: the header is missing")?;
    let channels = if info.components == 1 { 1 } else { 3 };
    Ok(ImageForm { height: info.height.into(), width: info.width.into(), channels, dtype: Dtype::UInt8 })
}

fn decode_jpeg(bytes: &[u8], form: &ImageForm, out: &mut [u8]) -> Result<(), String> {
    let space = match form.channels {
        1 => ColorSpace::Luma,
        3 => ColorSpace::RGB,
        4 => ColorSpace::RGBA,
        other => return Err(format!("a JPEG cannot have {other} channels, only 1, 3 or 4")),
    };
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), jpeg_options().jpeg_set_out_colorspace(space));
    let failed = |error: zune_jpeg::errors::DecodeErrors| format!("JPEG: {error:?}");
    decoder.decode_headers().map_err(failed)?;
    let size = decoder.output_buffer_size().unwrap_or(0);
    if size != out.len() {
        // The decoder does not expand grey images to three channels.
        let mut grey = vec![0; size];
        decoder.decode_into(&mut grey).map_err(failed)?;
        return convert_channels(&grey, size / memory_len(form.height * form.width).max(1), 1, u8::MAX.into(), form, out);
    }
    decoder.decode_into(out).map_err(failed)
}

#[cfg(not(feature = "libjpeg-turbo"))]
fn decode_with_turbo(_: &[u8], _: &ImageForm, _: &mut [u8], _: Jpeg) -> Result<(), String> {
    Err("this build has no libjpeg-turbo".into())
}

#[cfg(feature = "libjpeg-turbo")]
fn decode_with_turbo(bytes: &[u8], form: &ImageForm, out: &mut [u8], jpeg: Jpeg) -> Result<(), String> {
    turbo::decode(bytes, form, out, jpeg == Jpeg::TfFast)
}

type PngReader<'a> = png::Reader<Cursor<&'a [u8]>>;

fn png_reader(bytes: &[u8]) -> Result<PngReader<'_>, String> {
    check_palette(bytes)?;
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: DECODER_BYTES });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Expands palettes to colours, and samples below 8 bits to bytes.
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info().map_err(|error| format!("PNG: {error}"))
}

/// Refuses a truncated palette: the decoder would index past its end.
fn check_palette(bytes: &[u8]) -> Result<(), String> {
    const SIGNATURE: usize = 8;
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    // A chunk is a length, a name, that many bytes, and a checksum.
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        match &header[4..] {
            b"PLTE" if !len.is_multiple_of(3) || len > 3 * 256 => {
                return Err(format!("PNG: a palette of {len} bytes, expected three for each colour, 256 at most"));
            }
            b"IDAT" => break,
            _ => rest = behind.get(memory_len(u64::from(len) + 4)..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// The channels as TensorFlow counts them: alpha counts if it is a channel of its own or belongs to a palette.
fn png_form(reader: &PngReader<'_>) -> ImageForm {
    let info = reader.info();
    let channels = match info.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => 3 + u64::from(info.trns.is_some()),
    };
    let dtype = if info.bit_depth == BitDepth::Sixteen { Dtype::UInt16 } else { Dtype::UInt8 };
    ImageForm { height: info.height.into(), width: info.width.into(), channels, dtype }
}

fn decode_png(bytes: &[u8], form: &ImageForm, out: &mut [u8]) -> Result<(), String> {
    let mut reader = png_reader(bytes)?;
    let failed = |error: png::DecodingError| format!("PNG: {error}");
    let size = reader.output_buffer_size().ok_or("PNG: it does not fit in memory")?;
    let (color, depth) = reader.output_color_type();
    let is_wide = depth == BitDepth::Sixteen;
    if is_wide != (form.dtype == Dtype::UInt16) {
        // The depths differ: a byte is repeated to 16 bits; of 16 bits the high byte is kept.
        let own = ImageForm { dtype: if is_wide { Dtype::UInt16 } else { Dtype::UInt8 }, ..*form };
        let mut samples = vec![0; memory_len(own.nbytes())];
        decode_png(bytes, &own, &mut samples)?;
        if is_wide {
            out.iter_mut().zip(samples.as_chunks::<2>().0).for_each(|(place, sample)| *place = sample[1]);
        } else {
            widen(&samples, out);
        }
        return Ok(());
    }
    if size == out.len() && color.samples() as u64 == form.channels {
        reader.next_frame(out).map_err(failed)?;
    } else {
        let mut decoded = vec![0; size];
        reader.next_frame(&mut decoded).map_err(failed)?;
        // TensorFlow uses the depth of the file, even after samples were expanded to bytes.
        let opaque = (1 << reader.info().bit_depth as u32) - 1;
        convert_channels(&decoded, color.samples(), if is_wide { 2 } else { 1 }, opaque, form, out)?;
    }
    reader.finish().map_err(failed)?;
    if depth == BitDepth::Sixteen {
        // PNG stores samples big-endian.
        out.as_chunks_mut::<2>().0.iter_mut().for_each(|sample| sample.reverse());
    }
    Ok(())
}

/// Widens bytes to 16-bit samples: 255 becomes 65535.
fn widen(narrow: &[u8], out: &mut [u8]) {
    out.as_chunks_mut::<2>().0.iter_mut().zip(narrow).for_each(|(place, &sample)| *place = [sample; 2]);
}

/// Converts pixels of `from` channels with `size` bytes per sample into `out`, with the channels of `form`.
///
/// As libpng does for TensorFlow: grey is repeated, a missing alpha becomes `opaque`, and colours become grey by weights.
fn convert_channels(pixels: &[u8], from: usize, size: usize, opaque: u32, form: &ImageForm, out: &mut [u8]) -> Result<(), String> {
    let to = memory_len(form.channels);
    if !(1..=4).contains(&to) || !(1..=4).contains(&from) {
        return Err(format!("{from} channels cannot become {to}"));
    }
    let sample = |pixel: &[u8], channel: usize| match &pixel[channel * size..(channel + 1) * size] {
        [byte] => u32::from(*byte),
        [high, low] => u32::from(*high) << 8 | u32::from(*low),
        _ => 0,
    };
    for (pixel, place) in pixels.chunks_exact(from * size).zip(out.chunks_exact_mut(to * size)) {
        let is_colour = from >= 3;
        for (channel, place) in place.chunks_exact_mut(size).enumerate() {
            let is_alpha = to.is_multiple_of(2) && channel == to - 1;
            let value = match (is_alpha, is_colour) {
                (true, _) if from.is_multiple_of(2) => sample(pixel, from - 1),
                (true, _) => opaque,
                (false, true) if to < 3 => grey([sample(pixel, 0), sample(pixel, 1), sample(pixel, 2)], size == 2),
                (false, true) => sample(pixel, channel),
                (false, false) => sample(pixel, 0),
            };
            place.copy_from_slice(&value.to_be_bytes()[4 - size..]);
        }
    }
    Ok(())
}

/// `png_set_rgb_to_gray` with the weights 0.299 and 0.587 in its fixed point: bytes are truncated, 16 bits are rounded.
///
/// Source: `CommonInitDecode` in `tensorflow/core/lib/png/png_io.cc`, `png_do_rgb_to_gray` in libpng.
fn grey([red, green, blue]: [u32; 3], is_wide: bool) -> u32 {
    const RED: u64 = 9797;
    const GREEN: u64 = 19234;
    const ONE: u64 = 32768;
    if red == green && green == blue {
        return red;
    }
    let sum = RED * u64::from(red) + GREEN * u64::from(green) + (ONE - RED - GREEN) * u64::from(blue);
    u32::try_from((sum + if is_wide { ONE / 2 } else { 0 }) >> 15).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_png(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn decode(bytes: &[u8], channels: Option<u8>) -> Result<(ImageForm, Vec<u8>), String> {
        let choices = ImageChoices { channels, ..ImageChoices::default() };
        let form = choices.look(bytes)?;
        let mut out = vec![0; form.nbytes() as usize];
        choices.decode(bytes, &form, &mut out)?;
        Ok((form, out))
    }

    #[test]
    fn samples_of_a_png_come_back() {
        let pixels: Vec<u8> = (0..2 * 3 * 4).collect();
        for (color, channels) in [(ColorType::Rgba, 4), (ColorType::Rgb, 3), (ColorType::GrayscaleAlpha, 2), (ColorType::Grayscale, 1)] {
            let data = &pixels[..6 * channels];
            let (form, out) = decode(&encode_png(3, 2, color, BitDepth::Eight, data), None).unwrap();
            assert_eq!((form.width, form.height, form.channels, &out[..]), (3, 2, channels as u64, data));
        }
        let (form, out) = decode(&encode_png(2, 1, ColorType::Grayscale, BitDepth::Sixteen, &[1, 2, 3, 4]), None).unwrap();
        assert_eq!((form.dtype, out), (Dtype::UInt16, vec![2, 1, 4, 3]));
    }

    #[test]
    fn channels_are_added_and_left_out() {
        let rgba = encode_png(1, 1, ColorType::Rgba, BitDepth::Eight, &[10, 20, 30, 40]);
        assert_eq!(decode(&rgba, Some(3)).unwrap().1, [10, 20, 30]);
        let grey = encode_png(1, 1, ColorType::Grayscale, BitDepth::Eight, &[7]);
        assert_eq!(decode(&grey, Some(4)).unwrap().1, [7, 7, 7, 255]);
        assert_eq!(decode(&rgba, Some(1)).unwrap().1.len(), 1);
    }

    #[test]
    fn what_is_cut_or_no_image_is_an_error() {
        let png = encode_png(3, 2, ColorType::Rgb, BitDepth::Eight, &[9; 18]);
        for cut in 0..png.len() {
            assert!(decode(&png[..cut], None).is_err(), "{cut}");
        }
        assert!(decode(b"GIF89a", None).unwrap_err().contains("GIF"));
        assert!(decode(b"", None).is_err());
    }
}

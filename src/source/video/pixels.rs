//! Pixel formats by their FFmpeg names: the samples of a frame, and how to request them without losing any.
//!
//! Source: `libavutil/pixdesc.c` and `pixfmt.h` of FFmpeg 9; frames come as PAM images (`libavcodec/pamenc.c`).

use crate::error::request::BadRequest;
use crate::types::dtype::Dtype;

/// The samples of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pixels {
    /// Samples per pixel in the array: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
    pub(crate) channels: u8,
    /// Bits of a sample.
    pub(crate) depth: u32,
    /// Whether samples are computed from others: luma and chroma, a palette, or a sensor pattern.
    pub(crate) is_converted: bool,
}

impl Pixels {
    /// The pixels of the format with this name.
    ///
    /// # Errors
    /// Why its samples do not fit integers of up to 16 bits.
    pub(crate) fn of(name: &str) -> Result<Self, String> {
        let plain = name.strip_suffix("le").or_else(|| name.strip_suffix("be")).unwrap_or(name);
        let digits = |front: &str| -> Option<Option<u32>> {
            let rest = plain.strip_prefix(front)?.trim_end_matches("msb");
            if rest.is_empty() { Some(None) } else { rest.parse().ok().map(Some) }
        };
        let made = |channels, depth, is_converted| Ok(Self { channels, depth, is_converted });
        let exact = |channels: u8, bits: u32| match bits {
            bits if bits <= 16 => made(channels, bits, false),
            bits => Err(format!("its samples have {bits} bits")),
        };
        if is_float(plain) {
            return Err("its samples are floating-point numbers".into());
        }
        // Gray, with or without alpha.
        if let Some(bits) = digits("gray") {
            return exact(1, bits.unwrap_or(8));
        }
        if let Some(bits) = digits("ya") {
            return exact(2, bits.unwrap_or(8));
        }
        match plain {
            "y8" => return exact(1, 8),
            "gray8a" | "y400a" => return exact(2, 8),
            // One bit per pixel becomes black or white.
            "monow" | "monob" => return made(1, 8, true),
            _ => {}
        }
        // Interleaved RGB in any order; `0` marks an unused sample.
        match plain {
            "rgb24" | "bgr24" | "0rgb" | "rgb0" | "0bgr" | "bgr0" => return exact(3, 8),
            "argb" | "rgba" | "abgr" | "bgra" => return exact(4, 8),
            "rgb48" | "bgr48" => return exact(3, 16),
            "rgba64" | "bgra64" => return exact(4, 16),
            "rgb96" => return exact(3, 32),
            "rgba128" => return exact(4, 32),
            _ => {}
        }
        if let Some(bits) = digits("gbrap") {
            return exact(4, bits.unwrap_or(8));
        }
        if let Some(bits) = digits("gbrp") {
            return exact(3, bits.unwrap_or(8));
        }
        // All others are computed: from a palette (which may have alpha), from luma and chroma, or from fewer bits.
        let channels = if has_alpha(plain) { 4 } else { 3 };
        made(channels, depth(plain), true)
    }
}

fn is_float(plain: &str) -> bool {
    plain.ends_with("f32") || plain.ends_with("f16")
}

fn has_alpha(plain: &str) -> bool {
    plain == "pal8" || ["yuva", "ayuv", "vuya", "uyva"].iter().any(|front| plain.starts_with(front))
}

/// The bits per sample of a computed format; 16 for unknown names, so that no bits are lost.
fn depth(plain: &str) -> u32 {
    const EIGHT: &[&str] = &["pal8", "nv12", "nv21", "nv16", "nv24", "nv42", "ayuv", "vuya", "vuyx", "uyva", "vyu444"];
    const PACKED: &[&str] = &["yuyv", "uyvy", "yvyu", "uyyvyy", "rgb", "bgr"];
    if EIGHT.contains(&plain) {
        return 8;
    }
    // yuv420p10, yuva444p, yuvj420p.
    if let Some((_, bits)) = plain.trim_end_matches("msb").rsplit_once('p').filter(|(front, _)| front.starts_with("yuv")) {
        return if bits.is_empty() { 8 } else { bits.parse().unwrap_or(16) };
    }
    // Formats that are named for the bits of a pixel have at most eight per sample.
    if PACKED.iter().any(|front| plain.starts_with(front)) {
        return 8;
    }
    if plain.starts_with("bayer_") && plain.ends_with('8') {
        return 8;
    }
    16
}

/// The form in which frames are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameForm {
    /// FFmpeg's name for the pixel format of the PAM images.
    pub(crate) name: &'static str,
    pub(crate) channels: u8,
    pub(crate) dtype: Dtype,
    /// Bits to shift samples right by, to restore the values of the video.
    pub(crate) shift: u32,
    /// What is lost, if anything.
    pub(crate) lost: Lost,
}

/// The properties of a frame that are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is lost or kept by itself, and told by itself")]
pub(crate) struct Lost {
    pub(crate) is_converted: bool,
    pub(crate) alpha: bool,
    pub(crate) colour: bool,
    pub(crate) depth: bool,
}

impl Lost {
    pub(crate) fn anything(self) -> bool {
        self.is_converted || self.alpha || self.colour || self.depth
    }
}

impl FrameForm {
    /// The form for frames of `pixels`, with other channels or another dtype if requested.
    ///
    /// # Errors
    /// For an impossible number of channels.
    pub(crate) fn of(pixels: Pixels, channels: Option<u8>, dtype: Option<Dtype>) -> Result<Self, BadRequest> {
        let is_wide = pixels.depth > 8 && dtype != Some(Dtype::UInt8);
        let wanted = channels.unwrap_or(pixels.channels);
        let name = match (wanted, is_wide) {
            (1, false) => "gray",
            (2, false) => "ya8",
            (3, false) => "rgb24",
            (4, false) => "rgba",
            (1, true) => "gray16be",
            (2, true) => "ya16be",
            (3, true) => "rgb48be",
            (4, true) => "rgba64be",
            (asked, _) => return Err(BadRequest::NoSuchChannels { what: "frames", possible: &[1, 2, 3, 4], asked }),
        };
        let has_colour = |channels: u8| channels > 2;
        let has_alpha = |channels: u8| channels.is_multiple_of(2);
        let lost = Lost {
            is_converted: pixels.is_converted || has_colour(wanted) != has_colour(pixels.channels) && has_colour(pixels.channels),
            alpha: has_alpha(pixels.channels) && !has_alpha(wanted),
            colour: has_colour(pixels.channels) && !has_colour(wanted),
            depth: pixels.depth > 8 && !is_wide,
        };
        // FFmpeg repeats the upper bits in the lower ones. Shifting right restores the original samples.
        let shift = if is_wide && !lost.is_converted { 16 - pixels.depth } else { 0 };
        let dtype = if is_wide { Dtype::UInt16 } else { Dtype::UInt8 };
        Ok(Self { name, channels: wanted, dtype, shift, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `ffmpeg -pix_fmts` of version 9: components, bits of each, and the alpha flag.
    #[test]
    fn formats_have_what_ffmpeg_says() {
        for (name, channels, depth, is_converted) in [
            ("yuv420p", 3, 8, true),
            ("yuvj444p", 3, 8, true),
            ("yuyv422", 3, 8, true),
            ("nv12", 3, 8, true),
            ("rgb24", 3, 8, false),
            ("bgr0", 3, 8, false),
            ("gbrp", 3, 8, false),
            ("gbrp10le", 3, 10, false),
            ("gbrp12msbbe", 3, 12, false),
            ("gbrap", 4, 8, false),
            ("gbrap16be", 4, 16, false),
            ("bgra", 4, 8, false),
            ("gray", 1, 8, false),
            ("gray10le", 1, 10, false),
            ("gray16be", 1, 16, false),
            ("ya8", 2, 8, false),
            ("ya16le", 2, 16, false),
            ("monob", 1, 8, true),
            ("pal8", 4, 8, true),
            ("yuva420p", 4, 8, true),
            ("yuva444p12le", 4, 12, true),
            ("yuv420p10le", 3, 10, true),
            ("yuv444p16be", 3, 16, true),
            ("yuv444p10msble", 3, 10, true),
            ("rgb565le", 3, 8, true),
            ("bgr4_byte", 3, 8, true),
            ("rgb48le", 3, 16, false),
            ("rgba64be", 4, 16, false),
            ("p010le", 3, 16, true),
            ("y212le", 3, 16, true),
            ("xv36le", 3, 16, true),
            ("x2rgb10le", 3, 16, true),
            ("ayuv64le", 4, 16, true),
            ("vuya", 4, 8, true),
            ("bayer_rggb8", 3, 8, true),
            ("bayer_rggb16le", 3, 16, true),
            ("xyz12le", 3, 16, true),
        ] {
            assert_eq!(Pixels::of(name), Ok(Pixels { channels, depth, is_converted }), "{name}");
        }
        for name in ["grayf32le", "gbrpf32be", "rgbaf16le", "gray32le", "rgb96be", "gbrap32le"] {
            assert!(Pixels::of(name).is_err(), "{name}");
        }
    }

    #[test]
    fn frames_are_asked_for_as_they_are_or_as_somebody_wants_them() {
        let form = |name, channels, dtype| FrameForm::of(Pixels::of(name).unwrap(), channels, dtype).unwrap();
        let ten = form("gray10le", None, None);
        assert_eq!((ten.name, ten.dtype, ten.shift, ten.lost), ("gray16be", Dtype::UInt16, 6, Lost::default()));
        let hdr = form("yuv420p10le", None, None);
        assert_eq!((hdr.name, hdr.channels, hdr.shift, hdr.lost.is_converted), ("rgb48be", 3, 0, true));
        let narrowed = form("gray16le", None, Some(Dtype::UInt8));
        assert_eq!((narrowed.name, narrowed.lost.depth), ("gray", true));
        let opaque = form("bgra", Some(3), None);
        assert_eq!((opaque.name, opaque.lost), ("rgb24", Lost { alpha: true, ..Lost::default() }));
        let gray = form("gbrp10le", Some(1), None);
        assert_eq!((gray.name, gray.shift, gray.lost.colour), ("gray16be", 0, true));
        assert_eq!(form("gray", Some(3), None).lost, Lost::default(), "gray samples thrice are the same");
        assert_eq!(form("gray", None, Some(Dtype::Float32)).dtype, Dtype::UInt8, "other dtypes are casts");
        assert!(FrameForm::of(Pixels::of("gray").unwrap(), Some(5), None).is_err());
    }
}

//! JPEG decoding with libjpeg-turbo and TensorFlow's settings.
//!
//! Source of the settings: `UncompressFlags` and `UncompressLow` in `tensorflow/core/lib/jpeg/jpeg_mem.cc`: fancy upsampling, and
//! the fast integer DCT unless the accurate one is requested.
#![expect(unsafe_code, reason = "the library is in C; each block argues its safety")]

use std::ffi::CStr;
use std::os::raw::c_int;
use std::ptr::NonNull;

use turbojpeg_sys as sys;

use super::form::ImageForm;
use crate::types::size::memory_len;

/// Owns a decompressor of the library.
struct Decompressor(NonNull<std::ffi::c_void>);

impl Decompressor {
    fn new() -> Result<Self, String> {
        // SAFETY: the call takes only a number; it returns null on failure.
        let handle = unsafe { sys::tj3Init(sys::TJINIT_TJINIT_DECOMPRESS.cast_signed()) };
        NonNull::new(handle).map(Self).ok_or_else(|| "libjpeg-turbo cannot allocate memory".into())
    }

    fn get(&self, parameter: sys::TJPARAM) -> c_int {
        // SAFETY: the handle belongs to a live decompressor.
        unsafe { sys::tj3Get(self.0.as_ptr(), parameter.cast_signed()) }
    }

    /// Turns a result code into the library's error message.
    fn checked(&self, result: c_int) -> Result<(), String> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: the handle is live; the text belongs to the library, ends in NUL and is valid until the next call.
        let text = unsafe { CStr::from_ptr(sys::tj3GetErrorStr(self.0.as_ptr())) };
        Err(format!("JPEG: {}", text.to_string_lossy()))
    }

    fn set(&self, parameter: sys::TJPARAM, value: c_int) -> Result<(), String> {
        // SAFETY: the handle is live.
        self.checked(unsafe { sys::tj3Set(self.0.as_ptr(), parameter.cast_signed(), value) })
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the handle is live and is not used after this.
        unsafe { sys::tj3Destroy(self.0.as_ptr()) }
    }
}

/// Decodes an image of form `form` into `out`.
///
/// # Errors
/// Returns the library's message; a warning, such as for a truncated image, is an error.
pub(crate) fn decode(bytes: &[u8], form: &ImageForm, out: &mut [u8], is_fast: bool) -> Result<(), String> {
    let decompressor = Decompressor::new()?;
    decompressor.set(sys::TJPARAM_TJPARAM_STOPONWARNING, 1)?;
    decompressor.set(sys::TJPARAM_TJPARAM_FASTDCT, c_int::from(is_fast))?;
    let len = bytes.len() as sys::size_t;
    // SAFETY: the library reads `len` bytes at the pointer, which is exactly `bytes`.
    decompressor.checked(unsafe { sys::tj3DecompressHeader(decompressor.0.as_ptr(), bytes.as_ptr(), len) })?;
    let (width, height) = (decompressor.get(sys::TJPARAM_TJPARAM_JPEGWIDTH), decompressor.get(sys::TJPARAM_TJPARAM_JPEGHEIGHT));
    let space = decompressor.get(sys::TJPARAM_TJPARAM_COLORSPACE);
    let is_cmyk = [sys::TJCS_TJCS_CMYK, sys::TJCS_TJCS_YCCK].contains(&space.cast_unsigned());
    let format = match form.channels {
        _ if is_cmyk => return Err("JPEG: only the builtin decoder decodes CMYK images".into()),
        1 => sys::TJPF_TJPF_GRAY,
        3 => sys::TJPF_TJPF_RGB,
        4 => sys::TJPF_TJPF_RGBA,
        other => return Err(format!("a JPEG cannot have {other} channels, only 1, 3 or 4")),
    };
    let is_as_told = u64::try_from(width) == Ok(form.width) && u64::try_from(height) == Ok(form.height);
    if !is_as_told || form.nbytes() != out.len() as u64 {
        return Err(format!("JPEG: it has {width}×{height} pixels, {form} expected"));
    }
    let pitch = c_int::try_from(memory_len(form.width * form.channels)).map_err(|error| error.to_string())?;
    // SAFETY: the library reads `len` bytes at `bytes` and writes `height` rows of `pitch` bytes to `out`. The length of `out`
    // was just checked: width × channels × height.
    let result = unsafe { sys::tj3Decompress8(decompressor.0.as_ptr(), bytes.as_ptr(), len, out.as_mut_ptr(), pitch, format) };
    decompressor.checked(result)
}

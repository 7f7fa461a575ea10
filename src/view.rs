//! This room owns the finished array: a mapped file seen through `ndarray` views. It knows nothing of conversions; start at
//! [`MmapArray`].

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use ndarray::{ArrayView, ArrayViewD, Dimension, IxDyn, ShapeBuilder};

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::{Descr, Header, MAX_TEXT_LEN};
use crate::os::SystemCalls;
use crate::output::mmap;
use crate::reader::tensor_reader::StoredRun;
use crate::source::opened::Source;
use crate::storage::input::open_file;
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::element::Element;
use crate::types::layout::Layout;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

/// Maps a tensor in place, without converting it: in a shard of a checkpoint, a `.npy`, a safetensors file or a contiguous HDF5
/// dataset. [`Tensor::in_place`](crate::Tensor::in_place) tells beforehand whether that works.
///
/// # Errors
/// [`Error::NoSuchTensor`]; [`Error::Unsupported`], naming the reason, where the bytes are not contiguous, not in this machine's
/// byte order or not aligned; and the errors of [`Tensor::reader`](crate::Tensor::reader).
///
/// # Safety
/// As [`MmapArray::open`]: nobody shortens the source's file or writes to it while the array lives.
#[expect(unsafe_code, reason = "the obligations of mapping somebody's file are the caller's")]
pub unsafe fn view(source: &Source, name: impl AsRef<[u8]>) -> Result<MmapArray> {
    let tensor = source.tensor(name)?;
    let StoredRun { file, path, offset, .. } = tensor.in_place()?;
    let info = tensor.info();
    // SAFETY: the caller vouches that nobody shortens or writes the file.
    let map = unsafe { mmap::map_foreign(&file) }.map_err(Error::io("map", &path))?;
    let descr = match (&info.item, info.spec.dtype().descr()) {
        (Some(item), _) => item.clone(),
        (None, descr) => descr.unwrap_or_default().to_owned(),
    };
    MmapArray::over(map, &path, offset, info.spec.clone(), descr, tensor.reader()?.layout())
}

/// A `.npy` array, or a tensor of another file, mapped for reading. Nothing is copied: pages are loaded when they are accessed.
///
/// Another process that shortens the file while it is mapped makes reads behind its new end fail with `SIGBUS`, and one that
/// writes to it changes what the views show. Nothing can prevent that once a file has a name. Therefore every function that
/// returns an array is an `unsafe fn`: the caller vouches that nobody does it while the array lives. Conversions replace a whole
/// file under its name, which does not touch maps of the old one.
#[derive(Debug)]
pub struct MmapArray {
    map: Mmap,
    path: PathBuf,
    data_offset: usize,
    spec: TensorSpec,
    descr: String,
    byte_order: ByteOrder,
    fortran_order: bool,
}

impl MmapArray {
    /// Maps an existing `.npy` of numbers or strings.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the file is not a complete `.npy`; [`Error::Unsupported`] for structured arrays, object arrays and
    /// dates, and for `V1` and `V2`, which [`open_as`](Self::open_as) reads; [`Error::Io`].
    ///
    /// # Safety
    /// - Nobody shortens the file while the array lives.
    /// - Nobody writes to it.
    #[expect(unsafe_code, reason = "the obligations of mapping somebody's file are the caller's")]
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the caller vouches for the same things.
        unsafe { Self::open_foreign(path.as_ref(), None) }
    }

    /// Maps an existing `.npy` as `dtype`, where the header cannot express the type: `V2` stands for bfloat16, `V1` for the types
    /// of eight bits and fewer.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::BadRequest`] when the header cannot stand for `dtype`.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[expect(unsafe_code, reason = "the obligations of mapping somebody's file are the caller's")]
    pub unsafe fn open_as(path: impl AsRef<Path>, dtype: Dtype) -> Result<Self> {
        // SAFETY: the caller vouches for the same things.
        unsafe { Self::open_foreign(path.as_ref(), Some(dtype)) }
    }

    #[expect(unsafe_code, reason = "the obligations of mapping somebody's file are the caller's")]
    unsafe fn open_foreign(path: &Path, dtype: Option<Dtype>) -> Result<Self> {
        let file = open_file(path, &SystemCalls::default()).map_err(Error::io("open", path))?;
        // SAFETY: the caller vouches that nobody shortens or writes the file.
        let map = unsafe { mmap::map_foreign(&file) }.map_err(Error::io("map", path))?;
        Self::new(map, path, dtype)
    }

    /// Reads the header of a mapped file.
    pub(crate) fn new(map: Mmap, path: &Path, dtype: Option<Dtype>) -> Result<Self> {
        let front = &map[..map.len().min(MAX_TEXT_LEN + 12)];
        let (header, data_offset) = Header::parse(front).map_err(|e| e.in_file(path))?;
        let (dtype, byte_order, text) = resolve(&header, dtype, path)?;
        let shape = header.shape.into_iter().chain(text).collect();
        let spec = TensorSpec::new(dtype, shape).map_err(|request| Error::malformed(path, ".npy header", request.to_string()))?;
        let have = map.len() as u64 - data_offset;
        if have < spec.nbytes() {
            let detail = format!("{have} bytes of data, {spec} has {}", spec.nbytes());
            return Err(Error::malformed_at(path, ".npy data", data_offset, detail));
        }
        if have > spec.nbytes() {
            let detail = format!("{} bytes follow the array: they may be further arrays, which `Source::open` lists", have - spec.nbytes());
            return Err(Error::malformed_at(path, ".npy data", data_offset + spec.nbytes(), detail));
        }
        Ok(Self {
            map,
            path: path.to_owned(),
            data_offset: memory_len(data_offset),
            spec,
            descr: header.descr,
            byte_order,
            // Strings in Fortran order have one axis, so both orders are the same.
            fortran_order: header.fortran_order && text.is_none(),
        })
    }

    /// An array over a mapped file whose elements start at `offset`, in this machine's byte order.
    fn over(map: Mmap, path: &Path, offset: u64, spec: TensorSpec, descr: String, layout: Layout) -> Result<Self> {
        let end = offset.checked_add(spec.nbytes());
        if end.is_none_or(|end| end > map.len() as u64) {
            let detail = format!("{spec} has {} bytes, the file ends after {}", spec.nbytes(), map.len());
            return Err(Error::malformed_at(path, "tensor data", offset, detail));
        }
        let (byte_order, fortran_order) = (ByteOrder::NATIVE, layout == Layout::F);
        Ok(Self { map, path: path.to_owned(), data_offset: memory_len(offset), spec, descr, byte_order, fortran_order })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The element type: that of the converted tensor, or the one in the header. Strings are seen as bytes (`uint8`) or code
    /// points (`uint32`).
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.spec.dtype()
    }

    /// The element type as the file's header spells it: `<f4`.
    #[must_use]
    pub fn descr(&self) -> &str {
        &self.descr
    }

    /// The byte order of the elements.
    #[must_use]
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// The length of every axis; empty for a scalar. Arrays of strings have one more axis: the length of a string.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.spec.shape()
    }

    /// The bytes of the elements, as the file has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.map[self.data_offset..self.data_offset + memory_len(self.spec.nbytes())]
    }

    /// The array as a view whose number of dimensions is known at run time.
    ///
    /// ```
    /// # use mmconvert::{ArrayWriter, Dtype};
    /// # let dir = tempfile::tempdir()?;
    /// let mut writer = ArrayWriter::new(Dtype::Float32, &[3]).create(dir.path().join("a.npy"))?;
    /// writer.append(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0])?;
    /// // SAFETY: nobody shortens or writes to a.npy while the array lives.
    /// let array = unsafe { writer.finish_mapped() }?;
    /// assert_eq!(array.view::<f32>()?.shape(), [2, 3]);
    /// assert_eq!(array.view::<f32>()?[[1, 0]], 3.0);
    /// assert!(array.view::<f64>().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongDtype`] when `T` is not the array's type; [`Error::Unsupported`] when another program wrote the data in the
    /// other byte order or unaligned for `T`; [`Error::Malformed`] when a `bool` array holds a byte other than 0 and 1, for which
    /// all of it is read.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        let elements = self.elements::<T>()?;
        let shape: Vec<usize> = self.shape().iter().map(|&dim| memory_len(dim)).collect();
        let shape = IxDyn(&shape).set_f(self.fortran_order);
        ArrayView::from_shape(shape, elements).map_err(|e| BadRequest::impossible(format!("{} as an ndarray view: {e}", self.spec)).into())
    }

    /// The array as a view whose number of dimensions is known at compile time: `array.view_fixed::<f32, Ix2>()`.
    ///
    /// # Errors
    /// Those of [`view`](Self::view), and [`Error::BadRequest`] when the array has another number of dimensions.
    pub fn view_fixed<T: Element, D: Dimension>(&self) -> Result<ArrayView<'_, T, D>> {
        self.view::<T>()?.into_dimensionality::<D>().map_err(|_| {
            // A view of any number of dimensions always fits.
            let asked = D::NDIM.unwrap_or_default();
            BadRequest::ViewDimensions { dtype: self.dtype().name(), shape: self.shape().to_vec(), asked }.into()
        })
    }

    fn elements<T: Element>(&self) -> Result<&[T]> {
        if !T::DTYPES.contains(&self.dtype()) {
            return Err(Error::WrongDtype { actual: self.dtype().name(), asked: T::NAME });
        }
        if self.byte_order != ByteOrder::NATIVE && self.dtype().component_size() > 1 {
            let detail = format!("the elements are {}-endian, this machine is not", self.byte_order);
            return Err(Error::Unsupported { what: format!("a view of {} in {}", T::NAME, self.path.display()), detail });
        }
        bytemuck::checked::try_cast_slice(self.as_bytes()).map_err(|error| match error {
            bytemuck::checked::CheckedCastError::InvalidBitPattern => {
                Error::malformed(&self.path, ".npy data", format!("an element is not a valid {}", T::NAME))
            }
            bytemuck::checked::CheckedCastError::PodCastError(_) => Error::Unsupported {
                what: format!("a view of {} in {}", T::NAME, self.path.display()),
                detail: format!("the data start at byte {}, which is not aligned for this type", self.data_offset),
            },
        })
    }
}

/// How `ndarray` sees an array: the dtype of the elements, their byte order, and the elements per string.
fn resolve(header: &Header, asked: Option<Dtype>, path: &Path) -> Result<(Dtype, ByteOrder, Option<u64>)> {
    let unsupported = |detail: &str| Error::Unsupported {
        what: format!("a view of {} elements in {}", header.descr, path.display()),
        detail: detail.into(),
    };
    let cannot_be = |dtype: Dtype| -> Error {
        BadRequest::NotOfDtype { path: path.to_owned(), found: header.descr.clone(), wanted: dtype.to_string() }.into()
    };
    let Some(descr) = Descr::parse(&header.descr) else {
        return Err(asked.map_or_else(|| unsupported("only numbers and strings can be viewed"), cannot_be));
    };
    let dtype = match (descr.kind, asked) {
        ('S', None | Some(Dtype::UInt8)) => Dtype::UInt8,
        ('U', None | Some(Dtype::UInt32)) => Dtype::UInt32,
        (_, Some(dtype)) if descr.can_be(dtype) => dtype,
        (_, Some(dtype)) => return Err(cannot_be(dtype)),
        (_, None) => descr.dtype().ok_or_else(|| unsupported("V1 and V2 do not say what they hold: name the dtype with `open_as`"))?,
    };
    if descr.is_text() && header.fortran_order && header.shape.len() > 1 {
        return Err(unsupported("strings can be viewed in C order only"));
    }
    Ok((dtype, descr.order, descr.is_text().then_some(descr.size)))
}

//! The finished array, as `ndarray` views over the mapped file.

use std::path::{Path, PathBuf};

use memmap2::Mmap;
use ndarray::{ArrayView, ArrayViewD, Dimension, IxDyn, ShapeBuilder};

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

/// Maps a tensor where it lies, without converting it: in a shard of a checkpoint, a `.npy`, a safetensors file, a contiguous HDF5
/// dataset. [`Tensor::in_place`](crate::Tensor::in_place) tells beforehand whether that can be done.
///
/// # Errors
/// [`Error::NoSuchTensor`]; [`Error::Unsupported`] where the bytes are not contiguous, not in this machine's byte order or not aligned,
/// with which of these it is; and as [`Tensor::reader`](crate::Tensor::reader).
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

/// A `.npy` array, or a tensor where it lies, mapped for reading. Nothing is copied: pages come from the file when they are looked at.
///
/// Another process that shortens the file while it is mapped makes reads behind its new end fail with `SIGBUS`, and
/// one that writes to it changes what the views show. Nothing can prevent that once a file has a name, so every function that
/// returns an array is an `unsafe fn`: the caller vouches that nobody does it while the array lives. Conversions only ever replace a whole file under its name, which
/// does not touch maps of the old one.
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
    /// [`Error::Malformed`] when it is no complete `.npy`, [`Error::Unsupported`] for structured and object arrays, dates, and
    /// for `V1` and `V2`, which [`open_as`](Self::open_as) reads; [`Error::Io`].
    ///
    /// # Safety
    /// - Nobody shortens the file while the array lives.
    /// - Nobody writes to it.
    #[expect(unsafe_code, reason = "the obligations of mapping somebody's file are the caller's")]
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the caller vouches for the same things.
        unsafe { Self::open_foreign(path.as_ref(), None) }
    }

    /// Maps an existing `.npy` whose header has lost the type (`V2` for bfloat16, `V1` for the eight-bit and smaller
    /// ones), as the `dtype` the caller knows it to be.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::BadRequest`] when `dtype` is not what the header can stand for.
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
        let spec = TensorSpec::new(dtype, shape).map_err(|detail| Error::malformed(path, ".npy header", detail))?;
        let have = map.len() as u64 - data_offset;
        if have < spec.nbytes() {
            let detail = format!("{have} bytes of data, {spec} has {}", spec.nbytes());
            return Err(Error::malformed_at(path, ".npy data", data_offset, detail));
        }
        if have > spec.nbytes() {
            let detail = format!("{} bytes stand behind the array: other arrays, which a source of the file has", have - spec.nbytes());
            return Err(Error::malformed_at(path, ".npy data", data_offset + spec.nbytes(), detail));
        }
        Ok(Self {
            map,
            path: path.to_owned(),
            data_offset: memory_len(data_offset),
            spec,
            descr: header.descr,
            byte_order,
            // Strings in Fortran order have one axis only, and are in both.
            fortran_order: header.fortran_order && text.is_none(),
        })
    }

    /// Elements of this machine's byte order from `offset` of a mapped file on.
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

    /// The element type: of the tensor that was converted, or as the header says. Strings are their bytes (`uint8`) or code points
    /// (`uint32`).
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.spec.dtype()
    }

    /// The element type as the header of the file writes it: `<f4`.
    #[must_use]
    pub fn descr(&self) -> &str {
        &self.descr
    }

    /// The byte order of the elements.
    #[must_use]
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// The length of every axis; empty for a scalar. Strings have one axis more, as long as an element.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.spec.shape()
    }

    /// The elements' bytes, in the order of the file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.map[self.data_offset..self.data_offset + memory_len(self.spec.nbytes())]
    }

    /// The array as a view with as many dimensions as it has.
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
    /// [`Error::WrongDtype`] when `T` is not the array's type; [`Error::Unsupported`] when the data are of the other byte order than
    /// this machine's, or not aligned for `T`, as another program may have written them; [`Error::Malformed`] when a `bool` array holds another byte than
    /// 0 and 1, for which all of it is read.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>> {
        let elements = self.elements::<T>()?;
        let shape: Vec<usize> = self.shape().iter().map(|&dim| memory_len(dim)).collect();
        let shape = IxDyn(&shape).set_f(self.fortran_order);
        ArrayView::from_shape(shape, elements).map_err(|e| Error::bad_request(format!("{} as an ndarray view: {e}", self.spec)))
    }

    /// The array as a view of a fixed number of dimensions: `array.view_fixed::<f32, Ix2>()`.
    ///
    /// # Errors
    /// As [`view`](Self::view), and [`Error::BadRequest`] when the array has another number of dimensions.
    pub fn view_fixed<T: Element, D: Dimension>(&self) -> Result<ArrayView<'_, T, D>> {
        self.view::<T>()?.into_dimensionality::<D>().map_err(|_| {
            let wanted = D::NDIM.map_or_else(|| "another number of".to_owned(), |n| n.to_string());
            Error::bad_request(format!("{} has {} dimensions, a view of {wanted} was asked for", self.spec, self.shape().len()))
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
                Error::malformed(&self.path, ".npy data", format!("an element is no valid {}", T::NAME))
            }
            bytemuck::checked::CheckedCastError::PodCastError(_) => Error::Unsupported {
                what: format!("a view of {} in {}", T::NAME, self.path.display()),
                detail: format!("the data start at byte {}, which is not aligned for it", self.data_offset),
            },
        })
    }
}

/// What a view is of: the dtype of what `ndarray` sees as elements, their byte order, and how many of them a string has.
fn resolve(header: &Header, asked: Option<Dtype>, path: &Path) -> Result<(Dtype, ByteOrder, Option<u64>)> {
    let unsupported = |detail: &str| Error::Unsupported {
        what: format!("a view of {} elements in {}", header.descr, path.display()),
        detail: detail.into(),
    };
    let cannot_be = |dtype| Error::bad_request(format!("{} holds {}, which cannot be {dtype}", path.display(), header.descr));
    let Some(descr) = Descr::parse(&header.descr) else {
        return Err(asked.map_or_else(|| unsupported("viewed are numbers and strings"), cannot_be));
    };
    let dtype = match (descr.kind, asked) {
        ('S', None | Some(Dtype::UInt8)) => Dtype::UInt8,
        ('U', None | Some(Dtype::UInt32)) => Dtype::UInt32,
        (_, Some(dtype)) if descr.can_be(dtype) => dtype,
        (_, Some(dtype)) => return Err(cannot_be(dtype)),
        (_, None) => descr.dtype().ok_or_else(|| unsupported("V1 and V2 are viewed with a dtype that says what they are"))?,
    };
    if descr.is_text() && header.fortran_order && header.shape.len() > 1 {
        return Err(unsupported("strings are viewed in C order"));
    }
    Ok((dtype, descr.order, descr.is_text().then_some(descr.size)))
}

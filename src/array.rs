//! The arrays that a tensor becomes: one, or two for strings with their offsets.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::file_name;
use crate::format::npy::Header;
use crate::options::{Layout, Options, Strings as StringMode};
use crate::rows::Rows;
use crate::source::strings::{Offsets, Padded, Strings, Text, Values};
use crate::source::{Tensor, TensorReader};
use crate::spec::TensorSpec;

/// An array in the making: where its elements come from, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Array<'a> {
    pub(crate) part: Part,
    pub(crate) reader: Box<dyn TensorReader + 'a>,
    /// The tensor's dtype, which is not the reader's where the reader makes bytes of strings.
    pub(crate) source_dtype: Dtype,
    /// Whether the reader's last axis is an element of the array.
    pub(crate) is_text: bool,
    /// The tensor's name, for messages.
    pub(crate) name: Option<String>,
    /// What is read of the source, where that is not the elements that the reader has.
    pub(crate) read_bytes: Option<u64>,
    /// Whether the reader has only the rows that are wanted.
    pub(crate) is_selected: bool,
}

/// Which of the arrays of a tensor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The only one.
    Whole,
    /// The bytes of strings.
    Values,
    /// Where strings start among the bytes.
    Offsets,
}

impl Part {
    /// What names of files have before `.npy`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Values => ".values",
            Self::Offsets => ".offsets",
        }
    }

    /// The path of this array, where `path` was given for all of the tensor: `NAME.values.npy` for `NAME.npy`.
    #[must_use]
    pub fn path(self, path: &Path) -> PathBuf {
        match path.file_name() {
            Some(name) if self != Self::Whole => {
                let stem = name.as_bytes().strip_suffix(file_name::EXTENSION.as_bytes()).unwrap_or(name.as_bytes());
                let name = [stem, self.suffix().as_bytes(), file_name::EXTENSION.as_bytes()].concat();
                path.with_file_name(OsStr::from_bytes(&name))
            }
            _ => path.to_owned(),
        }
    }
}

impl Serialize for Part {
    /// As manifests and `--json` have it: nothing where there is only one.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole => serializer.serialize_none(),
            part => serializer.collect_str(part),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Whole => "array",
            Self::Values => "values",
            Self::Offsets => "offsets",
        })
    }
}

impl<'a> Array<'a> {
    /// The array of what `reader` reads.
    pub(crate) fn of_reader(reader: Box<dyn TensorReader + 'a>) -> Self {
        Self {
            part: Part::Whole,
            source_dtype: reader.spec().dtype(),
            reader,
            is_text: false,
            name: None,
            read_bytes: None,
            is_selected: false,
        }
    }

    /// The arrays of a tensor; of strings those of `rows`, of which the lengths are read.
    pub(crate) fn of_tensor(tensor: &Tensor<'a>, rows: Option<Rows>, options: &Options) -> Result<Vec<Self>> {
        let name = Some(tensor.info().name.to_string());
        if tensor.info().spec.dtype() != Dtype::String {
            return Ok(vec![Self { name, ..Self::of_reader(tensor.reader()?) }]);
        }
        if let Some(dtype) = options.cast {
            let detail = "strings are no numbers".into();
            return Err(Error::Unsupported { what: format!("a cast from string to {dtype}"), detail });
        }
        let stored = tensor.strings()?;
        // What is computed has a shape only now.
        let spec = TensorSpec::new(Dtype::String, stored.shape.clone()).map_err(Error::bad_request)?;
        let range = spec.select(rows)?;
        let strings = Arc::new(Strings::open(stored, &range, options.verify, &options.cancel)?);
        let read_bytes = |part| if part == Part::Offsets { strings.lengths_bytes() } else { strings.stored_bytes() };
        let array = |part, reader, is_text| Self {
            part,
            reader,
            source_dtype: Dtype::String,
            is_text,
            name: name.clone(),
            read_bytes: Some(read_bytes(part)),
            is_selected: true,
        };
        Ok(match options.strings {
            StringMode::Pad => vec![array(Part::Whole, Box::new(Padded::new(Arc::clone(&strings))?), true)],
            StringMode::Utf8 => {
                vec![array(Part::Whole, Box::new(Text::new(Arc::clone(&strings), &options.cancel, options.calls())?), true)]
            }
            StringMode::Offsets => vec![
                array(Part::Values, Box::new(Values::new(Arc::clone(&strings))?), false),
                array(Part::Offsets, Box::new(Offsets::new(Arc::clone(&strings))?), false),
            ],
        })
    }

    /// What its elements are called where they are strings: bytes or code points.
    fn text_kind(&self) -> char {
        if self.reader.spec().dtype() == Dtype::UInt8 { 'S' } else { 'U' }
    }

    /// The header for the selected rows of the reader, of this shape.
    pub(crate) fn header(&self, dtype: Dtype, shape: &[u64], options: &Options) -> Result<Header> {
        let descr = dtype.descr_in(options.byte_order)?;
        let header = match shape.split_last() {
            Some((width, shape)) if self.is_text => {
                let order = if self.text_kind() == 'S' { "|" } else { &descr[..1] };
                Header::new(&format!("{order}{}{width}", self.text_kind()), shape)
            }
            _ => Header::new(&descr, shape),
        };
        Ok(if options.layout == Layout::F { header.fortran_ordered() } else { header })
    }
}

//! An array on disk against its source, element by element.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::array::Array;
use super::job::Job;
use crate::error::{Error, Result};
use crate::format::npy::{Descr, Header, MAX_TEXT_LEN};
use crate::options::{Options, Strings};
use crate::os::{self, Cold, SystemCalls};
use crate::output::file_name;
use crate::output::part::Part;
use crate::reader::checksums::Verified;
use crate::records::pass::array::RecordArray;
use crate::records::pass::output::ArrayOutput as RecordOutput;
use crate::records::pass::plan::Pass;
use crate::records::pass::run::Misfits;
use crate::source::opened::{RecordColumn, Tensor};
use crate::storage::input::open_file;
use crate::storage::paths::{Found, look_at, nearest_directory};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::{ShapeText, unravel};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Dtype, shape and every byte agree; how much of the source its own checksums vouch for.
    Equal(Verified),
    /// The first thing that differs.
    Different(Difference),
}

/// The first thing in which an array differs from its source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The element types.
    Dtype {
        /// Of the source, or of the cast that was asked for.
        expected: Dtype,
        /// What the header of an array of it says.
        descr: String,
        /// What the header of the array says.
        found: String,
    },
    /// The shapes.
    Shape {
        /// Of the source.
        expected: Vec<u64>,
        /// Of the array.
        found: Vec<u64>,
    },
    /// The length of the array's data, in bytes.
    Length {
        /// As the shape says.
        expected: u64,
        /// Behind the header.
        found: u64,
    },
    /// An element, the first in C order.
    Element {
        /// Its index in the array.
        index: Vec<u64>,
        /// Its bytes as an array of the source has them.
        expected: Vec<u8>,
        /// Its bytes in the array.
        found: Vec<u8>,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dtype { expected, descr, found } => write!(f, "the source is {expected} ({descr}), the array {found}"),
            Self::Shape { expected, found } => write!(f, "the source has shape {}, the array {}", ShapeText(expected), ShapeText(found)),
            Self::Length { expected, found } => write!(f, "the array has {found} bytes of data, its shape needs {expected}"),
            Self::Element { index, expected, found } => {
                write!(f, "element {} is {found:02x?}, the source has {expected:02x?} (bytes as they are written)", ShapeText(index))
            }
        }
    }
}

/// Compares the `.npy` at `path` with `rows` of `tensor`, or with what the cast of `options` makes of them, streaming both within
/// the memory of `options`. The array may be in either byte order, and in Fortran order.
///
/// # Errors
/// [`Error::Malformed`] when either side is broken or the source does not match its checksums,
/// [`Error::Unsupported`] for a cast that makes no sense, [`Error::Limit`], [`Error::Cancelled`], [`Error::Io`].
pub fn compare(path: impl AsRef<Path>, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    compare_file(&ArrayFile::open(path.as_ref(), &options.calls())?, tensor, rows, options)
}

/// As [`compare`], for `packed`, a tensor of another source whose bytes lie side by side: of a safetensors file that
/// [`pack`](crate::pack) made.
///
/// # Errors
/// As [`compare`], and [`Error::Unsupported`] where `packed` is stored otherwise.
pub fn compare_packed(packed: &Tensor, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    compare_file(&ArrayFile::of_tensor(packed)?, tensor, rows, options)
}

fn compare_file(file: &ArrayFile<'_>, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    let (options, part) = file.choices(tensor, options)?;
    let options = &options;
    if let Some(column) = tensor.column() {
        return compare_records(file, column, tensor, rows, options);
    }
    let arrays = Array::of_tensor(tensor, rows, options)?;
    let array = arrays.iter().find(|array| array.part == part).ok_or_else(|| Error::bad_request("there is no array to compare with"))?;
    let job = Job::new(array, rows, tensor.source().heap_bytes(), options)?;
    if let Some(difference) = file.differs_from(&job) {
        return Ok(Comparison::Different(difference));
    }
    let first = FirstDifference::new(memory_len(job.spec.itemsize()));
    // Nobody expects anything to be written beside an array that is looked at.
    let scratch: Vec<PathBuf> = [std::env::temp_dir()].into_iter().chain(nearest_directory(&file.path).map(Path::to_owned)).collect();
    let placed = job.for_each_placed(&scratch, options, |placed, found| {
        let mut rest = &mut found[..];
        for run in placed.places() {
            let (now, later) = rest.split_at_mut(memory_len(run.end - run.start));
            file.read(run.start, now, options)?;
            rest = later;
        }
        first.look(placed.bytes, found, |at| placed.position(at));
        Ok(())
    })?;
    let verified = match placed {
        Some(verified) => verified,
        None => job.for_each_decoded((&file.file, file.data_offset), options, |bytes, expected, found| {
            file.read(bytes.start, found, options)?;
            first.look(expected, found, |at| bytes.start / job.spec.itemsize() + at);
            Ok(())
        })?,
    };
    Ok(match first.found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Comparison::Equal(verified),
        Some((position, expected, found)) => {
            // Of a string, the byte or the character that differs is told by what it is.
            let width = job.spec.elements() / job.header.shape.iter().product::<u64>().max(1);
            let index = if width > 1 { unravel(position / width, &job.header.shape) } else { job.index_of(position) };
            Comparison::Different(Difference::Element { index, expected, found })
        }
    })
}

/// The same for a feature of records, which are gone through once.
fn compare_records(
    file: &ArrayFile<'_>,
    RecordColumn { records, set, feature }: RecordColumn<'_>,
    tensor: &Tensor,
    rows: Option<Rows>,
    options: &Options,
) -> Result<Comparison> {
    let mut features = vec![feature];
    if options.records.skips() {
        for other in options.records.others_skipped() {
            let other = tensor.source().tensor(other)?;
            let Some(other) = other.column() else { continue };
            if std::ptr::eq(other.records, records) && other.set == set && other.feature.key != features[0].key {
                features.push(other.feature);
            }
        }
    }
    // What the name says tells what was chosen, whether it was for this feature only or for all.
    let options = &options.clone().records(options.records.for_one(file.part != Part::Whole));
    let pass = Pass::plan(records, set, &features, rows, tensor.source().heap_bytes(), options)?;
    // Of several arrays the name tells which it is.
    let is_it = |array: &RecordArray| array.column == 0 && (array.part == Part::Offsets) == (file.part == Part::Offsets);
    let at = pass.arrays.iter().position(is_it).unwrap_or(0);
    let array = &pass.arrays[at];
    let found = file.header.shape.first().copied().unwrap_or(0);
    let expected = array.header(found, options)?;
    if Descr::parse(&file.header.descr) != Descr::parse(&expected.descr) {
        let (descr, found) = (expected.descr, file.header.descr.clone());
        return Ok(Comparison::Different(Difference::Dtype { expected: array.dtype, descr, found }));
    }
    let shape = |expected| Ok(Comparison::Different(Difference::Shape { expected, found: file.header.shape.clone() }));
    if file.header.shape != expected.shape {
        return shape(expected.shape);
    }
    let nbytes = found.saturating_mul(array.written_row());
    if file.data_len != nbytes {
        return Ok(Comparison::Different(Difference::Length { expected: nbytes, found: file.data_len }));
    }
    let itemsize = array.element().item_len();
    let first = FirstDifference::new(itemsize);
    let check = |at: u64, bytes: &[u8]| {
        // Rows that the array does not have show in the number of rows.
        let len = memory_len(nbytes.saturating_sub(at)).min(bytes.len());
        let mut found = vec![0; len];
        file.read(at, &mut found, options)?;
        first.look(&bytes[..len], &found, |element| at / itemsize as u64 + element);
        Ok(())
    };
    let ignore = |_: u64, _: &[u8]| Ok(());
    let outputs: Vec<RecordOutput<'_>> =
        (0..pass.arrays.len()).map(|index| RecordOutput::Check(if index == at { &check } else { &ignore })).collect();
    let done = pass.run(&outputs, Misfits::Refused, options).map_err(|failure| failure.error)?;
    if done.rows[at] != found {
        return shape(array.header(done.rows[at], options)?.shape);
    }
    Ok(match first.found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Comparison::Equal(pass.verified(options)),
        Some((position, expected, found)) => {
            let width = array.written_row() / itemsize as u64 * done.rows[at] / file.header.shape.iter().product::<u64>().max(1);
            let index = unravel(position / width.max(1), &file.header.shape);
            Comparison::Different(Difference::Element { index, expected, found })
        }
    })
}

/// The first element in C order that differs.
struct FirstDifference {
    itemsize: usize,
    found: Mutex<Option<Element>>,
}

/// The position of an element, its bytes as they should be and as they are.
type Element = (u64, Vec<u8>, Vec<u8>);

impl FirstDifference {
    fn new(itemsize: usize) -> Self {
        Self { itemsize, found: Mutex::default() }
    }

    /// Compares elements of which `position` tells where in the array each one is.
    fn look(&self, expected: &[u8], found: &[u8], position: impl Fn(u64) -> u64) {
        if expected == found {
            return;
        }
        let pairs = expected.chunks_exact(self.itemsize).zip(found.chunks_exact(self.itemsize)).zip(0..);
        let first = pairs.filter(|((expected, found), _)| expected != found).min_by_key(|(_, at)| position(*at));
        let Some(((expected, found), at)) = first else { return };
        let position = position(at);
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|(first, ..)| position < *first) {
            *known = Some((position, expected.to_vec(), found.to_vec()));
        }
    }
}

/// A `.npy` that is read, not mapped: it may be anybody's.
struct ArrayFile<'a> {
    path: Cow<'a, Path>,
    file: Arc<File>,
    header: Header,
    data_offset: u64,
    data_len: u64,
    cold: Cold,
    /// Which array of its tensor it is, as far as its name tells.
    part: Part,
}

/// The array that a name stands for, which may have the suffix of a part.
fn part_named(name: &[u8]) -> Part {
    let is_one = |part: &Part| name.ends_with(part.suffix().as_bytes());
    [Part::Values, Part::Offsets].into_iter().find(is_one).unwrap_or(Part::Whole)
}

impl<'a> ArrayFile<'a> {
    fn open(path: &'a Path, calls: &SystemCalls) -> Result<Self> {
        match look_at(path)? {
            Found::File => {}
            Found::Nothing => return Err(Error::NotFound { what: "array", detail: format!("there is no {}", path.display()) }),
            Found::Directory | Found::Other => return Err(Error::bad_request(format!("{} is not a regular file", path.display()))),
        }
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let mut front = vec![0; memory_len(metadata.len().min(MAX_TEXT_LEN as u64 + 12))];
        file.read_exact_at(&mut front, 0).map_err(Error::io("read", path))?;
        let (header, data_offset) = Header::parse(&front).map_err(|e| e.in_file(path))?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let part = name.strip_suffix(file_name::EXTENSION.as_bytes()).map_or(Part::Whole, part_named);
        let (path, file) = (Cow::Borrowed(path), file.shared());
        Ok(Self { path, file, header, data_offset, data_len: metadata.len() - data_offset, cold: Cold::default(), part })
    }

    /// The tensor of another source, where it lies.
    fn of_tensor(tensor: &Tensor) -> Result<Self> {
        let run = tensor.in_place()?;
        let spec = &tensor.info().spec;
        let header = Header::new(&spec.dtype().descr_in(ByteOrder::NATIVE)?, spec.shape());
        let path = Cow::Owned(run.path.to_path_buf());
        let part = part_named(tensor.info().name.as_bytes());
        Ok(Self { path, file: run.file, header, data_offset: run.offset, data_len: spec.nbytes(), cold: Cold::default(), part })
    }

    /// Reads bytes of the elements, from `at` on.
    fn read(&self, at: u64, buf: &mut [u8], options: &Options) -> Result<()> {
        os::read_exact_at(&self.file, buf, self.data_offset + at, &options.calls(), &self.cold).map_err(Error::io("read", &self.path))
    }

    /// How a tensor has to be converted to become an array with this header, as far as that can be told from it.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where it is said to have been converted otherwise.
    fn choices(&self, tensor: &Tensor, options: &Options) -> Result<(Options, Part)> {
        let descr = Descr::parse(&self.header.descr);
        let order = descr.map_or(ByteOrder::Little, |descr| descr.order);
        let layout = if self.header.fortran_order { Layout::F } else { Layout::C };
        // Elements that are copied as they are have no order of their own.
        let options = if tensor.info().item.is_some() { options.clone() } else { options.as_ordered(order) }.layout(layout);
        if tensor.is_of_records() && !descr.is_some_and(Descr::is_text) {
            return Ok((options, Part::Whole));
        }
        if tensor.info().spec.dtype() != Dtype::String {
            return Ok((options, Part::Whole));
        }
        // The array tells what became of them.
        let (strings, part) = match descr.map(|descr| descr.kind) {
            Some('u') => (Strings::Offsets, Part::Values),
            Some('i') => (Strings::Offsets, Part::Offsets),
            Some('U') => (Strings::Utf8, Part::Whole),
            _ => (Strings::Pad, Part::Whole),
        };
        match options.strings.peek() {
            Some(said) if said != strings => {
                let path = self.path.display();
                return Err(Error::bad_request(format!(
                    "{path} has strings as `strings` {strings} makes them, not as `strings` {said} does"
                )));
            }
            Some(_) => options.strings.note(),
            None => {}
        }
        Ok((options.strings(strings), part))
    }

    fn differs_from(&self, job: &Job<'_>) -> Option<Difference> {
        let (expected, found) = (&job.header, &self.header);
        let parsed = (Descr::parse(&expected.descr), Descr::parse(&found.descr));
        if parsed.0 != parsed.1 || parsed.0.is_none() && expected.descr != found.descr {
            let (descr, found) = (expected.descr.clone(), found.descr.clone());
            return Some(Difference::Dtype { expected: job.dtype(), descr, found });
        }
        if found.shape != expected.shape {
            return Some(Difference::Shape { expected: expected.shape.clone(), found: found.shape.clone() });
        }
        if self.data_len != job.spec.nbytes() {
            return Some(Difference::Length { expected: job.spec.nbytes(), found: self.data_len });
        }
        None
    }
}

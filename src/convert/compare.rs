//! Compares an array on disk with its source, element by element.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::job::Job;
use super::work::Work;
use crate::error::request::BadRequest;
use crate::error::texts::ShapeText;
use crate::error::{Error, Result};
use crate::format::npy::{Descr, Header, MAX_TEXT_LEN};
use crate::options::Options;
use crate::options::request::{Form, Request};
use crate::options::strings::Strings;
use crate::os::SystemCalls;
use crate::os::residency::Residency;
use crate::output::file_name;
use crate::output::part::Part;
use crate::reader::checksums::Verified;
use crate::records::feature::Feature;
use crate::records::pass::array::RecordArray;
use crate::records::pass::output::ArrayOutput as RecordOutput;
use crate::records::pass::plan::Pass;
use crate::source::opened::{RecordColumn, Tensor};
use crate::storage::input::open_file;
use crate::storage::paths::{Found, look_at, nearest_directory};
use crate::types::byte_order::ByteOrder;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::unravel;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Dtype, shape and every byte agree. Says how much of the source its own checksums cover.
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
        /// The source's dtype, or that of the requested cast.
        expected: Dtype,
        /// The type that a header has for it.
        descr: String,
        /// The type in the array's header.
        found: String,
    },
    /// The shapes.
    Shape {
        /// The source's shape.
        expected: Vec<u64>,
        /// The array's shape.
        found: Vec<u64>,
    },
    /// The length of the array's data, in bytes.
    Length {
        /// The length that follows from the shape.
        expected: u64,
        /// The length behind the header.
        found: u64,
    },
    /// An element, the first in C order.
    Element {
        /// Index in the array.
        index: Vec<u64>,
        /// Bytes that an array made from the source has.
        expected: Vec<u8>,
        /// Bytes that the array has.
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
                write!(f, "element {} is {found:02x?}, the source has {expected:02x?} (bytes in the order of the file)", ShapeText(index))
            }
        }
    }
}

/// Compares the `.npy` at `path` with `rows` of `tensor`, cast as `options` say. Both are streamed within the memory of
/// `options`. The array may be in either byte order and in Fortran order.
///
/// # Errors
/// [`Error::Malformed`] when either side is broken or the source does not match its checksums,
/// [`Error::Unsupported`] for a cast that does not exist, [`Error::Limit`], [`Error::Cancelled`], [`Error::Io`].
pub fn compare(path: impl AsRef<Path>, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    compare_file(&ArrayFile::open(path.as_ref(), &options.calls())?, tensor, rows, options)
}

/// As [`compare`], for `packed`, a tensor of another source with contiguous bytes: one of a safetensors file that
/// [`pack`](crate::pack) made.
///
/// # Errors
/// Those of [`compare`], and [`Error::Unsupported`] where `packed` is not contiguous.
pub fn compare_packed(packed: &Tensor, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    compare_file(&ArrayFile::of_tensor(packed)?, tensor, rows, options)
}

fn compare_file(file: &ArrayFile<'_>, tensor: &Tensor, rows: Option<Rows>, options: &Options) -> Result<Comparison> {
    let (form, part) = file.choices(tensor, &options.form)?;
    // A part's suffix in the name shows which options applied, whether they were given for this feature or for all.
    let request = options.request(rows, tensor.source().heap_bytes()).for_columns(file.part != Part::Whole);
    let request = Request { form, ..request };
    match Work::with_others(tensor, &request, |column| skipping(column, tensor, &request))? {
        Work::Jobs(jobs) => {
            let job = jobs.iter().find(|job| job.part() == part);
            compare_array(file, job.ok_or_else(|| BadRequest::impossible(format!("there are no {part}")))?, &request.run.calls)
        }
        Work::Pass(pass) => compare_column(file, &pass, &request.run.calls),
    }
}

/// The other columns whose lack leaves out records: they decide which rows there are.
fn skipping(column: &RecordColumn<'_>, tensor: &Tensor, request: &Request) -> Result<Vec<Feature>> {
    let mut others = Vec::new();
    if !request.records.skips() {
        return Ok(others);
    }
    for name in request.records.others_skipped() {
        let other = tensor.source().tensor(name)?;
        let Some(other) = other.column() else { continue };
        if std::ptr::eq(other.records, column.records) && other.set == column.set && other.feature.key != column.feature.key {
            others.push(other.feature);
        }
    }
    Ok(others)
}

/// Compares with the elements that a job reads.
fn compare_array(file: &ArrayFile<'_>, job: &Job<'_>, calls: &SystemCalls) -> Result<Comparison> {
    if let Some(difference) = file.differs_from(&job.header, job.dtype(), job.spec.nbytes()) {
        return Ok(Comparison::Different(difference));
    }
    let first = FirstDifference::new(memory_len(job.spec.itemsize()));
    // Nobody expects a comparison to write beside the array, so the temporary directory comes first.
    let scratch: Vec<PathBuf> = [std::env::temp_dir()].into_iter().chain(nearest_directory(&file.path).map(Path::to_owned)).collect();
    let placed = job.for_each_placed(&scratch, |placed, found| {
        let mut rest = &mut found[..];
        for run in placed.places() {
            let (now, later) = rest.split_at_mut(memory_len(run.end - run.start));
            file.read(run.start, now, calls)?;
            rest = later;
        }
        first.look(placed.bytes, found, |at| placed.position(at));
        Ok(())
    })?;
    let verified = match placed {
        Some(verified) => verified,
        None => job.for_each_decoded((&file.file, file.data_offset), |bytes, expected, found| {
            file.read(bytes.start, found, calls)?;
            first.look(expected, found, |at| bytes.start / job.spec.itemsize() + at);
            Ok(())
        })?,
    };
    Ok(first.comparison(verified, |position| {
        // A differing string is reported by the index of the byte or character.
        let width = job.spec.elements() / job.header.shape.iter().product::<u64>().max(1);
        if width > 1 { unravel(position / width, &job.header.shape) } else { job.index_of(position) }
    }))
}

/// Compares with a column of records, which are read once.
fn compare_column(file: &ArrayFile<'_>, pass: &Pass<'_>, calls: &SystemCalls) -> Result<Comparison> {
    // A feature may have two arrays; the file's name tells which one this is.
    let is_it = |array: &RecordArray| array.column == 0 && (array.part == Part::Offsets) == (file.part == Part::Offsets);
    let at = pass.arrays.iter().position(is_it).unwrap_or(0);
    let array = &pass.arrays[at];
    let found = file.header.shape.first().copied().unwrap_or(0);
    let nbytes = found.saturating_mul(array.written_row());
    if let Some(difference) = file.differs_from(&array.header(found), array.dtype, nbytes) {
        return Ok(Comparison::Different(difference));
    }
    let itemsize = array.element().item_len();
    let first = FirstDifference::new(itemsize);
    let check = |at: u64, bytes: &[u8]| {
        // Rows that the array lacks show up in the number of rows.
        let len = memory_len(nbytes.saturating_sub(at)).min(bytes.len());
        let mut found = vec![0; len];
        file.read(at, &mut found, calls)?;
        first.look(&bytes[..len], &found, |element| at / itemsize as u64 + element);
        Ok(())
    };
    let ignore = |_: u64, _: &[u8]| Ok(());
    let outputs: Vec<RecordOutput<'_>> =
        (0..pass.arrays.len()).map(|index| RecordOutput::Check(if index == at { &check } else { &ignore })).collect();
    let rows = pass.make(&outputs)?.rows[at];
    if rows != found {
        let (expected, found) = (array.header(rows).shape, file.header.shape.clone());
        return Ok(Comparison::Different(Difference::Shape { expected, found }));
    }
    Ok(first.comparison(pass.verified(), |position| {
        let width = array.written_row() / itemsize as u64 * rows / file.header.shape.iter().product::<u64>().max(1);
        unravel(position / width.max(1), &file.header.shape)
    }))
}

/// Finds the first differing element in C order.
struct FirstDifference {
    itemsize: usize,
    found: Mutex<Option<Element>>,
}

/// An element's position, its expected bytes and its actual bytes.
type Element = (u64, Vec<u8>, Vec<u8>);

impl FirstDifference {
    fn new(itemsize: usize) -> Self {
        Self { itemsize, found: Mutex::default() }
    }

    /// The result, with the index in the array of the element at a position.
    fn comparison(self, verified: Verified, index: impl Fn(u64) -> Vec<u64>) -> Comparison {
        match self.found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Comparison::Equal(verified),
            Some((position, expected, found)) => Comparison::Different(Difference::Element { index: index(position), expected, found }),
        }
    }

    /// Compares elements; `position` gives the position of each one in the array.
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

/// A `.npy` that is read instead of mapped, since others may change it.
struct ArrayFile<'a> {
    path: Cow<'a, Path>,
    file: Arc<File>,
    header: Header,
    data_offset: u64,
    data_len: u64,
    residency: Residency,
    /// Which array of its tensor it is, judging by its name.
    part: Part,
}

/// The part that a name stands for, judging by its suffix.
fn part_named(name: &[u8]) -> Part {
    let is_one = |part: &Part| name.ends_with(part.suffix().as_bytes());
    [Part::Values, Part::Offsets].into_iter().find(is_one).unwrap_or(Part::Whole)
}

impl<'a> ArrayFile<'a> {
    fn open(path: &'a Path, calls: &SystemCalls) -> Result<Self> {
        match look_at(path)? {
            Found::File => {}
            Found::Nothing => return Err(Error::NotFound { what: "array", detail: format!("there is no {}", path.display()) }),
            Found::Directory | Found::Other => return Err(BadRequest::NotRegular { path: path.to_owned() }.into()),
        }
        let file = open_file(path, calls).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        let mut front = vec![0; memory_len(metadata.len().min(MAX_TEXT_LEN as u64 + 12))];
        file.read_exact_at(&mut front, 0).map_err(Error::io("read", path))?;
        let (header, data_offset) = Header::parse(&front).map_err(|e| e.in_file(path))?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let part = name.strip_suffix(file_name::EXTENSION.as_bytes()).map_or(Part::Whole, part_named);
        let (path, file) = (Cow::Borrowed(path), file.shared());
        Ok(Self { path, file, header, data_offset, data_len: metadata.len() - data_offset, residency: Residency::default(), part })
    }

    /// The bytes of another source's tensor.
    fn of_tensor(tensor: &Tensor) -> Result<Self> {
        let run = tensor.in_place()?;
        let spec = &tensor.info().spec;
        let header = Header::new(&spec.dtype().descr_in(ByteOrder::NATIVE)?, spec.shape());
        let path = Cow::Owned(run.path.to_path_buf());
        let part = part_named(tensor.info().name.as_bytes());
        Ok(Self { path, file: run.file, header, data_offset: run.offset, data_len: spec.nbytes(), residency: Residency::default(), part })
    }

    /// Reads bytes of the elements, from `at` on.
    fn read(&self, at: u64, buf: &mut [u8], calls: &SystemCalls) -> Result<()> {
        self.residency.read_exact_at(&self.file, buf, self.data_offset + at, calls).map_err(Error::io("read", &self.path))
    }

    /// The form of an array with this header, as far as the header tells, and which array of its tensor it is.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where the form that was asked for says that it was converted in another way.
    fn choices(&self, tensor: &Tensor, form: &Form) -> Result<(Form, Part)> {
        let descr = Descr::parse(&self.header.descr);
        let order = descr.map_or(ByteOrder::Little, |descr| descr.order);
        // Elements that are copied as they are have no byte order to choose.
        let mut form = if tensor.info().item.is_some() { form.clone() } else { form.in_order(order) };
        form.layout = if self.header.fortran_order { Layout::F } else { Layout::C };
        if tensor.info().spec.dtype() != Dtype::String || tensor.is_of_records() && !descr.is_some_and(Descr::is_text) {
            return Ok((form, Part::Whole));
        }
        // The array itself shows which `strings` option made it.
        let (strings, part) = match descr.map(|descr| descr.kind) {
            Some('u') => (Strings::Offsets, Part::Values),
            Some('i') => (Strings::Offsets, Part::Offsets),
            Some('U') => (Strings::Utf8, Part::Whole),
            _ => (Strings::Pad, Part::Whole),
        };
        match form.strings.peek() {
            Some(said) if said != strings => {
                let (found, asked) = (strings.to_string(), said.to_string());
                return Err(BadRequest::StringsMadeAs { path: self.path.to_path_buf(), found, asked }.into());
            }
            Some(_) => form.strings.note(),
            None => {}
        }
        form.strings.set(strings);
        Ok((form, part))
    }

    fn differs_from(&self, expected: &Header, dtype: Dtype, nbytes: u64) -> Option<Difference> {
        let found = &self.header;
        let parsed = (Descr::parse(&expected.descr), Descr::parse(&found.descr));
        if parsed.0 != parsed.1 || parsed.0.is_none() && expected.descr != found.descr {
            return Some(Difference::Dtype { expected: dtype, descr: expected.descr.clone(), found: found.descr.clone() });
        }
        if found.shape != expected.shape {
            return Some(Difference::Shape { expected: expected.shape.clone(), found: found.shape.clone() });
        }
        (self.data_len != nbytes).then_some(Difference::Length { expected: nbytes, found: self.data_len })
    }
}

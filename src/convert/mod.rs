//! This room converts: one tensor ([`Converter`]), many into a directory ([`export`](export::export)), many into one safetensors
//! file ([`pack`](pack::pack)). It also compares results with sources. It knows no source formats. All verbs go one way:
//!
//! ```text
//!  options ──request──▶ plan ──jobs, passes──▶ make ──places──▶ publish
//!                       one tensor: work.rs    job/             names, all or none
//!                       many: planned.rs,      many.rs, batch.rs,
//!                       columns.rs (records)   into a destination.rs
//! ```
//!
//! Start at [`Converter`], then `work.rs` and `job/`.

pub(crate) mod array;
pub(crate) mod batch;
pub(crate) mod columns;
pub(crate) mod compare;
pub(crate) mod destination;
pub(crate) mod dry_run;
pub(crate) mod export;
pub(crate) mod exported;
pub(crate) mod job;
pub(crate) mod manifest;
pub(crate) mod many;
pub(crate) mod pack;
pub(crate) mod planned;
pub(crate) mod work;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::options::budget::Budget;
use crate::options::method::Method;
use crate::options::progress::Progress;
use crate::options::records::Lists;
use crate::options::request::Request;
use crate::options::strings::Strings;
use crate::output::mmap;
use crate::output::part::Part;
use crate::output::place::ArrayPlace;
use crate::output::report::{Estimate, Report};
use crate::output::staging::file::{StagedFile, TrialFile, publish_all};
use crate::output::staging::target::check_target;
use crate::plan::Memory;
use crate::reader::tensor_reader::TensorReader;
use crate::records::pass::plan::Pass;
use crate::source::opened::{RecordColumn, Source, Tensor};
use crate::types::byte_order::ByteOrder;
use crate::types::cancel::CancelToken;
use crate::types::dtype::Dtype;
use crate::types::layout::Layout;
use crate::types::rows::Rows;
use crate::view::MmapArray;

use array::check_rows;
use work::Work;

/// A finished array, and the report of its conversion.
#[derive(Debug)]
#[non_exhaustive]
pub struct Converted {
    /// The array, mapped.
    pub array: MmapArray,
    /// The report of the conversion.
    pub report: Report,
}

/// Converts one tensor into one `.npy` file.
///
/// ```no_run
/// use mmconvert::{Budget, Converter, Source};
///
/// let source = Source::open("model.ckpt-1000")?;
/// let tensor = source.tensor("embedding")?;
/// let converter = Converter::new(&tensor)?.memory(Budget::mib(256));
/// // SAFETY: nobody shortens or writes to embedding.npy while the array lives.
/// let converted = unsafe { converter.run("embedding.npy") }?;
/// let view = converted.array.view::<f32>()?;
/// println!("{:?}, checksums: {:?}", view.shape(), converted.report.verified);
/// # Ok::<(), mmconvert::Error>(())
/// ```
#[derive(Debug)]
pub struct Converter<'a> {
    input: Input<'a>,
    rows: Option<Rows>,
    options: Options,
}

/// The input of a conversion.
#[derive(Debug)]
enum Input<'a> {
    /// A tensor. Its arrays may depend on the options.
    Tensor(Box<Tensor>),
    /// A reader of the caller's own.
    Reader(Box<dyn TensorReader + 'a>),
}

impl<'a> Converter<'a> {
    /// A conversion of all of `tensor` with the default [`Options`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a dtype that no array can have.
    pub fn new(tensor: &Tensor) -> Result<Self> {
        tensor.check_supported()?;
        Ok(Self { input: Input::Tensor(Box::new(tensor.clone())), rows: None, options: Options::default() })
    }

    /// A conversion of all elements of `reader`.
    #[must_use]
    pub fn from_reader(reader: Box<dyn TensorReader + 'a>) -> Self {
        Self { input: Input::Reader(reader), rows: None, options: Options::default() }
    }

    /// Converts only these rows of axis 0: `10..20`, or [`Rows`] with Python's rules for negative ends.
    #[must_use]
    pub fn rows(mut self, rows: impl Into<Rows>) -> Self {
        self.rows = Some(rows.into());
        self
    }

    /// Sets all options at once.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// See [`Options::memory`].
    #[must_use]
    pub fn memory(mut self, budget: Budget) -> Self {
        self.options = self.options.memory(budget);
        self
    }

    /// See [`Options::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.options = self.options.threads(threads);
        self
    }

    /// See [`Options::verify`].
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.options = self.options.verify(verify);
        self
    }

    /// See [`Options::overwrite`].
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.options = self.options.overwrite(overwrite);
        self
    }

    /// See [`Options::cancel`].
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.options = self.options.cancel(token);
        self
    }

    /// See [`Options::progress`].
    #[must_use]
    pub fn progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.options = self.options.progress(report);
        self
    }

    /// Converts the elements to `dtype`; see [`Options::cast`].
    #[must_use]
    pub fn cast(mut self, dtype: Dtype) -> Self {
        self.options = self.options.cast(dtype);
        self
    }

    /// See [`Options::strict`].
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.options = self.options.strict(strict);
        self
    }

    /// See [`Options::byte_order`].
    #[must_use]
    pub fn byte_order(mut self, order: ByteOrder) -> Self {
        self.options = self.options.byte_order(order);
        self
    }

    /// See [`Options::layout`].
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.options = self.options.layout(layout);
        self
    }

    /// See [`Options::strings`]. [`Strings::Offsets`] makes two arrays: see [`write_parts`](Self::write_parts).
    #[must_use]
    pub fn strings(mut self, strings: Strings) -> Self {
        self.options = self.options.strings(strings);
        self
    }

    /// See [`Options::method`].
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.options = self.options.method(method);
        self
    }

    /// See [`Options::in_flight`].
    #[must_use]
    pub fn in_flight(mut self, slices: usize) -> Self {
        self.options = self.options.in_flight(slices);
        self
    }

    /// Estimates what a run with this output would read, write and use, for each array. It reads no data but the lengths of
    /// strings, and records where their number is unknown. It writes none: a byte in a nameless file shows what the file system
    /// supports.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for rows of a scalar, [`Error::Limit`] when the memory does not suffice,
    /// [`Error::Unsupported`] when the requested cast or method is not available.
    pub fn estimate(&self, output: impl AsRef<Path>) -> Result<Vec<Estimate>> {
        let request = self.request();
        let estimates = match &self.input {
            // Tensors that would have to be computed are not.
            Input::Tensor(tensor) if tensor.is_made() => {
                self.estimate_made(tensor, output.as_ref(), &request).map(|estimate| vec![estimate])
            }
            _ => self.work(&request).and_then(|work| work.estimate(output.as_ref())),
        };
        // A tensor that cannot be converted must not make an option look unused.
        if let (Err(_), Input::Tensor(tensor)) = (&estimates, &self.input) {
            request.form.note_skipped(tensor.info().spec.dtype());
        }
        estimates
    }

    /// What is known of a computed or decoded tensor without computing or decoding it.
    fn estimate_made(&self, tensor: &Tensor, output: &Path, request: &Request) -> Result<Estimate> {
        let Request { form, run, .. } = request;
        let info = tensor.info();
        let is_text = info.spec.dtype() == Dtype::String;
        if let (true, Some(dtype)) = (is_text, form.cast) {
            form.strings.note();
            return Err(Error::Unsupported { what: format!("a cast from string to {dtype}"), detail: "strings are not numbers".into() });
        }
        if let (Some((records, number)), true) = (tensor.records(), self.rows.is_none_or(|rows| rows.end.is_none())) {
            records.check_ends(records.feature(number).0)?;
        }
        check_rows(tensor, self.rows)?;
        let mut axes = info.axes();
        if self.rows.is_some() && info.has_rank && axes.is_empty() {
            return Err(BadRequest::RowsOfScalar.into());
        }
        if let (Some(rows), Some(RecordColumn { feature, .. })) = (self.rows, tensor.column()) {
            Pass::check_rows(&feature, rows)?;
        }
        if let (Some(rows), Some(first)) = (tensor.claimed_rows(), axes.first_mut()) {
            *first = Some(rows);
        }
        if let (Some(rows), Some(Some(first))) = (self.rows, axes.first_mut()) {
            let range = rows.resolve(*first);
            *first = range.end - range.start;
        }
        let dtype = form.cast.unwrap_or(info.spec.dtype());
        let descr = if is_text { "|S?".to_owned() } else { dtype.descr_in(form.order())? };
        let known: Option<Vec<u64>> = axes.iter().copied().collect();
        let elements = known.and_then(|axes| axes.iter().try_fold(1u64, |product, &axis| product.checked_mul(axis)));
        let nbytes = elements.filter(|_| info.has_rank && !is_text).and_then(|elements| elements.checked_mul(dtype.itemsize()?));
        note_choices(tensor, request);
        Ok(Estimate {
            part: Part::Whole,
            dtype,
            item: None,
            descr,
            shape: axes.iter().map(|axis| axis.unwrap_or(0)).collect(),
            axes,
            has_rank: info.has_rank,
            is_counted: nbytes.is_some(),
            nbytes: nbytes.unwrap_or(0),
            read_bytes: tensor.source().stored_bytes(),
            write_bytes: nbytes.unwrap_or(0),
            slices: 0,
            slice_bytes: 0,
            threads: Memory::Buffers.threads(run.threads),
            memory_bytes: run.budget.as_bytes(),
            method: Method::as_tried(TrialFile::near(output, &run.calls).as_deref(), run.method, nbytes)?,
        })
    }

    fn source(&self) -> Option<&Source> {
        match &self.input {
            Input::Tensor(tensor) => Some(tensor.source()),
            Input::Reader(_) => None,
        }
    }

    /// What is asked of the tensor. Its options for records are those for one feature.
    fn request(&self) -> Request {
        self.options.request(self.rows, self.source().map_or(0, Source::heap_bytes)).for_columns(true)
    }

    fn work<'b>(&'b self, request: &'b Request) -> Result<Work<'b>> {
        match &self.input {
            Input::Tensor(tensor) => Work::of(tensor, request),
            Input::Reader(reader) => Work::of_reader(Box::new(&**reader), request),
        }
    }

    /// Writes the array to `path`, where it appears complete, verified and synced, or not at all. [`run`](Self::run) also maps
    /// it.
    ///
    /// # Errors
    /// [`Error::OutputExists`] unless overwriting was chosen; [`Error::Malformed`] when a checksum does not match; [`Error::Lossy`] for
    /// a value that would change, where that is an error; [`Error::Unsupported`] for a cast that does not exist; [`Error::Limit`] when
    /// memory or disk space do not suffice; [`Error::BadRequest`] when `path` is a file of the source, or when strings become two
    /// arrays; [`Error::Cancelled`]; [`Error::Io`].
    pub fn write(self, path: impl AsRef<Path>) -> Result<Report> {
        only(self.execute(path.as_ref(), Some("write"), |_, _| Ok(()))?).map(|((), report)| report)
    }

    /// As [`write`](Self::write), and maps the array before the file gets its name, so the map shows what was written.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    ///
    /// # Safety
    /// As [`MmapArray::open`]: nobody shortens the file or writes to it while the array lives. The file has a name by then, so anybody
    /// with permission to write there could.
    #[expect(unsafe_code, reason = "the obligations of mapping a file with a name are the caller's")]
    pub unsafe fn run(self, path: impl AsRef<Path>) -> Result<Converted> {
        let view = |staged: &StagedFile, element| {
            // SAFETY: this process does not change the file any more, and the caller vouches for others.
            let map = unsafe { mmap::map_finished(staged.file()) }.map_err(Error::io("map", staged.target()))?;
            MmapArray::new(map, staged.target(), Some(element))
        };
        let (array, report) = only(self.execute(path.as_ref(), Some("run"), view)?)?;
        Ok(Converted { array, report })
    }

    /// As [`write`](Self::write), also for strings as offsets. They become two arrays, named `path` with `.values` and `.offsets`
    /// before the `.npy`. Returns the path and the report of each array.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_parts(self, path: impl AsRef<Path>) -> Result<Vec<(PathBuf, Report)>> {
        let path = path.as_ref();
        let reports = self.execute(path, None, |_, _| Ok(()))?;
        Ok(reports.into_iter().map(|((), report)| (report.part.path(path), report)).collect())
    }

    /// Writes the array to `out`, header first, front to back. Checksums are compared at the end, when the bytes are already out.
    /// After an error, discard them.
    ///
    /// # Errors
    /// Those of [`write`](Self::write), and [`Error::BadRequest`] for a tensor whose length is known only after reading it, for two
    /// arrays, and for an order of elements other than the source's.
    pub fn stream(self, out: &mut (dyn Write + Send)) -> Result<Report> {
        let started = Instant::now();
        let mut request = self.request();
        // With one worker, rows come out in order.
        request.run.threads = Some(1);
        let streamed = self.work(&request).and_then(|work| {
            self.options.check_applied()?;
            work.stream(out, started)
        });
        streamed.map_err(|error| match error {
            // The same token may have stopped the reader of the bytes, too.
            Error::Io { .. } if request.run.cancel.is_cancelled() => Error::Cancelled,
            error => error,
        })
    }

    /// Makes the checks of [`stream`](Self::stream), as far as they are possible without computing anything.
    ///
    /// # Errors
    /// Those of [`stream`](Self::stream).
    pub fn check_stream(&self) -> Result<()> {
        if let Input::Tensor(tensor) = &self.input
            && tensor.is_made()
        {
            return match tensor.column().and_then(|column| column.feature.declared) {
                Some(declared) if declared.flat => Err(BadRequest::StreamLength.into()),
                _ => Ok(()),
            };
        }
        self.work(&self.request())?.check_stream()
    }

    /// Everything that can still fail once a file is complete happens in `view`, before any file gets its name. A `taker`, the
    /// method that returns one array, is named in the error when there are two.
    fn execute<V>(
        self,
        path: &Path,
        taker: Option<&'static str>,
        view: impl Fn(&StagedFile, Dtype) -> Result<V>,
    ) -> Result<Vec<(V, Report)>> {
        let started = Instant::now();
        let request = self.request();
        let (existing, calls) = (request.run.existing, &request.run.calls);
        let is_column = matches!(&self.input, Input::Tensor(tensor) if tensor.is_of_records());
        // Check the target before anything is computed for it. Lists and offsets become two arrays, with other names.
        if !is_column && request.form.strings.peek() != Some(Strings::Offsets) {
            self.check_not_own(path)?;
            check_target(path, existing)?;
        }
        let work = self.work(&request)?;
        let arrays = work.arrays();
        if let (Some(taker), 2..) = (taker, arrays.len()) {
            return Err(BadRequest::TwoArrays { taker, instead: "use write_parts" }.into());
        }
        self.options.check_applied()?;
        // Refuse what exceeds the memory before an output exists.
        work.check_memory()?;
        let paths: Vec<PathBuf> = arrays.iter().map(|(part, _)| part.path(path)).collect();
        paths.iter().try_for_each(|path| self.check_not_own(path))?;
        let staged = StagedFile::create_all(&paths, existing, calls)?;
        let reports = work.fill(&staged.iter().map(ArrayPlace::whole).collect::<Vec<_>>(), &request, started)?;
        let viewed = |((staged, (_, element)), report)| Ok((view(staged, element)?, report));
        let done = staged.iter().zip(arrays).zip(reports).map(viewed).collect::<Result<_>>()?;
        request.run.cancel.check()?;
        publish_all(staged)?;
        Ok(done)
    }

    /// Refuses a path of the source's own files.
    fn check_not_own(&self, path: &Path) -> Result<()> {
        self.source().map_or(Ok(()), |source| source.check_not_own(path))
    }
}

/// Marks options as used that computing the tensor would use.
fn note_choices(tensor: &Tensor, Request { form, records, .. }: &Request) {
    if tensor.info().spec.dtype() == Dtype::String {
        form.strings.note();
    }
    if let Some(RecordColumn { feature, .. }) = tensor.column() {
        let name = String::from_utf8_lossy(&feature.name);
        let called = feature.called(&name);
        let is_joined = feature.declared.as_ref().is_some_and(|declared| declared.flat);
        records.note_lists(called, if is_joined { Lists::Joined } else { Lists::Alike });
        let _ = records.shape_of(called, false);
    }
}

fn only<T>(mut items: Vec<T>) -> Result<T> {
    items.pop().ok_or_else(|| BadRequest::impossible("a conversion makes no array").into())
}

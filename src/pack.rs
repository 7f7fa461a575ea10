//! Many tensors into one safetensors file, where bfloat16 and eight-bit floats keep their names.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::array::{Array, Part};
use crate::convert::Report;
use crate::decode::ByteOrder;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::export::{Export, Exported, Skipped, export, nothing_to_convert, vouch, with_offset};
use crate::format::npy::{Header, MAX_TEXT_LEN};
use crate::format::safetensors::{Plan, name_of};
use crate::job::{Job, Outcome, Output};
use crate::method::Method;
use crate::options::{Layout, Options, Strings};
use crate::paths::parent_of;
use crate::plan::{Memory, PAGE_BYTES};
use crate::rows::Rows;
use crate::sink;
use crate::source::{Name, Selection, Source, StoredArray, StoredFile, Tensor};
use crate::spec::{TensorSpec, memory_len};
use crate::staging::{ScratchDir, StagedFile, check_target, publish_all};

/// Shorter tensors are read whole and written with one call.
const SMALL: u64 = 256 << 10;
/// What is kept of each tensor until the end, beside its name: a shape, a report, its entry in the header.
const TENSOR_HEAP: usize = 1 << 10;

/// Checks that the format can hold what `options` make of a tensor, as far as that can be told without reading it.
///
/// # Errors
/// [`Error::BadRequest`] for a layout or a byte order that the format does not have, [`Error::Unsupported`] for a dtype.
pub fn check_packed(tensor: &Tensor<'_>, options: &Options) -> Result<()> {
    check_form(options)?;
    // Strings of records become arrays first.
    let is_split = tensor.is_of_records() && options.strings.peek() == Some(Strings::Offsets);
    if is_split && tensor.info().spec.dtype() == Dtype::String { tensor.check_supported() } else { check(tensor, options) }
}

fn check_form(options: &Options) -> Result<()> {
    if options.layout == Layout::F || options.asked_order() == Some(ByteOrder::Big) {
        return Err(Error::bad_request("safetensors are in C order and little-endian"));
    }
    Ok(())
}

/// Writes `tensors`, or `rows` of each, into one safetensors file at `path`, which appears complete and synced or not at
/// all. Tensors that the format cannot hold are skipped and listed: strings, handles, dtypes that it has no name for.
///
/// The file is laid out before the first byte is written: those with larger elements first, as the format's own library does it, so that
/// all are aligned.
///
/// # Errors
/// As [`Converter::write`](crate::Converter::write); [`Error::BadRequest`] for a layout or a byte order that the format does not have; [`Error::Unsupported`] when there is nothing to write.
pub fn pack(tensors: &Selection<'_>, rows: Option<Rows>, path: impl AsRef<Path>, options: &Options) -> Result<Export> {
    let (source, path) = (tensors.source(), path.as_ref());
    let options = &options.settled();
    check_form(options)?;
    let heap_bytes = tensors.iter().map(|tensor| TENSOR_HEAP + 4 * tensor.info().name.as_bytes().len()).sum::<usize>() as u64;
    let heap_bytes = heap_bytes.saturating_add(source.heap_bytes());
    let (mut planned, mut skipped) = (Vec::new(), Vec::new());
    let mut columns = tensors.clone();
    columns.retain(Tensor::is_of_records);
    for tensor in tensors.iter().filter(|tensor| !tensor.is_of_records()) {
        options.cancel.check()?;
        let name = tensor.info().name.clone();
        let origin = Origin::Tensor(tensor, rows);
        match check(tensor, options).and_then(|()| origin.spec(heap_bytes, options)) {
            Ok(spec) => planned.push(Planned { name: name.clone(), title: name.to_json(), origin, spec }),
            Err(Error::BadRequest { detail }) => return Err(Error::bad_request(format!("tensor {name}: {detail}"))),
            Err(error @ Error::Unsupported { .. }) => {
                options.note_left_out(tensor.info());
                let reason = tensor.info().unsupported.clone().unwrap_or_else(|| error.to_string());
                skipped.push(Skipped { name, reason });
            }
            Err(error) => return Err(error),
        }
    }
    if columns.is_empty() {
        options.check_applied()?;
        return write_all(source, &planned, skipped, path, heap_bytes, options);
    }
    // How many rows columns of records have is known when these have been gone through: they become arrays in a private folder beside the
    // output first.
    check_target(path, options.existing())?;
    let scratch = ScratchDir::create_in(parent_of(path))?;
    let Export { outputs, skipped: others } = export(&columns, rows, scratch.path().join("arrays"), options)?;
    skipped.extend(others);
    for Exported { name, path, report } in outputs {
        if report.dtype == Dtype::String || name_of(report.dtype).is_none() {
            skipped.push(Skipped { name, reason: refused(report.dtype).to_string() });
            continue;
        }
        let title = format!("{}{}", name.to_json(), report.part.suffix());
        let spec = TensorSpec::new(report.dtype, report.shape.clone()).map_err(Error::bad_request)?;
        planned.push(Planned { name, title, origin: Origin::Made(path, Box::new(report)), spec });
    }
    write_all(source, &planned, skipped, path, heap_bytes, options)
}

/// A tensor of the file.
struct Planned<'a> {
    name: Name,
    /// What the file calls it.
    title: String,
    origin: Origin<'a>,
    spec: TensorSpec,
}

/// Where it comes from.
enum Origin<'a> {
    Tensor(&'a Tensor<'a>, Option<Rows>),
    /// An array that was made for it, and what was done for that.
    Made(PathBuf, Box<Report>),
}

impl<'a> Origin<'a> {
    fn rows(&self) -> Option<Rows> {
        match self {
            Self::Tensor(_, rows) => *rows,
            Self::Made(..) => None,
        }
    }

    /// What is written; of an array that was made, `spec` says what its header cannot.
    fn array(&self, spec: &TensorSpec, options: &Options) -> Result<Array<'a>> {
        match self {
            Self::Tensor(tensor, rows) => {
                let array = Array::of_tensor(tensor, *rows, options)?.into_iter().find(|array| array.part == Part::Whole);
                array.ok_or_else(|| Error::bad_request(format!("tensor {} is no array", tensor.info().name)))
            }
            Self::Made(path, _) => Array::of_reader(Box::new(made_array(path, spec)?), None),
        }
    }

    fn spec(&self, heap_bytes: u64, options: &Options) -> Result<TensorSpec> {
        let array = self.array(&TensorSpec::new(Dtype::UInt8, Vec::new()).map_err(Error::bad_request)?, options)?;
        let job = Job::new(&array, self.rows(), heap_bytes, options)?;
        job.check_memory(options)?;
        TensorSpec::new(job.dtype(), job.header.shape.clone()).map_err(Error::bad_request)
    }
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::Unsupported { what: format!("{what} in safetensors"), detail: "they have no dtype for it".into() }
}

/// Refuses what the format has no dtype for.
fn check(tensor: &Tensor<'_>, options: &Options) -> Result<()> {
    tensor.check_supported()?;
    let info = tensor.info();
    let dtype = options.cast.unwrap_or(info.spec.dtype());
    match &info.item {
        Some(item) => Err(refused(item)),
        None if info.spec.dtype() == Dtype::String => Err(refused(Dtype::String)),
        None if name_of(dtype).is_none() => Err(refused(dtype)),
        None => Ok(()),
    }
}

fn write_all(
    source: &Source,
    planned: &[Planned<'_>],
    skipped: Vec<Skipped>,
    path: &Path,
    heap_bytes: u64,
    options: &Options,
) -> Result<Export> {
    if planned.is_empty() {
        return Err(nothing_to_convert(source, &skipped));
    }
    let entries: Vec<(&str, TensorSpec)> = planned.iter().map(|one| (one.title.as_str(), one.spec.clone())).collect();
    let plan = Plan::new(&entries, &[]).map_err(|detail| Error::Unsupported { what: format!("writing {}", path.display()), detail })?;
    source.check_not_own(path)?;
    let staged = StagedFile::create(path, options.existing(), options.calls())?;
    let method = Method::to_copy(staged.file(), options.method)?;
    let mut file = File { staged: &staged, method, dirty: 0, heap_bytes };
    file.begin(&plan)?;
    let mut order: Vec<usize> = (0..planned.len()).collect();
    order.sort_by_key(|&i| plan.offsets[i]);
    let total_bytes = Some(planned.iter().map(|one| one.spec.nbytes()).sum());
    let (mut done_bytes, mut reports) = (0, Vec::new());
    reports.resize_with(planned.len(), || None);
    for i in order {
        reports[i] = Some(file.write(&planned[i], plan.offsets[i], &with_offset(options, done_bytes, total_bytes))?);
        done_bytes += planned[i].spec.nbytes();
    }
    file.end(&plan)?;
    options.cancel.check()?;
    let exported =
        |(one, report): (&Planned<'_>, Option<Report>)| Some(Exported { name: one.name.clone(), path: path.to_owned(), report: report? });
    let mut outputs: Vec<Exported> = planned.iter().zip(reports).filter_map(exported).collect();
    vouch(source, &mut outputs, options);
    publish_all(vec![staged])?;
    Ok(Export { outputs, skipped })
}

/// The elements of an array that was made.
fn made_array(path: &Path, spec: &TensorSpec) -> Result<StoredArray> {
    let file = StoredFile::open(path)?;
    let front = file.read_range(&(0..file.len().min(MAX_TEXT_LEN as u64 + 12)), u64::MAX)?;
    let (_, start) = Header::parse(&front).map_err(|error| error.in_file(path))?;
    StoredArray::new(&file, start, spec.clone(), ".npy data")
}

/// The file in the making.
struct File<'a> {
    staged: &'a StagedFile,
    method: Method,
    /// Bytes of small tensors that were written and not synced.
    dirty: u64,
    heap_bytes: u64,
}

impl File<'_> {
    fn failed(&self, action: &'static str, bytes: u64) -> impl FnOnce(std::io::Error) -> Error {
        sink::write_error(self.staged.file(), self.staged.target(), action, bytes)
    }

    /// Gives the file its length, if the disk has room for it.
    fn begin(&self, plan: &Plan) -> Result<()> {
        let file = self.staged.file().file();
        if let Some(free) = crate::os::free_bytes(file).filter(|&free| free < plan.len) {
            let what = format!("disk space for {}", self.staged.target().display());
            return Err(Error::Limit { what, asked: plan.len, allowed: Some(free) });
        }
        file.set_len(plan.len).map_err(self.failed("resize", plan.len))
    }

    fn write(&mut self, planned: &Planned<'_>, start: u64, options: &Options) -> Result<Report> {
        let started = Instant::now();
        // What was asked for has been done to what was made.
        let done = Options { cast: None, strict: false, ..options.clone() };
        let options = if matches!(planned.origin, Origin::Made(..)) { &done } else { options };
        let array = planned.origin.array(&planned.spec, options)?;
        let job = Job::new(&array, planned.origin.rows(), self.heap_bytes, options)?;
        let outcome = if job.spec.nbytes() <= SMALL {
            self.write_small(&job, start, options)?
        } else {
            let output = Output { file: self.staged.file(), target: self.staged.target(), method: self.method, start: Some(start) };
            job.fill_output(&output, options)?
        };
        let report = job.report(&outcome, started);
        Ok(match &planned.origin {
            Origin::Tensor(..) => report,
            Origin::Made(_, made) => {
                Report { part: made.part, verified: made.verified, source_dtype: made.source_dtype, lost: made.lost.clone(), ..report }
            }
        })
    }

    fn write_small(&mut self, job: &Job<'_>, start: u64, options: &Options) -> Result<Outcome> {
        let len = memory_len(job.spec.nbytes());
        let plan = job.plan(Memory::Buffers, options)?;
        let (mut bytes, mut spare) = (vec![0; len], vec![0; if job.is_turned() { len } else { 0 }]);
        let verified = job.read_whole(&mut bytes, &mut spare, &plan, options)?;
        self.staged.file().write_at(&bytes, start).map_err(self.failed("write", len as u64))?;
        self.dirty += (len as u64).next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        let peak_memory = plan.shares.fixed_bytes + self.dirty.min(plan.shares.window_bytes);
        if self.dirty + SMALL > plan.shares.window_bytes {
            self.staged.file().file().sync_data().map_err(self.failed("sync", self.dirty))?;
            self.dirty = 0;
        }
        Ok(Outcome { method: self.method, verified, peak_memory })
    }

    /// Writes the header, last, and makes sure that all of it is on the disk.
    fn end(&self, plan: &Plan) -> Result<()> {
        self.staged.file().write_at(&plan.header, 0).map_err(self.failed("write", plan.header.len() as u64))?;
        self.staged.file().file().sync_all().map_err(self.failed("sync", plan.len))
    }
}

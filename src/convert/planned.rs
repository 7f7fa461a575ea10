//! Arrays of many tensors, before they are made. A planned array holds no reader, so that thousands of them take little memory:
//! the reader is opened again to make it.

use std::path::{Path, PathBuf};

use super::array::Array;
use super::exported::Skipped;
use super::job::Job;
use crate::error::request::BadRequest;
use crate::error::{Error, Result};
use crate::format::npy::{Header, MAX_TEXT_LEN};
use crate::options::request::{Form, Request};
use crate::os::SystemCalls;
use crate::output::part::Part;
use crate::output::report::Report;
use crate::reader::stored::StoredArray;
use crate::source::opened::Tensor;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::spec::TensorSpec;

/// Holes of shorter arrays are not worth a look.
const SHORT_BYTES: u64 = 256 << 10;

/// An array that is to be made.
#[derive(Debug)]
pub(crate) struct PlannedArray<'a> {
    pub(crate) name: Name,
    pub(crate) origin: ArrayOrigin<'a>,
    pub(crate) part: Part,
    /// Its dtype and shape.
    pub(crate) spec: TensorSpec,
    /// Bytes of its elements.
    pub(crate) nbytes: u64,
    /// Whether its elements are read in one order and written in another.
    pub(crate) changes_order: bool,
    /// Whether it is long and has holes.
    pub(crate) is_sparse: bool,
}

/// Where an array's elements come from.
#[derive(Debug)]
pub(crate) enum ArrayOrigin<'a> {
    Tensor(&'a Tensor),
    /// A finished `.npy` in a temporary folder, and the report of making it.
    Made(PathBuf, Box<Report>),
}

/// The result for an array: a report, or the reason why it is left out.
pub(crate) type MadeOrLeftOut = std::result::Result<Report, String>;

impl<'a> PlannedArray<'a> {
    fn of(name: &Name, origin: ArrayOrigin<'a>, job: &Job<'_>) -> Result<Self> {
        let spec = TensorSpec::new(job.dtype(), job.header.shape.clone())?;
        let (nbytes, changes_order) = (job.spec.nbytes(), job.changes_order());
        let is_sparse = nbytes > SHORT_BYTES && job.data_bytes()? < nbytes;
        Ok(Self { name: name.clone(), origin, part: job.part(), spec, nbytes, changes_order, is_sparse })
    }

    /// An array that was made before. Its `.npy` header need not express its dtype.
    pub(crate) fn made(name: Name, path: PathBuf, report: Report) -> Result<Self> {
        let spec = TensorSpec::new(report.dtype, report.shape.clone())?;
        let nbytes = spec.nbytes();
        Ok(Self {
            name,
            part: report.part,
            origin: ArrayOrigin::Made(path, Box::new(report)),
            spec,
            nbytes,
            changes_order: false,
            is_sparse: false,
        })
    }

    /// Opens its reader.
    pub(crate) fn job<'r>(&self, request: &'r Request) -> Result<Job<'r>>
    where
        'a: 'r,
    {
        let Request { rows, form, run, .. } = request;
        match &self.origin {
            ArrayOrigin::Tensor(tensor) => {
                let array = Array::of_tensor(tensor, request)?.into_iter().find(|array| array.part == self.part);
                let array = array.ok_or_else(|| BadRequest::impossible(format!("tensor {} has no {}", self.name, self.part)))?;
                Job::new(array, *rows, form, run)
            }
            ArrayOrigin::Made(path, _) => {
                let array = Array::of_reader(Box::new(made_array(path, &self.spec, &run.calls)?), None)?;
                // It has been cast already.
                Job::new(array, None, &Form { cast: None, strict: false, ..form.clone() }, run)
            }
        }
    }

    /// The report, with what is known from making it before.
    pub(crate) fn completed(&self, report: Report) -> Report {
        match &self.origin {
            ArrayOrigin::Tensor(_) => report,
            ArrayOrigin::Made(_, made) => {
                Report { verified: made.verified, part: made.part, source_dtype: made.source_dtype, lost: made.lost.clone(), ..report }
            }
        }
    }

    /// Splits a result: the report, or the reason to leave the array out, or the error that ends everything.
    pub(crate) fn or_left_out(&self, result: Result<Report>) -> Result<MadeOrLeftOut> {
        match result {
            Ok(report) => Ok(Ok(report)),
            Err(error) if self.is_lossy(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_lossy(&self, error: &Error) -> bool {
        matches!(&self.origin, ArrayOrigin::Tensor(tensor) if is_lossy(tensor, error))
    }

    /// The source, for messages.
    pub(crate) fn source_path(&self) -> &Path {
        match &self.origin {
            ArrayOrigin::Tensor(tensor) => tensor.source().path(),
            ArrayOrigin::Made(path, _) => path,
        }
    }
}

/// Plans the arrays of tensors that are not columns of records. Tensors that cannot be made as requested are skipped. `accept` may
/// refuse a tensor before it is read, and sees each of its jobs.
///
/// # Errors
/// Those of reading; [`Error::BadRequest`] for what no tensor can be asked for; [`Error::Limit`].
pub(crate) fn plan<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    request: &Request,
    skipped: &mut Vec<Skipped>,
    accept: impl Fn(&Tensor) -> Result<()>,
    mut each: impl FnMut(&PlannedArray<'_>, &Job<'_>) -> Result<()>,
) -> Result<Vec<PlannedArray<'a>>> {
    let mut planned = Vec::new();
    for tensor in tensors {
        request.run.cancel.check()?;
        let name = &tensor.info().name;
        let before = planned.len();
        let mut plan = || {
            accept(tensor)?;
            for array in Array::of_tensor(tensor, request)? {
                let job = Job::new(array, request.rows, &request.form, &request.run)?;
                job.check_memory()?;
                let array = PlannedArray::of(name, ArrayOrigin::Tensor(tensor), &job)?;
                each(&array, &job)?;
                planned.push(array);
            }
            Ok(())
        };
        match plan() {
            Ok(()) => {}
            Err(Error::BadRequest(request)) => return Err(request.of_tensor(name).into()),
            Err(error) if matches!(error, Error::Unsupported { .. }) || is_lossy(tensor, &error) => {
                planned.truncate(before);
                request.form.note_skipped(tensor.info().spec.dtype());
                let reason = tensor.info().unsupported.clone().unwrap_or_else(|| error.to_string());
                skipped.push(Skipped { name: name.clone(), reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(planned)
}

/// Whether `tensor` has strings that no array can hold unchanged.
fn is_lossy(tensor: &Tensor, error: &Error) -> bool {
    matches!(error, Error::Lossy { .. }) && tensor.info().spec.dtype() == Dtype::String
}

/// The elements of a `.npy` that was made for the purpose.
fn made_array(path: &Path, spec: &TensorSpec, calls: &SystemCalls) -> Result<StoredArray> {
    let file = Storage::open(&LocalStorage::new(calls.clone()), path)?;
    let front = file.read_range(&(0..file.len().min(MAX_TEXT_LEN as u64 + 12)), u64::MAX)?;
    let (_, start) = Header::parse(&front).map_err(|error| error.in_file(path))?;
    StoredArray::new(&file, start, spec.clone(), ".npy data")
}

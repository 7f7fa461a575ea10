//! The safetensors file that arrays are packed into.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::convert::array::Array;
use crate::convert::job::{ArrayTarget, Job};
use crate::error::{Error, Result};
use crate::format::npy::{Header, MAX_TEXT_LEN};
use crate::format::safetensors::FileLayout;
use crate::options::Options;
use crate::options::method::Method;
use crate::os::SystemCalls;
use crate::output::part::Part;
use crate::output::report::{Outcome, Report};
use crate::output::sink;
use crate::output::staging::file::StagedFile;
use crate::plan::{Memory, PAGE_BYTES};
use crate::reader::stored::StoredArray;
use crate::source::opened::Tensor;
use crate::storage::blob::Storage;
use crate::storage::local::LocalStorage;
use crate::types::dtype::Dtype;
use crate::types::name::Name;
use crate::types::rows::Rows;
use crate::types::size::memory_len;
use crate::types::spec::TensorSpec;

pub(crate) fn refused(what: impl std::fmt::Display) -> Error {
    Error::Unsupported { what: format!("{what} in safetensors"), detail: "the format has no dtype for it".into() }
}

/// The unfinished file.
pub(crate) struct File<'a> {
    pub(crate) staged: &'a StagedFile,
    pub(crate) method: Method,
    /// Bytes of small tensors that are written but not synced.
    pub(crate) dirty: u64,
    pub(crate) heap_bytes: u64,
}

impl File<'_> {
    fn failed(&self, action: &'static str, bytes: u64) -> impl FnOnce(std::io::Error) -> Error {
        sink::write_error(self.staged.file(), self.staged.target(), action, bytes)
    }

    /// Gives the file its length, if the disk has room for it. Each of the `made` arrays has so many bytes, which are freed after
    /// it has been copied.
    pub(crate) fn begin(&self, plan: &FileLayout, made: impl Iterator<Item = u64>) -> Result<()> {
        // Frees the space of an earlier layout.
        self.set_len(0)?;
        let (all, largest) = made.fold((0u64, 0), |(all, largest), bytes| (all + bytes, bytes.max(largest)));
        let asked = plan.len.saturating_sub(all).saturating_add(largest);
        if let Some(free) = crate::os::free_bytes(self.staged.file().file()).filter(|&free| free < asked) {
            let what = format!("disk space for {}", self.staged.target().display());
            return Err(Error::Limit { what, asked, allowed: Some(free) });
        }
        self.set_len(plan.len)
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.staged.file().set_len(len).map_err(self.failed("resize", len))
    }

    pub(crate) fn write(&mut self, planned: &Planned<'_>, start: u64, options: &Options) -> Result<Report> {
        let started = Instant::now();
        // A made array has been cast already.
        let done = Options { cast: None, strict: false, ..options.clone() };
        let options = if matches!(planned.origin, ArrayOrigin::Made(..)) { &done } else { options };
        let array = planned.origin.array(&planned.spec, options)?;
        let job = Job::new(&array, planned.origin.rows(), self.heap_bytes, options)?;
        let outcome = if job.spec.nbytes() <= SMALL {
            self.write_small(&job, start, options)?
        } else {
            let output = ArrayTarget { file: self.staged.file(), target: self.staged.target(), method: self.method, start: Some(start) };
            job.fill_output(&output, options)?
        };
        let report = job.report(&outcome, started);
        Ok(match &planned.origin {
            ArrayOrigin::Tensor(..) => report,
            ArrayOrigin::Made(_, made) => {
                Report { part: made.part, verified: made.verified, source_dtype: made.source_dtype, lost: made.lost.clone(), ..report }
            }
        })
    }

    fn write_small(&mut self, job: &Job<'_>, start: u64, options: &Options) -> Result<Outcome> {
        let len = memory_len(job.spec.nbytes());
        let plan = job.plan(Memory::Buffers, options)?;
        let (mut bytes, mut spare) = (vec![0; len], vec![0; if job.changes_order() { len } else { 0 }]);
        let verified = job.read_whole(&mut bytes, &mut spare, &plan, options)?;
        self.staged.file().write_at(&bytes, start).map_err(self.failed("write", len as u64))?;
        self.dirty += (len as u64).next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        let peak_memory = plan.shares.fixed_bytes + self.dirty.min(plan.shares.window_bytes);
        if self.dirty + SMALL > plan.shares.window_bytes {
            self.staged.file().sync_data().map_err(self.failed("sync", self.dirty))?;
            self.dirty = 0;
        }
        Ok(Outcome { method: self.method, verified, peak_memory })
    }

    /// Writes the header last, then syncs the file.
    pub(crate) fn end(&self, plan: &FileLayout) -> Result<()> {
        self.staged.file().write_at(&plan.header, 0).map_err(self.failed("write", plan.header.len() as u64))?;
        self.staged.file().sync_all().map_err(self.failed("sync", plan.len))
    }
}

/// A tensor of the file.
pub(crate) struct Planned<'a> {
    pub(crate) name: Name,
    /// Its name in the file.
    pub(crate) title: String,
    pub(crate) origin: ArrayOrigin<'a>,
    pub(crate) spec: TensorSpec,
}

/// The origin of a tensor's elements.
pub(crate) enum ArrayOrigin<'a> {
    Tensor(&'a Tensor, Option<Rows>),
    /// An array that was made for the file, and the report of making it.
    Made(PathBuf, Box<Report>),
}

impl Planned<'_> {
    /// The size of an array that was made for it.
    pub(crate) fn made_bytes(&self) -> Option<u64> {
        matches!(self.origin, ArrayOrigin::Made(..)).then(|| self.spec.nbytes())
    }
}

impl<'a> ArrayOrigin<'a> {
    fn rows(&self) -> Option<Rows> {
        match self {
            Self::Tensor(_, rows) => *rows,
            Self::Made(..) => None,
        }
    }

    /// The array to write. `spec` has the dtype of a made array, which its `.npy` header may not express.
    fn array(&self, spec: &TensorSpec, options: &Options) -> Result<Array<'a>> {
        match self {
            Self::Tensor(tensor, rows) => {
                let array = Array::of_tensor(tensor, *rows, options)?.into_iter().find(|array| array.part == Part::Whole);
                array.ok_or_else(|| Error::bad_request(format!("tensor {} is not an array", tensor.info().name)))
            }
            Self::Made(path, _) => Array::of_reader(Box::new(made_array(path, spec, &options.calls())?), None),
        }
    }

    pub(crate) fn spec(&self, heap_bytes: u64, options: &Options) -> Result<TensorSpec> {
        let array = self.array(&TensorSpec::new(Dtype::UInt8, Vec::new()).map_err(Error::bad_request)?, options)?;
        let job = Job::new(&array, self.rows(), heap_bytes, options)?;
        job.check_memory(options)?;
        TensorSpec::new(job.dtype(), job.header.shape.clone()).map_err(Error::bad_request)
    }
}

/// Shorter tensors are read whole and written with one call.
pub(crate) const SMALL: u64 = 256 << 10;

/// The elements of an array that was made for the file.
pub(crate) fn made_array(path: &Path, spec: &TensorSpec, calls: &SystemCalls) -> Result<StoredArray> {
    let file = Storage::open(&LocalStorage::new(calls.clone()), path)?;
    let front = file.read_range(&(0..file.len().min(MAX_TEXT_LEN as u64 + 12)), u64::MAX)?;
    let (_, start) = Header::parse(&front).map_err(|error| error.in_file(path))?;
    StoredArray::new(&file, start, spec.clone(), ".npy data")
}
